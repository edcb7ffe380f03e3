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

// block is one pre-norm residual block (spec 1.1): x += MSA(LN1(x)); x += MLP(LN2(x)). With LayerScale each branch
// is multiplied by its factors.
type block struct {
	name             string
	ln1, ln2         norm
	qkv, out, fc, pr linear
	ls1, ls2         *Param // (D) factors of the branches, nil without LayerScale
	dropPath         float64
}

// blockNames are the names of a block's parts in one family of models; %s stands for weight or bias.
type blockNames struct{ ln1, ln2, qkv, out, fc, pr, ls1, ls2 string }

var (
	clipBlock = blockNames{"ln_1", "ln_2", "attn.in_proj_%s", "attn.out_proj.%s", "mlp.c_fc.%s", "mlp.c_proj.%s", "ls_1.gamma", "ls_2.gamma"}
	timmBlock = blockNames{"norm1", "norm2", "attn.qkv.%s", "attn.proj.%s", "mlp.fc1.%s", "mlp.fc2.%s", "ls1.gamma", "ls2.gamma"}
)

// transformer is a stack of blocks.
type transformer struct {
	cfg    Transformer
	act    kernel.Act
	causal bool
	blocks []block
}

// newTransformer adds the parameters of a stack whose block %d is called by path.
func newTransformer(l *Layout, path string, names blockNames, cfg Transformer, scheme initScheme, vision, causal bool) (*transformer, error) {
	act, err := kernel.ParseAct(cfg.Activation)
	if err != nil {
		return nil, err
	}
	d, hidden := cfg.Width, cfg.hidden()
	t := &transformer{cfg: cfg, act: act, causal: causal}
	kind := tower{vision: vision, width: d, hidden: hidden, depth: cfg.Depth}
	bias := func(n int) initializer { k := kind; k.fanIn = n; return scheme.bias(k) }
	for i := range cfg.Depth {
		name, first := fmt.Sprintf(path, i), len(l.Params)
		full := func(w, b initializer, part string, shape ...int) linear {
			part = name + "." + part
			return linear{l.add(fmt.Sprintf(part, "weight"), w, shape...), l.add(fmt.Sprintf(part, "bias"), b, shape[0])}
		}
		gamma := func(part string) *Param {
			if cfg.LayerScale == 0 {
				return nil
			}
			return l.add(name+"."+part, constant(cfg.LayerScale), d)
		}
		b := block{name: name}
		b.ln1 = l.addNorm(name+"."+names.ln1, d, cfg.LayerNormEps)
		b.qkv = full(scheme.attnIn(kind), constant(0), names.qkv, 3*d, d)
		b.out = full(scheme.attnOut(kind), constant(0), names.out, d, d)
		b.ls1 = gamma(names.ls1)
		b.ln2 = l.addNorm(name+"."+names.ln2, d, cfg.LayerNormEps)
		b.fc = full(scheme.fc(kind), bias(d), names.fc, hidden, d)
		b.pr = full(scheme.proj(kind), bias(hidden), names.pr, d, hidden)
		b.ls2 = gamma(names.ls2)
		l.above(first, cfg.Depth-i)
		if cfg.Depth > 1 {
			b.dropPath = cfg.DropPath * float64(i) / float64(cfg.Depth-1)
		}
		t.blocks = append(t.blocks, b)
	}
	return t, nil
}

// first returns the stack of the first n blocks.
func (t *transformer) first(n int) *transformer {
	part := *t
	part.blocks = t.blocks[:n]
	return &part
}

// forward runs the stack on packed rows: (R, D) -> (R, D). With pooled, the rows of which one is read of each sequence, the
// last block computes only those -> (B, D). A pooled row must see its whole sequence: it is the last one if the stack is causal.
// pass tells this use of the stack from others in the graph, for dropout.
func (t *transformer) forward(g *ops.Graph, x *ops.Node, seqs *ops.Seqs, pooled *ops.Ints, pass string) *ops.Node {
	last := len(t.blocks) - 1
	for i := range t.blocks {
		b := t.blocks[i]
		b.name = pass + b.name
		g.BeginBlock()
		h := b.ln1.forward(g, x)
		if pooled != nil && i == last {
			x, h = g.Gather(x, pooled), t.pooledAttention(g, &b, h, seqs, pooled)
			seqs = nil // from here on a row is a pair
		} else {
			h = b.qkv.forward(g, h, ops.LinearOpt{})           // (R, 3·D)
			h = g.Attention(h, seqs, t.cfg.NumHeads, t.causal) // (R, D)
		}
		x = t.finish(g, &b, x, h, seqs)
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
	if p == 0 && b.dropPath == 0 && b.ls1 == nil {
		x = b.out.forward(g, h, ops.LinearOpt{Residual: x})
		h = b.ln2.forward(g, x)
		return g.MLP(h, b.fc.w.node(g), b.fc.b.node(g), b.pr.w.node(g), b.pr.b.node(g), t.act, x)
	}
	h = b.out.forward(g, h, ops.LinearOpt{})
	h = g.Dropout(h, p, b.name+".attn", seqs)
	if b.ls1 != nil {
		h = g.LayerScale(h, b.ls1.node(g))
	}
	x = g.AddBranch(x, h, b.dropPath, b.name+".attn.path", seqs)
	h = b.fc.forward(g, b.ln2.forward(g, x), ops.LinearOpt{Act: t.act}) // (R, 4·D)
	h = g.Dropout(h, p, b.name+".mlp.hidden", seqs)
	h = b.pr.forward(g, h, ops.LinearOpt{}) // (R, D)
	h = g.Dropout(h, p, b.name+".mlp", seqs)
	if b.ls2 != nil {
		h = g.LayerScale(h, b.ls2.node(g))
	}
	return g.AddBranch(x, h, b.dropPath, b.name+".mlp.path", seqs)
}
