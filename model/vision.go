package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// visionTower is a ViT from pixels to one row for each picture (Dosovitskiy et al. 2021, §3.1; spec 1.1).
type visionTower struct {
	cfg     *Vision
	patch   linear
	class   *Param // (D), nil without a class token
	pos     *Param // (N+1, D), or (N, D) without a class token or one for it; nil without positions
	preNorm norm   // gain nil when left out
	trunk   *transformer
	norm    norm
	pool    *attentionPool // nil unless the recipe pools by attention
}

// visionNames are the names of a vision tower's parameters in one family of models.
type visionNames struct {
	patch, class, pos, preNorm, norm, pool string
	blocks                                 string // of block %d
	block                                  blockNames
}

var (
	clipVision = visionNames{
		patch: "visual.conv1", class: "visual.class_embedding", pos: "visual.positional_embedding", preNorm: "visual.ln_pre",
		norm: "visual.ln_post", pool: "visual.attn_pool", blocks: "visual.transformer.resblocks.%d", block: clipBlock,
	}
	timmVision = visionNames{
		patch: "patch_embed.proj", class: "cls_token", pos: "pos_embed", preNorm: "norm_pre", norm: "norm", pool: "attn_pool",
		blocks: "blocks.%d", block: timmBlock,
	}
	albefVision = visionNames{
		patch: "visual_encoder.patch_embed.proj", class: "visual_encoder.cls_token", pos: "visual_encoder.pos_embed",
		preNorm: "visual_encoder.norm_pre", norm: "visual_encoder.norm", blocks: "visual_encoder.blocks.%d", block: timmBlock,
	}
)

// newVisionTower adds the parameters of a tower.
func newVisionTower(l *Layout, cfg *Vision, s initScheme, names visionNames) (*visionTower, error) {
	d, patchIn := cfg.Width, 3*cfg.PatchSize*cfg.PatchSize
	t, first := &visionTower{cfg: cfg}, len(l.Params)
	t.patch.w = l.add(names.patch+".weight", s.patch(patchIn, d), d, 3, cfg.PatchSize, cfg.PatchSize)
	if cfg.PatchBias {
		bias := s.patchBias
		if bias == nil {
			bias = s.patch
		}
		t.patch.b = l.add(names.patch+".bias", bias(patchIn, d), d)
	}
	if cfg.ClassToken {
		t.class = l.add(names.class, s.class(d), d)
	}
	rows := cfg.NumTokens()
	if cfg.NoEmbedClass {
		rows = cfg.NumPatches()
	}
	switch table, fixed := positionTables[cfg.Positions]; {
	case fixed:
		t.pos = l.add(names.pos, table.values(cfg.Grid()[1], d, rows-cfg.NumPatches()), rows, d)
		t.pos.Frozen = true
	case cfg.Positions == "learned":
		t.pos = l.add(names.pos, s.visionPos(d), rows, d)
	}
	if t.pos != nil {
		t.pos.Grid = cfg.Grid()
	}
	if cfg.PreNorm {
		t.preNorm = l.addNorm(names.preNorm, d, cfg.LayerNormEps)
	}
	l.above(first, cfg.Depth+1)
	var err error
	if t.trunk, err = newTransformer(l, names.blocks, names.block, cfg.Transformer, s, true, false); err != nil {
		return nil, fmt.Errorf("model: vision: %w", err)
	}
	t.norm = l.addNorm(names.norm, d, cfg.LayerNormEps)
	if cfg.Pool == "map" {
		t.pool = newAttentionPool(l, names.pool, cfg, s)
	}
	return t, nil
}

// tokens adds the tower's first blocks to g, without the last norm: pictures -> all their tokens (B·(N+1), D).
func (t *visionTower) tokens(g *ops.Graph, in *ImageInput, blocks int) *ops.Node {
	x, seqs := t.embed(g, in)
	return t.trunk.first(blocks).forward(g, x, seqs, nil, in.pass)
}

// embed adds what comes before the blocks to g: pictures -> tokens (R, D), and where each picture's lie.
func (t *visionTower) embed(g *ops.Graph, in *ImageInput) (*ops.Node, *ops.Seqs) {
	v := t.cfg
	x := g.PatchEmbed(in.image, t.patch.w.node(g), t.patch.b.node(g), v.PatchSize) // (B·N, D)
	pos := t.pos.node(g)
	if v.NoEmbedClass && pos != nil {
		x, pos = g.AddPositions(x, pos, in.patches), nil
	}
	x = g.AssembleTokens(x, t.class.node(g), pos, in.image, in.seqs) // (B·(N+1), D)
	if v.Dropout > 0 {
		x = g.Dropout(x, v.Dropout, in.pass+"visual.embed", in.seqs)
	}
	seqs := in.seqs
	if in.keep != nil {
		x, seqs = g.Gather(x, in.keep.rows), in.keep.seqs
	}
	if t.preNorm.gain != nil {
		x = t.preNorm.forward(g, x)
	}
	return x, seqs
}

// forward adds the tower to g: pictures -> their pooled rows (B, D).
func (t *visionTower) forward(g *ops.Graph, in *ImageInput) *ops.Node {
	v := t.cfg
	x, seqs := t.embed(g, in)
	x = t.trunk.forward(g, x, seqs, in.class, in.pass)
	if !v.NormAfterPool || v.Pool == "cls" { // of one row it is the same
		x = t.norm.forward(g, x)
	}
	switch v.Pool {
	case "avg":
		x = g.MeanPool(x, seqs, v.NumTokens()-v.NumPatches()) // (B, D)
	case "map":
		x = t.pool.forward(g, x, seqs) // (B, D)
	}
	if v.NormAfterPool && v.Pool != "cls" {
		x = t.norm.forward(g, x)
	}
	return x // (B, D)
}

// attentionPool is the MAP head of Zhai et al. 2022, §3.2 (spec 1.5): a learned query attends to all tokens, then
// x + MLP(LN(x)). Parameters have timm's names.
type attentionPool struct {
	query     *Param // (D)
	q, kv, pr linear
	norm      norm
	fc1, fc2  linear
	heads     int
	act       kernel.Act
}

func newAttentionPool(l *Layout, name string, v *Vision, s initScheme) *attentionPool {
	d, hidden := v.Width, v.hidden()
	kind := tower{vision: true, width: d, hidden: hidden, depth: v.Depth, fanIn: d}
	second := kind
	second.fanIn = hidden
	act, _ := kernel.ParseAct(v.Activation) // the configuration is valid
	return &attentionPool{
		query: l.add(name+".latent", normal(rsqrt(d)), d), heads: v.NumHeads, act: act,
		q:    linear{l.add(name+".q.weight", s.attnOut(kind), d, d), l.add(name+".q.bias", constant(0), d)},
		kv:   linear{l.add(name+".kv.weight", s.attnOut(kind), 2*d, d), l.add(name+".kv.bias", constant(0), 2*d)},
		pr:   linear{l.add(name+".proj.weight", s.attnOut(kind), d, d), l.add(name+".proj.bias", constant(0), d)},
		norm: l.addNorm(name+".norm", d, v.LayerNormEps),
		fc1:  linear{l.add(name+".mlp.fc1.weight", s.fc(kind), hidden, d), l.add(name+".mlp.fc1.bias", s.bias(kind), hidden)},
		fc2:  linear{l.add(name+".mlp.fc2.weight", s.proj(kind), d, hidden), l.add(name+".mlp.fc2.bias", s.bias(second), d)},
	}
}

// forward: (R, D) -> (B, D).
func (a *attentionPool) forward(g *ops.Graph, x *ops.Node, seqs *ops.Seqs) *ops.Node {
	q := g.Repeat(a.q.forward(g, a.query.node(g), ops.LinearOpt{}), seqs) // (B, D)
	kv := a.kv.forward(g, x, ops.LinearOpt{})                             // (R, 2·D)
	y := a.pr.forward(g, g.PooledAttention(q, kv, seqs, a.heads), ops.LinearOpt{})
	h := a.norm.forward(g, y)
	return g.MLP(h, a.fc1.w.node(g), a.fc1.b.node(g), a.fc2.w.node(g), a.fc2.b.node(g), a.act, y)
}
