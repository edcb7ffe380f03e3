package ops

import (
	"cmp"
	"slices"

	"diptych/internal/kernel"
)

// class says where a buffer's elements are.
type class uint8

const (
	inArena   class = iota // at an offset that the plan chose
	inWeights              // a range of the weight slab
	inGrads                // a range of the gradient slab
	inInput                // whatever slice was bound
)

// buffer is the place of a matrix (rows, cols). It knows offsets and no memory; memory.at finds the elements.
type buffer struct {
	name  string
	class class
	rows  *Dim
	cols  int
	half  bool // of the arena, stored as bfloat16
	off   int  // arena, weights, gradients: the first element; inputs: the index of the binding

	// Of the arena: the steps of the tape between which the elements are alive; there is a second life if they are computed again.
	lives    []life
	again    bool // not kept for the backward pass but computed a second time
	forBack  bool // only kept for a backward step,
	readBack bool // if one reads it
}

// bufferOf returns the buffer of an operand, or nil of an absent one.
func bufferOf(n *Node) *buffer {
	if n == nil {
		return nil
	}
	return n.buf
}

// life is a stretch of the tape's steps, both ends included.
type life struct{ first, last int }

// max returns the number of elements at capacity; two of bfloat16 take one.
func (b *buffer) max() int {
	n := b.rows.Max * b.cols
	if b.half {
		n = (n + 1) / 2
	}
	return n
}

// arenaAlign is the multiple of elements at which buffers begin: 64 bytes of float32.
const arenaAlign = 16

func aligned(n int) int { return (n + arenaAlign - 1) &^ (arenaAlign - 1) }

// use notes that step number i, not before any noted one, reads or writes b. anew says that a second life may begin here.
func (b *buffer) use(i int, anew bool) {
	if len(b.lives) == 0 || anew {
		b.lives = append(b.lives, life{i, i})
	}
	b.lives[len(b.lives)-1].last = i
}

// overlaps reports whether both are alive at once.
func (b *buffer) overlaps(c *buffer) bool {
	for _, x := range b.lives {
		for _, y := range c.lives {
			if x.first <= y.last && y.first <= x.last {
				return true
			}
		}
	}
	return false
}

// length returns for how many steps b is alive.
func (b *buffer) length() int {
	n := 0
	for _, l := range b.lives {
		n += l.last - l.first + 1
	}
	return n
}

// plan gives buffers whose lives overlap disjoint ranges of the arena, and returns the arena's length. It places the
// largest first, each at the lowest gap that holds it; among equal ones the longest-lived. On towers of transformers that
// reaches the lower bound, what is alive at once.
func plan(bufs []*buffer) int {
	order := slices.Clone(bufs)
	slices.SortStableFunc(order, func(a, b *buffer) int {
		return cmp.Or(cmp.Compare(b.max(), a.max()), cmp.Compare(b.length(), a.length()))
	})
	var placed []*buffer // by offset
	total := 0
	for _, b := range order {
		off, n := 0, aligned(b.max())
		for _, p := range placed {
			if !b.overlaps(p) {
				continue
			}
			if off+n <= p.off {
				break
			}
			off = max(off, p.off+aligned(p.max()))
		}
		b.off = off
		total = max(total, off+n)
		i, _ := slices.BinarySearchFunc(placed, off, func(p *buffer, off int) int { return cmp.Compare(p.off, off) })
		placed = slices.Insert(placed, i, b)
	}
	return total
}

// peak returns the largest number of elements that are alive at once over a tape of the given number of steps.
func peak(bufs []*buffer, steps int) int {
	change := make([]int, steps+2)
	for _, b := range bufs {
		for _, l := range b.lives {
			change[l.first] += aligned(b.max())
			change[l.last+1] -= aligned(b.max())
		}
	}
	most, live := 0, 0
	for _, c := range change {
		live += c
		most = max(most, live)
	}
	return most
}

// memory is what a run binds: the slices behind the buffers.
type memory[T Float] struct {
	run    *Run[T]
	inputs [][]T
}

// stored returns the live elements of b as what they are, T or bfloat16, and nil as the other.
func (m *memory[T]) stored(b *buffer) (full []T, half []uint16) {
	if b == nil || !b.half {
		return m.at(b), nil
	}
	return nil, kernel.Halves(m.run.Arena[b.off:b.off+b.max()], b.rows.Len()*b.cols)
}

// at returns the live elements of b, or nil of a nil buffer.
func (m *memory[T]) at(b *buffer) []T {
	if b == nil {
		return nil
	}
	if b.half {
		panic("ops: " + b.name + " is stored as bfloat16")
	}
	slab := m.run.Arena
	switch b.class {
	case inWeights:
		slab = m.run.Weights
	case inGrads:
		slab = m.run.Grads
	case inInput:
		return m.inputs[b.off]
	}
	end := b.off + b.rows.Len()*b.cols
	return slab[b.off:end:end]
}
