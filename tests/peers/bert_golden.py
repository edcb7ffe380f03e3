"""Writes model/testdata/bert: a small random BertModel of transformers, three sentences of different lengths, what it makes of
them, and gradients.

  python bert_golden.py ../../model/testdata/bert

io.safetensors: in.ids and in.mask (3, 9), in.weights (3, 32); out.mean and out.first (3, 32), the mean of a sentence's rows
and the row of its first token; grad.mean.* and grad.first.*, of the sum of weights times either.
"""

import json
import pathlib
import sys

import safetensors.torch
import torch
import transformers

torch.manual_seed(502)
config = transformers.BertConfig(
    vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, max_position_embeddings=12, type_vocab_size=2,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12, initializer_range=0.2)
model = transformers.BertModel(config, add_pooling_layer=False).eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        if "LayerNorm" in name or name.endswith("bias"):
            p.add_(0.1 * torch.randn_like(p))

lengths = [9, 3, 6]
ids = torch.zeros(3, 9, dtype=torch.long)
mask = torch.zeros(3, 9, dtype=torch.long)
for i, n in enumerate(lengths):
    ids[i, :n] = torch.randint(1, 60, (n,))
    mask[i, :n] = 1
weights = torch.randn(3, 32)
io = {"in.ids": ids, "in.mask": mask, "in.weights": weights}
for pool in "mean", "first":
    model.zero_grad()
    h = model(input_ids=ids, attention_mask=mask).last_hidden_state
    out = h[:, 0] if pool == "first" else (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    (out * weights).sum().backward()
    io["out." + pool] = out.detach().contiguous()
    for name, p in model.named_parameters():
        if p.grad is not None:
            io[f"grad.{pool}.{name}"] = p.grad.clone()

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
safetensors.torch.save_file(io, out / "io.safetensors")
safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors", metadata={"format": "pt"})
config.architectures = ["BertModel"]
config.to_json_file(out / "config.json")
golden = {
    "fixture": "bert", "reference": "transformers BertModel", "weights": "model.safetensors", "script": "tests/peers/bert_golden.py", "seed": 502,
    "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
    "tolerance": {"rule": "1e-5 of the largest value of a tensor: sums in another order in float32",
                  "tensors": {k: {"atol": max(1e-6, 1e-5 * v.abs().max().item())} for k, v in io.items() if not k.startswith("in.")}},
}
(out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
