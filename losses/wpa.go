package losses

import (
	"errors"

	"diptych/model"
	"diptych/ops"
)

// wpa is word–patch alignment (Kim et al. 2021, §3.2; Chen et al. 2020, §3.3) on the pass of ITM, over the N pairs of the global
// batch:
//
//	L = 1/N (Σ_{own picture} d_i - Σ_{false picture} d_i)    d_i = min_T Σ_jk T_jk·(1 - cos(word_j, patch_k))
//
// The plan T is that of optimal transport with even masses, by 50 iterations of IPOT, and a constant to the gradient; see
// ops.Alignment. The loss can be negative. The paper adds it with a weight of 0.1.
func wpa(gr *model.Grain, _ Config, o *Options) (Local, error) {
	if o.matched == nil {
		return Local{}, errors.New("the words and patches it aligns are those of itm's pass: put itm before it in the recipe, for a model of kind vilt")
	}
	sign := gr.G.Input("wpa.sign", o.joined.Seqs.Count, 1)
	var draw matches
	signs := make([]float32, gr.N)
	bind := func(p *ops.Program, v View) (int, error) {
		draw.of(v, o)
		for i, own := range draw.own {
			signs[i] = float32(2*own - 1)
		}
		p.SetInput(sign, signs[:v.N])
		return v.N, nil
	}
	return Local{Sums: gr.G.Alignment(o.matched, o.joined, sign), Bind: bind}, nil
}
