package ops

import (
	"math"
	"testing"

	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

// pairs is a loss of n random pairs, with capacity for a few more.
func pairs[T Float](t *testing.T, n int, loss func(b *bench[T], x, y, scale *Node, groups *Ints) *Node) *bench[T] {
	b := newBench[T](t)
	x := b.input("x", n, 6)
	y := b.inputOf("y", x.Rows(), n, 6)
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i * i % 97) // many groups of different sizes
	}
	scale := b.param("scale")
	b.weights[scale.buf.off] = 1.2
	return b.compile(loss(b, x, y, scale, b.ints("groups", ids...)))
}

// naive computes the losses from the whole matrix of logits, as they are written.
func naive(b *bench[float64], opt ITCOpt, sigmoid bool, bias float64) float64 {
	x, y := b.inputs[b.wrt[0]], b.inputs[b.wrt[1]]
	n := len(x) / 6
	t := math.Exp(1.2)
	s := make([][]float64, n)
	for i := range s {
		s[i] = make([]float64, n)
		for j := range s[i] {
			for c := range 6 {
				s[i][j] += t * x[i*6+c] * y[j*6+c]
			}
		}
	}
	same := func(i, j int) bool { return i == j || opt.GroupTargets && i*i%97 == j*j%97 }
	if sigmoid {
		sum := 0.0
		for i := range n {
			for j := range n {
				z := -1.0
				if same(i, j) {
					z = 1
				}
				sum += math.Log1p(math.Exp(-z * (s[i][j] + bias)))
			}
		}
		return sum / float64(n)
	}
	sum := 0.0
	for i := range n {
		var rows, cols, count float64
		for j := range n {
			rows += math.Exp(s[i][j])
			cols += math.Exp(s[j][i])
			if same(i, j) {
				count++
			}
		}
		for j := range n {
			q := opt.Smoothing / float64(n)
			if same(i, j) {
				q += (1 - opt.Smoothing) / count
			}
			sum -= q * (s[i][j] - math.Log(rows) + s[j][i] - math.Log(cols))
		}
	}
	return sum / float64(2*n)
}

func TestLossesInBlocks(t *testing.T) {
	infoNCE := func(opt ITCOpt) func(b *bench[float64], x, y, scale *Node, groups *Ints) *Node {
		return func(b *bench[float64], x, y, scale *Node, groups *Ints) *Node {
			return b.InfoNCE(x, y, scale, groups, opt)
		}
	}
	sigmoid := func(grouped bool) func(b *bench[float64], x, y, scale *Node, groups *Ints) *Node {
		return func(b *bench[float64], x, y, scale *Node, groups *Ints) *Node {
			if !grouped {
				groups = nil
			}
			return b.SigmoidLoss(x, y, scale, b.param("bias"), groups)
		}
	}
	cases := []struct {
		name    string
		n       int
		loss    func(b *bench[float64], x, y, scale *Node, groups *Ints) *Node
		opt     ITCOpt
		sigmoid bool
	}{
		{"infonce of one pair", 1, infoNCE(ITCOpt{}), ITCOpt{}, false},
		{"infonce in one block", 255, infoNCE(ITCOpt{}), ITCOpt{}, false},
		{"infonce in two blocks", 300, infoNCE(ITCOpt{}), ITCOpt{}, false},
		{"infonce smoothed", 300, infoNCE(ITCOpt{Smoothing: 0.1}), ITCOpt{Smoothing: 0.1}, false},
		{"infonce with groups", 300, infoNCE(ITCOpt{GroupTargets: true}), ITCOpt{GroupTargets: true}, false},
		{"infonce with groups, smoothed", 300, infoNCE(ITCOpt{0.2, true}), ITCOpt{0.2, true}, false},
		{"sigmoid", 300, sigmoid(false), ITCOpt{}, true},
		{"sigmoid with groups", 300, sigmoid(true), ITCOpt{GroupTargets: true}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := pairs(t, c.n, c.loss)
			var bias float64
			if c.sigmoid {
				bias = b.weights[b.params[1].buf.off]
			}
			loss := b.prog.Value(b.outs[0])[0]
			want := naive(b, c.opt, c.sigmoid, bias)
			require.InEpsilon(t, want+1, loss+1, 1e-12)
			require.Less(t, b.prog.ArenaSize(), 4*blockRows*(c.n+2)+64*(c.n+64), "only blocks of the logits")
			// A few elements of the gradient against differences of the loss as it is written.
			b.gradients()
			for _, in := range b.wrt {
				d := append([]float64(nil), b.prog.InputGrad(in)...)
				// The loss is a sum of up to 90000 terms; its rounding error over 1e-5 is near 1e-7.
				for _, i := range []int{0, len(d) / 2, len(d) - 1} {
					x := &b.inputs[in][i]
					old := *x
					*x = old + 1e-5
					up := naive(b, c.opt, c.sigmoid, bias)
					*x = old - 1e-5
					down := naive(b, c.opt, c.sigmoid, bias)
					*x = old
					require.InDelta(t, b.fed[0][0]*(up-down)/2e-5, d[i], 1e-6, "%s[%d]", in.name, i)
				}
			}
		})
	}
}

func TestLossBitsDoNotDependOnThreads(t *testing.T) {
	for _, sigmoid := range []bool{false, true} {
		var got [2][]float32
		for i, threads := range []int{1, 3} {
			b := pairs(t, 300, func(b *bench[float32], x, y, scale *Node, groups *Ints) *Node {
				if sigmoid {
					return b.SigmoidLoss(x, y, scale, b.param("bias"), groups)
				}
				return b.InfoNCE(x, y, scale, groups, ITCOpt{Smoothing: 0.1, GroupTargets: true})
			})
			pool := kernel.NewPool(threads)
			b.run.Pool = pool
			got[i] = b.gradients()
			got[i] = append(got[i], b.prog.Value(b.outs[0])...)
			got[i] = append(got[i], b.prog.InputGrad(b.wrt[0])...)
			got[i] = append(got[i], b.prog.InputGrad(b.wrt[1])...)
			pool.Close()
		}
		require.Equal(t, got[0], got[1])
	}
}
