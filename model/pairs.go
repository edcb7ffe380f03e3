package model

import (
	"fmt"
	"slices"

	"diptych/internal/kernel"
	"diptych/ops"
)

// PairRunner runs a model of pairs forward, without gradients, for evaluation. All patches of a picture are taken. It is not safe
// for concurrent use; its kernels use all threads of its pool.
type PairRunner struct {
	m            *ViLT
	chunk        int
	mean, std    [3]float32
	pool         *kernel.Pool
	weights      []float32
	match, words *pairProgram // built when first asked for
	align        *pairProgram
	answer       *pairProgram
	arena        []float32
}

// pairProgram is one graph over pairs.
type pairProgram struct {
	prog   *ops.Program
	images *ImageInput
	second *ImageInput   // nil where one picture is read
	others []ops.Picture // those of second
	texts  *TextInput
	rows   *ops.Ints
	out    *ops.Node
	states *ops.Node
	run    ops.Run[float32]
}

// NewPairRunner returns a runner of chunks of at most chunk pairs. weights is the slab that is read.
func NewPairRunner(m *ViLT, weights []float32, chunk int, mean, std [3]float32, pool *kernel.Pool) *PairRunner {
	whole := *m
	whole.cfg.MaxPatches = 0
	return &PairRunner{m: &whole, chunk: chunk, mean: mean, std: std, pool: pool, weights: weights}
}

// Close gives the memory back.
func (r *PairRunner) Close() {
	for _, p := range []*pairProgram{r.match, r.words, r.align, r.answer} {
		if p != nil {
			p.prog.Close()
		}
	}
	if r.arena != nil {
		kernel.FreeSlab(r.arena)
	}
}

// program compiles what build adds to a graph over pairs.
func (r *PairRunner) program(to **pairProgram, build func(p *pairProgram, g *ops.Graph)) (*pairProgram, error) {
	if *to != nil {
		(*to).run.Arena = r.arena
		return *to, nil
	}
	g := ops.NewGraph[float32]()
	p := &pairProgram{images: r.m.NewImages(g, "image", r.chunk, r.mean, r.std), texts: r.m.NewTexts(g, "text", r.chunk)}
	build(p, g)
	outputs := []*ops.Node{p.out}
	if p.states != nil {
		outputs = append(outputs, p.states)
	}
	var err error
	if p.prog, err = g.Compile(ops.CompileOpt[float32]{Outputs: outputs, ForwardOnly: true}); err != nil {
		return nil, fmt.Errorf("model: pairs: %w", err)
	}
	if need := p.prog.ArenaSize(); need > len(r.arena) {
		if r.arena != nil {
			kernel.FreeSlab(r.arena)
		}
		r.arena = kernel.NewSlab(need)
	}
	p.run = ops.Run[float32]{Weights: r.weights, Arena: r.arena, Pool: r.pool}
	*to = p
	return p, nil
}

// forward runs a program over pairs that are no more than a chunk.
func (p *pairProgram) forward(pics []ops.Picture, texts [][]int32, rows []int32) error {
	p.prog.Bind(&p.run)
	if err := p.texts.Set(p.prog, texts); err != nil {
		return err
	}
	if err := p.images.Shapes.Set(p.prog, pics, nil); err != nil {
		return err
	}
	if p.second != nil {
		if err := p.second.Shapes.Set(p.prog, p.others, nil); err != nil {
			return err
		}
	}
	if p.rows != nil {
		p.prog.SetInts(p.rows, rows)
	}
	if err := p.prog.Forward(); err != nil {
		return fmt.Errorf("model: pairs: %w", err)
	}
	return nil
}

// Match returns, for each picture and the sentence of the same number, the log odds that they belong together, or the score of a
// model that was trained to rank, and appends them to out.
func (r *PairRunner) Match(pics []ops.Picture, texts [][]int32, out []float32) ([]float32, error) {
	p, err := r.program(&r.match, func(p *pairProgram, g *ops.Graph) {
		if r.m.Heads.Rank {
			p.out = r.m.Rank(g, "rank", p.texts, p.images)
			return
		}
		p.out, _, _ = r.m.Match(g, "match", p.texts, p.images, false)
	})
	if err != nil {
		return nil, err
	}
	for lo := 0; lo < len(pics); lo += r.chunk {
		hi := min(lo+r.chunk, len(pics))
		if err := p.forward(pics[lo:hi], texts[lo:hi], nil); err != nil {
			return nil, err
		}
		if r.m.Heads.Rank {
			out = append(out, p.prog.Value(p.out)...)
			continue
		}
		for v := range slices.Chunk(p.prog.Value(p.out), 2) {
			out = append(out, v[1]-v[0])
		}
	}
	return out, nil
}

// packedRows returns the rows that the listed places of each sentence have when the sentences lie one behind another.
func packedRows(texts [][]int32, places [][]int) []int32 {
	var rows []int32
	at := 0
	for i, text := range texts {
		for _, k := range places[i] {
			rows = append(rows, int32(at+k))
		}
		at += len(text)
	}
	return rows
}

// Words hands the scores of every word (V) at the listed places of each sentence, which ascend, to visit. The scores are valid
// during the call only.
func (r *PairRunner) Words(pics []ops.Picture, texts [][]int32, places [][]int, visit func(pair, place int, scores []float32)) error {
	p, err := r.program(&r.words, func(p *pairProgram, g *ops.Graph) {
		p.rows = g.Ints("rows", r.chunk*p.texts.Context())
		hidden, table, bias := r.m.FillWords(g, "fill", p.texts, p.images, p.rows)
		p.out = g.Linear(hidden, table, bias, ops.LinearOpt{})
	})
	if err != nil {
		return err
	}
	for lo := 0; lo < len(pics); lo += r.chunk {
		hi := min(lo+r.chunk, len(pics))
		rows := packedRows(texts[lo:hi], places[lo:hi])
		if len(rows) == 0 {
			continue
		}
		if err := p.forward(pics[lo:hi], texts[lo:hi], rows); err != nil {
			return err
		}
		scores := p.prog.Value(p.out)
		for i := lo; i < hi; i++ {
			for _, k := range places[i] {
				visit(i, k, scores[:r.m.cfg.VocabSize])
				scores = scores[r.m.cfg.VocabSize:]
			}
		}
	}
	return nil
}

// Alignment is where the words of a sentence find themselves in a picture.
type Alignment struct {
	LogOdds    float32   // that they belong together; of a model that was trained to rank and not to match its score
	Rows, Cols int       // of the picture's patches
	Words      int       // tokens between the marks
	Plan       []float64 // (Rows·Cols, Words): the mass that optimal transport moves, Σ = 1; see ops.Alignment
}

// Align matches, or scores, one picture with one sentence and aligns its tokens with the patches.
func (r *PairRunner) Align(pic ops.Picture, text []int32) (*Alignment, error) {
	p, err := r.program(&r.align, func(p *pairProgram, g *ops.Graph) {
		if r.m.Heads.Match {
			p.out, p.states, _ = r.m.Match(g, "align", p.texts, p.images, true)
			return
		}
		pooled, rows, _ := r.m.pooledOfAll(g, "align", p.texts, p.images)
		p.out, p.states = r.m.RankScore(g, pooled), rows
	})
	if err != nil {
		return nil, err
	}
	if err := p.forward([]ops.Picture{pic}, [][]int32{text}, nil); err != nil {
		return nil, err
	}
	v := p.prog.Value(p.out)
	odds := v[0]
	if r.m.Heads.Match {
		odds = v[1] - v[0]
	}
	a := &Alignment{LogOdds: odds, Rows: pic.H / r.m.cfg.PatchSize, Cols: pic.W / r.m.cfg.PatchSize}
	states := p.prog.Value(p.states)
	rows := int32(len(states) / r.m.cfg.Width)
	a.Plan, a.Words, _ = kernel.TransportPlan(&kernel.Transport[float32]{
		X: states, Cols: r.m.cfg.Width, Offsets: []int32{0, rows}, Texts: []int32{0, int32(len(text))},
	}, 0)
	return a, nil
}
