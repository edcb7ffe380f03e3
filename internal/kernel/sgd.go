package kernel

// SGDStep holds the numbers of one update by stochastic gradient descent with momentum.
type SGDStep struct {
	LR        float64 // learning rate
	Momentum  float64 // μ
	Nesterov  bool
	Decay     float64 // weight decay λ, which joins the gradient
	GradScale float64 // multiplies every gradient first (clipping); 1 leaves it as it is
}

// SGD updates the weights w and the momentum m, of one length, from the gradient g (Sutskever et al. 2013, §2, in PyTorch's form):
//
//	g ← g + λ·w;  m ← μ·m + g;  w ← w - LR·m, with Nesterov w - LR·(g + μ·m)
func SGD(p *Pool, w, g, m []float32, h SGDStep) {
	lr, mu, decay, scale := float32(h.LR), float32(h.Momentum), float32(h.Decay), float32(h.GradScale)
	p.For(len(w), flatPiece, func(lo, hi, _ int) {
		for i := lo; i < hi; i++ {
			grad := float32(scale*g[i]) + float32(decay*w[i])
			m[i] = float32(mu*m[i]) + grad
			step := m[i]
			if h.Nesterov {
				step = grad + float32(mu*m[i])
			}
			w[i] -= float32(lr * step)
		}
	})
}
