package ops

import (
	"fmt"

	"diptych/internal/kernel"
)

// PatchEmbed cuts pictures into patches of patch·patch pixels and maps each linearly (Dosovitskiy et al. 2021, equation 1):
// w (D, 3·patch²) with columns in the order channel, row, column, b D elements or nil -> (B·N, D), a picture's N patches row
// by row from the top left.
func (g *GraphOf[T]) PatchEmbed(img *Image, w, b *Node, patch int) *Node {
	if !g.operands("patch embed", w) {
		return nil
	}
	name := "patch embed " + w.name
	if img == nil || patch <= 0 || img.Height%patch != 0 || img.Width%patch != 0 {
		return g.fail("%s: the image is missing or a side is not a multiple of the patch, %d: %w", name, patch, ErrShape)
	}
	width, size, n := w.buf.rows.n, 3*patch*patch, (img.Height/patch)*(img.Width/patch)
	if !g.weight(name, w, size) || !g.vector(name, b, width) {
		return nil
	}
	rows := img.Count.multiple(n)
	y := g.matrix(name, rows, width)
	patches := workspace(name+".patches", rows, size)
	cut := func(dst []T) {
		p, count := g.mem.run.Pool, img.Count.Len()
		if img.u8 != nil {
			kernel.PatchesU8(p, dst, img.u8, count, img.Height, img.Width, patch, img.mean, img.std)
		} else {
			kernel.PatchesF32(p, dst, img.f32, count, img.Height, img.Width, patch)
		}
	}
	o := &op[T]{kind: "patch embed", name: name, in: []*Node{w, b}, out: y, work: []*buffer{patches}, flops: 2 * int64(rows.Max) * int64(w.len())}
	mm := g.product()
	o.forward = func() {
		cut(g.mem.at(patches))
		mm.Gemm = kernel.Gemm[T]{TransB: true, N: width, K: size, A: g.mem.at(patches), B: g.at(w), C: g.at(y), Bias: g.at(b)}
		mm.rows(g.mem.run.Pool, rows.Len())
	}
	o.backward = func(r *reverse[T]) {
		dw, db := r.accum(0), r.accum(1)
		var again *buffer // cheaper to cut again than to keep
		if dw != nil {
			again = r.scratch(rows, size)
		}
		mm := g.product()
		r.step(o.backFLOPs(dw), func() {
			if again != nil {
				cut(g.mem.at(again))
			}
			g.linearBackward(&mm, rows.Len(), r.dy, w, g.mem.at(again), nil, dw, db, nil, true)
		})
	}
	return g.add(o)
}

// AssembleTokens makes the rows of a vision tower from patches (B·N, D): each picture's class token cls first, D elements,
// then its patches, plus row t of pos to token t. Without cls (nil) there are N rows, without pos nothing is added ->
// (B·(N+1), D). seqs must give each picture its rows.
func (g *GraphOf[T]) AssembleTokens(patches, cls, pos *Node, img *Image, seqs *Seqs) *Node {
	if !g.operands("assemble tokens", patches) || !g.own("assemble tokens", cls, pos) {
		return nil
	}
	name := g.describe("assemble tokens")
	width := patches.Cols()
	if img == nil || seqs == nil || patches.buf.rows.of != img.Count {
		return g.fail("%s: %s are not the patches of the image, or the sequences are missing: %w", name, patches, ErrShape)
	}
	n := patches.buf.rows.times
	length, skip := n, 0
	if cls != nil {
		length, skip = n+1, 1
	}
	if !g.vector(name, cls, width) || !g.positions(name, pos, width, seqs) {
		return nil
	}
	g.check(func() error {
		if seqs.Count.Len() != img.Count.Len() {
			return fmt.Errorf("ops: %s: %d sequences for %d pictures: %w", name, seqs.Count.Len(), img.Count.Len(), ErrShape)
		}
		for i, o := range seqs.offsets {
			if int(o) != i*length {
				return fmt.Errorf("ops: %s: sequence %d begins at row %d, but each picture has %d: %w", name, i, o, length, ErrShape)
			}
		}
		return nil
	})
	y := g.matrix(name, seqs.Rows, width)
	o := &op[T]{kind: "assemble tokens", name: name, in: []*Node{patches, cls, pos}, out: y}
	// copyPatches copies between the patches of each picture and its rows of the result.
	copyPatches := func(tokens, patches []T, out bool) func(lo, hi, thread int) {
		return func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				t, p := tokens[(i*length+skip)*width:(i+1)*length*width], patches[i*n*width:(i+1)*n*width]
				if out {
					copy(t, p)
				} else {
					copy(p, t)
				}
			}
		}
	}
	o.forward = func() {
		p, dst := g.mem.run.Pool, g.at(y)
		p.For(img.Count.Len(), 1, copyPatches(dst, g.at(patches), true))
		if cls != nil {
			for i := range img.Count.Len() {
				copy(dst[i*length*width:], g.at(cls))
			}
		}
		if pos != nil {
			kernel.AddPositions(p, dst, dst, g.at(pos), seqs.offsets, width)
		}
	}
	o.backward = func(r *reverse[T]) {
		dx, dcls, dpos := r.grad(0), r.accum(1), r.accum(2)
		var first *buffer // gradients of the class tokens
		if dcls != nil {
			first = r.scratch(seqs.Count, width)
		}
		r.step(0, func() {
			p, m := g.mem.run.Pool, &g.mem
			dy, count := m.at(r.dy), img.Count.Len()
			if dx != nil {
				p.For(count, 1, copyPatches(dy, m.at(dx), false))
			}
			if dcls != nil {
				kernel.Gather(p, m.at(first), dy, seqs.offsets[:count], width)
				kernel.ColSum(p, m.at(dcls), m.at(first), count, width)
			}
			if dpos != nil {
				kernel.PositionsBackward(p, m.at(dpos), dy, seqs.offsets, width)
			}
		})
	}
	return g.add(o)
}

// positions checks an optional table of positions against the longest sequence of each run.
func (g *GraphOf[T]) positions(name string, pos *Node, width int, seqs *Seqs) bool {
	if pos == nil {
		return g.err == nil
	}
	if !g.weight(name, pos, width) {
		return false
	}
	g.whenKnown(func() error {
		for i, o := range seqs.offsets[1:] {
			if n := int(o - seqs.offsets[i]); n > pos.buf.rows.n {
				return fmt.Errorf("ops: %s: sequence %d has %d rows, %s has positions for %d: %w", name, i, n, pos.name, pos.buf.rows.n, ErrShape)
			}
		}
		return nil
	}, seqs.Rows.late)
	return true
}

// indices checks in each run that every index is in [0, rows).
func (g *GraphOf[T]) indices(name string, ids *Ints, rows *Dim) {
	g.whenKnown(func() error {
		for i, id := range ids.data {
			if id < 0 || int(id) >= rows.Len() {
				return fmt.Errorf("ops: %s: %s[%d] is %d, must be in [0, %d): %w", name, ids.name, i, id, rows.Len(), ErrShape)
			}
		}
		return nil
	}, ids.late, rows.late)
}

// Embed returns row ids[r] of table (V, D) for each row r, plus row t of pos (context, D) for token t of a sequence; pos may
// be nil -> (R, D).
func (g *GraphOf[T]) Embed(ids *Ints, table, pos *Node, seqs *Seqs) *Node {
	if !g.operands("embed", table) || !g.own("embed", pos) {
		return nil
	}
	name := "embed " + table.name
	width := table.Cols()
	if ids == nil || seqs == nil || !table.buf.rows.fixed {
		return g.fail("%s: ids or sequences are missing, or the table is no parameter", name)
	}
	if !g.sameRows(name, ids.Dim, seqs.Rows) || !g.positions(name, pos, width, seqs) {
		return nil
	}
	g.indices(name, ids, table.buf.rows)
	y := g.matrix(name, seqs.Rows, width)
	o := &op[T]{kind: "embed", name: name, in: []*Node{table, pos}, out: y}
	o.forward = func() {
		p, dst := g.mem.run.Pool, g.at(y)
		kernel.Gather(p, dst, g.at(table), ids.data, width)
		if pos != nil {
			kernel.AddPositions(p, dst, dst, g.at(pos), seqs.offsets, width)
		}
	}
	o.backward = func(r *reverse[T]) {
		dtable, dpos := r.accum(0), r.accum(1)
		r.step(0, func() {
			p, m := g.mem.run.Pool, &g.mem
			if dtable != nil {
				kernel.ScatterAdd(p, m.at(dtable), m.at(r.dy), ids.data, width)
			}
			if dpos != nil {
				kernel.PositionsBackward(p, m.at(dpos), m.at(r.dy), seqs.offsets, width)
			}
		})
	}
	return g.add(o)
}

// Gather returns the rows of x (R, D) that are listed -> (len(rows), D).
func (g *GraphOf[T]) Gather(x *Node, rows *Ints) *Node {
	if !g.operands("gather", x) {
		return nil
	}
	name := g.describe("gather")
	if rows == nil {
		return g.fail("%s: the list of rows is missing", name)
	}
	g.indices(name, rows, x.buf.rows)
	y := g.matrix(name, rows.Dim, x.Cols())
	o := &op[T]{kind: "gather", name: name, in: []*Node{x}, out: y}
	o.forward = func() { kernel.Gather(g.mem.run.Pool, g.at(y), g.at(x), rows.data, x.Cols()) }
	o.backward = func(r *reverse[T]) {
		dx := r.accum(0)
		r.step(0, func() { kernel.ScatterAdd(g.mem.run.Pool, g.mem.at(dx), g.mem.at(r.dy), rows.data, x.Cols()) })
	}
	return g.add(o)
}

// MeanPool averages the rows of each sequence of x (R, D), leaving out its first skip rows -> (sequences, D).
func (g *GraphOf[T]) MeanPool(x *Node, seqs *Seqs, skip int) *Node {
	if !g.operands("mean pool", x) {
		return nil
	}
	name := g.describe("mean pool")
	if seqs == nil || skip < 0 {
		return g.fail("%s: the sequences are missing or skip, %d, is negative", name, skip)
	}
	if !g.sameRows(name, x.buf.rows, seqs.Rows) {
		return nil
	}
	y := g.matrix(name, seqs.Count, x.Cols())
	o := &op[T]{kind: "mean pool", name: name, in: []*Node{x}, out: y}
	o.forward = func() { kernel.PoolMean(g.mem.run.Pool, g.at(y), g.at(x), seqs.offsets, x.Cols(), skip) }
	o.backward = func(r *reverse[T]) {
		dx := r.grad(0)
		r.step(0, func() {
			kernel.PoolMeanBackward(g.mem.run.Pool, g.mem.at(dx), g.mem.at(r.dy), seqs.offsets, x.Cols(), skip)
		})
	}
	return g.add(o)
}
