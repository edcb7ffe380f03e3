package kernel

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoundBF16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		name     string
		in, want float32
	}{
		{"exact", 1.5, 1.5},
		{"zero", 0, 0},
		{"below the tie", 1 + 0x1p-8 - 0x1p-20, 1},
		{"tie to even, down", 1 + 0x1p-8, 1},
		{"tie to even, up", 1 + 3*0x1p-8, 1 + 4*0x1p-8},
		{"above the tie", 1 + 0x1p-8 + 0x1p-20, 1 + 0x1p-7},
		{"into the next power of two", 2 - 0x1p-9, 2},
		{"largest", math.MaxFloat32, inf},
		{"infinite", -inf, -inf},
		{"smallest normal", 0x1p-126, 0x1p-126},
		{"subnormal", 0x1p-126 - 0x1p-149, 0},
	} {
		require.Equal(t, c.want, roundBF16(c.in), c.name)
		require.Equal(t, -c.want, roundBF16(-c.in), "minus "+c.name)
	}
	require.True(t, math.Signbit(float64(roundBF16(-0x1p-140))))
	for _, bits := range []uint32{0x7f800001, 0x7fffffff, 0xff80ffff} {
		require.True(t, math.IsNaN(float64(roundBF16(math.Float32frombits(bits)))), "%x", bits)
	}
}

func TestRoundIntoMatchesTwin(t *testing.T) {
	rng := newRand()
	eachFamily(t, func(t *testing.T) {
		for _, n := range oddSizes {
			for range 200 {
				x, y := make([]float32, n), fenced[float32](t, n)
				for i := range x {
					if x[i] = math.Float32frombits(rng.Uint32()); i%7 == 0 {
						x[i] = math.Float32frombits(rng.Uint32() & 0x807f_ffff) // subnormal
					}
				}
				roundInto(y, x)
				for i, v := range x {
					require.Equal(t, math.Float32bits(roundBF16(v)), math.Float32bits(y[i]), "%x", math.Float32bits(v))
				}
			}
		}
	})
}

// A product with the identity shows how elements were rounded on the way in: all families must agree to the bit, over numbers
// of every kind. A NaN makes its row, or column, NaN.
func TestMatMulRoundsToBF16(t *testing.T) {
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		if !bf16 {
			return
		}
		const n, rows = 64, 200
		rng := newRand()
		for _, trans := range []bool{false, true} {
			for _, left := range []bool{false, true} {
				x := make([]float32, rows*n)
				for i := range x {
					for x[i] = float32(math.NaN()); x[i] != x[i] || math.IsInf(float64(x[i]), 0) || math.Abs(float64(x[i])) > 3.38e38; {
						x[i] = math.Float32frombits(rng.Uint32())
						if i%5 == 0 { // close to a tie
							x[i] = math.Float32frombits(rng.Uint32()&0xffff_0000 | 0x7fff + rng.Uint32N(3))
						}
					}
				}
				eye := make([]float32, n*n)
				for i := range n {
					eye[i*n+i] = 1
				}
				g := &Gemm[float32]{BF16: true, M: rows, N: n, K: n, A: x, LDA: n, B: eye, LDB: n, C: make([]float32, rows*n), LDC: n}
				if left { // x is B
					g = &Gemm[float32]{BF16: true, M: n, N: rows, K: n, A: eye, LDA: n, B: x, LDB: rows, C: make([]float32, rows*n), LDC: rows}
				}
				lead, cols := &g.LDA, n
				if left {
					lead, cols = &g.LDB, rows
				}
				if g.TransA, g.TransB = trans && !left, trans && left; trans {
					*lead, cols = rows*n/cols, rows*n/cols
				}
				MatMul(nil, g)
				for at, v := range g.C {
					from := at
					if trans {
						from = at%g.LDC*cols + at/g.LDC
					}
					if want := roundBF16(x[from]); v != want {
						require.Failf(t, "wrong", "trans %v, x is B %v: %x became %x, want %x", trans, left,
							math.Float32bits(x[from]), math.Float32bits(v), math.Float32bits(want))
					}
				}
			}
		}
	})
}
