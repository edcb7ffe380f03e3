package train

import (
	"errors"
	"fmt"
	"math/bits"
)

// Config is the loop's part of a recipe. Nothing in it depends on the machine: see Resources.
type Config struct {
	Steps       int `yaml:"steps"`       // updates of the whole run
	GlobalBatch int `yaml:"globalBatch"` // N, pairs per update
	// GrainSize is the number of pairs that one run of the graph takes; 0 means GlobalBatch/Lanes. Dropout and masks do not
	// depend on it, but the order of summation does, so it belongs to the recipe.
	GrainSize int `yaml:"grainSize"`
	// Lanes are the fixed leaves of the gradient's sum, a power of two. The number of workers must divide it.
	Lanes int `yaml:"lanes"`
	// Recompute says what the backward pass computes again rather than keep: block: all but the results of the transformers'
	// blocks, which takes a fifth more time; empty: what is cheap. It changes no result.
	Recompute string `yaml:"recompute,omitempty"`

	CheckpointEvery int    `yaml:"checkpointEvery"` // updates; 0: only at the end and when interrupted
	KeepLast        int    `yaml:"keepLast"`        // checkpoints
	KeepBest        string `yaml:"keepBest"`        // metric of the evaluation whose best checkpoint stays; empty: none
	EvalEvery       int    `yaml:"evalEvery"`       // updates; 0: only at the end
	// Patience ends the run after so many evaluations in a row without a better value of KeepBest; the finished model is then that of
	// the best checkpoint, also when the run comes to its last update. 0: the run ends there with what it has.
	Patience   int  `yaml:"patience,omitempty"`
	LogSamples bool `yaml:"logSamples"` // also write the row of every pair of every update
}

// Default returns a configuration that lacks only steps and globalBatch.
func Default() Config { return Config{Lanes: 4, CheckpointEvery: 500, KeepLast: 2} }

// Grain returns the pairs of a grain.
func (c *Config) Grain() int {
	if c.GrainSize == 0 {
		return c.GlobalBatch / c.Lanes
	}
	return c.GrainSize
}

// Grains returns the number of grains.
func (c *Config) Grains() int { return c.GlobalBatch / c.Grain() }

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("train."+format, args...)) }
	if c.Steps <= 0 {
		bad("steps: %d, want a positive number", c.Steps)
	}
	if c.GlobalBatch <= 1 {
		bad("globalBatch: %d, want at least 2 pairs: contrast needs a negative", c.GlobalBatch)
	}
	if c.Lanes <= 0 || bits.OnesCount(uint(c.Lanes)) != 1 {
		bad("lanes: %d, want a power of two", c.Lanes)
	}
	switch {
	case c.GrainSize < 0:
		bad("grainSize: %d, want 0 or more", c.GrainSize)
	case c.GlobalBatch <= 1 || c.Lanes <= 0:
	case c.GrainSize == 0 && c.GlobalBatch%c.Lanes != 0:
		bad("globalBatch: %d pairs do not divide into %d lanes", c.GlobalBatch, c.Lanes)
	case c.GrainSize > 0 && c.GlobalBatch%c.GrainSize != 0:
		bad("grainSize: %d pairs of globalBatch %d do not divide into grains of %d", c.GlobalBatch, c.GlobalBatch, c.GrainSize)
	case c.Grains()%c.Lanes != 0:
		bad("lanes: %d grains (%d pairs in grains of %d) do not divide into %d lanes", c.Grains(), c.GlobalBatch, c.GrainSize, c.Lanes)
	}
	if c.Recompute != "" && c.Recompute != "block" {
		bad("recompute: %q is unknown; known: block", c.Recompute)
	}
	if c.CheckpointEvery < 0 {
		bad("checkpointEvery: %d, want 0 or more", c.CheckpointEvery)
	}
	if c.EvalEvery < 0 {
		bad("evalEvery: %d, want 0 or more", c.EvalEvery)
	}
	if c.Patience < 0 {
		bad("patience: %d, want 0 or more", c.Patience)
	}
	if c.Patience > 0 && (c.KeepBest == "" || c.EvalEvery == 0) {
		bad("patience: %d, but keepBest or evalEvery is left out: there is nothing to wait for", c.Patience)
	}
	if c.KeepLast < 1 {
		bad("keepLast: %d, want at least 1", c.KeepLast)
	}
	return errors.Join(errs...)
}

// Resources are what the machine lends to a run. They change its speed and its memory, never a bit of its result.
type Resources struct {
	Workers int // replicas of the graph, each with its share of the lanes
	Threads int // shared by the workers
	// Memory is the most that the run may plan to use, in bytes; 0 means no limit. Activations that do not fit are computed
	// again in the backward pass.
	Memory int64
}

// FastestWorkers returns how many workers are best on so many threads for a model with so many parameters to train. The loops of a small
// model are short, so its threads wait for each other less if each has grains of its own; a large one keeps them busy, and a
// worker's gradients take memory.
func (c *Config) FastestWorkers(threads, params int) int {
	const small = 8 << 20
	w := 1
	for params <= small && threads%(2*w) == 0 && c.Lanes%(2*w) == 0 {
		w *= 2
	}
	return w
}

// Check tells whether a configuration can run on r.
func (r Resources) Check(c *Config) error {
	if r.Workers < 1 || c.Lanes%r.Workers != 0 {
		return fmt.Errorf("%d workers do not divide the recipe's %d lanes (train.lanes)", r.Workers, c.Lanes)
	}
	if r.Threads < 1 {
		return fmt.Errorf("%d threads, want at least 1", r.Threads)
	}
	return nil
}
