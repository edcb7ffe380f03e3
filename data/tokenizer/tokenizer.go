// Package tokenizer turns captions into token ids: CLIP's byte-pair encoding, with CLIP's own merges or with merges that
// TrainBPE learnt from a user's captions.
//
// It cleans text as open_clip does (but for ftfy's repair of broken encodings), so its ids equal open_clip's. Padding is
// left to who needs it: the towers work on packed tokens. Start at New; Encode is the hot call.
package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Tokenizer encodes text for a text tower. It is safe for concurrent use.
type Tokenizer interface {
	// Encode appends bos, the text's ids and eos to dst: at most ContextLength ids, of which the last is eos. Nothing is
	// padded. Text that is not valid UTF-8 is encoded with U+FFFD in place of the broken bytes.
	Encode(text string, dst []int32) []int32
	// Decode returns the text of ids, without bos and eos: lower-case, with a space after every word and punctuation mark
	// but the last. An id outside the vocabulary, and bytes that are not UTF-8, read U+FFFD.
	Decode(ids []int32) string
	// Tokens spells ids as a merges file does: "cat</w>" ends a word, and a byte that is no printable ASCII reads as another
	// character. bos and eos read <start_of_text> and <end_of_text>, an id outside the vocabulary U+FFFD.
	Tokens(ids []int32) []string
	VocabSize() int
	ContextLength() int
	BOS() int32
	EOS() int32
	// Config returns the configuration that opens an equal tokenizer, with defaults resolved.
	Config() Config
}

// Config says which tokenizer to open.
type Config struct {
	// Kind is "clip" (CLIP's 49,408 entries, in the binary) or "bpe" (the merges of File).
	Kind string `yaml:"kind" json:"kind"`
	// File is the merges file of kind "bpe", plain or gzip, or "demo": the vocabulary in the binary that was trained on
	// the demo's captions. Kind "clip" takes none.
	File string `yaml:"file,omitempty" json:"file,omitempty"`
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
	default:
		errs = append(errs, fmt.Errorf("tokenizer: kind %q is unknown; the kinds are %s", c.Kind, strings.Join(kindNames(), ", ")))
	}
	if c.ContextLength != 0 && c.ContextLength < minContextLength {
		errs = append(errs, fmt.Errorf("tokenizer: contextLength %d is below %d: bos, one token, eos", c.ContextLength, minContextLength))
	}
	return errors.Join(errs...)
}

// kinds is the table from a kind to what opens its merges.
var kinds = map[string]func(Config) (*merges, error){
	"clip": func(Config) (*merges, error) { return clipMerges() },
	"bpe":  openMerges,
}

func kindNames() []string {
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New opens the tokenizer that cfg names. CLIP's merges are read once per process, at the first call that wants them.
// A fault of a merges file is an error that names file and line.
func New(cfg Config) (Tokenizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.ContextLength == 0 {
		cfg.ContextLength = Default().ContextLength
	}
	m, err := kinds[cfg.Kind](cfg)
	if err != nil {
		return nil, err
	}
	return newBPE(m, cfg), nil
}
