package experiments

import (
	"context"
	"errors"
	"fmt"

	"diptych/data"
	"diptych/data/remote"
	"diptych/train"
)

// NewTrainer builds a trainer of the recipe with initial weights, and no run around it. 0 workers are as many as are fastest.
func (c *Config) NewTrainer(res train.Resources) (*train.Trainer, error) {
	p, err := c.build(nil)
	if err != nil {
		return nil, err
	}
	if err := c.Engine.Use(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	if res.Workers == 0 {
		res.Workers = c.workers(p, res.Threads)
	}
	return c.trainer(p, res)
}

// OpenSource opens what the recipe trains on, with no run around it. cache.Note must be set. closing gives back what is open, also after an error.
func (c *Config) OpenSource(ctx context.Context, cache remote.Options) (source *data.Source, closing func() error, err error) {
	r := &Run{Config: c, opt: Options{Cache: cache}}
	nothing := func() error { return nil }
	if r.parts, err = c.build(nil); err != nil {
		return nil, nothing, err
	}
	if source, err = r.openData(ctx, cache.Note); err != nil {
		return nil, nothing, errors.Join(err, r.closeData())
	}
	return source, r.closeData, nil
}
