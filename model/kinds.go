package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"diptych/ops"
)

// Model is what training and evaluation need of every kind of model. What an objective needs besides, it asks for by an
// interface of its own (package losses).
type Model interface {
	// Parameters returns the order of the model's parameters in a slab.
	Parameters() *Layout
	// Clamp keeps parameters in their range after an update; weights is a slab of them.
	Clamp(weights []float32)
	// NewImages makes a run-time input of at most n pictures, which name tells from others of the graph. mean and std are those
	// of the pixel levels divided by 255.
	NewImages(g *ops.Graph, name string, n int, mean, std [3]float32) *ImageInput
	// NewTexts makes a run-time input of at most n texts; nil if the model takes none.
	NewTexts(g *ops.Graph, name string, n int) *TextInput
}

// Heads are the parts of a model that only some objectives read; package losses says which.
type Heads struct {
	LogitBias bool // the sigmoid loss's learned bias
	Match     bool // scores of whether a picture and a sentence belong together
	Words     bool // scores of hidden words
	Colors    bool // scores of the colours of hidden patches
	Rank      bool // the score by which sentences are ranked for a picture
	// Answers is what the scores of answers, model.numClasses of them, are called in files; empty: there are none.
	Answers string
}

// What the scores of answers are called in files: the authors' for questions, Hugging Face's for other sentences; of two
// pictures they are the authors' nlvr2_classifier.
const (
	AnswersOfQuestion = "vqa_classifier"
	AnswersOfPair     = "classifier"
)

// kind is one form of model.
type kind struct {
	defaults func() Config
	presets  map[string]Config
	validate func(c *Config, bad func(format string, args ...any))
	build    func(c Config, h Heads) (Model, error)
	texts    bool // it reads sentences
	shapes   bool // it reads pictures of different shapes
}

// kinds is the table of the forms that model.kind names.
var kinds map[string]kind

func init() { // in a function, for the constructors ask the table what is valid
	kinds = map[string]kind{
		"clip":   {Default, Presets, (*Config).validateCLIP, func(c Config, h Heads) (Model, error) { return NewCLIP(c, h.LogitBias) }, true, false},
		"fusion": {DefaultFusion, FusionPresets, (*Config).validateFusion, func(c Config, h Heads) (Model, error) { return newFusion(c, h) }, true, false},
		"vilt": {DefaultViLT, ViLTPresets, (*Config).validateViLT, func(c Config, h Heads) (Model, error) {
			heads := ViLTHeads{Match: h.Match, Words: h.Words, Color: h.Colors, Rank: h.Rank}
			if h.Answers != "" {
				heads.Classes, heads.ClassName = c.NumClasses, h.Answers
			}
			if h.Answers == AnswersOfPair && c.ViLT.PictureTypes == 2 {
				heads.ClassName = "nlvr2_classifier"
			}
			return NewViLT(c, heads)
		}, true, true},
		"vit": {DefaultViT, ViTPresets, (*Config).validateViT, func(c Config, _ Heads) (Model, error) { return NewViT(c) }, false, false},
	}
}

// New lays out the model of a configuration, which must be valid.
func New(c Config, h Heads) (Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return kinds[c.Kind].build(c, h)
}

// HasTexts tells whether models of the configuration's kind read sentences.
func (c *Config) HasTexts() bool { return kinds[c.Kind].texts }

// HasShapes tells whether models of the configuration's kind read pictures of different shapes, in whole patches.
func (c *Config) HasShapes() bool { return kinds[c.Kind].shapes }

// DefaultFor returns the values that a recipe may leave out, for a kind of model and the name of one of its presets; an empty
// kind is clip, an empty preset none.
func DefaultFor(kindName, preset string) (Config, error) {
	if kindName == "" {
		kindName = "clip"
	}
	k, ok := kinds[kindName]
	if !ok {
		return Config{}, unknown("kind", kindName, kinds)
	}
	if preset == "" {
		return k.defaults(), nil
	}
	c, ok := k.presets[preset]
	if !ok {
		return Config{}, unknown("preset", preset, k.presets)
	}
	c.Preset = preset
	return c, nil
}

// PresetNames lists the presets of clip.
func PresetNames() []string { return slices.Sorted(maps.Keys(Presets)) }

// unknown is the error of a key whose value is none of a table's names.
func unknown[V any](key, name string, table map[string]V) error {
	return fmt.Errorf("model.%s: %q is unknown; known: %s", key, name, strings.Join(slices.Sorted(maps.Keys(table)), ", "))
}

// Grain is the graph of one grain while it is built, for training: the inputs that its passes share.
type Grain struct {
	G         *ops.Graph
	N         int // pairs
	Model     Model
	Mean, Std [3]float32 // of pixel levels divided by 255
	Cache     *TextCache // of a frozen text tower, or nil

	images *ImageInput
	texts  *TextInput
	nodes  map[string]*ops.Node
}

// NewGrain begins the graph of a grain of n pairs. cache, if not nil, gives what a frozen text tower makes of their sentences.
func NewGrain(m Model, n int, mean, std [3]float32, cache *TextCache) *Grain {
	return &Grain{G: ops.NewGraph[float32](), N: n, Model: m, Mean: mean, Std: std, Cache: cache, nodes: map[string]*ops.Node{}}
}

// Images returns the input of the pairs' own pictures, which the loop binds.
func (gr *Grain) Images() *ImageInput {
	if gr.images == nil {
		gr.images = gr.NewImages("image")
	}
	return gr.images
}

// Texts returns the input of the pairs' own sentences, which the loop binds.
func (gr *Grain) Texts() *TextInput {
	if gr.texts == nil {
		gr.texts = gr.NewTexts("text")
	}
	return gr.texts
}

// Own returns the inputs that Images and Texts have made; nil are those that nobody asked for.
func (gr *Grain) Own() (*ImageInput, *TextInput) { return gr.images, gr.texts }

// NewImages makes an input of as many other pictures, which who asks binds.
func (gr *Grain) NewImages(name string) *ImageInput {
	in := gr.Model.NewImages(gr.G, name, gr.N, gr.Mean, gr.Std)
	in.dropPatches(gr.G, name, gr.N)
	return in
}

// NewTexts makes an input of as many other sentences, which who asks binds.
func (gr *Grain) NewTexts(name string) *TextInput {
	if gr.Cache != nil {
		return gr.Cache.newInput(gr.G, name, gr.N)
	}
	return gr.Model.NewTexts(gr.G, name, gr.N)
}

// Once returns what build gave when it was first asked for under key: a tower's result that several objectives read.
func (gr *Grain) Once(key string, build func() *ops.Node) *ops.Node {
	n, ok := gr.nodes[key]
	if !ok {
		n = build()
		gr.nodes[key] = n
	}
	return n
}
