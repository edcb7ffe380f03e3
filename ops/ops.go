// Package ops is the vocabulary in which models and losses are written: coarse, fused operations with gradients, the
// programs they compile to, and the plan of the memory those programs work in. It is the only package that knows Gorgonia.
//
// A Graph records operations. Compile hands them to Gorgonia, which differentiates them symbolically and sorts the result
// into the instructions of its tape machine. Gorgonia never sees a number: each of its values is a small token, and the
// operations read and write buffers that this package lays out. So shapes may change from run to run up to a capacity, and
// memory is what is alive at once, not what was ever computed.
//
// The arithmetic is in internal/kernel; the layers made of these operations are in model. Start reading with Graph, then
// linear.go for what an operation looks like, builder.go for how Gorgonia sees it, plan.go for the memory.
package ops

import (
	"errors"
	"fmt"
)

// Float is the element type of a graph: float32 to train, float64 to check gradients.
type Float interface{ float32 | float64 }

// ErrShape is wrapped by the errors of operands and inputs that do not fit each other.
var ErrShape = errors.New("shapes do not fit")

// ErrUnbound is wrapped by the errors of a run whose memory or inputs were not given.
var ErrUnbound = errors.New("not bound")

// Graph is a graph of float32 operations.
type Graph = GraphOf[float32]

// Program is a compiled Graph.
type Program = ProgramOf[float32]

// GraphOf records operations on matrices of T. Its methods may be chained without looking at errors: the first one sticks
// to the graph, is returned by Err and by Compile, and turns all later methods into no-operations. A graph is built by one
// goroutine and compiled once.
type GraphOf[T Float] struct {
	err    error
	ops    []*op[T]
	params []*Node
	names  map[string]bool // of inputs and parameters
	checks []func() error  // what can only be checked when the run-time lengths are known
	mem    memory[T]
	late   []*late // what forward passes decide
	// addressed lists the addresses of rows that training runs need.
	addressed []*addresses
	compiled  bool
	bf16      bool // products of layers and attention multiply bfloat16
	recompute bool // blocks keep only their results
	block     int  // the operation that the last block begins with
}

// NewGraph returns an empty graph.
func NewGraph[T Float]() *GraphOf[T] { return &GraphOf[T]{names: map[string]bool{}} }

// RoundProducts makes the layers and attentions that are added from here on round what their products multiply to bfloat16.
// Sums, weights and gradients stay in float32, and so do the products of contrastive losses. What is kept for the backward pass
// is stored as bfloat16 where nothing but products reads it, which changes no bit, and as the argument of an activation, of
// which the backward pass computes value and derivative.
func (g *GraphOf[T]) RoundProducts() { g.bf16 = true }

// Err returns the first error met while the graph was built.
func (g *GraphOf[T]) Err() error { return g.err }

// fail keeps the first error. It returns nil so that an operation can return it as its node.
func (g *GraphOf[T]) fail(format string, args ...any) *Node {
	if g.err == nil {
		g.err = fmt.Errorf("ops: "+format, args...)
	}
	return nil
}

// Dim is a length that may change from run to run, such as the number of token rows of a batch.
type Dim struct {
	Max int // the capacity that memory is planned for

	name  string
	n     int
	of    *Dim // if not nil, the length is times that of another Dim
	times int
	fixed bool
	late  *late // not nil if the forward pass decides it
}

// Len returns the length of the current run.
func (d *Dim) Len() int {
	if d.of != nil {
		return d.of.Len() * d.times
	}
	return d.n
}

func (d *Dim) String() string {
	if d.fixed {
		return fmt.Sprint(d.n)
	}
	return d.name
}

// multiple returns the length d·times.
func (d *Dim) multiple(times int) *Dim {
	return &Dim{Max: d.Max * times, name: fmt.Sprintf("%s*%d", d, times), of: d, times: times, late: d.late}
}

func fixed(n int) *Dim { return &Dim{Max: n, n: n, fixed: true} }

// same says whether two lengths are equal in every run.
func (d *Dim) same(e *Dim) bool {
	return d == e || d.fixed && e.fixed && d.n == e.n || d.of != nil && e.of != nil && d.times == e.times && d.of.same(e.of)
}

// Node is a matrix of a graph: an input, a parameter or the result of an operation.
type Node struct {
	name  string
	buf   *buffer
	owner any // the graph
	grads *buffer
}

// Name returns the name of an input or parameter, or a description of an operation.
func (n *Node) Name() string {
	if n == nil {
		return ""
	}
	return n.name
}

// Rows returns the number of rows, which may change from run to run. Of the nil node of a failed graph it is zero.
func (n *Node) Rows() *Dim {
	if n == nil {
		return fixed(0)
	}
	return n.buf.rows
}

// Cols returns the number of columns.
func (n *Node) Cols() int {
	if n == nil {
		return 0
	}
	return n.buf.cols
}

func (n *Node) String() string { return fmt.Sprintf("%s (%s, %d)", n.name, n.buf.rows, n.buf.cols) }

// len returns the number of elements of a node whose rows are fixed, such as a parameter.
func (n *Node) len() int { return n.buf.max() }

// trainable says whether n is a parameter with a gradient.
func (n *Node) trainable() bool { return n.grads != nil }

// op is one recorded operation.
type op[T Float] struct {
	kind string  // what a profile groups it by: linear, attention, …
	name string  // the kind and what tells it from others
	in   []*Node // what it may be differentiated by; an absent operand is nil
	out  *Node
	work []*buffer // what else it writes: statistics kept for its backward step, and space to work in
	// forward computes out from in.
	forward func()
	again   *again // nil: forward
	// backward describes the backward step; it runs once, while Gorgonia differentiates.
	backward func(r *reverse[T])
	detached bool  // no gradient flows from it
	rounds   *Node // the operand that it reads as bfloat16 alone, stored so or not; may be nil
	rounded  bool  // it can store its result as bfloat16
	flops    int64 // of forward, at capacity
	// share says which part of flops a run's lengths need; nil: in proportion to the rows of out.
	share func() float64
}

func (o *op[T]) lengthShare() float64 {
	if o.share != nil {
		return o.share()
	}
	rows := o.out.buf.rows
	return float64(rows.Len()) / float64(rows.Max)
}

// matrix makes the node of an operation's result.
func (g *GraphOf[T]) matrix(name string, rows *Dim, cols int) *Node {
	return &Node{name: name, buf: &buffer{name: name, rows: rows, cols: cols}, owner: g}
}

// workspace makes a buffer that an operation works in.
func workspace(name string, rows *Dim, cols int) *buffer {
	return &buffer{name: name, rows: rows, cols: cols}
}

func (g *GraphOf[T]) add(o *op[T]) *Node {
	g.ops = append(g.ops, o)
	return o.out
}

// operands reports whether an operation may be recorded: the graph has not failed, and its operands are there and are the
// graph's own.
func (g *GraphOf[T]) operands(name string, ns ...*Node) bool {
	if g.err != nil {
		return false
	}
	if g.compiled {
		g.fail("%s: the graph is compiled already", name)
		return false
	}
	for i, n := range ns {
		if n == nil {
			g.fail("%s: operand %d is nil", name, i)
			return false
		}
	}
	return g.own(name, ns...)
}

// own reports whether those of ns that are there belong to g.
func (g *GraphOf[T]) own(name string, ns ...*Node) bool {
	for _, n := range ns {
		if n != nil && n.owner != any(g) {
			g.fail("%s: %s belongs to another graph", name, n)
			return false
		}
	}
	return g.err == nil
}

// vector checks that an optional parameter, such as a bias, has n elements.
func (g *GraphOf[T]) vector(name string, v *Node, n int) bool {
	if v == nil {
		return g.err == nil
	}
	if !g.own(name, v) {
		return false
	}
	if v.len() != n || !v.buf.rows.fixed && v.buf.rows.Max > 1 {
		g.fail("%s: %s must have %d elements: %w", name, v, n, ErrShape)
		return false
	}
	return true
}

// weight checks that a matrix has a fixed number of rows, and the number of columns given.
func (g *GraphOf[T]) weight(name string, w *Node, cols int) bool {
	if !w.buf.rows.fixed {
		g.fail("%s: the rows of %s change from run to run, a weight is needed: %w", name, w, ErrShape)
		return false
	}
	if w.buf.cols != cols {
		g.fail("%s: %s must have %d columns: %w", name, w, cols, ErrShape)
		return false
	}
	return true
}

// sameRows requires two lengths to be equal: at once where that is known, else before each run.
func (g *GraphOf[T]) sameRows(name string, a, b *Dim) bool {
	if a.same(b) {
		return true
	}
	if a.fixed && b.fixed {
		g.fail("%s: %s rows and %s rows: %w", name, a, b, ErrShape)
		return false
	}
	g.whenKnown(func() error {
		if a.Len() != b.Len() {
			return fmt.Errorf("ops: %s: %s is %d and %s is %d, they must be equal: %w", name, a, a.Len(), b, b.Len(), ErrShape)
		}
		return nil
	}, a.late, b.late)
	return true
}

// check adds what is checked before each run.
func (g *GraphOf[T]) check(f func() error) { g.checks = append(g.checks, f) }
