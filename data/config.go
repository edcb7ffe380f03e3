package data

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// Config says which pairs a run trains on and how they become a model's input.
type Config struct {
	// Path is the folder of an Arrow data set, demo for the embedded one, or the address of a remote one: https://…/manifest.json,
	// http://…, s3://bucket/prefix.
	Path  string `yaml:"path"`
	Split string `yaml:"split"` // the rows to train on
	// CaptionKinds and CaptionLangs choose among a picture's captions; empty means all. Of those left one is drawn each time.
	CaptionKinds []string `yaml:"captionKinds,omitempty"`
	CaptionLangs []string `yaml:"captionLangs,omitempty"`

	// Classes names the class system of the set whose classes are the labels of its rows. Rows that have none of them are left out;
	// of a set that is read in windows each row must have one. Captions are then only needed by a model that reads texts.
	Classes string `yaml:"classes,omitempty"`

	// LeastAnswers is how many questions an answer must be the most common one of to be a class of a model that learns answers; 0
	// counts as 1.
	LeastAnswers int `yaml:"leastAnswers,omitempty"`

	// WindowShards is how many shards are shuffled together, so that no more are needed at a time; 0 is the whole set. It is the
	// recipe's, not the machine's: the order is the same wherever the set lies. Remote sets have RemoteWindow without it.
	WindowShards int `yaml:"windowShards,omitempty"`

	// Sources are several sets to mix, in place of Path. Models are measured on the first.
	Sources []SourceConfig `yaml:"sources,omitempty"`

	Tokenizer tokenizer.Config `yaml:"tokenizer"`
	// MergeDropout is the chance of each merge of byte pairs to be passed over in a training caption (BPE-dropout).
	MergeDropout   float64          `yaml:"mergeDropout,omitempty"`
	Transforms     []transform.Spec `yaml:"transforms"`     // of training pictures, in order
	EvalTransforms []transform.Spec `yaml:"evalTransforms"` // of all others

	// BrokenLimit is the share of the split's rows that may have a picture that does not decode. Past it the run stops.
	BrokenLimit float64 `yaml:"brokenLimit"`
	// CacheMiB bounds the memory for decoded pictures.
	CacheMiB int `yaml:"cacheMiB"`
}

// maxCacheMiB is a tebibyte.
const maxCacheMiB = 1 << 20

// SourceConfig is one of several data sets that a run mixes. What is left empty is as in the Config around it.
type SourceConfig struct {
	Path         string   `yaml:"path"`
	Split        string   `yaml:"split,omitempty"`
	Weight       float64  `yaml:"weight"` // its share of each batch, beside the others' weights; see Shares
	CaptionKinds []string `yaml:"captionKinds,omitempty"`
	CaptionLangs []string `yaml:"captionLangs,omitempty"`
	WindowShards int      `yaml:"windowShards,omitempty"`
}

// RemoteWindow is the WindowShards of a remote set whose recipe names none.
const RemoteWindow = 16

// IsAddress tells whether a path is the address of a remote set.
func IsAddress(path string) bool {
	return strings.HasPrefix(path, "https://") || strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "s3://")
}

// Resolve fills in what depends on other values: an address has a window.
func (c *Config) Resolve() {
	window := func(path string, w *int) {
		if *w == 0 && IsAddress(path) {
			*w = RemoteWindow
		}
	}
	if len(c.Sources) > 0 && c.Path == Default().Path {
		c.Path = ""
	}
	window(c.Path, &c.WindowShards)
	for i := range c.Sources {
		s := &c.Sources[i]
		if s.WindowShards == 0 {
			s.WindowShards = c.WindowShards
		}
		window(s.Path, &s.WindowShards)
	}
}

// All lists the data sets, one or several, with nothing left empty that the Config around them says.
func (c *Config) All() []SourceConfig {
	one := SourceConfig{Path: c.Path, Split: c.Split, Weight: 1, CaptionKinds: c.CaptionKinds, CaptionLangs: c.CaptionLangs, WindowShards: c.WindowShards}
	if len(c.Sources) == 0 {
		return []SourceConfig{one}
	}
	all := slices.Clone(c.Sources)
	for i := range all {
		s := &all[i]
		if s.Split == "" {
			s.Split = one.Split
		}
		if len(s.CaptionKinds) == 0 {
			s.CaptionKinds = one.CaptionKinds
		}
		if len(s.CaptionLangs) == 0 {
			s.CaptionLangs = one.CaptionLangs
		}
	}
	return all
}

// Paths names the data sets, for people.
func (c *Config) Paths() string {
	var paths []string
	for _, s := range c.All() {
		paths = append(paths, s.Path)
	}
	return strings.Join(paths, " + ")
}

// Default is the demo's training split with CLIP's tokenizer; transforms must be given.
func Default() Config {
	return Config{Path: "demo", Split: "train", Tokenizer: tokenizer.Config{Kind: "clip"}, BrokenLimit: 0.01, CacheMiB: 256}
}

// Validate reports every fault at once. Transforms are checked when the pipeline is made, which knows the model's picture size.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("data."+format, args...)) }
	switch {
	case len(c.Sources) > 0 && c.Path != "":
		bad("path: %s, but data.sources names the data sets; leave one of the two out", c.Path)
	case len(c.Sources) == 0 && c.Path == "":
		bad("path: empty, want a folder, an address or demo")
	}
	if c.WindowShards < 0 {
		bad("windowShards: %d, want 0 or more", c.WindowShards)
	}
	for i, s := range c.Sources {
		if s.Path == "" {
			bad("sources[%d].path: empty, want a folder, an address or demo", i)
		}
		if !(s.Weight > 0) || math.IsInf(s.Weight, 0) {
			bad("sources[%d].weight: %v, want a positive number", i, s.Weight)
		}
		if s.WindowShards < 0 {
			bad("sources[%d].windowShards: %d, want 0 or more", i, s.WindowShards)
		}
	}
	if c.LeastAnswers < 0 {
		bad("leastAnswers: %d, want 0 or more", c.LeastAnswers)
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
	if !(c.MergeDropout >= 0 && c.MergeDropout < 1) {
		bad("mergeDropout: %v, want [0, 1)", c.MergeDropout)
	}
	if c.CacheMiB < 0 || c.CacheMiB > maxCacheMiB {
		bad("cacheMiB: %d, want 0 to %d", c.CacheMiB, maxCacheMiB)
	}
	return errors.Join(errs...)
}
