package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"diptych/internal/kernel"
	"diptych/ops"
)

// FusionRunner runs a model of two towers and a fusion forward on pairs, without gradients, for evaluation. A picture is computed once
// for all sentences that a call pairs it with, a sentence once for all calls, as long as keptTexts holds it. It is not safe for
// concurrent use; its kernels use all threads of its pool.
type FusionRunner struct {
	m                   *Fusion
	pictures, sentences int // that a chunk of pairs holds at most
	mean, std           [3]float32
	run                 ops.Run[float32]

	image, text, match, words, maps *fusionProgram // built when first asked for

	states map[string][]float32 // of sentences: their rows after the text tower
	kept   int                  // numbers that states hold
	pixels []uint8
	tokens []float32
	rows   []float32
}

// keptTexts is how many numbers of sentences' rows are kept: 1 GiB.
const keptTexts = 1 << 28

// fusionProgram is one graph of a FusionRunner.
type fusionProgram struct {
	prog   *ops.Program
	images *ImageInput
	texts  *TextInput
	out    *ops.Node
	more   []*ops.Node // further outputs

	// Of match: rows that were computed before.
	rows, tokens *ops.Node
	seqs         *ops.Seqs
	reads        *ops.Ints
	picked       *ops.Ints
}

// NewFusionRunner returns a runner whose chunks have at most so many pictures and so many sentences. weights is the slab that is
// read.
func NewFusionRunner(m *Fusion, weights []float32, pictures, sentences int, mean, std [3]float32, pool *kernel.Pool) *FusionRunner {
	return &FusionRunner{
		m: m, pictures: pictures, sentences: sentences, mean: mean, std: std, run: ops.Run[float32]{Weights: weights, Pool: pool},
		states: map[string][]float32{},
	}
}

// Close gives the memory back.
func (r *FusionRunner) Close() {
	for _, p := range []*fusionProgram{r.image, r.text, r.match, r.words, r.maps} {
		if p != nil {
			p.prog.Close()
		}
	}
	kernel.FreeSlab(r.run.Arena)
}

// program compiles what build adds to a graph.
func (r *FusionRunner) program(to **fusionProgram, build func(p *fusionProgram, g *ops.Graph)) (*fusionProgram, error) {
	if *to == nil {
		g, p := ops.NewGraph[float32](), &fusionProgram{}
		build(p, g)
		var err error
		if p.prog, err = g.Compile(ops.CompileOpt[float32]{Outputs: append([]*ops.Node{p.out}, p.more...), ForwardOnly: true}); err != nil {
			return nil, fmt.Errorf("model: fusion: %w", err)
		}
		if need := p.prog.ArenaSize(); need > len(r.run.Arena) {
			kernel.FreeSlab(r.run.Arena)
			r.run.Arena = kernel.NewSlab(need)
		}
		*to = p
	}
	(*to).prog.Bind(&r.run)
	return *to, nil
}

func (r *FusionRunner) newImages(g *ops.Graph, n int) *ImageInput {
	return r.m.NewImages(g, "image", n, r.mean, r.std)
}

// setPictures binds pictures, which must have the model's size.
func (r *FusionRunner) setPictures(p *fusionProgram, pics []ops.Picture) error {
	height, width := r.m.Config.Vision.Sides()
	r.pixels = r.pixels[:0]
	for i, pic := range pics {
		if pic.W != width || pic.H != height || len(pic.U8) != 3*height*width {
			return fmt.Errorf("model: picture %d of %d×%d pixels with %d levels, want %d×%d and 3·%d·%d: %w", i, pic.W, pic.H, len(pic.U8), width, height, height, width, ops.ErrShape)
		}
		r.pixels = append(r.pixels, pic.U8...)
	}
	p.images.Set(p.prog, r.pixels, len(pics))
	return nil
}

func (p *fusionProgram) forward() error {
	if err := p.prog.Forward(); err != nil {
		return fmt.Errorf("model: fusion: %w", err)
	}
	return nil
}

// encodeImages computes the tokens of at most r.pictures pictures into r.tokens.
func (r *FusionRunner) encodeImages(pics []ops.Picture) error {
	p, err := r.program(&r.image, func(p *fusionProgram, g *ops.Graph) {
		p.images = r.newImages(g, r.pictures)
		p.out, _ = r.m.imageTokens(g, p.images)
	})
	if err != nil {
		return err
	}
	if err := r.setPictures(p, pics); err != nil {
		return err
	}
	if err := p.forward(); err != nil {
		return err
	}
	r.tokens = append(r.tokens[:0], p.prog.Value(p.out)...)
	return nil
}

// encodeTexts computes the rows of those of at most r.sentences sentences that are not known.
func (r *FusionRunner) encodeTexts(texts [][]int32) error {
	p, err := r.program(&r.text, func(p *fusionProgram, g *ops.Graph) {
		p.texts = r.m.NewTexts(g, "text", r.sentences)
		p.out = r.m.textTokens(g, p.texts)
	})
	if err != nil {
		return err
	}
	var todo [][]int32
	var key []byte
	asked := map[string]bool{}
	for _, ids := range texts {
		key = appendKey(key[:0], ids)
		if _, ok := r.states[string(key)]; !ok && !asked[string(key)] {
			asked[string(key)] = true
			todo = append(todo, ids)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if err := p.texts.Set(p.prog, todo); err != nil {
		return err
	}
	if err := p.forward(); err != nil {
		return err
	}
	out, d := p.prog.Value(p.out), r.m.Config.Text.Width
	for _, ids := range todo {
		n := len(ids) * d
		r.states[string(appendKey(key[:0], ids))] = slices.Clone(out[:n])
		r.kept += n
		out = out[n:]
	}
	return nil
}

// Match returns the log odds that picture pics[p[0]] and sentence texts[p[1]] belong together, for each p of pairs. A pair's number
// does not depend on what else is asked for.
func (r *FusionRunner) Match(pics []ops.Picture, texts [][]int32, pairs [][2]int) ([]float32, error) {
	order := make([]int, len(pairs)) // by picture, so that few are held at once
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(pairs[a][0], pairs[b][0]), cmp.Compare(pairs[a][1], pairs[b][1]))
	})
	out := make([]float32, len(pairs))
	for len(order) > 0 {
		// As many pairs as have r.pictures pictures.
		n, held := 0, []int(nil)
		for ; n < len(order); n++ {
			if p := pairs[order[n]][0]; len(held) == 0 || held[len(held)-1] != p {
				if len(held) == r.pictures {
					break
				}
				held = append(held, p)
			}
		}
		var these []ops.Picture
		for _, p := range held {
			these = append(these, pics[p])
		}
		if err := r.encodeImages(these); err != nil {
			return nil, err
		}
		for lo := 0; lo < n; lo += r.sentences {
			if err := r.matchChunk(held, texts, pairs, order[lo:min(lo+r.sentences, n)], out); err != nil {
				return nil, err
			}
		}
		order = order[n:]
	}
	return out, nil
}

// matchChunk scores pairs whose pictures are held.
func (r *FusionRunner) matchChunk(held []int, texts [][]int32, pairs [][2]int, order []int, out []float32) error {
	if r.kept > keptTexts {
		clear(r.states)
		r.kept = 0
	}
	var asked [][]int32
	for _, i := range order {
		asked = append(asked, texts[pairs[i][1]])
	}
	if err := r.encodeTexts(asked); err != nil {
		return err
	}
	v, t := &r.m.Config.Vision, &r.m.Config.Text
	p, err := r.program(&r.match, func(p *fusionProgram, g *ops.Graph) {
		images := &ImageInput{encoded: encodedAs("known"), tokenSeqs: g.Seqs("image.seqs", r.pictures, r.pictures*v.NumTokens())}
		p.tokens = g.Input("image.tokens", images.tokenSeqs.Rows, v.Width)
		images.nodes["tokens"] = p.tokens
		p.images = images
		p.seqs = g.Seqs("text.seqs", r.sentences, r.sentences*t.ContextLength)
		p.rows, p.reads = g.Input("text.rows", p.seqs.Rows, t.Width), g.Ints("reads", r.sentences)
		x := r.m.fuse(g, p.rows, p.seqs, images, p.reads, g.First(p.seqs), "match")
		p.out = r.m.match.forward(g, x, ops.LinearOpt{})
	})
	if err != nil {
		return err
	}
	r.rows = r.rows[:0]
	offsets, reads := []int32{0}, []int32(nil)
	var key []byte
	for k, i := range order {
		key = appendKey(key[:0], asked[k])
		r.rows = append(r.rows, r.states[string(key)]...)
		offsets = append(offsets, int32(len(r.rows)/t.Width))
		at, _ := slices.BinarySearch(held, pairs[i][0])
		reads = append(reads, int32(at))
	}
	p.prog.SetSeqs(p.images.tokenSeqs, every(v.NumTokens(), len(held)))
	p.prog.SetInput(p.tokens, r.tokens)
	p.prog.SetSeqs(p.seqs, offsets)
	p.prog.SetInput(p.rows, r.rows)
	p.prog.SetInts(p.reads, reads)
	if err := p.forward(); err != nil {
		return err
	}
	scores := p.prog.Value(p.out)
	for k, i := range order {
		out[i] = scores[2*k+1] - scores[2*k]
	}
	return nil
}

// Words hands the scores of every word (V) at the listed places of each sentence, which ascend, to visit. The scores are valid
// during the call only.
func (r *FusionRunner) Words(pics []ops.Picture, texts [][]int32, places [][]int, visit func(pair, place int, scores []float32)) error {
	n, vocab := r.pictures, r.m.Config.Text.VocabSize
	for lo := 0; lo < len(pics); lo += n {
		hi := min(lo+n, len(pics))
		rows := packedRows(texts[lo:hi], places[lo:hi])
		if len(rows) == 0 {
			continue
		}
		p, err := r.program(&r.words, func(p *fusionProgram, g *ops.Graph) {
			p.images, p.texts = r.newImages(g, n), r.m.NewTexts(g, "text", n)
			p.picked = g.Ints("rows", n*p.texts.Context())
			hidden, table, bias := r.m.FillWords(g, "fill", p.texts, p.images, p.picked)
			p.out = g.Linear(hidden, table, bias, ops.LinearOpt{})
		})
		if err != nil {
			return err
		}
		if err := r.setPictures(p, pics[lo:hi]); err != nil {
			return err
		}
		if err := p.texts.Set(p.prog, texts[lo:hi]); err != nil {
			return err
		}
		p.prog.SetInts(p.picked, rows)
		if err := p.forward(); err != nil {
			return err
		}
		scores := p.prog.Value(p.out)
		for i := lo; i < hi; i++ {
			for _, k := range places[i] {
				visit(i, k, scores[:vocab])
				scores = scores[vocab:]
			}
		}
	}
	return nil
}

// Align matches one picture with one sentence and says where its tokens look: Plan is the attention of each token to the patches in
// the last fusion block, the mean over its heads, in shares of what falls on patches, divided by the number of tokens.
func (r *FusionRunner) Align(pic ops.Picture, text []int32) (*Alignment, error) {
	p, err := r.program(&r.maps, func(p *fusionProgram, g *ops.Graph) {
		p.images, p.texts = r.newImages(g, 1), r.m.NewTexts(g, "text", 1)
		p.out = r.m.MatchRead(g, "match", p.texts, p.images, nil)
		p.more = r.m.attention(g, p.texts, p.images)
	})
	if err != nil {
		return nil, err
	}
	if err := r.setPictures(p, []ops.Picture{pic}); err != nil {
		return nil, err
	}
	if err := p.texts.Set(p.prog, [][]int32{text}); err != nil {
		return nil, err
	}
	if err := p.forward(); err != nil {
		return nil, err
	}
	v, scores := &r.m.Config.Vision, p.prog.Value(p.out)
	grid, patches := v.Grid(), v.NumPatches()
	a := &Alignment{LogOdds: scores[1] - scores[0], Rows: grid[0], Cols: grid[1], Words: max(0, len(text)-2)}
	a.Plan = make([]float64, patches*a.Words)
	q, kv, heads, d := p.prog.Value(p.more[0]), p.prog.Value(p.more[1]), r.m.Config.Text.NumHeads, r.m.Config.Text.Width
	keys, dim := len(kv)/(2*d), d/heads
	for w := range a.Words {
		total := 0.0
		for h := range heads {
			weights, top := make([]float64, keys), math.Inf(-1)
			for j := range keys {
				for c := range dim {
					weights[j] += float64(q[(w+1)*d+h*dim+c]) * float64(kv[j*2*d+h*dim+c]) / math.Sqrt(float64(dim))
				}
				top = max(top, weights[j])
			}
			sum := 0.0
			for j := range weights {
				weights[j] = math.Exp(weights[j] - top)
				sum += weights[j]
			}
			for j, weight := range weights[keys-patches:] {
				a.Plan[j*a.Words+w] += weight / sum
				total += weight / sum
			}
		}
		for j := range patches {
			a.Plan[j*a.Words+w] /= total * float64(a.Words)
		}
	}
	return a, nil
}
