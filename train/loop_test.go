package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/model"
)

// source gives synthetic batches; fail, if not nil, is what update failAt gives instead.
type source struct {
	tr     *Trainer
	next   int
	failAt int
	fail   error
	out    int // batches that were not released
}

func (s *source) Next(ctx context.Context) (*batch.Batch, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if s.fail != nil && s.next == s.failAt {
		return nil, s.fail
	}
	b := groupedBatch(s.tr.model, s.next, 16)
	s.next++
	s.out++
	return b, nil
}

func (s *source) Release(*batch.Batch) { s.out-- }

// events runs the loop and lists what it did.
func events(ctx context.Context, tr *Trainer, from int, src *source, change func(h *Hooks)) ([]string, error) {
	var log []string
	say := func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) }
	h := Hooks{
		Step: func(r Record, _ time.Duration, b *batch.Batch) error { say("step %d", r.Step); return nil },
		Evaluate: func(_ context.Context, step int) (map[string]float64, error) {
			say("evaluate %d", step)
			return map[string]float64{"m": 1}, nil
		},
		Evaluated: func(int) bool { return false },
		Save: func(ctx context.Context, step int, metrics map[string]float64) error {
			say("save %d %d", step, len(metrics))
			return ctx.Err()
		},
	}
	if change != nil {
		change(&h)
	}
	src.tr, src.next = tr, from
	err := tr.Run(ctx, from, src, h)
	return log, err
}

// What happens beside the updates, and in which order: a checkpoint after an evaluation carries its metrics, each is saved once.
func TestRun(t *testing.T) {
	trainer := func(t *testing.T) *Trainer {
		tr := smallTrainer(t, 4, 1, Resources{Workers: 1, Threads: 1})
		tr.cfg.Steps, tr.cfg.CheckpointEvery, tr.cfg.EvalEvery = 5, 2, 4
		return tr
	}
	errDisk := errors.New("no disk")

	t.Run("whole", func(t *testing.T) {
		src := &source{}
		log, err := events(t.Context(), trainer(t), 0, src, nil)
		require.NoError(t, err)
		require.Equal(t, []string{"step 1", "step 2", "save 2 0", "step 3", "step 4", "evaluate 4", "save 4 1", "step 5", "evaluate 5", "save 5 1"}, log)
		require.Zero(t, src.out, "every batch is released")
	})
	t.Run("interrupted while it measured", func(t *testing.T) {
		log, err := events(t.Context(), trainer(t), 4, &source{}, nil)
		require.NoError(t, err)
		require.Equal(t, []string{"evaluate 4", "save 4 1", "step 5", "evaluate 5", "save 5 1"}, log)
	})
	t.Run("interrupted after it had measured", func(t *testing.T) {
		log, err := events(t.Context(), trainer(t), 4, &source{}, func(h *Hooks) { h.Evaluated = func(int) bool { return true } })
		require.NoError(t, err)
		require.Equal(t, []string{"step 5", "evaluate 5", "save 5 1"}, log)
	})
	t.Run("all done", func(t *testing.T) {
		log, err := events(t.Context(), trainer(t), 5, &source{}, func(h *Hooks) { h.Evaluated = func(int) bool { return true } })
		require.NoError(t, err)
		require.Empty(t, log)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		log, err := events(ctx, trainer(t), 0, &source{}, func(h *Hooks) {
			step := h.Step
			h.Step = func(r Record, w time.Duration, b *batch.Batch) error {
				if r.Step == 3 {
					cancel()
				}
				return step(r, w, b)
			}
		})
		require.ErrorIs(t, err, ErrInterrupted)
		require.Equal(t, []string{"step 1", "step 2", "save 2 0", "step 3", "save 3 0"}, log, "the save is not cancelled")
	})
	t.Run("cancelled right after a checkpoint", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		log, err := events(ctx, trainer(t), 0, &source{}, func(h *Hooks) {
			save := h.Save
			h.Save = func(ctx context.Context, step int, m map[string]float64) error {
				cancel()
				return save(ctx, step, m)
			}
		})
		require.ErrorIs(t, err, ErrInterrupted)
		require.Equal(t, []string{"step 1", "step 2", "save 2 0"}, log)
	})
	t.Run("the data end", func(t *testing.T) {
		log, err := events(t.Context(), trainer(t), 0, &source{failAt: 3, fail: errDisk}, nil)
		require.ErrorIs(t, err, errDisk)
		require.Equal(t, []string{"step 1", "step 2", "save 2 0", "step 3", "save 3 0"}, log, "what was trained is kept")
	})
	t.Run("a checkpoint fails", func(t *testing.T) {
		_, err := events(t.Context(), trainer(t), 0, &source{}, func(h *Hooks) {
			h.Save = func(context.Context, int, map[string]float64) error { return errDisk }
		})
		require.ErrorIs(t, err, errDisk)
	})
	t.Run("an evaluation fails", func(t *testing.T) {
		log, err := events(t.Context(), trainer(t), 0, &source{}, func(h *Hooks) {
			h.Evaluate = func(context.Context, int) (map[string]float64, error) { return nil, errDisk }
		})
		require.ErrorIs(t, err, errDisk)
		require.Equal(t, "save 4 0", log[len(log)-1], "what was trained is kept")
	})
	t.Run("features are not finite", func(t *testing.T) {
		log, err := events(t.Context(), trainer(t), 0, &source{}, func(h *Hooks) {
			h.Evaluate = func(context.Context, int) (map[string]float64, error) { return nil, ErrNotFinite }
		})
		require.ErrorIs(t, err, ErrNotFinite)
		require.Equal(t, "step 4", log[len(log)-1], "no checkpoint of such weights")
	})
	t.Run("the loss is not finite", func(t *testing.T) {
		tr := trainer(t)
		log, err := events(t.Context(), tr, 0, &source{}, func(h *Hooks) {
			step := h.Step
			h.Step = func(r Record, w time.Duration, b *batch.Batch) error {
				if r.Step == 3 {
					tr.model.(*model.CLIP).LogitScale.Slice(tr.weights)[0] = float32(math.NaN())
				}
				return step(r, w, b)
			}
		})
		require.ErrorIs(t, err, ErrNotFinite)
		require.ErrorContains(t, err, "train: step 4: loss term itc is NaN: not finite; rows 48 49 50")
		require.Equal(t, []string{"step 1", "step 2", "save 2 0", "step 3"}, log)
	})
	t.Run("another update's batch", func(t *testing.T) {
		src := &source{}
		_, err := events(t.Context(), trainer(t), 0, src, func(h *Hooks) {
			h.Step = func(Record, time.Duration, *batch.Batch) error { src.next++; return nil }
		})
		require.ErrorContains(t, err, "another update's batch")
	})
	t.Run("a batch of another size", func(t *testing.T) {
		tr := trainer(t)
		_, err := tr.Step(groupedBatch(tr.model, 0, 15))
		require.ErrorContains(t, err, "a batch of 15 pairs, the recipe has 16")
	})
}

func TestConfig(t *testing.T) {
	good := Default()
	good.Steps, good.GlobalBatch = 10, 32
	require.NoError(t, good.Validate())
	require.Equal(t, 8, good.Grain())
	require.Equal(t, 4, good.Grains())
	for name, c := range map[string]struct {
		change func(c *Config)
		want   []string
	}{
		"steps":           {func(c *Config) { c.Steps = 0 }, []string{"train.steps: 0"}},
		"one pair":        {func(c *Config) { c.GlobalBatch = 1 }, []string{"train.globalBatch: 1"}},
		"lanes":           {func(c *Config) { c.Lanes = 6 }, []string{"train.lanes: 6, want a power of two"}},
		"no lanes":        {func(c *Config) { c.Lanes = 0 }, []string{"train.lanes: 0"}},
		"lanes, pairs":    {func(c *Config) { c.GlobalBatch = 30 }, []string{"30 pairs do not divide into 4 lanes"}},
		"grain":           {func(c *Config) { c.GrainSize = -1 }, []string{"train.grainSize: -1"}},
		"grains":          {func(c *Config) { c.GrainSize = 5 }, []string{"do not divide into grains of 5"}},
		"grains, lanes":   {func(c *Config) { c.GrainSize = 16 }, []string{"2 grains (32 pairs in grains of 16) do not divide into 4 lanes"}},
		"counts":          {func(c *Config) { c.EvalEvery, c.CheckpointEvery, c.KeepLast = -1, -2, 0 }, []string{"train.evalEvery: -1", "train.checkpointEvery: -2", "train.keepLast: 0"}},
		"several at once": {func(c *Config) { c.Steps, c.Lanes = -1, 3 }, []string{"train.steps: -1", "train.lanes: 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			c.change(&bad)
			for _, w := range c.want {
				require.ErrorContains(t, bad.Validate(), w)
			}
		})
	}
}
