package tests

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/experiments"
	"diptych/internal/machine"
	"diptych/train"
)

// memoryUse is what a process has, in bytes.
type memoryUse struct {
	Heap      uint64 // live, after a collection
	Anonymous int64  // resident; 0 where the system does not say
}

func measureMemory() memoryUse {
	debug.FreeOSMemory() // collects, and gives back what is free
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memoryUse{m.HeapAlloc, machine.AnonymousMemory()}
}

// memoryFigures is what a process with one run measures of itself.
type memoryFigures struct {
	Planned                   int64
	Idle, Begin, After, Later memoryUse // before the run, before its first update, after 100 and after 2,000
	Seconds                   float64
}

// The live heap and the anonymous memory after 2,000 updates are within 2 % of those after 100, with evaluations and checkpoints
// in between; and what the run plans to use is resident before its first update.
func TestMemorySteady(t *testing.T) {
	needSlow(t)
	if dir := os.Getenv("DIPTYCH_TEST_MEMORY"); dir != "" {
		writeMemoryFigures(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemorySteady$", "-slow") // a process that has done nothing else
	cmd.Env = append(os.Environ(), "DIPTYCH_TEST_MEMORY="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	b, err := os.ReadFile(filepath.Join(dir, "figures.json"))
	require.NoError(t, err)
	var f memoryFigures
	require.NoError(t, json.Unmarshal(b, &f))
	const mib = 1 << 20
	t.Logf("heap %.3f then %.3f MiB, anonymous %.3f then %.3f MiB (%.3f before the run, %.3f before its first update), planned %.3f MiB; %.0f s",
		float64(f.After.Heap)/mib, float64(f.Later.Heap)/mib, float64(f.After.Anonymous)/mib, float64(f.Later.Anonymous)/mib,
		float64(f.Idle.Anonymous)/mib, float64(f.Begin.Anonymous)/mib, float64(f.Planned)/mib, f.Seconds)
	steady := func(name string, after, later float64) {
		require.Less(t, math.Abs(later-after), 0.02*after, name)
	}
	steady("live heap", float64(f.After.Heap), float64(f.Later.Heap))
	if f.After.Anonymous > 0 {
		steady("anonymous memory", float64(f.After.Anonymous), float64(f.Later.Anonymous))
		require.GreaterOrEqual(t, f.Begin.Anonymous-f.Idle.Anonymous, f.Planned, "slabs are touched whole at the start")
	}
}

// writeMemoryFigures makes the run and measures.
func writeMemoryFigures(t *testing.T, dir string) {
	f := memoryFigures{Idle: measureMemory()}
	begun := time.Now()
	w := &watcher{
		begin: func(p experiments.Plan) { f.Planned, f.Begin = p.Total, measureMemory() },
		step: func(r train.Record, _ time.Duration) {
			switch r.Step {
			case 100:
				f.After = measureMemory()
			case 2000:
				f.Later = measureMemory()
			}
		},
	}
	// A large vocabulary makes the slabs weigh as much as in a real run, where the some hundred KiB by which the runtime's own
	// memory comes and goes are not 2 % either. The run is a little longer, because at its end the loader's batches go.
	o := experiments.Options{Recipe: writeRecipe(t, dir), Out: filepath.Join(dir, "run"), Workers: 2, Threads: 2, Sets: []string{
		"train.steps=2020", "train.evalEvery=50", "train.checkpointEvery=50", "model.text.vocabSize=60000",
	}}
	require.NoError(t, pretrain(t.Context(), o, w))
	f.Seconds = time.Since(begun).Seconds()
	b, err := json.Marshal(f)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "figures.json"), b, 0o666))
}
