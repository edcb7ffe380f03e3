package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"diptych/data/batch"
	"diptych/data/remote"
	"diptych/experiments"
	"diptych/internal/kernel"
	"diptych/internal/machine"
	"diptych/model"
	"diptych/ops"
	"diptych/train"
)

// StepOptions say what is measured of a model's update.
type StepOptions struct {
	Model     string   // a preset, or a recipe: a file or the name of a built-in one
	Sets      []string // overrides of the recipe
	Batch     int      // pairs; 0: the recipe's, of a preset 32
	Precision string   // fp32, bf16; empty: the recipe's
	Tokens    int      // of every text of a preset; 0: the context's length
	Threads   int
	Workers   int
	Warm      int // updates before those that are timed
	Steps     int // updates that are timed
	Cache     remote.Options
}

// StepResult is the speed of a model's updates: forward, backward, sums, optimizer. Reading pictures is not in it.
type StepResult struct {
	Model     string `json:"model"`
	Precision string `json:"precision"`
	Batch     int    `json:"batch"`
	Texts     string `json:"texts"` // what the texts are
	Lanes     int    `json:"lanes"`
	Grains    int    `json:"grains"`
	Workers   int    `json:"workers"`
	Threads   int    `json:"threads"`

	Peak           PeakResult `json:"peak"`
	Seconds        Spread     `json:"seconds"` // of an update
	Times          []float64  `json:"times"`   // seconds of each
	PairsPerSecond float64    `json:"pairsPerSecond"`
	// Done counts the operations of the matrix products and attentions that an update computes, for the lengths that its texts
	// have; what is computed a second time does not count. Nominal is three times the reference's forward pass;
	// 0 where that is not counted.
	Done    float64 `json:"done"`
	Nominal float64 `json:"nominal"`
	GFLOPs  float64 `json:"gflops"` // done per second
	Share   float64 `json:"share"`  // of the peak

	Params      int     `json:"params"`
	Planned     int64   `json:"planned"`     // bytes that the plan of the run names
	Activations int64   `json:"activations"` // bytes, of them
	PeakMemory  int64   `json:"peakMemory"`  // bytes of the process; 0 when unknown
	FirstStep   float64 `json:"firstStep"`   // seconds to build, plan and allocate, and of the first update

	Ops    []OpResult          `json:"ops"`    // where the time of an update goes, longest first
	Recipe *experiments.Config `json:"recipe"` // what was measured
}

// OpResult is the part of one kind of operation in one phase of an update.
type OpResult struct {
	Kind    string    `json:"kind"`
	Phase   ops.Phase `json:"phase"`
	Runs    float64   `json:"runs"`    // per update
	Seconds float64   `json:"seconds"` // per update, mean
	Part    float64   `json:"part"`    // of all
	GFLOPs  float64   `json:"gflops"`  // 0 where nothing is counted
	Share   float64   `json:"share"`   // of the peak
}

// presetRecipe is the recipe of the update of a clip's preset, one grain and one lane; viltRecipe that of a vilt's, with matching and
// masked words. Their data is not read.
const (
	presetRecipe = `
name: %[1]s
model: {preset: %[1]s}
data:
  path: demo
  tokenizer: {kind: bpe, file: demo}
  transforms: [{op: resize, mode: squash}, {op: normalize, stats: half}]
  evalTransforms: [{op: resize, mode: squash}, {op: normalize, stats: half}]
train: {globalBatch: 32, lanes: 1}
`
	viltRecipe = `
name: %[1]s
model: {kind: vilt, preset: %[1]s}
data:
  path: demo
  tokenizer: {kind: wordpiece, file: bert-base-uncased}
  transforms: [{op: min_max_resize}, {op: normalize, stats: half}]
  evalTransforms: [{op: min_max_resize}, {op: normalize, stats: half}]
losses: [{name: itm}, {name: mlm}]
train: {globalBatch: 32, lanes: 1}
`
)

// recipe is the recipe that o means. fromPreset says that o.Model is a preset, whose input is made up.
func (o *StepOptions) recipe() (c *experiments.Config, fromPreset bool, err error) {
	_, clip := model.Presets[o.Model]
	_, vilt := model.ViLTPresets[o.Model]
	switch fromPreset = clip || vilt; {
	case clip:
		c, err = experiments.Parse(fmt.Sprintf(presetRecipe, o.Model), o.Sets)
	case vilt:
		c, err = experiments.Parse(fmt.Sprintf(viltRecipe, o.Model), o.Sets)
	default:
		c, err = experiments.Load(o.Model, o.Sets)
	}
	if err != nil {
		return nil, false, err
	}
	if o.Batch > 0 {
		c.Train.GlobalBatch = o.Batch
	}
	if o.Precision != "" {
		c.Engine.Precision = o.Precision
	}
	c.Train.Steps = max(c.Train.Steps, o.Warm+o.Steps)
	return c, fromPreset, nil
}

// Step builds the model and its optimizer and times updates of it, of a recipe on its own data. A text's length that the
// model's context does not hold is an error.
func Step(ctx context.Context, o StepOptions) (r *StepResult, err error) {
	defer kernel.CatchNoMemory(&err)
	if o.Steps < 1 || o.Warm < 0 {
		return nil, fmt.Errorf("bench: %d updates after %d: want at least one, and none or more before", o.Steps, o.Warm)
	}
	machine.ResetPeakMemory()
	pool := kernel.NewPool(o.Threads)
	defer pool.Close()
	c, made, err := o.recipe()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	t, err := c.NewTrainer(train.Resources{Workers: o.Workers, Threads: o.Threads, Memory: machine.AvailableMemory()})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	built := time.Since(begun).Seconds()
	plan := t.Plan()
	r = &StepResult{
		Model: o.Model, Precision: c.Engine.Precision, Batch: c.Train.GlobalBatch, Lanes: c.Train.Lanes, Grains: plan.Grains, Workers: plan.Workers, Threads: o.Threads,
		Nominal: 3 * float64(c.Train.GlobalBatch) * c.Model.ForwardFLOPs(), Params: plan.Params, Planned: plan.Total, Activations: plan.Activations,
		Recipe: c, Peak: Peak(pool, c.Engine.Precision),
	}
	var batches []*batch.Batch
	if made {
		r.Texts, batches, err = madeUp(c, o.Tokens)
	} else {
		r.Texts, batches, err = ready(ctx, c, o.Cache)
	}
	if err != nil {
		return nil, err
	}
	update := func(u int) (float64, error) {
		b := batches[u%len(batches)]
		b.Step = u
		begun := time.Now()
		_, err := t.Step(b)
		return time.Since(begun).Seconds(), errors.Join(err, ctx.Err())
	}
	var seconds []float64
	for u := range o.Warm + o.Steps {
		if u == o.Warm {
			t.StartProfile()
		}
		s, err := update(u)
		if err != nil {
			return nil, err
		}
		if u == 0 {
			r.FirstStep = built + s
		}
		if u >= o.Warm {
			seconds = append(seconds, s)
		}
	}
	profile := t.StopProfile()
	r.PeakMemory = machine.PeakMemory()
	r.Peak.atMost(Peak(pool, c.Engine.Precision))
	r.Seconds, r.Times = spread(seconds), seconds
	r.PairsPerSecond = float64(r.Batch) / r.Seconds.Median
	r.sum(profile, o.Steps)
	return r, nil
}

// sum groups the profile of so many updates by kind and phase.
func (r *StepResult) sum(profile []ops.StepProfile, updates int) {
	type key struct {
		kind  string
		phase ops.Phase
	}
	groups := map[key]*OpResult{}
	flops := map[key]float64{}
	all, n := 0.0, float64(updates)
	for _, s := range profile {
		k := key{s.Kind, s.Phase}
		g := groups[k]
		if g == nil {
			g = &OpResult{Kind: s.Kind, Phase: s.Phase}
			groups[k] = g
		}
		g.Runs += float64(s.Runs) / n
		g.Seconds += s.Time.Seconds() / n
		flops[k] += float64(s.FLOPs) / n
		all += s.Time.Seconds() / n
		r.Done += float64(s.FLOPs) / n
	}
	for k, g := range groups {
		g.Part = g.Seconds / all
		g.GFLOPs = flops[k] / g.Seconds / 1e9
		g.Share = g.GFLOPs / r.Peak.GFLOPs
		r.Ops = append(r.Ops, *g)
	}
	slices.SortFunc(r.Ops, func(a, b OpResult) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Phase, b.Phase))
	})
	r.GFLOPs = r.Done / r.Seconds.Median / 1e9
	r.Share = r.GFLOPs / r.Peak.GFLOPs
}

// madeUp is a batch of coloured noise in the model's shape and of texts of so many tokens.
func madeUp(c *experiments.Config, tokens int) (string, []*batch.Batch, error) {
	t := &c.Model.Text
	if tokens == 0 {
		tokens = t.ContextLength
	}
	if tokens < 1 || tokens > t.ContextLength {
		return "", nil, fmt.Errorf("bench: texts of %d tokens, the model's context holds 1 to %d", tokens, t.ContextLength)
	}
	n := c.Train.GlobalBatch
	height, width := c.Model.Vision.Sides()
	size := 3 * height * width
	b := &batch.Batch{Pixels: make([]uint8, n*size), Pairs: make([]batch.Pair, n)}
	for i := range b.Pixels {
		b.Pixels[i] = uint8(uint64(i) * 0x9e3779b97f4a7c15 >> 56)
	}
	for i := range b.Pairs {
		p := &b.Pairs[i]
		p.Row, p.Group, p.Pixels, p.Height, p.Width = i, int32(i), b.Pixels[i*size:(i+1)*size], height, width
		for j := range tokens {
			p.Tokens = append(p.Tokens, int32((i*7919+j*104729+1)%t.VocabSize))
		}
	}
	return fmt.Sprintf("%d tokens each", tokens), []*batch.Batch{b}, nil
}

// ready reads the first batches of the recipe's data.
func ready(ctx context.Context, c *experiments.Config, cache remote.Options) (_ string, batches []*batch.Batch, err error) {
	source, closing, err := c.OpenSource(ctx, cache)
	defer func() { err = errors.Join(err, closing()) }()
	if err != nil {
		return "", nil, err
	}
	tokens, pairs := 0, 0
	for u := range 4 {
		b := new(batch.Batch)
		if err := source.At(ctx, u, b); err != nil {
			return "", nil, err
		}
		for i := range b.Pairs {
			tokens += len(b.Pairs[i].Tokens)
		}
		pairs += len(b.Pairs)
		batches = append(batches, b)
	}
	return fmt.Sprintf("%.1f tokens on average", float64(tokens)/float64(pairs)), batches, nil
}
