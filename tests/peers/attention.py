"""Times attention, forward and backward, from packed queries, keys and values to joined heads, by trainer and by PyTorch's
scaled_dot_product_attention with the transposes that it needs, in turn, and prints medians and ratios.

  python attention.py --trainer ./trainer --rounds 5

The shapes are those of trainer bench attention. Each round runs it once and then the same number of passes of each shape by
PyTorch; the median over all passes counts. Nothing else may run on the machine: the load is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

os.environ.update({"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33), "CUDA_VISIBLE_DEVICES": ""})


def passes(shape, precision, tries):
    """Seconds of so many passes by PyTorch, after one that does not count."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    n, length, heads, dim = shape["sequences"], shape["tokens"], shape["heads"], shape["headDim"]
    packed = torch.randn(n, length, 3 * heads * dim, dtype=dtype, requires_grad=True)
    slope = torch.randn(n, length, heads * dim, dtype=dtype)
    seconds = []
    for _ in range(1 + tries):
        packed.grad = None
        began = time.perf_counter()
        q, k, v = packed.view(n, length, 3, heads, dim).permute(2, 0, 3, 1, 4)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=shape["causal"])
        out.transpose(1, 2).reshape(n, length, heads * dim).backward(slope)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trainer", default="./trainer", help="the built command")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--tries", type=int, default=9, help="passes of each shape in a round")
    p.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    if not args.json:
        print(f"load {load:.1f} before")
    for precision in args.precision:
        command = [args.trainer, "bench", "attention", "--json", "--threads", str(args.threads), "--tries", str(args.tries), "--precision", precision]
        shapes, ours, theirs = None, [], []
        for _ in range(args.rounds):
            shapes = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["shapes"]
            ours.append([s["forward"]["median"] + s["backward"]["median"] for s in shapes])
            theirs.append([statistics.median(passes(s, precision, args.tries)) for s in shapes])
        for i, s in enumerate(shapes):
            a, b = [r[i] for r in ours], [r[i] for r in theirs]
            ratios = sorted(y / x for x, y in zip(a, b))
            result = dict(precision=precision, tokens=s["tokens"], sequences=s["sequences"], heads=s["heads"], headDim=s["headDim"], causal=s["causal"],
                          trainer=statistics.median(a), torch=statistics.median(b), ratio=statistics.median(ratios), least=ratios[0], most=ratios[-1])
            if args.json:
                print(json.dumps(result), flush=True)
                continue
            print(f"{precision} {s['tokens']:4} tokens × {s['sequences']:3}, {s['heads']:2} heads of {s['headDim']}{', causal' if s['causal'] else ''}: "
                  f"trainer {1e3 * result['trainer']:.2f} ms, PyTorch {1e3 * result['torch']:.2f} ms, ratio {result['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
