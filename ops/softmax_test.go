package ops

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// targets binds R rows of shares and weights, one of each zero.
func targets[T Float](b *bench[T], rows *Dim, mixed, weighted bool, smoothing float64, classes, others []int32) Targets {
	t := Targets{Classes: b.ints("classes", classes...), Smoothing: smoothing}
	column := func(name string, x ...T) *Node {
		n := b.Input(name, rows, 1)
		b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetInput(n, x) })
		return n
	}
	if mixed {
		t.Others, t.Mix = b.ints("others", others...), column("mix", 0.25, 0, 0.75, 0.5)
	}
	if weighted {
		t.Weights = column("weights", 1, 2, 0, 0.5)
	}
	return t
}

func TestCrossEntropy(t *testing.T) {
	classes, others := []int32{2, 0, 4, 1}, []int32{0, 0, 3, 4}
	for _, c := range []struct {
		name            string
		mixed, weighted bool
		smoothing       float64
	}{{"plain", false, false, 0}, {"smoothed", false, false, 0.1}, {"mixed", true, false, 0}, {"weighted", false, true, 0}, {"all", true, true, 0.2}} {
		t.Run(c.name, func(t *testing.T) {
			b := checkGradients(t, func(b *bench[float64]) *Node {
				x := b.input("logits", 4, 5)
				return b.CrossEntropy(x, targets(b, x.Rows(), c.mixed, c.weighted, c.smoothing, classes, others))
			})
			z := b.inputs[b.wrt[0]]
			loss, right := 0.0, 0.0
			for r := range classes {
				row, w, share := z[r*5:(r+1)*5], 1.0, 0.0
				if c.weighted {
					w = []float64{1, 2, 0, 0.5}[r]
				}
				if c.mixed {
					share = []float64{0.25, 0, 0.75, 0.5}[r]
				}
				sum, top := 0.0, 0
				for k, v := range row {
					sum += math.Exp(v)
					if v > row[top] {
						top = k
					}
				}
				for k, v := range row {
					q := c.smoothing / 5
					if k == int(classes[r]) {
						q += (1 - c.smoothing) * (1 - share)
					}
					if k == int(others[r]) {
						q += (1 - c.smoothing) * share
					}
					loss -= w * q * (v - math.Log(sum))
				}
				main := classes[r]
				if share > 0.5 {
					main = others[r]
				}
				if w > 0 && top == int(main) {
					right++
				}
			}
			b.objective() // of the inputs as they were before finite differences
			got := b.prog.Value(b.outs[0])
			require.InDelta(t, loss, got[0], 1e-12)
			require.Equal(t, right, got[1])
		})
	}
}

// The logits that are never stored give what stored ones do: loss, rows right, and every gradient.
func TestVocabCrossEntropy(t *testing.T) {
	classes := []int32{2, 0, 4, 1}
	for _, c := range []struct {
		name            string
		bias, weighted  bool
		smoothing       float64
		tied, frozenRow bool
	}{{"plain", true, false, 0, false, false}, {"weighted", true, true, 0, false, false}, {"smoothed, no bias", false, true, 0.1, false, false},
		{"table read twice", true, false, 0, true, false}, {"rows without gradient", true, false, 0, false, true}} {
		t.Run(c.name, func(t *testing.T) {
			build := func(stored bool) func(b *bench[float64]) *Node {
				return func(b *bench[float64]) *Node {
					table := b.param("table", 5, 3)
					var bias *Node
					if c.bias {
						bias = b.param("bias", 5)
					}
					var x *Node
					if c.frozenRow {
						x = b.data("hidden", 4, 3)
					} else {
						x = b.input("hidden", 4, 3)
					}
					if c.tied {
						x = b.Linear(b.MatMul(b.Linear(x, table, nil, LinearOpt{}), table), b.param("w", 3, 3), nil, LinearOpt{})
					}
					goals := targets(b, x.Rows(), false, c.weighted, c.smoothing, classes, nil)
					if stored {
						return b.CrossEntropy(b.Linear(x, table, bias, LinearOpt{}), goals)
					}
					return b.VocabCrossEntropy(x, table, bias, goals)
				}
			}
			b, twin := checkGradients(t, build(false)), checkGradients(t, build(true))
			require.InDeltaSlice(t, twin.gradients(), b.gradients(), 1e-12)
			require.InDeltaSlice(t, twin.prog.Value(twin.outs[0]), b.prog.Value(b.outs[0]), 1e-12)
			for i, n := range b.wrt {
				require.InDeltaSlice(t, twin.prog.InputGrad(twin.wrt[i]), b.prog.InputGrad(n), 1e-12)
			}
		})
	}
}

// Memory does not grow with the product of rows and classes, and the products are counted once.
func TestVocabCrossEntropyMemory(t *testing.T) {
	const rows, width, classes = 100, 4, 5000
	b := newBench[float32](t)
	x := b.Linear(b.data("x", rows, width), b.param("w", width, width), nil, LinearOpt{})
	loss := b.VocabCrossEntropy(x, b.param("table", classes, width), nil, Targets{Classes: b.Ints("classes", rows)})
	p, err := b.Compile(CompileOpt[float32]{Outputs: []*Node{loss}})
	require.NoError(t, err)
	defer p.Close()
	require.Less(t, p.Stats().Arena, rows*classes/10)
	require.EqualValues(t, 2*rows*width*(classes+width), p.Stats().ForwardFLOPs)
	require.EqualValues(t, 2*rows*width*(2*classes+width), p.Stats().BackwardFLOPs)
}

func TestVocabCrossEntropyErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		make       func(g *Graph, x *Node)
	}{
		{"width", "must have 3 columns", func(g *Graph, x *Node) {
			g.VocabCrossEntropy(x, g.Param("table", 0, 5, 4), nil, Targets{Classes: g.Ints("a", 2)})
		}},
		{"bias", "must have 5 elements", func(g *Graph, x *Node) {
			g.VocabCrossEntropy(x, g.Param("table", 0, 5, 3), g.Param("bias", 20, 4), Targets{Classes: g.Ints("a", 2)})
		}},
		{"no classes", "classes are missing", func(g *Graph, x *Node) { g.VocabCrossEntropy(x, g.Param("table", 0, 5, 3), nil, Targets{}) }},
		{"mixed", "mixed labels", func(g *Graph, x *Node) {
			g.VocabCrossEntropy(x, g.Param("table", 0, 5, 3), nil, Targets{Classes: g.Ints("a", 2), Others: g.Ints("b", 2), Mix: g.Input("m", x.Rows(), 1)})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGraph[float32]()
			c.make(g, g.Input("x", g.NewDim("rows", 2), 3))
			require.ErrorContains(t, g.Err(), c.want)
		})
	}
}

// Scores of 1e4 and equal scores.
func TestCrossEntropyExtremes(t *testing.T) {
	b := newBench[float32](t)
	x := b.Input("logits", b.NewDim("rows", 3), 3)
	b.binds = append(b.binds, func(p *Program) { p.SetInput(x, []float32{1e4, 0, -1e4, 2, 2, 2, -1e4, 1e4, 0}) })
	b.wrt = append(b.wrt, x)
	b.compile(b.CrossEntropy(x, Targets{Classes: b.ints("classes", 0, 0, 0)}))
	b.fed[0][0] = 1
	b.gradients()
	got := b.prog.Value(b.outs[0])
	require.InDelta(t, math.Log(3)+2e4, got[0], 1e-2)
	require.Equal(t, float32(2), got[1], "of equal scores the first class")
	require.InDeltaSlice(t, []float32{0, 0, 0, -2. / 3, 1. / 3, 1. / 3, -1, 1, 0}, b.prog.InputGrad(x), 1e-6)
}

func TestCrossEntropyErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		make       func(g *Graph, x *Node) Targets
	}{
		{"no classes", "classes are missing", func(*Graph, *Node) Targets { return Targets{} }},
		{"others without shares", "without their shares", func(g *Graph, _ *Node) Targets {
			return Targets{Classes: g.Ints("a", 2), Others: g.Ints("b", 2)}
		}},
		{"smoothing", "smoothing 1 must be in [0, 1)", func(g *Graph, _ *Node) Targets { return Targets{Classes: g.Ints("a", 2), Smoothing: 1} }},
		{"weights of two columns", "one number for each of", func(g *Graph, x *Node) Targets {
			return Targets{Classes: g.Ints("a", 2), Weights: g.Input("w", x.Rows(), 2)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGraph[float32]()
			x := g.Input("x", g.NewDim("rows", 2), 3)
			g.CrossEntropy(x, c.make(g, x))
			require.ErrorContains(t, g.Err(), c.want)
		})
	}
	b := newBench[float32](t)
	x := b.param("logits", 2, 3)
	out := b.CrossEntropy(x, Targets{Classes: b.ints("classes", 0, 3)})
	prog, err := b.Compile(CompileOpt[float32]{Outputs: []*Node{out}})
	require.NoError(t, err)
	defer prog.Close()
	prog.Bind(&Run[float32]{Weights: b.weights, Arena: make([]float32, prog.ArenaSize())})
	for _, bind := range b.binds {
		bind(prog)
	}
	require.ErrorContains(t, prog.Forward(), "classes[1] is 3, must be in [0, 3)")
}

func TestRepeat(t *testing.T) {
	b := checkGradients(t, func(b *bench[float64]) *Node { return b.Repeat(b.param("row", 3), b.seqs("s", 0, 2, 3)) })
	b.objective()
	require.Equal(t, append(append([]float64{}, b.weights[1:4]...), b.weights[1:4]...), b.prog.Value(b.outs[0]))
}

func TestTrains(t *testing.T) {
	b := newBench[float32](t)
	x := b.data("x", 2, 3)
	frozen := b.Linear(x, b.frozen("f", 4, 3), nil, LinearOpt{})
	trained := b.Linear(x, b.param("w", 4, 3), nil, LinearOpt{})
	b.compile(frozen, trained)
	require.False(t, b.prog.Trains(frozen))
	require.True(t, b.prog.Trains(trained))
}
