"""Makes small data sets with each format's own tool, imports them with trainer, and compares what pyarrow reads from the result
with what went in, byte for byte.

  python formats.py --trainer ./trainer            # all cases
  python formats.py --trainer ./trainer --fixtures ../../data/convert/testdata/peers   # also writes the files that go test reads

The pictures are the embedded demo's, some of them encoded anew as JPEG and WebP. What is made depends on nothing else.
"""

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image
from pycocotools.coco import COCO

CASES = []


def case(fixture=False):
    """Registers a function that writes files to a folder and returns (arguments of `data import`, rows expected, stdin)."""

    def register(f):
        CASES.append((f.__name__, f, fixture))
        return f

    return register


def load(trainer, folder, count):
    """Returns count rows of the demo: id, split, label, captions, image."""
    demo = folder / "demo"
    subprocess.run([trainer, "data", "export", "demo", "--out", demo], check=True, capture_output=True)
    rows = []
    for split in ("train", "val", "test_style"):
        text = json.loads((demo / "annotations" / f"captions_{split}.json").read_text())
        captions = {}
        for a in text["annotations"]:
            captions.setdefault(a["image_id"], []).append(a["caption"])
        images = sorted(text["images"], key=lambda im: hashlib.sha256(im["file_name"].encode()).hexdigest())
        for im in images[: count // 3]:
            raw = (demo / "images" / im["file_name"]).read_bytes()
            ext = ("png", "jpg", "webp")[len(rows) % 3]
            if ext != "png":
                out = io.BytesIO()
                picture = Image.open(io.BytesIO(raw)).convert("RGB")
                picture.save(out, "JPEG" if ext == "jpg" else "WEBP", quality=90)
                raw = out.getvalue()
            rows.append({
                "id": f"{len(rows):06d}", "ext": ext, "split": split, "label": im["concept"], "captions": captions[im["id"]], "image": raw,
                "source": f"https://example.org/ä/{len(rows)}", "width": Image.open(io.BytesIO(raw)).width,
            })
    return rows


def expect(rows, *keep, **change):
    """The rows as they should come out: id, image, captions and the fields named; change gives fields as values or functions."""
    out = []
    for r in rows:
        e = {"image_id": r["id"], "image": r["image"], "caption": r["captions"], "split": "train", "group": "", "label": "", "source": ""}
        for k in keep:
            e[k] = r[k]
        for k, v in change.items():
            e[k] = v(r) if callable(v) else v
        out.append(e)
    return out


def one(rows):
    """The rows with their first caption only."""
    return [{**r, "captions": r["captions"][:1]} for r in rows]


# COCO captions JSON, through pycocotools.


@case()
def coco(rows, folder):
    (folder / "images").mkdir()
    data = {"info": {}, "licenses": [], "images": [], "annotations": []}
    for i, r in enumerate(rows):
        name = f"{r['id']}.{r['ext']}"
        (folder / "images" / name).write_bytes(r["image"])
        data["images"].append({"id": i, "file_name": name, "width": r["width"], "height": r["width"], "coco_url": r["source"]})
        data["annotations"] += [{"id": 100 * i + k, "image_id": i, "caption": c} for k, c in enumerate(r["captions"])]
    path = folder / "captions_train.json"
    path.write_text(json.dumps(data))
    with contextlib.redirect_stdout(io.StringIO()):
        tool = COCO(path)
    assert [a["caption"] for a in tool.loadAnns(tool.getAnnIds(imgIds=[3]))] == rows[3]["captions"]
    path.write_text(json.dumps(tool.dataset))
    want = expect(rows, "source", image_id=lambda r: f"{r['id']}.{r['ext']}")
    return ["coco", "--images", folder / "images", "--captions", path], want, None


# WebDataset.


def samples(rows, text):
    for r in rows:
        sample = {"__key__": r["id"], r["ext"]: r["image"]}
        if text == "txt":
            sample["txt"] = r["captions"][0]
        else:
            sample["json"] = {"captions": r["captions"], "url": r["source"], "meta": {"width": r["width"]}, "split": r["split"], "name": r["label"]}
        yield sample


def tar(file, rows, text):
    with wds.TarWriter(file, encoder=True, mtime=0) as w:
        for s in samples(rows, text):
            w.write(s)


@case(fixture=True)
def webdataset_txt(rows, folder):
    path = folder / "pairs.tar"
    with open(path, "wb") as f:
        tar(f, rows, "txt")
    return ["webdataset", path], expect(one(rows)), None


@case(fixture=True)
def webdataset_json_gzip(rows, folder):
    path = folder / "pairs.tar.gz"
    with open(path, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", filename="", mtime=0) as z:
        tar(z, rows, "json")
    args = ["webdataset", path, "--text-key", "captions", "--split-key", "split", "--label-key", "name", "--attribute-key", "meta.width"]
    return args, expect(rows, "split", "label", "source", **{"meta.width": lambda r: str(r["width"])}), None


@case(fixture=True)
def webdataset_zstd_shards(rows, folder):
    with wds.ShardWriter(str(folder / "shards-val-%06d.tar"), maxcount=4, encoder=True, mtime=0, verbose=0) as w:
        for s in samples(rows, "txt"):
            w.write(s)
    shards = sorted(folder.glob("*.tar"))
    for s in shards:
        with pa.CompressedOutputStream(str(s) + ".zst", "zstd") as z:
            z.write(s.read_bytes())
        s.unlink()
    return ["webdataset", folder / f"shards-val-{{000000..{len(shards) - 1:06d}}}.tar.zst"], expect(one(rows), split="val"), None


@case()
def webdataset_stdin(rows, folder):
    out = io.BytesIO()
    tar(out, rows, "json")
    return ["webdataset", "-", "--split", "test"], expect(rows, "source", split="test"), out.getvalue()


@case()
def webdataset_cls(rows, folder):
    path = folder / "train.tar"
    with wds.TarWriter(str(path), encoder=True, mtime=0) as w:
        for i, r in enumerate(rows):
            w.write({"__key__": "deep/folder/" + r["id"], r["ext"]: r["image"], "cls": i % 7})
    want = [{**e, "label": str(i % 7)} for i, e in enumerate(expect(rows, caption=lambda r: [], image_id=lambda r: "deep/folder/" + r["id"]))]
    return ["webdataset", path], want, None


# Parquet.


def columns(rows, large=False):
    text, binary = (pa.large_string(), pa.large_binary()) if large else (pa.string(), pa.binary())
    listed = pa.large_list(text) if large else pa.list_(text)
    return {
        "image": pa.array([r["image"] for r in rows], binary), "caption": pa.array([r["captions"] for r in rows], listed),
        "image_id": pa.array([r["id"] for r in rows], text), "split": pa.array([r["split"] for r in rows], text),
        "width": pa.array([r["width"] for r in rows], pa.int32()),
    }


def parquet_case(name, fixture=False, large=False, **how):
    def write(rows, folder):
        pq.write_table(pa.table(columns(rows, large)), folder / "pairs.parquet", row_group_size=5, **how)
        return ["parquet", folder / "pairs.parquet", "--attribute-column", "width"], expect(rows, "split", width=lambda r: str(r["width"])), None

    write.__name__ = "parquet_" + name
    case(fixture)(write)


parquet_case("plain", compression="none", use_dictionary=False)
parquet_case("snappy", fixture=True, compression="snappy")
parquet_case("gzip_checksums", compression="gzip", write_page_checksum=True)
parquet_case("brotli", fixture=True, compression="brotli")
parquet_case("lz4_version2", fixture=True, compression="lz4", data_page_version="2.0")
parquet_case("zstd_version2_large", compression="zstd", data_page_version="2.0", large=True)
parquet_case("small_pages", compression="zstd", data_page_size=64, write_batch_size=2, dictionary_pagesize_limit=64)
ENCODINGS = {"image": "DELTA_LENGTH_BYTE_ARRAY", "caption.list.element": "DELTA_BYTE_ARRAY", "image_id": "DELTA_BYTE_ARRAY", "split": "PLAIN", "width": "DELTA_BINARY_PACKED"}
parquet_case("deltas", fixture=True, compression="snappy", use_dictionary=False, column_encoding=ENCODINGS)
parquet_case("split_bytes_version2", compression="none", use_dictionary=False, data_page_version="2.0", column_encoding={**ENCODINGS, "width": "BYTE_STREAM_SPLIT"})
parquet_case("old_lists", compression="gzip", use_compliant_nested_type=False)


@case(fixture=True)
def parquet_huggingface(rows, folder):
    """Pictures as structures and labels as numbers, as the datasets library writes them; some pictures are null."""
    names = sorted({r["label"] for r in rows})
    image = pa.array([{"bytes": r["image"], "path": r["id"] + "." + r["ext"]} for r in rows], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    sentences = pa.array([[{"raw": c, "tokens": c.split()} for c in r["captions"]] for r in rows], pa.list_(pa.struct({"raw": pa.string(), "tokens": pa.list_(pa.string())})))
    label = pa.array([names.index(r["label"]) for r in rows], pa.int64())
    features = {"image": {"_type": "Image"}, "sentences": [], "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"image": image, "sentences": sentences, "label": label}).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "validation-00000-of-00001.parquet", row_group_size=4)
    want = expect(rows, "label", split="validation", image_id=lambda r: f"{r['id']}.{r['ext']}")
    return ["parquet", folder / "validation-00000-of-00001.parquet", "--caption-column", "sentences.raw"], want, None


@case()
def parquet_paths_row_per_sentence(rows, folder):
    (folder / "pictures").mkdir()
    flat = []
    for r in rows:
        (folder / "pictures" / f"{r['id']}.{r['ext']}").write_bytes(r["image"])
        flat += [(int(r["id"]), f"{r['id']}.{r['ext']}", c) for c in r["captions"]]
    ids, paths, texts = (list(t) for t in zip(*flat))
    pq.write_table(pa.table({"id": ids, "file_name": paths, "text": texts}), folder / "pairs.parquet", row_group_size=7)
    want = expect(rows, image_id=lambda r: str(int(r["id"])))
    return ["parquet", "train=" + str(folder / "pairs.parquet"), "--images", folder / "pictures"], want, None


# Arrow files, with the columns and the call of ViLT's write_*.py.


def batches(table, size):
    return table.to_batches(max_chunksize=size)


@case(fixture=True)
def vilt_file(rows, folder):
    table = pa.table(columns(rows)).drop_columns(["width"])
    with pa.OSFile(str(folder / "coco_caption_karpathy_val.arrow"), "wb") as sink, pa.RecordBatchFileWriter(sink, table.schema) as writer:
        writer.write_table(table)
    return ["vilt-arrow", folder / "coco_caption_karpathy_val.arrow"], expect(rows, "split"), None


@case(fixture=True)
def vilt_stream_categories(rows, folder):
    """A stream of several record batches, with the split as a dictionary and a column of a type that is not read."""
    table = pa.table({**columns(rows), "split": pa.array([r["split"] for r in rows]).dictionary_encode(), "scores": pa.array([[[0.5]] for _ in rows])})
    with pa.ipc.new_stream(folder / "sbu_0.arrow", table.schema) as writer:
        for b in batches(table, 4):
            writer.write_batch(b)
    return ["vilt-arrow", folder / "sbu_0.arrow", "--attribute-column", "width"], expect(rows, "split", width=lambda r: str(r["width"])), None


def arrow_case(name, fixture=False, large=False, size=5, **how):
    def write(rows, folder):
        table = pa.table(columns(rows, large))
        options = pa.ipc.IpcWriteOptions(**how)
        with pa.ipc.new_file(folder / "data.arrow", table.schema, options=options) as writer:
            for b in batches(table, size):
                writer.write_batch(b)
        return ["vilt-arrow", folder / "data.arrow"], expect(rows, "split"), None

    write.__name__ = "vilt_" + name
    case(fixture)(write)


arrow_case("zstd", compression="zstd")
arrow_case("lz4_large", fixture=True, large=True, compression="lz4")
arrow_case("version4", metadata_version=pa.ipc.MetadataVersion.V4)
arrow_case("legacy", use_legacy_format=True)


@case()
def vilt_huggingface_stream(rows, folder):
    image = pa.array([{"bytes": r["image"], "path": None} for r in rows], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"image": image, "text": one_text(rows), "views": pa.array([r["id"] for r in rows], pa.string_view())})
    with pa.ipc.new_stream(folder / "cache-test.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=6)
    want = [{**e, "image_id": f"cache-test-{i:08d}"} for i, e in enumerate(expect(one(rows), split="test"))]
    return ["vilt-arrow", folder / "cache-test.arrow"], want, None


@case()
def vilt_slices(rows, folder):
    """Slices of a table: offsets that do not begin at 0, nulls in the bitmaps' midst."""
    table = pa.table({**columns(rows), "label": pa.array([None if i % 3 else r["label"] for i, r in enumerate(rows)])})
    feather.write_feather(table.slice(3, 9), folder / "train.arrow", compression="uncompressed")
    want = [{**e, "label": rows[3 + i]["label"] if (3 + i) % 3 == 0 else ""} for i, e in enumerate(expect(rows[3:12], "split"))]
    return ["vilt-arrow", folder / "train.arrow"], want, None


def one_text(rows):
    return pa.array([r["captions"][0] for r in rows])


def read(folder):
    """The rows of a data set, as pyarrow reads them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = []
    for shard in manifest["shards"]:
        raw = (folder / shard["file"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == shard["sha256"]
        rows += pa.ipc.open_file(raw).read_all().to_pylist()
    assert len(rows) == manifest["rows"]
    return rows


def differences(got, want):
    if len(got) != len(want):
        return [f"{len(got)} rows, {len(want)} went in"]
    out = []
    for i, (g, w) in enumerate(zip(got, want)):
        out += [f"row {i}: {k} is {str(g.get(k))[:80]}, {str(w[k])[:80]} went in" for k in w if g.get(k) != w[k]]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trainer", required=True, type=pathlib.Path)
    p.add_argument("--pictures", type=int, default=24)
    p.add_argument("--fixtures", type=pathlib.Path)
    p.add_argument("--only", default="", help="cases whose names begin so")
    args = p.parse_args()
    trainer = args.trainer.resolve()
    failed = 0
    with tempfile.TemporaryDirectory() as temp:
        temp = pathlib.Path(temp)
        rows = load(trainer, temp, args.pictures)
        for name, write, fixture in CASES:
            if not name.startswith(args.only):
                continue
            folder = temp / name
            folder.mkdir()
            command, want, stdin = write(rows, folder)
            out = temp / (name + "-out")
            done = subprocess.run([trainer, "data", "import", *command, "--out", out], input=stdin, capture_output=True)
            faults = [done.stderr.decode()] if done.returncode else differences(read(out), want)
            failed += bool(faults)
            print(f"{'FAILED' if faults else 'equal ':6} {name}: {len(want)} rows", *faults[:5], sep="\n    " if faults else " ")
            if fixture and args.fixtures:
                target = args.fixtures / name
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir(parents=True)
                command, want, _ = write(rows[::4], target)
                for e in want:
                    e["image"] = hashlib.sha256(e["image"]).hexdigest()
                text = [str(a).replace(str(target), "DIR") for a in command]
                (target / "want.json").write_text(json.dumps({"command": text, "rows": want}, ensure_ascii=False, indent=1) + "\n")
    print(f"{failed} cases failed" if failed else "all equal")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
