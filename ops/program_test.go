package ops

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"diptych/internal/gradcheck"
	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

// tower is a text tower whose program holds up to maxPairs sentences of up to 4 tokens: embedding, dropout, blocks with
// stochastic depth between them, pooling, projection.
type tower[T Float] struct {
	*bench[T]
	ids    *Ints
	seqs   *Seqs
	out    *Node
	pooled *Node
}

const towerWidth = 8

func newTower[T Float](t testing.TB, maxPairs, depth int) *tower[T] {
	w := &tower[T]{bench: newBench[T](t)}
	w.ids = w.Ints("ids", 4*maxPairs)
	w.seqs = w.Seqs("seqs", maxPairs, 4*maxPairs)
	x := w.Embed(w.ids, w.param("table", 11, towerWidth), w.param("pos", 4, towerWidth), w.seqs)
	x = w.Dropout(x, 0.2, "embed", w.seqs)
	for i := range depth {
		y := w.block(string(rune('a'+i)), x, w.seqs)
		x = w.AddBranch(x, y, 0.3, string(rune('a'+i)), w.seqs)
	}
	w.pooled = w.LayerNorm(w.MeanPool(x, w.seqs, 0), w.param("gamma", towerWidth), w.param("beta", towerWidth), 1e-5)
	w.out = w.L2Normalize(w.MatMul(w.pooled, w.param("proj", towerWidth, 6)), 1e-12)
	require.NoError(t, w.Err())
	return w
}

// sentences of 1 to 4 tokens.
var sentences = [][]int32{{3, 1, 4}, {1, 5, 9, 2}, {6}, {5, 3}, {5, 8, 9, 7}, {9, 3, 2}}

// packed holds sentences [lo, hi) and the gradient fed to their features.
type packed[T Float] struct {
	ids, offsets []int32
	fed          []T
	base         int
}

func pack[T Float](lo, hi int) packed[T] {
	p := packed[T]{offsets: []int32{0}, base: lo}
	for i := lo; i < hi; i++ {
		p.ids = append(p.ids, sentences[i]...)
		p.offsets = append(p.offsets, int32(len(p.ids)))
		for c := range 6 {
			p.fed = append(p.fed, T((i*7+c*5)%11)-5)
		}
	}
	return p
}

func (w *tower[T]) ready() *tower[T] {
	first := pack[T](0, 1)
	w.binds = append(w.binds, func(p *ProgramOf[T]) { p.SetInts(w.ids, first.ids); p.SetSeqs(w.seqs, first.offsets) })
	w.compile(w.out)
	return w
}

func (w *tower[T]) set(p packed[T]) {
	w.run.Base = p.base
	w.prog.SetInts(w.ids, p.ids)
	w.prog.SetSeqs(w.seqs, p.offsets)
	w.prog.SetOutputGrad(w.out, p.fed)
}

func (w *tower[T]) forwardBackward(p packed[T]) {
	w.set(p)
	require.NoError(w.t, w.prog.Forward())
	require.NoError(w.t, w.prog.Backward())
}

func TestGrainsAddUpToTheBatch(t *testing.T) {
	w := newTower[float64](t, 6, 2).ready()
	clear(w.run.Grads)
	w.forwardBackward(pack[float64](0, 6))
	whole := append([]float64(nil), w.run.Grads...)
	clear(w.run.Grads)
	w.forwardBackward(pack[float64](0, 2))
	w.forwardBackward(pack[float64](2, 6))
	require.InDeltaSlice(t, whole, w.run.Grads, 1e-12)
	require.NotZero(t, whole[len(whole)-2])
}

func TestRowsDoNotDependOnTheBatch(t *testing.T) {
	w := newTower[float32](t, 6, 2).ready()
	w.set(pack[float32](0, 6))
	require.NoError(t, w.prog.Forward())
	whole := append([]float32(nil), w.prog.Value(w.out)...)
	w.set(pack[float32](2, 5))
	require.NoError(t, w.prog.Forward())
	require.Equal(t, whole[2*6:5*6], w.prog.Value(w.out), "same position of the global batch, same bits, dropout included")
}

func TestCapacityDoesNotMatter(t *testing.T) {
	var got [2][]float32
	for i, capacity := range []int{3, 6} {
		w := newTower[float32](t, capacity, 2).ready()
		clear(w.run.Grads)
		w.forwardBackward(pack[float32](1, 4))
		got[i] = append(w.run.Grads, w.prog.Value(w.out)...)
	}
	require.Equal(t, got[0], got[1])
}

func TestBackwardAfterAnotherForward(t *testing.T) {
	w := newTower[float32](t, 4, 2).ready()
	a, b := pack[float32](0, 4), pack[float32](2, 5)
	clear(w.run.Grads)
	w.forwardBackward(a)
	want := append([]float32(nil), w.run.Grads...)

	clear(w.run.Grads)
	first, second := w.arena(), w.arena()
	w.run.Arena = first
	w.set(a)
	require.NoError(t, w.prog.Forward())
	features := append([]float32(nil), w.prog.Value(w.out)...)
	w.run.Arena = second
	w.set(b)
	require.NoError(t, w.prog.Forward())

	other := w.run // another Run may be bound, too
	other.Arena = first
	w.prog.Bind(&other)
	w.set(a)
	other.Base = a.base
	require.Equal(t, features, w.prog.Value(w.out))
	require.NoError(t, w.prog.Backward())
	require.Equal(t, want, w.run.Grads)
}

func TestThreadsDoNotMatter(t *testing.T) {
	var got [3][]float32
	for i, threads := range []int{1, 2, 3} {
		w := newTower[float32](t, 6, 2).ready()
		pool := kernel.NewPool(threads)
		w.run.Pool = pool
		clear(w.run.Grads)
		w.forwardBackward(pack[float32](0, 6))
		got[i] = append(w.run.Grads, w.prog.Value(w.out)...)
		pool.Close()
	}
	require.Equal(t, got[0], got[1])
	require.Equal(t, got[0], got[2])
}

func TestOrderIsFixed(t *testing.T) {
	var orders [2][]string
	for i := range orders {
		w := newTower[float32](t, 6, 3).ready()
		require.NoError(t, w.prog.runAll(trace))
		for _, s := range w.prog.tape.order {
			orders[i] = append(orders[i], s.name)
		}
	}
	require.Equal(t, orders[0], orders[1])
	require.Contains(t, orders[0], "turn")
}

// TestOutputs has an output that another depends on, one that is an input, and one without a gradient.
func TestOutputs(t *testing.T) {
	b := newBench[float64](t)
	x := b.input("x", 3, 4)
	plain := b.Input("plain", x.Rows(), 4)
	data := b.random(12)
	b.binds = append(b.binds, func(p *ProgramOf[float64]) { p.SetInput(plain, data) })
	h := b.Linear(x, b.param("w", 4, 4), nil, LinearOpt{Act: kernel.ActGELU})
	y := b.LayerNorm(h, b.param("gamma", 4), b.param("beta", 4), 1e-5)
	b.compile(y, h, x, b.L2Normalize(plain, 1e-12))
	require.Nil(t, b.prog.InputGrad(plain))
	b.fed[3] = make([]float64, 12) // its gradient is not asked for
	grads := b.gradients()
	input := append([]float64(nil), b.prog.InputGrad(x)...)
	require.Equal(t, b.inputs[x], b.prog.Value(x))
	for _, p := range b.params {
		lo, hi := p.buf.off, p.buf.off+p.len()
		gradcheck.Check(t, p.name, b.weights[lo:hi], grads[lo:hi], 40, b.objective)
	}
	gradcheck.Check(t, "x", b.inputs[x], input, 40, b.objective)
}

func TestTrainSwitchesRandomness(t *testing.T) {
	w := newTower[float64](t, 6, 1).ready()
	values := func(change func(r *Run[float64])) []float64 {
		run := w.run
		change(&run)
		w.prog.Bind(&run)
		p := pack[float64](0, 6)
		w.prog.SetInts(w.ids, p.ids)
		w.prog.SetSeqs(w.seqs, p.offsets)
		require.NoError(t, w.prog.Forward())
		return append([]float64(nil), w.prog.Value(w.out)...)
	}
	train := values(func(*Run[float64]) {})
	require.Equal(t, train, values(func(*Run[float64]) {}))
	eval := values(func(r *Run[float64]) { r.Train = false })
	require.Equal(t, eval, values(func(r *Run[float64]) { r.Train, r.Seed, r.Step, r.Base = false, 9, 9, 9 }))
	require.NotEqual(t, train, eval)
	require.NotEqual(t, train, values(func(r *Run[float64]) { r.Seed++ }))
	require.NotEqual(t, train, values(func(r *Run[float64]) { r.Step++ }))
	require.NotEqual(t, train, values(func(r *Run[float64]) { r.Base++ }))
}

func TestProgramsRunAtOnce(t *testing.T) {
	serial := newTower[float32](t, 6, 1).ready()
	clear(serial.run.Grads)
	for range 5 {
		serial.forwardBackward(pack[float32](0, 6))
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { // building, too
			w := newTower[float32](t, 6, 1).ready()
			w.run.Weights = serial.run.Weights
			clear(w.run.Grads)
			for range 5 {
				w.forwardBackward(pack[float32](0, 6))
			}
			require.Equal(t, serial.run.Grads, w.run.Grads)
		})
	}
	wg.Wait()
}

func TestStepsDoNotGrowTheHeap(t *testing.T) {
	w := newTower[float32](t, 6, 2).ready()
	p := pack[float32](0, 6)
	step := func() { w.forwardBackward(p) }
	for range 20 {
		step()
	}
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	goroutines := runtime.NumGoroutine()
	for range 300 {
		step()
	}
	require.Less(t, int64(live())-int64(before), int64(64<<10))
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	perStep := testing.AllocsPerRun(50, step)
	// The tape machine makes a few objects for each node and phase.
	require.Less(t, perStep, float64(16*w.prog.Stats().Nodes), "%d nodes", w.prog.Stats().Nodes)
}

func TestPlanReachesTheLowerBound(t *testing.T) {
	for _, forwardOnly := range []bool{false, true} {
		g := NewGraph[float32]()
		seqs := g.Seqs("seqs", 32, 32*77)
		x := g.Embed(g.Ints("ids", 32*77), g.Param("table", 0, 100, 512), nil, seqs)
		p := func(name string, shape ...int) *Node { return g.Param(name, 0, shape...) }
		for i := range 12 {
			n := string(rune('a' + i))
			h := g.LayerNorm(x, p(n+"g1", 512), p(n+"b1", 512), 1e-5)
			h = g.Attention(g.Linear(h, p(n+"qkv", 1536, 512), p(n+"qkvb", 1536), LinearOpt{}), seqs, 8, true)
			x = g.Linear(h, p(n+"o", 512, 512), p(n+"ob", 512), LinearOpt{Residual: x})
			h = g.LayerNorm(x, p(n+"g2", 512), p(n+"b2", 512), 1e-5)
			x = g.MLP(h, p(n+"w1", 2048, 512), nil, p(n+"w2", 512, 2048), nil, kernel.ActGELU, x)
		}
		out := g.L2Normalize(g.Gather(x, g.Ints("last", 32)), 1e-12)
		prog, err := g.Compile(CompileOpt[float32]{Outputs: []*Node{out}, ForwardOnly: forwardOnly})
		require.NoError(t, err)
		s := prog.Stats()
		t.Logf("forward only %v: %+v", forwardOnly, s)
		require.Equal(t, s.PeakLive, s.Arena)
		require.Equal(t, s.Arena, prog.ArenaSize())
		products := int64(12) * 2 * 32 * 77 * 512 * (3*512 + 512 + 2*2048)
		attention := int64(12) * 2 * 32 * 77 * 77 * 512
		require.Equal(t, products+attention, s.ForwardFLOPs)
		if forwardOnly {
			require.Zero(t, s.BackwardFLOPs)
			require.Less(t, s.Arena, 32*77*512*8)
		} else {
			require.Equal(t, 2*products+attention*5/2, s.BackwardFLOPs)
			// Per block: two norms, qkv, attention, its projection, the hidden layer once, the result.
			require.Less(t, s.Arena, 32*77*512*(12*13+16))
		}
		require.NoError(t, prog.Close())
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	for _, threads := range []int{1, 3} {
		b := newBench[float64](t)
		x := b.input("x", 4, 3)
		y := b.matrix("exploding", x.Rows(), 3)
		armed := false
		b.add(&op[float64]{name: "exploding", in: []*Node{x}, out: y,
			forward: func() {
				b.mem.run.Pool.For(100, 1, func(lo, _, _ int) {
					if armed && lo == 50 {
						panic("boom")
					}
				})
				kernel.Add(nil, b.at(y), b.at(x), b.at(x))
			},
			backward: func(r *reverse[float64]) { r.grad(0); r.step(0, func() { panic(errors.New("bang")) }) }})
		b.compile(b.Linear(y, b.param("w", 2, 3), nil, LinearOpt{}))
		pool := kernel.NewPool(threads)
		b.run.Pool = pool
		armed = true
		require.ErrorContains(t, b.prog.Forward(), "ops: exploding: panic: boom")
		armed = false
		require.NoError(t, b.prog.Forward(), "the program still runs")
		require.ErrorContains(t, b.prog.Backward(), "ops: exploding backward: panic: bang")
		pool.Close()
	}
}

func TestEqualHashes(t *testing.T) {
	// With salt 0 steps 2 and 3 of these names have one 32-bit hash (found by search). Gorgonia would take one for the other.
	b := newBench[float64](t)
	x := b.input("x", 2, 3)
	var outs []*Node
	for i, name := range []string{"first", "op 81463", "op 52831"} {
		y := b.matrix(name, x.Rows(), 3)
		b.add(&op[float64]{name: name, in: []*Node{x}, out: y,
			forward: func() {
				clear(b.at(y))
				kernel.AXPY(nil, b.at(y), float64(i+1), b.at(x))
			},
			backward: func(r *reverse[float64]) {
				d := r.accum(0)
				r.step(0, func() { kernel.AXPY(nil, b.mem.at(d), float64(i+1), b.mem.at(r.dy)) })
			}})
		outs = append(outs, y)
	}
	_, err := b.build(CompileOpt[float64]{Outputs: outs, Wrt: b.wrt}, 0)
	require.ErrorIs(t, err, errHash)
	b.compile(outs...)
	require.NotZero(t, b.prog.tape.salt)
	for i, y := range outs {
		for j, v := range b.prog.Value(y) {
			require.Equal(t, float64(i+1)*b.inputs[x][j], v)
		}
	}
	b.gradients()
	for j, d := range b.prog.InputGrad(x) {
		require.InDelta(t, b.fed[0][j]+2*b.fed[1][j]+3*b.fed[2][j], d, 1e-12)
	}
}
