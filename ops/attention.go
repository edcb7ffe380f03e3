package ops

import (
	"fmt"

	"diptych/internal/kernel"
)

// Attention returns softmax(Q·Kᵀ/√Dh)·V in each head of each sequence (Vaswani et al. 2017, §3.2.1). qkv (R, 3·D) holds the
// queries, keys and values of a row side by side -> (R, D). With causal a row does not see those after it.
func (g *GraphOf[T]) Attention(qkv *Node, seqs *Seqs, heads int, causal bool) *Node {
	return g.BiasedAttention(qkv, seqs, heads, causal, nil)
}

// BiasedAttention is Attention with a bias added to the scores Q·Kᵀ/√Dh; nil adds none.
func (g *GraphOf[T]) BiasedAttention(qkv *Node, seqs *Seqs, heads int, causal bool, bias *ScoreBias) *Node {
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
	if bias != nil {
		bias = &ScoreBias{Scores: bias.Scores, Queries: bias.Keys, Keys: bias.Keys}
	}
	scores, ok := g.bias(name, bias, heads, seqs, seqs)
	if !ok {
		return nil
	}
	rows, width := qkv.buf.rows, qkv.Cols()/3
	y := g.matrix(name, rows, width)
	lse := workspace(name+".lse", rows, heads)
	// Counted as if the rows were spread evenly over the sequences: two products of length² for each row and column.
	length := int64(max(1, seqs.Rows.Max/max(1, seqs.Count.Max)))
	o := &op[T]{kind: "attention", name: name, in: []*Node{qkv, scores}, out: y, work: []*buffer{lse}, flops: 4 * int64(rows.Max) * length * int64(width)}
	g.readsRounded(o, qkv, width/heads)
	if causal {
		o.flops /= 2
	}
	o.share = func() float64 {
		var used int64
		for i, first := range seqs.offsets[:len(seqs.offsets)-1] {
			n := int64(seqs.offsets[i+1] - first)
			used += n * n
		}
		return float64(used) / float64(int64(rows.Max)*length)
	}
	a := kernel.Attention[T]{Heads: heads, HeadDim: width / heads, Causal: causal, BF16: g.bf16, Bias: g.kernelBias(scores)}
	bind := func(dbias *buffer) {
		a.QKV, a.QKV16 = g.mem.stored(qkv.buf)
		a.Offsets, a.Out, a.LSE = seqs.offsets, g.at(y), g.mem.at(lse)
		g.bindBias(a.Bias, bias, dbias)
	}
	o.forward = func() {
		bind(nil)
		a.DOut, a.DQKV = nil, nil // those of the last backward pass had another number of rows
		kernel.AttentionForward(g.mem.run.Pool, &a)
	}
	o.backward = func(r *reverse[T]) {
		d, dbias := r.gradOrScratch(0), r.accum(1)
		r.step(o.flops*5/2, func() {
			bind(dbias)
			a.DOut, a.DQKV = g.mem.at(r.dy), g.mem.at(d)
			kernel.AttentionBackward(g.mem.run.Pool, &a)
		}, qkv.buf, y.buf, lse, bufferOf(scores))
	}
	return g.add(o)
}

// readsRounded says that o, an attention, rounds what it reads of n, in whole pairs of each head.
func (g *GraphOf[T]) readsRounded(o *op[T], n *Node, headDim int) {
	if g.bf16 && headDim%2 == 0 {
		o.rounds = n
	}
}

// PooledAttention is Attention for one row of each sequence, which sees the whole sequence: q (B, D) holds its query, kv
// (R, 2·D) the keys and values of all rows side by side -> (B, D). A tower's last block needs no more when one row of each
// sequence is read.
func (g *GraphOf[T]) PooledAttention(q, kv *Node, seqs *Seqs, heads int) *Node {
	if !g.operands("pooled attention", q, kv) {
		return nil
	}
	name := "pooled attention on " + kv.name
	if heads <= 0 || q.Cols()%max(heads, 1) != 0 || kv.Cols() != 2*q.Cols() {
		return g.fail("%s: %s and %s do not fit %d heads: %w", name, q, kv, heads, ErrShape)
	}
	if seqs == nil {
		return g.fail("%s: sequences are missing", name)
	}
	if !g.sameRows(name, kv.buf.rows, seqs.Rows) {
		return nil
	}
	g.check(func() error {
		if n := q.buf.rows.Len(); n != seqs.Count.Len() {
			return fmt.Errorf("ops: %s: %d queries for %d sequences: %w", name, n, seqs.Count.Len(), ErrShape)
		}
		return nil
	})
	width := q.Cols()
	y := g.matrix(name, q.buf.rows, width)
	lse := workspace(name+".lse", q.buf.rows, heads)
	o := &op[T]{kind: "pooled attention", name: name, in: []*Node{q, kv}, out: y, work: []*buffer{lse}, flops: 4 * int64(seqs.Rows.Max) * int64(width)}
	o.share = func() float64 { return float64(seqs.Rows.Len()) / float64(seqs.Rows.Max) }
	g.readsRounded(o, kv, width/heads)
	a := kernel.PooledAttention[T]{Heads: heads, HeadDim: width / heads, BF16: g.bf16}
	bind := func() {
		a.KV, a.KV16 = g.mem.stored(kv.buf)
		a.Q, a.Offsets, a.Out, a.LSE = g.at(q), seqs.offsets, g.at(y), g.mem.at(lse)
	}
	o.forward = func() {
		bind()
		kernel.PooledForward(g.mem.run.Pool, &a)
	}
	o.backward = func(r *reverse[T]) {
		dq, dkv := r.gradOrScratch(0), r.gradOrScratch(1)
		r.step(o.flops*5/2, func() {
			bind()
			a.DOut, a.DQ, a.DKV = g.mem.at(r.dy), g.mem.at(dq), g.mem.at(dkv)
			kernel.PooledBackward(g.mem.run.Pool, &a)
		}, q.buf, kv.buf, y.buf, lse)
	}
	return g.add(o)
}

// CrossAttention is attention of rows to other sequences (Vaswani et al. 2017, §3.2.3): q (Rq, D) holds queries, divided by
// qSeqs, and kv (R, 2·D) keys and values side by side, divided by kvSeqs; the queries of sequence i see all of the keys of
// sequence reads[i], or i if reads is nil -> (Rq, D).
func (g *GraphOf[T]) CrossAttention(q *Node, qSeqs *Seqs, kv *Node, kvSeqs *Seqs, reads *Ints, heads int) *Node {
	return g.crossAttention(q, qSeqs, kv, kvSeqs, reads, heads, nil)
}

// BiasedCrossAttention is CrossAttention of sequence i to sequence i with a bias added to the scores Q·Kᵀ/√Dh; nil adds none.
func (g *GraphOf[T]) BiasedCrossAttention(q *Node, qSeqs *Seqs, kv *Node, kvSeqs *Seqs, heads int, bias *ScoreBias) *Node {
	return g.crossAttention(q, qSeqs, kv, kvSeqs, nil, heads, bias)
}

func (g *GraphOf[T]) crossAttention(q *Node, qSeqs *Seqs, kv *Node, kvSeqs *Seqs, reads *Ints, heads int, bias *ScoreBias) *Node {
	if !g.operands("cross attention", q, kv) {
		return nil
	}
	name := "cross attention on " + kv.name
	if heads <= 0 || q.Cols()%max(heads, 1) != 0 || kv.Cols() != 2*q.Cols() {
		return g.fail("%s: %s and %s do not fit %d heads: %w", name, q, kv, heads, ErrShape)
	}
	if qSeqs == nil || kvSeqs == nil {
		return g.fail("%s: sequences are missing", name)
	}
	if !g.sameRows(name, q.buf.rows, qSeqs.Rows) || !g.sameRows(name, kv.buf.rows, kvSeqs.Rows) {
		return nil
	}
	switch {
	case reads != nil:
		if !g.sameRows(name, qSeqs.Count, reads.Dim) {
			return nil
		}
		g.indices(name, reads, kvSeqs.Count)
	case !g.sameRows(name, qSeqs.Count, kvSeqs.Count):
		return nil
	}
	scores, ok := g.bias(name, bias, heads, qSeqs, kvSeqs)
	if !ok {
		return nil
	}
	rows, width := q.buf.rows, q.Cols()
	y := g.matrix(name, rows, width)
	lse := workspace(name+".lse", rows, heads)
	keys := int64(max(1, kvSeqs.Rows.Max/max(1, kvSeqs.Count.Max)))
	o := &op[T]{kind: "cross attention", name: name, in: []*Node{q, kv, scores}, out: y, work: []*buffer{lse}, flops: 4 * int64(rows.Max) * keys * int64(width)}
	g.readsRounded(o, kv, width/heads)
	a := kernel.CrossAttention[T]{Heads: heads, HeadDim: width / heads, BF16: g.bf16, Bias: g.kernelBias(scores)}
	bind := func(dbias *buffer) {
		a.KV, a.KV16 = g.mem.stored(kv.buf)
		a.Q, a.QOffsets, a.Offsets, a.Out, a.LSE = g.at(q), qSeqs.offsets, kvSeqs.offsets, g.at(y), g.mem.at(lse)
		if reads != nil {
			a.Reads = reads.data
		}
		g.bindBias(a.Bias, bias, dbias)
	}
	o.forward = func() {
		bind(nil)
		a.DOut, a.DQ, a.DKV = nil, nil, nil // those of the last backward pass had another number of rows
		kernel.CrossForward(g.mem.run.Pool, &a)
	}
	o.backward = func(r *reverse[T]) {
		dq, dkv, dbias := r.gradOrScratch(0), r.gradOrScratch(1), r.accum(2)
		r.step(o.flops*5/2, func() {
			bind(dbias)
			a.DOut, a.DQ, a.DKV = g.mem.at(r.dy), g.mem.at(dq), g.mem.at(dkv)
			kernel.CrossBackward(g.mem.run.Pool, &a)
		}, q.buf, kv.buf, y.buf, lse, bufferOf(scores))
	}
	return g.add(o)
}
