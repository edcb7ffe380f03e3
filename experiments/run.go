package experiments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"diptych/checkpoints"
	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/batch"
	"diptych/eval"
	"diptych/experiments/report"
	"diptych/internal/kernel"
	"diptych/internal/machine"
	"diptych/internal/runlog"
	"diptych/train"
)

// ErrDiffers marks a run directory that was begun with another recipe.
var ErrDiffers = errors.New("the run was begun with another recipe")

// Options are what a person says about a run beside its recipe. None of it changes a result.
type Options struct {
	Recipe  string   // file or embedded name; empty: the run's own, or the demo
	Out     string   // run directory; empty: runs/NAME
	Sets    []string // overrides
	Workers int      // replicas of the graph
	Threads int      // shared by the workers; 0: all cores
	Memory  int64    // bytes that the run may use; 0: what the machine has free
	// FS, if not nil, is the disk that checkpoints are written to; a test stops it.
	FS checkpoints.FS
}

// Observer hears of a run. Calls do not overlap.
type Observer interface {
	Begin(r *Run, p Plan)                    // before the first step
	Step(r train.Record, wait time.Duration) // after each update
	Measuring(what string, done, total int)  // while the model is measured
	Measured(step int, res *eval.Result)     // every evaluation
	Note(format string, args ...any)         // what a person should know
}

// Plan is what a run will take.
type Plan struct {
	train.Plan
	From, Steps int   // updates done before, and in all
	Pairs       int   // of the training split
	Groups      int   // that its rows fall into
	Disk        int64 // bytes of the checkpoints that are kept at once, and one being written
	DiskFree    int64 // bytes; 0 when unknown
	MemoryFree  int64 // bytes; 0 when unknown
}

// Run is one training run and its directory.
type Run struct {
	Dir      string
	Config   *Config
	Finished bool // nothing is left to do

	opt   Options
	parts *parts
	state *checkpoints.Checkpoint // to go on from; nil at the beginning
	notes []string
}

// recipeFile holds the resolved recipe of a run, in its directory.
const recipeFile = "recipe.yaml"

// Resolve finds out which run the options mean and reads its recipe, without changing anything on disk.
func Resolve(o Options) (*Run, error) {
	r := &Run{opt: o}
	var saved *Config
	read := func(dir string) error {
		text, err := os.ReadFile(filepath.Join(dir, recipeFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			saved, err = ParseResolved(text, filepath.Join(dir, recipeFile))
		}
		return err
	}
	if o.Out != "" {
		if err := read(o.Out); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case o.Recipe == "" && saved != nil: // the same command again, without its recipe
		text, file := saved.YAML(), filepath.Join(o.Out, recipeFile)
		r.Config, err = parse(text, file, o.Sets)
	case o.Recipe == "":
		r.Config, err = Load(DefaultRecipe, o.Sets)
	default:
		r.Config, err = Load(o.Recipe, o.Sets)
	}
	if err != nil {
		return nil, err
	}
	if r.Dir = o.Out; r.Dir == "" {
		r.Dir = filepath.Join("runs", r.Config.Name)
		if err := read(r.Dir); err != nil {
			return nil, err
		}
	}
	if r.parts, err = r.Config.build(); err != nil {
		return nil, err
	}
	if saved != nil {
		if diff := Diff(r.Config, saved); len(diff) > 0 {
			return nil, fmt.Errorf("%s: %w: %s; give another --out, or the recipe it was begun with", r.Dir, ErrDiffers, strings.Join(diff, "; "))
		}
		if _, err := os.Stat(filepath.Join(r.Dir, checkpoints.ModelName)); err == nil {
			r.Finished = true
		}
	}
	return r, nil
}

// Train begins the run or goes on with it, to its last step, measures the model and leaves a report. Cancelling ctx ends it
// cleanly with a checkpoint and train.ErrInterrupted.
func (r *Run) Train(ctx context.Context, ob Observer) (err error) {
	c := r.Config
	set, err := openSet(c.Data.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: data.path: %w", ErrRecipe, err)
	}
	if err != nil {
		return err
	}
	defer set.Close()
	rows, err := samples(set, &c.Data)
	if err != nil {
		return err
	}
	source, err := data.NewSource(set, rows, data.Options{
		Seed: c.Seed, Batch: c.Train.GlobalBatch, Side: c.Model.Vision.ImageSize, Pipeline: r.parts.train, Tokenizer: r.parts.tok,
		BrokenLimit: c.Data.BrokenLimit, CacheBytes: c.Data.CacheMiB << 20,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	if err := r.checkEval(set); err != nil {
		return err
	}
	t, err := r.trainer()
	if err != nil {
		return err
	}
	defer t.Close()

	store, log, err := r.open(t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	from := 0
	if r.state != nil {
		from = r.state.Step
	}
	for _, n := range r.notes {
		ob.Note("%s", n)
	}
	plan, err := r.plan(t, from, len(rows), source.Order().Groups())
	if err != nil {
		return err
	}
	ob.Begin(r, plan)

	loader := data.NewLoader(ctx, source, from, c.Train.Steps, t.Pool().Threads(), 4)
	defer loader.Close()
	m := &measurer{run: r, set: set, trainer: t, log: log, observer: ob}
	defer m.close()
	err = t.Run(ctx, from, loader, train.Hooks{
		Step: func(rec train.Record, wait time.Duration, b *batch.Batch) error {
			for _, bad := range b.Broken {
				ob.Note("row %d does not decode and is replaced: %s", bad.Row, bad.Reason)
			}
			ob.Step(rec, wait)
			return log.step(rec, wait, b)
		},
		Evaluate:  m.evaluate,
		Evaluated: log.Evaluated,
		Save: func(_ context.Context, step int, metrics map[string]float64) error {
			if err := log.sync(); err != nil { // no step up to a checkpoint may miss, also when the power fails
				return err
			}
			return r.save(store, t, step, metrics)
		},
	})
	if err != nil {
		return err
	}
	return m.finish(ctx)
}

// checkEval names the splits of the recipe that the data set does not have, before anything is trained.
func (r *Run) checkEval(set *arrowset.Set) error {
	e := &r.Config.Eval
	have := splitNames(set)
	for key, list := range map[string][]string{"eval.splits": e.Splits, "eval.during": e.During} {
		for _, s := range list {
			if _, ok := set.Manifest().Splits[s]; !ok {
				return fmt.Errorf("%w: %s: %s has no split %q; it has %s", ErrRecipe, key, set.Manifest().Name, s, strings.Join(have, ", "))
			}
		}
	}
	return nil
}

// trainer plans and allocates the run's trainer.
func (r *Run) trainer() (*train.Trainer, error) {
	c := r.Config
	res := train.Resources{Workers: max(r.opt.Workers, 1), Threads: r.opt.Threads, Memory: r.opt.Memory}
	if res.Threads <= 0 {
		res.Threads = kernel.DefaultThreads()
	}
	if res.Memory == 0 {
		res.Memory = machine.AvailableMemory()
	}
	if res.Memory > 0 {
		res.Memory = max(res.Memory-int64(c.Data.CacheMiB)<<20, 1) // the loader's share
	}
	if err := res.Check(&c.Train); err != nil {
		return nil, fmt.Errorf("%w: --workers: %w", ErrRecipe, err)
	}
	return train.New(c.Train, train.Options{
		Model: r.parts.model, Losses: c.Losses, Optim: c.Optim, Mean: r.parts.train.Mean, Std: r.parts.train.Std,
		Seed: c.Seed, Resources: res,
	})
}

// open makes or opens the run directory, takes its lock, and brings the trainer to the newest whole checkpoint.
func (r *Run) open(t *train.Trainer) (*checkpoints.Store, *runLog, error) {
	if err := os.MkdirAll(r.Dir, 0o777); err != nil {
		return nil, nil, fmt.Errorf("experiments: %w", err)
	}
	lock, err := runlog.Lock(r.Dir)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*checkpoints.Store, *runLog, error) { return nil, nil, errors.Join(err, lock.Close()) }
	store, err := checkpoints.Open(filepath.Join(r.Dir, checkpoints.DirName), checkpoints.Options{
		KeepLast: r.Config.Train.KeepLast, KeepBest: r.Config.Train.KeepBest != "", FS: r.opt.FS,
	})
	if err != nil {
		return fail(err)
	}
	state, damaged, err := store.Latest()
	for _, d := range damaged {
		r.notes = append(r.notes, d.Error()+"; the one before it is used")
	}
	if err != nil {
		return fail(err)
	}
	step := 0
	if state != nil {
		if err := r.restore(state, t); err != nil {
			return fail(err)
		}
		r.state, step = state, state.Step
	} else if err := writeFile(filepath.Join(r.Dir, recipeFile), r.Config.YAML()); err != nil {
		return fail(err)
	}
	log, err := newRunLog(r, lock, step)
	if err != nil {
		return fail(err)
	}
	return store, log, nil
}

// writeFile writes a small file aside and renames it.
func writeFile(name string, content []byte) error {
	if err := os.WriteFile(name+".new", content, 0o666); err != nil {
		return fmt.Errorf("experiments: %w", err)
	}
	return os.Rename(name+".new", name)
}

// files lists a trainer's slabs as a checkpoint stores them.
func files(t *train.Trainer) map[string][]checkpoints.Tensor {
	l := &t.Model().Layout
	out := map[string][]checkpoints.Tensor{fileModel: tensors(l, "", t.Weights())}
	for _, s := range t.Optimizer().State() {
		if s.Name == "ema" {
			out[fileAverage] = tensors(l, "", s.Data)
		} else {
			out[fileMoments] = append(out[fileMoments], tensors(l, s.Name+".", s.Data)...)
		}
	}
	return out
}

// restore reads a checkpoint into a trainer.
func (r *Run) restore(c *checkpoints.Checkpoint, t *train.Trainer) error {
	saved, err := ParseResolved([]byte(c.Recipe), c.Dir)
	if err != nil {
		return err
	}
	if _, err := saved.build(); err != nil {
		return err
	}
	if diff := Diff(r.Config, saved); len(diff) > 0 {
		return fmt.Errorf("%s: %w: %s", c.Dir, ErrDiffers, strings.Join(diff, "; "))
	}
	for name, ts := range files(t) {
		if err := c.Load(name, ts); err != nil {
			return err
		}
	}
	return nil
}

// save writes a checkpoint.
func (r *Run) save(store *checkpoints.Store, t *train.Trainer, step int, metrics map[string]float64) error {
	s := &checkpoints.State{Files: files(t)}
	if err := r.describe(s, step); err != nil {
		return err
	}
	if name := r.Config.Train.KeepBest; name != "" && metrics != nil {
		v, ok := metrics[name]
		if !ok {
			return fmt.Errorf("%w: train.keepBest: no metric %q was measured; there are %s", ErrRecipe, name, strings.Join(metricNames(metrics), ", "))
		}
		s.Score = &checkpoints.Score{Name: name, Value: v}
	}
	return store.Save(s)
}

// describe puts into a checkpoint what it needs beside its tensors to be used anywhere: the recipe, and a copy of the merges
// file that the recipe names.
func (r *Run) describe(s *checkpoints.State, step int) error {
	s.Step, s.Position, s.Recipe = step, step*r.Config.Train.GlobalBatch, string(r.Config.YAML())
	if tc := r.Config.Data.Tokenizer; tc.Kind == "bpe" && tc.File != "demo" {
		b, err := tc.ReadFile()
		if err != nil {
			return err
		}
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		s.Extra = map[string]json.RawMessage{extraMerges: text}
	}
	return nil
}

// extraMerges is the entry of a checkpoint with the merges file.
const extraMerges = "merges"

// plan says what the run will take and refuses what the disk cannot hold.
func (r *Run) plan(t *train.Trainer, from, pairs, groups int) (Plan, error) {
	p := Plan{Plan: t.Plan(), From: from, Steps: r.Config.Train.Steps, Pairs: pairs, Groups: groups,
		DiskFree: machine.FreeDisk(r.Dir), MemoryFree: machine.AvailableMemory()}
	one := p.Weights
	kept := r.Config.Train.KeepLast + 1
	if r.Config.Train.KeepBest != "" {
		kept++
	}
	p.Disk = one * int64(kept)
	if p.DiskFree > 0 && p.DiskFree < 2*one {
		return p, fmt.Errorf("experiments: %s: a checkpoint takes %d MiB, the disk has %d MiB free", r.Dir, one>>20, p.DiskFree>>20)
	}
	return p, nil
}

// measurer evaluates the model of a run while it trains and at its end.
type measurer struct {
	run      *Run
	set      *arrowset.Set
	trainer  *train.Trainer
	log      *runLog
	observer Observer
	enc      *encoder
	final    *eval.Result
}

func (m *measurer) close() {
	if m.enc != nil {
		m.enc.runner.Close()
	}
}

// weights are those that are measured and that the finished model has: the average where the recipe keeps one.
func (m *measurer) weights() []float32 {
	if avg := m.trainer.Optimizer().Average(); avg != nil {
		return avg
	}
	return m.trainer.Weights()
}

// measure runs the recipe's evaluation: the short one during the run, the whole one at its end.
func (m *measurer) measure(ctx context.Context, step int) (*eval.Result, error) {
	if m.enc == nil {
		enc, err := newEncoder(m.run.parts, m.weights(), m.trainer.Pool())
		if err != nil {
			return nil, err
		}
		m.enc = enc
	}
	c := m.run.Config
	o := eval.Options{Splits: c.Eval.Splits, Tasks: c.Eval.Tasks, Texts: c.Eval.Texts, Pool: m.trainer.Pool(), Progress: m.observer.Measuring}
	if step < c.Train.Steps {
		o.Splits, o.Tasks = c.Eval.During, []eval.Task{eval.TaskRetrieval}
		if _, ok := m.set.Manifest().Splits["val"]; ok && len(o.Splits) == 0 {
			o.Splits = []string{"val"}
		}
	}
	res, err := eval.Run(ctx, m.enc, m.set, o)
	if errors.Is(err, eval.ErrNotFinite) {
		return nil, fmt.Errorf("after update %d: %w: %w", step, train.ErrNotFinite, err)
	}
	if err != nil {
		return nil, err
	}
	if step == c.Train.Steps {
		m.final = res
	}
	return res, nil
}

func (m *measurer) evaluate(ctx context.Context, step int) (map[string]float64, error) {
	res, err := m.measure(ctx, step)
	if err != nil {
		return nil, err
	}
	metrics := Metrics(res)
	m.observer.Measured(step, res)
	return metrics, m.log.Eval(step, metrics)
}

// finish leaves the finished model and the report. It is done again from the start when it was interrupted.
func (m *measurer) finish(ctx context.Context) error {
	c, steps := m.run.Config, m.run.Config.Train.Steps
	if m.final == nil {
		if _, err := m.measure(ctx, steps); err != nil {
			if ctx.Err() != nil {
				return train.ErrInterrupted // everything is saved; the same command measures again
			}
			return err
		}
	}
	dir := filepath.Join(m.run.Dir, "report")
	rep := &report.Report{
		Title: c.Name, Result: m.final, Set: m.set, Pool: m.trainer.Pool(),
		About: []report.Fact{
			{Name: "recipe", Value: c.Name}, {Name: "seed", Value: fmt.Sprint(c.Seed)},
			{Name: "updates", Value: fmt.Sprintf("%d of %d pairs", steps, c.Train.GlobalBatch)},
			{Name: "parameters", Value: fmt.Sprint(m.trainer.Plan().Params)},
			{Name: "kernels", Value: kernel.Family()},
		},
	}
	pictures, err := m.log.curves()
	if err != nil {
		return err
	}
	rep.Pictures = pictures
	if err := rep.Write(ctx, dir); err != nil {
		return err
	}
	s := &checkpoints.State{Files: map[string][]checkpoints.Tensor{fileModel: tensors(&m.trainer.Model().Layout, "", m.weights())}}
	if err := m.run.describe(s, steps); err != nil {
		return err
	}
	return checkpoints.WriteFolder(m.fs(), filepath.Join(m.run.Dir, checkpoints.ModelName), s)
}

func (m *measurer) fs() checkpoints.FS {
	if m.run.opt.FS != nil {
		return m.run.opt.FS
	}
	return checkpoints.Disk
}

// Metrics flattens an evaluation: val.imageToText.recallAt1, val.concept.top1 and so on, fractions in [0, 1].
func Metrics(res *eval.Result) map[string]float64 {
	out := map[string]float64{}
	for _, s := range res.Splits {
		if s.Retrieval != nil {
			for name, d := range map[string]*eval.Direction{"imageToText": &s.Retrieval.ImageToText, "textToImage": &s.Retrieval.TextToImage} {
				for _, at := range d.Recall {
					out[fmt.Sprintf("%s.%s.recallAt%d", s.Split, name, at.K)] = at.Recall
				}
				out[fmt.Sprintf("%s.%s.medianRank", s.Split, name)] = d.MedianRank
			}
		}
		for _, z := range s.ZeroShot {
			out[fmt.Sprintf("%s.%s.top1", s.Split, z.System)] = z.Ensemble.Top1
			out[fmt.Sprintf("%s.%s.top5", s.Split, z.System)] = z.Ensemble.Top5
		}
	}
	return out
}

func metricNames(m map[string]float64) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
