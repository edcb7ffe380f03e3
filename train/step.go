// Package train is the loop: forward, global losses, backward, ordered reduction, update. A result is a function of the recipe
// and the data, never of the number of workers or threads. Start at Trainer.Step.
package train

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"sync"
	"time"

	"diptych/data/batch"
	"diptych/internal/addr"
	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
	"diptych/optim"
)

// ErrNotFinite marks a loss or a gradient that is not finite. The weights are those before the step.
var ErrNotFinite = errors.New("not finite")

// Trainer owns the weights, gradients and moments of one model and updates them batch by batch.
type Trainer struct {
	cfg     Config
	lossCfg []losses.Config
	model   model.Model
	opt     *optim.Optimizer
	global  *losses.Global // nil without a global objective
	pool    *kernel.Pool
	workers []*worker
	plan    Plan
	profile *ops.Profile // of what no worker does; nil unless one is being made

	weights []float32
	x, y    []float32 // (N, E), the features of the global batch; nil without a global objective
	groups  []int32
	sums    [][]sum          // by grain and local objective
	cache   *model.TextCache // of a frozen text tower, or nil
	texts   [][]int32        // of the batch, for the cache
}

// sum is what a local objective gave for one grain.
type sum struct {
	values []float32 // loss and metrics, summed
	items  int
}

// Plan is what a run will take, known before its first step.
type Plan struct {
	Params      int     `json:"params"`      // elements
	Grains      int     `json:"grains"`      // of an update
	Workers     int     `json:"workers"`     // replicas of the graph
	KeptGrains  int     `json:"keptGrains"`  // grains whose activations stay between forward and backward
	Arena       int64   `json:"arena"`       // bytes of one grain's activations
	Weights     int64   `json:"weights"`     // bytes of weights, moments and averages
	Gradients   int64   `json:"gradients"`   // bytes of gradient slabs
	Activations int64   `json:"activations"` // bytes of all arenas, the global loss's included
	Total       int64   `json:"total"`       // bytes of the three, and of the features of a global batch
	StepFLOPs   float64 `json:"stepFLOPs"`   // of an update whose texts are all of the longest
}

// Options are what a Trainer needs beside its configuration.
type Options struct {
	Model     model.Model
	Losses    []losses.Config
	Optim     optim.Config
	Mean, Std [3]float32 // of pixel levels divided by 255
	Seed      uint64
	Engine    Engine // whose Use was called; the zero value counts as DefaultEngine
	Resources Resources
	// Objectives is what local objectives need besides, such as the vocabulary.
	Objectives losses.Options
}

// New plans and allocates a trainer with initial weights. More memory than Resources allow, even with no activations kept,
// is an error that says how much, before any slab of the model's size is taken.
func New(cfg Config, o Options) (_ *Trainer, err error) {
	if err := errors.Join(cfg.Validate(), losses.Validate(o.Losses), o.Optim.Validate(), o.Resources.Check(&cfg)); err != nil {
		return nil, err
	}
	t := &Trainer{cfg: cfg, lossCfg: o.Losses, model: o.Model, pool: kernel.NewPool(o.Resources.Threads)}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	l := o.Model.Parameters()
	l.Freeze(o.Optim.Freezes) // the graph then computes no gradient of it, nor of what comes before it alone
	if t.cache, err = model.NewTextCache(o.Model, o.Engine.Precision == "bf16"); err != nil {
		return nil, err
	}
	w := o.Resources.Workers
	for i := range w {
		wk, err := newWorker(o.Model, o.Losses, &cfg, o.Engine, o.Mean, o.Std, o.Seed, o.Objectives, t.cache)
		if err != nil {
			return nil, err
		}
		wk.lanes, wk.grains = cfg.Lanes/w, cfg.Grains()/w
		wk.first = i * wk.grains
		wk.pool = t.pool
		if w > 1 {
			wk.pool = kernel.NewPool(max(1, o.Resources.Threads/w))
		}
		t.workers = append(t.workers, wk)
	}
	if losses.HasGlobal(o.Losses) {
		if t.global, err = losses.NewGlobal(o.Losses, cfg.GlobalBatch, t.workers[0].x.Cols(), t.pool); err != nil {
			return nil, err
		}
	}
	weights, moments := 1, 2
	if o.Optim.Name == "sgd" {
		moments--
	}
	if o.Optim.EMA.Decay > 0 {
		weights++
	}
	if err := t.plan.make(t, weights, moments, o.Resources.Memory); err != nil {
		return nil, err
	}
	if t.opt, err = optim.New(o.Optim, segments(l), cfg.Steps); err != nil {
		return nil, err
	}
	t.allocate(l)
	l.Init(t.pool, t.weights, o.Seed)
	return t, nil
}

// make fills the plan: what is needed always, of it so many slabs of weights and of moments, then as many kept grains as the
// memory allows.
func (p *Plan) make(t *Trainer, weights, moments int, memory int64) error {
	const float = 4
	size, trained := int64(t.model.Parameters().Size), int64(t.model.Parameters().Trained)
	wk := t.workers[0]
	p.Params, p.Grains, p.Workers = t.model.Parameters().Count(), t.cfg.Grains(), len(t.workers)
	p.Arena = float * int64(wk.prog.ArenaSize())
	p.Weights = float * (size*int64(weights) + trained*int64(moments))
	p.Gradients = float * trained * int64(len(t.workers)*levels(wk.lanes))
	stats := wk.prog.Stats()
	p.StepFLOPs = float64(stats.ForwardFLOPs+stats.BackwardFLOPs) * float64(p.Grains)
	global := 0
	if t.global != nil {
		global = t.global.ArenaSize()
	}
	fixed := p.Weights + p.Gradients + float*int64(global+2*t.features())
	n, w := wk.grains, int64(len(t.workers))
	if memory > 0 {
		fit := (memory - fixed) / max(1, w*p.Arena)
		if fit < 1 {
			return fmt.Errorf("train: the run needs %s with a grain of %d pairs, %s are free: lower train.grainSize or the model's size",
				mib(fixed+w*p.Arena), t.cfg.Grain(), mib(memory))
		}
		n = int(min(int64(n), fit))
	}
	for _, wk := range t.workers {
		wk.arenas = make([][]float32, n)
	}
	p.KeptGrains = n * int(w)
	if n < wk.grains {
		p.KeptGrains -= int(w) // one arena of each worker is shared by the rest
	}
	p.Activations = int64(n)*w*p.Arena + float*int64(global)
	p.Total = fixed + int64(n)*w*p.Arena
	return nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// levels returns the slabs that the sum over lanes takes.
func levels(lanes int) int { return bits.Len(uint(lanes)) }

// features returns the numbers of the global batch's features of one tower.
func (t *Trainer) features() int {
	if x := t.workers[0].x; x != nil {
		return t.cfg.GlobalBatch * x.Cols()
	}
	return 0
}

// allocate takes all memory and touches it.
func (t *Trainer) allocate(l *model.Layout) {
	t.weights = kernel.NewSlab(l.Size)
	n := t.features()
	t.x, t.y, t.groups = kernel.NewSlab(n), kernel.NewSlab(n), make([]int32, t.cfg.GlobalBatch)
	for range t.cfg.Grains() {
		t.sums = append(t.sums, make([]sum, len(t.workers[0].locals)))
	}
	for _, w := range t.workers {
		w.run.Weights = t.weights
		for i := range w.arenas {
			w.arenas[i] = kernel.NewSlab(w.prog.ArenaSize())
		}
		for range levels(w.lanes) {
			w.slabs = append(w.slabs, kernel.NewSlab(l.Trained))
		}
	}
}

// Close gives the memory and the threads back, also those of a trainer that New did not finish.
func (t *Trainer) Close() {
	for _, w := range t.workers {
		for _, s := range append(w.arenas, w.slabs...) {
			kernel.FreeSlab(s)
		}
		w.prog.Close()
		if w.pool != t.pool {
			w.pool.Close()
		}
	}
	if t.global != nil {
		t.global.Close()
	}
	if t.cache != nil {
		t.cache.Close()
	}
	if t.opt != nil {
		t.opt.Close()
	}
	for _, s := range [][]float32{t.weights, t.x, t.y} {
		kernel.FreeSlab(s)
	}
	t.pool.Close()
}

// segments lists the layout for the optimizer.
func segments(l *model.Layout) []optim.Segment {
	var s []optim.Segment
	for _, p := range l.Params {
		s = append(s, optim.Segment{Name: p.Name, Offset: p.Offset, Shape: p.Shape, Decay: p.Decay, Frozen: p.Frozen, Above: p.Above})
	}
	return s
}

// Model returns the model that is trained.
func (t *Trainer) Model() model.Model { return t.model }

// Weights returns the weight slab. It changes with every step.
func (t *Trainer) Weights() []float32 { return t.weights }

// Optimizer returns the optimizer, whose state belongs to a checkpoint.
func (t *Trainer) Optimizer() *optim.Optimizer { return t.opt }

// Pool returns the threads of the run, for what is computed between steps.
func (t *Trainer) Pool() *kernel.Pool { return t.pool }

// Plan returns what the run takes.
func (t *Trainer) Plan() Plan { return t.plan }

// Record is what a step reports.
type Record struct {
	Step       int       `json:"step"` // updates done, this one included
	Loss       float64   `json:"loss"` // weighted sum of the terms, nats
	Terms      []float64 `json:"-"`    // one per objective, without its weight
	Metrics    []float64 `json:"-"`    // of losses.Metrics
	LR         float64   `json:"lr"`
	GradNorm   float64   `json:"gradNorm"` // before clipping
	WeightNorm float64   `json:"weightNorm"`
	Scale      float64   `json:"scale,omitempty"` // t = exp(logScale), after the update; 0 without a global objective
	Samples    uint64    `json:"samples"`         // hash of the rows of the batch, in order
	Broken     int       `json:"broken"`          // pictures replaced in this batch
	Seconds    float64   `json:"seconds"`         // of the step, without waiting for data
}

// Step trains on one global batch. On an error the weights are those before it.
func (t *Trainer) Step(b *batch.Batch) (Record, error) {
	start := time.Now()
	number := b.Step + 1 // as the records count
	if len(b.Pairs) != t.cfg.GlobalBatch {
		return Record{}, fmt.Errorf("train: step %d: a batch of %d pairs, the recipe has %d: %w", number, len(b.Pairs), t.cfg.GlobalBatch, ops.ErrShape)
	}
	res, err := t.gradient(b)
	if err != nil {
		return Record{}, fmt.Errorf("train: step %d: %w", number, err)
	}
	updating := time.Now()
	info, err := t.opt.Step(t.pool, b.Step, t.weights, t.workers[0].slabs[0])
	t.profile.Add("optimizer", "optimizer", ops.PhaseUpdate, 0, time.Since(updating))
	if err != nil {
		return Record{}, fmt.Errorf("train: step %d: %w; rows %s", number, err, rowList(b))
	}
	t.model.Clamp(t.weights)
	if avg := t.opt.Average(); avg != nil {
		t.model.Clamp(avg) // it has seen the scale before the clamp
	}
	r := Record{
		Step: number, Loss: res.total, Terms: res.terms, Metrics: res.metrics, LR: info.LR, GradNorm: info.GradNorm, WeightNorm: info.WeightNorm,
		Broken: len(b.Broken),
	}
	if t.global != nil {
		logScale, _ := t.model.(losses.TwoTower).Scale()
		r.Scale = math.Exp(float64(logScale.Slice(t.weights)[0]))
	}
	for i := range b.Pairs {
		r.Samples = addr.Hash(r.Samples, uint64(b.Pairs[i].Row))
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// Gradient computes the objectives of one global batch, in the recipe's order and without their weights, and the gradient of their
// weighted sum in the layout of [Trainer.Weights] up to what is frozen, which is the trainer's until the next call. Nothing is updated.
func (t *Trainer) Gradient(b *batch.Batch) (terms []float64, grads []float32, err error) {
	res, err := t.gradient(b)
	if err != nil {
		return nil, nil, fmt.Errorf("train: %w", err)
	}
	return res.terms, t.workers[0].slabs[0], nil
}

// result is what a global batch gives.
type result struct {
	total   float64   // Σ weight·term
	terms   []float64 // one per objective, without its weight
	metrics []float64
}

// gradient computes the losses and leaves the gradient of the whole batch in the first worker's first slab.
func (t *Trainer) gradient(b *batch.Batch) (*result, error) {
	if t.cache != nil {
		t.texts = t.texts[:0]
		for i := range b.Pairs {
			t.texts = append(t.texts, b.Pairs[i].Tokens)
		}
		if err := t.cache.Fill(t.texts, t.weights, t.pool); err != nil {
			return nil, err
		}
	}
	if err := t.each(func(w *worker) error { return w.forward(b, t.x, t.y, t.sums) }); err != nil {
		return nil, err
	}
	global, err := t.contrast(b)
	if err != nil {
		return nil, err
	}
	res, factors := t.combine(global)
	for i, l := range res.terms {
		if math.IsNaN(l) || math.IsInf(l, 0) {
			return nil, fmt.Errorf("loss term %s is %v: %w; rows %s", t.lossCfg[i].Name, l, ErrNotFinite, rowList(b))
		}
	}
	if err := t.each(func(w *worker) error { return w.backward(b, global.DX, global.DY, factors) }); err != nil {
		return nil, err
	}
	// The workers' sums are subtrees of the same balanced tree.
	summing := time.Now()
	for stride := 1; stride < len(t.workers); stride *= 2 {
		for i := 0; i < len(t.workers); i += 2 * stride {
			kernel.AXPY(t.pool, t.workers[i].slabs[0], 1, t.workers[i+stride].slabs[0])
		}
	}
	t.profile.Add(sumKind, sumKind, ops.PhaseUpdate, 0, time.Since(summing))
	if t.global != nil {
		grads := t.workers[0].slabs[0]
		scale, bias := t.model.(losses.TwoTower).Scale()
		if !scale.Frozen {
			scale.Slice(grads)[0] += global.DScale
		}
		if bias != nil && !bias.Frozen {
			bias.Slice(grads)[0] += global.DBias
		}
	}
	return res, nil
}

// contrast runs the global objectives over the features of the batch; without one the result is empty.
func (t *Trainer) contrast(b *batch.Batch) (*losses.Result, error) {
	if t.global == nil {
		return &losses.Result{}, nil
	}
	for i := range b.Pairs {
		t.groups[i] = b.Pairs[i].Group
	}
	logScale, logBias := t.model.(losses.TwoTower).Scale()
	var bias float32
	if logBias != nil {
		bias = logBias.Slice(t.weights)[0]
	}
	return t.global.Run(t.x, t.y, logScale.Slice(t.weights)[0], bias, t.groups)
}

// combine puts the terms in the order of the recipe. A local objective's is the mean over its items of the whole batch, whose
// sums are added in the order of the grains; the factor of its gradient is weight/items.
func (t *Trainer) combine(global *losses.Result) (res *result, factors []float32) {
	res = &result{}
	g, k := 0, 0
	for _, c := range t.lossCfg {
		if !c.Local() {
			res.terms = append(res.terms, global.Terms[g])
			res.total += c.Weight * global.Terms[g]
			g++
			continue
		}
		items, means := 0, make([]float64, t.workers[0].locals[k].Sums.Cols())
		for _, s := range t.sums {
			items += s[k].items
			for j, v := range s[k].values {
				means[j] += float64(v)
			}
		}
		items = max(items, 1) // without any the sums are zero
		for j := range means {
			means[j] /= float64(items)
		}
		res.terms = append(res.terms, means[0])
		res.metrics = append(res.metrics, means[1:]...)
		res.total += c.Weight * means[0]
		factors = append(factors, float32(c.Weight/float64(items)))
		k++
	}
	return res, factors
}

// each runs f for every worker, as many at once as there are threads.
func (t *Trainer) each(f func(w *worker) error) error {
	if len(t.workers) == 1 {
		return f(t.workers[0])
	}
	errs := make([]error, len(t.workers))
	threads := make(chan struct{}, t.pool.Threads())
	var wg sync.WaitGroup
	for i, w := range t.workers {
		threads <- struct{}{}
		wg.Go(func() {
			errs[i] = f(w)
			<-threads
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rowList names the rows of a batch, for errors.
func rowList(b *batch.Batch) string {
	var s strings.Builder
	for i := range b.Pairs {
		if i == 16 {
			fmt.Fprintf(&s, " … %d in all", len(b.Pairs))
			break
		}
		fmt.Fprintf(&s, " %d", b.Pairs[i].Row)
	}
	return strings.TrimSpace(s.String())
}
