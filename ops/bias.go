package ops

import (
	"fmt"
	"math"

	"diptych/internal/kernel"
)

// ScoreBias is what an attention adds to its scores, for each pair of N positions in each head. Its gradient is a sum over all
// sequences of a head in their order.
type ScoreBias struct {
	Scores *Node // (heads·N, N): row h·N + i holds what head h adds for a query at position i and a key at each position

	// Position of each row of queries and of keys, from 0 to N-1; nil: a row's place in its sequence. Self-attention reads Keys.
	Queries, Keys *Ints
}

// RelativeBias looks up a bias in a table of relative positions (Liu et al. 2021, §3.2; Bao et al. 2022b, appendix): element
// (i, j) of head h is the table's element in row index[i·N + j] and column first + h. table (T, C); index, N², holds rows of it
// -> (heads·N, N). A table whose columns are those of all layers is looked up once for each.
func (g *GraphOf[T]) RelativeBias(table *Node, index []int32, first, heads int) *Node {
	if !g.operands("relative bias", table) {
		return nil
	}
	name := g.describe("relative bias")
	n := int(math.Round(math.Sqrt(float64(len(index)))))
	if n == 0 || n*n != len(index) || first < 0 || heads <= 0 || first+heads > table.Cols() || !table.buf.rows.fixed {
		return g.fail("%s: %s, columns %d to %d, for %d pairs of positions: %w", name, table, first, first+heads-1, len(index), ErrShape)
	}
	for at, row := range index {
		if row < 0 || int(row) >= table.buf.rows.n {
			return g.fail("%s: positions %d and %d are row %d of %s: %w", name, at/n, at%n, row, table, ErrShape)
		}
	}
	cols := table.Cols()
	y := g.matrix(name, fixed(heads*n), n)
	o := &op[T]{kind: "relative bias", name: name, in: []*Node{table}, out: y}
	o.forward = func() {
		dst, src := g.at(y), g.at(table)
		g.mem.run.Pool.For(heads, 1, func(lo, hi, _ int) {
			for h := lo; h < hi; h++ {
				for at, row := range index {
					dst[h*n*n+at] = src[int(row)*cols+first+h]
				}
			}
		})
	}
	o.backward = func(r *reverse[T]) {
		d := r.accum(0)
		r.step(0, func() {
			to, dy := g.mem.at(d), g.mem.at(r.dy)
			g.mem.run.Pool.For(heads, 1, func(lo, hi, _ int) {
				for h := lo; h < hi; h++ {
					for at, row := range index {
						to[int(row)*cols+first+h] += dy[h*n*n+at]
					}
				}
			})
		})
	}
	return g.add(o)
}

// Positions returns that of each row of joined sequences: rows of the first list count from 0, those of the second from second.
func (g *GraphOf[T]) Positions(j *Joined, second int) *Ints {
	name := g.describe("positions")
	if j == nil || second < 0 {
		g.fail("%s: the sequences are missing, or the second begins at %d", name, second)
		return nil
	}
	x := &Ints{Dim: j.Seqs.Rows, name: name, set: true}
	g.check(func() error {
		x.data = x.data[:0]
		for i := range j.Seqs.Count.Len() {
			for k := range j.first.offsets[i+1] - j.first.offsets[i] {
				x.data = append(x.data, k)
			}
			for k := range j.second.offsets[i+1] - j.second.offsets[i] {
				x.data = append(x.data, int32(second)+k)
			}
		}
		return nil
	})
	return x
}

// PositionsOf returns the positions of chosen rows.
func (g *GraphOf[T]) PositionsOf(picked *Picked, positions *Ints) *Ints {
	name := g.describe("positions")
	if picked == nil || positions == nil {
		g.fail("%s: the chosen rows or the positions are missing", name)
		return nil
	}
	x := &Ints{Dim: picked.Rows.Dim, name: name, set: true}
	g.check(func() error {
		x.data = x.data[:0]
		for _, row := range picked.Rows.data {
			x.data = append(x.data, positions.data[row])
		}
		return nil
	})
	return x
}

// bias checks what is added to the scores of queries and keys. It returns the operand, nil without a bias.
func (g *GraphOf[T]) bias(name string, b *ScoreBias, heads int, queries, keys *Seqs) (scores *Node, ok bool) {
	if b == nil {
		return nil, g.err == nil
	}
	if b.Scores == nil {
		g.fail("%s: the bias has no scores", name)
		return nil, false
	}
	n := b.Scores.Cols()
	if !g.own(name, b.Scores) || !g.weight(name, b.Scores, n) {
		return nil, false
	}
	if b.Scores.buf.rows.n != heads*n {
		g.fail("%s: the bias %s must have %d rows for %d heads: %w", name, b.Scores, heads*n, heads, ErrShape)
		return nil, false
	}
	return b.Scores, g.biasPositions(name, b.Queries, queries, n) && g.biasPositions(name, b.Keys, keys, n)
}

// biasPositions checks before each run that all positions are below n.
func (g *GraphOf[T]) biasPositions(name string, positions *Ints, seqs *Seqs, n int) bool {
	if positions != nil {
		if !g.sameRows(name, positions.Dim, seqs.Rows) {
			return false
		}
		g.indices(name, positions, fixed(n))
		return true
	}
	g.check(func() error {
		for i, o := range seqs.offsets[1:] {
			if length := int(o - seqs.offsets[i]); length > n {
				return fmt.Errorf("ops: %s: sequence %d has %d rows, the bias is for %d positions: %w", name, i, length, n, ErrShape)
			}
		}
		return nil
	})
	return true
}

// kernelBias is the bias as the kernel reads it, nil without one.
func (g *GraphOf[T]) kernelBias(scores *Node) *kernel.ScoreBias[T] {
	if scores == nil {
		return nil
	}
	return &kernel.ScoreBias[T]{N: scores.Cols()}
}

// bindBias points the kernel's bias at a run's memory. d, where the gradient is added, may be nil.
func (g *GraphOf[T]) bindBias(k *kernel.ScoreBias[T], b *ScoreBias, d *buffer) {
	if k == nil {
		return
	}
	k.Add, k.DAdd = g.at(b.Scores), g.mem.at(d)
	k.Queries, k.Keys = b.Queries.rows(), b.Keys.rows()
}

func (x *Ints) rows() []int32 {
	if x == nil {
		return nil
	}
	return x.data
}
