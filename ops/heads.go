package ops

import "diptych/internal/kernel"

// Act applies an activation to each element.
func (g *GraphOf[T]) Act(x *Node, act kernel.Act) *Node {
	if !g.operands("activation", x) {
		return nil
	}
	y := g.matrix(g.describe(act.String()), x.buf.rows, x.Cols())
	o := &op[T]{kind: "activation", name: y.name, in: []*Node{x}, out: y}
	o.forward = func() { kernel.ActForward(g.mem.run.Pool, act, g.at(y), g.at(x)) }
	o.backward = func(r *reverse[T]) {
		dx := r.grad(0)
		r.step(0, func() { kernel.ActBackward(g.mem.run.Pool, act, g.mem.at(dx), g.mem.at(r.dy), g.at(x)) }, x.buf)
	}
	return g.add(o)
}

// SideBySide joins the columns of a (R, C1) and b (R, C2) -> (R, C1+C2).
func (g *GraphOf[T]) SideBySide(a, b *Node) *Node {
	if !g.operands("side by side", a, b) {
		return nil
	}
	name := g.describe("side by side")
	if !g.sameRows(name, a.buf.rows, b.buf.rows) {
		return nil
	}
	left, right := a.Cols(), b.Cols()
	y := g.matrix(name, a.buf.rows, left+right)
	o := &op[T]{kind: "side by side", name: name, in: []*Node{a, b}, out: y}
	o.forward = func() {
		dst, x, z := g.at(y), g.at(a), g.at(b)
		for i := range a.buf.rows.Len() {
			copy(dst[i*(left+right):], x[i*left:(i+1)*left])
			copy(dst[i*(left+right)+left:], z[i*right:(i+1)*right])
		}
	}
	o.backward = func(r *reverse[T]) {
		da, db := r.grad(0), r.grad(1)
		r.step(0, func() {
			dy := g.mem.at(r.dy)
			for i := range a.buf.rows.Len() {
				row := dy[i*(left+right):][:left+right]
				if da != nil {
					copy(g.mem.at(da)[i*left:][:left], row)
				}
				if db != nil {
					copy(g.mem.at(db)[i*right:][:right], row[left:])
				}
			}
		})
	}
	return g.add(o)
}

// Fold lays runs of rows of x (R·n, C) end to end, one run for each of rows -> (R, n·C): the opposite of Split.
func (g *GraphOf[T]) Fold(x *Node, rows *Dim) *Node {
	if !g.operands("fold", x) {
		return nil
	}
	name := g.describe("fold")
	if rows == nil || x.buf.rows.Max%rows.Max != 0 {
		return g.fail("%s: %s in %s rows: %w", name, x, rows, ErrShape)
	}
	n := x.buf.rows.Max / rows.Max
	if !g.sameRows(name, x.buf.rows, rows.multiple(n)) {
		return nil
	}
	y := g.matrix(name, rows, n*x.Cols())
	o := &op[T]{kind: "fold", name: name, in: []*Node{x}, out: y}
	o.forward = func() { copy(g.at(y), g.at(x)) }
	o.backward = func(r *reverse[T]) {
		dx := r.grad(0)
		r.step(0, func() { copy(g.mem.at(dx), g.mem.at(r.dy)) })
	}
	return g.add(o)
}

// Split cuts each row of x (R, C) into parts rows -> (R·parts, C/parts).
func (g *GraphOf[T]) Split(x *Node, parts int) *Node {
	if !g.operands("split", x) {
		return nil
	}
	name := g.describe("split")
	if parts < 1 || x.Cols()%parts != 0 {
		return g.fail("%s: %s in %d parts: %w", name, x, parts, ErrShape)
	}
	y := g.matrix(name, x.buf.rows.multiple(parts), x.Cols()/parts)
	o := &op[T]{kind: "split", name: name, in: []*Node{x}, out: y}
	o.forward = func() { copy(g.at(y), g.at(x)) }
	o.backward = func(r *reverse[T]) {
		dx := r.grad(0)
		r.step(0, func() { copy(g.mem.at(dx), g.mem.at(r.dy)) })
	}
	return g.add(o)
}
