package experiments

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/data"
	"diptych/data/batch"
	"diptych/data/demo"
	"diptych/internal/kernel"
	"diptych/train"
)

// ready gives batches that lie in memory, again and again.
type ready struct {
	batches []*batch.Batch
	next    int
}

func (r *ready) Next(context.Context) (*batch.Batch, error) {
	b := r.batches[r.next%len(r.batches)]
	b.Step = r.next
	r.next++
	return b, nil
}

func (r *ready) Release(*batch.Batch) {}

// BenchmarkLoader compares updates of the demo that take their batches from the loader with updates whose batches lie ready in
// memory. ratio is the time of the first by that of the second. The loader's cache is warm, as it is after the first epochs.
func BenchmarkLoader(b *testing.B) {
	c, err := Load(DefaultRecipe, []string{"train.steps=1000000000"})
	require.NoError(b, err)
	p, err := c.build(nil)
	require.NoError(b, err)
	set, err := demo.Open()
	require.NoError(b, err)
	defer set.Close()
	rows, err := samples(set, &c.Data.All()[0], true)
	require.NoError(b, err)
	source, err := data.NewSource(set, rows, data.Options{
		Seed: c.Seed, Batch: c.Train.GlobalBatch, Pipeline: p.train, Tokenizer: p.tok,
		BrokenLimit: c.Data.BrokenLimit, CacheBytes: c.Data.CacheMiB << 20,
	})
	require.NoError(b, err)
	threads := kernel.DefaultThreads()
	t, err := train.New(c.Train, train.Options{Model: p.model, Losses: c.Losses, Optim: c.Optim, Mean: p.train.Mean, Std: p.train.Std,
		Resources: train.Resources{Workers: 1, Threads: threads}})
	require.NoError(b, err)
	defer t.Close()

	var lying ready
	for u := range 60 { // five pictures of a concept at most, eleven updates to an epoch: every picture is seen
		bt := new(batch.Batch)
		require.NoError(b, source.At(b.Context(), u, bt))
		if u < 20 {
			lying.batches = append(lying.batches, bt)
		}
	}
	const updates = 20 // of each kind in turn, so that both meet the same machine
	update := func(src train.Batches) {
		bt, err := src.Next(b.Context())
		require.NoError(b, err)
		_, err = t.Step(bt)
		require.NoError(b, err)
		src.Release(bt)
	}
	timed := func(src train.Batches) time.Duration {
		for range 3 { // then the loader is as far ahead as it stays
			update(src)
		}
		begun := time.Now()
		for range updates {
			update(src)
		}
		return time.Since(begun)
	}
	var loaded, inMemory time.Duration
	for b.Loop() {
		loader := data.NewLoader(b.Context(), source, 0, 1<<30, threads, 4)
		loaded += timed(loader)
		loader.Close() // it must not work ahead while the other kind is timed
		inMemory += timed(&lying)
	}
	b.ReportMetric(loaded.Seconds()/inMemory.Seconds(), "ratio")
	b.ReportMetric(float64(b.N*updates*c.Train.GlobalBatch)/loaded.Seconds(), "pairs/s")
}
