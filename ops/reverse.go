package ops

import (
	"diptych/internal/kernel"

	"gorgonia.org/gorgonia"
)

// reverse is what an operation's backward description works with. The description asks where each operand's gradient is to
// go (grad, accum or pass) and then says what to compute (step). Operands are numbered as in op.in.
type reverse[T Float] struct {
	dy *buffer // the gradient of the result

	from   *gorgonia.Node // its node
	err    error
	b      *builder[T]
	g      *GraphOf[T]
	op     *op[T]
	grads  []*buffer // of the operands; dy itself if it is passed on
	extra  gorgonia.Nodes
	clear  []*buffer    // zeroed before the kernel runs
	after  [][2]*buffer // added to the first from the second after the kernel has run
	bufs   []*buffer
	kernel func()
	flops  int64
}

// reverse builds the backward step of o and returns the gradients of its operands.
func (b *builder[T]) reverse(s *step[T], o *op[T], grad *gorgonia.Node) (gorgonia.Nodes, error) {
	r := &reverse[T]{dy: b.at[grad], from: grad, b: b, g: b.g, op: o, grads: make([]*buffer, len(o.in))}
	o.backward(r)
	if r.err != nil {
		return nil, r.err
	}
	back := grad
	if r.kernel != nil || len(r.after) > 0 {
		t := &step[T]{name: o.name + " backward", kind: o.kind, phase: backward, kernel: r.run, flops: r.flops, share: o.lengthShare, bufs: append(r.bufs, r.dy)}
		var err error
		if back, err = b.apply(t, append(gorgonia.Nodes{grad}, r.extra...)...); err != nil {
			return nil, err
		}
	}
	var operands []*Node
	var nodes gorgonia.Nodes
	for i, n := range o.in {
		if n == nil {
			continue
		}
		v, err := r.node(back, grad, n, r.grads[i])
		if err != nil {
			return nil, err
		}
		operands, nodes = append(operands, n), append(nodes, v)
	}
	return b.settle(s, operands, nodes)
}

// node returns the node of a gradient that lies in buf: the backward step itself for the first, for others a node that
// waits for it.
func (r *reverse[T]) node(back, grad *gorgonia.Node, n *Node, buf *buffer) (*gorgonia.Node, error) {
	switch {
	case !r.b.needs[n]:
		return nil, nil
	case n.trainable():
		return back, nil
	case buf == r.dy:
		return grad, nil
	case r.b.at[back] == nil:
		r.b.at[back] = buf
		return back, nil
	}
	v, err := r.b.apply(&step[T]{name: "gradient " + buf.name, phase: backward, bufs: []*buffer{buf}}, back)
	r.b.at[v] = buf
	return v, err
}

func (r *reverse[T]) run() {
	m := &r.g.mem
	for _, b := range r.clear {
		clear(m.at(b))
	}
	if r.kernel != nil {
		r.kernel()
	}
	for _, a := range r.after {
		kernel.AXPY(m.run.Pool, m.at(a[0]), 1, m.at(a[1]))
	}
}

// needs says whether operand i is there and its gradient is needed.
func (r *reverse[T]) needs(i int) bool { return r.op.in[i] != nil && r.b.needs[r.op.in[i]] }

// grad returns where the step must write the gradient of operand i; nil if nobody needs it.
func (r *reverse[T]) grad(i int) *buffer {
	if !r.needs(i) {
		return nil
	}
	n := r.op.in[i]
	d := r.scratch(n.buf.rows, n.buf.cols)
	d.name = n.name
	if n.trainable() {
		r.after = append(r.after, [2]*buffer{n.grads, d})
	} else {
		r.grads[i] = d
	}
	return d
}

// gradOrScratch is grad for a kernel that cannot leave the gradient out: what nobody needs goes to scratch.
func (r *reverse[T]) gradOrScratch(i int) *buffer {
	if d := r.grad(i); d != nil {
		return d
	}
	n := r.op.in[i]
	return r.scratch(n.buf.rows, n.buf.cols)
}

// accum returns where the step must add the gradient of operand i; nil if nobody needs it.
func (r *reverse[T]) accum(i int) *buffer {
	if !r.needs(i) {
		return nil
	}
	if n := r.op.in[i]; n.trainable() {
		return n.grads
	}
	d := r.grad(i)
	r.clear = append(r.clear, d)
	return d
}

// pass makes the gradient of the result the gradient of operand i.
func (r *reverse[T]) pass(i int) {
	if !r.needs(i) {
		return
	}
	if n := r.op.in[i]; n.trainable() {
		r.after = append(r.after, [2]*buffer{n.grads, r.dy})
	} else {
		r.grads[i] = r.dy
	}
}

// absorb returns the sum of the gradients of operand i's other uses if this is the last one, for the step to add to what it
// writes; else nil, and the gradients are summed by a step of their own.
func (r *reverse[T]) absorb(i int) *buffer {
	n := r.op.in[i]
	if !r.needs(i) || n.trainable() || r.b.uses[n] != 1 || len(r.b.held[n]) == 0 {
		return nil
	}
	v, err := r.b.sum(n, r.b.held[n])
	if err != nil {
		return nil // and settle, which sums again, reports it
	}
	delete(r.b.held, n)
	r.extra = append(r.extra, v)
	d := r.b.at[v]
	r.bufs = append(r.bufs, d)
	return d
}

// scratch returns a buffer that lives for the step alone, unless others use it.
func (r *reverse[T]) scratch(rows *Dim, cols int) *buffer {
	d := workspace(r.op.name, rows, cols)
	r.bufs = append(r.bufs, d)
	return d
}

// step says what to compute and which buffers of the forward pass are read.
func (r *reverse[T]) step(flops int64, kernel func(), reads ...*buffer) {
	r.kernel, r.flops = kernel, flops
	for _, d := range reads {
		if d == nil {
			continue
		}
		d.readBack = true
		r.bufs = append(r.bufs, d)
		if !d.again || r.err != nil {
			continue
		}
		var n *gorgonia.Node
		n, r.err = r.b.compute(d, r.from)
		r.extra = append(r.extra, n)
	}
}

// addAll returns the kernel dst = Σ terms.
func (g *GraphOf[T]) addAll(dst *buffer, terms []*buffer) func() {
	return func() {
		p, y := g.mem.run.Pool, g.mem.at(dst)
		kernel.Add(p, y, g.mem.at(terms[0]), g.mem.at(terms[1]))
		for _, t := range terms[2:] {
			kernel.Add(p, y, y, g.mem.at(t))
		}
	}
}
