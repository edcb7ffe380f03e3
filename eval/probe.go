package eval

import (
	"context"
	"math"
	"slices"

	"diptych/internal/addr"
	"diptych/internal/kernel"
)

// Fit says how a linear probe came about.
type Fit struct {
	Pictures int `json:"pictures"` // that the last fit learnt from
	// Lambda is the weight of ½·|W|² beside the sum of the pictures' losses: 1/C of scikit-learn.
	Lambda     float64 `json:"lambda"`
	ChosenOn   int     `json:"chosenOn"` // pictures that chose it
	Validation float64 `json:"validation"`
	Tried      []Tried `json:"tried"` // in the order of their lambdas
	Iterations int     `json:"iterations"`
	Converged  bool    `json:"converged"`
}

// Tried is the top-1 that a strength of the regularisation reached on the pictures that choose it.
type Tried struct {
	Lambda float64 `json:"lambda"`
	Top1   float64 `json:"top1"`
}

// The search of CLIP's paper (Radford et al. 2021, Appendix A.3): 8 strengths a decade from 1e-6 to 1e6; of these every second
// decade's first, then both neighbours of the best at half the distance, down to one step.
const (
	lambdaSteps   = 8
	lambdaLowest  = -6 // log10
	lambdaCount   = 12*lambdaSteps + 1
	lambdaStride  = 2 * lambdaSteps
	probeMost     = 1000 // iterations
	probeGradient = 1e-4 // of the mean loss: scikit-learn's tolerance
	probeDecrease = 1e-9 // below it float32 has nothing to say
)

func lambdaAt(i int) float64 { return math.Pow(10, lambdaLowest+float64(i)/lambdaSteps) }

// samples are N pictures' features with their classes.
type samples struct {
	x      []float32 // (N, D)
	labels []int     // (N)
}

// probe is a linear layer of class scores, Wx + b, learnt as multinomial logistic regression.
type probe struct {
	pool         *kernel.Pool
	classes, dim int
	mean         []float64 // μ (D): theta's biases are those of features less it
	theta        []float64 // W (K, D), then b + W·μ (K)
	theta32      []float32
	scores       []float32 // of a block of pictures (rows, K)
	gradient     []float32 // of W, then b by a block
	own          []int32   // classes of a block's pictures
	lse          []float32 // log Σ exp of their scores
}

func newProbe(pool *kernel.Pool, classes, dim int) *probe {
	p := &probe{pool: pool, classes: classes, dim: dim, mean: make([]float64, dim)}
	n := classes * (dim + 1)
	p.theta, p.theta32, p.gradient = make([]float64, n), make([]float32, n), make([]float32, n)
	rows := p.block()
	p.scores, p.own, p.lse = make([]float32, rows*classes), make([]int32, rows), make([]float32, rows)
	return p
}

// block returns how many pictures are scored at once, so that memory does not grow with their number.
func (p *probe) block() int { return min(max(blockFloats/p.classes, minBlockRows), 4096) }

// blocks scores the pictures of s, a block at a time.
func (p *probe) blocks(s samples, theta []float64, visit func(lo, m int)) {
	for i, v := range theta {
		p.theta32[i] = float32(v)
	}
	weights := p.classes * p.dim
	for c := range p.classes {
		p.theta32[weights+c] = float32(theta[weights+c] - dot(theta[c*p.dim:(c+1)*p.dim], p.mean))
	}
	for lo := 0; lo < len(s.labels); lo += p.block() {
		m := min(p.block(), len(s.labels)-lo)
		kernel.MatMul(p.pool, &kernel.Gemm[float32]{
			TransB: true, M: m, N: p.classes, K: p.dim, A: s.x[lo*p.dim:], LDA: p.dim, B: p.theta32[:weights], LDB: p.dim, C: p.scores, LDC: p.classes,
			Bias: p.theta32[weights:],
		})
		visit(lo, m)
	}
}

// loss is the mean of the pictures' cross-entropies and λ/2N·|W|², the biases left out, with its gradient:
//
//	L = 1/N Σ_i [log Σ_k exp(z_ik) - z_i,y_i] + λ/2N Σ W²    z_i = W·x_i + b
//
// Theta holds b + W·μ in the place of b: the minimum is the same, and far fewer steps lead to it where features have a common part.
// Blocks of pictures are computed in float32 and added in float64, in their order: the result does not depend on the threads.
func (p *probe) loss(s samples, lambda float64, theta, grad []float64) float64 {
	n, k := float64(len(s.labels)), p.classes
	weights := k * p.dim
	clear(grad)
	sum := 0.0
	p.blocks(s, theta, func(lo, m int) {
		for i, label := range s.labels[lo : lo+m] {
			p.own[i] = int32(label)
		}
		ce := kernel.CrossEntropy[float32]{Logits: p.scores[:m*k], Rows: m, Cols: k, Classes: p.own, LSE: p.lse[:m]}
		loss, _ := kernel.CrossEntropyForward(p.pool, &ce)
		sum += loss
		kernel.CrossEntropyBackward(p.pool, &ce, ce.Logits, 1)
		clear(p.gradient[weights:])
		kernel.ColSum(p.pool, p.gradient[weights:], ce.Logits, m, k)
		kernel.MatMul(p.pool, &kernel.Gemm[float32]{
			TransA: true, M: k, N: p.dim, K: m, A: p.scores, LDA: k, B: s.x[lo*p.dim:], LDB: p.dim, C: p.gradient[:weights], LDC: p.dim,
		})
		for i, d := range p.gradient {
			grad[i] += float64(d)
		}
	})
	for c, d := range grad[weights:] {
		axpy(grad[c*p.dim:(c+1)*p.dim], -d, p.mean)
	}
	squares := 0.0
	for i, w := range theta[:weights] {
		squares += w * w
		grad[i] += lambda * w
	}
	for i := range grad {
		grad[i] /= n
	}
	return (sum + lambda/2*squares) / n
}

// fit learns from s, from what theta holds on.
func (p *probe) fit(ctx context.Context, s samples, lambda float64, opt lbfgsOptions) (iterations int, converged bool, err error) {
	return lbfgs(ctx, func(theta, grad []float64) float64 { return p.loss(s, lambda, theta, grad) }, p.theta, opt)
}

// answers classifies pictures.
func (p *probe) answers(s samples) []answer {
	out := make([]answer, len(s.labels))
	p.blocks(s, p.theta, func(lo, m int) {
		p.pool.For(m, 16, func(a, b, _ int) {
			for i := a; i < b; i++ {
				out[lo+i] = answerOf(p.scores[i*p.classes:(i+1)*p.classes], s.labels[lo+i])
			}
		})
	})
	return out
}

// top1 is the share of the pictures that get their class.
func (p *probe) top1(s samples) float64 {
	right := 0
	for _, a := range p.answers(s) {
		if a.rank == 1 {
			right++
		}
	}
	return float64(right) / float64(max(len(s.labels), 1))
}

// learn chooses λ by what a probe of the first n samples reaches on the others, then fits all. Each fit begins at the nearest that was made
// before, from strong to weak; of equal results the stronger regularisation wins. progress hears how many fits are done.
func learn(ctx context.Context, pool *kernel.Pool, s samples, n, classes, dim int, progress func(done, total int)) (*probe, *Fit, error) {
	train, val := samples{s.x[:n*dim], s.labels[:n]}, samples{s.x[n*dim:], s.labels[n:]}
	p := newProbe(pool, classes, dim)
	for i := range n {
		for j, v := range train.x[i*dim : (i+1)*dim] {
			p.mean[j] += float64(v) / float64(n)
		}
	}
	opt := lbfgsOptions{probeMost, probeGradient, probeDecrease}
	const total = lambdaCount/lambdaStride + 1 + 2*4 + 1 // the search has four halvings
	top1, thetas := map[int]float64{}, map[int][]float64{}
	best := -1
	try := func(i int) error {
		if _, done := top1[i]; done || i < 0 || i >= lambdaCount {
			return nil
		}
		clear(p.theta)
		near := -1
		for j := range thetas {
			if near < 0 || abs(j-i) < abs(near-i) || abs(j-i) == abs(near-i) && j > near {
				near = j
			}
		}
		copy(p.theta, thetas[near])
		if _, _, err := p.fit(ctx, train, lambdaAt(i), opt); err != nil {
			return err
		}
		thetas[i], top1[i] = slices.Clone(p.theta), p.top1(val)
		if best < 0 || top1[i] > top1[best] || top1[i] == top1[best] && i > best {
			best = i
		}
		progress(len(top1), total)
		return nil
	}
	for i := lambdaCount - 1; i >= 0; i -= lambdaStride {
		if err := try(i); err != nil {
			return nil, nil, err
		}
	}
	for stride := lambdaStride / 2; stride >= 1; stride /= 2 {
		for _, i := range [2]int{best + stride, best - stride} {
			if err := try(i); err != nil {
				return nil, nil, err
			}
		}
	}
	copy(p.theta, thetas[best])
	f := &Fit{Pictures: len(s.labels), Lambda: lambdaAt(best), ChosenOn: len(val.labels), Validation: top1[best]}
	for i := range lambdaCount {
		if t, ok := top1[i]; ok {
			f.Tried = append(f.Tried, Tried{lambdaAt(i), t})
		}
	}
	var err error
	if f.Iterations, f.Converged, err = p.fit(ctx, s, f.Lambda, opt); err != nil {
		return nil, nil, err
	}
	progress(total, total)
	return p, f, nil
}

func abs(i int) int { return max(i, -i) }

// probeSeed is where the draws of holdout come from: the same in every run.
const probeSeed = 20210226

// holdout parts samples for the choice of the regularisation: of each class the nearest to a fifth, drawn by the pictures' numbers
// rows, are val. So a class with fewer than three pictures has all of them in train.
func holdout(labels, rows []int, classes int) (train, val []int) {
	members := make([][]int, classes)
	for i, c := range labels {
		members[c] = append(members[c], i)
	}
	for _, of := range members {
		slices.SortFunc(of, func(a, b int) int {
			x, y := addr.Hash(probeSeed, uint64(rows[a])), addr.Hash(probeSeed, uint64(rows[b]))
			if x < y {
				return -1
			}
			return 1
		})
		n := (len(of) + 2) / 5
		train, val = append(train, of[n:]...), append(val, of[:n]...)
	}
	slices.Sort(train)
	slices.Sort(val)
	return train, val
}
