package ops

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// Not every activation is kept for the backward pass. A buffer that is marked (buffer.again) is alive while forward steps use
// it, and again from the backward step that computes it a second time to the last that reads it; both times at the same place
// of the arena, so that the operation's own kernel does it. What is marked: the results of layer norms, which cost less to
// compute than to keep, and inside of a block (BeginBlock) everything. Chen et al. 2016, §3, call it re-computation.

// again is the part of an operation that is computed a second time. An operation without one runs whole.
type again struct {
	run    func()
	writes []*buffer // of op.work, all that backward steps read
}

// RecomputeBlocks makes the blocks that are marked from here on keep nothing but their results: what their backward pass reads
// is computed again, block by block, with the same bits.
func (g *GraphOf[T]) RecomputeBlocks() { g.recompute = true }

// BeginBlock marks where a block begins.
func (g *GraphOf[T]) BeginBlock() { g.block = len(g.ops) }

// EndBlock marks where it ends. out is its result.
func (g *GraphOf[T]) EndBlock(out *Node) {
	if !g.recompute || g.err != nil {
		return
	}
	for _, o := range g.ops[g.block:] {
		for _, b := range o.work {
			b.again = true
		}
		o.out.buf.again = o.out != out
	}
}

// againKey names a step that computes something a second time: the whole operation, or its part.
type againKey[T Float] struct {
	op    *op[T]
	whole bool
}

// compute returns the node of the step that computes d a second time, after the node given. It is made once.
func (b *builder[T]) compute(d *buffer, after *gorgonia.Node) (*gorgonia.Node, error) {
	o := b.made[d]
	if o == nil {
		return nil, fmt.Errorf("nothing computes %s", d.name)
	}
	whole := d == o.out.buf || o.again == nil
	for _, k := range []againKey[T]{{o, true}, {o, whole}} {
		if n := b.second[k]; n != nil {
			return n, nil
		}
	}
	s := &step[T]{name: o.name + " again", kind: o.kind, phase: backward, again: true, kernel: o.forward, bufs: append(slices.Clone(o.work), o.out.buf)}
	if !whole {
		s.kernel, s.bufs = o.again.run, slices.Clone(o.again.writes)
	}
	children := gorgonia.Nodes{after}
	for _, n := range o.in {
		if n == nil {
			continue
		}
		s.bufs = append(s.bufs, n.buf)
		if n.buf.again {
			child, err := b.compute(n.buf, after)
			if err != nil {
				return nil, err
			}
			children = append(children, child)
		}
	}
	n, err := b.apply(s, children...)
	b.second[againKey[T]{o, whole}] = n
	return n, err
}
