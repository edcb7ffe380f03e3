package main

import (
	"github.com/spf13/cobra"

	"diptych/data/convert"
)

const shardArgs = `Names of files may hold braces and wildcards, as in "shards-{000000..000012}.tar" (in quotes, so that the shell leaves them
alone). A file's split is the SPLIT of SPLIT=FILE, or what --split says, or else`

var importWebDataset = importFormat{
	use:   "webdataset [SPLIT=]FILE… --out DIR",
	short: "Import WebDataset tar files, such as img2dataset writes",
	long: `Make a data set from tar files, plain or packed by gzip, zstd or bzip2, in which the members of a sample follow each other and
share a name up to the first dot: 000012.jpg, 000012.txt, 000012.json. - reads standard input.

Of a sample the picture is read, .txt as a sentence, .json, and .cls as a label. With --text-key the sentences are fields of
.json, texts or lists of texts; without it and without .txt, the first of its fields caption, captions, text and sentences.
Fields of structures are named with dots. The sample's name is the picture's image_id.

` + shardArgs + ` the field of --split-key, or what the file's name says,
as in coco-val-000.tar, or else train.`,
	example: `  trainer data import webdataset "shards/{00000..00331}.tar" --out DIR
  trainer data import webdataset "train=cc3m-train-*.tar" val=cc3m-val.tar.zst --text-key caption --attribute-key license --out DIR
  curl https://example.org/shard.tar | trainer data import webdataset - --out DIR`,
	args: cobra.MinimumNArgs(1),
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var d convert.WebDataset
		f := cmd.Flags()
		split := f.String("split", "", "`split` of files without one")
		f.StringArrayVar(&d.TextKeys, "text-key", nil, "`field` of .json that holds sentences; may be given again")
		f.StringVar(&d.Text, "text-suffix", "txt", "`suffix` of the member that is the sentence")
		f.StringArrayVar(&d.Images, "image-suffix", nil, "`suffix` of the picture; may be given again, the preferred first. Without it, jpg, jpeg, png, webp, gif, bmp, tif, tiff")
		f.StringVar(&d.SplitKey, "split-key", "", "`field` of the split")
		f.StringVar(&d.GroupKey, "group-key", "", "`field` of the group: its pictures are never each other's negatives")
		f.StringVar(&d.LabelKey, "label-key", "", "`field` of the name of what is shown")
		f.StringVar(&d.SourceKey, "source-key", "", "`field` that says where the picture came from; without it, source or url")
		f.StringArrayVar(&d.Attributes, "attribute-key", nil, "`field` that becomes an attribute; may be given again")
		return func(args []string) (convert.Importer, error) {
			d.Shards, d.Stdin = convert.Files(args, *split), cmd.InOrStdin()
			return d, nil
		}
	},
}

// bindTypedColumns is bindColumns for files whose columns have types, so that they can be found.
func bindTypedColumns(cmd *cobra.Command, c *convert.Columns) {
	f := cmd.Flags()
	f.StringVar(&c.Image, "image-column", "", "`column` of the picture or its path; without it, image, jpg, png … or image_path, file_name …")
	f.StringArrayVar(&c.Captions, "caption-column", nil, "`column` of sentences; may be given again, and then names their kind. Without it, caption, captions, text …")
	f.StringVar(&c.ID, "id-column", "", "`column` of the row's id; without it, image_id, id or key, or else the path, or else file and row")
	f.StringVar(&c.Split, "split-column", "", "`column` of the split; without it, split")
	f.StringVar(&c.Group, "group-column", "", "`column` of the group: its pictures are never each other's negatives; without it, group")
	f.StringVar(&c.Label, "label-column", "", "`column` of the name of what is shown; without it, label")
	f.StringVar(&c.Source, "source-column", "", "`column` that says where the picture came from; without it, source or url")
	f.StringArrayVar(&c.Others, "attribute-column", nil, "`column` that becomes an attribute; may be given again")
}

const typedColumnsHelp = `Columns and members of structures are named with dots, such as image.bytes; a column that is a structure with one text can be
named without it. Numbers of classes become their names where Hugging Face's library wrote these into the file. Rows that
follow each other and have one id make one row with all their sentences.

` + shardArgs + ` the column of the split, or what the file's name says, as in
train-00000-of-00004, or else train.`

var importParquet = importFormat{
	use:   "parquet [SPLIT=]FILE… --out DIR",
	short: "Import Parquet files with pictures, or with paths of pictures",
	long: `Make a data set from Parquet files. The column of pictures holds their bytes, or structures with bytes and path as Hugging Face's
library writes them, or paths below --images; that of sentences holds texts, lists of texts, or structures.

` + typedColumnsHelp,
	example: `  trainer data import parquet "data/train-*.parquet" val=data/validation.parquet --out DIR
  trainer data import parquet pairs.parquet --images pictures --image-column path --caption-column sentences.raw --out DIR`,
	args: cobra.MinimumNArgs(1),
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var p convert.Parquet
		f := cmd.Flags()
		f.StringVar(&p.Pictures, "images", "", "`folder` of the pictures, if there are paths; without it, the file's")
		bindTypedColumns(cmd, &p.Columns)
		split := f.String("split", "", "`split` of files without one")
		return func(args []string) (convert.Importer, error) {
			p.Files = convert.Files(args, *split)
			return p, nil
		}
	},
}

var importViltArrow = importFormat{
	use:   "vilt-arrow [SPLIT=]FILE… --out DIR",
	short: "Import Arrow files as ViLT's scripts write them",
	long: `Make a data set from Arrow IPC files or streams with columns image (bytes), caption (a list of sentences), image_id and split, as
ViLT's write_*.py makes them, or with columns of other names. Record batches of any size are read piece by piece.

` + typedColumnsHelp,
	example: `  trainer data import vilt-arrow "coco_caption_karpathy_{train,restval,val,test}.arrow" --out coco
  trainer data import vilt-arrow vqav2_val.arrow --caption-column questions --out questions`,
	args: cobra.MinimumNArgs(1),
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var v convert.ViltArrow
		f := cmd.Flags()
		f.StringVar(&v.Pictures, "images", "", "`folder` of the pictures, if there are paths; without it, the file's")
		bindTypedColumns(cmd, &v.Columns)
		split := f.String("split", "", "`split` of files without one")
		return func(args []string) (convert.Importer, error) {
			v.Files = convert.Files(args, *split)
			return v, nil
		}
	},
}
