package train

import (
	"fmt"
	"time"

	"diptych/data/batch"
	"diptych/internal/kernel"
	"diptych/model"
	"diptych/ops"
)

// worker runs the grains of its lanes on a program of its own.
type worker struct {
	pool         *kernel.Pool
	prog         *ops.Program
	images       *model.ImageInput
	texts        *model.TextInput
	x, y         *ops.Node // (grain, E)
	first        int       // global number of its first grain
	grains       int
	lanes        int
	arenas       [][]float32 // one per grain that keeps its activations, in order, and one for those that do not
	slabs        [][]float32 // of gradients: log2(lanes)+1, one per level of the sum's tree
	tokens       [][]int32
	run          ops.Run[float32]
	imageSize, e int // levels of a picture; width of a feature
}

// newWorker builds the graph of one grain. It allocates nothing large.
func newWorker(m *model.CLIP, cfg *Config, mean, std [3]float32, seed uint64) (*worker, error) {
	g := ops.NewGraph[float32]()
	n := cfg.Grain()
	w := &worker{e: m.Config.EmbedDim, imageSize: 3 * m.Config.Vision.ImageSize * m.Config.Vision.ImageSize}
	w.images, w.texts = m.NewImageInput(g, n, mean, std), m.NewTextInput(g, n)
	w.x, w.y = m.EncodeImage(g, w.images), m.EncodeText(g, w.texts)
	if err := g.Err(); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	var err error
	if w.prog, err = g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{w.x, w.y}}); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	w.run = ops.Run[float32]{Train: true, Seed: seed}
	w.tokens = make([][]int32, n)
	return w, nil
}

// bind points the program at grain i of the worker (from 0): its pairs, and its arena.
func (w *worker) bind(b *batch.Batch, i int) error {
	n := len(w.tokens)
	lo := (w.first + i) * n
	w.run.Step, w.run.Base, w.run.Pool = b.Step, lo, w.pool
	w.run.Arena = w.arenas[min(i, len(w.arenas)-1)]
	w.prog.Bind(&w.run)
	if at := lo * w.imageSize; b.Normalized != nil {
		w.images.SetFloat(w.prog, b.Normalized[at:at+n*w.imageSize], n)
	} else {
		w.images.Set(w.prog, b.Pixels[at:at+n*w.imageSize], n)
	}
	for j := range n {
		w.tokens[j] = b.Pairs[lo+j].Tokens
	}
	return w.texts.Set(w.prog, w.tokens)
}

// forward computes the features of all its grains into the slabs x and y (N, E) of the global batch.
func (w *worker) forward(b *batch.Batch, x, y []float32) error {
	for i := range w.grains {
		if err := w.bind(b, i); err != nil {
			return err
		}
		if err := w.prog.Forward(); err != nil {
			return err
		}
		at := (w.first + i) * len(w.tokens) * w.e
		copy(x[at:], w.prog.Value(w.x))
		copy(y[at:], w.prog.Value(w.y))
	}
	return nil
}

// backward sums its lanes' gradients into slabs[0] from the gradients dx and dy (N, E) of the features. A grain whose
// activations were not kept runs forward again, with the same addresses and so with the same bits.
func (w *worker) backward(b *batch.Batch, dx, dy []float32) error {
	n, perLane := len(w.tokens)*w.e, w.grains/w.lanes
	for lane := range w.lanes {
		level := depth(lane)
		slab := w.slabs[level]
		begun := time.Now()
		w.pool.For(len(slab), 1<<16, func(lo, hi, _ int) { clear(slab[lo:hi]) })
		w.run.Profile.Add(sumKind, sumKind, ops.PhaseUpdate, 0, time.Since(begun))
		w.run.Grads = slab
		for i := lane * perLane; i < (lane+1)*perLane; i++ {
			if err := w.bind(b, i); err != nil {
				return err
			}
			if !w.kept(i) {
				w.run.Again = true
				err := w.prog.Forward()
				w.run.Again = false
				if err != nil {
					return err
				}
			}
			at := (w.first + i) * n
			w.prog.SetOutputGrad(w.x, dx[at:at+n])
			w.prog.SetOutputGrad(w.y, dy[at:at+n])
			if err := w.prog.Backward(); err != nil {
				return err
			}
		}
		begun = time.Now()
		w.merge(lane, level)
		w.run.Profile.Add(sumKind, sumKind, ops.PhaseUpdate, 0, time.Since(begun))
	}
	return nil
}

// kept tells whether grain i still has its activations when the backward pass begins: it has an arena of its own, or it
// was the last to use the shared one.
func (w *worker) kept(i int) bool {
	own := len(w.arenas) - 1
	return i < own || own == w.grains-1
}

// depth returns how many partial sums wait when a lane begins: the ones among its number's binary digits.
func depth(lane int) int {
	d := 0
	for ; lane > 0; lane &= lane - 1 {
		d++
	}
	return d
}

// merge adds equal subtrees after a lane, as a binary counter carries: left += right.
func (w *worker) merge(lane, level int) {
	for ; lane&1 == 1; lane >>= 1 {
		kernel.AXPY(w.pool, w.slabs[level-1], 1, w.slabs[level])
		level--
	}
}
