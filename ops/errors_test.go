package ops

import (
	"testing"

	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

func TestBuildErrors(t *testing.T) {
	other := NewGraph[float32]().Param("other", 0, 4, 4)
	cases := []struct {
		name  string
		build func(g *Graph, x *Node, s *Seqs) *Node
		want  string
		shape bool
	}{
		{"weight of another width", func(g *Graph, x *Node, _ *Seqs) *Node {
			return g.Linear(x, g.Param("blocks.0.fc.w", 0, 3, 5), nil, LinearOpt{})
		}, "ops: linear of x: blocks.0.fc.w (3, 5) must have 4 columns", true},
		{"bias too short", func(g *Graph, x *Node, _ *Seqs) *Node {
			return g.Linear(x, g.Param("w", 0, 3, 4), g.Param("b", 0, 2), LinearOpt{})
		}, "b (1, 2) must have 3 elements", true},
		{"residual of another width", func(g *Graph, x *Node, _ *Seqs) *Node {
			return g.Linear(x, g.Param("w", 0, 3, 4), nil, LinearOpt{Residual: x})
		}, "x (rows, 4) is added to (rows, 3)", true},
		{"matmul the wrong way round", func(g *Graph, x *Node, _ *Seqs) *Node { return g.MatMul(x, g.Param("w", 0, 3, 4)) }, "x (rows, 4) and w (3, 4)", true},
		{"second layer does not follow the first", func(g *Graph, x *Node, _ *Seqs) *Node {
			return g.MLP(x, g.Param("w1", 0, 8, 4), nil, g.Param("w2", 0, 4, 7), nil, kernel.ActGELU, nil)
		}, "w2 (4, 7) must have 8 columns", true},
		{"weight whose rows vary", func(g *Graph, x *Node, _ *Seqs) *Node { return g.Linear(x, x, nil, LinearOpt{}) }, "the rows of x (rows, 4) change", true},
		{"nil operand", func(g *Graph, x *Node, _ *Seqs) *Node { return g.LayerNorm(x, nil, nil, 1e-5) }, "operand 1 is nil", false},
		{"node of another graph", func(g *Graph, x *Node, _ *Seqs) *Node { return g.MatMul(x, other) }, "other (4, 4) belongs to another graph", false},
		{"heads", func(g *Graph, x *Node, s *Seqs) *Node { return g.Attention(x, s, 2, false) }, "4 columns are not three times 2 heads", true},
		{"no heads", func(g *Graph, x *Node, s *Seqs) *Node { return g.Attention(x, s, 0, false) }, "0 heads", true},
		{"keys of another width", func(g *Graph, x *Node, s *Seqs) *Node { return g.PooledAttention(x, x, s, 2) }, "do not fit 2 heads", true},
		{"bias of other heads", func(g *Graph, x *Node, s *Seqs) *Node {
			return g.BiasedAttention(g.Input("qkv", x.Rows(), 12), s, 2, false, &ScoreBias{Scores: g.Param("scores", 0, 9, 3)})
		}, "must have 6 rows for 2 heads", true},
		{"bias without scores", func(g *Graph, x *Node, s *Seqs) *Node {
			return g.BiasedAttention(g.Input("qkv", x.Rows(), 12), s, 2, false, &ScoreBias{})
		}, "the bias has no scores", false},
		{"pairs of positions that are no square", func(g *Graph, _ *Node, _ *Seqs) *Node {
			return g.RelativeBias(g.Param("table", 0, 5, 2), make([]int32, 5), 0, 2)
		}, "for 5 pairs of positions", true},
		{"relative position past the table", func(g *Graph, _ *Node, _ *Seqs) *Node {
			return g.RelativeBias(g.Param("table", 0, 5, 2), []int32{0, 1, 5, 0}, 0, 2)
		}, "positions 1 and 0 are row 5 of table (5, 2)", true},
		{"patch does not divide", func(g *Graph, _ *Node, _ *Seqs) *Node {
			return g.PatchEmbed(g.Image("i", 1, 9, 10, [3]float32{}, [3]float32{1, 1, 1}), g.Param("w", 0, 4, 27), nil, 3)
		}, "not a multiple of the patch, 3", true},
		{"std of zero", func(g *Graph, _ *Node, _ *Seqs) *Node {
			g.Image("i", 1, 9, 10, [3]float32{}, [3]float32{1, 0, 1})
			return nil
		}, "must not be zero", true},
		{"probability of one", func(g *Graph, x *Node, s *Seqs) *Node { return g.Dropout(x, 1, "d", s) }, "probability 1 must be in [0, 1)", false},
		{"smoothing of one", func(g *Graph, x *Node, _ *Seqs) *Node {
			return g.InfoNCE(x, x, g.Param("scale", 0), nil, ITCOpt{Smoothing: 1})
		}, "smoothing 1 must be in [0, 1)", false},
		{"group targets without groups", func(g *Graph, x *Node, _ *Seqs) *Node {
			return g.InfoNCE(x, x, g.Param("scale", 0), nil, ITCOpt{GroupTargets: true})
		}, "without groups", false},
		{"name used twice", func(g *Graph, x *Node, _ *Seqs) *Node { return g.Input("x", x.Rows(), 2) }, `input "x": the name is used already`, false},
		{"parameter of two shapes", func(g *Graph, _ *Node, _ *Seqs) *Node {
			g.Param("w", 0, 2, 2)
			return g.Param("w", 0, 3)
		}, `parameter "w": the name is used already`, false},
		{"capacity of zero", func(g *Graph, _ *Node, _ *Seqs) *Node {
			g.Ints("ids", 0)
			return nil
		}, "capacity 0 must be positive", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := NewGraph[float32]()
			x := g.Input("x", g.NewDim("rows", 6), 4)
			s := g.Seqs("s", 2, 6)
			require.NoError(t, g.Err())
			require.Nil(t, c.build(g, x, s))
			require.ErrorContains(t, g.Err(), c.want)
			if c.shape {
				require.ErrorIs(t, g.Err(), ErrShape)
			}
			first := g.Err()
			require.Nil(t, g.LayerNorm(g.L2Normalize(x, 1), nil, nil, 1), "later methods do nothing")
			_, err := g.Compile(CompileOpt[float32]{Outputs: []*Node{x}})
			require.Equal(t, first, err)
		})
	}
}

func TestNilNode(t *testing.T) {
	var n *Node
	require.Empty(t, n.Name())
	require.Zero(t, n.Cols())
	require.Zero(t, n.Rows().Len())
}

func TestCompileErrors(t *testing.T) {
	cases := []struct {
		name string
		opt  func(g *Graph, x, y *Node) CompileOpt[float32]
		want string
	}{
		{"no outputs", func(*Graph, *Node, *Node) CompileOpt[float32] { return CompileOpt[float32]{} }, "no outputs"},
		{"parameter as output", func(g *Graph, _, y *Node) CompileOpt[float32] {
			return CompileOpt[float32]{Outputs: []*Node{y, g.Param("w", 0, 3, 4)}}
		}, "output w (3, 4) is a parameter"},
		{"output twice", func(_ *Graph, _, y *Node) CompileOpt[float32] { return CompileOpt[float32]{Outputs: []*Node{y, y}} }, "is an output twice"},
		{"gradient by a result", func(_ *Graph, _, y *Node) CompileOpt[float32] {
			return CompileOpt[float32]{Outputs: []*Node{y}, Wrt: []*Node{y}}
		}, "which is not an input"},
		{"gradient by an unused input", func(g *Graph, x, y *Node) CompileOpt[float32] {
			return CompileOpt[float32]{Outputs: []*Node{y}, Wrt: []*Node{g.Input("unused", x.Rows(), 1)}}
		}, "no output depends on input unused"},
		{"nothing to differentiate", func(_ *Graph, x, y *Node) CompileOpt[float32] {
			return CompileOpt[float32]{Outputs: []*Node{x}}
		}, "compile with ForwardOnly"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := NewGraph[float32]()
			x := g.Input("x", g.NewDim("rows", 6), 4)
			y := g.Linear(x, g.Param("w", 0, 3, 4), nil, LinearOpt{})
			_, err := g.Compile(c.opt(g, x, y))
			require.ErrorContains(t, err, c.want)
		})
	}
	g := NewGraph[float32]()
	x := g.Input("x", g.NewDim("rows", 6), 4)
	y := g.L2Normalize(x, 1e-12)
	_, err := g.Compile(CompileOpt[float32]{Outputs: []*Node{y}, ForwardOnly: true})
	require.NoError(t, err)
	_, err = g.Compile(CompileOpt[float32]{Outputs: []*Node{y}, ForwardOnly: true})
	require.ErrorContains(t, err, "compiled already")
	require.Nil(t, g.L2Normalize(x, 1e-12))
}

func TestRunErrors(t *testing.T) {
	cases := []struct {
		name string
		do   func(w *tower[float32])
		is   error
		want string
	}{
		{"no memory", func(w *tower[float32]) { w.prog.Bind(nil) }, ErrUnbound, "memory"},
		{"arena too small", func(w *tower[float32]) { w.run.Arena = w.run.Arena[1:] }, ErrShape, "the arena has"},
		{"weights too few", func(w *tower[float32]) { w.run.Weights = w.run.Weights[:5] }, ErrShape, "there are 5 weights"},
		{"too many ids", func(w *tower[float32]) { w.prog.SetInts(w.ids, make([]int32, 25)) }, ErrShape, "ids is 25, must be in [1, 24]"},
		{"id outside the table", func(w *tower[float32]) { w.prog.SetInts(w.ids, []int32{1, 2, 11}) }, ErrShape, "ids[2] is 11, must be in [0, 11)"},
		{"negative id", func(w *tower[float32]) { w.prog.SetInts(w.ids, []int32{1, -2, 1}) }, ErrShape, "ids[1] is -2"},
		{"rows of ids and offsets differ", func(w *tower[float32]) { w.prog.SetInts(w.ids, []int32{1, 2}) }, ErrShape, "ids is 2 and seqs.rows is 3"},
		{"no sequences", func(w *tower[float32]) { w.prog.SetSeqs(w.seqs, []int32{0}) }, ErrShape, "seqs.count is 0"},
		{"offsets from one", func(w *tower[float32]) { w.prog.SetSeqs(w.seqs, []int32{1, 3}) }, ErrShape, "must begin with 0"},
		{"empty sequence", func(w *tower[float32]) { w.prog.SetSeqs(w.seqs, []int32{0, 2, 2, 3}) }, ErrShape, "sequence 1 goes from row 2 to 2"},
		{"sequence longer than the positions", func(w *tower[float32]) {
			w.prog.SetInts(w.ids, make([]int32, 5))
			w.prog.SetSeqs(w.seqs, []int32{0, 5})
		}, ErrShape, "sequence 0 has 5 rows, pos has positions for 4"},
		{"length that follows", func(w *tower[float32]) { w.prog.SetDim(w.seqs.Rows.multiple(2), 1) }, nil, "cannot be set"},
		{"input that is none", func(w *tower[float32]) { w.prog.SetInput(w.out, nil) }, nil, "which is not an input"},
		{"gradient of what is no output", func(w *tower[float32]) { w.prog.SetOutputGrad(w.pooled, nil) }, nil, "which is not an output"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newTower[float32](t, 6, 1).ready()
			c.do(w)
			err := w.prog.Forward()
			require.ErrorContains(t, err, c.want)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

func TestBackwardErrors(t *testing.T) {
	w := newTower[float32](t, 6, 1)
	prog, err := w.Compile(CompileOpt[float32]{Outputs: []*Node{w.out}})
	require.NoError(t, err)
	run := &Run[float32]{Weights: append(w.weights, 0), Arena: make([]float32, prog.ArenaSize())}
	prog.Bind(run)
	require.ErrorContains(t, prog.Backward(), "backward before forward")
	require.ErrorIs(t, prog.Forward(), ErrUnbound)
	p := pack[float32](0, 3)
	prog.SetInts(w.ids, p.ids)
	prog.SetSeqs(w.seqs, p.offsets)
	require.NoError(t, prog.Forward())
	require.Len(t, prog.Value(w.out), 3*6)
	require.Nil(t, prog.Value(w.pooled), "not an output")
	require.Nil(t, prog.InputGrad(w.out))
	require.ErrorIs(t, prog.Backward(), ErrShape) // no gradient slab
	run.Grads = make([]float32, len(run.Weights))
	require.ErrorIs(t, prog.Backward(), ErrUnbound) // no gradient of the output
	prog.SetOutputGrad(w.out, p.fed[:6])
	require.ErrorIs(t, prog.Backward(), ErrShape)
	prog.SetOutputGrad(w.out, p.fed)
	require.NoError(t, prog.Backward())

	forwardOnly := newTower[float32](t, 6, 1)
	prog, err = forwardOnly.Compile(CompileOpt[float32]{Outputs: []*Node{forwardOnly.out}, ForwardOnly: true})
	require.NoError(t, err)
	run.Arena = make([]float32, prog.ArenaSize())
	prog.Bind(run)
	prog.SetInts(forwardOnly.ids, p.ids)
	prog.SetSeqs(forwardOnly.seqs, p.offsets)
	require.NoError(t, prog.Forward())
	require.ErrorContains(t, prog.Backward(), "only runs forward")
}

func TestImageErrors(t *testing.T) {
	g := NewGraph[float32]()
	img := g.Image("pictures", 2, 4, 4, [3]float32{}, [3]float32{1, 1, 1})
	seqs := g.Seqs("seqs", 2, 10)
	x := g.PatchEmbed(img, g.Param("w", 0, 3, 12), nil, 2)
	y := g.AssembleTokens(x, g.Param("cls", 36, 3), nil, img, seqs)
	prog, err := g.Compile(CompileOpt[float32]{Outputs: []*Node{y}})
	require.NoError(t, err)
	prog.Bind(&Run[float32]{Weights: make([]float32, 39), Arena: make([]float32, prog.ArenaSize())})
	prog.SetSeqs(seqs, []int32{0, 5})
	require.ErrorContains(t, prog.Forward(), `input "pictures"`)
	prog.SetImageU8(img, make([]uint8, 47))
	require.ErrorContains(t, prog.Forward(), "47 pixels are no whole number of pictures")
	prog.SetImageU8(img, make([]uint8, 3*48))
	require.ErrorContains(t, prog.Forward(), "pictures.count is 3, must be in [1, 2]")
	prog.SetImageU8(img, make([]uint8, 2*48))
	require.ErrorContains(t, prog.Forward(), "1 sequences for 2 pictures")
	prog.SetSeqs(seqs, []int32{0, 4, 10})
	require.ErrorContains(t, prog.Forward(), "sequence 1 begins at row 4, but each picture has 5")
	prog.SetSeqs(seqs, []int32{0, 5, 10})
	require.NoError(t, prog.Forward())
}
