package ops

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/kernel"
)

// fusion adds what a fusion does with hard negatives: three sequences for each pair, attention among their rows, and attention of
// their first rows to the pictures that they are paired with.
func (b *bench[T]) fusion(pairs int) (*Node, *Negatives) {
	const width = 4
	var offsets, pixels []int32
	var groups []int32
	for i := range int32(pairs) {
		offsets, pixels, groups = append(offsets, i*(i+3)/2), append(pixels, 3*i), append(groups, i/2)
	}
	n := int32(pairs)
	texts, pics := b.seqs("texts", append(offsets, n*(n+3)/2)...), b.seqs("pictures", append(pixels, 3*n)...)
	x := b.Linear(b.data("image", pairs, 5), b.param("project", 3, 5), nil, LinearOpt{})
	rows, tokens := b.inputOf("rows", texts.Rows, int(n*(n+3)/2), width), b.inputOf("tokens", pics.Rows, int(3*n), width)
	neg := b.HardNegatives(x, b.data("text", pairs, 3), b.param("scale"), b.ints("groups", groups...), "itm", 0)
	packed, trio := b.Trios(rows, texts, neg)
	h := b.Attention(b.Linear(packed, b.param("qkv", 3*width, width), nil, LinearOpt{}), trio.Seqs, 2, false)
	h = b.Dropout(h, 0.3, "h", trio.Seqs)
	first := b.First(trio.Seqs)
	h = b.AddBranch(b.Gather(packed, first.Rows), b.Gather(h, first.Rows), 0.2, "path", nil)
	single := b.Single(trio.Seqs.Count)
	q := b.Dropout(b.Linear(h, b.param("q", width, width), nil, LinearOpt{}), 0.2, "q", single)
	h = b.CrossAttention(q, single, b.Linear(tokens, b.param("kv", 2*width, width), nil, LinearOpt{}), pics, trio.Reads, 2)
	var thrice []int32
	for i := range n {
		thrice = append(thrice, i, i, i)
	}
	return b.SideBySide(h, b.Gather(x, b.ints("thrice", thrice...))), neg // the embeddings have a use beside the draw
}

// Gradients flow through the rows of sentences and pictures, and none through the draw.
func TestHardNegativeGradients(t *testing.T) {
	b := checkGradients(t, func(b *bench[float64]) *Node { out, _ := b.fusion(5); return out })
	scale := b.params[1]
	require.Equal(t, "scale", scale.name)
	require.Zero(t, b.run.Grads[scale.buf.off], "no gradient by the scale")
}

// A pair's negatives are never of its group; before update `after` the others are equally likely, from then on P(j) ∝ exp(t·x_i·y_j);
// and they depend on position, step and seed, not on what is computed beside.
func TestHardNegativesDistribution(t *testing.T) {
	const n, draws, after = 6, 6000, 2000
	b := newBench[float32](t)
	x, y, scale := b.data("x", n, 2), b.data("y", n, 2), b.data("scale", 1, 1)
	groups := []int32{0, 1, 1, 2, 3, 4}
	neg := b.HardNegatives(x, y, scale, b.ints("groups", groups...), "itm", after)
	rows := b.seqs("rows", 0, 1, 2, 3, 4, 5, 6)
	packed, _ := b.Trios(b.inputOf("r", rows.Rows, n, 1), rows, neg)
	b.compile(packed)
	logScale := []float32{0.8}
	b.prog.SetInput(scale, logScale)
	xs, ys := b.prog.g.at(x), b.prog.g.at(y)
	for first, scale := range map[int]float64{0: 0, after: math.Exp(0.8)} {
		var texts, pictures [n][n]int
		for step := range draws {
			b.run.Step, b.run.Base = first+step/3, step%3*n
			require.NoError(t, b.prog.Forward())
			for i := range n {
				texts[i][neg.Texts.data[i]]++
				pictures[i][neg.Pictures.data[i]]++
			}
		}
		for i := range n {
			wantText, wantPicture, sumText, sumPicture := [n]float64{}, [n]float64{}, 0.0, 0.0
			for j := range n {
				if groups[i] == groups[j] {
					continue
				}
				dot := func(a, b int) float64 { return float64(xs[2*a]*ys[2*b] + xs[2*a+1]*ys[2*b+1]) }
				wantText[j], wantPicture[j] = math.Exp(scale*dot(i, j)), math.Exp(scale*dot(j, i))
				sumText, sumPicture = sumText+wantText[j], sumPicture+wantPicture[j]
			}
			for j := range n {
				// Four deviations of a share of 6000 draws are below 0.026.
				require.InDelta(t, wantText[j]/sumText, float64(texts[i][j])/draws, 0.026, "text %d of picture %d, from update %d", j, i, first)
				require.InDelta(t, wantPicture[j]/sumPicture, float64(pictures[i][j])/draws, 0.026, "picture %d of text %d, from update %d", j, i, first)
				if groups[i] == groups[j] {
					require.Zero(t, texts[i][j]+pictures[i][j])
				}
			}
		}
	}

	again := func(threads int) []int32 {
		pool := kernel.NewPool(threads)
		defer pool.Close()
		b.run.Pool, b.run.Step, b.run.Base = pool, 7, 12
		require.NoError(t, b.prog.Forward())
		return append(append([]int32(nil), neg.Texts.data...), neg.Pictures.data...)
	}
	want := again(1)
	require.Equal(t, want, again(3))
	b.run.Seed++
	require.NotEqual(t, want, again(1))
}

// Of two forward passes with arenas of their own each keeps its draws, for its backward pass.
func TestHardNegativesKeepTheirDraw(t *testing.T) {
	b := newBench[float32](t)
	out, neg := b.fusion(8)
	b.compile(out)
	want := b.gradients()
	first := append([]int32(nil), neg.Texts.data...)
	clear(b.run.Grads)
	require.NoError(t, b.prog.Forward())
	other := b.run
	other.Step, other.Arena, other.Grads = 77, b.arena(), make([]float32, len(b.run.Grads))
	b.prog.Bind(&other)
	require.NoError(t, b.prog.Forward())
	require.NotEqual(t, first, neg.Texts.data)
	b.prog.Bind(&b.run)
	require.NoError(t, b.prog.Backward())
	require.Equal(t, first, neg.Texts.data)
	require.Equal(t, want, b.run.Grads)
}

// Rows that depend on two draws are compared when both are made, in whichever order they are joined.
func TestRowsOfTwoDraws(t *testing.T) {
	for name, x := range map[string]struct {
		ends [2]int32 // of the second draw's sentences
		ok   bool
	}{"as many rows": {[2]int32{2, 3}, true}, "more rows": {[2]int32{1, 4}, false}} {
		for _, swap := range []bool{false, true} {
			b := newBench[float32](t)
			trios := func(draw string, ends [2]int32) *Node { // of two pairs each is the other's negative: three times its sentences' rows
				neg := b.HardNegatives(b.data("x"+draw, 2, 2), b.data("y"+draw, 2, 2), b.data("scale"+draw, 1, 1), b.ints("groups"+draw, 0, 1), draw, 0)
				texts := b.seqs("texts"+draw, 0, ends[0], ends[1])
				rows, _ := b.Trios(b.inputOf("rows"+draw, texts.Rows, int(ends[1]), 1), texts, neg)
				return rows
			}
			first, second := trios("first", [2]int32{1, 3}), trios("second", x.ends)
			if swap {
				first, second = second, first
			}
			prog, err := b.Compile(CompileOpt[float32]{Outputs: []*Node{b.SideBySide(first, second)}, ForwardOnly: true})
			require.NoError(t, err)
			prog.Bind(&Run[float32]{Arena: make([]float32, prog.ArenaSize())})
			for _, bind := range b.binds {
				bind(prog)
			}
			if err := prog.Forward(); x.ok {
				require.NoError(t, err, name)
			} else {
				require.ErrorContains(t, err, "they must be equal", name)
			}
		}
	}
}

// Pairs of one group have no negatives.
func TestHardNegativesNeedGroups(t *testing.T) {
	b := newBench[float32](t)
	neg := b.HardNegatives(b.data("x", 3, 2), b.data("y", 3, 2), b.data("scale", 1, 1), b.ints("groups", 4, 4, 4), "itm", 0)
	rows := b.seqs("rows", 0, 1, 2, 3)
	packed, _ := b.Trios(b.inputOf("r", rows.Rows, 3, 1), rows, neg)
	prog, err := b.Compile(CompileOpt[float32]{Outputs: []*Node{packed}, ForwardOnly: true})
	require.NoError(t, err)
	prog.Bind(&Run[float32]{Arena: make([]float32, prog.ArenaSize())})
	for _, bind := range b.binds {
		bind(prog)
	}
	require.ErrorContains(t, prog.Forward(), "hard negatives itm: all 3 pairs are of one group")
}

// Two random operations of one name would draw the same.
func TestRandomNames(t *testing.T) {
	b := newBench[float32](t)
	x := b.input("x", 3, 2)
	b.Dropout(b.Dropout(x, 0.5, "a", nil), 0.5, "b", nil)
	require.NoError(t, b.Err())
	b.Dropout(x, 0, "a", nil)
	require.NoError(t, b.Err())
	b.AddBranch(x, b.Dropout(x, 0.5, "a", nil), 0.1, "a", nil)
	require.ErrorContains(t, b.Err(), `random draws of "dropout a": the name is used already`)
}
