package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/experiments/bench"
)

func TestBench(t *testing.T) {
	code, stdout, errs := trainer(t, "bench", "peak", "--threads", "1", "--json")
	require.Zero(t, code, errs)
	var peak bench.PeakResult
	require.NoError(t, json.Unmarshal([]byte(stdout), &peak))
	require.Equal(t, 1, peak.Threads)
	require.Positive(t, peak.GFLOPs)

	code, stdout, errs = trainer(t, "bench", "step", "clip-emoji", "--steps", "1", "--warm", "0", "--batch", "16", "--set", "model.vision.depth=1", "--set", "train.lanes=1")
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "clip-emoji, fp32, batch 16 in 1 grains and 1 lanes by 1 workers")
	require.Contains(t, stdout, "attention  backward")
}

func TestBenchMistakes(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"threads", []string{"peak", "--threads", "-1"}, "--threads -1: want 1 to"},
		{"preset", []string{"gemm", "ViT-Z"}, "\"ViT-Z\" is unknown; known: ViT-B-16"},
		{"tries", []string{"attention", "--tries", "0"}, "--tries 0: want at least 1"},
		{"recipe", []string{"step", "nothing.yaml"}, "no such file, and none is built in"},
		{"steps", []string{"step", "--steps", "0"}, "--steps at least 1"},
		{"precision", []string{"step", "--precision", "fp8"}, "--precision: precision \"fp8\" is unknown; known: fp32, bf16"},
		{"kernel", []string{"step", "clip-emoji", "--set", "engine.kernel=neon"}, "engine.kernel: kernel: no \"neon\" kernels on this machine"},
		{"workers", []string{"step", "--workers", "-1"}, "--workers -1: want at least 1"},
		{"updates", []string{"data", "--updates", "0"}, "--updates 0: want at least 1"},
		{"argument", []string{"peak", "now"}, "unknown command \"now\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, errs := trainer(t, append([]string{"bench"}, c.args...)...)
			require.Equal(t, exitUsage, code)
			require.Contains(t, errs, c.want)
		})
	}
}
