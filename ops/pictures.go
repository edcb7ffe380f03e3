package ops

import (
	"fmt"
	"slices"

	"diptych/internal/kernel"
)

// Picture is one picture of a run: levels or normalised values, of a size of its own.
type Picture struct {
	W, H int       // pixels
	U8   []uint8   // (H, W, 3), levels; or
	F32  []float32 // (3, H, W), normalised
}

// Patch is the place of a patch in its picture's grid.
type Patch struct{ Row, Col int32 }

// Pictures is a run-time batch of pictures of different sizes and of the patches that are taken of each, in sequences: its
// class token first, then its patches. Nothing is padded.
type Pictures struct {
	Tokens  *Seqs // a picture's class token and patches
	Patches *Dim  // of all pictures

	name      string
	patch     int
	mean, std [3]float32
	pics      []Picture
	take      [][]Patch
	where     []place // of all patches, in order
	offsets   []int32 // of Tokens
	set       bool
}

// place says where one of the patches taken lies.
type place struct {
	pic int32
	Patch
}

// Pictures returns a run-time batch of at most maxCount pictures with at most maxPatches patches of patch·patch pixels in all.
// Levels become (level/255 - mean)/std channel by channel.
func (g *GraphOf[T]) Pictures(name string, maxCount, maxPatches, patch int, mean, std [3]float32) *Pictures {
	if patch <= 0 || slices.Contains(std[:], 0) {
		g.fail("pictures %q: patch %d and std %v must not be zero: %w", name, patch, std, ErrShape)
	}
	x := &Pictures{
		Tokens: g.Seqs(name+".tokens", maxCount, maxPatches+maxCount), Patches: g.dim(name+".patches", maxPatches),
		name: name, patch: patch, mean: mean, std: std,
	}
	g.check(func() error { return bound(x.set, name) })
	return x
}

// SetPictures binds the pictures of the next run and the patches that are taken of each, at least one.
func (p *ProgramOf[T]) SetPictures(x *Pictures, pics []Picture, take [][]Patch) {
	x.set = false
	if len(pics) != len(take) {
		p.fail("%s: %d pictures and %d lists of patches: %w", x.name, len(pics), len(take), ErrShape)
		return
	}
	x.pics, x.take, x.where, x.offsets = pics, take, x.where[:0], append(x.offsets[:0], 0)
	for i, pic := range pics {
		if len(pic.U8) != 3*pic.W*pic.H && len(pic.F32) != 3*pic.W*pic.H || pic.W*pic.H == 0 {
			p.fail("%s: picture %d has %d levels, %d values, must have 3·%d·%d: %w", x.name, i, len(pic.U8), len(pic.F32), pic.H, pic.W, ErrShape)
			return
		}
		for _, t := range take[i] {
			if t.Row < 0 || t.Col < 0 || int(t.Row+1)*x.patch > pic.H || int(t.Col+1)*x.patch > pic.W {
				p.fail("%s: picture %d of %d×%d pixels has no patch in row %d, column %d: %w", x.name, i, pic.W, pic.H, t.Row, t.Col, ErrShape)
				return
			}
			x.where = append(x.where, place{int32(i), t})
		}
		if len(take[i]) == 0 {
			p.fail("%s: no patch is taken of picture %d: %w", x.name, i, ErrShape)
			return
		}
		x.offsets = append(x.offsets, int32(len(x.where)+i+1))
	}
	x.set = p.setDim(x.Patches, len(x.where))
	p.SetSeqs(x.Tokens, x.offsets)
}

// cut copies the taken patches to rows (patches, 3·patch²), columns in the order channel, row, column.
func cutPatches[T Float](x *Pictures, p *kernel.Pool, dst []T) {
	size := 3 * x.patch * x.patch
	var table [3][256]T
	for c := range 3 {
		for v := range 256 {
			table[c][v] = (T(v)/255 - T(x.mean[c])) / T(x.std[c])
		}
	}
	p.For(len(x.where), 4, func(lo, hi, _ int) {
		for i := lo; i < hi; i++ {
			w := x.where[i]
			pic, out := &x.pics[w.pic], dst[i*size:(i+1)*size]
			for c := range 3 {
				for y := range x.patch {
					line, at := out[(c*x.patch+y)*x.patch:][:x.patch], int(w.Row)*x.patch+y
					if pic.F32 != nil {
						for j, v := range pic.F32[(c*pic.H+at)*pic.W+int(w.Col)*x.patch:][:x.patch] {
							line[j] = T(v)
						}
						continue
					}
					src := pic.U8[(at*pic.W+int(w.Col)*x.patch)*3:][:3*x.patch]
					for j := range line {
						line[j] = table[c][src[3*j+c]]
					}
				}
			}
		}
	})
}

// EmbedPatches maps each of the taken patches linearly (Kim et al. 2021, §3.1): w (D, 3·patch²) with columns in the order
// channel, row, column, b D elements or nil -> (patches, D).
func (g *GraphOf[T]) EmbedPatches(x *Pictures, w, b *Node) *Node {
	if !g.operands("embed patches", w) {
		return nil
	}
	name := "embed patches " + w.name
	if x == nil {
		return g.fail("%s: the pictures are missing", name)
	}
	width, size := w.buf.rows.n, 3*x.patch*x.patch
	if !g.weight(name, w, size) || !g.vector(name, b, width) {
		return nil
	}
	y := g.matrix(name, x.Patches, width)
	patches := workspace(name+".patches", x.Patches, size)
	o := &op[T]{kind: "embed patches", name: name, in: []*Node{w, b}, out: y, work: []*buffer{patches}, flops: 2 * int64(x.Patches.Max) * int64(w.len())}
	mm := g.product()
	o.forward = func() {
		cutPatches(x, g.mem.run.Pool, g.mem.at(patches))
		mm.Gemm = kernel.Gemm[T]{TransB: true, N: width, K: size, A: g.mem.at(patches), B: g.at(w), C: g.at(y), Bias: g.at(b)}
		mm.rows(g.mem.run.Pool, x.Patches.Len())
	}
	o.backward = func(r *reverse[T]) {
		dw, db := r.accum(0), r.accum(1)
		var again *buffer // cheaper to cut again than to keep
		if dw != nil {
			again = r.scratch(x.Patches, size)
		}
		mm := g.product()
		r.step(o.backFLOPs(dw), func() {
			if again != nil {
				cutPatches(x, g.mem.run.Pool, g.mem.at(again))
			}
			g.linearBackward(&mm, x.Patches.Len(), r.dy, w, g.mem.at(again), nil, dw, db, nil, true)
		})
	}
	return g.add(o)
}

// PictureTokens makes each picture's sequence from its embedded patches (patches, D): its class token cls, D elements, plus the
// first row of pos; then its patches, plus the other rows of pos (1+grid², D) resized to the picture's own grid, bilinear with
// aligned corners (Kim et al. 2021, §3.1, as the authors' code does) -> (pictures + patches, D).
func (g *GraphOf[T]) PictureTokens(x *Pictures, patches, cls, pos *Node, grid int) *Node {
	if !g.operands("picture tokens", patches, cls, pos) {
		return nil
	}
	name := g.describe("picture tokens")
	width := patches.Cols()
	if x == nil || !patches.buf.rows.same(x.Patches) || !g.vector(name, cls, width) || !g.weight(name, pos, width) || pos.buf.rows.n != 1+grid*grid {
		return g.fail("%s: %s, %s and %s do not fit a grid of %d: %w", name, patches, cls, pos, grid, ErrShape)
	}
	y := g.matrix(name, x.Tokens.Rows, width)
	o := &op[T]{kind: "picture tokens", name: name, in: []*Node{patches, cls, pos}, out: y}
	// taps returns the rows of pos that patch i is between, and their shares.
	taps := func(i int) (rows [4]int, shares [4]T) {
		w := x.where[i]
		pic := &x.pics[w.pic]
		y0, y1, fy := between[T](int(w.Row), pic.H/x.patch, grid)
		x0, x1, fx := between[T](int(w.Col), pic.W/x.patch, grid)
		return [4]int{1 + y0*grid + x0, 1 + y0*grid + x1, 1 + y1*grid + x0, 1 + y1*grid + x1},
			[4]T{(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx}
	}
	o.forward = func() {
		p, dst, src, table, first := g.mem.run.Pool, g.at(y), g.at(patches), g.at(pos), g.at(cls)
		for i := range x.pics {
			row := dst[int(x.offsets[i])*width:][:width]
			for c, v := range first {
				row[c] = v + table[c]
			}
		}
		p.For(len(x.where), 16, func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				row := dst[(i+int(x.where[i].pic)+1)*width:][:width]
				copy(row, src[i*width:])
				rows, shares := taps(i)
				for k, s := range shares {
					if s != 0 {
						kernel.AXPY(nil, row, s, table[rows[k]*width:][:width])
					}
				}
			}
		})
	}
	o.backward = func(r *reverse[T]) {
		dx, dcls, dpos := r.grad(0), r.accum(1), r.accum(2)
		r.step(0, func() {
			p, m := g.mem.run.Pool, &g.mem
			dy := m.at(r.dy)
			if dx != nil {
				out := m.at(dx)
				p.For(len(x.where), 64, func(lo, hi, _ int) {
					for i := lo; i < hi; i++ {
						copy(out[i*width:][:width], dy[(i+int(x.where[i].pic)+1)*width:])
					}
				})
			}
			// A thread owns columns, so that each sum has one order.
			p.For(width, 64, func(lo, hi, _ int) {
				for i := range x.pics {
					row := dy[int(x.offsets[i])*width:]
					if dcls != nil {
						kernel.AXPY(nil, m.at(dcls)[lo:hi], 1, row[lo:hi])
					}
					if dpos != nil {
						kernel.AXPY(nil, m.at(dpos)[lo:hi], 1, row[lo:hi])
					}
				}
				if dpos == nil {
					return
				}
				table := m.at(dpos)
				for i := range x.where {
					row := dy[(i+int(x.where[i].pic)+1)*width:]
					rows, shares := taps(i)
					for k, s := range shares {
						if s != 0 {
							kernel.AXPY(nil, table[rows[k]*width+lo:rows[k]*width+hi], s, row[lo:hi])
						}
					}
				}
			})
		})
	}
	return g.add(o)
}

// between returns the two of n points that point i of count lies between, both spread over the same length from end to end,
// and how far it is towards the second. A single point lies on the first.
func between[T Float](i, count, n int) (lo, hi int, share T) {
	if count == 1 || n == 1 {
		return 0, 0, 0
	}
	at := T(i) * (T(n-1) / T(count-1))
	lo = min(int(at), n-1)
	return lo, min(lo+1, n-1), at - T(lo)
}

// AddRow adds row, D elements, to each row of x (R, D).
func (g *GraphOf[T]) AddRow(x, row *Node) *Node {
	if !g.operands("add row", x, row) {
		return nil
	}
	name := g.describe("add row " + row.name)
	if !g.vector(name, row, x.Cols()) {
		return nil
	}
	width := x.Cols()
	y := g.matrix(name, x.buf.rows, width)
	o := &op[T]{kind: "add row", name: name, in: []*Node{x, row}, out: y}
	o.forward = func() {
		dst, src, add := g.at(y), g.at(x), g.at(row)
		g.mem.run.Pool.For(x.buf.rows.Len(), 64, func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				kernel.Add(nil, dst[i*width:(i+1)*width], src[i*width:(i+1)*width], add)
			}
		})
	}
	o.backward = func(r *reverse[T]) {
		r.pass(0)
		if d := r.accum(1); d != nil {
			r.step(0, func() { kernel.ColSum(g.mem.run.Pool, g.mem.at(d), g.mem.at(r.dy), x.buf.rows.Len(), width) })
		}
	}
	return g.add(o)
}

// ReplaceRows returns x (R, D) with the listed rows replaced by row, D elements. The list may not name a row twice; a single
// -1 is an empty list.
func (g *GraphOf[T]) ReplaceRows(x, row *Node, rows *Ints) *Node {
	if !g.operands("replace rows", x, row) {
		return nil
	}
	name := g.describe("replace rows by " + row.name)
	if rows == nil || !g.vector(name, row, x.Cols()) {
		return g.fail("%s: the list of rows is missing, or %s does not fit %s: %w", name, row, x, ErrShape)
	}
	var list []int32 // of the run
	g.check(func() error {
		list = rows.data
		if len(list) == 1 && list[0] == -1 {
			list = nil
		}
		for i, r := range list {
			if r < 0 || int(r) >= x.buf.rows.Len() || i > 0 && r <= list[i-1] {
				return fmt.Errorf("ops: %s: %s[%d] is %d, must be in [0, %d) and ascending: %w", name, rows.name, i, r, x.buf.rows.Len(), ErrShape)
			}
		}
		return nil
	})
	width := x.Cols()
	y := g.matrix(name, x.buf.rows, width)
	o := &op[T]{kind: "replace rows", name: name, in: []*Node{x, row}, out: y}
	o.forward = func() {
		dst := g.at(y)
		copy(dst, g.at(x))
		for _, r := range list {
			copy(dst[int(r)*width:][:width], g.at(row))
		}
	}
	o.backward = func(r *reverse[T]) {
		dx, drow := r.grad(0), r.accum(1)
		r.step(0, func() {
			m := &g.mem
			dy := m.at(r.dy)
			if dx != nil {
				copy(m.at(dx), dy)
			}
			for _, i := range list {
				if dx != nil {
					clear(m.at(dx)[int(i)*width:][:width])
				}
				if drow != nil {
					kernel.AXPY(nil, m.at(drow), 1, dy[int(i)*width:][:width])
				}
			}
		})
	}
	return g.add(o)
}
