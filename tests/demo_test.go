package tests

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/runlog"
)

// A short run of the demo, as README's first command starts it, learns: after 300 updates the measured recall is several times
// that of chance, in both directions, on pictures that it was not trained on.
func TestDemo(t *testing.T) {
	needSlow(t)
	out := filepath.Join(t.TempDir(), "run")
	seconds, firstStep := commandRun(t, build(t), "pretrain", "--out", out, "--set", "train.steps=300",
		"--set", "optim.ema.decay=0.98", // the recipe's average is for 3,000 updates: after 300 it is still half the first weights
		"--set", "train.evalEvery=0", "--set", "eval.splits=[val]", "--json")
	records, err := runlog.Read(out, runlog.EvalFile)
	require.NoError(t, err)
	require.Len(t, records, 1)
	const chance = 10. / 312 // of one text for each of the split's concepts
	for _, metric := range []string{"val.imageToText.recallAt10", "val.textToImage.recallAt10"} {
		require.Greater(t, records[0][metric], 8*chance, metric)
		t.Logf("%s is %.1f %%, chance %.1f %%", metric, 100*records[0][metric], 100*chance)
	}
	steps, err := runlog.Read(out, runlog.MetricsFile)
	require.NoError(t, err)
	require.Len(t, steps, 300)
	require.Less(t, steps[299]["loss"], 0.8*steps[0]["loss"])
	require.FileExists(t, filepath.Join(out, "report", "report.md"))
	t.Logf("first update after %.2f s, the whole run %.0f s", firstStep, seconds)
}
