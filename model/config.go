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

// Config describes a dual encoder after CLIP (Radford et al. 2021, §2.4; spec 2.1–2.4).
type Config struct {
	Preset         string  `yaml:"preset,omitempty"` // fills every field that the recipe leaves out; see Presets
	EmbedDim       int     `yaml:"embedDim"`         // E, of the joint space
	InitScheme     string  `yaml:"init"`             // openai, hf or timm
	InitLogitScale float64 `yaml:"initLogitScale"`   // natural logarithm of the first scale
	// InitLogitBias is the first value of the learned bias of the sigmoid loss. Only that loss reads it.
	InitLogitBias float64 `yaml:"initLogitBias"`
	Vision        Vision  `yaml:"vision"`
	Text          Text    `yaml:"text"`
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
}

// Vision describes the image tower, a ViT (Dosovitskiy et al. 2021).
type Vision struct {
	Transformer `yaml:",inline"`
	ImageSize   int    `yaml:"imageSize"` // S, pixels
	PatchSize   int    `yaml:"patchSize"` // P, pixels; divides S
	Pool        string `yaml:"pool"`      // cls: the class token; avg: the mean of the patches
	ClassToken  bool   `yaml:"classToken"`
	PreNorm     bool   `yaml:"preNorm"`   // CLIP's ln_pre after the embedding
	PatchBias   bool   `yaml:"patchBias"` // absent in CLIP
	Positions   string `yaml:"positions"` // learned, sincos2d (fixed) or none
}

// Text describes the text tower.
type Text struct {
	Transformer   `yaml:",inline"`
	ContextLength int    `yaml:"contextLength"` // L, longest text in tokens
	VocabSize     int    `yaml:"vocabSize"`     // V; 0 takes the tokenizer's
	Causal        bool   `yaml:"causal"`
	Pool          string `yaml:"pool"` // eos: the last token; avg: the mean of all
}

// Default is CLIP's form at no particular size: sizes are zero and must be given, or come from a preset.
func Default() Config {
	t := Transformer{MLPRatio: 4, Activation: "gelu", LayerNormEps: 1e-5}
	return Config{
		InitScheme: "openai", InitLogitScale: math.Log(1 / 0.07),
		Vision: Vision{Transformer: t, Pool: "cls", ClassToken: true, PreNorm: true, Positions: "learned"},
		Text:   Text{Transformer: t, ContextLength: 77, Causal: true, Pool: "eos"},
	}
}

// preset builds one of open_clip's configurations (spec 2.4).
func preset(embed, size, patch, vWidth, vDepth, tWidth, tDepth int) Config {
	c := Default()
	c.EmbedDim = embed
	c.Vision.ImageSize, c.Vision.PatchSize, c.Vision.Width, c.Vision.Depth, c.Vision.NumHeads = size, patch, vWidth, vDepth, vWidth/64
	c.Text.VocabSize, c.Text.Width, c.Text.Depth, c.Text.NumHeads = 49408, tWidth, tDepth, tWidth/64
	return c
}

// Presets are named configurations, under open_clip's names.
var Presets = map[string]Config{
	"ViT-S-32-alt": preset(256, 224, 32, 384, 12, 256, 10),
	"ViT-B-32":     preset(512, 224, 32, 768, 12, 512, 12),
	"ViT-B-16":     preset(512, 224, 16, 768, 12, 512, 12),
}

// PresetNames lists the presets.
func PresetNames() []string { return slices.Sorted(maps.Keys(Presets)) }

// DefaultFor returns the preset of that name, or Default when name is empty.
func DefaultFor(name string) (Config, error) {
	if name == "" {
		return Default(), nil
	}
	c, ok := Presets[name]
	if !ok {
		return Config{}, fmt.Errorf("model.preset: %q is unknown; known: %s", name, strings.Join(PresetNames(), ", "))
	}
	c.Preset = name
	return c, nil
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
	positive := func(name string, v int) {
		if v <= 0 || v > maxSize {
			bad("%s: %d, want 1 to %d", name, v, maxSize)
		}
	}
	// within checks a real number; NaN is in no range.
	within := func(name string, v float64, ok bool, want string) {
		if !ok {
			bad("%s: %v, want %s", name, v, want)
		}
	}
	positive("embedDim", c.EmbedDim)
	if _, ok := initSchemes[c.InitScheme]; !ok {
		bad("init: %q is unknown; known: %s", c.InitScheme, strings.Join(slices.Sorted(maps.Keys(initSchemes)), ", "))
	}
	most := float64(MaxLogitScale)
	within("initLogitScale", c.InitLogitScale, c.InitLogitScale >= 0 && c.InitLogitScale <= most, fmt.Sprintf("[0, ln 100 = %.4f]", most))
	within("initLogitBias", c.InitLogitBias, math.Abs(c.InitLogitBias) <= 1e3, "[-1000, 1000]")
	tower := func(name string, t *Transformer) {
		positive(name+".width", t.Width)
		if t.Depth < 1 || t.Depth > maxDepth {
			bad("%s.depth: %d, want 1 to %d", name, t.Depth, maxDepth)
		}
		positive(name+".numHeads", t.NumHeads)
		if t.NumHeads > 0 && t.Width%t.NumHeads != 0 {
			bad("%s: width %d is not a multiple of numHeads %d", name, t.Width, t.NumHeads)
		}
		if h := t.MLPRatio * float64(t.Width); !(h >= 1 && h <= maxSize) || h != math.Trunc(h) {
			bad("%s.mlpRatio: %v of width %d is %v, want a whole number, 1 to %d", name, t.MLPRatio, t.Width, h, maxSize)
		}
		if _, err := kernel.ParseAct(t.Activation); err != nil {
			bad("%s.activation: %w", name, err)
		}
		within(name+".layerNormEps", t.LayerNormEps, t.LayerNormEps > 0 && t.LayerNormEps <= 1, "(0, 1]")
		within(name+".dropout", t.Dropout, t.Dropout >= 0 && t.Dropout < 1, "[0, 1)")
		within(name+".dropPath", t.DropPath, t.DropPath >= 0 && t.DropPath < 1, "[0, 1)")
	}
	v := &c.Vision
	tower("vision", &v.Transformer)
	if v.ImageSize < 1 || v.ImageSize > maxSide {
		bad("vision.imageSize: %d, want 1 to %d", v.ImageSize, maxSide)
	}
	positive("vision.patchSize", v.PatchSize)
	if v.PatchSize > 0 && v.ImageSize/v.PatchSize > maxGrid {
		bad("vision: imageSize %d has %d patches of %d a side, want at most %d", v.ImageSize, v.ImageSize/v.PatchSize, v.PatchSize, maxGrid)
	}
	if v.PatchSize > 0 && v.ImageSize%v.PatchSize != 0 {
		bad("vision: imageSize %d is not a multiple of patchSize %d", v.ImageSize, v.PatchSize)
	}
	switch {
	case v.Pool != "cls" && v.Pool != "avg":
		bad("vision.pool: %q is unknown; known: cls, avg", v.Pool)
	case v.Pool == "cls" && !v.ClassToken:
		bad("vision: pool cls needs classToken")
	}
	switch v.Positions {
	case "learned", "none":
	case "sincos2d":
		if v.Width%4 != 0 {
			bad("vision: positions sincos2d need a width that is a multiple of 4, not %d", v.Width)
		}
	default:
		bad("vision.positions: %q is unknown; known: learned, sincos2d, none", v.Positions)
	}
	tower("text", &c.Text.Transformer)
	if l := c.Text.ContextLength; l < 3 || l > maxLength {
		bad("text.contextLength: %d, want 3 (a token between two marks) to %d", l, maxLength)
	}
	positive("text.vocabSize", c.Text.VocabSize)
	if c.Text.Pool != "eos" && c.Text.Pool != "avg" {
		bad("text.pool: %q is unknown; known: eos, avg", c.Text.Pool)
	}
	return errors.Join(errs...)
}

// NumPatches returns N = (S/P)².
func (v *Vision) NumPatches() int { return v.ImageSize / v.PatchSize * (v.ImageSize / v.PatchSize) }

// NumTokens returns the tokens of one picture, with the class token.
func (v *Vision) NumTokens() int {
	if v.ClassToken {
		return v.NumPatches() + 1
	}
	return v.NumPatches()
}

// ForwardFLOPs counts the operations of one pair's forward pass as the reference computes it: every token of the context in
// every block, whatever the text's length. An operation is a multiplication or an addition of a matrix product (spec 2.4).
func (c *Config) ForwardFLOPs() float64 {
	tower := func(t *Transformer, tokens int) float64 {
		n, d := float64(tokens), float64(t.Width)
		return float64(t.Depth) * (n*d*d*(4+2*t.MLPRatio) + 2*n*n*d)
	}
	v, t := &c.Vision, &c.Text
	patches := float64(v.NumPatches()) * float64(3*v.PatchSize*v.PatchSize*v.Width)
	return 2 * (patches + tower(&v.Transformer, v.NumTokens()) + tower(&t.Transformer, t.ContextLength) + float64(c.EmbedDim*(v.Width+t.Width)))
}
