package ops

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/kernel"
)

// pictures binds three pictures of different shapes: taller and wider than the grid of positions, a single column, and one of
// which not all patches are taken.
func (b *bench[T]) pictures(name string) *Pictures {
	x := b.Pictures(name, 4, 40, 2, [3]float32{}, [3]float32{1, 1, 1})
	var pics []Picture
	for _, size := range [][2]int{{8, 10}, {2, 6}, {6, 4}} {
		p := Picture{W: size[0], H: size[1]}
		for range 3 * p.W * p.H {
			p.F32 = append(p.F32, float32(b.rng.NormFloat64()))
		}
		pics = append(pics, p)
	}
	take := make([][]Patch, 3)
	for i, p := range pics {
		for k := range p.W * p.H / 4 {
			if i < 2 || k%2 == 0 {
				take[i] = append(take[i], Patch{int32(k / (p.W / 2)), int32(k % (p.W / 2))})
			}
		}
	}
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetPictures(x, pics, take) })
	return x
}

func TestPictureGradients(t *testing.T) {
	checkGradients(t, func(b *bench[float64]) *Node {
		x := b.pictures("pics")
		y := b.EmbedPatches(x, b.param("w", 5, 3, 2, 2), b.param("b", 5))
		y = b.ReplaceRows(y, b.param("mask", 5), b.ints("masked", 0, 7, 24))
		y = b.PictureTokens(x, y, b.param("class", 5), b.param("pos", 10, 5), 3)
		return b.AddRow(y, b.param("type", 5))
	})
}

func TestJoinedGradients(t *testing.T) {
	checkGradients(t, func(b *bench[float64]) *Node {
		a, c := b.seqs("a", 0, 2, 5, 6), b.seqs("c", 0, 4, 5, 9)
		x, j := b.Concat(b.inputOf("x", a.Rows, 6, 12), a, b.inputOf("y", c.Rows, 9, 12), c)
		picked := b.Pick(j, b.ints("rows", 0, 1, 5)) // none of the second sequence
		q := b.Gather(b.Linear(x, b.param("wq", 4, 12), nil, LinearOpt{}), picked.Rows)
		z := b.CrossAttention(q, picked.Seqs, b.Linear(x, b.param("wkv", 8, 12), nil, LinearOpt{}), j.Seqs, nil, 2)
		first := b.First(j.Seqs)
		require.True(t, first.One())
		return b.SideBySide(b.Act(z, kernel.ActTanh), b.Act(b.Gather(x, first.Rows), kernel.ActGELU))
	})
}

// Two layers look up their bias in one table of relative positions: of rows of a sentence, of a picture, and across.
func TestRelativeBiasGradients(t *testing.T) {
	const texts, patches, heads = 3, 4, 2
	var index []int32 // row j-i+texts-1 for two tokens, 5 and 6 across, 7 + j for patches
	for i := range int32(texts + patches) {
		for j := range int32(texts + patches) {
			switch {
			case i < texts && j < texts:
				index = append(index, j-i+texts-1)
			case i < texts:
				index = append(index, 5)
			case j < texts:
				index = append(index, 6)
			default:
				index = append(index, 7+j-texts)
			}
		}
	}
	checkGradients(t, func(b *bench[float64]) *Node {
		a, c := b.seqs("a", 0, 2, 5, 6), b.seqs("c", 0, 4, 5, 9)
		x, j := b.Concat(b.inputOf("x", a.Rows, 6, 12), a, b.inputOf("y", c.Rows, 9, 12), c)
		table, positions := b.param("table", 11, 2*heads), b.Positions(j, texts)
		layer := func(n int) *ScoreBias {
			return &ScoreBias{Scores: b.RelativeBias(table, index, n*heads, heads), Keys: positions}
		}
		x = b.BiasedAttention(b.Linear(x, b.param("wqkv", 36, 12), nil, LinearOpt{}), j.Seqs, heads, false, layer(0))
		picked := b.Pick(j, b.ints("rows", 0, 1, 5))
		q := b.Gather(b.Linear(x, b.param("wq", 4, 12), nil, LinearOpt{}), picked.Rows)
		last := layer(1)
		last.Queries = b.PositionsOf(picked, positions)
		return b.BiasedCrossAttention(q, picked.Seqs, b.Linear(x, b.param("wkv", 8, 12), nil, LinearOpt{}), j.Seqs, heads, last)
	})
}

// What does not fit names the picture, the row and the lengths.
func TestPictureErrors(t *testing.T) {
	for want, set := range map[string]func(p *Program, x *Pictures){
		"picture 0 has 3 levels, 0 values, must have 3·2·4": func(p *Program, x *Pictures) {
			p.SetPictures(x, []Picture{{W: 4, H: 2, U8: make([]uint8, 3)}}, [][]Patch{{{}}})
		},
		"picture 0 of 4×2 pixels has no patch in row 1, column 0": func(p *Program, x *Pictures) {
			p.SetPictures(x, []Picture{{W: 4, H: 2, U8: make([]uint8, 24)}}, [][]Patch{{{Row: 1}}})
		},
		"no patch is taken of picture 0": func(p *Program, x *Pictures) {
			p.SetPictures(x, []Picture{{W: 4, H: 2, U8: make([]uint8, 24)}}, [][]Patch{nil})
		},
		"1 pictures and 2 lists": func(p *Program, x *Pictures) {
			p.SetPictures(x, []Picture{{W: 4, H: 2, U8: make([]uint8, 24)}}, [][]Patch{{{}}, {{}}})
		},
	} {
		b := newBench[float32](t)
		x := b.pictures("pics")
		b.compile(b.EmbedPatches(x, b.param("w", 5, 3, 2, 2), nil))
		set(b.prog, x)
		err := b.prog.Forward()
		require.ErrorIs(t, err, ErrShape)
		require.ErrorContains(t, err, want)
	}
}
