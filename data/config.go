package data

import (
	"errors"
	"fmt"

	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// Config says which pairs a run trains on and how they become a model's input.
type Config struct {
	Path  string `yaml:"path"`  // folder of an Arrow data set, or demo for the embedded one
	Split string `yaml:"split"` // the rows to train on
	// CaptionKinds and CaptionLangs choose among a picture's captions; empty means all. Of those left one is drawn each time.
	CaptionKinds []string `yaml:"captionKinds,omitempty"`
	CaptionLangs []string `yaml:"captionLangs,omitempty"`

	Tokenizer      tokenizer.Config `yaml:"tokenizer"`
	Transforms     []transform.Spec `yaml:"transforms"`     // of training pictures, in order
	EvalTransforms []transform.Spec `yaml:"evalTransforms"` // of all others

	// BrokenLimit is the share of the split's rows that may have a picture that does not decode. Past it the run stops.
	BrokenLimit float64 `yaml:"brokenLimit"`
	// CacheMiB bounds the memory for decoded pictures.
	CacheMiB int `yaml:"cacheMiB"`
}

// maxCacheMiB is a tebibyte.
const maxCacheMiB = 1 << 20

// Default is the demo's training split with CLIP's tokenizer; transforms must be given.
func Default() Config {
	return Config{Path: "demo", Split: "train", Tokenizer: tokenizer.Config{Kind: "clip"}, BrokenLimit: 0.01, CacheMiB: 256}
}

// Validate reports every fault at once. Transforms are checked when the pipeline is made, which knows the model's picture size.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("data."+format, args...)) }
	if c.Path == "" {
		bad("path: empty, want a folder or demo")
	}
	if c.Split == "" {
		bad("split: empty")
	}
	if len(c.Transforms) == 0 {
		bad("transforms: empty, want at least what brings pictures to the model's size")
	}
	if len(c.EvalTransforms) == 0 {
		bad("evalTransforms: empty, want at least what brings pictures to the model's size")
	}
	if !(c.BrokenLimit >= 0 && c.BrokenLimit <= 1) {
		bad("brokenLimit: %v, want [0, 1]", c.BrokenLimit)
	}
	if c.CacheMiB < 0 || c.CacheMiB > maxCacheMiB {
		bad("cacheMiB: %d, want 0 to %d", c.CacheMiB, maxCacheMiB)
	}
	return errors.Join(errs...)
}
