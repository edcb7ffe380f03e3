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

	scheme initScheme
	visual visualTower
	text   textTower
}

type visualTower struct {
	patch   linear
	class   *Param // (D), nil without a class token
	pos     *Param // (N+1, D) or (N, D), nil without positions
	lnPre   norm   // gain nil when left out
	trunk   *transformer
	lnPost  norm
	project *Param // (D, E), stored in×out
}

type textTower struct {
	table, pos *Param // (V, D), (L, D)
	trunk      *transformer
	lnFinal    norm
	project    *Param // (D, E)
}

// NewCLIP lays the model out. withBias adds the sigmoid loss's learned bias. The configuration must be valid.
func NewCLIP(cfg Config, withBias bool) (*CLIP, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &CLIP{Config: cfg, scheme: initSchemes[cfg.InitScheme]}
	l, s, v, t := &m.Layout, m.scheme, &cfg.Vision, &cfg.Text
	m.LogitScale = l.add("logit_scale", constant(cfg.InitLogitScale))
	if withBias {
		m.LogitBias = l.add("logit_bias", constant(cfg.InitLogitBias))
	}

	d, patchIn := v.Width, 3*v.PatchSize*v.PatchSize
	m.visual.patch.w = l.add("visual.conv1.weight", s.patch(patchIn, d), d, 3, v.PatchSize, v.PatchSize)
	if v.PatchBias {
		m.visual.patch.b = l.add("visual.conv1.bias", s.patch(patchIn, d), d)
	}
	skip := 0
	if v.ClassToken {
		skip = 1
		m.visual.class = l.add("visual.class_embedding", s.class(d), d)
	}
	switch v.Positions {
	case "learned":
		m.visual.pos = l.add("visual.positional_embedding", s.visionPos(d), v.NumTokens(), d)
	case "sincos2d":
		m.visual.pos = l.add("visual.positional_embedding", sinCos2D(v.ImageSize/v.PatchSize, d, skip), v.NumTokens(), d)
		m.visual.pos.Frozen = true
	}
	if v.PreNorm {
		m.visual.lnPre = l.addNorm("visual.ln_pre", d, v.LayerNormEps)
	}
	var err error
	if m.visual.trunk, err = newTransformer(l, "visual.transformer", v.Transformer, s, true, false); err != nil {
		return nil, fmt.Errorf("model: vision: %w", err)
	}
	m.visual.lnPost = l.addNorm("visual.ln_post", d, v.LayerNormEps)
	m.visual.project = l.add("visual.proj", s.joint(d), d, cfg.EmbedDim)

	d = t.Width
	m.text.table = l.add("token_embedding.weight", s.tokenEmbed, t.VocabSize, d)
	m.text.pos = l.add("positional_embedding", s.textPos, t.ContextLength, d)
	if m.text.trunk, err = newTransformer(l, "transformer", t.Transformer, s, false, t.Causal); err != nil {
		return nil, fmt.Errorf("model: text: %w", err)
	}
	m.text.lnFinal = l.addNorm("ln_final", d, t.LayerNormEps)
	m.text.project = l.add("text_projection", s.joint(d), d, cfg.EmbedDim)
	return m, nil
}

// normEps is the smallest norm that a feature is divided by (open_clip's F.normalize; spec 2.3).
const normEps = 1e-12

// EncodeImage adds the image tower to g: pictures -> imageEmbed (B, E), unit rows.
func (m *CLIP) EncodeImage(g *ops.Graph, in *ImageInput) *ops.Node {
	v, t := &m.Config.Vision, &m.visual
	x := g.PatchEmbed(in.image, t.patch.w.node(g), t.patch.b.node(g), v.PatchSize) // (B·N, D)
	x = g.AssembleTokens(x, t.class.node(g), t.pos.node(g), in.image, in.seqs)     // (B·(N+1), D)
	if v.Dropout > 0 {
		x = g.Dropout(x, v.Dropout, "visual.embed", in.seqs)
	}
	if t.lnPre.gain != nil {
		x = t.lnPre.forward(g, x)
	}
	x = t.trunk.forward(g, x, in.seqs, in.class)
	if v.Pool == "cls" {
		x = t.lnPost.forward(g, x) // (B, D)
	} else {
		x = g.MeanPool(t.lnPost.forward(g, x), in.seqs, v.NumTokens()-v.NumPatches()) // (B, D)
	}
	return g.L2Normalize(g.MatMul(x, t.project.node(g)), normEps) // (B, E)
}

// EncodeText adds the text tower to g: packed token ids -> textEmbed (B, E), unit rows.
func (m *CLIP) EncodeText(g *ops.Graph, in *TextInput) *ops.Node {
	c, t := &m.Config.Text, &m.text
	x := g.Embed(in.ids, t.table.node(g), t.pos.node(g), in.seqs) // (R, D)
	if c.Dropout > 0 {
		x = g.Dropout(x, c.Dropout, "text.embed", in.seqs)
	}
	x = t.trunk.forward(g, x, in.seqs, in.last)
	if c.Pool == "eos" {
		x = t.lnFinal.forward(g, x) // (B, D); the reference normalises all rows and then picks: the same row
	} else {
		x = g.MeanPool(t.lnFinal.forward(g, x), in.seqs, 0) // (B, D)
	}
	return g.L2Normalize(g.MatMul(x, t.project.node(g)), normEps) // (B, E)
}

// MaxLogitScale is the largest log t: the paper clips the scale at 100 (§2.5; spec 2.3).
var MaxLogitScale = float32(math.Log(100))

// Clamp keeps the scale within [0, ln 100] after an update.
func (m *CLIP) Clamp(weights []float32) {
	s := m.LogitScale.Slice(weights)
	s[0] = min(max(s[0], 0), MaxLogitScale)
}
