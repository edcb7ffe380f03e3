package model

import (
	"cmp"
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// bertTower is BERT's encoder (Devlin et al. 2019, §3) as a text tower: word, position and segment embeddings with a LayerNorm
// over their sum, then blocks whose norms follow their residuals (Vaswani et al. 2017, §3.1). All of a text is the first
// segment. Parameters have Hugging Face's names, but for the attention's input projection, whose three matrices lie one
// under the other.
type bertTower struct {
	cfg               *Text
	act               kernel.Act
	words, pos, types *Param // (V, D), (L, D), (segments, D)
	norm              norm
	blocks            []block
}

// newBERT adds the parameters of the tower.
func newBERT(l *Layout, cfg *Text, _ initScheme) (textTower, error) {
	act, err := kernel.ParseAct(cfg.Activation)
	if err != nil {
		return nil, err
	}
	d := cfg.Width
	init := normal(bertStd)
	t, first := &bertTower{cfg: cfg, act: act}, len(l.Params)
	const prefix = "bert."
	t.words = l.add(prefix+"embeddings.word_embeddings.weight", init, cfg.VocabSize, d)
	t.pos = l.add(prefix+"embeddings.position_embeddings.weight", init, cfg.ContextLength, d)
	t.pos.Context = true
	t.types = l.add(prefix+"embeddings.token_type_embeddings.weight", init, cmp.Or(cfg.Segments, 2), d)
	t.norm = l.addNorm(prefix+"embeddings.LayerNorm", d, cfg.LayerNormEps)
	l.above(first, cfg.Depth+1)
	for i := range cfg.Depth {
		first := len(l.Params)
		t.blocks = append(t.blocks, newBERTBlock(l, fmt.Sprintf("%sencoder.layer.%d", prefix, i), cfg))
		l.above(first, cfg.Depth-i)
	}
	return t, nil
}

// bertStd is the deviation of every matrix and table (initializer_range).
const bertStd = 0.02

// newBERTBlock adds the parameters of a block.
func newBERTBlock(l *Layout, name string, cfg *Text) block {
	d, hidden := cfg.Width, cfg.hidden()
	dense := func(name string, in, out int) linear { return l.addLinear(name, in, out, normal(bertStd), constant(0)) }
	return block{
		name: name,
		qkv:  dense(name+".attention.self.in_proj", d, 3*d),
		out:  dense(name+".attention.output.dense", d, d),
		ln1:  l.addNorm(name+".attention.output.LayerNorm", d, cfg.LayerNormEps),
		fc:   dense(name+".intermediate.dense", d, hidden),
		pr:   dense(name+".output.dense", hidden, d),
		ln2:  l.addNorm(name+".output.LayerNorm", d, cfg.LayerNormEps),
	}
}

// forward adds the tower to g: packed token ids -> pooled rows (B, D).
func (t *bertTower) forward(g *ops.Graph, in *TextInput) *ops.Node {
	x := t.rows(g, in, in.read)
	if in.read != nil {
		return x
	}
	return g.MeanPool(x, in.seqs, 0) // (B, D)
}

// rows adds the tower to g: packed token ids -> all their rows (R, D), or those that are read of the last block, one of each
// text (B, D).
func (t *bertTower) rows(g *ops.Graph, in *TextInput, read *ops.Ints) *ops.Node {
	x := g.Embed(in.ids, t.words.node(g), t.pos.node(g), in.seqs) // (R, D)
	x = t.norm.forward(g, g.AddRow(x, t.types.rows(g, 0, 1)))
	x = g.Dropout(x, t.cfg.Dropout, in.pass+"text.embed", in.seqs)
	seqs := in.seqs
	for i := range t.blocks {
		b := &t.blocks[i]
		g.BeginBlock()
		h := b.qkv.forward(g, x, ops.LinearOpt{})          // (R, 3·D)
		h = g.Attention(h, in.seqs, t.cfg.NumHeads, false) // (R, D)
		if read != nil && i == len(t.blocks)-1 {
			x, h = g.Gather(x, read), g.Gather(h, read) // (B, D)
			seqs = nil
		}
		x = t.branch(g, b.out, b.ln1, x, h, in.pass+b.name+".attn", seqs)
		h = b.fc.forward(g, x, ops.LinearOpt{Act: t.act}) // (R, hidden)
		x = t.branch(g, b.pr, b.ln2, x, h, in.pass+b.name+".mlp", seqs)
		g.EndBlock(x)
	}
	return x
}

// branch ends a branch of a block: LN(x + dropout(linear(h))).
func (t *bertTower) branch(g *ops.Graph, l linear, n norm, x, h *ops.Node, name string, seqs *ops.Seqs) *ops.Node {
	if t.cfg.Dropout == 0 {
		return n.forward(g, l.forward(g, h, ops.LinearOpt{Residual: x}))
	}
	h = g.Dropout(l.forward(g, h, ops.LinearOpt{}), t.cfg.Dropout, name, seqs)
	return n.forward(g, g.AddBranch(x, h, 0, name+".path", seqs))
}
