package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// linear is y = x·Wᵀ + b with W (out, in).
type linear struct{ w, b *Param }

func (l linear) forward(g *ops.Graph, x *ops.Node, opt ops.LinearOpt) *ops.Node {
	return g.Linear(x, l.w.node(g), l.b.node(g), opt)
}

// norm is a LayerNorm's gain and offset (D).
type norm struct {
	gain, bias *Param
	eps        float64
}

func (l *Layout) addNorm(name string, width int, eps float64) norm {
	return norm{l.add(name+".weight", constant(1), width), l.add(name+".bias", constant(0), width), eps}
}

func (n norm) forward(g *ops.Graph, x *ops.Node) *ops.Node {
	return g.LayerNorm(x, n.gain.node(g), n.bias.node(g), n.eps)
}

// block is one pre-norm residual block (spec 1.1): x += MSA(LN1(x)); x += MLP(LN2(x)).
type block struct {
	name             string
	ln1, ln2         norm
	qkv, out, fc, pr linear
	dropPath         float64
}

// transformer is a stack of blocks under CLIP's parameter names.
type transformer struct {
	cfg    Transformer
	act    kernel.Act
	causal bool
	blocks []block
}

// newTransformer adds the parameters of a stack called prefix.
func newTransformer(l *Layout, prefix string, cfg Transformer, scheme initScheme, vision, causal bool) (*transformer, error) {
	act, err := kernel.ParseAct(cfg.Activation)
	if err != nil {
		return nil, err
	}
	d, hidden := cfg.Width, int(cfg.MLPRatio*float64(cfg.Width))
	t := &transformer{cfg: cfg, act: act, causal: causal}
	kind := tower{vision: vision, width: d, hidden: hidden, depth: cfg.Depth}
	bias := func(n int) initializer { k := kind; k.fanIn = n; return scheme.bias(k) }
	for i := range cfg.Depth {
		name := fmt.Sprintf("%s.resblocks.%d", prefix, i)
		b := block{name: name}
		b.ln1 = l.addNorm(name+".ln_1", d, cfg.LayerNormEps)
		b.qkv = linear{l.add(name+".attn.in_proj_weight", scheme.attnIn(kind), 3*d, d), l.add(name+".attn.in_proj_bias", constant(0), 3*d)}
		b.out = linear{l.add(name+".attn.out_proj.weight", scheme.attnOut(kind), d, d), l.add(name+".attn.out_proj.bias", constant(0), d)}
		b.ln2 = l.addNorm(name+".ln_2", d, cfg.LayerNormEps)
		b.fc = linear{l.add(name+".mlp.c_fc.weight", scheme.fc(kind), hidden, d), l.add(name+".mlp.c_fc.bias", bias(d), hidden)}
		b.pr = linear{l.add(name+".mlp.c_proj.weight", scheme.proj(kind), d, hidden), l.add(name+".mlp.c_proj.bias", bias(hidden), d)}
		if cfg.Depth > 1 {
			b.dropPath = cfg.DropPath * float64(i) / float64(cfg.Depth-1)
		}
		t.blocks = append(t.blocks, b)
	}
	return t, nil
}

// forward runs the stack on packed rows: (R, D) -> (R, D). With pooled, the rows of which one is read of each sequence, the
// last block computes only those -> (B, D). A pooled row must see its whole sequence: it is the last one if the stack is causal.
func (t *transformer) forward(g *ops.Graph, x *ops.Node, seqs *ops.Seqs, pooled *ops.Ints) *ops.Node {
	last := len(t.blocks) - 1
	for i := range t.blocks {
		b := &t.blocks[i]
		g.BeginBlock()
		h := b.ln1.forward(g, x)
		if pooled != nil && i == last {
			x, h = g.Gather(x, pooled), t.pooledAttention(g, b, h, seqs, pooled)
			seqs = nil // from here on a row is a pair
		} else {
			h = b.qkv.forward(g, h, ops.LinearOpt{})           // (R, 3·D)
			h = g.Attention(h, seqs, t.cfg.NumHeads, t.causal) // (R, D)
		}
		x = t.finish(g, b, x, h, seqs)
		g.EndBlock(x)
	}
	return x
}

// pooledAttention is a block's attention for one row of each sequence: its query alone, and the keys and values of all. They
// are row ranges of the packed weight: (R, D) -> (B, D).
func (t *transformer) pooledAttention(g *ops.Graph, b *block, h *ops.Node, seqs *ops.Seqs, pooled *ops.Ints) *ops.Node {
	d := t.cfg.Width
	kv := g.Linear(h, b.qkv.w.rows(g, d, 3*d), b.qkv.b.rows(g, d, 3*d), ops.LinearOpt{})              // (R, 2·D)
	q := g.Linear(g.Gather(h, pooled), b.qkv.w.rows(g, 0, d), b.qkv.b.rows(g, 0, d), ops.LinearOpt{}) // (B, D)
	return g.PooledAttention(q, kv, seqs, t.cfg.NumHeads)
}

// finish ends a block whose attention gave h: the output projection and the MLP, each on a residual branch of x. Without
// dropout and stochastic depth a branch ends in a fused residual.
func (t *transformer) finish(g *ops.Graph, b *block, x, h *ops.Node, seqs *ops.Seqs) *ops.Node {
	p := t.cfg.Dropout
	if p == 0 && b.dropPath == 0 {
		x = b.out.forward(g, h, ops.LinearOpt{Residual: x})
		h = b.ln2.forward(g, x)
		return g.MLP(h, b.fc.w.node(g), b.fc.b.node(g), b.pr.w.node(g), b.pr.b.node(g), t.act, x)
	}
	h = b.out.forward(g, h, ops.LinearOpt{})
	h = g.Dropout(h, p, b.name+".attn", seqs)
	x = g.AddBranch(x, h, b.dropPath, b.name+".attn.path", seqs)
	h = b.fc.forward(g, b.ln2.forward(g, x), ops.LinearOpt{Act: t.act}) // (R, 4·D)
	h = g.Dropout(h, p, b.name+".mlp.hidden", seqs)
	h = b.pr.forward(g, h, ops.LinearOpt{}) // (R, D)
	h = g.Dropout(h, p, b.name+".mlp", seqs)
	return g.AddBranch(x, h, b.dropPath, b.name+".mlp.path", seqs)
}
