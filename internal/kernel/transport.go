package kernel

import "math"

// Transport aligns the words of each sequence with its patches by optimal transport: the inexact proximal point method (IPOT, Xie
// et al. 2018, algorithm 1) on the cost 1 - cos, as ViLT's word–patch alignment has it (Kim et al. 2021, §3.2; spec/vilt 3.2).
// The plan is a constant to the gradient.
type Transport[T Float] struct {
	X       []T     // (R, Cols): words, then patches of each sequence
	Cols    int     //
	Offsets []int32 // first row of each sequence and, last, R
	Texts   []int32 // the same of the text rows alone
	Sign    []T     // (sequences): the factor of each distance in the sum

	Distance []T // (sequences): Σ plan·cost; 0 where there is no word
	DX       []T // (R, Cols), overwritten
}

// What the authors chose (spec/vilt 3.2): β, the proximal weight, the outer iterations, and the least length of a row.
const (
	transportBeta       = 0.5
	transportIterations = 50
	transportLeast      = 1e-5
)

// alignment is the plan of one sequence.
type alignment struct {
	words, patches int       // m, n
	first, image   int       // first row of the words, of the patches
	cos, plan      []float64 // (n, m)
	inv            []float64 // 1/length of each word, then of each patch; negative where transportLeast replaced it
}

// TransportForward fills Distance.
func TransportForward[T Float](p *Pool, a *Transport[T]) {
	q := own(p)
	defer disown(p, q)
	q.For(len(a.Offsets)-1, 1, func(lo, hi, thread int) {
		for s := lo; s < hi; s++ {
			al := a.align(q, thread, s)
			sum := 0.0
			for k, w := range al.plan {
				sum += w * (1 - al.cos[k])
			}
			a.Distance[s] = T(sum)
		}
	})
}

// TransportBackward overwrites DX with the gradient of grad·Σ Sign·Distance: with unit rows t̂ and v̂,
//
//	dt_i = -(u_i - (t̂_i·u_i)·t̂_i)/|t_i|    u_i = Σ_j plan_ji·v̂_j
//
// and likewise for the patches. Rows that take no part, [CLS], [SEP] and the class token, get zeros.
func TransportBackward[T Float](p *Pool, a *Transport[T], grad T) {
	q := own(p)
	defer disown(p, q)
	d := a.Cols
	q.For(len(a.Offsets)-1, 1, func(lo, hi, thread int) {
		for s := lo; s < hi; s++ {
			clear(a.DX[int(a.Offsets[s])*d : int(a.Offsets[s+1])*d])
			al := a.align(q, thread, s)
			scale := float64(grad * a.Sign[s])
			if scale == 0 {
				continue
			}
			one := func(row int, inv float64, others, first int, weight func(k int) float64, otherInv func(k int) float64) {
				dst, x := a.DX[row*d:(row+1)*d], a.X[row*d:(row+1)*d]
				for k := range others {
					addScaled(dst, T(-scale*weight(k)*math.Abs(otherInv(k))), a.X[(first+k)*d:(first+k+1)*d])
				}
				length := math.Abs(inv)
				if inv > 0 {
					along := float64(dot(dst, x)) * inv * inv
					addScaled(dst, T(-along), x)
				}
				scaleBy(dst, T(length))
			}
			m := al.words
			for i := range m {
				one(al.first+i, al.inv[i], al.patches, al.image, func(j int) float64 { return al.plan[j*m+i] }, func(j int) float64 { return al.inv[m+j] })
			}
			for j := range al.patches {
				one(al.image+j, al.inv[m+j], m, al.first, func(i int) float64 { return al.plan[j*m+i] }, func(i int) float64 { return al.inv[i] })
			}
		}
	})
}

// TransportPlan returns the plan (patches, words) of sequence s and copies it, for those who look at it.
func TransportPlan[T Float](a *Transport[T], s int) (plan []float64, words, patches int) {
	q := own(nil)
	defer disown(nil, q)
	al := a.align(q, 0, s)
	return append([]float64(nil), al.plan...), al.words, al.patches
}

// align finds the plan of sequence s, in the thread's scratch.
func (a *Transport[T]) align(p *Pool, thread, s int) alignment {
	first, texts, end := int(a.Offsets[s]), int(a.Texts[s+1]-a.Texts[s]), int(a.Offsets[s+1])
	al := alignment{words: max(texts-2, 0), first: first + 1, image: first + texts + 1, patches: end - first - texts - 1}
	m, n, d := al.words, al.patches, a.Cols
	if m == 0 || n <= 0 {
		return alignment{}
	}
	memory := scratch[float64](p, thread, slotA, 3*n*m+2*(n+m))
	cut := func(size int) []float64 {
		part := memory[:size]
		memory = memory[size:]
		return part
	}
	al.cos, al.plan, al.inv = cut(n*m), cut(n*m), cut(n+m)
	kernel, sigma, delta := cut(n*m), cut(m), cut(n)
	row := func(r int) []T { return a.X[r*d : (r+1)*d] }
	for i := range m + n {
		r := al.first + i
		if i >= m {
			r = al.image + i - m
		}
		sum := 0.0
		for _, v := range row(r) {
			sum += float64(v) * float64(v)
		}
		al.inv[i] = 1 / math.Sqrt(sum)
		if math.Sqrt(sum) < transportLeast {
			al.inv[i] = -1 / transportLeast
		}
	}
	for j := range n {
		for i := range m {
			k := j*m + i
			al.cos[k] = float64(dot(row(al.first+i), row(al.image+j))) * math.Abs(al.inv[i]*al.inv[m+j])
			kernel[k], al.plan[k] = math.Exp((al.cos[k]-1)/transportBeta), 1
		}
	}
	for i := range sigma {
		sigma[i] = 1 / float64(m)
	}
	for range transportIterations {
		for k, w := range kernel {
			al.plan[k] *= w
		}
		for j := range n {
			sum := 0.0
			for i, w := range al.plan[j*m : (j+1)*m] {
				sum += w * sigma[i]
			}
			delta[j] = 1 / (float64(n) * sum)
		}
		clear(sigma)
		for j, w := range delta {
			for i, q := range al.plan[j*m : (j+1)*m] {
				sigma[i] += w * q
			}
		}
		for i := range sigma {
			sigma[i] = 1 / (float64(m) * sigma[i])
		}
		for j, w := range delta {
			for i := range m {
				al.plan[j*m+i] *= w * sigma[i]
			}
		}
	}
	return al
}
