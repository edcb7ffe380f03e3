package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// ViT is the classifier of Dosovitskiy et al. 2021: an image tower and a linear layer of class scores. With no classes it is the tower
// alone, as Hugging Face's ViTModel and timm's models with num_classes=0 are. Parameters have timm's names.
type ViT struct {
	Config Config
	Layout Layout

	tower     *visionTower
	represent linear // no weight without a representation layer
	head      linear // no weight without classes
}

// NewViT lays the model out. The configuration must be valid.
func NewViT(cfg Config) (*ViT, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &ViT{Config: cfg}
	l, s, names := &m.Layout, initSchemes[cfg.InitScheme], timmVision
	if cfg.Vision.NormAfterPool && cfg.Vision.Pool != "cls" {
		names.norm = "fc_norm"
	}
	var err error
	if m.tower, err = newVisionTower(l, &m.Config.Vision, s, names); err != nil {
		return nil, err
	}
	d := cfg.Vision.Width
	if r := cfg.Representation; r > 0 {
		m.represent = linear{l.add("pre_logits.fc.weight", s.represent(d), r, d), l.add("pre_logits.fc.bias", constant(0), r)}
		d = r
	}
	if k := cfg.NumClasses; k > 0 {
		m.head = linear{l.add(headWeight, s.head(d), k, d), l.add("head.bias", constant(0), k)}
	}
	return m, nil
}

// Parameters returns the order of the parameters in a slab.
func (m *ViT) Parameters() *Layout { return &m.Layout }

// Clamp does nothing: no parameter has a range.
func (m *ViT) Clamp([]float32) {}

// NewImages makes an input of pictures.
func (m *ViT) NewImages(g *ops.Graph, name string, n int, mean, std [3]float32) *ImageInput {
	return newImageInput(g, name, &m.Config.Vision, n, mean, std)
}

// NewTexts returns nil: a classifier reads no texts.
func (m *ViT) NewTexts(*ops.Graph, string, int) *TextInput { return nil }

// NumClasses returns K, 0 without a classifier.
func (m *ViT) NumClasses() int { return m.Config.NumClasses }

// FeatureDim returns D, the width of Features.
func (m *ViT) FeatureDim() int { return m.Config.Vision.Width }

// Features adds the image tower to g: pictures -> pooled rows (B, D), before the representation layer.
func (m *ViT) Features(g *ops.Graph, in *ImageInput) *ops.Node {
	return in.once("features", func() *ops.Node { return m.tower.forward(g, in) })
}

// Tokens adds the tower's first blocks to g: pictures -> all their tokens (R, D). After the last block the norm follows, unless it belongs to the
// pooled row, if normed says so.
func (m *ViT) Tokens(g *ops.Graph, in *ImageInput, blocks int, normed bool) *ops.Node {
	x := m.tower.tokens(g, in, blocks)
	if normed && !m.Config.Vision.NormAfterPool {
		x = m.tower.norm.forward(g, x)
	}
	return x
}

// Scores adds what follows Features to g: (B, D) -> scores of the classes (B, K), before softmax. Without classes it ends with the
// representation layer, or is x where there is none.
func (m *ViT) Scores(g *ops.Graph, x *ops.Node) *ops.Node {
	if m.represent.w != nil {
		x = m.represent.forward(g, x, ops.LinearOpt{Act: kernel.ActTanh})
	}
	if m.head.w == nil {
		return x
	}
	return m.head.forward(g, x, ops.LinearOpt{})
}

// Embed adds the whole model to g: pictures -> unit rows of what Scores gives. It serves a model without classes.
func (m *ViT) Embed(g *ops.Graph, in *ImageInput) *ops.Node {
	return g.L2Normalize(m.Scores(g, m.Features(g, in)), normEps)
}

const headWeight = "head.weight"

// Inherit lets a classifier keep its initial values where the model that it starts from has none.
func (m *ViT) Inherit(p *Param, _ []float32, from *Layout, _ []float32) string {
	if (p == m.head.w || p == m.head.b) && from.Find(headWeight) == nil {
		return "a new classifier's, which the start does not have"
	}
	return ""
}

// DefaultViT is timm's form at no particular size: class token, erf GELU, LayerNorm with 1e-6.
func DefaultViT() Config {
	return Config{Kind: "vit", InitScheme: "timm", Vision: Vision{
		Transformer: Transformer{MLPRatio: 4, Activation: "gelu", LayerNormEps: 1e-6},
		Pool:        "cls", ClassToken: true, PatchBias: true, Positions: "learned",
	}}
}

// ViTPresets are the sizes of the papers (spec 1.2) for pictures of 224 pixels, named by size and patch.
var ViTPresets = vitPresets()

func vitPresets() map[string]Config {
	out := map[string]Config{}
	for _, s := range []struct {
		name                string
		width, depth, heads int
	}{{"Ti", 192, 12, 3}, {"S", 384, 12, 6}, {"M", 512, 12, 8}, {"B", 768, 12, 12}, {"L", 1024, 24, 16}, {"H", 1280, 32, 16}} {
		for _, p := range []int{32, 16, 14} {
			c := DefaultViT()
			v := &c.Vision
			v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads = 224, p, s.width, s.depth, s.heads
			out[fmt.Sprintf("ViT-%s-%d", s.name, p)] = c
		}
	}
	return out
}

// validateViT checks what only a classifier has.
func (c *Config) validateViT(bad func(format string, args ...any)) {
	if c.NumClasses < 0 || c.NumClasses > maxSize {
		bad("numClasses: %d, want 0 (no classifier) to %d", c.NumClasses, maxSize)
	}
	if c.Representation < 0 || c.Representation > maxSize {
		bad("representation: %d, want 0 (none) to %d", c.Representation, maxSize)
	}
	absent(bad, c.Kind, "embedDim", c.EmbedDim)
	absent(bad, c.Kind, "initLogitScale", c.InitLogitScale)
	absent(bad, c.Kind, "initLogitBias", c.InitLogitBias)
	absent(bad, c.Kind, "text", c.Text)
	absent(bad, c.Kind, "vilt", c.ViLT)
	absent(bad, c.Kind, "fusion", c.Fusion)
}
