package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func newVocab[T Float](t testing.TB, n, d, v int, smoothing T) *VocabNLL[T] {
	x := &VocabNLL[T]{
		N: n, D: d, V: v, Smoothing: smoothing, Grad: 0.25,
		Hidden: normals[T]("hidden", n*d), Table: normals[T]("table", v*d), Bias: normals[T]("bias", v),
		Classes: make([]int32, n), LSE: fenced[T](t, n),
		DHidden: fenced[T](t, n*d), DTable: normals[T]("dtable", v*d), DBias: normals[T]("dbias", v),
	}
	for i := range x.Classes {
		x.Classes[i] = int32((i*7919 + 3) % v)
	}
	if n > 2 {
		x.Weights = fenced[T](t, n)
		for i := range x.Weights {
			x.Weights[i] = T(i%5) / 2
		}
	}
	return x
}

// naiveVocab is the formula with all logits and probabilities; it returns the loss, how many rows are right, and the loss's
// gradient by each logit, times Grad.
func naiveVocab(x *VocabNLL[float64]) (loss float64, right int, ds []float64) {
	ds = make([]float64, x.N*x.V)
	for i := range x.N {
		row := ds[i*x.V : (i+1)*x.V]
		for j := range row {
			row[j] = dot(x.Hidden[i*x.D:(i+1)*x.D], x.Table[j*x.D:(j+1)*x.D])
			if x.Bias != nil {
				row[j] += x.Bias[j]
			}
		}
		top, w := slices.Max(row), x.weight(i)
		if w > 0 && slices.Index(row, top) == int(x.Classes[i]) {
			right++
		}
		lse := top + math.Log(expSum(row, top))
		for j, s := range row {
			target := x.Smoothing / float64(x.V)
			if j == int(x.Classes[i]) {
				target += 1 - x.Smoothing
			}
			row[j] = x.Grad * w * (math.Exp(s-lse) - target)
			loss += w * target * (lse - s)
		}
	}
	return loss, right, ds
}

func TestVocabNLL(t *testing.T) {
	for _, c := range []struct {
		n, d, v   int
		smoothing float64
		bias      bool
	}{{1, 3, 1, 0, true}, {5, 4, 2, 0.1, false}, {17, 8, 1000, 0, true}, {3, 5, 2049, 0.1, true}, {600, 3, 33, 0.2, true}, {8, 16, 5000, 0, false}} {
		name := fmt.Sprintf("%+v", c)
		wide := newVocab(t, c.n, c.d, c.v, c.smoothing)
		if !c.bias {
			wide.Bias, wide.DBias = nil, nil
		}
		loss, right, ds := naiveVocab(wide)
		dtable, dbias, dhidden := append([]float64(nil), wide.DTable...), append([]float64(nil), wide.DBias...), make([]float64, c.n*c.d)
		for i := range c.n {
			for j := range c.v {
				s := ds[i*c.v+j]
				addScaled(dhidden[i*c.d:(i+1)*c.d], s, wide.Table[j*c.d:(j+1)*c.d])
				addScaled(dtable[j*c.d:(j+1)*c.d], s, wide.Hidden[i*c.d:(i+1)*c.d])
				if c.bias {
					dbias[j] += s
				}
			}
		}
		gotLoss, gotRight := VocabForward(nil, wide)
		require.InEpsilon(t, loss+1, gotLoss+1, 1e-12, name)
		require.Equal(t, right, gotRight, name)
		VocabBackward(nil, wide)
		require.InDeltaSlice(t, dhidden, wide.DHidden, 1e-12, name)
		require.InDeltaSlice(t, dtable, wide.DTable, 1e-12, name)
		run := func(p *Pool, bf16 bool) (float64, [][]float32) {
			x := newVocab(t, c.n, c.d, c.v, float32(c.smoothing))
			x.BF16 = bf16
			if !c.bias {
				x.Bias, x.DBias = nil, nil
			}
			l, _ := VocabForward(p, x)
			VocabBackward(p, x)
			return l, [][]float32{x.LSE, x.DHidden, x.DTable, x.DBias}
		}
		eachFamily(t, func(t *testing.T) {
			for _, bf16 := range []bool{false, true} {
				tol := 1e-5
				if bf16 { // logits of √D·2^-8, and what the gradients' own products add
					tol = 0.05 * math.Sqrt(float64(c.d))
				}
				l, got := run(nil, bf16)
				require.InEpsilon(t, loss+1, l+1, tol, name)
				near(t, dhidden, got[1], tol, name)
				near(t, dtable, got[2], tol, name)
				if c.bias {
					near(t, dbias, got[3], tol, name)
				}
				sameBits(t, func(p *Pool) [][]float32 {
					_, x := run(p, bf16)
					return x
				})
			}
		})
	}
}

// Of equal logits the first counts, in one block of classes or over two; what is not a number is never right.
func TestVocabRight(t *testing.T) {
	const v = vocabClasses + 1
	x := &VocabNLL[float32]{N: 4, D: 1, V: v, Hidden: []float32{0, 0, 0, float32(math.NaN())}, Table: make([]float32, v), Bias: make([]float32, v),
		Classes: []int32{1, 2, v - 1, 0}, LSE: make([]float32, 4)}
	x.Bias[1], x.Bias[2], x.Bias[v-1] = 3, 3, 3
	_, right := VocabForward(nil, x)
	require.Equal(t, 1, right)
}

func BenchmarkVocabNLL(b *testing.B) {
	p := NewPool(2)
	defer p.Close()
	for _, bf16 := range []bool{false, true} {
		b.Run(fmt.Sprintf("bf16=%v", bf16), func(b *testing.B) {
			x := newVocab[float32](b, 480, 768, 30522, 0)
			x.BF16 = bf16
			for b.Loop() {
				VocabForward(p, x)
				VocabBackward(p, x)
			}
			perSecond(b, 4*2*480*768*30522, "GFLOP/s")
		})
	}
}
