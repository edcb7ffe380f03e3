package ops

import (
	"fmt"
)

// Joined is what Concat makes of two lists of sequences: sequence i of the first, then that of the second.
type Joined struct {
	Seqs *Seqs

	first, second *Seqs
}

// follow makes run-time sequences that follow from what is given before each run: compute fills in offsets. Some may be empty.
func (g *GraphOf[T]) follow(name string, count *Dim, maxRows int, compute func(offsets []int32) ([]int32, error)) *Seqs {
	s := &Seqs{Count: count, Rows: g.dim(name+".rows", maxRows), name: name, set: true}
	g.check(func() error {
		var err error
		if s.offsets, err = compute(s.offsets[:0]); err != nil {
			return fmt.Errorf("ops: %s: %w", name, err)
		}
		s.Rows.n = int(s.offsets[len(s.offsets)-1])
		return nil
	})
	return s
}

// Concat joins packed sequences one by one, (Ra, D) divided by aSeqs and (Rb, D) divided by bSeqs -> (Ra+Rb, D).
func (g *GraphOf[T]) Concat(a *Node, aSeqs *Seqs, b *Node, bSeqs *Seqs) (*Node, *Joined) {
	if !g.operands("concat", a, b) {
		return nil, nil
	}
	name := g.describe("concat")
	if aSeqs == nil || bSeqs == nil || a.Cols() != b.Cols() {
		return g.fail("%s: sequences are missing, or %s and %s differ in width: %w", name, a, b, ErrShape), nil
	}
	if !g.sameRows(name, a.buf.rows, aSeqs.Rows) || !g.sameRows(name, b.buf.rows, bSeqs.Rows) || !g.sameRows(name, aSeqs.Count, bSeqs.Count) {
		return nil, nil
	}
	seqs := g.follow(name, aSeqs.Count, aSeqs.Rows.Max+bSeqs.Rows.Max, func(offsets []int32) ([]int32, error) {
		for i, o := range aSeqs.offsets {
			offsets = append(offsets, o+bSeqs.offsets[i])
		}
		return offsets, nil
	})
	width := a.Cols()
	y := g.matrix(name, seqs.Rows, width)
	// each calls f with the elements of each sequence in the result, in a and in b.
	each := func(f func(s, as, bs [2]int)) {
		g.mem.run.Pool.For(len(seqs.offsets)-1, 4, func(lo, hi, _ int) {
			span := func(s *Seqs, i int) [2]int { return [2]int{int(s.offsets[i]) * width, int(s.offsets[i+1]) * width} }
			for i := lo; i < hi; i++ {
				f(span(seqs, i), span(aSeqs, i), span(bSeqs, i))
			}
		})
	}
	o := &op[T]{kind: "concat", name: name, in: []*Node{a, b}, out: y}
	o.forward = func() {
		dst, x, z := g.at(y), g.at(a), g.at(b)
		each(func(s, as, bs [2]int) {
			n := copy(dst[s[0]:], x[as[0]:as[1]])
			copy(dst[s[0]+n:], z[bs[0]:bs[1]])
		})
	}
	o.backward = func(r *reverse[T]) {
		da, db := r.grad(0), r.grad(1)
		r.step(0, func() {
			dy := g.mem.at(r.dy)
			each(func(s, as, bs [2]int) {
				mid := s[0] + as[1] - as[0]
				if da != nil {
					copy(g.mem.at(da)[as[0]:as[1]], dy[s[0]:mid])
				}
				if db != nil {
					copy(g.mem.at(db)[bs[0]:bs[1]], dy[mid:s[1]])
				}
			})
		})
	}
	return g.add(o), &Joined{Seqs: seqs, first: aSeqs, second: bSeqs}
}

// Picked is a choice of rows of packed sequences.
type Picked struct {
	Rows *Ints // in the packed matrix, ascending
	Seqs *Seqs // how the chosen rows divide, of which a sequence may have none; nil: one row of each
}

// First chooses the first row of each sequence.
func (g *GraphOf[T]) First(seqs *Seqs) *Picked {
	name := g.describe("first rows")
	p := &Picked{Rows: &Ints{Dim: seqs.Count, name: name, set: true, late: seqs.Rows.late}}
	g.whenKnown(func() error {
		p.Rows.data = seqs.offsets[:len(seqs.offsets)-1]
		return nil
	}, seqs.Rows.late)
	return p
}

// Every lists all rows of sequences.
func (g *GraphOf[T]) Every(seqs *Seqs) *Ints {
	all := &Ints{Dim: seqs.Rows, name: g.describe("all rows"), set: true, late: seqs.Rows.late}
	g.whenKnown(func() error {
		all.data = all.data[:0]
		for i := range seqs.Rows.Len() {
			all.data = append(all.data, int32(i))
		}
		return nil
	}, seqs.Rows.late)
	return all
}

// Single divides rows of which each is a sequence.
func (g *GraphOf[T]) Single(count *Dim) *Seqs {
	s := &Seqs{Count: count, Rows: count, name: g.describe("single rows"), set: true}
	g.check(func() error {
		s.offsets = s.offsets[:0]
		for i := range count.Len() + 1 {
			s.offsets = append(s.offsets, int32(i))
		}
		return nil
	})
	return s
}

// One says whether it is one row of each sequence.
func (p *Picked) One() bool { return p.Seqs == nil }

// Pick chooses rows of the first of two joined lists of sequences by their numbers in that list alone, which must ascend.
func (g *GraphOf[T]) Pick(j *Joined, rows *Ints) *Picked {
	if j == nil {
		return g.pick(nil, nil, rows, false)
	}
	return g.pick(j.first, j.second, rows, false)
}

// PickSecond is Pick for the second list.
func (g *GraphOf[T]) PickSecond(j *Joined, rows *Ints) *Picked {
	if j == nil {
		return g.pick(nil, nil, rows, false)
	}
	return g.pick(j.second, j.first, rows, true)
}

// PickFrom chooses rows of sequences by their numbers, which must ascend.
func (g *GraphOf[T]) PickFrom(seqs *Seqs, rows *Ints) *Picked { return g.pick(seqs, nil, rows, false) }

// pick chooses rows of sequences that are joined with others, if there are any, as their second part or their first.
func (g *GraphOf[T]) pick(of, shift *Seqs, rows *Ints, second bool) *Picked {
	name := g.describe("picked rows")
	if of == nil || rows == nil {
		g.fail("%s: the sequences or the list of rows are missing", name)
		return nil
	}
	p := &Picked{Rows: &Ints{Dim: rows.Dim, name: name, set: true}}
	p.Seqs = g.follow(name, of.Count, rows.Dim.Max, func(offsets []int32) ([]int32, error) {
		seq := 0
		p.Rows.data, offsets = p.Rows.data[:0], append(offsets, 0)
		for i, r := range rows.data {
			if r < 0 || int(r) >= of.Rows.Len() || i > 0 && r <= rows.data[i-1] {
				return nil, fmt.Errorf("%s[%d] is %d, must be in [0, %d) and ascending: %w", rows.name, i, r, of.Rows.Len(), ErrShape)
			}
			for r >= of.offsets[seq+1] {
				seq, offsets = seq+1, append(offsets, int32(i))
			}
			before := int32(0) // rows of the other list that lie before
			switch {
			case second:
				before = shift.offsets[seq+1]
			case shift != nil:
				before = shift.offsets[seq]
			}
			p.Rows.data = append(p.Rows.data, r+before)
		}
		for len(offsets) < len(of.offsets) {
			offsets = append(offsets, int32(len(rows.data)))
		}
		return offsets, nil
	})
	return p
}
