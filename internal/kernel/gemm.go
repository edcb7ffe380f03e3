package kernel

import "fmt"

// Gemm is a matrix product and what is done to each of its elements while it is still in cache. All matrices are row-major;
// an LD is the distance between the starts of two rows, in elements.
//
//	AB  = Scale · op(A) op(B)                                    (M, N), summed over k = 0 … K-1
//	C   = AB (+ C, if Accumulate) (+ Bias), or
//	C   = Act(AB + Bias), or
//	C   = (AB + Bias) · Act'(ActGrad), then
//	C  += Residual
//
// C16, Pre16 and ActGrad16 stand for C, Pre and ActGrad and are stored as bfloat16, rounded to the nearest, ties to even, when all
// else is done; Act is of the argument before it is rounded. C overlaps nothing it is computed from; Residual and ActGrad may be
// shared by other products.
type Gemm[T Float] struct {
	TransA, TransB bool // A is stored (K, M); B is stored (N, K)
	Accumulate     bool // add to C; excludes Act, Pre and ActGrad
	M, N, K        int
	A              []T
	LDA            int
	B              []T
	LDB            int
	C              []T
	LDC            int
	Scale          T   // 0 means 1
	Bias           []T // (N) or nil: added to every row
	Act            Act // ActNone: the identity
	Pre            []T // (M, N), stride LDC, or nil: keeps the argument of Act for the backward pass
	ActGrad        []T // (M, N), stride LDC, or nil: the Pre of an earlier product; Act then names whose derivative
	Residual       []T // (M, N), stride LDC, or nil

	C16       []uint16 // in place of C; excludes all but Scale and Bias
	Pre16     []uint16 // in place of Pre
	ActGrad16 []uint16 // in place of ActGrad

	// BF16 rounds each element of op(A) and op(B) so before it is multiplied; sums and what is done to them stay as they are. A product of two such numbers is exact in float32, so families differ only in the order of their sums
	// and in that processors with products of bfloat16 take subnormal sums as zero.
	BF16 bool
}

// MatMul computes g on p's threads. An element's bits depend on its row of op(A), its column of op(B), K and the kernel
// family: not on threads, nor on M, N and the element's place, so cutting a batch in other pieces of rows changes nothing.
func MatMul[T Float](p *Pool, g *Gemm[T]) {
	g.check()
	if g.M == 0 || g.N == 0 {
		return
	}
	q := own(p)
	if f, ok := any(g).(*Gemm[float32]); !ok || !matMulASM(q, f) {
		matMulPortable(q, g)
	}
	disown(p, q)
}

// check panics if a slice is too short for its shape: the assembly has no bounds checks of its own.
func (g *Gemm[T]) check() {
	if g.M < 0 || g.N < 0 || g.K < 0 {
		panic(fmt.Sprintf("kernel: MatMul of negative shape (%d, %d, %d)", g.M, g.N, g.K))
	}
	if g.M == 0 || g.N == 0 {
		return
	}
	rows, cols := g.M, g.K
	if g.TransA {
		rows, cols = cols, rows
	}
	checkMatrix("A", len(g.A), rows, cols, g.LDA)
	rows, cols = g.K, g.N
	if g.TransB {
		rows, cols = cols, rows
	}
	checkMatrix("B", len(g.B), rows, cols, g.LDB)
	if g.C16 == nil {
		checkMatrix("C", len(g.C), g.M, g.N, g.LDC)
	}
	for _, x := range [...]struct {
		name   string
		absent bool
		length int
	}{
		{"Pre", g.Pre == nil, len(g.Pre)}, {"ActGrad", g.ActGrad == nil, len(g.ActGrad)}, {"Residual", g.Residual == nil, len(g.Residual)},
		{"C16", g.C16 == nil, len(g.C16)}, {"Pre16", g.Pre16 == nil, len(g.Pre16)}, {"ActGrad16", g.ActGrad16 == nil, len(g.ActGrad16)},
	} {
		if !x.absent {
			checkMatrix(x.name, x.length, g.M, g.N, g.LDC)
		}
	}
	if g.Bias != nil && len(g.Bias) < g.N {
		panic(fmt.Sprintf("kernel: MatMul bias of %d for %d columns", len(g.Bias), g.N))
	}
	keeps, derives := g.Pre != nil || g.Pre16 != nil, g.ActGrad != nil || g.ActGrad16 != nil
	if g.Accumulate && (g.Act != ActNone || keeps || derives) {
		panic("kernel: MatMul cannot both accumulate and apply an activation")
	}
	if keeps && derives {
		panic("kernel: MatMul with both Pre and ActGrad")
	}
	if g.C16 != nil && (g.Accumulate || g.Act != ActNone || keeps || derives || g.Residual != nil) {
		panic("kernel: MatMul into bfloat16 only scales and adds a bias")
	}
}

func checkMatrix(name string, length, rows, cols, ld int) {
	if rows == 0 || cols == 0 {
		return
	}
	if ld < cols || (rows-1)*ld+cols > length {
		panic(fmt.Sprintf("kernel: MatMul %s is (%d, %d) with stride %d but has %d elements", name, rows, cols, ld, length))
	}
}

// scale returns the factor of AB.
func (g *Gemm[T]) scale() T {
	if g.Scale == 0 {
		return 1
	}
	return g.Scale
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
