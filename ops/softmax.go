package ops

import "diptych/internal/kernel"

// Targets says what a cross-entropy compares rows of scores with. The target of row r over K classes is
//
//	q_r = (1-ε)·((1-λ_r)·e(Classes[r]) + λ_r·e(Others[r])) + ε/K    ε = Smoothing, e a unit vector
//
// (label smoothing: Szegedy et al. 2016, §7; mixed labels: Zhang et al. 2018, equation 1).
type Targets struct {
	Classes   *Ints   // (R)
	Others    *Ints   // (R), nil without mixed labels
	Mix       *Node   // (R, 1): λ, the share of Others; nil without them
	Weights   *Node   // (R, 1): each row's weight in the sums, 0 or more; nil: 1
	Smoothing float64 // ε in [0, 1)
}

// CrossEntropy sums the cross-entropy of softmax(logits) (R, K) against the targets over the rows, in nats, and counts the
// rows whose main class has the highest score, equal scores by the lower class; a row of weight 0 takes no part, other weights
// count alike -> (1, 2):
//
//	( Σ_r w_r·(log Σ_k exp(z_rk) - Σ_k q_rk·z_rk),  |{r: w_r > 0, argmax_k z_rk = the class of the larger share}| )
//
// No gradient flows from the second.
func (g *GraphOf[T]) CrossEntropy(logits *Node, t Targets) *Node {
	if !g.operands("cross-entropy", logits) {
		return nil
	}
	name := "cross-entropy of " + logits.name
	rows, k := logits.buf.rows, logits.Cols()
	if !g.targets(name, &t, rows, k) {
		return nil
	}
	y := g.matrix(name, fixed(1), 2)
	lse := workspace(name+".lse", rows, 1)
	o := &op[T]{kind: "cross-entropy", name: name, in: []*Node{logits}, out: y, work: []*buffer{lse}}
	var c kernel.CrossEntropy[T]
	bind := func() {
		c = kernel.CrossEntropy[T]{Logits: g.at(logits), Rows: rows.Len(), Cols: k, Classes: t.Classes.data, Mix: g.at(t.Mix), Weights: g.at(t.Weights),
			Smoothing: T(t.Smoothing), LSE: g.mem.at(lse)}
		if t.Others != nil {
			c.Others = t.Others.data
		}
	}
	o.forward = func() {
		bind()
		loss, right := kernel.CrossEntropyForward(g.mem.run.Pool, &c)
		g.at(y)[0], g.at(y)[1] = T(loss), T(right)
	}
	o.backward = func(r *reverse[T]) {
		d := r.grad(0)
		r.step(0, func() {
			bind()
			kernel.CrossEntropyBackward(g.mem.run.Pool, &c, g.mem.at(d), g.mem.at(r.dy)[0])
		}, logits.buf, lse)
	}
	return g.add(o)
}

// VocabCrossEntropy is CrossEntropy of the logits hidden·tableᵀ + bias: hidden (R, D), table (V, D), bias V elements or nil. They
// exist for a block of rows and classes at a time and are computed again for the gradient, so no memory grows with R·V. Labels
// are not mixed.
func (g *GraphOf[T]) VocabCrossEntropy(hidden, table, bias *Node, t Targets) *Node {
	if !g.operands("cross-entropy", hidden, table) {
		return nil
	}
	name := "cross-entropy of " + hidden.name + " by " + table.name
	rows, k := hidden.buf.rows, table.buf.rows.n
	if !g.weight(name, table, hidden.Cols()) || !g.vector(name, bias, k) || !g.targets(name, &t, rows, k) {
		return nil
	}
	if t.Others != nil {
		return g.fail("%s: mixed labels", name)
	}
	y := g.matrix(name, fixed(1), 2)
	lse := workspace(name+".lse", rows, 1)
	o := &op[T]{kind: "cross-entropy", name: name, in: []*Node{hidden, table, bias}, out: y, work: []*buffer{lse},
		flops: 2 * int64(rows.Max) * int64(hidden.Cols()) * int64(k), share: func() float64 { return float64(rows.Len()) / float64(rows.Max) }}
	x := kernel.VocabNLL[T]{D: hidden.Cols(), V: k, Smoothing: T(t.Smoothing), BF16: g.bf16}
	bind := func() {
		x.N, x.Hidden, x.Table, x.Bias = rows.Len(), g.at(hidden), g.at(table), g.at(bias)
		x.Classes, x.Weights, x.LSE = t.Classes.data, g.at(t.Weights), g.mem.at(lse)
	}
	o.forward = func() {
		bind()
		loss, right := kernel.VocabForward(g.mem.run.Pool, &x)
		g.at(y)[0], g.at(y)[1] = T(loss), T(right)
	}
	o.backward = func(r *reverse[T]) {
		dhidden, dtable, dbias := r.grad(0), r.accum(1), r.accum(2)
		reads := []*buffer{hidden.buf, table.buf, lse}
		if bias != nil {
			reads = append(reads, bias.buf)
		}
		r.step(o.backFLOPs(dhidden, dtable), func() {
			bind()
			x.Grad, x.DHidden, x.DTable, x.DBias = g.mem.at(r.dy)[0], g.mem.at(dhidden), g.mem.at(dtable), g.mem.at(dbias)
			kernel.VocabBackward(g.mem.run.Pool, &x)
		}, reads...)
	}
	return g.add(o)
}

// targets checks what rows of k scores are compared with.
func (g *GraphOf[T]) targets(name string, t *Targets, rows *Dim, k int) bool {
	if !g.own(name, t.Mix, t.Weights) {
		return false
	}
	switch {
	case t.Classes == nil || (t.Others == nil) != (t.Mix == nil):
		g.fail("%s: classes are missing, or other classes without their shares", name)
		return false
	case !(t.Smoothing >= 0 && t.Smoothing < 1):
		g.fail("%s: smoothing %g must be in [0, 1)", name, t.Smoothing)
		return false
	}
	for _, column := range []*Node{t.Mix, t.Weights} {
		if column != nil && (column.Cols() != 1 || !g.sameRows(name, column.buf.rows, rows)) {
			g.fail("%s: %s must have one number for each of %s rows: %w", name, column, rows, ErrShape)
			return false
		}
	}
	for _, ids := range []*Ints{t.Classes, t.Others} {
		if ids == nil {
			continue
		}
		if !g.sameRows(name, ids.Dim, rows) {
			return false
		}
		g.indices(name, ids, fixed(k))
	}
	return true
}

// Repeat returns the row x, of any number of elements, once for each sequence of seqs -> (sequences, D).
func (g *GraphOf[T]) Repeat(x *Node, seqs *Seqs) *Node {
	if !g.operands("repeat", x) {
		return nil
	}
	name := g.describe("repeat")
	if seqs == nil || !x.buf.rows.fixed {
		return g.fail("%s: the sequences are missing or the rows of %s change from run to run: %w", name, x, ErrShape)
	}
	width := x.len()
	y := g.matrix(name, seqs.Count, width)
	o := &op[T]{kind: "repeat", name: name, in: []*Node{x}, out: y}
	o.forward = func() {
		dst, src := g.at(y), g.at(x)
		for i := range seqs.Count.Len() {
			copy(dst[i*width:], src[:width])
		}
	}
	o.backward = func(r *reverse[T]) {
		dx := r.accum(0)
		r.step(0, func() {
			kernel.ColSum(g.mem.run.Pool, g.mem.at(dx), g.mem.at(r.dy), seqs.Count.Len(), width)
		})
	}
	return g.add(o)
}

// Trains tells whether a gradient is fed to output n: something it depends on has one.
func (p *ProgramOf[T]) Trains(n *Node) bool { return p.seeds[n] != nil }

// AddPositions adds row t of pos (context, D) to token t of each sequence of x (R, D).
func (g *GraphOf[T]) AddPositions(x, pos *Node, seqs *Seqs) *Node {
	if !g.operands("add positions", x, pos) {
		return nil
	}
	name := g.describe("add positions")
	if seqs == nil {
		return g.fail("%s: sequences are missing", name)
	}
	if !g.sameRows(name, x.buf.rows, seqs.Rows) || !g.positions(name, pos, x.Cols(), seqs) {
		return nil
	}
	y := g.matrix(name, x.buf.rows, x.Cols())
	o := &op[T]{kind: "add positions", name: name, in: []*Node{x, pos}, out: y}
	o.forward = func() {
		kernel.AddPositions(g.mem.run.Pool, g.at(y), g.at(x), g.at(pos), seqs.offsets, x.Cols())
	}
	o.backward = func(r *reverse[T]) {
		r.pass(0)
		dpos := r.accum(1)
		if dpos == nil {
			return
		}
		r.step(0, func() {
			kernel.PositionsBackward(g.mem.run.Pool, g.mem.at(dpos), g.mem.at(r.dy), seqs.offsets, x.Cols())
		})
	}
	return g.add(o)
}
