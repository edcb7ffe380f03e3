package losses

import (
	"diptych/model"
	"diptych/ops"
)

// pairClass is the cross-entropy of a class of picture and sentence together, over the N pairs of the global batch:
//
//	L = -1/N Σ_i Σ_k q_ik·log softmax_k(z_i)    q_i = (1-ε)·e(class i) + ε/K
//
// The class is that of the row where the recipe names classes (multimodal classification), else the answer to the sentence, of
// several the most right one: entailment, neutral or contradiction (Xie et al. 2019), or True and False where the model reads two
// pictures (Suhr et al. 2019; Kim et al. 2021, §4.2). ε smooths labels.
func pairClass(gr *model.Grain, c Config, o *Options) (Local, error) {
	a, scores, err := newAnswering(gr, "pairclass", o)
	if err != nil {
		return Local{}, err
	}
	t := ops.Targets{Classes: gr.G.Ints("pairclass.classes", gr.N), Smoothing: c.LabelSmoothing}
	classes := make([]int32, gr.N)
	bind := func(p *ops.Program, v View) (int, error) {
		for i := range v.N {
			pair, best := v.Pair(i), float32(0)
			classes[i] = pair.Label
			for _, answer := range pair.Answers {
				if answer.Score > best {
					classes[i], best = answer.Class, answer.Score
				}
			}
			if err := v.checkClass("pairclass", i, classes[i], scores.Cols()); err != nil {
				return 0, err
			}
		}
		p.SetInts(t.Classes, classes[:v.N])
		return v.N, a.bind(p, v)
	}
	return Local{Sums: gr.G.CrossEntropy(scores, t), Bind: bind}, nil
}
