package tests

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/experiments"
	"diptych/train"
)

var update = flag.Bool("update", false, "write the stored loss curve anew")

// curve is the beginning of a run.
type curve struct {
	About    string    `json:"about"`
	Loss     []float64 `json:"loss"`
	GradNorm []float64 `json:"gradNorm"`
	Scale    []float64 `json:"scale"`
}

// The first updates of hardRecipe on the demo give the losses that are stored: what changes data, augmentation, model, losses,
// gradients or updates shows here.
func TestLossCurve(t *testing.T) {
	const file = "testdata/curve.json"
	dir := t.TempDir()
	recipe := filepath.Join(dir, "hard.yaml")
	require.NoError(t, os.WriteFile(recipe, hardRecipeOn("demo"), 0o666))
	got := curve{About: "hardRecipe of tests/run_test.go on the demo, 12 updates; written by go test ./tests -run TestLossCurve -update"}
	w := &watcher{step: func(r train.Record, _ time.Duration) {
		got.Loss, got.GradNorm, got.Scale = append(got.Loss, r.Loss), append(got.GradNorm, r.GradNorm), append(got.Scale, r.Scale)
	}}
	require.NoError(t, pretrain(t.Context(), experiments.Options{Recipe: recipe, Out: filepath.Join(dir, "run"), Sets: []string{
		"train.steps=12", "train.evalEvery=0", "train.keepBest=", "eval.splits=[test_both]",
	}}, w))
	if *update {
		b, err := json.MarshalIndent(&got, "", " ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, append(b, '\n'), 0o666))
	}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var want curve
	require.NoError(t, json.Unmarshal(b, &want))
	// Kernel families add in other orders: portable Go and AVX-512 differ by up to 3e-7 in these losses and 2e-6 in the norms.
	const tolerance = 2e-5
	require.InEpsilonSlice(t, want.Loss, got.Loss, tolerance)
	require.InEpsilonSlice(t, want.GradNorm, got.GradNorm, tolerance)
	require.InEpsilonSlice(t, want.Scale, got.Scale, tolerance)
}
