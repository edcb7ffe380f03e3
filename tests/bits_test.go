package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/experiments"
)

// The same bits from any number of workers and threads, with all activations kept and with all computed again, and after a
// change of all of it in the middle of a run. -slow runs longer.
func TestSameBits(t *testing.T) {
	dir := t.TempDir()
	sameBits(t, dir, writeRecipe(t, dir), 8, []setting{
		{1, 2, false}, {1, 3, false}, {2, 2, false}, {2, 3, false}, {4, 2, false}, {1, 1, true}, {1, 2, true}, {2, 2, true}, {4, 1, true},
	})
}

// The same of two towers and a fusion, whose matching draws its negatives by what the towers make of the pairs.
func TestFusionSameBits(t *testing.T) {
	dir := t.TempDir()
	writeData(t, filepath.Join(dir, "data"))
	text := string(hardRecipeOn(filepath.ToSlash(filepath.Join(dir, "data"))))
	for _, change := range [][2]string{
		{"{kind: bpe, file: demo}", "{kind: wordpiece, file: demo}"},
		{"  embedDim: 16", "  kind: fusion\n  embedDim: 16\n  fusion: {depth: 2}"},
		{"contextLength: 16, width: 32, depth: 2, numHeads: 2, dropout: 0.1, dropPath: 0.2", "contextLength: 16, width: 32, depth: 1, numHeads: 2, dropout: 0.1"},
		{"  - {name: itc, groupTargets: true, labelSmoothing: 0.05}", "  - {name: itc}\n  - {name: itm, hardNegatives: true}\n  - {name: mlm, wholeWords: true}"},
		{"grainSize: 2", "grainSize: 4"},
	} {
		require.Contains(t, text, change[0])
		text = strings.Replace(text, change[0], change[1], 1)
	}
	recipe := filepath.Join(dir, "fusion.yaml")
	require.NoError(t, os.WriteFile(recipe, []byte(text), 0o666))
	sameBits(t, dir, recipe, 4, []setting{{2, 2, false}, {1, 2, true}})
}

// setting is how a run is computed.
type setting struct {
	workers, threads int
	again            bool // computed again
}

// sameBits runs a recipe of so many grains in many ways.
func sameBits(t *testing.T, dir, recipe string, grains int, settings []setting) {
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
	require.Equal(t, grains, base.plan.Grains)
	require.Equal(t, grains, base.plan.KeptGrains, "all activations are kept")
	require.NotEmpty(t, base.notes)
	require.Contains(t, base.notes[0], "does not decode and is replaced")

	// tight is the memory with which one arena per worker is left: nothing is kept from forward to backward.
	tight := func(workers int) int64 {
		w := &watcher{}
		require.NoError(t, pretrain(t.Context(), options(fmt.Sprint("plan", workers), workers, 1, 0), w))
		require.Equal(t, want, outcome(t, filepath.Join(dir, fmt.Sprint("plan", workers)), steps), "%d workers, one thread", workers)
		return w.plan.Data + w.plan.Total - int64(grains-workers)*w.plan.Arena
	}
	memory := map[int]int64{1: base.plan.Data + base.plan.Total - int64(grains-1)*base.plan.Arena, 2: tight(2), 4: tight(4)}

	for _, c := range settings {
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
