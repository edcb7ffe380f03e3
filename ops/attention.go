package ops

import "diptych/internal/kernel"

// Attention returns softmax(Q·Kᵀ/√Dh)·V in each head of each sequence (Vaswani et al. 2017, §3.2.1). qkv (R, 3·D) holds the
// queries, keys and values of a row side by side -> (R, D). With causal a row does not see those after it.
func (g *GraphOf[T]) Attention(qkv *Node, seqs *Seqs, heads int, causal bool) *Node {
	if !g.operands("attention", qkv) {
		return nil
	}
	name := "attention on " + qkv.name
	if heads <= 0 || qkv.Cols()%(3*max(heads, 1)) != 0 {
		return g.fail("%s: %d columns are not three times %d heads: %w", name, qkv.Cols(), heads, ErrShape)
	}
	if seqs == nil {
		return g.fail("%s: sequences are missing", name)
	}
	if !g.sameRows(name, qkv.buf.rows, seqs.Rows) {
		return nil
	}
	rows, width := qkv.buf.rows, qkv.Cols()/3
	y := g.matrix(name, rows, width)
	lse := workspace(name+".lse", rows, heads)
	// Counted as if the rows were spread evenly over the sequences: two products of length² for each row and column.
	length := int64(max(1, seqs.Rows.Max/max(1, seqs.Count.Max)))
	o := &op[T]{name: name, in: []*Node{qkv}, out: y, work: []*buffer{lse}, flops: 4 * int64(rows.Max) * length * int64(width)}
	if causal {
		o.flops /= 2
	}
	a := kernel.Attention[T]{Heads: heads, HeadDim: width / heads, Causal: causal}
	o.forward = func() {
		a.QKV, a.Offsets, a.Out, a.LSE = g.at(qkv), seqs.offsets, g.at(y), g.mem.at(lse)
		a.DOut, a.DQKV = nil, nil // those of the last backward pass had another number of rows
		kernel.AttentionForward(g.mem.run.Pool, &a)
	}
	o.backward = func(r *reverse[T]) {
		d := r.grad(0)
		r.step(o.flops*5/2, func() {
			a.QKV, a.Offsets, a.Out, a.LSE = g.at(qkv), seqs.offsets, g.at(y), g.mem.at(lse)
			a.DOut, a.DQKV = g.mem.at(r.dy), g.mem.at(d)
			kernel.AttentionBackward(g.mem.run.Pool, &a)
		}, qkv.buf, y.buf, lse)
	}
	return g.add(o)
}
