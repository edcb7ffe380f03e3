package ops

import (
	"math/rand/v2"
	"testing"

	"diptych/internal/gradcheck"
	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

// bench is a small graph under test: parameters get random weights, inputs random elements, and the gradient fed to an
// output is random, so that what is differentiated is Σ c·y.
type bench[T Float] struct {
	*GraphOf[T]
	t       testing.TB
	rng     *rand.Rand
	weights []T
	run     Run[T]
	prog    *ProgramOf[T]
	inputs  map[*Node][]T
	wrt     []*Node
	binds   []func(p *ProgramOf[T])
	outs    []*Node
	fed     [][]T
}

func newBench[T Float](t testing.TB) *bench[T] {
	return &bench[T]{GraphOf: NewGraph[T](), t: t, rng: rand.New(rand.NewPCG(1, 2)), inputs: map[*Node][]T{}}
}

func (b *bench[T]) random(n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(b.rng.NormFloat64() * 0.7)
	}
	return x
}

// param adds a parameter with a gap of one element before it, which must keep its gradient zero.
func (b *bench[T]) param(name string, shape ...int) *Node {
	off := len(b.weights) + 1
	n := b.Param(name, off, shape...)
	require.NoError(b.t, b.Err())
	b.weights = append(b.weights, b.random(n.len()+1)...)
	return n
}

// frozen adds a parameter without a gradient.
func (b *bench[T]) frozen(name string, shape ...int) *Node {
	n := b.FrozenParam(name, len(b.weights), shape...)
	require.NoError(b.t, b.Err())
	b.weights = append(b.weights, b.random(n.len())...)
	return n
}

// data adds an input of rows rows whose gradient nobody wants.
func (b *bench[T]) data(name string, rows, cols int) *Node {
	n := b.Input(name, b.NewDim(name+".rows", rows), cols)
	x := b.random(rows * cols)
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetInput(n, x) })
	return n
}

// input adds an input of live rows with capacity for two more, whose gradient is checked.
func (b *bench[T]) input(name string, live, cols int) *Node {
	d := b.NewDim(name+".rows", live+2)
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetDim(d, live) })
	return b.inputOf(name, d, live, cols)
}

func (b *bench[T]) inputOf(name string, d *Dim, live, cols int) *Node {
	return b.fill(b.Input(name, d, cols), live*cols)
}

// scalar adds an input of one number, whose gradient is checked.
func (b *bench[T]) scalar(name string) *Node { return b.fill(b.Scalar(name), 1) }

func (b *bench[T]) fill(n *Node, elements int) *Node {
	require.NoError(b.t, b.Err())
	x := b.random(elements)
	b.inputs[n] = x
	b.wrt = append(b.wrt, n)
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetInput(n, x) })
	return n
}

func (b *bench[T]) seqs(name string, offsets ...int32) *Seqs {
	s := b.Seqs(name, len(offsets)+1, int(offsets[len(offsets)-1])+3)
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetSeqs(s, offsets) })
	return s
}

func (b *bench[T]) ints(name string, ids ...int32) *Ints {
	x := b.Ints(name, len(ids)+2)
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetInts(x, ids) })
	return x
}

// compile makes the program, binds memory and inputs, and draws the fed gradients.
func (b *bench[T]) compile(outs ...*Node) *bench[T] {
	b.t.Helper()
	prog, err := b.Compile(CompileOpt[T]{Outputs: outs, Wrt: b.wrt})
	require.NoError(b.t, err)
	b.prog, b.outs = prog, outs
	b.weights = append(b.weights, 0)
	pool := kernel.NewPool(2)
	b.t.Cleanup(func() { pool.Close(); _ = prog.Close() })
	b.run = Run[T]{Weights: b.weights, Grads: make([]T, len(b.weights)), Arena: b.arena(), Pool: pool, Train: true, Seed: 3, Step: 4, Base: 5}
	prog.Bind(&b.run)
	for _, bind := range b.binds {
		bind(prog)
	}
	require.NoError(b.t, prog.Forward())
	for _, o := range outs {
		d := b.random(len(prog.Value(o)))
		b.fed = append(b.fed, d)
		if prog.seeds[o] != nil {
			prog.SetOutputGrad(o, d)
		}
	}
	return b
}

// arena returns memory full of what must not be read before it is written.
func (b *bench[T]) arena() []T {
	a := make([]T, b.prog.ArenaSize())
	for i := range a {
		a[i] = T(1e30)
	}
	return a
}

// objective runs forward and returns Σ c·y over all outputs.
func (b *bench[T]) objective() float64 {
	require.NoError(b.t, b.prog.Forward())
	sum := 0.0
	for i, o := range b.outs {
		for j, v := range b.prog.Value(o) {
			sum += float64(v) * float64(b.fed[i][j])
		}
	}
	return sum
}

// gradients runs both phases from zeroed gradients and returns those of the parameters.
func (b *bench[T]) gradients() []T {
	clear(b.run.Grads)
	require.NoError(b.t, b.prog.Forward())
	require.NoError(b.t, b.prog.Backward())
	return append([]T(nil), b.run.Grads...)
}

// checkGradients compares every parameter's and input's gradient with finite differences.
func checkGradients(t *testing.T, build func(b *bench[float64]) *Node) *bench[float64] {
	t.Helper()
	b := newBench[float64](t)
	out := build(b)
	require.NoError(t, b.Err())
	b.compile(out)
	grads := b.gradients()
	inputs := map[*Node][]float64{}
	for n := range b.inputs {
		inputs[n] = append([]float64(nil), b.prog.InputGrad(n)...)
	}
	owned := make([]bool, len(grads))
	for _, p := range b.params {
		lo, hi := p.buf.off, p.buf.off+p.len()
		for i := lo; i < hi; i++ {
			owned[i] = true
		}
		if p.trainable() {
			gradcheck.Check(t, p.name, b.weights[lo:hi], grads[lo:hi], 40, b.objective)
		} else {
			require.Equal(t, make([]float64, hi-lo), grads[lo:hi], "frozen %s", p.name)
		}
	}
	for i, g := range grads {
		require.True(t, owned[i] || g == 0, "gradient element %d belongs to no parameter, is %g", i, g)
	}
	for n, x := range b.inputs {
		gradcheck.Check(t, n.name, x, inputs[n], 40, b.objective)
	}
	return b
}
