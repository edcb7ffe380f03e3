package kernel

import "math"

// AdamWStep holds the numbers of one AdamW update.
type AdamWStep struct {
	LR           float64 // learning rate α
	Beta1, Beta2 float64 // decay of the first and second moment
	Eps          float64 // ε, added to the root of the second moment
	Decay        float64 // decoupled decay of this step: learning rate times weight decay
	Correction1  float64 // bias correction 1 - β1^t
	Correction2  float64 // bias correction 1 - β2^t
	GradScale    float64 // multiplies every gradient first (clipping); 1 leaves it as it is
}

// adamWConst is an AdamWStep in the form the loop uses, rounded once.
type adamWConst struct {
	gradScale, keep, beta1, newG, beta2, newG2, rate, invRoot, eps float32
}

func (h AdamWStep) constants() adamWConst {
	return adamWConst{
		gradScale: float32(h.GradScale),
		keep:      float32(1 - h.Decay),
		beta1:     float32(h.Beta1),
		newG:      float32(1 - h.Beta1),
		beta2:     float32(h.Beta2),
		newG2:     float32(1 - h.Beta2),
		rate:      float32(h.LR / h.Correction1),
		invRoot:   float32(1 / math.Sqrt(h.Correction2)),
		eps:       float32(h.Eps),
	}
}

// AdamW updates the weights w and the moments m and v, all of one length, from the gradient g in a single pass
// (Loshchilov and Hutter 2019, Algorithm 2, with the learning rate as multiplier of the decay):
//
//	w ← (1-Decay)·w;  m ← β1·m + (1-β1)·g;  v ← β2·v + (1-β2)·g²
//	w ← w - α/(1-β1^t) · m/(√v/√(1-β2^t) + ε)
func AdamW(p *Pool, w, g, m, v []float32, h AdamWStep) {
	c := h.constants()
	p.For(len(w), flatPiece, func(lo, hi, _ int) { adamW(w[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], &c) })
}

func adamW(w, g, m, v []float32, c *adamWConst) {
	if adamW32(w, g, m, v, c) {
		return
	}
	g, m, v = g[:len(w)], m[:len(w)], v[:len(w)]
	for i := range w {
		grad := float32(c.gradScale * g[i])
		mi := float32(c.beta1*m[i]) + float32(c.newG*grad)
		vi := float32(c.beta2*v[i]) + float32(c.newG2*float32(grad*grad))
		m[i], v[i] = mi, vi
		root := float32(math.Sqrt(float64(vi)))
		w[i] = float32(c.keep*w[i]) - float32(c.rate*(mi/(float32(root*c.invRoot)+c.eps)))
	}
}
