package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func newAttention[T Float](t testing.TB, offsets []int32, heads, dim int, causal bool) *Attention[T] {
	rows, d := int(offsets[len(offsets)-1]), heads*dim
	return &Attention[T]{
		QKV: normals[T]("qkv", rows*3*d), Offsets: offsets, Heads: heads, HeadDim: dim, Causal: causal,
		Out: fenced[T](t, rows*d), LSE: fenced[T](t, rows*heads), DOut: normals[T]("dout", rows*d), DQKV: fenced[T](t, rows*3*d),
	}
}

// withBias gives a bias over more positions than the longest sequence has rows, at positions that run on for a while and jump;
// its gradient begins with something.
func withBias[T Float](a *Attention[T]) *Attention[T] {
	longest := int32(0)
	for s, o := range a.Offsets[1:] {
		longest = max(longest, o-a.Offsets[s])
	}
	rows := int(a.Offsets[len(a.Offsets)-1])
	b := &ScoreBias[T]{N: int(longest) + 9, Keys: make([]int32, rows)}
	for s := range len(a.Offsets) - 1 {
		for i := a.Offsets[s]; i < a.Offsets[s+1]; i++ {
			at := i - a.Offsets[s]
			if b.Keys[i] = at; at > 5 {
				b.Keys[i] += int32(s%5) + at%40/30*2
			}
		}
	}
	b.Queries = b.Keys
	b.Add, b.DAdd = normals[T]("bias", a.Heads*b.N*b.N), normals[T]("gradient of bias", a.Heads*b.N*b.N)
	a.Bias = b
	return a
}

// naiveAttention is the textbook formula with the whole matrix of probabilities.
func naiveAttention(a *Attention[float64]) []float64 {
	d := a.Heads * a.HeadDim
	out := make([]float64, len(a.Out))
	for s := 0; s+1 < len(a.Offsets); s++ {
		for h := range a.Heads {
			for i := int(a.Offsets[s]); i < int(a.Offsets[s+1]); i++ {
				sum := 0.0
				acc := make([]float64, a.HeadDim)
				for j := int(a.Offsets[s]); j < int(a.Offsets[s+1]); j++ {
					if a.Causal && j > i {
						break
					}
					score := 0.0
					for c := range a.HeadDim {
						score += a.QKV[i*3*d+h*a.HeadDim+c] * a.QKV[j*3*d+d+h*a.HeadDim+c]
					}
					score /= math.Sqrt(float64(a.HeadDim))
					if b := a.Bias; b != nil {
						score += b.Add[(h*b.N+int(b.Queries[i]))*b.N+int(b.Keys[j])]
					}
					e := math.Exp(score)
					sum += e
					for c := range acc {
						acc[c] += e * a.QKV[j*3*d+2*d+h*a.HeadDim+c]
					}
				}
				for c := range acc {
					out[i*d+h*a.HeadDim+c] = acc[c] / sum
				}
			}
		}
	}
	return out
}

func TestAttentionGradient(t *testing.T) {
	for k := range 4 {
		causal, biased := k&1 == 1, k&2 == 2
		for _, c := range packed {
			t.Run(fmt.Sprintf("%s, causal %v, bias %v", c.name, causal, biased), func(t *testing.T) {
				a := newAttention[float64](t, c.offsets, 2, 5, causal)
				if biased {
					withBias(a)
					clear(a.Bias.DAdd)
				}
				loss := func() float64 {
					AttentionForward(nil, a)
					return dot(a.Out, a.DOut)
				}
				loss()
				require.InDeltaSlice(t, naiveAttention(a), a.Out, 1e-12)
				AttentionBackward(nil, a)
				checkGradient(t, "qkv", a.QKV, a.DQKV, loss)
				if biased {
					checkGradient(t, "bias", a.Bias.Add, a.Bias.DAdd, loss)
				}
			})
		}
	}
}

func TestAttentionMatchesTwin(t *testing.T) {
	type shape struct {
		offsets []int32
		dim     int
	}
	var shapes []shape
	for _, dim := range []int{1, 15, 16, 17, 32, 33, 40, 48, 64, 80, 96, 130} {
		for _, offsets := range [][]int32{{0, 1}, {0, 2, 5}, {0, 17, 34, 35}, {0, 4, 16, 16, 31, 64}, {0, 50}} {
			shapes = append(shapes, shape{offsets, dim})
		}
	}
	// Some of more than one block of rows.
	shapes = append(shapes, shape{[]int32{0, 197}, 32}, shape{[]int32{0, 500}, 17}, shape{[]int32{0, 256}, 16}, shape{[]int32{0, 77, 206}, 64})
	eachFamily(t, func(t *testing.T) {
		for i, c := range shapes {
			if i%7 != 0 && (testing.Short() || Family() != Families()[0]) {
				continue // under the race detector all of them take minutes
			}
			for k := range 8 {
				causal, bf16, biased := k&1 == 1, k&2 == 2, k&4 == 4
				if biased && i%4 != 3 { // a quarter of them
					continue
				}
				name := fmt.Sprintf("dim %d, offsets %v, causal %v, bf16 %v, bias %v", c.dim, c.offsets, causal, bf16, biased)
				wide := newAttention[float64](t, c.offsets, 2, c.dim, causal)
				wide.BF16 = bf16
				if biased {
					withBias(wide)
				}
				AttentionForward(nil, wide)
				AttentionBackward(nil, wide)
				run := func(p *Pool) [][]float32 {
					a := newAttention[float32](t, c.offsets, 2, c.dim, causal)
					a.BF16 = bf16
					if biased {
						withBias(a)
					}
					AttentionForward(p, a)
					AttentionBackward(p, a)
					results := [][]float32{a.Out, a.LSE, a.DQKV}
					if biased {
						results = append(results, a.Bias.DAdd)
					}
					return results
				}
				got := run(nil)
				near(t, wide.LSE, got[1], 3e-6, name+" lse")
				out, dqkv := 3e-6, 1e-5
				if bf16 { // a weight close to a tie may round to the other side: a few times 2^-8 of one term
					out, dqkv = 2e-3, 5e-3
				}
				near(t, wide.Out, got[0], out, name+" out")
				near(t, wide.DQKV, got[2], dqkv, name+" dqkv")
				if biased {
					near(t, wide.Bias.DAdd, got[3], dqkv, name+" dbias")
				}
				sameBits(t, run)
			}
		}
	})
}

// Scores of hundreds overflow exp unless the maximum is taken off first.
func TestAttentionWithLargeScores(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		offsets := []int32{0, 19, 60}
		for _, causal := range []bool{false, true} {
			wide, a := newAttention[float64](t, offsets, 2, 32, causal), newAttention[float32](t, offsets, 2, 32, causal)
			for i := range a.QKV {
				if i%192 < 128 {
					a.QKV[i] *= 16
					wide.QKV[i] *= 16
				}
			}
			AttentionForward(nil, wide)
			AttentionForward(nil, a)
			near(t, wide.Out, a.Out, 1e-3, "out") // a score of 1000 carries an error of 1e-4
			AttentionBackward(nil, wide)
			AttentionBackward(nil, a)
			near(t, wide.DQKV, a.DQKV, 3e-2, "dqkv")
		}
	})
}

func TestAttentionKeepsNaNToItsSequence(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		offsets := []int32{0, 18, 30}
		a := newAttention[float32](t, offsets, 1, 32, false)
		a.QKV[20*96+40] = float32(math.NaN()) // in a key of the second sequence
		AttentionForward(nil, a)
		for i, v := range a.Out {
			require.Equal(t, i/32 >= 18, math.IsNaN(float64(v)), "element %d", i)
		}
	})
}

// A bias of -Inf hides a key; positions that are left out are places in the sequence.
func TestBiasOfMinusInfinity(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		const n, heads, dim = 21, 2, 32
		hidden, causal := newAttention[float32](t, []int32{0, n}, heads, dim, false), newAttention[float32](t, []int32{0, n}, heads, dim, true)
		b := &ScoreBias[float32]{N: n, Add: make([]float32, heads*n*n), DAdd: make([]float32, heads*n*n)}
		for at := range b.Add {
			if at%n > at/n%n {
				b.Add[at] = float32(math.Inf(-1))
			}
		}
		hidden.Bias = b
		for _, a := range []*Attention[float32]{hidden, causal} {
			AttentionForward(nil, a)
			AttentionBackward(nil, a)
		}
		require.InDeltaSlice(t, causal.Out, hidden.Out, 1e-6)
		require.InDeltaSlice(t, causal.DQKV, hidden.DQKV, 1e-5)
		for at, d := range b.DAdd {
			require.False(t, math.IsNaN(float64(d)) || at%n > at/n%n && d != 0, "element %d: %v", at, d)
		}
	})
}

func TestBiasThatDoesNotFit(t *testing.T) {
	for name, spoil := range map[string]func(b *ScoreBias[float32]){
		"short":             func(b *ScoreBias[float32]) { b.Add = b.Add[1:] },
		"short gradient":    func(b *ScoreBias[float32]) { b.DAdd = b.DAdd[1:] },
		"position":          func(b *ScoreBias[float32]) { b.Keys[1] = int32(b.N) },
		"negative":          func(b *ScoreBias[float32]) { b.Keys[2] = -1 },
		"sequence too long": func(b *ScoreBias[float32]) { b.Queries, b.N = nil, 2 },
	} {
		a := withBias(newAttention[float32](t, []int32{0, 3}, 1, 4, false))
		spoil(a.Bias)
		require.Panics(t, func() { AttentionForward(nil, a) }, name)
	}
}

// A call allocates its closures and a place for the heads, no more however many of these there are.
func TestAttentionAllocatesLittle(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	a := withBias(newAttention[float32](t, []int32{0, 5, 9, 30, 31}, 6, 16, false))
	for _, bf16 := range []bool{false, true} {
		a.BF16 = bf16
		require.LessOrEqual(t, testing.AllocsPerRun(20, func() {
			AttentionForward(p, a)
			AttentionBackward(p, a)
		}), 8.0)
	}
}
