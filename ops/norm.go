package ops

import "diptych/internal/kernel"

// LayerNorm normalises each row of x (R, D) to mean 0 and variance 1, with eps added to the variance, then scales by gamma
// and shifts by beta, D elements each (Ba, Kiros and Hinton 2016, equation 4).
func (g *GraphOf[T]) LayerNorm(x, gamma, beta *Node, eps float64) *Node {
	if !g.operands("layer norm", x, gamma, beta) {
		return nil
	}
	name := "layer norm " + gamma.name
	rows, cols := x.buf.rows, x.Cols()
	if !g.vector(name, gamma, cols) || !g.vector(name, beta, cols) {
		return nil
	}
	y := g.matrix(name, rows, cols)
	y.buf.again = true // a pass over x costs less than memory
	mean, rstd := workspace(name+".mean", rows, 1), workspace(name+".rstd", rows, 1)
	o := &op[T]{kind: "layer norm", name: name, in: []*Node{x, gamma, beta}, out: y, work: []*buffer{mean, rstd}}
	o.forward = func() {
		m := &g.mem
		kernel.LayerNorm(m.run.Pool, g.at(y), m.at(mean), m.at(rstd), g.at(x), g.at(gamma), g.at(beta), rows.Len(), cols, T(eps))
	}
	o.backward = func(r *reverse[T]) {
		add := r.absorb(0)
		// The kernel wants all three; what nobody needs goes to scratch.
		orScratch := func(d *buffer, like *Node) *buffer {
			if d == nil {
				d = r.scratch(like.buf.rows, like.buf.cols)
			}
			return d
		}
		dx, dgamma, dbeta := orScratch(r.grad(0), x), orScratch(r.accum(1), gamma), orScratch(r.accum(2), beta)
		r.step(0, func() {
			m := &g.mem
			kernel.LayerNormBackward(m.run.Pool, m.at(dx), m.at(dgamma), m.at(dbeta), m.at(r.dy), g.at(x), m.at(mean), m.at(rstd),
				g.at(gamma), m.at(add), rows.Len(), cols)
		}, x.buf, gamma.buf, mean, rstd)
	}
	return g.add(o)
}

// L2Normalize divides each row of x (R, D) by its Euclidean length, or by eps where that is longer.
func (g *GraphOf[T]) L2Normalize(x *Node, eps float64) *Node {
	if !g.operands("l2 normalize", x) {
		return nil
	}
	name := g.describe("l2 normalize")
	rows, cols := x.buf.rows, x.Cols()
	y := g.matrix(name, rows, cols)
	inv := workspace(name+".inv", rows, 1)
	o := &op[T]{kind: "l2 normalize", name: name, in: []*Node{x}, out: y, work: []*buffer{inv}}
	o.forward = func() {
		kernel.L2Normalize(g.mem.run.Pool, g.at(y), g.mem.at(inv), g.at(x), rows.Len(), cols, T(eps))
	}
	o.backward = func(r *reverse[T]) {
		dx := r.grad(0)
		r.step(0, func() {
			m := &g.mem
			kernel.L2NormalizeBackward(m.run.Pool, m.at(dx), m.at(r.dy), g.at(y), m.at(inv), rows.Len(), cols)
		}, y.buf, inv)
	}
	return g.add(o)
}
