package experiments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"diptych/checkpoints"
	"diptych/data/arrowset"
	"diptych/data/remote"
	"diptych/data/transform"
	"diptych/eval"
	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
)

// encodeChunk is how many pictures or texts are encoded at once.
const encodeChunk = 128

// encoder gives pictures and sentences the rows of a model: unit rows in one space, or a classifier's scores. It implements
// eval.Featurer and, for a classifier, eval.Classifier. One call at a time.
type encoder struct {
	config  *Config
	parts   *parts
	pool    *kernel.Pool
	weights []float32
	runner  *model.Runner        // of pictures it computes their rows and the image tower's features
	scratch sync.Pool            // of *decodeScratch
	known   map[string][]float32 // rows of sentences that a frozen tower gave before; nil if the tower learns
}

type decodeScratch struct {
	image, out transform.Image
	scratch    transform.Scratch
}

// outputs are what is computed of pictures, their rows and their features, and of sentences when a model is measured or used; the second is nil
// for a model that reads no texts.
func outputs(m model.Model) (func(*ops.Graph, *model.ImageInput) []*ops.Node, func(*ops.Graph, *model.TextInput) *ops.Node) {
	var rows func(*ops.Graph, *model.ImageInput) *ops.Node
	var text func(*ops.Graph, *model.TextInput) *ops.Node
	switch m := m.(type) {
	case losses.TwoTower:
		rows, text = m.EncodeImage, m.EncodeText
	case *model.ViT:
		if rows = m.Embed; m.NumClasses() > 0 {
			rows = func(g *ops.Graph, in *model.ImageInput) *ops.Node { return m.Scores(g, m.Features(g, in)) }
		}
	default:
		panic(fmt.Sprintf("experiments: no outputs of %T", m)) // every kind of model has its case
	}
	return func(g *ops.Graph, in *model.ImageInput) []*ops.Node {
		return []*ops.Node{rows(g, in), m.(featurer).Features(g, in)}
	}, text
}

// Tasks lists what can be measured of the model.
func (e *encoder) Tasks() []eval.Task { return tasks(e.config) }

// tasks lists what can be measured of a recipe's model.
func tasks(c *Config) []eval.Task {
	if c.Model.Kind == "vilt" {
		return pairTasks(c)
	}
	if c.Model.HasTexts() {
		both := []eval.Task{eval.TaskRetrieval, eval.TaskZeroShot}
		if c.Model.Kind == "fusion" {
			both = append(both, pairTasks(c)...)
		}
		return both
	}
	if c.Model.NumClasses == 0 {
		return nil
	}
	return []eval.Task{eval.TaskClassify}
}

// Classes returns the classes of a classifier's scores.
func (e *encoder) Classes() (system string, classes []arrowset.Class) {
	return e.config.Data.Classes, e.parts.classes
}

func newEncoder(c *Config, p *parts, weights []float32, pool *kernel.Pool) (*encoder, error) {
	picture, text := outputs(p.model)
	r, err := model.NewRunner(p.model, picture, text, weights, encodeChunk, p.eval.Mean, p.eval.Std, pool)
	if err != nil {
		return nil, err
	}
	e := &encoder{config: c, parts: p, pool: pool, weights: weights, runner: r, scratch: sync.Pool{New: func() any { return new(decodeScratch) }}}
	if m, ok := p.model.(*model.CLIP); ok && m.TextFrozen() {
		e.known = map[string][]float32{}
	}
	return e, nil
}

func (e *encoder) measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error) {
	return eval.Run(ctx, e, set, o)
}

func (e *encoder) close() {
	e.runner.Close()
}

// EmbedDim returns the numbers of a row: E, or K of a classifier, or D of a ViT without one, its representation layer's where it has that.
func (e *encoder) EmbedDim() int { return e.runner.Dim() }

// ImageSides returns the size of a picture in pixels.
func (e *encoder) ImageSides() (height, width int) { return e.config.Model.Vision.Sides() }

// Prepare decodes a picture and runs the recipe's evaluation transforms: (height, width, 3) levels. It is safe for concurrent use.
func (e *encoder) Prepare(encoded []byte, dst []uint8) error {
	s := e.scratch.Get().(*decodeScratch)
	defer e.scratch.Put(s)
	if err := e.parts.eval.Decode(encoded, &s.image, &s.scratch); err != nil {
		return err
	}
	s.out.Pix = dst[:len(dst):len(dst)]
	defer func() { s.out.Pix = nil }() // it is the caller's
	return e.parts.eval.Apply(&s.image, 0, &s.out, &s.scratch)
}

// Images encodes n pictures into (n, EmbedDim). at fills picture i, from several goroutines at once; while one chunk is
// encoded the next is filled.
func (e *encoder) Images(ctx context.Context, n int, at func(i int, dst []uint8) error) ([]float32, error) {
	rows := make([]float32, n*e.EmbedDim())
	return rows, e.encode(ctx, n, at, rows, nil)
}

// featurer is a model with an image tower whose pooled rows can be had.
type featurer interface {
	FeatureDim() int
	Features(g *ops.Graph, in *model.ImageInput) *ops.Node
}

// FeatureDim returns D, the numbers of a picture's features.
func (e *encoder) FeatureDim() int { return e.parts.model.(featurer).FeatureDim() }

// Features gives n pictures' features before they are projected or scored: (n, D), and their rows (n, EmbedDim) too if they are wanted.
func (e *encoder) Features(ctx context.Context, n int, at func(i int, dst []uint8) error, wantRows bool) (features, rows []float32, err error) {
	features = make([]float32, n*e.FeatureDim())
	if wantRows {
		rows = make([]float32, n*e.EmbedDim())
	}
	return features, rows, e.encode(ctx, n, at, rows, features)
}

// encode puts what is computed of n pictures into rows and features; nil is left.
func (e *encoder) encode(ctx context.Context, n int, at func(i int, dst []uint8) error, rows, features []float32) error {
	height, width := e.ImageSides()
	size := 3 * height * width
	from := func(x []float32, at int) []float32 {
		if x == nil {
			return nil
		}
		return x[at:]
	}
	fill := func(lo int, pixels []uint8) error {
		k := min(encodeChunk, n-lo)
		errs := make([]error, k)
		var wg sync.WaitGroup
		const piece = 16
		for a := 0; a < k; a += piece {
			wg.Go(func() {
				for i := a; i < min(a+piece, k) && ctx.Err() == nil; i++ {
					errs[i] = at(lo+i, pixels[i*size:(i+1)*size])
				}
			})
		}
		wg.Wait()
		return errors.Join(append(errs, ctx.Err())...)
	}
	next := make(chan error, 1)
	pixels, ahead := make([]uint8, encodeChunk*size), make([]uint8, encodeChunk*size)
	next <- fill(0, ahead)
	for lo := 0; lo < n; lo += encodeChunk {
		if err := <-next; err != nil {
			return err
		}
		pixels, ahead = ahead, pixels
		if lo+encodeChunk < n {
			go func() { next <- fill(lo+encodeChunk, ahead) }()
		} else {
			next <- nil
		}
		k := min(encodeChunk, n-lo)
		if err := e.runner.Images(pixels[:k*size], k, from(rows, lo*e.EmbedDim()), from(features, lo*e.FeatureDim())); err != nil {
			return errors.Join(err, <-next)
		}
	}
	return nil
}

// Texts encodes sentences into (n, E), unit rows.
func (e *encoder) Texts(ctx context.Context, texts []string) ([]float32, error) {
	if e.parts.tok == nil {
		return nil, fmt.Errorf("experiments: a model of kind %s reads no texts: %w", e.config.Model.Kind, eval.ErrRequest)
	}
	dim := e.EmbedDim()
	out := make([]float32, len(texts)*dim)
	var todo []int // texts that are not known yet
	for i, t := range texts {
		if row, ok := e.known[t]; ok {
			copy(out[i*dim:], row)
		} else {
			todo = append(todo, i)
		}
	}
	tokens, rows := make([][]int32, 0, encodeChunk), make([]float32, encodeChunk*dim)
	for lo := 0; lo < len(todo); lo += encodeChunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		chunk := todo[lo:min(lo+encodeChunk, len(todo))]
		tokens = tokens[:0]
		for _, i := range chunk {
			tokens = append(tokens, e.parts.tok.Encode(texts[i], nil))
		}
		if err := e.runner.Texts(tokens, rows); err != nil {
			return nil, err
		}
		for k, i := range chunk {
			row := rows[k*dim : (k+1)*dim]
			copy(out[i*dim:], row)
			if e.known != nil {
				e.known[texts[i]] = slices.Clone(row)
			}
		}
	}
	return out, nil
}

// opened is a trained model's weights with the recipe they belong to.
type opened struct {
	Warnings []error // damaged checkpoints that were passed over
	Step     int     // updates that the model has seen

	config  *Config
	parts   *parts
	weights []float32
	pool    *kernel.Pool
}

// Model is a trained model opened for use: it encodes pictures and sentences. It implements eval.Model.
type Model struct {
	*encoder
	*opened
	fused *pairEncoder // of a model with a fusion, made when first asked for
}

// pairs is what reads pictures and sentences together.
func (m *Model) pairs() *pairEncoder {
	if m.fused == nil {
		m.fused = newFusionEncoder(m.opened.config, m.opened.parts, m.opened.parts.model.(*model.Fusion), m.opened.weights, m.opened.pool)
	}
	return m.fused
}

// ErrPairs marks a model that reads pictures and sentences together, so that neither has features of its own.
var ErrPairs = errors.New("the model reads a picture and a sentence together; neither has features of its own")

// ErrFeatures is the opposite: a model that does not read them together.
var ErrFeatures = errors.New("a model that reads a picture and a sentence together is needed, such as kind vilt")

// openWeights reads the weights of a run directory, a checkpoint or a finished model's folder. Averaged weights are taken where the run
// keeps them. threads share the work.
func openWeights(dir string, threads int) (*opened, error) {
	t, err := openTrained(dir)
	if err != nil {
		return nil, err
	}
	o := &opened{Warnings: t.warnings, Step: t.Step, config: t.config, parts: t.parts}
	if o.weights, err = t.weights(); err != nil {
		return nil, err
	}
	o.pool = kernel.NewPool(threads)
	return o, nil
}

func (o *opened) free() {
	o.pool.Close()
	kernel.FreeSlab(o.weights)
}

// OpenModel opens the model of a run directory, a checkpoint or a finished model's folder. Averaged weights are taken where
// the run keeps them. threads share the work. A model of pairs is ErrPairs.
func OpenModel(dir string, threads int) (_ *Model, err error) {
	defer kernel.CatchNoMemory(&err)
	o, err := openWeights(dir, threads)
	if err != nil {
		return nil, err
	}
	if o.config.Model.Kind == "vilt" {
		o.free()
		return nil, fmt.Errorf("experiments: %s: %w", dir, ErrPairs)
	}
	e, err := newEncoder(o.config, o.parts, o.weights, o.pool)
	if err != nil {
		o.free()
		return nil, err
	}
	return &Model{encoder: e, opened: o}, nil
}

// Close gives memory and threads back.
func (m *Model) Close() {
	if m.fused != nil {
		m.fused.close()
	}
	m.close()
	m.free()
}

// Pairs is a trained model of pairs opened for use. It implements eval.PairModel.
type Pairs struct {
	*pairEncoder
	*opened
}

// OpenPairs is OpenModel for models that read a picture and a sentence together; another model is an error.
func OpenPairs(dir string, threads int) (_ *Pairs, err error) {
	defer kernel.CatchNoMemory(&err)
	o, err := openWeights(dir, threads)
	if err != nil {
		return nil, err
	}
	switch m := o.parts.model.(type) {
	case *model.ViLT:
		return &Pairs{newPairEncoder(o.config, o.parts, m, o.weights, o.pool), o}, nil
	case *model.Fusion:
		return &Pairs{newFusionEncoder(o.config, o.parts, m, o.weights, o.pool), o}, nil
	}
	o.free()
	return nil, fmt.Errorf("experiments: %s holds a model of kind %s: %w", dir, o.config.Model.Kind, ErrFeatures)
}

// Close gives memory and threads back.
func (m *Pairs) Close() {
	m.close()
	m.free()
}

// Measure measures the model on splits of a data set.
func (m *Pairs) Measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error) {
	own := m.Config().evalOptions(set.Manifest(), m.Config().Train.Steps)
	if len(o.Splits) == 0 {
		o.Splits = own.Splits
	}
	o.MatchPictures = own.MatchPictures
	return m.measure(ctx, set, o)
}

// Measure measures the model on splits of a data set.
func (m *Model) Measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error) {
	if m.opened.config.Model.Kind != "fusion" {
		return m.measure(ctx, set, o)
	}
	if len(o.Splits) == 0 {
		o.Splits = m.Config().evalOptions(set.Manifest(), m.Config().Train.Steps).Splits
	}
	return measureBoth(ctx, m.encoder, m.pairs, set, o)
}

// Updates returns how many updates the model has seen.
func (o *opened) Updates() int { return o.Step }

// Config returns the recipe that the model was trained by.
func (o *opened) Config() *Config { return o.config }

// Pool returns the threads that the model computes with, for what is measured on its features.
func (o *opened) Pool() *kernel.Pool { return o.pool }

// OpenData opens a data set by path; an empty one is the run's own, or the first of several. Of a remote set, which cache
// holds, the shards with rows of the splits that are measured or learnt from are opened.
func (o *opened) OpenData(ctx context.Context, path string, cache remote.Options, opt eval.Options) (*arrowset.Set, error) {
	if path == "" {
		path = o.config.Data.All()[0].Path
	}
	return OpenSet(ctx, path, cache, func(m *arrowset.Manifest) []string {
		splits := opt.Splits
		if len(splits) == 0 {
			splits = o.config.evalOptions(m, o.config.Train.Steps).Splits
		}
		return append(slices.Clip(splits), opt.Sources()...)
	})
}

// Files of a checkpoint.
const (
	fileModel   = "model"
	fileMoments = "moments"
	fileAverage = "average"
)

// tensors names the parameters' parts of a slab.
func tensors(l *model.Layout, prefix string, slab []float32) []checkpoints.Tensor {
	var out []checkpoints.Tensor
	for _, p := range l.Params {
		if p.Frozen && len(slab) == l.Trained { // of moments, which it has none of
			continue
		}
		out = append(out, checkpoints.Tensor{Name: prefix + p.Name, Shape: p.Shape, Data: p.Slice(slab)})
	}
	return out
}
