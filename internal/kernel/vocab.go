package kernel

import (
	"fmt"
	"math"
)

// VocabNLL is the cross-entropy of a softmax over V classes whose logits are products with a table of class vectors, as a
// masked language model's decoder or a classifier has them:
//
//	s_ij = Hidden_i·Table_j + Bias_j;  loss_i = log Σ_j exp(s_ij) - (1-ε)·s_i,Target(i) - ε/V·Σ_j s_ij
//
// with ε = Smoothing (Szegedy et al. 2016, §7). Logits exist for a block of rows and of classes at a time and are computed
// again by the backward pass, so nothing of size (N, V) is stored.
type VocabNLL[T Float] struct {
	N, D, V   int
	Hidden    []T     // (N, D): the rows to predict from, and no others
	Table     []T     // (V, D)
	Bias      []T     // (V) or nil
	Targets   []int32 // (N): class of each row; a negative one leaves the row out
	Smoothing T
	BF16      bool // of the three products, as Gemm.BF16

	LSE  []T     // (N): log Σ_j exp(s_ij), written forward and read backward
	Best []int32 // (N) or nil: forward writes the class with the largest logit, the first of equals

	Grad    T   // factor of the gradient of every row's loss
	DHidden []T // (N, D): overwritten
	DTable  []T // (V, D): added to, or nil
	DBias   []T // (V): added to, or nil
}

// Blocks of rows and classes: their logits take 4 MiB, and a product with so many rows pays for packing the table.
const (
	vocabRows    = 512
	vocabClasses = 2048
)

// VocabForward fills LSE and Best and returns the sum of the rows' losses in nats.
func VocabForward[T Float](p *Pool, x *VocabNLL[T]) float64 {
	x.check()
	q := own(p)
	defer disown(p, q)
	loss := 0.0
	for first := 0; first < x.N; first += vocabRows {
		loss += x.forward(q, first, min(vocabRows, x.N-first))
	}
	return loss
}

// forward computes rows [first, first+n).
func (x *VocabNLL[T]) forward(q *Pool, first, n int) float64 {
	logits := scratch[T](q, 0, slotA, n*min(vocabClasses, x.V))
	state := scratch[T](q, 0, slotB, 2*n)
	top, total, lse := state[:n], state[n:], x.LSE[first:first+n]
	part := scratch[float64](q, 0, slotC, n) // what the target takes off each row's loss
	targets := x.Targets[first : first+n]
	for i := range n {
		top[i], total[i], part[i] = T(math.Inf(-1)), 0, 0
		if x.Best != nil {
			x.Best[first+i] = 0
		}
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
					top[i] = high
					if x.Best != nil {
						x.Best[first+i] = int32(from + index(row, high))
					}
				}
				total[i] += expSum(row, top[i])
				if t := int(targets[i]) - from; t >= 0 && t < classes {
					part[i] += (1 - float64(x.Smoothing)) * float64(row[t])
				}
				if each != 0 {
					part[i] += each * sum(row)
				}
			}
		})
	}
	LogSumExpFinish(lse, top, total)
	loss := 0.0
	for i, t := range targets {
		if t >= 0 {
			loss += float64(lse[i]) - part[i]
		}
	}
	return loss
}

// VocabBackward overwrites DHidden and adds to DTable and DBias, from what VocabForward left in LSE:
//
//	ds_ij = Grad·(exp(s_ij - LSE_i) - ε/V - (1-ε)·[j = Target(i)]);  dHidden = ds·Table;  dTable += dsᵀ·Hidden;  dBias += Σ_i ds_i
func VocabBackward[T Float](p *Pool, x *VocabNLL[T]) {
	x.check()
	q := own(p)
	defer disown(p, q)
	for first := 0; first < x.N; first += vocabRows {
		x.backward(q, first, min(vocabRows, x.N-first))
	}
}

// backward computes the share of rows [first, first+n).
func (x *VocabNLL[T]) backward(q *Pool, first, n int) {
	logits := scratch[T](q, 0, slotA, n*min(vocabClasses, x.V))
	hidden, dhidden := x.Hidden[first*x.D:], x.DHidden[first*x.D:]
	lse, targets := x.LSE[first:first+n], x.Targets[first:first+n]
	each := x.Smoothing / T(x.V)
	for from := 0; from < x.V; from += vocabClasses {
		classes := min(vocabClasses, x.V-from)
		x.logits(q, logits, first, n, from, classes)
		q.For(n, rowPiece(classes), func(lo, hi, _ int) {
			for i := lo; i < hi; i++ {
				row := logits[i*classes : (i+1)*classes]
				if targets[i] < 0 {
					clear(row)
					continue
				}
				softmaxGradRow(row, lse[i], x.Grad, each)
				if t := int(targets[i]) - from; t >= 0 && t < classes {
					row[t] -= x.Grad * (1 - x.Smoothing)
				}
			}
		})
		table := x.Table[from*x.D:]
		MatMul(q, &Gemm[T]{Accumulate: from > 0, BF16: x.BF16, M: n, N: x.D, K: classes, A: logits, LDA: classes, B: table, LDB: x.D, C: dhidden, LDC: x.D})
		if x.DTable != nil {
			MatMul(q, &Gemm[T]{TransA: true, Accumulate: true, BF16: x.BF16, M: classes, N: x.D, K: n,
				A: logits, LDA: classes, B: hidden, LDB: x.D, C: x.DTable[from*x.D:], LDC: x.D})
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

// check panics at a target that is no class; the other slices are checked where they are used.
func (x *VocabNLL[T]) check() {
	for i, t := range x.Targets[:x.N] {
		if int(t) >= x.V {
			panic(fmt.Sprintf("kernel: VocabNLL target %d of row %d with %d classes", t, i, x.V))
		}
	}
}

// index returns where v first occurs in row, which has it.
func index[T Float](row []T, v T) int {
	for j, w := range row {
		if w == v {
			return j
		}
	}
	return 0
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
