package kernel

import (
	"math"
	"slices"
)

// VocabNLL is the cross-entropy of a softmax over V classes whose logits are products with a table of class vectors, as a
// masked language model's decoder or a classifier has them:
//
//	s_ij = Hidden_i·Table_j + Bias_j;  loss_i = w_i·(log Σ_j exp(s_ij) - (1-ε)·s_i,Class(i) - ε/V·Σ_j s_ij)
//
// with ε = Smoothing (Szegedy et al. 2016, §7). Logits exist for a block of rows and of classes at a time and are computed
// again by the backward pass, so nothing of size (N, V) is stored.
type VocabNLL[T Float] struct {
	N, D, V   int
	Hidden    []T     // (N, D): the rows to predict from, and no others
	Table     []T     // (V, D)
	Bias      []T     // (V) or nil
	Classes   []int32 // (N), in [0, V)
	Weights   []T     // (N), nil: all 1; a row of weight 0 takes no part
	Smoothing T
	BF16      bool // of the three products, as Gemm.BF16

	LSE []T // (N): log Σ_j exp(s_ij), written forward and read backward

	Grad    T   // factor of the gradient of the loss
	DHidden []T // (N, D): overwritten, or nil
	DTable  []T // (V, D): added to, or nil
	DBias   []T // (V): added to, or nil
}

// Blocks of rows and classes: their logits take 4 MiB, and a product with so many rows pays for packing the table.
const (
	vocabRows    = 512
	vocabClasses = 2048
)

// VocabForward fills LSE and returns the sum of the rows' losses in nats, added in order, and how many rows with a weight have
// their largest logit, of equal ones the first, at their class.
func VocabForward[T Float](p *Pool, x *VocabNLL[T]) (loss float64, right int) {
	q := own(p)
	defer disown(p, q)
	for first := 0; first < x.N; first += vocabRows {
		l, r := x.forward(q, first, min(vocabRows, x.N-first))
		loss, right = loss+l, right+r
	}
	return loss, right
}

// forward computes rows [first, first+n).
func (x *VocabNLL[T]) forward(q *Pool, first, n int) (loss float64, right int) {
	logits := scratch[T](q, 0, slotA, n*min(vocabClasses, x.V))
	state := scratch[T](q, 0, slotB, 2*n)
	top, total, lse := state[:n], state[n:], x.LSE[first:first+n]
	sums := scratch[float64](q, 0, slotC, 2*n)
	aim, best := sums[:n], sums[n:] // what the class takes off each row's loss; the largest logit's class
	classOf := x.Classes[first : first+n]
	for i := range n {
		top[i], total[i], aim[i], best[i] = T(math.Inf(-1)), 0, 0, -1
	}
	each := float64(x.Smoothing) / float64(x.V)
	for from := 0; from < x.V; from += vocabClasses {
		classes := min(vocabClasses, x.V-from)
		x.logits(q, logits, first, n, from, classes)
		q.For(n, rowPiece(classes), func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				row := logits[i*classes : (i+1)*classes]
				if high := rowMax(row); high > top[i] {
					total[i] *= T(math.Exp(float64(top[i] - high)))
					top[i], best[i] = high, float64(from+slices.Index(row, high))
				}
				total[i] += expSum(row, top[i])
				if k := int(classOf[i]) - from; k >= 0 && k < classes {
					aim[i] += (1 - float64(x.Smoothing)) * float64(row[k])
				}
				if each != 0 {
					aim[i] += each * sum(row)
				}
			}
		})
	}
	LogSumExpFinish(lse, top, total)
	for i, class := range classOf {
		w := x.weight(first + i)
		if w == 0 {
			continue
		}
		loss += float64(w) * (float64(lse[i]) - aim[i])
		if best[i] == float64(class) {
			right++
		}
	}
	return loss, right
}

// weight returns w_i.
func (x *VocabNLL[T]) weight(i int) T {
	if x.Weights == nil {
		return 1
	}
	return x.Weights[i]
}

// VocabBackward overwrites DHidden and adds to DTable and DBias, from what VocabForward left in LSE:
//
//	ds_ij = Grad·w_i·(exp(s_ij - LSE_i) - ε/V - (1-ε)·[j = Class(i)]);  dHidden = ds·Table;  dTable += dsᵀ·Hidden;  dBias += Σ_i ds_i
func VocabBackward[T Float](p *Pool, x *VocabNLL[T]) {
	q := own(p)
	defer disown(p, q)
	for first := 0; first < x.N; first += vocabRows {
		x.backward(q, first, min(vocabRows, x.N-first))
	}
}

// backward computes the share of rows [first, first+n).
func (x *VocabNLL[T]) backward(q *Pool, first, n int) {
	logits := scratch[T](q, 0, slotA, n*min(vocabClasses, x.V))
	lse, classOf := x.LSE[first:first+n], x.Classes[first:first+n]
	each := x.Smoothing / T(x.V)
	for from := 0; from < x.V; from += vocabClasses {
		classes := min(vocabClasses, x.V-from)
		x.logits(q, logits, first, n, from, classes)
		q.For(n, rowPiece(classes), func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				row := logits[i*classes : (i+1)*classes]
				factor := x.Grad * x.weight(first+i)
				if factor == 0 {
					clear(row)
					continue
				}
				softmaxGradRow(row, lse[i], factor, each)
				if k := int(classOf[i]) - from; k >= 0 && k < classes {
					row[k] -= factor * (1 - x.Smoothing)
				}
			}
		})
		if x.DHidden != nil {
			MatMul(q, &Gemm[T]{Accumulate: from > 0, BF16: x.BF16, M: n, N: x.D, K: classes,
				A: logits, LDA: classes, B: x.Table[from*x.D:], LDB: x.D, C: x.DHidden[first*x.D:], LDC: x.D})
		}
		if x.DTable != nil {
			MatMul(q, &Gemm[T]{TransA: true, Accumulate: true, BF16: x.BF16, M: classes, N: x.D, K: n,
				A: logits, LDA: classes, B: x.Hidden[first*x.D:], LDB: x.D, C: x.DTable[from*x.D:], LDC: x.D})
		}
		if x.DBias != nil {
			ColSum(q, x.DBias[from:from+classes], logits, n, classes)
		}
	}
}

// logits computes those of rows [first, first+n) and classes [from, from+classes) into s, row after row.
func (x *VocabNLL[T]) logits(q *Pool, s []T, first, n, from, classes int) {
	g := Gemm[T]{TransB: true, BF16: x.BF16, M: n, N: classes, K: x.D, A: x.Hidden[first*x.D:], LDA: x.D, B: x.Table[from*x.D:], LDB: x.D, C: s, LDC: classes}
	if x.Bias != nil {
		g.Bias = x.Bias[from:]
	}
	MatMul(q, &g)
}

// softmaxGradRow sets row = factor·(exp(row - lse) - less).
func softmaxGradRow[T Float](row []T, lse, factor, less T) {
	if isSingle[T]() && softmaxGrad32(single(row), float32(lse), float32(factor), float32(less)) {
		return
	}
	for j, s := range row {
		row[j] = factor * (T(math.Exp(float64(s-lse))) - less)
	}
}
