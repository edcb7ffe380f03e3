// Package tokenizer turns captions into token ids: CLIP's byte-pair encoding, with CLIP's own merges or with merges that
// TrainBPE learnt from a user's captions, and BERT's WordPiece.
//
// BPE cleans text as open_clip does, ftfy's repair of broken encodings included, so its ids equal open_clip's; WordPiece's
// equal those of Hugging Face's BERT tokenizer. Padding is left to who needs it: the towers work on packed tokens. Start at
// New; Encode is the hot call.
package tokenizer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tokenizer encodes text for a text tower. It is safe for concurrent use.
type Tokenizer interface {
	// Encode appends bos, the text's ids and eos to dst: at most ContextLength ids, of which the last is eos. Nothing is
	// padded. Text that is not valid UTF-8 is encoded with U+FFFD in place of the broken bytes.
	Encode(text string, dst []int32) []int32
	// Decode returns the text of ids, without bos, eos and padding, in the vocabulary's case, with a space after every word
	// and punctuation mark but the last. An id outside the vocabulary, and bytes that are not UTF-8, read U+FFFD.
	Decode(ids []int32) string
	// Tokens spells ids as the vocabulary's file does. In merges "cat</w>" ends a word, a byte that is no printable ASCII
	// reads as another character, and bos and eos read <start_of_text> and <end_of_text>; in BERT's vocabularies "##s" goes
	// on with a word. An id outside the vocabulary reads U+FFFD.
	Tokens(ids []int32) []string
	// Words appends to dst the number of the word that each id is part of, counted from 0, and -1 for bos, eos, padding and
	// what is outside the vocabulary.
	Words(ids, dst []int32) []int32
	VocabSize() int
	ContextLength() int
	BOS() int32
	EOS() int32
	// Mask returns the id that hides a token from a model, -1 if the vocabulary has none.
	Mask() int32
	// Config returns the configuration that opens an equal tokenizer, with defaults resolved.
	Config() Config
}

// Config says which tokenizer to open.
type Config struct {
	// Kind is "clip" (CLIP's 49,408 entries, in the binary), "bpe" (the merges of File) or "wordpiece" (BERT's, of File).
	Kind string `yaml:"kind" json:"kind"`
	// File, plain or gzip, is of kind "bpe" a merges file, or "demo": the vocabulary in the binary that was trained on the
	// demo's captions; of kind "wordpiece" a vocab.txt or a Hugging Face tokenizer.json, or in the binary
	// "bert-base-uncased" and "demo", the part of it that the demo's captions take. Kind "clip" takes none.
	File string `yaml:"file,omitempty" json:"file,omitempty"`
	// Cased says that the words of a vocab.txt keep their case and accents. A tokenizer.json says so itself.
	Cased bool `yaml:"cased,omitempty" json:"cased,omitempty"`
	// ContextLength is the longest encoding in tokens, bos and eos included; 0 means 77, as in CLIP.
	ContextLength int `yaml:"contextLength" json:"contextLength"`
	// SHA256 is what File must have, in hex; empty takes it as it is. A run notes it, so that it goes on with the same words.
	SHA256 string `yaml:"sha256,omitempty" json:"sha256,omitempty"`
	// Content stands for what File holds, when it is not nil: a checkpoint keeps a copy of it.
	Content []byte `yaml:"-" json:"-"`
}

// minContextLength holds bos, one token and eos.
const minContextLength = 3

// Default returns CLIP's tokenizer.
func Default() Config { return Config{Kind: "clip", ContextLength: 77} }

// Validate reports every fault of the configuration at once. It does not open File.
func (c Config) Validate() error {
	var errs []error
	switch c.Kind {
	case "clip":
		if c.File != "" {
			errs = append(errs, fmt.Errorf("tokenizer: kind clip has its merges in the binary and takes no file, but file is %q", c.File))
		}
	case "bpe":
		if c.File == "" {
			errs = append(errs, errors.New(`tokenizer: kind bpe wants a merges file, or "demo"`))
		}
	case "wordpiece":
		if c.File == "" {
			errs = append(errs, fmt.Errorf("tokenizer: kind wordpiece wants a vocab.txt or tokenizer.json as its file, \"demo\" or %q", bertUncased))
		}
		if c.Cased && c.BuiltIn() {
			errs = append(errs, fmt.Errorf("tokenizer: cased: %s has no words with capitals", c.File))
		}
	default:
		errs = append(errs, fmt.Errorf("tokenizer: kind %q is unknown; the kinds are %s", c.Kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", ")))
	}
	if c.Cased && c.Kind != "wordpiece" {
		errs = append(errs, fmt.Errorf("tokenizer: cased: kind %s is always lower-case", c.Kind))
	}
	if c.ContextLength != 0 && c.ContextLength < minContextLength {
		errs = append(errs, fmt.Errorf("tokenizer: contextLength %d is below %d: bos, one token, eos", c.ContextLength, minContextLength))
	}
	return errors.Join(errs...)
}

// kinds is the table from a kind to its constructor, which takes a valid configuration.
var kinds = map[string]func(Config) (Tokenizer, error){
	"bpe":       openBPE,
	"clip":      openCLIP,
	"wordpiece": openWordPiece,
}

// New opens the tokenizer that cfg names. What lies in the binary is read once per process, at the first call that wants it.
// A fault of a file is an error that names file and line.
func New(cfg Config) (Tokenizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.ContextLength == 0 {
		cfg.ContextLength = Default().ContextLength
	}
	return kinds[cfg.Kind](cfg)
}
