package ops

import (
	"math"

	"diptych/internal/addr"
	"diptych/internal/kernel"
)

// addresses gives the rows of a matrix addresses that do not depend on how rows are packed or a batch is cut: the position of
// a row's pair in the global batch, its place in the sequence and, where pairs have several sequences, which of them it is.
// Random numbers hang on them, not on row numbers.
type addresses struct {
	seqs *Seqs // the rows' sequences; nil if each row is a pair
	rows *Dim
	of   []uint64
}

// compute fills in the addresses of a run whose first pair has position base.
func (a *addresses) compute(base int) {
	a.of = a.of[:0]
	if a.seqs == nil {
		for i := range a.rows.Len() {
			a.of = append(a.of, a.rows.address(base, i, 0))
		}
		return
	}
	for i, end := range a.seqs.offsets[1:] {
		for t := range end - a.seqs.offsets[i] {
			a.of = append(a.of, a.seqs.Count.address(base, i, int(t)))
		}
	}
}

// pair returns the pair that sequence i of d is of, and its number among those of the pair.
func (d *Dim) pair(i int) (pair, number int) {
	if d.of == nil {
		return i, 0
	}
	return i / d.times, i % d.times
}

// address is that of token t of sequence i.
func (d *Dim) address(base, i, t int) uint64 {
	pair, number := d.pair(i)
	h := addr.Hash(uint64(base+pair), uint64(t))
	if number > 0 {
		h = addr.Hash(h, uint64(number))
	}
	return h
}

// addressed returns the addresses of the rows of x, which are divided by seqs, or are one for each pair if that is nil.
func (g *GraphOf[T]) addresses(x *Node, seqs *Seqs) *addresses {
	for _, a := range g.addressed {
		if a.seqs == seqs && (seqs != nil || a.rows.same(x.buf.rows)) {
			return a
		}
	}
	a := &addresses{seqs: seqs, rows: x.buf.rows}
	g.addressed = append(g.addressed, a)
	g.whenKnown(func() error {
		if g.mem.run.Train {
			a.compute(g.mem.run.Base)
		}
		return nil
	}, a.rows.late)
	return a
}

// random checks what the random operations have in common. Two of one name would draw the same.
func (g *GraphOf[T]) random(name string, x *Node, prob float64, seqs *Seqs) bool {
	if prob < 0 || prob >= 1 || math.IsNaN(prob) {
		g.fail("%s: probability %g must be in [0, 1)", name, prob)
		return false
	}
	if prob > 0 && !g.named("random draws of", name) {
		return false
	}
	return seqs == nil || g.sameRows(name, x.buf.rows, seqs.Rows)
}

// Dropout zeroes each element of x (R, D) with probability p and divides the others by 1-p (Srivastava et al. 2014), in
// training runs; else it is the identity. Whether an element stays is a hash of (seed, name, step, position of its pair in
// the global batch, token, channel). seqs divides the rows into pairs; without it (nil) each row is one.
func (g *GraphOf[T]) Dropout(x *Node, p float64, name string, seqs *Seqs) *Node {
	if !g.operands("dropout", x) || !g.random("dropout "+name, x, p, seqs) {
		return nil
	}
	if p == 0 {
		return x
	}
	where, layer := g.addresses(x, seqs), addr.Name(name)
	y := g.matrix("dropout "+name, x.buf.rows, x.Cols())
	drop := func(dst, src []T) {
		run := g.mem.run
		if !run.Train {
			copy(dst, src)
			return
		}
		key := addr.Hash(run.Seed, layer, uint64(run.Step))
		kernel.Dropout(run.Pool, dst, src, x.buf.rows.Len(), x.Cols(), p, key, where.of)
	}
	o := &op[T]{kind: "dropout", name: "dropout " + name, in: []*Node{x}, out: y}
	o.forward = func() { drop(g.at(y), g.at(x)) }
	o.backward = func(r *reverse[T]) {
		dx := r.grad(0)
		r.step(0, func() { drop(g.mem.at(dx), g.mem.at(r.dy)) })
	}
	return g.add(o)
}

// AddBranch returns x + branch, both (R, D). In training runs the branch of each pair is left out with probability dropPath,
// and else divided by 1-dropPath (stochastic depth, Huang et al. 2016, as in timm's DropPath). Which is a hash of (seed,
// name, step, position of the pair in the global batch). seqs divides the rows into pairs; without it (nil) each row is one.
func (g *GraphOf[T]) AddBranch(x, branch *Node, dropPath float64, name string, seqs *Seqs) *Node {
	full := "add branch " + name
	if !g.operands(full, x, branch) || !g.random(full, x, dropPath, seqs) || !g.residual(full, branch, x.buf.rows, x.Cols()) {
		return nil
	}
	layer, width := addr.Name(name), x.Cols()
	count := x.buf.rows
	if seqs != nil {
		count = seqs.Count
	}
	// factor returns what the branch of sequence i is multiplied by.
	factor := func(i int) T {
		run := g.mem.run
		pair, number := count.pair(i)
		key := addr.Hash(run.Seed, layer, uint64(run.Step), uint64(run.Base+pair))
		if number > 0 {
			key = addr.Hash(key, uint64(number))
		}
		if addr.Float64(key) < dropPath {
			return 0
		}
		return T(1 / (1 - dropPath))
	}
	// scaled adds the branch, each pair by its factor, to dst.
	scaled := func(dst, branch []T) {
		g.mem.run.Pool.For(count.Len(), 1, func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				from, to := i*width, (i+1)*width
				if seqs != nil {
					from, to = int(seqs.offsets[i])*width, int(seqs.offsets[i+1])*width
				}
				if f := factor(i); f != 0 {
					kernel.AXPY(nil, dst[from:to], f, branch[from:to])
				}
			}
		})
	}
	y := g.matrix(full, x.buf.rows, width)
	o := &op[T]{kind: "add branch", name: full, in: []*Node{x, branch}, out: y}
	o.forward = func() {
		if dropPath == 0 || !g.mem.run.Train {
			kernel.Add(g.mem.run.Pool, g.at(y), g.at(x), g.at(branch))
			return
		}
		copy(g.at(y), g.at(x))
		scaled(g.at(y), g.at(branch))
	}
	o.backward = func(r *reverse[T]) {
		r.pass(0)
		if dropPath == 0 {
			r.pass(1)
			return
		}
		d := r.grad(1)
		if d == nil {
			return
		}
		r.step(0, func() {
			dst, dy := g.mem.at(d), g.mem.at(r.dy)
			if !g.mem.run.Train {
				copy(dst, dy)
				return
			}
			clear(dst)
			scaled(dst, dy)
		})
	}
	return g.add(o)
}

// LayerScale multiplies each row of x (R, D) by gamma, D elements (Touvron et al. 2021, equation 4).
func (g *GraphOf[T]) LayerScale(x, gamma *Node) *Node {
	if !g.operands("layer scale", x, gamma) {
		return nil
	}
	name := "layer scale " + gamma.name
	rows, width := x.buf.rows, x.Cols()
	if !g.vector(name, gamma, width) {
		return nil
	}
	y := g.matrix(name, rows, width)
	// scale sets dst = src·gamma, row by row.
	scale := func(dst, src []T) {
		w := g.at(gamma)
		g.mem.run.Pool.For(rows.Len(), 64, func(lo, hi, _ int) {
			for r := lo; r < hi; r++ {
				in, out := src[r*width:(r+1)*width], dst[r*width:(r+1)*width]
				for c, v := range in {
					out[c] = v * w[c]
				}
			}
		})
	}
	o := &op[T]{kind: "layer scale", name: name, in: []*Node{x, gamma}, out: y}
	o.forward = func() { scale(g.at(y), g.at(x)) }
	o.backward = func(r *reverse[T]) {
		dx, dgamma := r.grad(0), r.accum(1)
		var product *buffer
		if dgamma != nil {
			product = r.scratch(rows, width)
		}
		r.step(0, func() {
			p, m := g.mem.run.Pool, &g.mem
			dy := m.at(r.dy)
			if dx != nil {
				scale(m.at(dx), dy)
			}
			if dgamma == nil {
				return
			}
			at, src := m.at(product), g.at(x)
			p.For(rows.Len(), 64, func(lo, hi, _ int) {
				for i := lo * width; i < hi*width; i++ {
					at[i] = dy[i] * src[i]
				}
			})
			kernel.ColSum(p, m.at(dgamma), at, rows.Len(), width)
		}, x.buf, gamma.buf)
	}
	return g.add(o)
}
