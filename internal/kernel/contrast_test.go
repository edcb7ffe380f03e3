package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLogSumExp(t *testing.T) {
	for _, cols := range oddSizes {
		for _, rows := range []int{1, 5, 70} {
			for _, factor := range []float64{1, 300} {
				s := normals[float64]("s", rows*cols)
				for i := range s {
					s[i] = float64(float32(s[i] * factor))
				}
				want, wantColumns := make([]float64, rows), make([]float64, cols)
				for r := range rows {
					want[r] = naiveLSE(s[r*cols:(r+1)*cols], 1)
				}
				for c := range cols {
					wantColumns[c] = naiveLSE(s[c:], cols)
				}
				run := func(p *Pool) [][]float32 {
					small := make([]float32, len(s))
					for i, v := range s {
						small[i] = float32(v)
					}
					lse, columns := fenced[float32](t, rows), fenced[float32](t, cols)
					LogSumExpRows(p, lse, small, rows, cols)
					top, sum := make([]float32, cols), make([]float32, cols)
					for c := range top {
						top[c] = float32(math.Inf(-1))
					}
					for r := 0; r < rows; r += 32 { // in blocks
						n := min(32, rows-r)
						LogSumExpColumns(p, top, sum, small[r*cols:(r+n)*cols], n, cols)
					}
					LogSumExpFinish(columns, top, sum)
					return [][]float32{lse, columns}
				}
				got := run(nil)
				near(t, want, got[0], 1e-6, "rows")
				near(t, wantColumns, got[1], 1e-6, "columns")
				sameBits(t, run)
			}
		}
	}
}

func naiveLSE(x []float64, stride int) float64 {
	top, sum := math.Inf(-1), 0.0
	for i := 0; i < len(x); i += stride {
		top = math.Max(top, x[i])
	}
	for i := 0; i < len(x); i += stride {
		sum += math.Exp(x[i] - top)
	}
	return top + math.Log(sum)
}

// infoNCE is the loss as ops computes it, in blocks of rows; with gradient it returns that of the logits too.
func infoNCE[T Float](p *Pool, s []T, n, rows int, groups []int32, smoothing float64) (loss float64, ds []T, along float64) {
	rowLSE, columnLSE, top, total, share := make([]T, n), make([]T, n), make([]T, n), make([]T, n), make([]T, n)
	for i := range n {
		top[i] = T(math.Inf(-1))
		size := 1
		if groups != nil {
			size = 0
			for _, g := range groups {
				if g == groups[i] {
					size++
				}
			}
		}
		share[i] = T((1 - smoothing) / float64(size))
	}
	ds = append([]T(nil), s...)
	b := InfoNCEBlock[T]{Cols: n, Groups: groups, Share: share, Smooth: T(smoothing / float64(n)), GradPerTerm: T(1 / float64(2*n))}
	at := func(r int) {
		b.First, b.Rows = r, min(rows, n-r)
		b.Logits = ds[r*n : (r+b.Rows)*n]
		b.RowLSE = rowLSE[r : r+b.Rows]
	}
	for r := 0; r < n; r += rows {
		at(r)
		LogSumExpRows(p, b.RowLSE, b.Logits, b.Rows, n)
		LogSumExpColumns(p, top, total, b.Logits, b.Rows, n)
		loss -= InfoNCETargets(p, &b)
	}
	LogSumExpFinish(columnLSE, top, total)
	loss += sum(rowLSE) + sum(columnLSE)
	b.ColumnLSE = columnLSE
	for r := 0; r < n; r += rows {
		at(r)
		along += InfoNCEGradient(p, &b)
	}
	return loss / float64(2*n), ds, along
}

func TestInfoNCE(t *testing.T) {
	const n = 19
	groups := make([]int32, n)
	for i := range groups {
		groups[i] = int32(i * i % 7)
	}
	for _, smoothing := range []float64{0, 0.1} {
		for _, g := range [][]int32{nil, groups} {
			t.Run(fmt.Sprintf("groups %v, smoothing %g", g != nil, smoothing), func(t *testing.T) {
				s := normals[float64]("s", n*n)
				loss, ds, along := infoNCE(nil, s, n, 8, g, smoothing)
				want := 0.0 // cross-entropy of rows and columns with the full targets
				for i := range n {
					row, column := naiveLSE(s[i*n:(i+1)*n], 1), naiveLSE(s[i:], n)
					size := 0.0
					for j := range n {
						if j == i || g != nil && g[i] == g[j] {
							size++
						}
					}
					for j := range n {
						target := smoothing / n
						if j == i || g != nil && g[i] == g[j] {
							target += (1 - smoothing) / size
						}
						want += target * (row - s[i*n+j] + column - s[j*n+i])
					}
				}
				require.InDelta(t, want/(2*n), loss, 1e-12)
				checkGradient(t, "s", s, ds, func() float64 {
					l, _, _ := infoNCE(nil, s, n, n, g, smoothing)
					return l
				})
				require.InDelta(t, dot(ds, s), along, 1e-12)

				small := normals[float32]("s", n*n)
				l32, ds32, along32 := infoNCE(nil, small, n, 8, g, smoothing)
				require.InDelta(t, loss, l32, 1e-6)
				require.InDelta(t, along, along32, 1e-6)
				near(t, ds, ds32, 1e-6, "float32")
				sameBits(t, func(p *Pool) [][]float32 {
					l, d, a := infoNCE(p, small, n, 8, g, smoothing)
					return [][]float32{d, {float32(l), float32(a)}}
				})
			})
		}
	}
}

func TestSigmoid(t *testing.T) {
	const n = 13
	groups := make([]int32, n)
	for i := range groups {
		groups[i] = int32(i % 4)
	}
	for _, g := range [][]int32{nil, groups} {
		t.Run(fmt.Sprintf("groups %v", g != nil), func(t *testing.T) {
			s := normals[float64]("s", n*n)
			run := func(p *Pool, gradient bool) (loss float64, ds []float64, along, bias float64) {
				ds = append([]float64(nil), s...)
				for r := 0; r < n; r += 5 {
					rows := min(5, n-r)
					b := &SigmoidBlock[float64]{Logits: ds[r*n : (r+rows)*n], Rows: rows, Cols: n, First: r, Groups: g, Grad: 1.0 / n}
					loss += SigmoidLoss(p, b) / n
					if gradient {
						x, y := SigmoidGradient(p, b)
						along, bias = along+x, bias+y
					}
				}
				return loss, ds, along, bias
			}
			loss, ds, along, bias := run(nil, true)
			want := 0.0
			for i := range n {
				for j := range n {
					z := -1.0
					if i == j || g != nil && g[i] == g[j] {
						z = 1
					}
					want += math.Log(1 + math.Exp(-z*s[i*n+j]))
				}
			}
			require.InDelta(t, want/n, loss, 1e-12)
			checkGradient(t, "s", s, ds, func() float64 {
				l, _, _, _ := run(nil, false)
				return l
			})
			require.InDelta(t, dot(ds, s), along, 1e-12)
			require.InDelta(t, sum(ds), bias, 1e-12)
			sameBits(t, func(p *Pool) [][]float64 {
				l, d, x, y := run(p, true)
				return [][]float64{d, {l, x, y}}
			})
		})
	}
}

// A softplus of a negative pair is tiny, and a sum of thousands of them must still be right.
func TestSigmoidFloat32(t *testing.T) {
	for _, n := range oddSizes {
		s := normals[float64]("s", n*n)
		small := make([]float32, n*n)
		for i := range s {
			small[i] = float32(2*s[i] - 9)
			s[i] = float64(small[i])
		}
		wide := &SigmoidBlock[float64]{Logits: s, Rows: n, Cols: n, Grad: 0.5}
		narrow := &SigmoidBlock[float32]{Logits: small, Rows: n, Cols: n, Grad: 0.5}
		require.InEpsilon(t, SigmoidLoss(nil, wide), SigmoidLoss(nil, narrow), 1e-6)
		along, bias := SigmoidGradient(nil, wide)
		along32, bias32 := SigmoidGradient(nil, narrow)
		require.InEpsilon(t, along, along32, 1e-5)
		require.InEpsilon(t, bias, bias32, 1e-5)
		for i, want := range wide.Logits {
			require.InEpsilon(t, want, float64(narrow.Logits[i]), 2e-6, "element %d of %d", i, n*n)
		}
	}
}

func TestLossesKeepNaN(t *testing.T) {
	const n = 33
	s := normals[float32]("s", n*n)
	s[2*n+32] = float32(math.NaN())
	lse := make([]float32, n)
	LogSumExpRows(nil, lse, s, n, n)
	for r, v := range lse {
		require.Equal(t, r == 2, math.IsNaN(float64(v)), "row %d", r)
	}
	b := &SigmoidBlock[float32]{Logits: s, Rows: n, Cols: n, Grad: 1}
	require.True(t, math.IsNaN(SigmoidLoss(nil, b)))
	along, bias := SigmoidGradient(nil, b)
	require.True(t, math.IsNaN(along) && math.IsNaN(bias))
	top, sum := make([]float32, n), make([]float32, n)
	for c := range top {
		top[c] = float32(math.Inf(-1))
	}
	LogSumExpColumns(nil, top, sum, s, n, n)
	LogSumExpFinish(lse, top, sum)
	for c, v := range lse {
		require.Equal(t, math.IsNaN(float64(s[2*n+c])), math.IsNaN(float64(v)), "column %d", c)
	}
}

func TestSigmoidDoesNotOverflow(t *testing.T) {
	b := &SigmoidBlock[float32]{Logits: []float32{-1000, 1000, 1000, -1000}, Rows: 2, Cols: 2, Grad: 1}
	require.Equal(t, 4000.0, SigmoidLoss(nil, b))
	SigmoidGradient(nil, b)
	require.Equal(t, []float32{-1, 1, 1, -1}, b.Logits)
}
