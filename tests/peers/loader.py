"""Pictures per second of the usual Python path: files decoded by Pillow and resized, cropped and normalised by torchvision's
transforms in a DataLoader with two workers. `go test ./data/transform -bench Photo` does the same with the same files.

  python loader.py FOLDER [--make 200] [--workers 2] [--size 224] [--seconds 8]

With --make it first writes so many 640x480 JPEG files (quality 90, 4:2:0) that a seed draws: soft shapes, edges and a little grain,
about 60 kB each.
"""

import argparse
import pathlib
import time

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image


def make(folder, count):
    """Draws pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for i in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((640, 480), Image.BICUBIC)
        edges = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((640, 480), Image.NEAREST)
        a = np.asarray(Image.blend(soft, edges, 0.2)).astype(np.float32) + rng.normal(0, 5, (480, 640, 1))
        Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(folder / f"{i:04d}.jpg", quality=90, subsampling=2)


class Pictures(torch.utils.data.Dataset):
    """The files, again and again."""

    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return 1 << 30

    def __getitem__(self, i):
        return self.transform(Image.open(self.files[i % len(self.files)]).convert("RGB"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--make", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    if args.make:
        make(args.folder, args.make)
    files = sorted(args.folder.glob("*.jpg"))
    bicubic = T.InterpolationMode.BICUBIC
    end = [T.ToTensor(), T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))]
    for name, ops in (
        ("evaluation: resize, centre crop", [T.Resize(args.size, bicubic), T.CenterCrop(args.size)]),
        ("training: random resized crop, flip", [T.RandomResizedCrop(args.size, (0.9, 1), interpolation=bicubic), T.RandomHorizontalFlip()]),
    ):
        loader = torch.utils.data.DataLoader(Pictures(files, T.Compose(ops + end)), batch_size=64, num_workers=args.workers)
        batches = iter(loader)
        for _ in range(4):  # until the workers run
            next(batches)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < args.seconds:
            count += len(next(batches))
        print(f"{name}: {count / (time.perf_counter() - begin):.0f} pictures/s, {args.workers} workers, {args.size} px", flush=True)
        del batches


if __name__ == "__main__":
    main()
