package model

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"diptych/internal/kernel"
)

// Config describes a model. Each kind has its own keys besides those of the image tower and the initial values, and refuses
// the others.
type Config struct {
	// Kind is clip, a dual encoder (Radford et al. 2021, §2.4; spec 2.1–2.4), vit, a classifier of pictures (Dosovitskiy et
	// al. 2021; spec 1), vilt, one transformer for picture and sentence (Kim et al. 2021; spec/vilt), or fusion, a dual encoder
	// whose towers meet in cross-attention (Li et al. 2021; spec/albef-vlmo-beit3).
	Kind       string `yaml:"kind"`
	Preset     string `yaml:"preset,omitempty"` // fills every field that the recipe leaves out; see Presets, ViTPresets, ViLTPresets, FusionPresets
	InitScheme string `yaml:"init"`             // openai, hf, timm or jax
	Vision     Vision `yaml:"vision"`

	// Of clip and fusion.
	EmbedDim       int     `yaml:"embedDim,omitempty"`       // E, of the joint space
	InitLogitScale float64 `yaml:"initLogitScale,omitempty"` // natural logarithm of the first scale
	// InitLogitBias is the first value of the learned bias of the sigmoid loss. Only that loss reads it.
	InitLogitBias float64 `yaml:"initLogitBias,omitempty"`
	Text          Text    `yaml:"text,omitempty"`

	// Of vit.
	NumClasses int `yaml:"numClasses,omitempty"` // K; 0 takes the data set's, and where none is named there is no classifier
	// Representation is the width of the layer with tanh before the classifier (Dosovitskiy et al. 2021, §3.1: the MLP head of
	// pre-training); 0: none.
	Representation int `yaml:"representation,omitempty"`

	// Of vilt, which also has vision and of text contextLength and vocabSize.
	ViLT ViLTParts `yaml:"vilt,omitempty"`

	Fusion FusionParts `yaml:"fusion,omitempty"`
}

// Transformer is what both towers share.
type Transformer struct {
	Width        int     `yaml:"width"` // D
	Depth        int     `yaml:"depth"` // blocks
	NumHeads     int     `yaml:"numHeads"`
	MLPRatio     float64 `yaml:"mlpRatio"`
	Activation   string  `yaml:"activation"` // quick_gelu, gelu, gelu_tanh
	LayerNormEps float64 `yaml:"layerNormEps"`
	Dropout      float64 `yaml:"dropout"`  // after the embedding, the attention's and both of the MLP's layers (spec 1.1)
	DropPath     float64 `yaml:"dropPath"` // stochastic depth of the last block; block i of n has i/(n-1) of it, a single one none
	// LayerScale is the first value of the learned factors of each block's branches (Touvron et al. 2021, §2); 0: no factors.
	LayerScale float64 `yaml:"layerScale,omitempty"`
}

// Vision describes the image tower, a ViT (Dosovitskiy et al. 2021).
type Vision struct {
	Transformer `yaml:",inline"`
	ImageSize   int    `yaml:"imageSize"`            // S, pixels: the height of a picture
	ImageWidth  int    `yaml:"imageWidth,omitempty"` // its width, where that is another; 0: as imageSize
	PatchSize   int    `yaml:"patchSize"`            // P, pixels; divides both sides
	Pool        string `yaml:"pool"`                 // cls: the class token; avg: the mean of the patches; map: attention of a learned query to all tokens
	ClassToken  bool   `yaml:"classToken"`
	PreNorm     bool   `yaml:"preNorm"`   // a LayerNorm after the embedding: CLIP's ln_pre, timm's pre_norm
	PatchBias   bool   `yaml:"patchBias"` // absent in CLIP
	Positions   string `yaml:"positions"` // learned, none, or a fixed table: see positionTables
	// NoEmbedClass gives the class token no position (timm's no_embed_class, big_vision).
	NoEmbedClass bool `yaml:"noEmbedClass,omitempty"`
	// NormAfterPool applies the last LayerNorm to the pooled row and not to the tokens (timm's fc_norm, open_clip's
	// final_ln_after_pool).
	NormAfterPool bool `yaml:"normAfterPool,omitempty"`
	// PatchDropout is the share of a picture's patches that training leaves out, drawn anew each time (Li et al. 2023, §3).
	PatchDropout float64 `yaml:"patchDropout,omitempty"`
}

// Text describes the text tower.
type Text struct {
	// Kind is empty for CLIP's own tower, or bert for BERT's encoder (Devlin et al. 2019), which reads both ways.
	Kind          string `yaml:"kind,omitempty"`
	Transformer   `yaml:",inline"`
	ContextLength int    `yaml:"contextLength"` // L, longest text in tokens
	VocabSize     int    `yaml:"vocabSize"`     // V; 0 takes the tokenizer's
	Causal        bool   `yaml:"causal"`
	Pool          string `yaml:"pool"`                 // eos: the last token; cls: the first; avg: the mean of all
	Segments      int    `yaml:"segments,omitempty"`   // rows of bert's segment table, of which the first is used; 0: two
	Projection    string `yaml:"projection,omitempty"` // empty: a matrix; none: the pooled rows lie in the joint space
	// Weights is a folder with the weights that a run begins with, in Hugging Face's names. What the tower's keys leave out is
	// taken from its config.json.
	Weights string `yaml:"weights,omitempty"`
}

// Default is CLIP's form at no particular size: sizes are zero and must be given, or come from a preset.
func Default() Config {
	t := Transformer{MLPRatio: 4, Activation: "gelu", LayerNormEps: 1e-5}
	return Config{
		Kind: "clip", InitScheme: "openai", InitLogitScale: math.Log(1 / 0.07),
		Vision: Vision{Transformer: t, Pool: "cls", ClassToken: true, PreNorm: true, Positions: "learned"},
		Text:   Text{Transformer: t, ContextLength: 77, Causal: true, Pool: "eos"},
	}
}

// Bounds far above every model there is, below which no count of elements overflows.
const (
	maxSize   = 1 << 20 // widths, vocabularies
	maxDepth  = 1 << 12 // blocks
	maxLength = 1 << 16 // tokens of a text
	maxSide   = 1 << 14 // pixels along a side of a picture
	maxGrid   = 1 << 10 // patches along it
)

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("model."+format, args...)) }
	k, ok := kinds[c.Kind]
	if !ok {
		return unknown("kind", c.Kind, kinds)
	}
	if _, ok := initSchemes[c.InitScheme]; !ok {
		errs = append(errs, unknown("init", c.InitScheme, initSchemes))
	}
	c.Vision.validate(below(bad, "vision"))
	k.validate(c, bad)
	return errors.Join(errs...)
}

// validateCLIP checks what only a dual encoder has.
func (c *Config) validateCLIP(bad func(format string, args ...any)) {
	c.validateTowers(bad)
	absent(bad, c.Kind, "fusion", c.Fusion)
}

// validateTowers checks what every model of two towers and a joint space has.
func (c *Config) validateTowers(bad func(format string, args ...any)) {
	positive(bad, "embedDim", c.EmbedDim)
	most := float64(MaxLogitScale)
	within(bad, "initLogitScale", c.InitLogitScale, c.InitLogitScale >= 0 && c.InitLogitScale <= most, fmt.Sprintf("[0, ln 100 = %.4f]", most))
	within(bad, "initLogitBias", c.InitLogitBias, math.Abs(c.InitLogitBias) <= 1e3, "[-1000, 1000]")
	c.Text.Transformer.validate(below(bad, "text"))
	if l := c.Text.ContextLength; l < 3 || l > maxLength {
		bad("text.contextLength: %d, want 3 (a token between two marks) to %d", l, maxLength)
	}
	positive(bad, "text.vocabSize", c.Text.VocabSize)
	c.Text.validate(c.EmbedDim, below(bad, "text"))
	absent(bad, c.Kind, "numClasses", c.NumClasses)
	absent(bad, c.Kind, "representation", c.Representation)
	absent(bad, c.Kind, "vilt", c.ViLT)
}

// validate checks what the kinds of text towers differ in.
func (t *Text) validate(embedDim int, bad func(format string, args ...any)) {
	pools := []string{"eos", "avg"}
	switch t.Kind {
	case "":
		absent(bad, "CLIP's text tower", "segments", t.Segments)
		absent(bad, "CLIP's text tower", "weights", t.Weights)
	case "bert":
		pools = []string{"cls", "avg"}
		absent(bad, "bert", "causal", t.Causal)
		absent(bad, "bert", "dropPath", t.DropPath)
		absent(bad, "bert", "layerScale", t.LayerScale)
		if t.Segments < 0 || t.Segments > maxSize {
			bad("segments: %d, want 0 to %d", t.Segments, maxSize)
		}
	default:
		bad("kind: %q is unknown; known: bert, or none for CLIP's", t.Kind)
	}
	if !slices.Contains(pools, t.Pool) {
		bad("pool: %q is unknown; known: %s", t.Pool, strings.Join(pools, ", "))
	}
	switch {
	case t.Projection != "" && t.Projection != "none":
		bad("projection: %q is unknown; known: none, or leave it out", t.Projection)
	case t.Projection == "none" && t.Width != embedDim:
		bad("projection: none, but width %d is not embedDim %d", t.Width, embedDim)
	}
}

func positive(bad func(format string, args ...any), key string, v int) {
	if v <= 0 || v > maxSize {
		bad("%s: %d, want 1 to %d", key, v, maxSize)
	}
}

// within checks a real number; NaN is in no range.
func within(bad func(format string, args ...any), key string, v float64, ok bool, want string) {
	if !ok {
		bad("%s: %v, want %s", key, v, want)
	}
}

// absent refuses a key of another kind of model.
func absent[V comparable](bad func(format string, args ...any), kind, key string, v V) {
	var none V
	if v != none {
		bad("%s: %v, but a %s has none", key, v, kind)
	}
}

// validate reports what is wrong with a stack of blocks.
func (t *Transformer) validate(bad func(format string, args ...any)) {
	positive(bad, "width", t.Width)
	if t.Depth < 1 || t.Depth > maxDepth {
		bad("depth: %d, want 1 to %d", t.Depth, maxDepth)
	}
	positive(bad, "numHeads", t.NumHeads)
	if t.NumHeads > 0 && t.Width%t.NumHeads != 0 {
		bad("width: %d is not a multiple of numHeads %d", t.Width, t.NumHeads)
	}
	if h := t.MLPRatio * float64(t.Width); !(h >= 1 && h <= maxSize) {
		bad("mlpRatio: %v of width %d is %v, want 1 to %d", t.MLPRatio, t.Width, h, maxSize)
	}
	if _, err := kernel.ParseAct(t.Activation); err != nil {
		bad("activation: %w", err)
	}
	within(bad, "layerNormEps", t.LayerNormEps, t.LayerNormEps > 0 && t.LayerNormEps <= 1, "(0, 1]")
	within(bad, "dropout", t.Dropout, t.Dropout >= 0 && t.Dropout < 1, "[0, 1)")
	within(bad, "dropPath", t.DropPath, t.DropPath >= 0 && t.DropPath < 1, "[0, 1)")
	within(bad, "layerScale", t.LayerScale, t.LayerScale >= 0 && t.LayerScale <= 1e3, "[0, 1000]")
}

// below makes the faults of a part those of the key that holds it.
func below(bad func(format string, args ...any), key string) func(format string, args ...any) {
	return func(format string, args ...any) { bad(key+"."+format, args...) }
}

// hidden returns the width of the blocks' MLP, mlpRatio·D; a ratio that says no whole number is cut, as open_clip and timm do.
func (t *Transformer) hidden() int { return int(t.MLPRatio * float64(t.Width)) }

// validate checks the image tower.
func (v *Vision) validate(bad func(format string, args ...any)) {
	v.Transformer.validate(bad)
	positive(bad, "patchSize", v.PatchSize)
	side := func(key string, n int) {
		switch p := v.PatchSize; {
		case n < 1 || n > maxSide:
			bad("%s: %d, want 1 to %d", key, n, maxSide)
		case p <= 0:
		case n/p > maxGrid:
			bad("%s: %d has %d patches of %d a side, want at most %d", key, n, n/p, p, maxGrid)
		case n%p != 0:
			bad("%s: %d is not a multiple of patchSize %d", key, n, p)
		}
	}
	side("imageSize", v.ImageSize)
	if v.ImageWidth != 0 {
		side("imageWidth", v.ImageWidth)
	}
	switch {
	case v.Pool != "cls" && v.Pool != "avg" && v.Pool != "map":
		bad("pool: %q is unknown; known: cls, avg, map", v.Pool)
	case v.Pool == "cls" && !v.ClassToken:
		bad("pool: cls needs classToken")
	}
	if table, fixed := positionTables[v.Positions]; fixed {
		if v.Width%table.multiple != 0 {
			bad("positions: %s need a width that is a multiple of %d, not %d", v.Positions, table.multiple, v.Width)
		}
	} else if v.Positions != "learned" && v.Positions != "none" {
		bad("positions: %q is unknown; known: learned, none, %s", v.Positions, strings.Join(slices.Sorted(maps.Keys(positionTables)), ", "))
	}
	if v.NoEmbedClass && !v.ClassToken {
		bad("noEmbedClass: it is about a class token, but classToken is false")
	}
	within(bad, "patchDropout", v.PatchDropout, v.PatchDropout >= 0 && v.PatchDropout < 1, "[0, 1)")
}

// Sides returns the height and the width of a picture in pixels.
func (v *Vision) Sides() (height, width int) {
	if v.ImageWidth > 0 {
		return v.ImageSize, v.ImageWidth
	}
	return v.ImageSize, v.ImageSize
}

// Grid returns the rows and columns of a picture's patches.
func (v *Vision) Grid() [2]int {
	height, width := v.Sides()
	return [2]int{height / v.PatchSize, width / v.PatchSize}
}

// NumPatches returns N, (S/P)² of a square.
func (v *Vision) NumPatches() int {
	g := v.Grid()
	return g[0] * g[1]
}

// NumTokens returns the tokens of one picture, with the class token.
func (v *Vision) NumTokens() int {
	if v.ClassToken {
		return v.NumPatches() + 1
	}
	return v.NumPatches()
}

// ForwardFLOPs counts the operations of one pair's forward pass as the reference computes it: every token of the context in
// every block, whatever the text's length. An operation is a multiplication or an addition of a matrix product (spec 2.4). Of a
// kind without towers it is 0: not counted.
func (c *Config) ForwardFLOPs() float64 {
	if c.Kind != "clip" && c.Kind != "vit" {
		return 0
	}
	tower := func(t *Transformer, tokens int) float64 {
		n, d := float64(tokens), float64(t.Width)
		return float64(t.Depth) * (n*d*d*(4+2*t.MLPRatio) + 2*n*n*d)
	}
	v, t := &c.Vision, &c.Text
	patches := float64(v.NumPatches()) * float64(3*v.PatchSize*v.PatchSize*v.Width)
	return 2 * (patches + tower(&v.Transformer, v.NumTokens()) + tower(&t.Transformer, t.ContextLength) + float64(c.EmbedDim*(v.Width+t.Width)))
}
