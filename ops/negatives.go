package ops

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"diptych/internal/addr"
	"diptych/internal/kernel"
)

// late is a decision that a forward pass makes while it runs, such as which pairs it draws, and with them how many rows follow.
// It lies in the arena, so that the backward pass finds the one of its own forward pass, whatever has run in between.
type late struct {
	read func()         // takes the decision from the arena
	then []func() error // what follows from it, in order
}

// again takes the decision from the arena and computes what follows.
func (l *late) again() error {
	l.read()
	for _, f := range l.then {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// whenKnown adds what is checked, or follows, in each run: before it, or as soon as the last of the decisions is made that it
// depends on; nil depends on none.
func (g *GraphOf[T]) whenKnown(f func() error, of ...*late) {
	for _, l := range slices.Backward(g.late) { // they are made in this order
		if slices.Contains(of, l) {
			l.then = append(l.then, f)
			return
		}
	}
	g.check(f)
}

// Negatives are false partners for the pairs of a grain that the forward pass draws: for the sentence of pair i the picture of
// pair Pictures[i], for its picture the sentence of pair Texts[i].
type Negatives struct {
	Pictures, Texts *Ints // (N)

	drawn *Node // (N, 2): the numbers of both
	late  *late
}

// HardNegatives draws false partners by how alike they are (Li et al. 2021, §3.2, hard negative mining): x and y (N, E) are unit rows
// of the pairs' pictures and sentences, t = exp(logScale),
//
//	P(Texts[i] = j) ∝ exp(t·x_i·y_j)    P(Pictures[i] = j) ∝ exp(t·y_i·x_j)    over the pairs j of another group than i's
//
// The authors take the softmax over all pairs and clear the diagonal after it, which is the same distribution. Before update
// `after` all pairs of another group are equally likely. A draw is a
// function of (seed, name, step, position of pair i in the global batch) and the rows; no gradient flows from it. A run whose
// pairs are all of one group is an error.
func (g *GraphOf[T]) HardNegatives(x, y, logScale *Node, groups *Ints, name string, after int) *Negatives {
	full := "hard negatives " + name
	c := g.contrast(full, x, y, logScale)
	if c == nil {
		return nil
	}
	if groups == nil {
		g.fail("%s: the groups are missing", full)
		return nil
	}
	n := x.buf.rows
	if !g.sameRows(full, groups.Dim, n) || !g.named("random draws of", name) {
		return nil
	}
	g.check(func() error {
		for _, group := range groups.data {
			if group != groups.data[0] {
				return nil
			}
		}
		return fmt.Errorf("ops: %s: all %d pairs are of one group, so that none is another's negative", full, len(groups.data))
	})
	out := g.matrix(full, n, 2)
	logits := workspace(full+".logits", n, n.Max)
	neg := &Negatives{drawn: out, late: &late{}}
	neg.Pictures = &Ints{Dim: n, name: name + ".pictures", set: true, late: neg.late}
	neg.Texts = &Ints{Dim: n, name: name + ".texts", set: true, late: neg.late}
	neg.late.read = func() {
		neg.Pictures.data, neg.Texts.data = neg.Pictures.data[:0], neg.Texts.data[:0]
		at := g.at(out)
		for i := range n.Len() {
			neg.Pictures.data, neg.Texts.data = append(neg.Pictures.data, int32(at[2*i])), append(neg.Texts.data, int32(at[2*i+1]))
		}
	}
	g.late = append(g.late, neg.late)
	o := &op[T]{kind: "hard negatives", name: full, in: []*Node{x, y, logScale}, out: out, work: []*buffer{logits}, flops: c.flops(), detached: true}
	o.forward = func() {
		run, rows := g.mem.run, n.Len()
		z := g.mem.at(logits)
		kernel.MatMul(run.Pool, &kernel.Gemm[T]{
			TransB: true, M: rows, N: rows, K: x.Cols(), A: g.at(x), LDA: x.Cols(), B: g.at(y), LDB: x.Cols(), C: z, LDC: rows, // z_ij = x_i·y_j
		})
		t := float64(c.t())
		if run.Step < after {
			t = 0
		}
		key, dst := addr.Hash(run.Seed, addr.Name(name), uint64(run.Step)), g.at(out)
		run.Pool.For(rows, 8, func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				draw := func(way uint64, score func(j int) T) T {
					u := addr.Float64(addr.Hash(key, uint64(run.Base+i), way))
					return T(drawOther(i, groups.data, u, func(j int) float64 { return t * float64(score(j)) }))
				}
				dst[2*i] = draw(0, func(j int) T { return z[j*rows+i] })
				dst[2*i+1] = draw(1, func(j int) T { return z[i*rows+j] })
			}
		})
		if err := neg.late.again(); err != nil {
			panic(err) // the lengths that were given allow every draw
		}
	}
	g.add(o)
	return neg
}

// drawOther returns the number j of another group than i's for which u in [0, 1) stands when its probability is in proportion to
// exp(logit(j)).
func drawOther(i int, groups []int32, u float64, logit func(j int) float64) int {
	top, last := math.Inf(-1), 0
	for j, group := range groups {
		if group != groups[i] {
			top, last = max(top, logit(j)), j
		}
	}
	sum := 0.0
	for j, group := range groups {
		if group != groups[i] {
			sum += math.Exp(logit(j) - top)
		}
	}
	at := 0.0
	for j, group := range groups {
		if group == groups[i] {
			continue
		}
		if at += math.Exp(logit(j) - top); at > u*sum {
			return j
		}
	}
	return last // rounding, or scores that are not finite
}

// Trio is how the rows that Trios makes divide: three sequences for each pair.
type Trio struct {
	Seqs  *Seqs
	Reads *Ints // (3·N): the picture that each sequence goes with

	from []int32 // the sentence that each is
}

// Trios packs three sequences for each pair i from the rows x (R, D) of the pairs' sentences: its own, which goes with its own
// picture; its own again, with picture Pictures[i]; and sentence Texts[i], with its own picture. It returns the rows
// (R', D).
func (g *GraphOf[T]) Trios(x *Node, seqs *Seqs, neg *Negatives) (*Node, *Trio) {
	if !g.operands("trios", x) {
		return nil, nil
	}
	name := g.describe("trios")
	if seqs == nil || neg == nil {
		return g.fail("%s: the sequences or the negatives are missing", name), nil
	}
	if !g.own(name, neg.drawn) || !g.sameRows(name, x.buf.rows, seqs.Rows) || !g.sameRows(name, seqs.Count, neg.drawn.buf.rows) {
		return nil, nil
	}
	rows := g.dim(name+".rows", 3*seqs.Rows.Max)
	rows.late = neg.late
	count, width := seqs.Count.multiple(3), x.Cols()
	t := &Trio{
		Seqs:  &Seqs{Count: count, Rows: rows, name: name, set: true},
		Reads: &Ints{Dim: count, name: name + ".reads", set: true, late: neg.late},
	}
	g.whenKnown(func() error {
		t.from, t.Reads.data = t.from[:0], t.Reads.data[:0]
		for i := range int32(seqs.Count.Len()) {
			t.from = append(t.from, i, i, neg.Texts.data[i])
			t.Reads.data = append(t.Reads.data, i, neg.Pictures.data[i], i)
		}
		offsets := append(t.Seqs.offsets[:0], 0)
		for _, s := range t.from {
			offsets = append(offsets, offsets[len(offsets)-1]+seqs.offsets[s+1]-seqs.offsets[s])
		}
		t.Seqs.offsets = offsets
		if rows.n = int(offsets[len(offsets)-1]); rows.n > rows.Max {
			return errors.New("more rows than sentences of the greatest length have")
		}
		return nil
	}, neg.late)
	y := g.matrix(name, rows, width)
	// part returns the elements of sequence s of a packed matrix.
	part := func(m []T, s *Seqs, i int32) []T { return m[int(s.offsets[i])*width : int(s.offsets[i+1])*width] }
	o := &op[T]{kind: "trios", name: name, in: []*Node{x, neg.drawn}, out: y}
	o.forward = func() {
		dst, src := g.at(y), g.at(x)
		g.mem.run.Pool.For(len(t.from), 4, func(lo, hi, _ int) {
			for s := int32(lo); s < int32(hi); s++ {
				copy(part(dst, t.Seqs, s), part(src, seqs, t.from[s]))
			}
		})
	}
	o.backward = func(r *reverse[T]) {
		d := r.grad(0)
		r.step(0, func() {
			dx, dy := g.mem.at(d), g.mem.at(r.dy)
			g.mem.run.Pool.For(seqs.Count.Len(), 4, func(lo, hi, _ int) {
				for i := int32(lo); i < int32(hi); i++ {
					to := part(dx, seqs, i)
					copy(to, part(dy, t.Seqs, 3*i))
					kernel.AXPY(nil, to, 1, part(dy, t.Seqs, 3*i+1))
					for k, s := range neg.Texts.data { // in order, so that the sum is the same for any number of threads
						if s == i {
							kernel.AXPY(nil, to, 1, part(dy, t.Seqs, int32(3*k+2)))
						}
					}
				}
			})
		}, neg.drawn.buf)
	}
	return g.add(o), t
}
