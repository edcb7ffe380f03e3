"""Opens what "trainer weights export" wrote with transformers, open_clip and timm, and compares features with ours.

    python tests/peers/exports.py --trainer ./trainer --run runs/clip-emoji

The run is a training run, a finished model's folder or an imported one, of a dual encoder, a ViT or a ViLT. The script exports it in every format,
opens each folder with its library, gives the same pictures and sentences to both, and ends with 1 if a feature, a score or a probability differs by
more than 1e-5 of the largest.
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


def output(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE).stdout


def exported(trainer, model, fmt, out):
    """Exports a model; a form that it does not have is said and passed over."""
    p = subprocess.run([trainer, "weights", "export", model, "--format", fmt, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if p.returncode:
        print(fmt + ":", p.stderr.strip())
    return p.returncode == 0


def unit(x):
    x = x.detach().float()
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


def check(name, got, want):
    diff = np.abs(got - want).max() / np.abs(want).max()
    print(f"{name:44s} {diff:.2e} {'ok' if diff <= TOLERANCE else 'BEYOND'}")
    return diff <= TOLERANCE


def draw(folder, sizes):
    """Pictures of the model's own sizes, so that only the model is compared, not the resizing."""
    rng = np.random.default_rng(7)
    os.mkdir(folder)
    pictures = []
    for i, (h, w) in enumerate(sizes):
        pictures.append(Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)))
        pictures[-1].save(os.path.join(folder, f"{i}.png"))
    return pictures


def clip(trainer, model, tmp):
    """A dual encoder in transformers, open_clip and timm."""
    ok = True
    at = lambda *n: os.path.join(tmp, *n)  # noqa: E731
    for fmt in ("hf", "open_clip", "timm"):
        run(trainer, "weights", "export", model, "--format", fmt, "--out", at(fmt))
    side = json.load(open(at("hf", "config.json")))["vision_config"]["image_size"]
    pictures = draw(at("pictures"), [(side, side)] * 4)
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
    own = {"bpe_path": at("open_clip", "merges.txt.gz")} if os.path.exists(at("open_clip", "merges.txt.gz")) else {}
    ids = open_clip.get_tokenizer("local-dir:" + at("open_clip"), **own)(TEXTS)
    with torch.no_grad():
        ok &= check("open_clip, pictures", unit(oc.encode_image(torch.stack([transform(p) for p in pictures]))), ours["image_embeds"])
        ok &= check("open_clip, texts", unit(oc.encode_text(ids)), ours["text_embeds"])

    import timm
    from timm.data import create_transform, resolve_data_config
    tm = timm.create_model("local-dir:" + at("timm"), pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=tm))
    with torch.no_grad():
        ok &= check("timm, pictures", unit(tm(torch.stack([transform(p) for p in pictures]))), ours["image_embeds"])
    return ok


def vit(trainer, model, tmp):
    """A ViT in transformers and in timm, whichever has its form: a classifier's scores, the unit rows of one without classes."""
    ok, done = True, 0
    at = lambda *n: os.path.join(tmp, *n)  # noqa: E731
    side = json.loads(output(trainer, "weights", "show", model, "--json"))["model"]["Vision"]["ImageSize"]
    pictures = draw(at("pictures"), [(side, side)] * 4)
    run(trainer, "embed", model, "--images", at("pictures"), "--out", at("ours.safetensors"))
    ours = load_file(at("ours.safetensors"))["image_embeds"]
    if exported(trainer, model, "hf-vit", at("hf")):
        from transformers import ViTForImageClassification, ViTImageProcessor, ViTModel
        pixels = ViTImageProcessor.from_pretrained(at("hf"))(images=pictures, return_tensors="pt")
        head = load_file(at("hf", "model.safetensors"))
        headless = "classifier.weight" not in head
        with torch.no_grad():
            bare = ViTModel.from_pretrained(at("hf"), add_pooling_layer="pooler.dense.weight" in head).eval()(**pixels)
        features = bare.last_hidden_state[:, 0]
        if headless:
            ok &= check("transformers, ViTModel", unit(features if bare.pooler_output is None else bare.pooler_output), ours)
        else:
            with torch.no_grad():
                scores = ViTForImageClassification.from_pretrained(at("hf")).eval()(**pixels).logits.numpy()
            ok &= check("transformers, ViTForImageClassification", scores, ours)
            ok &= check("transformers, ViTModel and the head", features.numpy() @ head["classifier.weight"].T + head["classifier.bias"], ours)
        done += 1
    if exported(trainer, model, "timm", at("timm")):
        import timm
        from timm.data import create_transform, resolve_data_config
        tm = timm.create_model("local-dir:" + at("timm"), pretrained=True).eval()
        transform = create_transform(**resolve_data_config(model=tm))
        with torch.no_grad():
            rows = tm(torch.stack([transform(p) for p in pictures]))
        ok &= check("timm", rows.numpy() if tm.num_classes else unit(rows), ours)
        done += 1
    return ok and done > 0


def vilt(trainer, model, tmp):
    """A ViLT in transformers. That has one epsilon for all norms, so ours is the export imported again."""
    from transformers import (BertTokenizer, ViltForImageAndTextRetrieval, ViltForImagesAndTextClassification, ViltForMaskedLM,
                              ViltForQuestionAnswering, ViltImageProcessor, ViltModel)
    ok = True
    at = lambda *n: os.path.join(tmp, *n)  # noqa: E731
    run(trainer, "weights", "export", model, "--format", "hf-vilt", "--out", at("hf"))
    run(trainer, "weights", "import", at("hf"), "--out", at("ours"))
    config = json.load(open(at("hf", "config.json")))
    side, patch = config["image_size"], config["patch_size"]
    wide = (1333 * side // 800) // patch * patch
    sizes = [(side, side), (side, wide), (wide, side)]
    processor = json.load(open(at("hf", "preprocessor_config.json")))["image_processor_type"]
    pictures = draw(at("pictures"), sizes if processor == "ViltImageProcessor" else sizes[:1] * 2)
    tokenizer = BertTokenizer.from_pretrained(at("hf"))
    weights = load_file(at("hf", "model.safetensors"))

    def prepared(these):
        if processor == "ViltImageProcessor":
            return ViltImageProcessor.from_pretrained(at("hf"))(these, return_tensors="pt")
        from transformers import ViTImageProcessor
        return ViTImageProcessor.from_pretrained(at("hf"))(these, return_tensors="pt")

    def asked(names, *args):
        """Our probability of each answer."""
        said = json.loads(output(trainer, "ask", at("ours"), *args, "--top", str(len(names)), "--json"))
        return [{a["text"]: a["probability"] for a in said}[name] for name in names]

    if config["architectures"] == ["ViltForImagesAndTextClassification"]:
        hf = ViltForImagesAndTextClassification.from_pretrained(at("hf")).eval()
        names = [name for _, name in sorted(hf.config.id2label.items())]
        for i, j in [(0, len(pictures) - 1), (len(pictures) - 1, 0)]:
            pixels = {k: v.unsqueeze(0) for k, v in prepared([pictures[i], pictures[j]]).items()}
            files = ["--image", at("pictures", f"{i}.png"), "--second", at("pictures", f"{j}.png")]
            theirs, ours = [], []
            with torch.no_grad():
                for text in TEXTS:
                    theirs.append(hf(**tokenizer(text, truncation=True, return_tensors="pt"), **pixels).logits[0].softmax(-1).numpy())
                    ours.append(asked(names, *files, text))
            ok &= check(f"transformers, {type(hf).__name__}, {i} and {j}", np.array(theirs), np.array(ours))
        return ok
    for i, picture in enumerate(pictures):
        pixels = prepared(picture)
        file = at("pictures", f"{i}.png")
        where = f"{picture.size[0]} x {picture.size[1]}"
        with torch.no_grad():
            if "itm_score.fc.weight" in weights:
                said = json.loads(output(trainer, "score", at("ours"), "--image", file, "--text", TEXTS[1], "--json"))
                pooled = ViltModel.from_pretrained(at("hf")).eval()(**tokenizer(TEXTS[1], return_tensors="pt"), **pixels).pooler_output.numpy()[0]
                logits = weights["itm_score.fc.weight"] @ pooled + weights["itm_score.fc.bias"]
                scale = np.abs(logits).max()  # the log odds are a difference
                ok &= check("transformers, ViltModel and the matching head, " + where, np.array([(logits[1] - logits[0]) / scale, 1]), np.array([said["logOdds"] / scale, 1]))
            if "rank_output.weight" in weights:
                hf = ViltForImageAndTextRetrieval.from_pretrained(at("hf")).eval()
                theirs = [hf(**tokenizer(text, truncation=True, return_tensors="pt"), **pixels).logits.item() for text in TEXTS]
                ours = [json.loads(output(trainer, "score", at("ours"), "--image", file, "--text", text, "--json"))["logOdds"] for text in TEXTS]
                ok &= check("transformers, ViltForImageAndTextRetrieval, " + where, np.array(theirs), np.array(ours))
            if config["architectures"] == ["ViltForQuestionAnswering"]:
                hf = ViltForQuestionAnswering.from_pretrained(at("hf")).eval()
                names = [name for _, name in sorted(hf.config.id2label.items())]
                classes = config.get("problem_type") == "single_label_classification"
                theirs, ours = [], []
                for text in TEXTS:
                    logits = hf(**tokenizer(text, truncation=True, return_tensors="pt"), **pixels).logits[0]
                    theirs.append((logits.softmax(-1) if classes else logits.sigmoid()).numpy())
                    ours.append(asked(names, "--image", file, text))
                ok &= check(f"transformers, ViltForQuestionAnswering{' of classes' if classes else ''}, {where}", np.array(theirs), np.array(ours))
            if "mlm_score.transform.dense.weight" in weights:
                text = "a [MASK] apple on a [MASK]"
                words = json.loads(output(trainer, "fill", at("ours"), "--image", file, text, "--top", str(config["vocab_size"]), "--json"))
                ids = tokenizer(text, truncation=True, return_tensors="pt")
                logits = ViltForMaskedLM.from_pretrained(at("hf")).eval()(**ids, **pixels).logits[0]
                for k, place in enumerate((ids["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]):
                    theirs = logits[place].double().softmax(-1)
                    ours = np.zeros(len(theirs))
                    for w in words[k]:
                        ours[tokenizer.convert_tokens_to_ids(w["text"])] = w["probability"]
                    ok &= check(f"transformers, ViltForMaskedLM, word {k + 1}, " + where, theirs.numpy(), ours)
    return ok


def main(trainer, model):
    names = {t["name"] for t in json.loads(output(trainer, "weights", "show", model, "--json"))["tensors"]}
    if "transformer.patch_embed.proj.weight" in names:
        compare = vilt
    else:
        compare = clip if "visual.conv1.weight" in names else vit
    with tempfile.TemporaryDirectory() as tmp:
        return 0 if compare(trainer, model, tmp) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", required=True, help="the built command")
    parser.add_argument("--run", required=True, help="a run, or the folder of a model")
    args = parser.parse_args()
    sys.exit(main(args.trainer, args.run))
