// Package model builds towers and their named parameters, and runs them forward for evaluation. It knows no loss and no data:
// a model is a layout of one flat weight slab, and functions that add its computation to a graph of package ops.
// Start at CLIP.
package model

import (
	"fmt"
	"math"

	"diptych/ops"
)

// CLIP is the dual encoder of Radford et al. 2021: a ViT and a text transformer whose outputs meet in a joint space.
// Parameters have OpenAI's and open_clip's names and shapes.
type CLIP struct {
	Config Config
	Layout Layout

	// LogitScale holds log t (); LogitBias the sigmoid loss's bias (), nil unless the model was built with one.
	LogitScale, LogitBias *Param

	visual      *visionTower
	project     *Param // (D, E), stored in×out
	text        textTower
	clipText    *clipText // text, if it is CLIP's own; nil if not
	textParams  []*Param
	textProject *Param // (D, E), nil without a projection
}

// textTower turns texts into rows.
type textTower interface {
	// forward adds the tower to g: packed token ids -> pooled rows (B, D).
	forward(g *ops.Graph, in *TextInput) *ops.Node
}

// clipText is CLIP's own text tower.
type clipText struct {
	cfg        *Text
	table, pos *Param // (V, D), (L, D)
	trunk      *transformer
	lnFinal    norm
}

// NewCLIP lays the model out. withBias adds the sigmoid loss's learned bias. The configuration must be valid.
func NewCLIP(cfg Config, withBias bool) (*CLIP, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &CLIP{Config: cfg}
	l, s, t := &m.Layout, initSchemes[cfg.InitScheme], &cfg.Text
	m.LogitScale = l.add("logit_scale", constant(cfg.InitLogitScale))
	if withBias {
		m.LogitBias = l.add("logit_bias", constant(cfg.InitLogitBias))
	}

	var err error
	if m.visual, err = newVisionTower(l, &m.Config.Vision, s, clipVision); err != nil {
		return nil, err
	}
	m.project = l.add("visual.proj", s.joint(cfg.Vision.Width), cfg.Vision.Width, cfg.EmbedDim)

	before := len(l.Params)
	if m.text, err = textKinds[t.Kind](l, &m.Config.Text, s); err != nil {
		return nil, fmt.Errorf("model: text: %w", err)
	}
	m.clipText, _ = m.text.(*clipText)
	m.textParams = l.Params[before:len(l.Params):len(l.Params)]
	if t.Projection != "none" {
		m.textProject = l.add("text_projection", s.joint(t.Width), t.Width, cfg.EmbedDim)
	}
	return m, nil
}

// textKinds is the table of text towers that model.text.kind names.
var textKinds = map[string]func(l *Layout, cfg *Text, s initScheme) (textTower, error){"": newCLIPText, "bert": newBERT}

func newCLIPText(l *Layout, cfg *Text, s initScheme) (textTower, error) {
	t, first := &clipText{cfg: cfg}, len(l.Params)
	t.table = l.add("token_embedding.weight", s.tokenEmbed, cfg.VocabSize, cfg.Width)
	t.pos = l.add("positional_embedding", s.textPos, cfg.ContextLength, cfg.Width)
	t.pos.Context = true
	l.above(first, cfg.Depth+1)
	var err error
	if t.trunk, err = newTransformer(l, "transformer.resblocks.%d", clipBlock, cfg.Transformer, s, false, cfg.Causal); err != nil {
		return nil, err
	}
	t.lnFinal = l.addNorm("ln_final", cfg.Width, cfg.LayerNormEps)
	return t, nil
}

func (t *clipText) forward(g *ops.Graph, in *TextInput) *ops.Node {
	x := t.trunk.forward(g, t.embed(g, in), in.seqs, in.read, in.pass)
	if in.read != nil {
		return t.lnFinal.forward(g, x) // (B, D); the reference normalises all rows and then picks: the same row
	}
	return g.MeanPool(t.lnFinal.forward(g, x), in.seqs, 0) // (B, D)
}

// embed adds the embedding of the tokens to g: packed token ids -> (R, D).
func (t *clipText) embed(g *ops.Graph, in *TextInput) *ops.Node {
	x := g.Embed(in.ids, t.table.node(g), t.pos.node(g), in.seqs) // (R, D)
	if t.cfg.Dropout > 0 {
		x = g.Dropout(x, t.cfg.Dropout, in.pass+"text.embed", in.seqs)
	}
	return x
}

// normEps is the smallest norm that a feature is divided by (open_clip's F.normalize; spec 2.3).
const normEps = 1e-12

// Parameters returns the order of the parameters in a slab.
func (m *CLIP) Parameters() *Layout { return &m.Layout }

// NewImages makes an input of pictures.
func (m *CLIP) NewImages(g *ops.Graph, name string, n int, mean, std [3]float32) *ImageInput {
	return newImageInput(g, name, &m.Config.Vision, n, mean, std)
}

// NewTexts makes an input of texts.
func (m *CLIP) NewTexts(g *ops.Graph, name string, n int) *TextInput {
	return newTextInput(g, name, &m.Config.Text, n)
}

// EmbedDim returns E, the width of the joint space.
func (m *CLIP) EmbedDim() int { return m.Config.EmbedDim }

// Scale returns the parameters of the log scale and of the sigmoid loss's bias, which is nil unless the model has one.
func (m *CLIP) Scale() (logScale, bias *Param) { return m.LogitScale, m.LogitBias }

// FeatureDim returns D, the width of Features.
func (m *CLIP) FeatureDim() int { return m.Config.Vision.Width }

// Features adds the image tower to g: pictures -> pooled rows (B, D), before the projection to the joint space.
func (m *CLIP) Features(g *ops.Graph, in *ImageInput) *ops.Node {
	return in.once("features", func() *ops.Node { return m.visual.forward(g, in) })
}

// EncodeImage adds the image tower to g: pictures -> imageEmbed (B, E), unit rows.
func (m *CLIP) EncodeImage(g *ops.Graph, in *ImageInput) *ops.Node {
	return g.L2Normalize(g.MatMul(m.Features(g, in), m.project.node(g)), normEps) // (B, E)
}

// TextFeatures adds the text tower to g: packed token ids -> pooled rows (B, D), before the projection to the joint space.
func (m *CLIP) TextFeatures(g *ops.Graph, in *TextInput) *ops.Node {
	if in.known != nil {
		return in.known
	}
	return m.text.forward(g, in)
}

// EncodeText adds the text tower to g: packed token ids -> textEmbed (B, E), unit rows.
func (m *CLIP) EncodeText(g *ops.Graph, in *TextInput) *ops.Node {
	x := m.TextFeatures(g, in) // (B, D)
	if m.textProject != nil {
		x = g.MatMul(x, m.textProject.node(g)) // (B, E)
	}
	return g.L2Normalize(x, normEps)
}

// ImageTokens adds the image tower's first blocks to g: pictures -> all their tokens (R, D), before the next block's norm.
func (m *CLIP) ImageTokens(g *ops.Graph, in *ImageInput, blocks int) *ops.Node {
	return m.visual.tokens(g, in, blocks)
}

// TextTokens adds the text tower's first blocks to g: packed token ids -> all their rows (R, D), before the next block's norm.
func (m *CLIP) TextTokens(g *ops.Graph, in *TextInput, blocks int) *ops.Node {
	return m.clipText.trunk.first(blocks).forward(g, m.clipText.embed(g, in), in.seqs, nil, in.pass)
}

// TextNorm adds the text tower's last norm to g.
func (m *CLIP) TextNorm(g *ops.Graph, x *ops.Node) *ops.Node { return m.clipText.lnFinal.forward(g, x) }

// Projections returns the matrices (D, E) of the image and the text tower to the joint space.
func (m *CLIP) Projections() (image, text *Param) { return m.project, m.textProject }

// MaxLogitScale is the largest log t: the paper clips the scale at 100 (§2.5; spec 2.3).
var MaxLogitScale = float32(math.Log(100))

// Clamp keeps the scale within [0, ln 100] after an update.
func (m *CLIP) Clamp(weights []float32) { clampScale(m.LogitScale, weights) }

func clampScale(logScale *Param, weights []float32) {
	s := logScale.Slice(weights)
	s[0] = min(max(s[0], 0), MaxLogitScale)
}
