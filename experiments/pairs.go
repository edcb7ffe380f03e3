package experiments

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"diptych/data/transform"
	"diptych/eval"
	"diptych/internal/addr"
	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
)

// pairChunk is how many pairs are scored at once.
const pairChunk = 64

// pairEncoder reads pictures and sentences together. It implements eval.PairModel. One call at a time, but for Picture.
type pairEncoder struct {
	config  *Config
	parts   *parts
	runner  *model.PairRunner
	fusion  *model.FusionRunner // in its place, for a model of two towers and a fusion
	scratch sync.Pool           // of *decodeScratch
	tokens  map[string][]int32
}

func newPairEncoder(c *Config, p *parts, m *model.ViLT, weights []float32, pool *kernel.Pool) *pairEncoder {
	return &pairEncoder{
		config: c, parts: p, runner: model.NewPairRunner(m, weights, pairChunk, p.eval.Mean, p.eval.Std, pool),
		scratch: sync.Pool{New: func() any { return new(decodeScratch) }}, tokens: map[string][]int32{},
	}
}

// newFusionEncoder is newPairEncoder for a model of two towers and a fusion.
func newFusionEncoder(c *Config, p *parts, m *model.Fusion, weights []float32, pool *kernel.Pool) *pairEncoder {
	return &pairEncoder{
		config: c, parts: p, fusion: model.NewFusionRunner(m, weights, pairChunk/2, 4*pairChunk, p.eval.Mean, p.eval.Std, pool),
		scratch: sync.Pool{New: func() any { return new(decodeScratch) }}, tokens: map[string][]int32{},
	}
}

// pairTasks lists what can be measured of a recipe's model of pairs: what its heads were trained for.
func pairTasks(c *Config) []eval.Task {
	var out []eval.Task
	h := losses.Heads(c.Losses)
	switch {
	case h.Answers == model.AnswersOfQuestion:
		out = append(out, eval.TaskVQA)
	case h.Answers != "" && c.readsTwo():
		out = append(out, eval.TaskNLVR2)
	case h.Answers != "":
		out = append(out, eval.TaskClassify)
	}
	if h.Match || h.Rank {
		out = append(out, eval.TaskMatch)
	}
	if h.Words {
		out = append(out, eval.TaskFill)
	}
	return out
}

// Tasks lists what can be measured of the model.
func (e *pairEncoder) Tasks() []eval.Task { return pairTasks(e.config) }

// Picture decodes a picture and runs the recipe's evaluation transforms.
func (e *pairEncoder) Picture(encoded []byte) (*transform.Image, error) {
	s := e.scratch.Get().(*decodeScratch)
	defer e.scratch.Put(s)
	if err := e.parts.eval.Decode(encoded, &s.image, &s.scratch); err != nil {
		return nil, err
	}
	out := new(transform.Image)
	return out, e.parts.eval.Apply(&s.image, 0, out, &s.scratch)
}

// encode returns a sentence's tokens, which stay.
func (e *pairEncoder) encode(text string) []int32 {
	ids, ok := e.tokens[text]
	if !ok {
		ids = e.parts.tok.Encode(text, nil)
		e.tokens[text] = ids
	}
	return ids
}

// picture is how the model takes a picture.
func picture(im *transform.Image) ops.Picture { return ops.Picture{W: im.W, H: im.H, U8: im.Pix} }

// Match returns the log odds of each pair.
func (e *pairEncoder) Match(ctx context.Context, pictures []*transform.Image, texts []string, pairs [][2]int) ([]float32, error) {
	if e.fusion != nil {
		return e.matchFusion(ctx, pictures, texts, pairs)
	}
	out := make([]float32, 0, len(pairs))
	var pics []ops.Picture
	var tokens [][]int32
	for lo := 0; lo < len(pairs); lo += pairChunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		pics, tokens = pics[:0], tokens[:0]
		for _, p := range pairs[lo:min(lo+pairChunk, len(pairs))] {
			pics, tokens = append(pics, picture(pictures[p[0]])), append(tokens, e.encode(texts[p[1]]))
		}
		var err error
		if out, err = e.runner.Match(pics, tokens, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// matchFusion is Match on towers that are computed once for many pairs.
func (e *pairEncoder) matchFusion(ctx context.Context, pictures []*transform.Image, texts []string, pairs [][2]int) ([]float32, error) {
	pics, tokens := make([]ops.Picture, len(pictures)), make([][]int32, len(texts))
	for _, p := range pairs {
		pics[p[0]], tokens[p[1]] = picture(pictures[p[0]]), e.encode(texts[p[1]])
	}
	const piece = 1 << 14 // pairs between two looks at the context
	out := make([]float32, 0, len(pairs))
	for part := range slices.Chunk(pairs, piece) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		scores, err := e.fusion.Match(pics, tokens, part)
		if err != nil {
			return nil, err
		}
		out = append(out, scores...)
	}
	return out, nil
}

// words hands the scores of hidden words to visit; see model.PairRunner.
func (e *pairEncoder) words(pics []ops.Picture, texts [][]int32, places [][]int, visit func(pair, place int, scores []float32)) error {
	if e.fusion != nil {
		return e.fusion.Words(pics, texts, places, visit)
	}
	return e.runner.Words(pics, texts, places, visit)
}

// align matches a picture with a sentence and aligns its tokens with the patches.
func (e *pairEncoder) align(pic ops.Picture, text []int32) (*model.Alignment, error) {
	if e.fusion != nil {
		return e.fusion.Align(pic, text)
	}
	return e.runner.Align(pic, text)
}

// Fill hides words as the recipe's mlm does, but every hidden token reads [MASK].
func (e *pairEncoder) Fill(ctx context.Context, pictures []*transform.Image, texts []string, pairs [][2]int, key uint64) (eval.Guesses, error) {
	var g eval.Guesses
	hider := losses.NewHider(e.config.Losses, e.parts.tok)
	for lo := 0; lo < len(pairs); lo += pairChunk {
		if err := ctx.Err(); err != nil {
			return g, err
		}
		var pics []ops.Picture
		var read, whole [][]int32
		var places [][]int
		for i, p := range pairs[lo:min(lo+pairChunk, len(pairs))] {
			ids := e.encode(texts[p[1]])
			hidden, at := hider.Hide(ids, addr.Hash(key, uint64(lo+i)))
			pics, read, whole, places = append(pics, picture(pictures[p[0]])), append(read, hidden), append(whole, ids), append(places, at)
		}
		err := e.words(pics, read, places, func(pair, place int, scores []float32) {
			want := whole[pair][place]
			nll, best := softmaxNLL(scores, int(want))
			g.Words, g.NLL = g.Words+1, g.NLL+nll
			if best == int(want) {
				g.Right++
			}
		})
		if err != nil {
			return g, err
		}
	}
	return g, nil
}

func (e *pairEncoder) measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error) {
	o.Kinds = e.config.Data.All()[0].CaptionKinds
	return eval.Pairs(ctx, e, set, o)
}

func (e *pairEncoder) close() {
	if e.fusion != nil {
		e.fusion.Close()
		return
	}
	e.runner.Close()
}

// Word is a guess for a hidden word.
type Word struct {
	Text        string  `json:"text"`
	Probability float64 `json:"probability"`
}

// ErrNoMask marks a sentence without a hidden word, or a vocabulary that cannot hide one.
var ErrNoMask = errors.New("no [MASK] in the sentence")

// FillText guesses each [MASK] of a sentence beside a picture, each with the most probable words, best first.
func (m *Pairs) FillText(im *transform.Image, text string, top int) ([][]Word, error) {
	if !losses.Heads(m.Config().Losses).Words {
		return nil, fmt.Errorf("experiments: %w: it was not trained to guess words; its recipe has no mlm", ErrQuestion)
	}
	ids := m.encode(text)
	mask := m.pairEncoder.parts.tok.Mask()
	var places []int
	for i, id := range ids {
		if id == mask && mask >= 0 {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return nil, ErrNoMask
	}
	var out [][]Word
	err := m.words([]ops.Picture{picture(im)}, [][]int32{ids}, [][]int{places}, func(_, _ int, scores []float32) {
		order := make([]int32, m.pairEncoder.parts.tok.VocabSize())
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(scores[b], scores[a]) })
		var words []Word
		nll, best := softmaxNLL(scores, int(order[0]))
		for _, id := range order[:min(top, len(order))] {
			words = append(words, Word{m.pairEncoder.parts.tok.Tokens([]int32{id})[0], math.Exp(float64(scores[id]-scores[best]) - nll)})
		}
		out = append(out, words)
	})
	return out, err
}

// Score is how well a picture and a sentence belong together, and where the sentence's tokens find themselves in it, or look.
type Score struct {
	Probability *float64 `json:"probability,omitempty"` // nil of a model that was trained to rank and not to match
	LogOdds     float64  `json:"logOdds"`               // that they do; of such a model only differences between sentences tell something
	Tokens      []string `json:"tokens"`
	Rows        int      `json:"rows"` // of patches
	Cols        int      `json:"cols"`
	// Plan (rows·cols, tokens) is the mass of optimal transport between patch and token; of a model with two towers the share of the
	// token's attention in the last fusion block. Its sum is 1.
	Plan []float64 `json:"plan"`
}

// Score matches a picture with a sentence.
func (m *Pairs) Score(im *transform.Image, text string) (*Score, error) {
	h := losses.Heads(m.Config().Losses)
	if !h.Match && !h.Rank {
		return nil, fmt.Errorf("experiments: %w: it was not trained to match; its recipe has neither itm nor rank", ErrQuestion)
	}
	ids := m.encode(text)
	a, err := m.align(picture(im), ids)
	if err != nil {
		return nil, err
	}
	s := &Score{LogOdds: float64(a.LogOdds), Rows: a.Rows, Cols: a.Cols, Plan: a.Plan}
	if h.Match {
		p := 1 / (1 + math.Exp(-s.LogOdds))
		s.Probability = &p
	}
	if len(ids) > 2 {
		s.Tokens = m.pairEncoder.parts.tok.Tokens(ids[1 : len(ids)-1])
	}
	return s, nil
}

// softmaxNLL returns -log softmax(scores)[want] and the highest score's place.
func softmaxNLL(scores []float32, want int) (nll float64, best int) {
	top, sum := slices.Max(scores), 0.0
	best = slices.Index(scores, top)
	for _, s := range scores {
		sum += math.Exp(float64(s - top))
	}
	return math.Log(sum) + float64(top-scores[want]), best
}
