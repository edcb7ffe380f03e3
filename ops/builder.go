package ops

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"gorgonia.org/gorgonia"
)

// building serialises everything that builds Gorgonia graphs: building touches its global constants.
var building sync.Mutex

// errHash is returned when two nodes of the Gorgonia graph have one hash.
var errHash = errors.New("two nodes of one hash")

// builder turns a recorded graph into a Gorgonia graph and its gradient.
//
// Parameters and inputs are Gorgonia inputs and each operation is a node whose children are its operands. After the
// outputs comes one node that waits for all of them, and after that the fed gradients: so every backward step depends on
// every forward one, and a program can run in two phases.
//
// Where a matrix has several uses its gradient is a sum. Gorgonia would add tokens, so the builder sums: all but the last
// use that is differentiated hand their gradient to a list, and the last takes the list into its own backward step, if it
// can add another gradient on the way (reverse.absorb), or a step that adds. Gradients of parameters need no such step:
// each use adds to the gradient slab.
type builder[T Float] struct {
	g     *GraphOf[T]
	graph *gorgonia.ExprGraph
	tape  *tape[T]
	opt   CompileOpt[T]

	ops   []*op[T]                   // those that outputs depend on
	needs map[*Node]bool             // nodes whose gradient is needed
	uses  map[*Node]int              // differentiated uses
	nodes map[*Node]*gorgonia.Node   // forward
	at    map[*gorgonia.Node]*buffer // where the gradient of a gradient node is
	held  map[*Node]gorgonia.Nodes   // gradients that wait for the last use
	seeds map[*Node]*buffer          // fed gradients of outputs
	grads map[*Node]*buffer          // gradients of the inputs asked for
	keep  []*buffer

	made   map[*buffer]*op[T]             // which operation writes a buffer of the forward pass
	second map[againKey[T]]*gorgonia.Node // steps that compute something a second time
}

// build makes the Gorgonia graph, differentiated unless the program only runs forward.
func (g *GraphOf[T]) build(opt CompileOpt[T], salt int) (*builder[T], error) {
	b := &builder[T]{
		g: g, graph: gorgonia.NewGraph(), tape: &tape[T]{salt: salt}, opt: opt,
		needs: map[*Node]bool{}, uses: map[*Node]int{}, nodes: map[*Node]*gorgonia.Node{}, at: map[*gorgonia.Node]*buffer{},
		held: map[*Node]gorgonia.Nodes{}, seeds: map[*Node]*buffer{}, grads: map[*Node]*buffer{},
		made: map[*buffer]*op[T]{}, second: map[againKey[T]]*gorgonia.Node{},
	}
	b.reach()
	b.halve()
	for _, n := range opt.Outputs {
		n.buf.again = false // it is read later
	}
	var outs gorgonia.Nodes
	for _, o := range b.ops {
		if err := b.op(o); err != nil {
			return nil, err
		}
	}
	for _, n := range opt.Outputs {
		out, err := b.output(n)
		if err != nil {
			return nil, err
		}
		outs = append(outs, out)
		b.keep = append(b.keep, n.buf)
	}
	if !opt.ForwardOnly {
		if err := b.differentiate(outs); err != nil {
			return nil, err
		}
	}
	return b, b.distinct()
}

// reach finds the operations that outputs depend on, which nodes need a gradient, and how often each is used.
func (b *builder[T]) reach() {
	live := map[*Node]bool{}
	for _, n := range b.opt.Outputs {
		live[n] = true
	}
	for _, o := range slices.Backward(b.g.ops) {
		if !live[o.out] {
			continue
		}
		b.ops = append(b.ops, o)
		for _, n := range o.in {
			live[n] = true
		}
	}
	slices.Reverse(b.ops)
	if b.opt.ForwardOnly {
		return
	}
	for _, n := range b.opt.Wrt {
		b.needs[n] = true
	}
	for _, o := range b.ops {
		for _, n := range o.in {
			if n != nil && !o.detached && (b.needs[n] || n.trainable()) {
				b.needs[n], b.needs[o.out] = true, true
			}
		}
	}
	for _, n := range b.opt.Outputs {
		if b.needs[n] {
			b.uses[n]++
		}
	}
	for _, o := range slices.Backward(b.ops) {
		if b.needs[o.out] = b.uses[o.out] > 0; !b.needs[o.out] || o.detached { // all that reads it may be detached
			continue
		}
		for _, n := range o.in {
			if n != nil && b.needs[n] {
				b.uses[n]++
			}
		}
	}
}

// halve has results stored as bfloat16 that all their readers round.
func (b *builder[T]) halve() {
	rounded := map[*Node]bool{}
	for _, o := range b.ops {
		rounded[o.out] = o.rounded
		for _, n := range o.in {
			if n != o.rounds {
				rounded[n] = false
			}
		}
	}
	for _, n := range b.opt.Outputs {
		rounded[n] = false
	}
	for _, o := range b.ops {
		o.out.buf.half = rounded[o.out]
	}
}

// node returns the Gorgonia node of n, making it if n is an input or parameter.
func (b *builder[T]) node(n *Node) *gorgonia.Node {
	if v := b.nodes[n]; v != nil {
		return v
	}
	v := gorgonia.NodeFromAny(b.graph, newToken(), gorgonia.WithName(n.name))
	b.nodes[n] = v
	return v
}

// apply adds a step below its children.
func (b *builder[T]) apply(s *step[T], children ...*gorgonia.Node) (*gorgonia.Node, error) {
	s.tape, s.mem, s.id, s.children, s.token = b.tape, &b.g.mem, len(b.graph.AllNodes()), len(children), newToken()
	n, err := gorgonia.ApplyOp(s, children...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if n.Op() != gorgonia.Op(s) {
		return nil, errHash
	}
	return n, nil
}

func (b *builder[T]) op(o *op[T]) error {
	var children gorgonia.Nodes
	s := &step[T]{name: o.name, kind: o.kind, phase: forward, kernel: o.forward, flops: o.flops, share: o.lengthShare, bufs: append(slices.Clone(o.work), o.out.buf)}
	for _, n := range o.in {
		if n == nil {
			continue
		}
		children = append(children, b.node(n))
		s.wrt = append(s.wrt, b.needs[n] && !o.detached)
		s.bufs = append(s.bufs, n.buf)
	}
	for _, d := range s.bufs[:len(o.work)+1] {
		b.made[d] = o
	}
	s.diff = func(grad *gorgonia.Node) (gorgonia.Nodes, error) { return b.reverse(s, o, grad) }
	n, err := b.apply(s, children...)
	b.nodes[o.out] = n
	return err
}

// output adds the use of n as an output: the identity, through which the fed gradient enters like any other.
func (b *builder[T]) output(n *Node) (*gorgonia.Node, error) {
	s := &step[T]{name: "output " + n.name, phase: forward, wrt: []bool{b.needs[n]}}
	s.diff = func(grad *gorgonia.Node) (gorgonia.Nodes, error) {
		return b.settle(s, []*Node{n}, gorgonia.Nodes{grad})
	}
	return b.apply(s, b.node(n))
}

// differentiate feeds the gradients of the outputs and lets Gorgonia derive the backward steps.
func (b *builder[T]) differentiate(outs gorgonia.Nodes) error {
	turn, err := b.apply(&step[T]{name: "turn", phase: forward}, outs...)
	if err != nil {
		return err
	}
	var from, fed, wrt gorgonia.Nodes
	for i, n := range b.opt.Outputs {
		if !b.needs[n] {
			continue
		}
		seed, err := b.apply(&step[T]{name: "gradient of " + n.name, phase: backward}, turn)
		if err != nil {
			return err
		}
		b.at[seed] = &buffer{name: n.name + ".seed", class: inInput, rows: n.buf.rows, cols: n.buf.cols, off: len(b.g.mem.inputs)}
		b.g.mem.inputs = append(b.g.mem.inputs, nil)
		b.seeds[n] = b.at[seed]
		from, fed = append(from, outs[i]), append(fed, seed)
	}
	for _, n := range b.g.params {
		if n.trainable() && b.uses[n] > 0 {
			wrt = append(wrt, b.node(n))
		}
	}
	for _, n := range b.opt.Wrt {
		if b.uses[n] == 0 {
			return fmt.Errorf("no output depends on input %s, whose gradient is asked for", n)
		}
		wrt = append(wrt, b.node(n))
	}
	if len(from) == 0 {
		return errors.New("no output depends on a parameter or input with a gradient; compile with ForwardOnly")
	}
	derivs, err := gorgonia.Backpropagate(from, fed, wrt)
	switch {
	case err != nil:
		return err
	case len(b.held) > 0:
		return fmt.Errorf("gradients of %d nodes were never summed", len(b.held))
	}
	for i, n := range b.opt.Wrt {
		d := b.at[derivs[len(derivs)-len(b.opt.Wrt)+i]]
		b.grads[n] = d
		b.keep = append(b.keep, d)
	}
	return nil
}

// settle hands the gradients of a step's operands to Gorgonia. Those of a node that is used again further down are held
// back until the last use, which gets their sum.
func (b *builder[T]) settle(s *step[T], operands []*Node, grads gorgonia.Nodes) (gorgonia.Nodes, error) {
	for i, n := range operands {
		if !s.wrt[i] {
			continue
		}
		b.uses[n]--
		if n.trainable() { // added in the slab
			if b.uses[n] > 0 {
				s.wrt[i], grads[i] = false, nil
			}
			continue
		}
		if b.uses[n] > 0 {
			b.held[n] = append(b.held[n], grads[i])
			s.wrt[i], grads[i] = false, nil
			continue
		}
		if len(b.held[n]) > 0 {
			var err error
			if grads[i], err = b.sum(n, append(b.held[n], grads[i])); err != nil {
				return nil, err
			}
			delete(b.held, n)
		}
	}
	return grads, nil
}

// sum adds gradients of n.
func (b *builder[T]) sum(n *Node, terms gorgonia.Nodes) (*gorgonia.Node, error) {
	if len(terms) == 1 {
		return terms[0], nil
	}
	out := workspace(n.name+".grad", n.buf.rows, n.buf.cols)
	s := &step[T]{name: "sum of gradients of " + n.name, kind: "sum of gradients", phase: backward, bufs: []*buffer{out}}
	for _, t := range terms {
		s.bufs = append(s.bufs, b.at[t])
	}
	s.kernel = b.g.addAll(out, s.bufs[1:])
	v, err := b.apply(s, terms...)
	b.at[v] = out
	return v, err
}

// distinct checks that no two nodes have one hash: the tape machine's compiler would take one for the other.
func (b *builder[T]) distinct() error {
	seen := map[uint32]bool{}
	for _, n := range b.graph.AllNodes() {
		h := n.Hashcode()
		if seen[h] {
			return errHash
		}
		seen[h] = true
		if _, ours := n.Op().(*step[T]); !ours && n.Op() != nil {
			return fmt.Errorf("Gorgonia added a node of its own: %v", n)
		}
	}
	return nil
}
