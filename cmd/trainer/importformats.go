package main

import (
	"github.com/spf13/cobra"

	"diptych/data/convert"
)

var importCOCO = importFormat{
	use:   "coco --images DIR --captions FILE… --out DIR",
	short: "Import COCO captions JSON",
	long: `Make a data set from a folder of pictures and one or more files of COCO captions JSON.

The split of a file's pictures is the SPLIT of its name captions_SPLIT.json, or what --split says. Of an image, beside id and
file_name, these fields are read if they are there: concept (pictures of one concept are never each other's negatives), label,
source, license, and every other text field, such as style or category, as an attribute. Of an annotation: kind and lang.
"trainer data export demo" writes an example of all of it.`,
	example: `  trainer data import coco --images pictures --captions captions_train.json --captions captions_test.json --out my-data
  trainer data import coco --images pictures --captions all.json --split train --out my-data`,
	wanted: []string{"images", "captions"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		f := cmd.Flags()
		var c convert.COCO
		f.StringVar(&c.Images, "images", "", "`folder` of the pictures")
		f.StringArrayVar(&c.Captions, "captions", nil, "COCO captions `file`; may be given again")
		f.StringVar(&c.Split, "split", "", "`split` of all pictures; without it, that of each file's name")
		return func([]string) (convert.Importer, error) { return c, nil }
	},
}

var importKarpathy = importFormat{
	use:   "karpathy --images DIR FILE --out DIR",
	short: "Import Karpathy's split files of COCO, Flickr30k and Flickr8k",
	long: `Make a data set from dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json, which say the split and the sentences
of every picture (Karpathy and Fei-Fei 2015).

For COCO, --images is the folder that holds train2014 and val2014. What the file calls restval, the pictures of COCO's
validation set that are neither in val nor in test, goes to train, as papers since VSE++ have it; --restval restval keeps it
apart, and --restval "" leaves it out.`,
	example: `  trainer data import karpathy --images coco dataset_coco.json --out coco-karpathy
  trainer data import karpathy --images flickr30k-images dataset_flickr30k.json --out flickr30k`,
	args:   cobra.ExactArgs(1),
	wanted: []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var k convert.Karpathy
		cmd.Flags().StringVar(&k.Images, "images", "", "`folder` of the pictures")
		cmd.Flags().StringVar(&k.Restval, "restval", "train", "`split` that restval becomes")
		return func(args []string) (convert.Importer, error) {
			k.File = args[0]
			return k, nil
		}
	},
}

// fileArgs is what the help says of arguments that convert.Files reads.
const fileArgs = "A file's split is the SPLIT of SPLIT=FILE, or what --split says."

var importFlickr30k = importFormat{
	use:   "flickr30k --images DIR [SPLIT=]FILE… --out DIR",
	short: "Import the token files of Flickr30k and Flickr8k",
	long: `Make a data set from results_20130124.token or Flickr8k.token.txt, whose lines are IMAGE#NUMBER, a tab, and a caption, or from
the tables that go round in their place, results.csv ("image_name| comment_number| comment") and captions.txt
("image,caption").

` + fileArgs + ` Where lists of pictures say the split, such as Flickr_8k.trainImages.txt, give each with --list; pictures in no
list are left out, unless --rest names their split.`,
	example: `  trainer data import flickr30k --images flickr30k-images results_20130124.token --out flickr30k
  trainer data import flickr30k --images Flicker8k_Dataset Flickr8k.token.txt --list train=Flickr_8k.trainImages.txt \
    --list val=Flickr_8k.devImages.txt --list test=Flickr_8k.testImages.txt --out flickr8k`,
	args:   cobra.MinimumNArgs(1),
	wanted: []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var k convert.Flickr
		var lists []string
		f := cmd.Flags()
		f.StringVar(&k.Images, "images", "", "`folder` of the pictures")
		split := f.String("split", "train", "`split` of files without one")
		f.StringArrayVar(&lists, "list", nil, "list of a split's pictures, `SPLIT=FILE`; may be given again")
		f.StringVar(&k.Rest, "rest", "", "`split` of the pictures that are in no list")
		return func(args []string) (convert.Importer, error) {
			k.Files, k.Lists = convert.Files(args, *split), convert.Files(lists, "")
			for _, list := range k.Lists {
				if list.Split == "" {
					return nil, usagef("--list %s does not name a split; write --list SPLIT=FILE", list.Path)
				}
			}
			if k.Rest != "" && len(lists) == 0 {
				return nil, usagef("--rest means nothing without --list")
			}
			return k, nil
		}
	},
}

// bindNames declares the flags that say how the pictures of addresses are named.
func bindNames(cmd *cobra.Command, n *convert.Names, pattern string) {
	cmd.Flags().StringVar(&n.Pattern, "names", pattern, "`pattern` of the pictures' names")
	cmd.Flags().StringVar(&n.Mapping, "mapping", "", "`file` of lines with an address, a tab, and the picture's name; goes before --names")
}

const namesHelp = `Where the pictures lie depends on what has fetched them. --names is a pattern in which these stand for something: {row} the
place in the list from 0, {row:9} the same in nine digits, {crc32} (in decimals), {md5}, {sha1}, {sha256} the hash of the
address, {base} the address's last part; an ending .* stands for any picture's and for none. Or --mapping names a file that
says it for every address. Some pictures can never be fetched: --on-bad skip leaves these out.`

var importCC = importFormat{
	use:   "cc --images DIR [SPLIT=]FILE… --out DIR",
	short: "Import Conceptual Captions",
	long: `Make a data set from the lists of Conceptual Captions (caption, tab, address) or Conceptual 12M (address, tab, caption) and a
folder of the pictures.

` + namesHelp + ` ` + fileArgs,
	example: `  trainer data import cc --images pictures Train_GCC-training.tsv --names "{row}_{crc32}" --on-bad skip --out cc3m
  trainer data import cc --images pictures train=Train_GCC-training.tsv val=Validation_GCC-1.1.0-Validation.tsv --mapping names.tsv --out cc3m`,
	args:   cobra.MinimumNArgs(1),
	wanted: []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var c convert.CC
		cmd.Flags().StringVar(&c.Images, "images", "", "`folder` of the pictures")
		bindNames(cmd, &c.Names, "{row}.*")
		split := cmd.Flags().String("split", "train", "`split` of files without one")
		return func(args []string) (convert.Importer, error) {
			c.Files = convert.Files(args, *split)
			return c, nil
		}
	},
}

var importSBU = importFormat{
	use:   "sbu --images DIR {FILE | --urls FILE --captions FILE} --out DIR",
	short: "Import the SBU Captioned Photo Dataset",
	long: `Make a data set from sbu-captions-all.json, an object with the lists image_urls and captions; or from the two lists of lines,
SBU_captioned_photo_dataset_urls.txt and …_captions.txt; or from a JSON array of [NAME, CAPTION], as ViLT wants it, where
{name} and {name:4} in --names are NAME and its first four letters.

` + namesHelp,
	example: `  trainer data import sbu --images pictures sbu-captions-all.json --names "{md5}.jpg" --on-bad skip --out sbu
  trainer data import sbu --images images_train annot.json --names "{name:4}/{name}" --out sbu`,
	args:   cobra.MaximumNArgs(1),
	wanted: []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var s convert.SBU
		f := cmd.Flags()
		f.StringVar(&s.Images, "images", "", "`folder` of the pictures")
		f.StringVar(&s.URLs, "urls", "", "list of addresses, a `file` of lines")
		f.StringVar(&s.Captions, "captions", "", "list of captions, a `file` of lines")
		bindNames(cmd, &s.Names, "")
		f.Lookup("names").Usage += "; without it {row}.*, or {name} for an array of names"
		f.StringVar(&s.Split, "split", "train", "`split` of all pictures")
		return func(args []string) (convert.Importer, error) {
			if len(args) == 1 {
				s.File = args[0]
			}
			return s, nil
		}
	},
}

var importVG = importFormat{
	use:   "vg --images DIR… FILE --out DIR",
	short: "Import Visual Genome's region descriptions",
	long: `Make a data set from region_descriptions.json: the captions of a picture are the phrases of its regions. With --crop every
region is a picture of its own, cut out and stored as JPEG of quality 95; the attribute picture says what it was cut from.`,
	example: `  trainer data import vg --images VG_100K --images VG_100K_2 region_descriptions.json --out vg`,
	args:    cobra.ExactArgs(1),
	wanted:  []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var v convert.VG
		f := cmd.Flags()
		f.StringArrayVar(&v.Images, "images", nil, "`folder` of pictures; may be given again")
		f.BoolVar(&v.Crop, "crop", false, "make a picture of every region")
		f.StringVar(&v.Split, "split", "train", "`split` of all pictures")
		return func(args []string) (convert.Importer, error) {
			v.File = args[0]
			return v, nil
		}
	},
}

// bindColumns declares the flags that say what columns mean.
func bindColumns(cmd *cobra.Command, c *convert.Columns) {
	f := cmd.Flags()
	f.StringVar(&c.Image, "image-column", "image", "`column` of the picture's file name")
	f.StringArrayVar(&c.Captions, "caption-column", []string{"caption"}, "`column` of a caption; may be given again, and then names its kind")
	f.StringVar(&c.ID, "id-column", "", "`column` of the row's id; without it, the picture's name is the id")
	f.StringVar(&c.Split, "split-column", "", "`column` of the split")
	f.StringVar(&c.Group, "group-column", "", "`column` of the group: its pictures are never each other's negatives")
	f.StringVar(&c.Label, "label-column", "", "`column` of the name of what is shown")
	f.StringVar(&c.Source, "source-column", "", "`column` that says where the picture came from")
	f.StringArrayVar(&c.Others, "attribute-column", nil, "`column` that becomes an attribute; may be given again")
}

const tableHelp = `Lines that name one picture (or have one id) make one row with all their captions, wherever they stand. Names of pictures are
those of files below --images, or beside the tables. Columns that no flag names are left. ` + fileArgs

// importTable is the format of tables with a delimiter.
func importTable(name, what, delimiter string, quotes bool, rules, example string) importFormat {
	return importFormat{
		use:   name + " [SPLIT=]FILE… [--images DIR] --out DIR",
		short: "Import " + what + " with named columns",
		long: "Make a data set from pictures and tables, whose first line names the columns unless --header does. " + rules + `

` + tableHelp,
		example: example,
		args:    cobra.MinimumNArgs(1),
		bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
			var c convert.CSV
			f := cmd.Flags()
			f.StringVar(&c.Images, "images", "", "`folder` of the pictures; without it, the tables'")
			bindColumns(cmd, &c.Columns)
			split := f.String("split", "train", "`split` of files without one")
			f.StringSliceVar(&c.Header, "header", nil, "`names` of the columns, parted by commas, if the first line does not give them")
			f.StringVar(&c.Delimiter, "delimiter", delimiter, "`character` between two cells")
			quoted := f.Bool("quotes", quotes, "a cell in double quotes may hold delimiters and line ends")
			return func(args []string) (convert.Importer, error) {
				c.Files, c.NoQuotes = convert.Files(args, *split), !*quoted
				if c.Columns.Split != "" && f.Changed("split") {
					return nil, usagef("--split and --split-column both say the split; give one")
				}
				return c, nil
			}
		},
	}
}

var importCSV = importTable("csv", "comma-separated values", ",", true,
	"Cells may stand in double quotes, and\nquotes in them are doubled (RFC 4180).",
	`  trainer data import csv pairs.csv --image-column path --caption-column text --out DIR
  trainer data import csv --images pictures train=a.csv val=b.csv --delimiter ";" --out DIR`)

var importTSV = importTable("tsv", "tab-separated values", "\t", false,
	"Quotation marks are part of the text\nunless --quotes is given.",
	`  trainer data import tsv --images pictures pairs.tsv --image-column path --caption-column title --caption-column text --out DIR`)

var importJSONL = importFormat{
	use:   "jsonl [SPLIT=]FILE… [--images DIR] --out DIR",
	short: "Import JSON lines with named fields",
	long: `Make a data set from pictures and files with a JSON object on each line. A caption is a text or a list of texts.

` + tableHelp,
	example: `  trainer data import jsonl --images pictures pairs.jsonl --image-column file --caption-column captions --split-column split --out DIR`,
	args:    cobra.MinimumNArgs(1),
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var j convert.JSONL
		f := cmd.Flags()
		f.StringVar(&j.Images, "images", "", "`folder` of the pictures; without it, the files'")
		bindColumns(cmd, &j.Columns)
		split := f.String("split", "train", "`split` of files without one")
		return func(args []string) (convert.Importer, error) {
			j.Files = convert.Files(args, *split)
			if j.Columns.Split != "" && f.Changed("split") {
				return nil, usagef("--split and --split-column both say the split; give one")
			}
			return j, nil
		}
	},
}

var importFolder = importFormat{
	use:   "folder [SPLIT=]DIR… --out DIR",
	short: "Import pictures with a text file beside each",
	long: `Make a data set from folders, with their subfolders, in which a picture a.jpg has its captions in a.txt, one on each line.
A folder's split is the SPLIT of SPLIT=DIR, or what --split says. Files that are neither pictures nor texts are passed over.`,
	example: `  trainer data import folder pictures --out DIR
  trainer data import folder train=pictures/train val=pictures/val --text-ext caption --out DIR`,
	args: cobra.MinimumNArgs(1),
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var d convert.Folder
		cmd.Flags().StringVar(&d.TextExt, "text-ext", "txt", "`ending` of the text files")
		split := cmd.Flags().String("split", "train", "`split` of folders without one")
		return func(args []string) (convert.Importer, error) {
			d.Folders = convert.Files(args, *split)
			return d, nil
		}
	},
}

var importClasses = importFormat{
	use:   "classes {DIR | SPLIT=DIR…} --out DIR",
	short: "Import folders of classes",
	long: `Make a data set from folders of classes, such as DIR/train/cat/1.jpg and DIR/val/dog/2.jpg: the first level is the split, the
second the class. SPLIT=DIR names a folder that holds the classes of one split. The label of a picture is its class's name,
its captions are made of the templates, pictures of one class are never each other's negatives, and the data set gets the
class system "class" for zero-shot evaluation.

Classes are named by their folders, with blanks for underscores, or by --class-names: a file with FOLDER and NAME on each
line, such as ImageNet's LOC_synset_mapping.txt, of which the name up to the first comma counts.`,
	example: `  trainer data import classes pets --template "a photo of a {}, a type of pet." --out my-pets
  trainer data import classes train=imagenet/train val=imagenet/val --class-names LOC_synset_mapping.txt --out imagenet`,
	args: cobra.MinimumNArgs(1),
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var c convert.ClassFolders
		f := cmd.Flags()
		f.StringArrayVar(&c.Templates, "template", []string{"a photo of a {}."}, "`sentence` with {} for the name of the class; may be given again")
		f.StringVar(&c.Names, "class-names", "", "`file` that names the classes")
		return func(args []string) (convert.Importer, error) {
			c.Folders = convert.Files(args, "")
			return c, nil
		}
	},
}
