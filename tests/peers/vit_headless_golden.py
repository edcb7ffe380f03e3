"""Writes checkpoints/bridge/testdata/vit-hf-bare, vit-timm-bare and clip-avg: small random models and what they make of two pictures.

  python vit_headless_golden.py ../../checkpoints/bridge/testdata

vit-hf-bare is transformers' ViTModel with its pooler, vit-timm-bare timm's VisionTransformer with num_classes=0, clip-avg open_clip's CLIP whose
image tower averages its patches and has its last norm after that (final_ln_after_pool).
"""

import json
import pathlib
import sys

import open_clip
import safetensors.torch
import timm
import torch
import transformers
from open_clip.model import CLIP
from timm.models.vision_transformer import VisionTransformer

seed = 507
torch.manual_seed(seed)


def stir(model):
    """Moves every parameter away from its first value, so that each matters."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.15 * torch.randn_like(p))
    return model.eval()


def save(name, reference, model, config, io, weights):
    out = pathlib.Path(sys.argv[1]) / name
    out.mkdir(parents=True, exist_ok=True)
    io = {k: v.detach().contiguous() for k, v in io.items()}
    safetensors.torch.save_file(io, out / "io.safetensors")
    if config is None:
        model.save_pretrained(out)
    else:
        safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / weights, metadata={"format": "pt"})
        (out / "config.json").write_text(json.dumps(config) + "\n")
    golden = {
        "fixture": name, "reference": reference, "weights": weights, "script": "tests/peers/vit_headless_golden.py", "seed": seed,
        "versions": {"transformers": transformers.__version__, "timm": timm.__version__, "open_clip_torch": open_clip.__version__, "torch": torch.__version__},
        "tolerance": {"rule": "1e-5 of the largest value of a tensor: sums in another order in float32",
                      "tensors": {k: {"atol": max(1e-6, 1e-5 * v.abs().max().item())} for k, v in io.items() if not k.startswith("in.")}},
    }
    (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


pixels = torch.randn(2, 3, 24, 24)
sizes = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
hf = stir(transformers.ViTModel(transformers.ViTConfig(image_size=24, patch_size=8, **sizes)))
got = hf(pixel_values=pixels)
save("vit-hf-bare", "transformers ViTModel", hf, None,
     {"in.pixel_values": pixels, "out.last_hidden_state": got.last_hidden_state, "out.pooler_output": got.pooler_output}, "model.safetensors")

args = {"img_size": 24, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 4, "mlp_ratio": 2.5, "num_classes": 0, "global_pool": "avg", "fc_norm": True}
vit = stir(VisionTransformer(**args))
save("vit-timm-bare", "timm VisionTransformer, num_classes=0", vit, args,
     {"in.image": pixels, "out.features": vit.forward_features(pixels), "out.pooled": vit(pixels)}, "model.safetensors")

args = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 24, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "pool_type": "avg", "final_ln_after_pool": True},
    "text_cfg": {"context_length": 6, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
}
clip = stir(CLIP(**args))
text = torch.tensor([[1, 5, 7, 39, 0, 0], [1, 8, 39, 0, 0, 0]])
save("clip-avg", "open_clip CLIP, final_ln_after_pool", clip, args,
     {"in.image": pixels, "in.text": text, "out.image_raw": clip.encode_image(pixels), "out.image_features": clip.encode_image(pixels, normalize=True),
      "out.text_features": clip.encode_text(text, normalize=True)}, "open_clip_model.safetensors")
