// Package arrowset stores a set of captioned pictures as a folder of Arrow IPC files, and reads single rows of it without
// their neighbours.
//
// A folder holds shards (*.arrow) with ViLT's columns and some of ours, and manifest.json, which says what the shards are:
//
//	image         binary       the encoded picture, as it was imported
//	caption       list<utf8>   its sentences
//	image_id      utf8         its name; importers see that no two are equal
//	split         utf8         train, val, test, …
//	group         utf8         optional: rows of one group are not each other's negatives; "" is a group of its own
//	label         utf8         optional: the name of what is shown
//	source        utf8         optional: where the picture came from
//	caption_kind  list<utf8>   optional: what each sentence is, such as label or tags
//	caption_lang  list<utf8>   optional: the language of each sentence, "" if unknown
//	caption_answer list<utf8>  optional: what is right to answer to each sentence, "" if nothing is known: the answers of one
//	                           annotator or several, one on each line
//	image_1       binary       optional: a second picture, "" if there is none
//	…             utf8         further attributes, such as style or license
//
// Shards are plain Arrow files that any Arrow library reads. Writer makes them through the Arrow library. Set reads them
// through the small reader of layout.go, because the library's can neither leave the picture column alone while the others
// are read nor bound what a damaged file makes it allocate. Converters to this format are in data/convert; the set that is
// embedded in the program is in data/demo. Start reading at Open and Create.
package arrowset

import (
	"errors"
	"slices"
	"strings"
)

// ErrCorrupt is wrapped by errors about data that are not what was once written: a wrong magic number, a truncated file, a
// missing shard, a checksum that differs.
var ErrCorrupt = errors.New("the data set is damaged")

// ErrSchema is wrapped by errors about data of the wrong form: a missing column, a column of another type, a caption that
// is not UTF-8, a manifest that does not fit.
var ErrSchema = errors.New("the data set has the wrong form")

// Names of the columns that have a meaning of their own; every other column is an attribute.
const (
	ColImage       = "image"
	ColCaption     = "caption"
	ColImageID     = "image_id"
	ColSplit       = "split"
	ColGroup       = "group"
	ColLabel       = "label"
	ColSource      = "source"
	ColCaptionKind = "caption_kind"
	ColCaptionLang = "caption_lang"

	// Columns that only those sets have whose manifest names them among Optional.
	ColCaptionAnswer = "caption_answer"
	ColSecondImage   = "image_1"
)

// standard lists the columns that Writer always writes, with their types. The picture comes last, so that all else in a
// record batch lies together and is read at once.
var standard = []Column{
	{ColImageID, typeString}, {ColSplit, typeString}, {ColGroup, typeString}, {ColLabel, typeString}, {ColSource, typeString},
	{ColCaption, typeStrings}, {ColCaptionKind, typeStrings}, {ColCaptionLang, typeStrings}, {ColImage, typeBinary},
}

// optional are the columns that Writer writes where Manifest.Optional names them.
var optional = []Column{{ColCaptionAnswer, typeStrings}, {ColSecondImage, typeBinary}}

// required are the columns without which a file is not a data set.
var required = []string{ColImage, ColCaption, ColImageID, ColSplit}

// The types of columns, as the manifest writes them.
const (
	typeBinary  = "binary"
	typeString  = "utf8"
	typeStrings = "list<utf8>"
)

func standardType(name string) string {
	for _, list := range [][]Column{standard, optional} {
		for _, c := range list {
			if c.Name == name {
				return c.Type
			}
		}
	}
	return ""
}

// Caption is one sentence of a picture.
type Caption struct {
	Text string `json:"caption"`
	Kind string `json:"kind,omitempty"` // what the sentence is, such as label, name, tags; "" if not said
	Lang string `json:"lang,omitempty"` // BCP 47 tag; "" if not said
	// Answer is what is right to answer, "" if nothing is known: a class, or the answers of several annotators, one on each line.
	Answer string `json:"answer,omitempty"`
}

// Row is a picture with all that belongs to it, as Writer takes it.
type Row struct {
	RowMeta
	Image    []byte // encoded; not empty
	Second   []byte // encoded; empty where there is no second picture
	Captions []Caption
}

// RowMeta is a row without its picture and captions. Attributes are in the order of Manifest.Attributes and must not be
// written to.
type RowMeta struct {
	ImageID, Split, Group, Label, Source string
	Attributes                           []string
}

// SplitAnswers parts Caption.Answer into the answers of its annotators.
func SplitAnswers(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return s == "" })
}

// JoinAnswers makes a Caption.Answer of the answers of annotators; blanks of all kinds become single ones.
func JoinAnswers(answers []string) string {
	var clean []string
	for _, a := range answers {
		if a = strings.Join(strings.Fields(a), " "); a != "" {
			clean = append(clean, a)
		}
	}
	return strings.Join(clean, "\n")
}
