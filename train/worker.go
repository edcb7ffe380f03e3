package train

import (
	"errors"
	"fmt"
	"time"

	"diptych/data/batch"
	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
)

// worker runs the grains of its lanes on a program of its own.
type worker struct {
	pool   *kernel.Pool
	prog   *ops.Program
	images *model.ImageInput // of the pairs' own pictures and sentences, nil where nothing reads them
	texts  *model.TextInput
	x, y   *ops.Node      // (grain, E), nil without a global objective
	locals []losses.Local // in the order of the recipe
	pairs  int            // of a grain
	first  int            // global number of its first grain
	grains int
	lanes  int
	arenas [][]float32 // one per grain that keeps its activations, in order, and one for those that do not
	slabs  [][]float32 // of gradients: log2(lanes)+1, one per level of the sum's tree
	tokens [][]int32
	seeds  [][]float32 // what is fed to each local objective's sums
	run    ops.Run[float32]
}

// newWorker builds the graph of one grain. It allocates nothing large. cache is that of a frozen text tower, or nil.
func newWorker(m model.Model, objectives []losses.Config, cfg *Config, engine Engine, mean, std [3]float32, seed uint64, words losses.Options, cache *model.TextCache) (*worker, error) {
	w := &worker{pairs: cfg.Grain()}
	gr := model.NewGrain(m, w.pairs, mean, std, cache)
	if cfg.Recompute == "block" {
		gr.G.RecomputeBlocks()
	}
	if engine.Precision == "bf16" {
		gr.G.RoundProducts()
	}
	var outputs []*ops.Node
	if losses.HasGlobal(objectives) {
		two, ok := m.(losses.TwoTower)
		if !ok {
			return nil, errors.New("train: a recipe with itc or sigmoid needs a model with an image and a text tower, such as model.kind clip")
		}
		w.x, w.y = losses.Features(gr, two)
		outputs = append(outputs, w.x, w.y)
	}
	var err error
	if w.locals, err = losses.NewLocals(gr, objectives, words); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if err := gr.G.Err(); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	for _, l := range w.locals {
		outputs = append(outputs, l.Sums)
		w.seeds = append(w.seeds, make([]float32, l.Sums.Cols()))
	}
	w.images, w.texts = gr.Own()
	if w.prog, err = gr.G.Compile(ops.CompileOpt[float32]{Outputs: outputs}); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	w.run = ops.Run[float32]{Train: true, Seed: seed}
	return w, nil
}

// bind points the program at grain i of the worker (from 0): its pairs, and its arena. It returns the items that each local
// objective has there.
func (w *worker) bind(b *batch.Batch, i int) (items []int, err error) {
	v := losses.View{Batch: b, Lo: (w.first + i) * w.pairs, N: w.pairs, Seed: w.run.Seed}
	w.run.Step, w.run.Base, w.run.Pool = b.Step, v.Lo, w.pool
	w.run.Arena = w.arenas[min(i, len(w.arenas)-1)]
	w.prog.Bind(&w.run)
	if w.images != nil {
		v.SetImages(w.prog, w.images)
	}
	if w.texts != nil {
		if err := v.SetTexts(w.prog, w.texts, &w.tokens); err != nil {
			return nil, err
		}
	}
	for _, l := range w.locals {
		n, err := l.Bind(w.prog, v)
		if err != nil {
			return nil, err
		}
		items = append(items, n)
	}
	return items, nil
}

// forward computes the features of all its grains into the slabs x and y (N, E) of the global batch, and the local objectives'
// sums into sums, by the number of the grain.
func (w *worker) forward(b *batch.Batch, x, y []float32, sums [][]sum) error {
	for i := range w.grains {
		items, err := w.bind(b, i)
		if err != nil {
			return err
		}
		if err := w.prog.Forward(); err != nil {
			return err
		}
		grain := w.first + i
		if w.x != nil {
			at := grain * w.pairs * w.x.Cols()
			copy(x[at:], w.prog.Value(w.x))
			copy(y[at:], w.prog.Value(w.y))
		}
		for k, l := range w.locals {
			s := &sums[grain][k]
			s.items = items[k]
			s.values = append(s.values[:0], w.prog.Value(l.Sums)...)
		}
	}
	return nil
}

// feed binds the gradient of an output, unless everything that it depends on is frozen.
func (w *worker) feed(n *ops.Node, d []float32) {
	if w.prog.Trains(n) {
		w.prog.SetOutputGrad(n, d)
	}
}

// backward sums its lanes' gradients into slabs[0] from the gradients dx and dy (N, E) of the features and factors of the local
// objectives' sums. A grain whose activations were not kept runs forward again, with the same addresses and so with the same
// bits.
func (w *worker) backward(b *batch.Batch, dx, dy []float32, factors []float32) error {
	perLane := w.grains / w.lanes
	for k, f := range factors {
		w.seeds[k][0] = f
	}
	for lane := range w.lanes {
		level := depth(lane)
		slab := w.slabs[level]
		begun := time.Now()
		w.pool.For(len(slab), 1<<16, func(lo, hi, _ int) { clear(slab[lo:hi]) })
		w.run.Profile.Add(sumKind, sumKind, ops.PhaseUpdate, 0, time.Since(begun))
		w.run.Grads = slab
		for i := lane * perLane; i < (lane+1)*perLane; i++ {
			if _, err := w.bind(b, i); err != nil {
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
			if w.x != nil {
				n := w.pairs * w.x.Cols()
				at := (w.first + i) * n
				w.feed(w.x, dx[at:at+n])
				w.feed(w.y, dy[at:at+n])
			}
			for k, l := range w.locals {
				w.feed(l.Sums, w.seeds[k])
			}
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
