package train

import (
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/optim"
)

// Products of bfloat16 move a loss by little, whatever the number of workers, and do not change with it.
func TestBF16(t *testing.T) {
	m := demoModel(t, 64, 16, 2)
	run := func(precision string, r Resources) ([]float64, [][]float32) {
		tr, err := New(Config{Steps: 8, GlobalBatch: 16, Lanes: 2, KeepLast: 1}, Options{
			Model: m, Losses: losses.Default(), Optim: optim.Default(), Std: [3]float32{0.5, 0.5, 0.5}, Seed: 3, Resources: r,
			Engine: Engine{Precision: precision, Kernel: "auto"},
		})
		require.NoError(t, err)
		defer tr.Close()
		var loss []float64
		for s := range 3 {
			rec, err := tr.Step(groupedBatch(m, s, 16))
			require.NoError(t, err)
			loss = append(loss, rec.Loss)
		}
		return loss, state(tr)
	}
	single, _ := run("fp32", Resources{Workers: 1, Threads: 1})
	half, slabs := run("bf16", Resources{Workers: 1, Threads: 1})
	require.NotEqual(t, single, half)
	require.InDeltaSlice(t, single, half, 0.02, "a bfloat16 has eight binary digits, a relative error of 1/256 at most")
	again, same := run("bf16", Resources{Workers: 2, Threads: 2})
	require.Equal(t, half, again)
	require.Equal(t, slabs, same)
	for _, w := range slabs[0] {
		require.False(t, math.IsNaN(float64(w)))
	}
}

func TestEngine(t *testing.T) {
	e := DefaultEngine()
	require.NoError(t, e.Validate())
	bad := Engine{Precision: "fp8", Kernel: "sse"}
	require.EqualError(t, bad.Validate(), "engine.precision: \"fp8\" is unknown; known: fp32, bf16\n"+
		"engine.kernel: \"sse\" is unknown; known: auto, avx512, avx2, neon, portable")

	before := kernel.Family()
	e.Kernel = "portable"
	require.NoError(t, e.Use())
	require.Equal(t, "portable", kernel.Family())
	e.Kernel = "auto"
	require.NoError(t, e.Use())
	require.Equal(t, before, kernel.Family(), "what the program began with")
	e.Kernel = "neon"
	if runtime.GOARCH == "amd64" {
		require.ErrorContains(t, e.Use(), "engine.kernel: kernel: no \"neon\" kernels on this machine; it has ")
		require.Equal(t, before, kernel.Family())
	}
}

func TestFastestWorkers(t *testing.T) {
	for _, c := range []struct{ lanes, threads, params, want int }{
		{4, 2, 1 << 20, 2}, {4, 8, 1 << 20, 4}, {4, 6, 1 << 20, 2}, {4, 3, 1 << 20, 1}, {1, 8, 1 << 20, 1}, {4, 1, 1 << 20, 1}, {4, 2, 1 << 27, 1},
	} {
		cfg := Config{Lanes: c.lanes}
		require.Equal(t, c.want, cfg.FastestWorkers(c.threads, c.params), "%+v", c)
	}
}
