"""Opens what "trainer weights export" wrote with transformers, open_clip and timm, and compares features with ours.

    python tests/peers/exports.py --trainer ./trainer --run runs/clip-emoji

The run is a training run, a finished model's folder or an imported one, of a dual encoder. The script exports it in every format, opens each
folder with its library, encodes the same pictures and sentences with both, and ends with 1 if a feature differs by more than 1e-5 of the largest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

TEXTS = ["a red apple", "two dogs on the beach", "a house", "the quick brown fox jumps over the lazy dog"]
TOLERANCE = 1e-5


def run(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)


def unit(x):
    x = x.detach().float()
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


def check(name, got, want):
    diff = np.abs(got - want).max() / np.abs(want).max()
    print(f"{name:44s} {diff:.2e} {'ok' if diff <= TOLERANCE else 'BEYOND'}")
    return diff <= TOLERANCE


def main(trainer, model):
    ok = True
    with tempfile.TemporaryDirectory() as tmp:
        at = lambda *n: os.path.join(tmp, *n)  # noqa: E731
        for fmt in ("hf", "open_clip", "timm"):
            run(trainer, "weights", "export", model, "--format", fmt, "--out", at(fmt))
        side = json.load(open(at("hf", "config.json")))["vision_config"]["image_size"]
        rng = np.random.default_rng(7)
        os.mkdir(at("pictures"))
        pictures = []
        for i in range(4):  # of the model's own size, so that only the model is compared, not the resizing
            pictures.append(Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)))
            pictures[-1].save(at("pictures", f"{i}.png"))
        with open(at("texts.txt"), "w") as f:
            f.write("\n".join(TEXTS) + "\n")
        run(trainer, "embed", model, "--images", at("pictures"), "--texts", at("texts.txt"), "--out", at("ours.safetensors"))
        ours = load_file(at("ours.safetensors"))

        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer
        hf = CLIPModel.from_pretrained(at("hf")).eval()
        tokens = CLIPTokenizer.from_pretrained(at("hf"))(TEXTS, padding=True, return_tensors="pt")
        pixels = CLIPImageProcessor.from_pretrained(at("hf"))(images=pictures, return_tensors="pt")
        with torch.no_grad():
            out = hf(**tokens, **pixels)
        ok &= check("transformers, pictures", out.image_embeds.numpy(), ours["image_embeds"])
        ok &= check("transformers, texts", out.text_embeds.numpy(), ours["text_embeds"])

        import open_clip
        cfg = json.load(open(at("open_clip", "open_clip_config.json")))
        open_clip.factory._MODEL_CONFIGS["exported"] = cfg["model_cfg"]
        prep = cfg["preprocess_cfg"]
        oc, _, transform = open_clip.create_model_and_transforms(
            "exported", pretrained=at("open_clip", "open_clip_model.safetensors"), image_mean=prep["mean"], image_std=prep["std"],
            image_interpolation=prep["interpolation"], image_resize_mode=prep["resize_mode"])
        oc.eval()
        ids = tokens["input_ids"]
        length = cfg["model_cfg"]["text_cfg"]["context_length"]
        ids = torch.nn.functional.pad(ids, (0, length - ids.shape[1]))
        eot = hf.config.text_config.eos_token_id
        for row in ids:  # after the first end mark, zeros
            row[(row == eot).nonzero()[0, 0] + 1:] = 0
        with torch.no_grad():
            ok &= check("open_clip, pictures", unit(oc.encode_image(torch.stack([transform(p) for p in pictures]))), ours["image_embeds"])
            ok &= check("open_clip, texts", unit(oc.encode_text(ids)), ours["text_embeds"])

        import timm
        from timm.data import create_transform, resolve_data_config
        tm = timm.create_model("local-dir:" + at("timm"), pretrained=True).eval()
        transform = create_transform(**resolve_data_config(model=tm))
        with torch.no_grad():
            ok &= check("timm, pictures", unit(tm(torch.stack([transform(p) for p in pictures]))), ours["image_embeds"])
    return 0 if ok else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", required=True, help="the built command")
    parser.add_argument("--run", required=True, help="a run, or the folder of a model")
    args = parser.parse_args()
    sys.exit(main(args.trainer, args.run))
