package losses

import (
	"diptych/model"
	"diptych/ops"
)

// vqa is visual question answering as a choice among K answers, each a decision of its own with soft targets (Kim et al. 2021,
// §4.2; Teney et al. 2018, §3.7), over the N pairs of the global batch:
//
//	L = -1/N Σ_i Σ_k (q_ik·log σ(z_ik) + (1-q_ik)·log(1-σ(z_ik)))
//
// q_ik is the score of answer k to the question of pair i, 0 for answers that nobody gave. It is the mean over all N·K decisions
// times K, as the authors' code has it (spec/vilt 7). score is the mean target of the answer with the highest score.
func vqa(gr *model.Grain, _ Config, o *Options) (Local, error) {
	a, scores, err := newAnswering(gr, "vqa", o)
	if err != nil {
		return Local{}, err
	}
	k := scores.Cols()
	targets := gr.G.Input("vqa.targets", scores.Rows(), k)
	aims := make([]float32, gr.N*k)
	bind := func(p *ops.Program, v View) (int, error) {
		clear(aims)
		for i := range v.N {
			for _, answer := range v.Pair(i).Answers {
				if err := v.checkClass("vqa", i, answer.Class, k); err != nil {
					return 0, err
				}
				aims[i*k+int(answer.Class)] = answer.Score
			}
		}
		p.SetInput(targets, aims[:v.N*k])
		return v.N, a.bind(p, v)
	}
	return Local{Sums: gr.G.BinaryCrossEntropy(scores, targets), Bind: bind}, nil
}
