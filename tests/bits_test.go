package tests

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/experiments"
)

// The same bits from any number of workers and threads, with all activations kept and with all computed again, and after a
// change of all of it in the middle of a run. -slow runs longer.
func TestSameBits(t *testing.T) {
	dir := t.TempDir()
	recipe := writeRecipe(t, dir)
	steps := 5
	if *slow {
		steps = 40
	}
	options := func(name string, workers, threads int, memory int64) experiments.Options {
		return experiments.Options{Recipe: recipe, Out: filepath.Join(dir, name), Sets: []string{fmt.Sprintf("train.steps=%d", steps)},
			Workers: workers, Threads: threads, Memory: memory}
	}
	base := &watcher{}
	require.NoError(t, pretrain(t.Context(), options("base", 1, 1, 0), base))
	want := outcome(t, filepath.Join(dir, "base"), steps)
	require.Equal(t, 8, base.plan.Grains)
	require.Equal(t, 8, base.plan.KeptGrains, "all activations are kept")
	require.NotEmpty(t, base.notes)
	require.Contains(t, base.notes[0], "does not decode and is replaced")

	// tight is the memory with which one arena per worker is left: nothing is kept from forward to backward.
	tight := func(workers int) int64 {
		w := &watcher{}
		require.NoError(t, pretrain(t.Context(), options(fmt.Sprint("plan", workers), workers, 1, 0), w))
		require.Equal(t, want, outcome(t, filepath.Join(dir, fmt.Sprint("plan", workers)), steps), "%d workers, one thread", workers)
		return w.plan.Data + w.plan.Total - int64(8-workers)*w.plan.Arena
	}
	memory := map[int]int64{1: base.plan.Data + base.plan.Total - 7*base.plan.Arena, 2: tight(2), 4: tight(4)}

	for _, c := range []struct {
		workers, threads int
		again            bool // computed again
	}{
		{1, 2, false}, {1, 3, false}, {2, 2, false}, {2, 3, false}, {4, 2, false}, {1, 1, true}, {1, 2, true}, {2, 2, true}, {4, 1, true},
	} {
		name := fmt.Sprintf("workers=%d threads=%d again=%v", c.workers, c.threads, c.again)
		t.Run(name, func(t *testing.T) {
			o, w := options(name, c.workers, c.threads, 0), &watcher{}
			if c.again {
				o.Memory = memory[c.workers]
			}
			require.NoError(t, pretrain(t.Context(), o, w))
			if c.again {
				require.Zero(t, w.plan.KeptGrains)
			}
			require.Equal(t, want, outcome(t, o.Out, steps))
		})
	}
	t.Run("changed in the middle", func(t *testing.T) {
		pretrainUntil(t, options("changed", 4, 2, 0), 1)
		pretrainUntil(t, options("changed", 1, 3, memory[1]), steps/2)
		pretrainUntil(t, options("changed", 2, 1, memory[2]), steps-1)
		require.NoError(t, pretrain(t.Context(), options("changed", 1, 1, 0), &watcher{}))
		require.Equal(t, want, outcome(t, filepath.Join(dir, "changed"), steps))
	})
}
