package ops

import (
	"fmt"
	"slices"
)

// Ints is a run-time list of indices.
type Ints struct {
	Dim *Dim

	name string
	data []int32
	set  bool
	late *late // not nil if the forward pass decides the data
}

// Seqs says how the rows of a packed matrix divide into sequences: offsets 0 = o[0] < o[1] < … < o[count] = rows.
type Seqs struct {
	Count *Dim // sequences
	Rows  *Dim // packed rows

	name    string
	offsets []int32
	set     bool
}

// Image is a run-time batch of pictures of one size.
type Image struct {
	Count         *Dim
	Height, Width int // pixels

	name      string
	mean, std [3]float32
	u8        []uint8
	f32       []float32
	set       bool
}

// named registers the name of an input or parameter; a name is used once in a graph.
func (g *GraphOf[T]) named(kind, name string) bool {
	switch {
	case g.err != nil:
	case g.compiled:
		g.fail("%s %q: the graph is compiled already", kind, name)
	case name == "":
		g.fail("%s without a name", kind)
	case g.names[name]:
		g.fail("%s %q: the name is used already", kind, name)
	default:
		g.names[name] = true
	}
	return g.err == nil
}

func (g *GraphOf[T]) dim(name string, max int) *Dim {
	if max <= 0 && g.err == nil {
		g.fail("%s: capacity %d must be positive: %w", name, max, ErrShape)
	}
	return &Dim{Max: max, name: name, n: max}
}

// NewDim returns a run-time length of at most max, which SetDim sets; until then it is max.
func (g *GraphOf[T]) NewDim(name string, max int) *Dim { return g.dim(name, max) }

// Input returns a matrix (rows, cols) that SetInput gives at each run. Compile may be asked for the gradient by it.
func (g *GraphOf[T]) Input(name string, rows *Dim, cols int) *Node {
	if !g.named("input", name) {
		return nil
	}
	if rows == nil || cols <= 0 {
		return g.fail("input %q: rows are missing or columns, %d, are not positive: %w", name, cols, ErrShape)
	}
	g.mem.inputs = append(g.mem.inputs, nil)
	b := &buffer{name: name, class: inInput, rows: rows, cols: cols, off: len(g.mem.inputs) - 1}
	g.check(func() error { return g.mem.fits(fmt.Sprintf("input %q", name), b) })
	return &Node{name: name, owner: g, buf: b}
}

// Scalar returns a single number that SetInput gives at each run.
func (g *GraphOf[T]) Scalar(name string) *Node { return g.Input(name, fixed(1), 1) }

// Ints returns a run-time list of at most max indices, which SetInts gives.
func (g *GraphOf[T]) Ints(name string, max int) *Ints {
	g.named("index list", name)
	x := &Ints{Dim: g.dim(name, max), name: name}
	g.check(func() error { return bound(x.set, name) })
	return x
}

// Seqs returns run-time offsets of at most maxSeqs sequences with at most maxRows rows in all, which SetSeqs gives.
func (g *GraphOf[T]) Seqs(name string, maxSeqs, maxRows int) *Seqs {
	g.named("sequences", name)
	x := &Seqs{Count: g.dim(name+".count", maxSeqs), Rows: g.dim(name+".rows", maxRows), name: name}
	g.check(func() error { return bound(x.set, name) })
	return x
}

// Image returns a run-time batch of at most maxBatch pictures of height·width pixels. SetImageU8 gives them as levels, which
// become (level/255 - mean)/std channel by channel; SetImageF32 gives them normalised.
func (g *GraphOf[T]) Image(name string, maxBatch, height, width int, mean, std [3]float32) *Image {
	g.named("image", name)
	if height <= 0 || width <= 0 || slices.Contains(std[:], 0) {
		g.fail("image %q: sides %d, %d and std %v must not be zero: %w", name, height, width, std, ErrShape)
	}
	x := &Image{Count: g.dim(name+".count", maxBatch), Height: height, Width: width, name: name, mean: mean, std: std}
	g.check(func() error { return bound(x.set, name) })
	return x
}

func bound(set bool, name string) error {
	if !set {
		return fmt.Errorf("ops: input %q: %w", name, ErrUnbound)
	}
	return nil
}

// Param returns a parameter: the elements of the weight slab from offset on, with its gradient at the same place of the
// gradient slab. A shape (n) becomes one row, (n, a, b, …) becomes n rows of a·b·… columns, and () a single element. Asked
// for again, it is the same node.
func (g *GraphOf[T]) Param(name string, offset int, shape ...int) *Node {
	return g.param(name, offset, shape, true)
}

// FrozenParam returns a parameter like Param, but without a gradient.
func (g *GraphOf[T]) FrozenParam(name string, offset int, shape ...int) *Node {
	return g.param(name, offset, shape, false)
}

func (g *GraphOf[T]) param(name string, offset int, shape []int, trainable bool) *Node {
	rows, cols := 1, 1
	for i, s := range shape {
		if i == 0 && len(shape) > 1 {
			rows = s
		} else {
			cols *= s
		}
	}
	for _, n := range g.params {
		if n.name == name && n.buf.off == offset && n.buf.rows.n == rows && n.buf.cols == cols && n.trainable() == trainable {
			return n
		}
	}
	if !g.named("parameter", name) {
		return nil
	}
	if rows <= 0 || cols <= 0 || offset < 0 {
		return g.fail("parameter %q: shape %v at offset %d: %w", name, shape, offset, ErrShape)
	}
	n := &Node{name: name, owner: g, buf: &buffer{name: name, class: inWeights, rows: fixed(rows), cols: cols, off: offset}}
	if trainable {
		n.grads = &buffer{name: name + ".grad", class: inGrads, rows: n.buf.rows, cols: cols, off: offset}
	}
	g.params = append(g.params, n)
	return n
}
