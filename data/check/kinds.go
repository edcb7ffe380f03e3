package check

import "slices"

// Kind is the stable name of a fault.
type Kind string

// The kinds. The table below says what each means for a run and what to do.
const (
	SetUnreadable   Kind = "set-unreadable"
	ShardChecksum   Kind = "shard-checksum"
	ImageUnreadable Kind = "image-undecodable"
	ImageTruncated  Kind = "image-truncated"
	ImageBomb       Kind = "image-bomb"
	ImageLeak       Kind = "image-two-splits"
	ImageIDRepeated Kind = "image-id-repeated"
	CaptionNone     Kind = "caption-none"
	CaptionEmpty    Kind = "caption-empty"
	CaptionBlank    Kind = "caption-blank"
	SplitEmpty      Kind = "split-empty"

	ImageNearLeak   Kind = "image-two-splits-near"
	ImageTwoNames   Kind = "image-two-splits-two-groups"
	ImageTwoGroups  Kind = "image-two-groups"
	ImageRepeated   Kind = "image-repeated"
	PairRepeated    Kind = "pair-repeated"
	ImageOneColour  Kind = "image-one-colour"
	ImageTiny       Kind = "image-tiny"
	ImageExtension  Kind = "image-extension"
	CaptionMojibake Kind = "caption-mojibake"
	CaptionReplaced Kind = "caption-replacement-character"
	CaptionControl  Kind = "caption-control-character"
	CaptionMarkup   Kind = "caption-markup"
	CaptionURL      Kind = "caption-url"
	CaptionTooLong  Kind = "caption-too-long"
	CaptionRepeated Kind = "caption-repeated"
	CaptionCommon   Kind = "caption-common"
	LabelVariant    Kind = "label-variant"
	GroupVariant    Kind = "group-variant"
	GroupLeak       Kind = "group-two-splits"
	ClassUnknown    Kind = "class-unknown"
	SplitVariant    Kind = "split-variant"
	WordsUnknown    Kind = "words-unknown"
	PublishedCount  Kind = "published-count"
)

// remedy is what Fix does about a finding.
type remedy uint8

const (
	byHand      remedy = iota
	dropRow            // leave the row out
	dropCaption        // leave the caption out, and the row when that was its last
	repairText         // rewrite the caption
)

type kindInfo struct {
	kind     Kind
	severity Severity
	remedy   remedy
	advice   string
}

// kinds is the table of all kinds, errors first, the gravest first.
var kinds = []kindInfo{
	{SetUnreadable, Error, byHand, "the set does not open; copy it or import it again"},
	{ShardChecksum, Error, byHand, "a file is not what was once written; copy it or import the data again"},
	{ImageUnreadable, Error, dropRow, "no picture can be decoded from the bytes; fetch it again, or leave the row out (--fix)"},
	{ImageTruncated, Error, dropRow, "the file ends before the picture does; fetch it again, or leave the row out (--fix)"},
	{ImageBomb, Error, dropRow, "the header claims more pixels than are decoded; make it smaller, or leave the row out (--fix)"},
	{ImageLeak, Error, dropRow, "what is measured on was trained on; leave it out of one split (--fix keeps test before val before train)"},
	{ImageIDRepeated, Error, dropRow, "two rows have one name, so reports cannot tell them apart; rename or leave out one (--fix)"},
	{CaptionNone, Error, dropRow, "a run cannot use a picture without a sentence; add one, or leave the row out (--fix)"},
	{CaptionEmpty, Error, dropCaption, "an empty sentence pairs with everything; leave it out (--fix)"},
	{CaptionBlank, Error, dropCaption, "a sentence of white space pairs with everything; leave it out (--fix)"},
	{SplitEmpty, Error, byHand, "the split has no rows; remove it from the manifest or import its pictures"},

	{ImageNearLeak, Warning, dropRow, "it looks like a picture of another split; look at both, then leave one out"},
	{ImageTwoNames, Warning, dropRow, "what is measured on was seen in training under another name; look at both, then leave one out"},
	{ImageTwoGroups, Warning, dropRow, "one picture in two groups is its own negative; give both rows one group"},
	{ImageRepeated, Warning, dropRow, "one picture in several rows is its own negative; give the rows one group, or make them one row"},
	{PairRepeated, Warning, dropRow, "the same picture with the same sentences; leave one out"},
	{ImageOneColour, Warning, dropRow, "often a placeholder for a picture that was gone; look at it"},
	{ImageTiny, Warning, dropRow, "smaller than a patch of most models, often a tracking pixel; look at it"},
	{ImageExtension, Warning, byHand, "the name says another format than the bytes; harmless here, not everywhere"},
	{CaptionMojibake, Warning, repairText, "UTF-8 that was read as Windows-1252; decode it again (--fix --also caption-mojibake)"},
	{CaptionReplaced, Warning, dropCaption, "U+FFFD stands where a character was lost; read the texts again with their own encoding"},
	{CaptionControl, Warning, repairText, "invisible characters become tokens; remove them (--fix --also caption-control-character)"},
	{CaptionMarkup, Warning, repairText, "HTML is left; resolve it (--fix --also caption-markup)"},
	{CaptionURL, Warning, dropCaption, "an address says nothing about the picture and costs many tokens"},
	{CaptionTooLong, Warning, byHand, "its end is cut off; raise model.text.contextLength or shorten it"},
	{CaptionRepeated, Warning, dropCaption, "the same sentence twice for one picture counts twice; leave one out"},
	{CaptionCommon, Warning, byHand, "one sentence for many different pictures: each is a false negative of the others; give them one group or leave the sentence out"},
	{LabelVariant, Warning, byHand, "labels that differ in case or spaces only count as different names; spell them alike"},
	{GroupVariant, Warning, byHand, "groups that differ in case or spaces only are each other's negatives; spell them alike"},
	{GroupLeak, Warning, byHand, "nearly all groups keep to one split and this one does not; put it whole in one (trainer data split --by group)"},
	{ClassUnknown, Warning, byHand, "the value is no class of the manifest's system, so the row has no class; correct it or add the class"},
	{SplitVariant, Warning, byHand, "splits that differ in case or spaces only are different splits; spell them alike"},
	{WordsUnknown, Warning, byHand, "the vocabulary was made for other texts; train one on these (trainer data tokenizer train)"},
	{PublishedCount, Warning, byHand, "the published set has another number; was all of it imported, and nothing twice?"},
}

func (k Kind) info() *kindInfo {
	return &kinds[slices.IndexFunc(kinds, func(i kindInfo) bool { return i.kind == k })]
}

// Severity is how bad a finding of this kind is.
func (k Kind) Severity() Severity { return k.info().severity }

// Kinds are the names of all kinds, errors first.
func Kinds() []Kind {
	out := make([]Kind, len(kinds))
	for i, k := range kinds {
		out[i] = k.kind
	}
	return out
}
