package losses

import "diptych/ops"

// sigmoid is the pairwise sigmoid loss of Zhai et al. 2023, §3.2 and Algorithm 1, over the N pairs of the global batch:
//
//	L = -1/N Σ_i Σ_j log σ(z_ij·(t·x_i·y_j + b))    z_ij = +1 if i = j, else -1;  t = exp(logScale)
//
// With groupTargets z_ij is +1 for all pairs of the same group. L is in nats per picture. The paper's display equation gives b
// the other sign; this follows Algorithm 1, as all code does.
func sigmoid(g *ops.Graph, f *features, c Config) *ops.Node {
	groups := f.groups
	if !c.GroupTargets {
		groups = nil
	}
	return g.SigmoidLoss(f.x, f.y, f.logScale, f.bias, groups)
}
