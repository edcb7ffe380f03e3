package ops

import (
	"cmp"
	"math"
	"slices"

	"diptych/internal/kernel"
)

// ITCOpt says what InfoNCE aims at.
type ITCOpt struct {
	Smoothing float64 // ε: (1-ε) of the target is on the positives, ε is spread over all (Szegedy et al. 2016, §7)
	// GroupTargets makes all rows of one group positives of each other, with equal shares of the target. Without it a row
	// has its own row as its only positive, whatever the groups.
	GroupTargets bool
}

// blockRows is how many rows of the logits exist at once. A loss over N pairs needs blockRows·N elements, and its sums do not
// depend on how rows are dealt to threads.
const blockRows = 256

// contrast is what the losses over all pairs of rows of x and y (N, E) have in common: the logits t·x_i·y_j in blocks of
// rows, and from the gradient of a block those of x and y.
type contrast[T Float] struct {
	g           *GraphOf[T]
	x, y, scale *Node
	n           *Dim
	block       int     // rows of logits at once
	groups      []int32 // of the run; nil if every row is its own
	sorted      []int32 // the same, in order
	mm          product[T]
}

func (g *GraphOf[T]) contrast(name string, x, y, logScale *Node) *contrast[T] {
	if !g.operands(name, x, y, logScale) || !g.sameRows(name, x.buf.rows, y.buf.rows) || !g.vector(name, logScale, 1) {
		return nil
	}
	if x.Cols() != y.Cols() {
		g.fail("%s: %s and %s: %w", name, x, y, ErrShape)
		return nil
	}
	n := x.buf.rows
	return &contrast[T]{g: g, x: x, y: y, scale: logScale, n: n, block: min(blockRows, n.Max)}
}

// logitsBuffer returns the space for a block.
func (c *contrast[T]) logitsBuffer() *buffer { return workspace("logits", c.n, c.block) }

// flops counts one product of all logits.
func (c *contrast[T]) flops() int64 { return 2 * int64(c.n.Max) * int64(c.n.Max) * int64(c.x.Cols()) }

// t returns the scale exp(logScale) of the run.
func (c *contrast[T]) t() T { return T(math.Exp(float64(c.g.at(c.scale)[0]))) }

// center returns about what the logits of positive pairs are: the mean of those of the first block. Subtracting a constant from
// all logits changes neither InfoNCE nor its gradients; this one keeps the digits of what is small when training goes well: the
// differences between log-sum-exps and logits, and the gradient of the scale.
func (c *contrast[T]) center() T {
	x, y, rows := c.g.at(c.x), c.g.at(c.y), c.rows(0)
	sum := 0.0
	for i, v := range x[:rows*c.x.Cols()] {
		sum += float64(v) * float64(y[i])
	}
	return T(float64(c.t()) * sum / float64(rows))
}

// rows returns how many rows the block that begins at row first has.
func (c *contrast[T]) rows(first int) int { return min(c.block, c.n.Len()-first) }

// logits computes the block that begins at row first, with bias (N) added to each row unless it is nil.
func (c *contrast[T]) logits(dst []T, first int, bias []T) []T {
	n, e, rows := c.n.Len(), c.x.Cols(), c.rows(first)
	dst = dst[:rows*n]
	c.mm.Gemm = kernel.Gemm[T]{TransB: true, N: n, K: e, A: c.g.at(c.x)[first*e:], B: c.g.at(c.y), C: dst, Scale: c.t(), Bias: bias}
	c.mm.rows(c.g.mem.run.Pool, rows)
	return dst
}

// gradients adds what the gradient d of the logits of a block gives: dx_i = t·Σ_j d_ij·y_j, dy_j += t·Σ_i d_ij·x_i.
func (c *contrast[T]) gradients(d []T, first int, dx, dy *buffer) {
	p, m := c.g.mem.run.Pool, &c.g.mem
	n, e, rows := c.n.Len(), c.x.Cols(), c.rows(first)
	if dx != nil {
		c.mm.Gemm = kernel.Gemm[T]{N: e, K: n, A: d, B: c.g.at(c.y), C: m.at(dx)[first*e:], Scale: c.t()}
		c.mm.rows(p, rows)
	}
	if dy != nil {
		c.mm.Gemm = kernel.Gemm[T]{TransA: true, Accumulate: true, N: e, K: rows, A: d, B: c.g.at(c.x)[first*e:], C: m.at(dy), Scale: c.t()}
		c.mm.rows(p, n)
	}
}

// grouped binds the groups whose rows are positives of each other; of nil, every row is its own.
func (g *GraphOf[T]) grouped(name string, c *contrast[T], groups *Ints) {
	if groups == nil {
		return
	}
	g.sameRows(name, groups.Dim, c.n)
	g.check(func() error {
		c.groups = groups.data
		c.sorted = append(c.sorted[:0], groups.data...)
		slices.Sort(c.sorted)
		return nil
	})
}

// positives returns how many rows are of row i's group, itself among them.
func (c *contrast[T]) positives(i int) int {
	if c.groups == nil {
		return 1
	}
	group := int64(c.groups[i])
	before := func(x int32, group int64) int { return cmp.Compare(int64(x), group) }
	lo, _ := slices.BinarySearchFunc(c.sorted, group, before)
	hi, _ := slices.BinarySearchFunc(c.sorted, group+1, before)
	return hi - lo
}

// InfoNCE is the symmetric contrastive loss (van den Oord et al. 2018; Radford et al. 2021, figure 3) of unit rows x and y
// (N, E), in nats:
//
//	L = 1/(2N) Σ_i (-Σ_j q_ij·log softmax_j(s_ij) - Σ_j q_ij·log softmax_j(s_ji))    s_ij = exp(logScale)·x_i·y_j
//
// The target q_ij is 1 for i = j; opt spreads it. groups (N) may be nil unless opt asks for group targets. Only blocks of the
// logits ever exist, and they are computed again for the gradient. N is that of the run. -> (1, 1).
func (g *GraphOf[T]) InfoNCE(x, y, logScale *Node, groups *Ints, opt ITCOpt) *Node {
	name := g.describe("infonce")
	if opt.Smoothing < 0 || opt.Smoothing >= 1 {
		return g.fail("%s: smoothing %g must be in [0, 1)", name, opt.Smoothing)
	}
	c := g.contrast(name, x, y, logScale)
	if c == nil {
		return nil
	}
	if opt.GroupTargets {
		if groups == nil {
			return g.fail("%s: group targets without groups", name)
		}
		g.grouped(name, c, groups)
	}
	loss := g.matrix(name, fixed(1), 1)
	logits, rowLSE, colLSE, colSum := c.logitsBuffer(), workspace("row lse", c.n, 1), workspace("column lse", c.n, 1), workspace("column sum", c.n, 1)
	share, shift := workspace("target shares", c.n, 1), workspace("shift", c.n, 1)
	o := &op[T]{kind: "infonce", name: name, in: []*Node{x, y, logScale}, out: loss, work: []*buffer{logits, rowLSE, colLSE, colSum, share, shift}, flops: c.flops()}
	var b kernel.InfoNCEBlock[T]
	// block prepares b for the rows from first on, and their logits less a constant in dst.
	block := func(dst []T, first int) {
		m, n := &g.mem, c.n.Len()
		b = kernel.InfoNCEBlock[T]{Logits: c.logits(dst, first, m.at(shift)), Rows: c.rows(first), Cols: n, First: first, Groups: c.groups,
			Share: m.at(share), Smooth: T(opt.Smoothing / float64(n)), RowLSE: m.at(rowLSE)[first:], ColumnLSE: m.at(colLSE)}
	}
	o.forward = func() {
		p, m, n := g.mem.run.Pool, &g.mem, c.n.Len()
		top, sum, center := m.at(colLSE), m.at(colSum), c.center()
		for i := range n {
			m.at(share)[i], m.at(shift)[i] = T((1-opt.Smoothing)/float64(c.positives(i))), -center
			top[i], sum[i] = T(math.Inf(-1)), 0
		}
		total := 0.0
		for first := 0; first < n; first += c.block {
			block(m.at(logits), first)
			kernel.LogSumExpRows(p, b.RowLSE, b.Logits, b.Rows, n)
			kernel.LogSumExpColumns(p, top, sum, b.Logits, b.Rows, n)
			total -= kernel.InfoNCETargets(p, &b)
		}
		kernel.LogSumExpFinish(top, top, sum)
		for i, s := range m.at(rowLSE) {
			total += float64(s) + float64(top[i])
		}
		g.at(loss)[0] = T(total / float64(2*n))
	}
	o.backward = func(r *reverse[T]) {
		dx, dy, dscale := r.grad(0), r.accum(1), r.accum(2)
		again := r.scratch(logits.rows, logits.cols)
		r.step(3*o.flops, func() {
			p, m, n := g.mem.run.Pool, &g.mem, c.n.Len()
			along := 0.0
			for first := 0; first < n; first += c.block {
				block(m.at(again), first)
				b.GradPerTerm = m.at(r.dy)[0] / T(2*n)
				along += kernel.InfoNCEGradient(p, &b)
				c.gradients(b.Logits, first, dx, dy)
			}
			if dscale != nil {
				m.at(dscale)[0] += T(along)
			}
		}, x.buf, y.buf, logScale.buf, rowLSE, colLSE, share, shift)
	}
	return g.add(o)
}

// SigmoidLoss is the pairwise sigmoid loss (Zhai et al. 2023, §3.2 and algorithm 1) of unit rows x and y (N, E), in nats per
// pair:
//
//	L = -1/N Σ_i Σ_j log σ(z_ij·(exp(logScale)·x_i·y_j + bias))
//
// z_ij is +1 for i = j, and where rows i and j are of one group if groups (N) is not nil; else -1. -> (1, 1).
func (g *GraphOf[T]) SigmoidLoss(x, y, logScale, bias *Node, groups *Ints) *Node {
	name := g.describe("sigmoid loss")
	c := g.contrast(name, x, y, logScale)
	if c == nil || !g.operands(name, bias) || !g.vector(name, bias, 1) {
		return nil
	}
	g.grouped(name, c, groups)
	loss := g.matrix(name, fixed(1), 1)
	logits, shift := c.logitsBuffer(), workspace("bias row", c.n, 1)
	o := &op[T]{kind: "sigmoid loss", name: name, in: []*Node{x, y, logScale, bias}, out: loss, work: []*buffer{logits, shift}, flops: c.flops()}
	var b kernel.SigmoidBlock[T]
	block := func(dst []T, first int) {
		b = kernel.SigmoidBlock[T]{Logits: c.logits(dst, first, g.mem.at(shift)), Rows: c.rows(first), Cols: c.n.Len(), First: first, Groups: c.groups}
	}
	o.forward = func() {
		for i := range g.mem.at(shift) {
			g.mem.at(shift)[i] = g.at(bias)[0]
		}
		total := 0.0
		for first := 0; first < c.n.Len(); first += c.block {
			block(g.mem.at(logits), first)
			total += kernel.SigmoidLoss(g.mem.run.Pool, &b)
		}
		g.at(loss)[0] = T(total / float64(c.n.Len()))
	}
	o.backward = func(r *reverse[T]) {
		dx, dy, dscale, dbias := r.grad(0), r.accum(1), r.accum(2), r.accum(3)
		again := r.scratch(logits.rows, logits.cols)
		r.step(3*o.flops, func() {
			m, n := &g.mem, c.n.Len()
			var along, total float64
			for first := 0; first < n; first += c.block {
				block(m.at(again), first)
				b.Grad = m.at(r.dy)[0] / T(n)
				a, s := kernel.SigmoidGradient(m.run.Pool, &b)
				along, total = along+a, total+s
				c.gradients(b.Logits, first, dx, dy)
			}
			if dscale != nil {
				m.at(dscale)[0] += T(along - float64(g.at(bias)[0])*total)
			}
			if dbias != nil {
				m.at(dbias)[0] += T(total)
			}
		}, x.buf, y.buf, logScale.buf, bias.buf, shift)
	}
	return g.add(o)
}
