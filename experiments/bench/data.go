package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"diptych/data"
	"diptych/data/remote"
	"diptych/experiments"
)

// DataResult is how fast the batches of a recipe are read: pictures decoded and transformed, texts tokenised.
type DataResult struct {
	Recipe  string  `json:"recipe"`
	Batch   int     `json:"batch"`
	Threads int     `json:"threads"`
	Cold    float64 `json:"cold"` // pairs per second of the first updates
	Warm    float64 `json:"warm"` // of the same updates read once more: as far as the cache holds them, nothing is decoded
	Updates int     `json:"updates"`
	Broken  int     `json:"broken"` // pictures that did not decode
	First   float64 `json:"first"`  // seconds from opening the data to the first batch
}

// Data reads so many batches twice, with nothing else to do.
func Data(ctx context.Context, recipe string, sets []string, updates, threads int, cache remote.Options) (r *DataResult, err error) {
	c, err := experiments.Load(recipe, sets)
	if err != nil {
		return nil, err
	}
	if updates < 1 || updates > c.Train.Steps {
		return nil, fmt.Errorf("bench: %d updates, the recipe has 1 to %d", updates, c.Train.Steps)
	}
	r = &DataResult{Recipe: recipe, Batch: c.Train.GlobalBatch, Threads: threads, Updates: updates}
	begun := time.Now()
	source, closing, err := c.OpenSource(ctx, cache)
	defer func() { err = errors.Join(err, closing()) }()
	if err != nil {
		return nil, err
	}
	for _, rate := range []*float64{&r.Cold, &r.Warm} {
		start := time.Now()
		loader := data.NewLoader(ctx, source, 0, updates, threads, 1)
		for range updates {
			b, err := loader.Next(ctx)
			if err != nil {
				loader.Close()
				return nil, err
			}
			if r.First == 0 {
				r.First = time.Since(begun).Seconds()
			}
			loader.Release(b)
		}
		loader.Close()
		*rate = float64(updates*r.Batch) / time.Since(start).Seconds()
	}
	r.Broken = len(source.Broken())
	return r, nil
}
