package losses

import (
	"cmp"
	"fmt"

	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// ranker is a model with a score by which sentences are ranked for a picture.
type ranker interface {
	// Rank adds a pass over sentences and pictures, one of each to a pair: their scores (B, 1).
	Rank(g *ops.Graph, pass string, texts *model.TextInput, images *model.ImageInput) *ops.Node
}

// rank is the objective of retrieval (Kim et al. 2021, §4.3): a picture's own sentence against n false ones, over the N pairs of
// the global batch:
//
//	L = -1/N Σ_i log softmax(s_i0 … s_in)[0]    s_ik = score(picture i, sentence k of i), sentence 0 its own
//
// The false ones are those of n = 15 other pairs of the grain, drawn without replacement; no batch holds a group twice. The paper
// draws from the whole data set, its own sentence among them.
func rank(gr *model.Grain, c Config, o *Options) (Local, error) {
	m, ok := gr.Model.(ranker)
	if !ok {
		return Local{}, unfit("score that ranks sentences")
	}
	n := 1 + cmp.Or(c.Negatives, 15)
	if gr.N < n {
		return Local{}, fmt.Errorf("a picture is ranked with the sentences of %d pairs of the grain, but grains have %d (train.grainSize; negatives)", n, gr.N)
	}
	images := gr.Model.NewImages(gr.G, "rank.image", n*gr.N, gr.Mean, gr.Std)
	texts := gr.Model.NewTexts(gr.G, "rank.text", n*gr.N)
	t := ops.Targets{Classes: gr.G.Ints("rank.own", gr.N)}
	scores := gr.G.Fold(m.Rank(gr.G, "rank", texts, images), t.Classes.Dim) // (N·n, 1) -> (N, n)
	var (
		pics   []ops.Picture
		tokens [][]int32
		own    = make([]int32, gr.N) // the first of each
	)
	bind := func(p *ops.Program, v View) (int, error) {
		pics, tokens = pics[:0], tokens[:0]
		for i := range v.N {
			others := addr.NewPerm(v.At("rank", i), uint64(v.N-1))
			for k := range n {
				j := i
				if k > 0 {
					j = (i + 1 + int(others.At(uint64(k-1)))) % v.N
				}
				pics, tokens = append(pics, v.picture(i)), append(tokens, v.Pair(j).Tokens)
			}
		}
		p.SetInts(t.Classes, own[:v.N])
		if err := texts.Set(p, tokens); err != nil {
			return 0, fmt.Errorf("losses: rank: %w", err)
		}
		// Where a picture has more patches than the model's cap, each of its passes takes others, as the authors' have.
		return v.N, images.Shapes.Set(p, pics, func(k int) uint64 { return addr.Hash(v.At("rank.patches", k/n), uint64(k%n)) })
	}
	return Local{Sums: gr.G.CrossEntropy(scores, t), Bind: bind}, nil
}
