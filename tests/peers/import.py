"""How fast pictures with COCO captions become a data set: `trainer data import coco` against the same written in Python with
pyarrow (an Arrow file of the same columns) and with webdataset (tar shards of picture and JSON).

  python import.py --trainer ./trainer --data DIR [--rounds 5]      # DIR has images/ and annotations/captions_SPLIT.json

All sides read the same files and write to the same disk, and all sync what they wrote: an import that is not on the disk is not
done. Each round runs every side once, in turn, so that what else the machine does meets all alike. Python's side is timed inside
the process, without its start and its imports; trainer's is the whole command, from the shell's point of view.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import pyarrow as pa
import webdataset as wds


def records(data):
    """Yields id, split, captions and picture of every image, in the files' order."""
    for name in sorted((data / "annotations").glob("captions_*.json")):
        split = name.stem.removeprefix("captions_")
        text = json.loads(name.read_bytes())
        captions = {}
        for a in text["annotations"]:
            captions.setdefault(a["image_id"], []).append(a["caption"])
        for im in text["images"]:
            yield im["file_name"], split, captions[im["id"]], (data / "images" / im["file_name"]).read_bytes()


def sync(folder):
    """Syncs the files of a folder, as trainer does."""
    for path in [*folder.iterdir(), folder]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def with_pyarrow(data, out, compression):
    """Writes one Arrow file with record batches of 64 rows."""
    out.mkdir()
    schema = pa.schema([("image_id", pa.string()), ("split", pa.string()), ("caption", pa.list_(pa.string())), ("image", pa.binary())])
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(out / "00000.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as w:
        rows = []

        def flush():
            w.write_batch(pa.record_batch(list(zip(*rows)), schema=schema))
            rows.clear()

        for row in records(data):
            rows.append(row)
            if len(rows) == 64:
                flush()
        if rows:
            flush()
    sync(out)


def with_webdataset(data, out):
    """Writes tar shards of at most 256 MB."""
    out.mkdir()
    with wds.ShardWriter(str(out / "%05d.tar"), maxcount=1 << 30, maxsize=256 << 20, verbose=0) as w:
        for name, split, captions, image in records(data):
            key, _, ending = name.rpartition(".")
            w.write({"__key__": key.replace(".", "_"), ending: image, "json": {"split": split, "caption": captions}})
    sync(out)


def with_trainer(trainer, data, out):
    """Runs the command."""
    captions = sorted((data / "annotations").glob("captions_*.json"))
    command = [trainer, "data", "import", "coco", "--images", data / "images", "--out", out]
    for name in captions:
        command += ["--captions", name]
    subprocess.run(command, check=True, capture_output=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    trainer = pathlib.Path(args.trainer).resolve()
    sides = {
        "trainer": lambda out: with_trainer(trainer, args.data, out),
        "pyarrow": lambda out: with_pyarrow(args.data, out, None),
        "pyarrow, zstd": lambda out: with_pyarrow(args.data, out, "zstd"),
        "webdataset": lambda out: with_webdataset(args.data, out),
    }
    seconds = {name: [] for name in sides}
    for _ in records(args.data):  # what is read lies in memory for all
        pass
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for _ in range(args.rounds):
            for name, run in sides.items():
                out = pathlib.Path(folder) / "set"
                begin = time.perf_counter()
                run(out)
                seconds[name].append(time.perf_counter() - begin)
                shutil.rmtree(out)
                os.sync()  # what one side left to be written is not another's burden
    ours = statistics.median(seconds["trainer"])
    for name, s in seconds.items():
        middle = statistics.median(s)
        print(f"{name:14}  {middle:.3f} s  ({min(s):.3f} to {max(s):.3f})  {middle / ours:.2f} of trainer's time")


if __name__ == "__main__":
    main()
