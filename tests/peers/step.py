"""Times updates of a model (forward, losses, backward, clipping, AdamW, average of the weights) by trainer and by PyTorch with
open_clip's CLIP or transformers' ViLT of the same form, in turn, and prints medians and ratios.

  python step.py --trainer ./trainer                              # ViT-B-32, batch 32, texts of 77 tokens
  python step.py --trainer ./trainer clip-emoji ViT-S-32-alt --batch 64 --rounds 5 --compile
  python step.py --trainer ./trainer clip-flickr8k --json -- --set data.path=DIR    # after --: for trainer alone
  python step.py --trainer ./trainer vilt-b32 --batch 8 -- --tokens 40 --set model.vilt.tieWords=true --set model.vision.dropout=0
                                                                  # matching and masked words, two passes; transformers' own defaults

Each round runs trainer bench step once and then the same number of updates by each PyTorch process, which stay alive between
rounds: so both meet the same machine. open_clip pads texts to the context, whatever they are, and so does this script. The
median over all updates of all rounds counts; the spread of the rounds' medians is printed beside it. Starts are new processes of each
side in turn, each after a rest: a virtual machine gives the memory of a process that has just ended back to its host after some
seconds, and pages that have to come from there again cost more than those that have not left. Nothing else may run on the machine: the
load before and after is printed, and above half a core the comparison does not count.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

# As PyTorch is well set up on a CPU: memory that was freed is kept, and MKL is not told to take another processor's code.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

REST = 6  # seconds before a start


def open_clip_loss(model, batch):
    """open_clip's model of the recipe's form, and what computes its contrastive loss of a batch with texts of the whole context."""
    import torch
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    v, t = model["Vision"], model["Text"]
    net = CLIP(
        embed_dim=model["EmbedDim"],
        quick_gelu=v["Activation"] == "quick_gelu",
        vision_cfg=dict(image_size=v["ImageSize"], patch_size=v["PatchSize"], width=v["Width"], layers=v["Depth"], head_width=v["Width"] // v["NumHeads"]),
        text_cfg=dict(context_length=t["ContextLength"], vocab_size=t["VocabSize"], width=t["Width"], layers=t["Depth"], heads=t["NumHeads"]),
    )
    pixels = torch.randn(batch, 3, v["ImageSize"], v["ImageSize"])
    ids = torch.randint(1, t["VocabSize"] - 1, (batch, t["ContextLength"]))
    ids[:, -1] = t["VocabSize"] - 1  # the largest id marks the end
    loss_of = ClipLoss()
    return net, lambda: loss_of(*net(pixels, ids))


def vilt_loss(model, batch):
    """transformers' ViLT of the recipe's form, and what computes matching and masked words of a batch in two passes, as its authors do."""
    import torch
    from transformers import ViltConfig, ViltForMaskedLM

    v, t = model["Vision"], model["Text"]
    side, context = v["ImageSize"], t["ContextLength"]
    net = ViltForMaskedLM(ViltConfig(
        hidden_size=v["Width"], num_hidden_layers=v["Depth"], num_attention_heads=v["NumHeads"], intermediate_size=4 * v["Width"],
        image_size=side, patch_size=v["PatchSize"], vocab_size=t["VocabSize"], max_position_embeddings=context,
        hidden_dropout_prob=v["Dropout"], tie_word_embeddings=model["ViLT"]["TieWords"]))
    net.add_module("itm", torch.nn.Linear(v["Width"], 2))
    ids = torch.randint(1000, t["VocabSize"], (batch, context))
    labels = torch.where(torch.rand(batch, context) < 0.15, ids, -100)
    labels[:, 1] = ids[:, 1]  # at least one
    matched = torch.randint(0, 2, (batch,))
    given = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.randn(batch, 3, side, side), pixel_mask=torch.ones(batch, side, side, dtype=torch.long))

    def loss():
        words = net(labels=labels, **given).loss
        return words + torch.nn.functional.cross_entropy(net.itm(net.vilt(**given).pooler_output), matched)

    return net, loss


def worker(recipe, batch, precision, compiled, threads):
    """Builds the recipe's model in PyTorch and runs so many updates for each line of standard input that names a number."""
    began = time.perf_counter()
    import contextlib

    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    optim = recipe["Optim"]
    net, forward = (vilt_loss if recipe["Model"]["Kind"] == "vilt" else open_clip_loss)(recipe["Model"], batch)
    net.train()
    params = list(net.parameters())
    average = [p.detach().clone() for p in params] if optim["EMA"]["Decay"] > 0 else None
    adam = torch.optim.AdamW(params, lr=optim["LR"], weight_decay=optim["WeightDecay"], betas=(optim["Beta1"], optim["Beta2"]), eps=optim["Eps"], fused=True)
    run = torch.compile(forward) if compiled else forward
    cast = (lambda: torch.autocast("cpu", torch.bfloat16)) if precision == "bf16" else contextlib.nullcontext

    def update():
        adam.zero_grad(set_to_none=True)
        with cast():
            loss = run()
        loss.backward()
        if optim["GradClipNorm"] > 0:
            torch.nn.utils.clip_grad_norm_(params, optim["GradClipNorm"])
        adam.step()
        if average is not None:
            torch._foreach_lerp_(average, params, 1 - optim["EMA"]["Decay"])
        return float(loss.detach())

    update()
    first = time.perf_counter() - began
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            update()
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        print(json.dumps(dict(seconds=seconds, first=first, peak=peak, params=sum(p.numel() for p in params))), flush=True)


class Torch:
    """A PyTorch process that makes updates when it is told to."""

    def __init__(self, name, args, recipe, batch, warm=2):
        self.name, self.seconds, self.medians = name, [], []
        command = [sys.executable, __file__, "--worker", json.dumps(recipe), "--batch", str(batch), "--precision", args.precision, "--threads", str(args.threads)]
        self.process = subprocess.Popen(command + (["--compile"] if name == "compiled" else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT)
        self.updates(warm)
        self.seconds, self.medians = [], []

    def updates(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"step.py: the PyTorch process ({self.name}) ended")
        self.last = json.loads(line)
        self.seconds += self.last["seconds"]
        if n:
            self.medians.append(statistics.median(self.last["seconds"]))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def trainer(args, model, steps, warm):
    """Runs trainer bench step and returns its result, with the seconds from the process's start to the end of the first update."""
    command = [args.trainer, "bench", "step", model, "--json", "--threads", str(args.threads), "--warm", str(warm), "--steps", str(steps)]
    command += ["--batch", str(args.batch)] if args.batch else []
    command += ["--precision", args.precision] if args.precision != "fp32" else []
    out = subprocess.run(command + args.rest, stdout=subprocess.PIPE, check=True)
    return json.loads(out.stdout)[0]


def starts(args, model, recipe, batch):
    """Seconds from the start of a process to the end of its first update, of each side in turn."""
    first = dict(trainer=[], eager=[])
    for _ in range(args.starts):
        time.sleep(REST)
        first["trainer"].append(trainer(args, model, 1, 0)["firstStep"])
        time.sleep(REST)
        p = Torch("eager", args, recipe, batch, warm=0)
        first["eager"].append(p.last["first"])
        p.close()
    return first


def compare(args, model):
    ours, medians, shares = [], [], []
    load = os.getloadavg()[0]
    probe = trainer(args, model, 1, 0)
    recipe, batch = probe["recipe"], probe["batch"]
    first = starts(args, model, recipe, batch)
    peers = [Torch("eager", args, recipe, batch)] + ([Torch("compiled", args, recipe, batch)] if args.compile else [])
    for _ in range(args.rounds):
        mine = trainer(args, model, args.updates, args.warm)
        ours += mine["times"]
        medians.append(mine["seconds"]["median"])
        shares.append(mine["share"])
        for p in peers:
            p.updates(args.updates)
    for p in peers:
        p.close()
    result = dict(model=model, batch=batch, precision=args.precision, threads=args.threads, texts=mine["texts"], rounds=args.rounds, updates=args.updates, load=[load, os.getloadavg()[0]])
    result["trainer"] = dict(seconds=statistics.median(ours), rounds=[min(medians), max(medians)], share=statistics.median(shares), peak=mine["peak"]["gflops"],
                             memory=mine["peakMemory"], params=mine["params"])
    for p in peers:
        s = statistics.median(p.seconds)
        result[p.name] = dict(seconds=s, rounds=[min(p.medians), max(p.medians)], memory=p.last["peak"], params=p.last["params"])
    fastest = min(result[p.name]["seconds"] for p in peers)
    result["ratio"] = fastest / result["trainer"]["seconds"]
    result["memoryRatio"] = result["trainer"]["memory"] / result["eager"]["memory"]
    for name, seconds in first.items():
        result[name]["first"], result[name]["starts"] = statistics.median(seconds), [min(seconds), max(seconds)]
    result["firstRatio"] = result["trainer"]["first"] / result["eager"]["first"]
    return result


def show(r):
    print(f"{r['model']}, batch {r['batch']}, {r['precision']}, {r['threads']} threads, texts: {r['texts']}; load {r['load'][0]:.1f} before, {r['load'][1]:.1f} after")
    for name in ("trainer", "eager", "compiled"):
        if name in r:
            x = r[name]
            print(f"  {name:8} {1e3 * x['seconds']:9.1f} ms ({1e3 * x['rounds'][0]:.1f} to {1e3 * x['rounds'][1]:.1f})  {r['batch'] / x['seconds']:8.1f} pairs/s  "
                  f"peak memory {x['memory'] >> 20} MiB  {x['params']} parameters" + (f"  first update after {x['first']:.1f} s ({x['starts'][0]:.1f} to {x['starts'][1]:.1f})" if "first" in x else ""))
    print(f"  speed {r['ratio']:.2f} × the faster PyTorch; share of peak {100 * r['trainer']['share']:.1f} % of {r['trainer']['peak']:.0f} GFLOP/s; memory {r['memoryRatio']:.2f} ×, "
          f"first update {r['firstRatio']:.2f} × of eager", flush=True)


def main():
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="*", default=["ViT-B-32"], help="presets and recipes of trainer")
    p.add_argument("--trainer", default="./trainer", help="the built command")
    p.add_argument("--batch", type=int, default=0, help="pairs; 0: the recipe's, of a preset 32")
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--starts", type=int, default=3, help="processes of each side whose first update is timed from the start")
    p.add_argument("--updates", type=int, default=2, help="of each side in a round")
    p.add_argument("--warm", type=int, default=1, help="of trainer, before those that are timed")
    p.add_argument("--compile", action="store_true", help="also with torch.compile")
    p.add_argument("--json", action="store_true")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    args = p.parse_args(own)
    args.rest = rest
    if args.worker:
        worker(json.loads(args.worker), args.batch, args.precision, args.compile, args.threads)
        return
    for model in args.models:
        r = compare(args, model)
        print(json.dumps(r), flush=True) if args.json else show(r)


if __name__ == "__main__":
    main()
