package ops

import "diptych/internal/kernel"

// BinaryCrossEntropy sums the binary cross-entropy of σ(logits) (R, K) against targets (R, K) in [0, 1] over rows and classes, in
// nats, and the targets at each row's highest score, of equal ones the first -> (1, 2):
//
//	( Σ_r Σ_k -q_rk·log σ(z_rk) - (1-q_rk)·log(1-σ(z_rk)),  Σ_r q_r[argmax_k z_rk] )
//
// No gradient flows from the second, nor into the targets.
func (g *GraphOf[T]) BinaryCrossEntropy(logits, targets *Node) *Node {
	if !g.operands("binary cross-entropy", logits, targets) {
		return nil
	}
	name := "binary cross-entropy of " + logits.name
	rows, k := logits.buf.rows, logits.Cols()
	if targets.Cols() != k || !g.sameRows(name, targets.buf.rows, rows) {
		return g.fail("%s: targets %s must have the form of the scores: %w", name, targets, ErrShape)
	}
	y := g.matrix(name, fixed(1), 2)
	o := &op[T]{kind: "binary cross-entropy", name: name, in: []*Node{logits}, out: y}
	var c kernel.BinaryCrossEntropy[T]
	bind := func() {
		c = kernel.BinaryCrossEntropy[T]{Logits: g.at(logits), Targets: g.at(targets), Rows: rows.Len(), Cols: k}
	}
	o.forward = func() {
		bind()
		loss, hit := kernel.BinaryCrossEntropyForward(g.mem.run.Pool, &c)
		g.at(y)[0], g.at(y)[1] = T(loss), T(hit)
	}
	o.backward = func(r *reverse[T]) {
		d := r.grad(0)
		r.step(0, func() {
			bind()
			kernel.BinaryCrossEntropyBackward(g.mem.run.Pool, &c, g.mem.at(d), g.mem.at(r.dy)[0])
		}, logits.buf)
	}
	return g.add(o)
}
