"""Compares the frozen text tower of experiments/lit-minilm-emoji.yaml with transformers: the vectors of 200 sentences.

  experiments/fetch-minilm.sh
  ./trainer pretrain experiments/lit-minilm-emoji.yaml --out runs/one --set train.steps=1 --set train.evalEvery=0 \\
    --set model.text.projection=none --set model.embedDim=384 --set 'eval.splits=[val]'
  python tests/peers/minilm.py --trainer ./trainer --run runs/one --model models/minilm

The sentences are made of words, numbers, accents, CJK, emoji and punctuation, one to 40 words long; --texts FILE takes others,
one a line. It prints the least cosine and ends with 1 if that is below 0.99999, or if the tokens of a sentence differ.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import transformers

WORDS = ("a photo of the large small red blue two dogs cat's riding horse-drawn near x-ray café naïve O'Brien 3 42 1990s don't tall_building #sunset "
         "50% $20 e.g. U.S. über señor façade 日本 東京 🐱 ❤️ unaffable skateboarder kickflip supercalifragilistic — “quoted” (sic) grinning face with").split()


def sentences(n):
    rng = random.Random(7)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 20 if i % 2 else 8))) for i in range(n)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trainer", required=True)
    p.add_argument("--run", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--texts", type=pathlib.Path)
    a = p.parse_args()
    texts = a.texts.read_text().splitlines() if a.texts else sentences(200)
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        (d / "texts.txt").write_text("\n".join(texts) + "\n")
        subprocess.run([a.trainer, "embed", a.run, "--texts", d / "texts.txt", "--out", d / "x.safetensors"], check=True, stdout=subprocess.DEVNULL)
        ours = safetensors.torch.load_file(d / "x.safetensors")["text_embeds"]
        ids = json.loads(subprocess.run(
            [a.trainer, "data", "tokenizer", "encode", "--wordpiece", "--file", f"{a.model}/tokenizer.json", "--json", "--", *texts], check=True, capture_output=True).stdout)
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=f"{a.model}/tokenizer.json")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    differ = [t for t, e in zip(texts, ids) if tokenizer(t)["input_ids"] != e["ids"]]
    model = transformers.BertModel.from_pretrained(a.model).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        h = model(**batch).last_hidden_state
    m = batch["attention_mask"][..., None]
    theirs = torch.nn.functional.normalize((h * m).sum(1) / m.sum(1), dim=1)
    cos = (ours.double() * theirs.double()).sum(1) / ours.double().norm(dim=1) / theirs.double().norm(dim=1)
    print(f"{len(texts)} sentences: least cosine {cos.min():.9f}, largest difference {(ours - theirs).abs().max():.2e}, tokens differ in {len(differ)}")
    sys.exit(1 if differ or cos.min() < 0.99999 else 0)


if __name__ == "__main__":
    main()
