package ops

import (
	"fmt"

	"diptych/internal/kernel"
)

// LinearOpt says what a linear layer does besides.
type LinearOpt struct {
	Act      kernel.Act // applied to x·wᵀ + b
	Residual *Node      // (R, out), added last; may be nil
}

// Linear returns act(x·wᵀ + b) + residual: x (R, in), w (out, in), b out elements or nil -> (R, out).
func (g *GraphOf[T]) Linear(x, w, b *Node, opt LinearOpt) *Node {
	if !g.operands("linear", x, w) || !g.weight("linear of "+x.name, w, x.Cols()) {
		return nil
	}
	return g.linear("linear "+w.name, x, w, b, opt, w.buf.rows.n, true)
}

// MatMul returns x·w: x (R, in), w (in, out) -> (R, out). It is Linear with the weight stored the other way round.
func (g *GraphOf[T]) MatMul(x, w *Node) *Node {
	if !g.operands("matmul", x, w) {
		return nil
	}
	if !w.buf.rows.fixed || w.buf.rows.n != x.Cols() {
		return g.fail("matmul: %s and %s: %w", x, w, ErrShape)
	}
	return g.linear("matmul "+w.name, x, w, nil, LinearOpt{}, w.buf.cols, false)
}

// linear is the layer with n results; transposed says that w is stored (n, in).
func (g *GraphOf[T]) linear(name string, x, w, b *Node, opt LinearOpt, n int, transposed bool) *Node {
	if !g.vector(name, b, n) || !g.residual(name, opt.Residual, x.buf.rows, n) {
		return nil
	}
	k := x.Cols()
	y := g.matrix(name, x.buf.rows, n)
	o := &op[T]{kind: "linear", name: name, in: []*Node{x, w, b, opt.Residual}, out: y, flops: 2 * int64(x.buf.rows.Max) * int64(k) * int64(n), rounded: g.bf16 && opt == LinearOpt{}}
	var pre *buffer
	if opt.Act != kernel.ActNone {
		pre = workspace(name+".pre", y.buf.rows, n)
		pre.forBack, pre.half = true, g.bf16
		o.work = []*buffer{pre}
	}
	mm := g.product()
	o.forward = func() {
		mm.Gemm = kernel.Gemm[T]{TransB: transposed, Act: opt.Act}
		mm.N, mm.K = n, k
		mm.A, mm.B, mm.Bias, mm.Residual = g.at(x), g.at(w), g.at(b), g.at(opt.Residual)
		mm.C, mm.C16 = g.mem.stored(y.buf)
		if pre != nil && pre.readBack {
			mm.Pre, mm.Pre16 = g.mem.stored(pre)
		}
		mm.rows(g.mem.run.Pool, x.buf.rows.Len())
	}
	o.backward = func(r *reverse[T]) {
		add := r.absorb(0)
		dx, dw, db := r.grad(0), r.accum(1), r.accum(2)
		r.pass(3)
		if dx == nil && dw == nil && db == nil {
			return
		}
		d := r.dy // gradient of x·wᵀ + b
		if pre != nil {
			d = r.scratch(y.buf.rows, n)
		}
		mm := g.product()
		r.step(o.backFLOPs(dx, dw), func() {
			rows := x.buf.rows.Len()
			if x, half := g.mem.stored(pre); half != nil {
				kernel.ActBackward16(g.mem.run.Pool, opt.Act, g.mem.at(d), g.mem.at(r.dy), half)
			} else if pre != nil {
				kernel.ActBackward(g.mem.run.Pool, opt.Act, g.mem.at(d), g.mem.at(r.dy), x)
			}
			g.linearBackward(&mm, rows, d, w, g.at(x), dx, dw, db, add, transposed)
		}, x.buf, w.buf, pre)
	}
	return g.add(o)
}

// linearBackward computes the gradients of y = x·wᵀ + b from d, that of y: dx = d·w + add, dw += dᵀ·x, db += Σ d; those that
// are nil are left out. transposed says that w is stored (out, in).
func (g *GraphOf[T]) linearBackward(mm *product[T], rows int, d *buffer, w *Node, x []T, dx, dw, db, add *buffer, transposed bool) {
	p, m := g.mem.run.Pool, &g.mem
	n, k := d.cols, w.len()/d.cols
	if dx != nil {
		mm.Gemm = kernel.Gemm[T]{TransB: !transposed, N: k, K: n, A: m.at(d), B: g.at(w), C: m.at(dx), Residual: m.at(add)}
		mm.rows(p, rows)
	}
	if dw != nil {
		mm.Gemm = kernel.Gemm[T]{TransA: true, Accumulate: true, M: n, N: k, K: rows, A: m.at(d), B: x, C: m.at(dw)}
		if !transposed {
			mm.M, mm.N, mm.A, mm.B = k, n, mm.B, mm.A
		}
		mm.run(p)
	}
	if db != nil {
		kernel.ColSum(p, m.at(db), m.at(d), rows, n)
	}
}

// MLP returns act(x·w1ᵀ + b1)·w2ᵀ + b2 + residual: x (R, D), w1 (hidden, D), w2 (out, hidden), biases and residual may be nil
// -> (R, out). It is one node: the hidden layer is kept before its activation only, and computed from it again backward.
func (g *GraphOf[T]) MLP(x, w1, b1, w2, b2 *Node, act kernel.Act, residual *Node) *Node {
	if !g.operands("mlp", x, w1, w2) {
		return nil
	}
	name := "mlp " + w1.name
	if !g.weight(name, w1, x.Cols()) || !g.weight(name, w2, w1.buf.rows.n) {
		return nil
	}
	hidden, n := w1.buf.rows.n, w2.buf.rows.n
	if !g.vector(name, b1, hidden) || !g.vector(name, b2, n) || !g.residual(name, residual, x.buf.rows, n) {
		return nil
	}
	rows := x.buf.rows
	y := g.matrix(name, rows, n)
	pre, h := workspace(name+".pre", rows, hidden), workspace(name+".hidden", rows, hidden)
	pre.forBack, pre.half = true, g.bf16
	o := &op[T]{kind: "mlp", name: name, in: []*Node{x, w1, b1, w2, b2, residual}, out: y, work: []*buffer{pre, h},
		flops: 2 * int64(rows.Max) * int64(w1.len()+w2.len())}
	mm := g.product()
	o.forward = func() {
		p, m := g.mem.run.Pool, &g.mem
		mm.Gemm = kernel.Gemm[T]{TransB: true, N: hidden, K: x.Cols(), A: g.at(x), B: g.at(w1), C: m.at(h), Bias: g.at(b1), Act: act}
		if pre.readBack {
			mm.Pre, mm.Pre16 = m.stored(pre)
		}
		mm.rows(p, rows.Len())
		mm.Gemm = kernel.Gemm[T]{TransB: true, N: n, K: hidden, A: m.at(h), B: g.at(w2), C: g.at(y), Bias: g.at(b2), Residual: g.at(residual)}
		mm.rows(p, rows.Len())
	}
	o.again = &again{writes: []*buffer{pre}, run: func() {
		mm.Gemm = kernel.Gemm[T]{TransB: true, N: hidden, K: x.Cols(), A: g.at(x), B: g.at(w1), Bias: g.at(b1)}
		mm.C, mm.C16 = g.mem.stored(pre)
		mm.rows(g.mem.run.Pool, rows.Len())
	}}
	o.backward = func(r *reverse[T]) {
		add := r.absorb(0)
		dx, dw1, db1, dw2, db2 := r.grad(0), r.accum(1), r.accum(2), r.accum(3), r.accum(4)
		r.pass(5)
		first := dx != nil || dw1 != nil || db1 != nil // something before w2 needs a gradient
		if !first && dw2 == nil && db2 == nil {
			return
		}
		var again, d *buffer // the hidden layer, computed again, and the gradient of what it is the activation of
		if dw2 != nil {
			again = r.scratch(rows, hidden)
		}
		if first {
			d = r.scratch(rows, hidden)
		}
		mm := g.product()
		var flops int64
		for _, used := range []struct {
			is bool
			n  int
		}{{dw2 != nil, w2.len()}, {first, w2.len()}, {dw1 != nil, w1.len()}, {dx != nil, w1.len()}} {
			if used.is {
				flops += 2 * int64(rows.Max) * int64(used.n)
			}
		}
		r.step(flops, func() {
			p, m, live := g.mem.run.Pool, &g.mem, rows.Len()
			arg, half := m.stored(pre)
			if again != nil && half != nil {
				kernel.ActForward16(p, act, m.at(again), half)
			} else if again != nil {
				kernel.ActForward(p, act, m.at(again), arg)
			}
			g.linearBackward(&mm, live, r.dy, w2, m.at(again), nil, dw2, db2, nil, true)
			if first {
				mm.Gemm = kernel.Gemm[T]{N: hidden, K: n, A: m.at(r.dy), B: g.at(w2), C: m.at(d), Act: act, ActGrad: arg, ActGrad16: half}
				mm.rows(p, live)
				g.linearBackward(&mm, live, d, w1, g.at(x), dx, dw1, db1, add, true)
			}
		}, x.buf, w1.buf, w2.buf, pre)
	}
	return g.add(o)
}

// residual checks an optional operand (rows, cols).
func (g *GraphOf[T]) residual(name string, n *Node, rows *Dim, cols int) bool {
	if n == nil {
		return g.err == nil
	}
	if !g.own(name, n) {
		return false
	}
	if n.Cols() != cols {
		g.fail("%s: %s is added to (%s, %d): %w", name, n, rows, cols, ErrShape)
		return false
	}
	return g.sameRows(name, n.buf.rows, rows)
}

// backFLOPs counts the products of a linear layer's gradients, one for each that is needed.
func (o *op[T]) backFLOPs(grads ...*buffer) int64 {
	var n int64
	for _, d := range grads {
		if d != nil {
			n += o.flops
		}
	}
	return n
}

// at returns the elements of an operand, or nil of an absent one.
func (g *GraphOf[T]) at(n *Node) []T {
	if n == nil {
		return nil
	}
	return g.mem.at(n.buf)
}

// product is a matrix product that a step keeps, so that no run allocates one. Its matrices have no gaps between rows.
type product[T Float] struct {
	kernel.Gemm[T]
	bf16 bool // its operands are rounded
}

// product returns the product of a layer, in the graph's precision.
func (g *GraphOf[T]) product() product[T] { return product[T]{bf16: g.bf16} }

// rows computes the product for the given number of rows of A.
func (mm *product[T]) rows(p *kernel.Pool, rows int) {
	mm.M = rows
	mm.run(p)
}

func (mm *product[T]) run(p *kernel.Pool) {
	mm.LDA, mm.LDB, mm.LDC = mm.K, mm.N, mm.N
	if mm.TransA {
		mm.LDA = mm.M
	}
	if mm.TransB {
		mm.LDB = mm.K
	}
	mm.BF16 = mm.bf16
	kernel.MatMul(p, &mm.Gemm)
}

// describe names an operation by its kind and a number, for those without a weight to name them by.
func (g *GraphOf[T]) describe(kind string) string { return fmt.Sprintf("%s %d", kind, len(g.ops)) }
