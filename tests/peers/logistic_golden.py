"""Writes eval/testdata/logistic.json: multinomial logistic regression by scikit-learn on random features of three overlapping
classes of different sizes, at four strengths of the regularisation.

  python tests/peers/logistic_golden.py eval/testdata/logistic.json

x (90, 5) and labels (90); per fit lambda (1/C), coef (3, 5), intercept (3), and loss, the mean cross-entropy and
lambda/2N times the squares of coef.
"""

import json
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(503)
labels = np.repeat([0, 1, 2], [45, 30, 15])
x = (rng.normal(size=(90, 5)) + rng.normal(size=(3, 5))[labels]).astype(np.float32).astype(np.float64)
fits = []
for lam in [1e-2, 1.0, 10.0, 1e3]:
    m = LogisticRegression(C=1 / lam, tol=1e-10, max_iter=100000).fit(x, labels)
    z = x @ m.coef_.T + m.intercept_
    z -= z.max(1, keepdims=True)
    nll = np.log(np.exp(z).sum(1)) - z[np.arange(90), labels]
    loss = nll.mean() + lam / 2 / 90 * (m.coef_**2).sum()
    fits.append({"lambda": lam, "coef": m.coef_.tolist(), "intercept": m.intercept_.tolist(), "loss": loss})
with open(sys.argv[1], "w") as f:
    json.dump({"x": x.tolist(), "labels": labels.tolist(), "fits": fits}, f)
