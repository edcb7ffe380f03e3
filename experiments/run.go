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
	"diptych/data/remote"
	"diptych/eval"
	"diptych/internal/kernel"
	"diptych/internal/machine"
	"diptych/internal/runlog"
	"diptych/losses"
	"diptych/train"
)

// ErrDiffers marks a run directory that was begun with another recipe.
var ErrDiffers = errors.New("the run was begun with another recipe")

// Options are what a person says about a run beside its recipe. None of it changes a result.
type Options struct {
	Recipe  string   // file or embedded name; empty: the run's own, or the demo
	Out     string   // run directory; empty: runs/NAME
	Sets    []string // overrides
	Workers int      // replicas of the graph; 0: as many as are fastest
	Threads int      // shared by the workers; 0: all cores
	Memory  int64    // bytes that the run may use; 0: what the machine has free
	// Cache says where and how shards of remote data sets are kept; Note and Getenv in it are filled in.
	Cache remote.Options
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
	From       int   `json:"from"`       // updates done before
	Steps      int   `json:"steps"`      // updates of the whole run
	Pairs      int   `json:"pairs"`      // of the training split
	Groups     int   `json:"groups"`     // that its rows fall into
	Data       int64 `json:"data"`       // bytes of decoded pictures at most, and of the batches that are read ahead
	Disk       int64 `json:"disk"`       // bytes of the checkpoints that are kept at once, and one being written
	DiskFree   int64 `json:"diskFree"`   // bytes; 0 when unknown
	MemoryFree int64 `json:"memoryFree"` // bytes; 0 when unknown
}

// Run is one training run and its directory.
type Run struct {
	Dir      string
	Config   *Config
	Finished bool // nothing is left to do

	opt    Options
	parts  *parts
	cache  *remote.Cache // of the sets that lie elsewhere, while it trains; nil without one
	data   []*dataset    // while it trains
	set    *arrowset.Set // what the model is measured on: the first, as far as it is needed
	source *data.Source
	state  *checkpoints.Checkpoint // to go on from; nil at the beginning
	notes  []string
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
		r.Config, err = parse(text, file, o.Sets, false)
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
	if tc := &r.Config.Data.Tokenizer; r.Config.Start.From != "" && tc.File != "" && !tc.BuiltIn() && tc.Content == nil { // a resolved recipe
		if t, err := openTrained(r.Config.Start.From); err == nil && t.config.Data.Tokenizer.File == tc.File {
			tc.Content = t.config.Data.Tokenizer.Content
		}
	}
	if r.parts, err = r.Config.build(nil); err != nil {
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
	defer kernel.CatchNoMemory(&err)
	c := r.Config
	ob = &oneByOne{to: ob}
	source, err := r.openData(ctx, ob.Note)
	defer func() { err = errors.Join(err, r.closeData()) }()
	if err != nil {
		return err
	}
	r.source = source
	if err := r.checkEval(); err != nil {
		return err
	}
	res, err := r.resources()
	if err != nil {
		return err
	}
	if err := c.Engine.Use(); err != nil {
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	lock, err := r.lock() // what is refused before this leaves nothing behind
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	t, err := r.trainer(res)
	if err != nil {
		return err
	}
	defer t.Close()
	store, log, err := r.open(t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	m, err := newMeasurer(r, t, log, ob)
	if err != nil {
		return err
	}
	defer m.close()
	from := 0
	if r.state != nil {
		from = r.state.Step
	}
	for _, n := range r.notes {
		ob.Note("%s", n)
	}
	plan, err := r.plan(t, from)
	if err != nil {
		return err
	}
	ob.Begin(r, plan)

	loader := data.NewLoader(ctx, source, from, c.Train.Steps, t.Pool().Threads(), r.ahead())
	defer loader.Close()
	noted := source.Broken() // rows that were named before
	last := from
	err = t.Run(ctx, from, loader, train.Hooks{
		Step: func(rec train.Record, wait time.Duration, b *batch.Batch) error {
			for _, bad := range b.Broken {
				if _, ok := noted[bad.Row]; ok {
					continue
				}
				noted[bad.Row] = bad.Reason
				ob.Note("%s does not decode and is replaced: %s", source.RowName(bad.Row), bad.Reason)
			}
			last = rec.Step
			ob.Step(rec, wait)
			return log.step(rec, wait, b)
		},
		Evaluate: m.evaluate,
		Evaluated: func(step int) bool { // killed after the record and before the checkpoint that has the score: measured again
			return log.Evaluated(step) && (c.Train.KeepBest == "" || r.state.Score != nil)
		},
		Enough: m.enough,
		Save: func(_ context.Context, step int, metrics map[string]float64) error {
			if err := log.sync(); err != nil { // no step up to a checkpoint may miss, also when the power fails
				return err
			}
			return r.save(store, t, step, metrics)
		},
	})
	if errors.Is(err, train.ErrInterrupted) {
		return fmt.Errorf("%w after update %d, which is saved; trainer pretrain --out %s goes on", err, last, r.Dir)
	}
	if err != nil {
		return err
	}
	return m.finish(ctx, store)
}

// resources are what the run gives its trainer: what the person says or the machine has, without the loader's share.
func (r *Run) resources() (train.Resources, error) {
	c := r.Config
	res := train.Resources{Workers: r.opt.Workers, Threads: r.opt.Threads, Memory: r.opt.Memory}
	if res.Threads <= 0 {
		res.Threads = kernel.DefaultThreads()
	}
	if res.Workers == 0 {
		res.Workers = c.workers(r.parts, res.Threads)
	}
	if res.Memory == 0 {
		res.Memory = machine.AvailableMemory()
	}
	if err := res.Check(&c.Train); err != nil {
		return res, fmt.Errorf("%w: --workers: %w", ErrRecipe, err)
	}
	if own := r.dataMemory(); res.Memory > 0 {
		if res.Memory <= own {
			return res, fmt.Errorf("experiments: data.cacheMiB: %d MiB of decoded pictures, and the batches that are read ahead, leave nothing of the %d MiB that are free: lower it, or give the run more memory",
				c.Data.CacheMiB, res.Memory>>20)
		}
		res.Memory -= own
	}
	return res, nil
}

// workers returns how many are best on so many threads.
func (c *Config) workers(p *parts, threads int) int {
	l := p.model.Parameters()
	l.Freeze(c.Optim.Freezes) // what is frozen has no gradients
	return c.Train.FastestWorkers(threads, l.Trained)
}

// trainer plans and allocates the run's trainer.
func (r *Run) trainer(res train.Resources) (*train.Trainer, error) {
	return r.Config.trainer(r.parts, res)
}

func (c *Config) trainer(p *parts, res train.Resources) (*train.Trainer, error) {
	t, err := train.New(c.Train, train.Options{
		Model: p.model, Losses: c.Losses, Optim: c.Optim, Mean: p.train.Mean, Std: p.train.Std, Seed: c.Seed, Engine: c.Engine, Resources: res,
		Objectives: losses.Options{Vocabulary: p.tok},
	})
	if err != nil { // what it refuses is in the recipe: an objective, a grain too small for one or too large for the memory
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	return t, nil
}

// batchBytes returns the memory of one global batch's pictures.
func (r *Run) batchBytes() int64 {
	one := 3 * int64(r.parts.train.MaxPixels()) * int64(r.Config.Train.GlobalBatch)
	if r.Config.readsTwo() {
		return 2 * one
	}
	return one
}

// ahead returns how many batches are prepared before they are asked for: one is enough for a long update.
func (r *Run) ahead() int {
	if r.batchBytes() > 64<<20 {
		return 1
	}
	return 4
}

// dataMemory returns the bytes that the loader holds: decoded pictures, and the batches of the pool.
func (r *Run) dataMemory() int64 {
	return int64(r.Config.Data.CacheMiB)<<20 + int64(data.PoolBatches(r.ahead()))*r.batchBytes()
}

// lock makes the run directory, if need be, and takes its lock.
func (r *Run) lock() (*runlog.DirLock, error) {
	if err := os.MkdirAll(r.Dir, 0o777); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	return runlog.Lock(r.Dir)
}

// open brings the trainer to the newest whole checkpoint and opens the records there.
func (r *Run) open(t *train.Trainer) (*checkpoints.Store, *runLog, error) {
	store, err := checkpoints.Open(filepath.Join(r.Dir, checkpoints.DirName), checkpoints.Options{
		KeepLast: r.Config.Train.KeepLast, KeepBest: r.Config.Train.KeepBest != "", FS: r.opt.FS,
	})
	if err != nil {
		return nil, nil, err
	}
	state, damaged, err := store.Latest()
	for _, d := range damaged {
		r.notes = append(r.notes, d.Error()+"; the one before it is used")
	}
	if err != nil {
		return nil, nil, err
	}
	step := 0
	if state != nil {
		if err := r.restore(state, t); err != nil {
			return nil, nil, err
		}
		r.state, step = state, state.Step
	} else {
		if err := r.Config.loadText(t); err != nil {
			return nil, nil, err
		}
		if r.Config.Start.From != "" {
			notes, err := r.Config.Start.begin(r.parts.model, t.Weights())
			if err != nil {
				return nil, nil, err
			}
			r.notes = append(r.notes, notes...)
		}
		if err := writeFile(filepath.Join(r.Dir, recipeFile), r.Config.YAML()); err != nil {
			return nil, nil, err
		}
	}
	log, err := newRunLog(r, step)
	return store, log, err
}

// writeFile makes a small file that is whole whenever it is there, also when the power fails: aside, synced, renamed.
func writeFile(name string, content []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("experiments: %w", err)
		}
	}()
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return checkpoints.Disk.SyncDir(filepath.Dir(name))
}

// files lists a trainer's slabs as a checkpoint stores them.
func files(t *train.Trainer) map[string][]checkpoints.Tensor {
	l := t.Model().Parameters()
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
	saved.Data.Tokenizer.Content = r.Config.Data.Tokenizer.Content
	if _, err := saved.build(r.parts.classes); err != nil {
		return err
	}
	if diff := Diff(r.Config, saved); len(diff) > 0 {
		return fmt.Errorf("%s: %w: %s", c.Dir, ErrDiffers, strings.Join(diff, "; "))
	}
	var sum string
	if err := extra(c, extraData, &sum); err != nil {
		return err
	}
	if now := dataSum(r.data); sum != "" && sum != now {
		return fmt.Errorf("%s: %w: data.path: %s held other rows then (its shards' checksums differ); put them back, or give another --out",
			c.Dir, ErrDiffers, r.Config.Data.Paths())
	}
	broken := map[int]string{}
	if err := extra(c, extraBroken, &broken); err != nil {
		return err
	}
	r.source.Resume(broken)
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
	for _, p := range s.Files[fileModel] { // the good checkpoints before stay
		if i := slices.IndexFunc(p.Data, func(x float32) bool { return x-x != 0 }); i >= 0 {
			return fmt.Errorf("experiments: after update %d: parameter %s, element %d of shape %v is %v and is not saved: %w",
				step, p.Name, i, p.Shape, p.Data[i], train.ErrNotFinite)
		}
	}
	if name := r.Config.Train.KeepBest; name != "" {
		if v, ok := metrics[name]; ok { // checkEval knows that it is measured, though perhaps not at the end
			s.Score = &checkpoints.Score{Name: name, Value: v}
		}
	}
	return store.Save(s)
}

// The entries of a checkpoint beside its tensors.
const (
	extraVocabulary = "merges"  // the tokenizer's file: a checkpoint can be used without it
	extraData       = "data"    // what tells the data set from another
	extraBroken     = "broken"  // rows that did not decode so far, and why
	extraClasses    = "classes" // of the labels, in order
)

// extra reads an entry of a checkpoint; one that is not there leaves v as it is.
func extra(c *checkpoints.Checkpoint, name string, v any) error {
	text, ok := c.Extra[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("experiments: %s: entry %s: %w", c.Dir, name, err)
	}
	return nil
}

// describe puts into a checkpoint what it needs beside its tensors.
func (r *Run) describe(s *checkpoints.State, step int) error {
	s.Step, s.Position, s.Recipe = step, step*r.Config.Train.GlobalBatch, string(r.Config.YAML())
	entries := map[string]any{extraData: dataSum(r.data)}
	if broken := r.source.Broken(); len(broken) > 0 {
		entries[extraBroken] = broken
	}
	if r.parts.vocabulary != nil {
		entries[extraVocabulary] = r.parts.vocabulary
	}
	if r.parts.classes != nil {
		entries[extraClasses] = r.parts.classes
	}
	var err error
	s.Extra, err = encodeExtra(entries)
	return err
}

// encodeExtra makes entries of a checkpoint, which extra reads.
func encodeExtra(entries map[string]any) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for name, v := range entries {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		out[name] = text
	}
	return out, nil
}

// plan says what the run will take and refuses what the disk cannot hold.
func (r *Run) plan(t *train.Trainer, from int) (Plan, error) {
	p := Plan{Plan: t.Plan(), From: from, Steps: r.Config.Train.Steps, Pairs: r.source.Samples(), Groups: r.source.Groups(), Data: r.dataMemory(),
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
