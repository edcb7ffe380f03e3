package train

import (
	"context"
	"errors"
	"fmt"
	"time"

	"diptych/data/batch"
)

// ErrInterrupted says that a run was asked to stop and did so after a checkpoint.
var ErrInterrupted = errors.New("interrupted")

// Batches gives the batches of consecutive updates.
type Batches interface {
	Next(ctx context.Context) (*batch.Batch, error)
	Release(b *batch.Batch)
}

// Hooks are what happens beside the updates. Each is optional.
type Hooks struct {
	// Step is told of every update. wait is the time that the loop waited for the batch. The batch is valid during the call.
	Step func(r Record, wait time.Duration, b *batch.Batch) error
	// Evaluate measures the model after an update; its metrics decide which checkpoint is best. Features that are not finite
	// are an error that wraps ErrNotFinite.
	Evaluate func(ctx context.Context, step int) (metrics map[string]float64, err error)
	// Evaluated tells whether a step was measured before an interruption. It is needed beside Evaluate.
	Evaluated func(step int) bool
	// Enough tells whether the run ends after an update that was measured. It is asked again when the run is resumed there.
	Enough func(step int) (bool, error)
	// Save writes a checkpoint, or writes it anew. metrics are those of an evaluation at this step, or nil.
	Save func(ctx context.Context, step int, metrics map[string]float64) error
}

// Run trains from update from (counted from 0) to the last, or to one after which it is enough. When ctx is cancelled it finishes the update at hand, saves and
// returns ErrInterrupted.
func (t *Trainer) Run(ctx context.Context, from int, src Batches, h Hooks) error {
	due := func(every, step int) bool { return step == t.cfg.Steps || every > 0 && step%every == 0 }
	saved := from
	evalDue := func(step int) bool { return h.Evaluate != nil && due(t.cfg.EvalEvery, step) }
	save := func(step int, metrics map[string]float64) error {
		if h.Save == nil || step == saved && metrics == nil {
			return nil
		}
		saved = step
		// A save that has begun is finished even when the run is being interrupted.
		return h.Save(context.WithoutCancel(ctx), step, metrics)
	}
	// interrupted ends the run after update step. A run that could not save has failed.
	interrupted := func(step int) error {
		if err := save(step, nil); err != nil {
			return fmt.Errorf("train: step %d: the run was interrupted and could not be saved: %w", step, err)
		}
		return ErrInterrupted
	}
	// measure runs a due evaluation and the checkpoint that belongs to it.
	measure := func(step int) error {
		var metrics map[string]float64
		if evalDue(step) {
			m, err := h.Evaluate(ctx, step)
			switch {
			case err == nil: // also when ctx was cancelled meanwhile: what is measured is recorded, and its checkpoint must know
				metrics = m
			case errors.Is(err, ErrNotFinite):
				return err // as for a step
			case ctx.Err() != nil:
				return interrupted(step)
			default:
				return errors.Join(err, save(step, nil))
			}
		}
		if metrics != nil || due(t.cfg.CheckpointEvery, step) {
			return save(step, metrics)
		}
		return nil
	}
	if from > 0 && evalDue(from) && !h.Evaluated(from) { // the run was interrupted while it measured
		if err := measure(from); err != nil {
			return err
		}
	}
	enough := func(step int) (bool, error) {
		if h.Enough == nil || step == 0 || !evalDue(step) {
			return false, nil
		}
		return h.Enough(step)
	}
	if end, err := enough(from); end || err != nil {
		return err
	}
	for u := from; u < t.cfg.Steps; u++ {
		start := time.Now()
		b, err := src.Next(ctx)
		if ctx.Err() != nil {
			return interrupted(u)
		}
		if err != nil {
			return errors.Join(err, save(u, nil))
		}
		if b == nil || b.Step != u {
			return fmt.Errorf("train: step %d: the source gave another update's batch", u)
		}
		wait := time.Since(start)
		r, err := t.Step(b)
		if err != nil {
			return err // nothing is saved: weights that give a loss that is not finite must not push a good checkpoint out
		}
		if h.Step != nil {
			if err := h.Step(r, wait, b); err != nil {
				return err
			}
		}
		src.Release(b)
		if err := measure(u + 1); err != nil {
			return err
		}
		if end, err := enough(u + 1); end || err != nil {
			return err
		}
	}
	return nil
}
