package main

import (
	"github.com/spf13/cobra"

	"diptych/data/convert"
)

// The formats whose sentences have answers.

var importVQA = importFormat{
	use:   "vqav2 --images DIR [SPLIT=]QUESTIONS.json [ANNOTATIONS.json] … --out DIR",
	short: "Import questions and annotations of VQA v2",
	long: `Make a data set from the questions and annotations of VQA v2, and of sets in its form. A row is a picture with all its questions;
the answers of all annotators are kept as they are, and the kind of a question is its answer_type: yes/no, number or other. Several
files may be given in any order; which are annotations, their contents say. Questions of test sets have none.

A file's split is the SPLIT of SPLIT=FILE, or train, val or test by its data_subtype. --names says how pictures are named: {subtype}
is the data_subtype (that of test-dev2015 is test2015), {id:12} the image_id in twelve digits, {id} as it is.`,
	example: `  trainer data import vqav2 v2_OpenEnded_mscoco_train2014_questions.json v2_mscoco_train2014_annotations.json \
    --images train2014 --out vqa-train
  trainer data import vqav2 v2_OpenEnded_mscoco_{train,val}2014_questions.json v2_mscoco_{train,val}2014_annotations.json \
    --images coco --names "{subtype}/COCO_{subtype}_{id:12}.jpg" --out vqa`,
	args:   cobra.MinimumNArgs(1),
	wanted: []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var v convert.VQA
		cmd.Flags().StringVar(&v.Images, "images", "", "`folder` of the pictures")
		cmd.Flags().StringVar(&v.Pattern, "names", "COCO_{subtype}_{id:12}.jpg", "`pattern` of the pictures' names")
		return func(args []string) (convert.Importer, error) {
			v.Files = convert.Files(args, "")
			return v, nil
		}
	},
}

var importNLVR2 = importFormat{
	use:   "nlvr2 --images DIR [SPLIT=]FILE… --out DIR",
	short: "Import NLVR2: sentences about two pictures",
	long: `Make a data set from the JSON lines of NLVR2. A row is a pair of pictures, the right one in the column image_1, with the sentences
about it, whose answers are True or False; its group is the set of eight pictures that it comes from. A file's split is the SPLIT of SPLIT=FILE, or what its name says.

--images is the folder that holds train, dev and test1. --names says how pictures are named: {split} is the first part of the
identifier, {directory} that field, which only train has, {pair} the identifier without its last part, {n} 0 for left, 1 for right.`,
	example: `  trainer data import nlvr2 --images images train.json dev.json test=test1.json --out nlvr2
  trainer data import nlvr2 --images all train.json --names "{pair}-img{n}.png" --out nlvr2`,
	args:   cobra.MinimumNArgs(1),
	wanted: []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var n convert.NLVR2
		cmd.Flags().StringVar(&n.Images, "images", "", "`folder` of the pictures")
		cmd.Flags().StringVar(&n.Pattern, "names", "{split}/{directory}/{pair}-img{n}.png", "`pattern` of the pictures' names")
		return func(args []string) (convert.Importer, error) {
			n.Files = convert.Files(args, "")
			return n, nil
		}
	},
}

var importNLVR = importFormat{
	use:   "nlvr1 --images DIR [SPLIT=]FILE… --out DIR",
	short: "Import NLVR, the first: sentences about drawings of three boxes",
	long: `Make a data set from the JSON lines of NLVR. Of every line six rows are made, its drawings with the boxes in each of their orders; the
answer to the sentence is True or False. Rows whose sentence was written of the same pictures make a group. A file's split is the
SPLIT of SPLIT=FILE, or what its name says.

--images is the folder that holds train, dev and test. --names says how pictures are named: {split} is the file's split,
{directory} and {identifier} are those fields, {n} is the number of the order.`,
	example: `  trainer data import nlvr1 --images nlvr nlvr/train/train.json nlvr/dev/dev.json --out nlvr1`,
	args:    cobra.MinimumNArgs(1),
	wanted:  []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var n convert.NLVR
		cmd.Flags().StringVar(&n.Images, "images", "", "`folder` of the pictures")
		cmd.Flags().StringVar(&n.Pattern, "names", "{split}/images/{directory}/{split}-{identifier}-{n}.png", "`pattern` of the pictures' names")
		return func(args []string) (convert.Importer, error) {
			n.Files = convert.Files(args, "")
			return n, nil
		}
	},
}

var importSNLIVE = importFormat{
	use:   "snli-ve --images DIR [SPLIT=]FILE… --out DIR",
	short: "Import SNLI-VE: what follows from a picture",
	long: `Make a data set from the JSON lines of SNLI-VE and the pictures of Flickr30k. A row is a picture with the hypotheses about it, whose
answers are entailment, neutral or contradiction. A file's split is the SPLIT of SPLIT=FILE, or what its name says.`,
	example: `  trainer data import snli-ve --images flickr30k-images snli_ve_train.jsonl val=snli_ve_dev.jsonl snli_ve_test.jsonl --out snli-ve`,
	args:    cobra.MinimumNArgs(1),
	wanted:  []string{"images"},
	bind: func(cmd *cobra.Command) func([]string) (convert.Importer, error) {
		var s convert.SNLIVE
		cmd.Flags().StringVar(&s.Images, "images", "", "`folder` of the pictures")
		return func(args []string) (convert.Importer, error) {
			s.Files = convert.Files(args, "")
			return s, nil
		}
	},
}
