// Package checkpoints keeps the state of a run on disk, so that a run killed at any instant goes on from a whole state.
//
// A checkpoint is a folder, step-00001000, of safetensors files (the model's weights, the optimizer's moments, averaged weights)
// and state.json: format version, step, data position, resolved recipe, and size and SHA-256 of every file. It is written aside
// in the same parent, every file is synced, the folder is renamed, the parent synced, and only then an older one removed.
//
// A training run uses a [Store]; what only reads, as an evaluation does, uses [Find], which takes a run directory, a
// checkpoint's folder or a finished model's. Two processes must not write one store: internal/runlog locks the run directory.
package checkpoints

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The places in a run directory.
const (
	DirName   = "checkpoints" // the store
	ModelName = "model"       // the finished model, a folder of the same form
)

// Prefixes of folders that are on their way. A folder under its own name is always whole.
const (
	prefixStep   = "step-"
	prefixNew    = "new-"      // being written
	prefixOld    = "replaced-" // makes room for another of the same name
	prefixRemove = "removed-"  // being removed
)

// Options says what a store keeps.
type Options struct {
	KeepLast int  // the newest ones that stay; 0 keeps all
	KeepBest bool // the one with the highest score stays too
	FS       FS   // nil is [Disk]
}

// Store is the folder of a run's checkpoints.
type Store struct {
	dir string
	opt Options
}

// Open opens the store in dir, made if it is missing, and clears away what an interrupted process left there.
func Open(dir string, opt Options) (*Store, error) {
	if opt.FS == nil {
		opt.FS = Disk
	}
	s := &Store{dir: filepath.Clean(dir), opt: opt}
	if err := mkdirAll(opt.FS, s.dir); err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("checkpoints: clear up after an interrupted run: %w", err)
	}
	return s, nil
}

// recover finishes or takes back what was interrupted.
func (s *Store) recover() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	synced := false
	for _, e := range entries {
		name, replaced := strings.CutPrefix(e.Name(), prefixOld)
		if !replaced && !strings.HasPrefix(e.Name(), prefixNew) && !strings.HasPrefix(e.Name(), prefixRemove) {
			continue
		}
		if !synced { // what was renamed must be durable before anything is removed
			if err := s.opt.FS.SyncDir(s.dir); err != nil {
				return err
			}
			synced = true
		}
		if replaced {
			err = settle(s.opt.FS, filepath.Join(s.dir, name))
		} else {
			err = removeAll(s.opt.FS, filepath.Join(s.dir, e.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Path returns the folder of the checkpoint of a step.
func (s *Store) Path(step int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s%08d", prefixStep, step))
}

// Save writes a checkpoint and then removes those that need not be kept. One of the same step is replaced. When Save fails,
// as on a full disk, the checkpoints before are as they were.
func (s *Store) Save(state *State) error {
	if state.Step < 0 {
		return fmt.Errorf("checkpoints: step %d", state.Step)
	}
	if state.Score != nil && !(math.Abs(state.Score.Value) <= math.MaxFloat64) {
		return fmt.Errorf("checkpoints: step %d: score %s is %v", state.Step, state.Score.Name, state.Score.Value)
	}
	if err := WriteFolder(s.opt.FS, s.Path(state.Step), state); err != nil {
		return fmt.Errorf("checkpoints: save step %d (earlier checkpoints are intact): %w", state.Step, err)
	}
	if err := s.prune(); err != nil {
		return fmt.Errorf("checkpoints: step %d is saved, but an old checkpoint cannot be removed: %w", state.Step, err)
	}
	return nil
}

// prune removes what Options does not keep. Damaged checkpoints do not count; they go when they are older than all that stay.
func (s *Store) prune() error {
	if s.opt.KeepLast <= 0 {
		return nil
	}
	steps, err := listSteps(s.dir)
	if err != nil {
		return err
	}
	var best *Checkpoint
	keep := map[string]bool{}
	oldest := math.MaxInt
	for _, st := range slices.Backward(steps) {
		c, err := readState(st.dir)
		if err != nil {
			continue
		}
		if len(keep) < s.opt.KeepLast {
			keep[st.dir] = true
			oldest = st.step
		}
		if c.Score != nil && (best == nil || c.Score.Name == best.Score.Name && c.Score.Value >= best.Score.Value) {
			best = c // the first that reached the value; a score of another name than the newest one's does not count
		}
	}
	if s.opt.KeepBest && best != nil {
		keep[best.Dir] = true
	}
	for _, st := range steps {
		if keep[st.dir] || st.step >= oldest {
			continue
		}
		gone := filepath.Join(s.dir, prefixRemove+filepath.Base(st.dir)) // never half of one under its own name
		if err := s.opt.FS.Rename(st.dir, gone); err != nil {
			return err
		}
		if err := removeAll(s.opt.FS, gone); err != nil {
			return err
		}
	}
	return nil
}

// Latest returns the newest whole checkpoint, verified, and an error for each damaged one that it passed over; nil if there are no
// checkpoints at all. If there are some and none is whole, that is an error: a run should not quietly begin anew.
func (s *Store) Latest() (*Checkpoint, []error, error) { return latest(s.dir) }

// Best returns the whole checkpoint with the highest score among those whose score has the newest one's name, verified, and an
// error for each damaged one that it passed over; nil if none has a score.
func (s *Store) Best() (*Checkpoint, []error, error) {
	steps, err := listSteps(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoints: %w", err)
	}
	var scored []*Checkpoint
	var damaged []error
	for _, st := range slices.Backward(steps) {
		c, err := readState(st.dir)
		if err != nil {
			damaged = append(damaged, fmt.Errorf("checkpoints: %w", err))
			continue
		}
		if c.Score != nil && (len(scored) == 0 || c.Score.Name == scored[0].Score.Name) {
			scored = append(scored, c)
		}
	}
	slices.SortFunc(scored, func(a, b *Checkpoint) int {
		if a.Score.Value != b.Score.Value {
			return cmp.Compare(b.Score.Value, a.Score.Value)
		}
		return cmp.Compare(a.Step, b.Step) // the first that reached the value
	})
	for _, c := range scored {
		whole, err := ReadFolder(c.Dir)
		if err == nil {
			return whole, damaged, nil
		}
		damaged = append(damaged, err)
	}
	return nil, damaged, nil
}

// Find opens a model for reading, verified: path is a checkpoint's or a finished model's folder, a store, or a run directory, of
// which the finished model is taken, or, before there is one, the newest whole checkpoint. What is damaged and was passed
// over is returned as errors. It changes nothing on disk.
func Find(path string) (*Checkpoint, []error, error) {
	if exists(filepath.Join(path, stateFile)) {
		c, err := ReadFolder(path)
		return c, nil, err
	}
	var damaged []error
	if dir := filepath.Join(path, ModelName); exists(filepath.Join(dir, stateFile)) {
		c, err := ReadFolder(dir)
		if err == nil || errors.Is(err, ErrVersion) {
			return c, nil, err
		}
		damaged = append(damaged, err)
	}
	for _, dir := range []string{filepath.Join(path, DirName), path} {
		if steps, err := listSteps(dir); err == nil && len(steps) > 0 {
			c, more, err := latest(dir)
			return c, append(damaged, more...), err
		}
	}
	if len(damaged) > 0 {
		return nil, damaged, damaged[0]
	}
	return nil, nil, fmt.Errorf("checkpoints: %s: %w: neither a run directory with a checkpoint, nor a checkpoint, nor a model", path, fs.ErrNotExist)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// latest is [Store.Latest] of the folder dir.
func latest(dir string) (*Checkpoint, []error, error) {
	steps, err := listSteps(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoints: %w", err)
	}
	var damaged []error
	for _, st := range slices.Backward(steps) {
		c, err := ReadFolder(st.dir)
		switch {
		case err == nil && c.Step != st.step:
			damaged = append(damaged, fmt.Errorf("checkpoints: %s: %w: its %s is of step %d", st.dir, ErrCorrupt, stateFile, c.Step))
		case err == nil:
			return c, damaged, nil
		case errors.Is(err, ErrVersion):
			return nil, damaged, err // going on from an older one would throw away what the newer program did
		default:
			damaged = append(damaged, err)
		}
	}
	if len(damaged) > 0 {
		return nil, damaged, fmt.Errorf("checkpoints: %s: none of %d checkpoints is whole: %w", dir, len(damaged), errors.Join(damaged...))
	}
	return nil, nil, nil
}

// stepDir is a folder whose name is that of a checkpoint.
type stepDir struct {
	step int
	dir  string
}

// listSteps returns the checkpoints in dir, oldest first.
func listSteps(dir string) ([]stepDir, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var steps []stepDir
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), prefixStep)
		if !ok || len(digits) < 8 {
			continue
		}
		if n, err := strconv.Atoi(digits); err == nil && n >= 0 {
			steps = append(steps, stepDir{n, filepath.Join(dir, e.Name())})
		}
	}
	slices.SortFunc(steps, func(a, b stepDir) int { return cmp.Compare(a.step, b.step) })
	return steps, nil
}
