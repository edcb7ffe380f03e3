package main

import (
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/experiments"
	"diptych/experiments/report"
)

// tinyViLT are the arguments of a small ViLT run of four updates.
func tinyViLT(out string, more ...string) []string {
	return append([]string{"pretrain", "vilt-emoji", "--out", out, "--set", "train.steps=4", "--set", "train.globalBatch=16", "--set", "model.vision.width=32",
		"--set", "model.vision.depth=1", "--set", "model.vision.numHeads=2", "--set", "model.vision.dropout=0.1", "--set", "train.evalEvery=0",
		"--set", "train.checkpointEvery=2", "--set", "eval.splits=[test_both]", "--set", "eval.choices=4", "--set", "data.cacheMiB=16"}, more...)
}

// TestPairs trains a tiny ViLT, interrupted and not, and uses it: eval, score and fill.
func TestPairs(t *testing.T) {
	dir := t.TempDir()
	run, halted := filepath.Join(dir, "run"), filepath.Join(dir, "halted")
	code, _, errs := trainer(t, tinyViLT(run)...)
	require.Zero(t, code, errs)
	interrupt(t, tinyViLT(halted), 2)
	code, _, errs = trainer(t, tinyViLT(halted, "--workers", "2")...)
	require.Zero(t, code, errs)
	for _, f := range []string{"model/model.safetensors", "eval.jsonl"} {
		same(t, filepath.Join(run, f), filepath.Join(halted, f))
	}
	curve, err := os.ReadFile(filepath.Join(run, "metrics.jsonl"))
	require.NoError(t, err)
	for _, column := range []string{"loss.itm", "loss.mlm", "itm.accuracy", "mlm.top1"} {
		require.Contains(t, string(curve), `"`+column+`"`)
	}

	code, stdout, errs := trainer(t, "eval", run, "--split", "test_both", "--json", "--threads", "1")
	require.Zero(t, code, errs)
	var r report.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	split := r.Result.Splits[0]
	require.Equal(t, 183, split.Images)
	require.Equal(t, 366, split.Match.Pairs)
	require.Equal(t, 100, split.Match.Candidates)
	require.Equal(t, split.Fill.Picture.Words, split.Fill.Blank.Words)
	require.Greater(t, split.Fill.Picture.Words, 4*183-1)
	code, stdout, errs = trainer(t, "eval", run, "--split", "test_both", "--task", "fill")
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "shuffled")

	pictures := filepath.Join(dir, "pictures")
	exportPictures(t, pictures, "test_both", 1)
	files, err := filepath.Glob(filepath.Join(pictures, "*", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	sheet := filepath.Join(dir, "where.png")
	code, stdout, errs = trainer(t, "score", run, "--image", files[0], "--text", "a red fruit", "--sheet", sheet, "--json")
	require.Zero(t, code, errs)
	var s experiments.Score
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	require.Equal(t, []string{"a", "red", "fruit"}, s.Tokens)
	require.Len(t, s.Plan, 16*3)
	mass := 0.0
	for _, m := range s.Plan {
		mass += m
	}
	require.InDelta(t, 1, mass, 1e-3)
	f, err := os.Open(sheet)
	require.NoError(t, err)
	defer f.Close()
	_, err = png.Decode(f)
	require.NoError(t, err)

	code, stdout, errs = trainer(t, "fill", run, "--image", files[0], "a [MASK] on a [MASK]", "--top", "3", "--json")
	require.Zero(t, code, errs)
	var words [][]experiments.Word
	require.NoError(t, json.Unmarshal([]byte(stdout), &words))
	require.Len(t, words, 2)
	require.Len(t, words[0], 3)
	require.GreaterOrEqual(t, words[0][0].Probability, words[0][1].Probability)

	for _, c := range []struct {
		text string
		args []string
	}{
		{"write [MASK] for each word", []string{"fill", run, "--image", files[0], "nothing hidden"}},
		{"--image is missing", []string{"fill", run, "a [MASK]"}},
		{"--image: open", []string{"score", run, "--image", filepath.Join(dir, "none.png"), "--text", "x"}},
		{"bad picture", []string{"score", run, "--image", filepath.Join(run, "recipe.yaml"), "--text", "x"}},
		{"--image and --text are needed", []string{"score", run}},
		{"neither has features of its own", []string{"search", run, "--images", pictures, "x"}},
		{`no task "retrieval"; it has match, fill`, []string{"eval", run, "--task", "retrieval"}},
		{"no such folder", []string{"score", filepath.Join(dir, "none"), "--image", files[0], "--text", "x"}},
	} {
		code, _, errs := trainer(t, c.args...)
		require.Equal(t, exitUsage, code, "%v: %s", c.args, errs)
		require.Contains(t, errs, c.text)
	}
}
