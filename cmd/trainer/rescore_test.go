package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/eval"
	"diptych/experiments"
	"diptych/experiments/report"
)

// tinyFusion are the arguments of a small run of two towers and a fusion, of four updates.
func tinyFusion(out string, more ...string) []string {
	return append([]string{"pretrain", "fusion-emoji", "--out", out, "--set", "train.steps=4", "--set", "train.globalBatch=16", "--set", "train.grainSize=4",
		"--set", "train.lanes=4", "--set", "losses=[{name: itc}, {name: itm, hardNegatives: true, hardAfter: 2}, {name: mlm, wholeWords: true}]",
		"--set", "model.embedDim=16", "--set", "model.vision.imageSize=24", "--set", "model.vision.patchSize=8", "--set", "model.vision.width=32", "--set", "model.vision.depth=1",
		"--set", "model.vision.numHeads=2", "--set", "model.text.width=32", "--set", "model.text.depth=1", "--set", "model.text.numHeads=2",
		"--set", "model.fusion.depth=1", "--set", "train.evalEvery=2", "--set", "train.checkpointEvery=2", "--set", "eval.splits=[test_both]",
		"--set", "eval.during=[test_both]", "--set", "eval.choices=4", "--set", "data.cacheMiB=16"}, more...)
}

// TestFusion trains a tiny model of two towers and a fusion, interrupted and not, and uses it as a model of two towers, as a model of
// pairs, and to rank again what the towers, or another run, ranked first.
func TestFusion(t *testing.T) {
	dir := t.TempDir()
	run, halted := filepath.Join(dir, "run"), filepath.Join(dir, "halted")
	code, _, errs := trainer(t, tinyFusion(run)...)
	require.Zero(t, code, errs)
	interrupt(t, tinyFusion(halted), 2)
	code, _, errs = trainer(t, tinyFusion(halted, "--workers", "2")...)
	require.Zero(t, code, errs)
	for _, f := range []string{"model/model.safetensors", "eval.jsonl"} {
		same(t, filepath.Join(run, f), filepath.Join(halted, f))
	}
	curve, err := os.ReadFile(filepath.Join(run, "metrics.jsonl"))
	require.NoError(t, err)
	for _, column := range []string{"loss.itc", "loss.itm", "loss.mlm", "itm.accuracy", "mlm.top1", "scale"} {
		require.Contains(t, string(curve), `"`+column+`"`)
	}

	measure := func(args ...string) eval.SplitResult {
		code, stdout, errs := trainer(t, append([]string{"eval", run, "--split", "test_both", "--json"}, args...)...)
		require.Zero(t, code, errs)
		var r report.Report
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		return r.Result.Splits[0]
	}
	all := measure()
	require.Equal(t, 366, all.Match.Pairs)
	require.Positive(t, all.Fill.Picture.Words)
	require.NotEmpty(t, all.ZeroShot)
	again := measure("--rerank", "8", "--threads", "1").Retrieval
	require.Equal(t, all.Retrieval.RetrievalResult, again.RetrievalResult)
	require.Equal(t, again.Rescored, measure("--rerank", "8", "--threads", "3").Retrieval.Rescored)
	require.Positive(t, again.Rescored.First)
	require.GreaterOrEqual(t, again.Rescored.Pairs, 183*8)
	exact := measure("--exact", "--first-weight", "0").Retrieval
	require.Equal(t, all.Retrieval.Texts*183, exact.Rescored.Pairs)
	require.Zero(t, exact.Rescored.First)
	left, err := filepath.Glob(filepath.Join(run, "*.journal"))
	require.NoError(t, err)
	require.Empty(t, left)

	vilt := filepath.Join(dir, "vilt")
	code, _, errs = trainer(t, tinyViLT(vilt)...)
	require.Zero(t, code, errs)
	code, stdout, errs := trainer(t, "eval", vilt, "--split", "test_both", "--rerank", "2", "--first", run)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "image to text, the first 2 again")
	require.Contains(t, stdout, "no recall up to there can be higher")
	code, stdout, errs = trainer(t, "eval", vilt, "--split", "test_both", "--exact", "--out", filepath.Join(dir, "report"))
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "text to image, all pairs")

	pictures := filepath.Join(dir, "pictures")
	exportPictures(t, pictures, "test_both", 1)
	files, err := filepath.Glob(filepath.Join(pictures, "*", "*"))
	require.NoError(t, err)
	code, stdout, errs = trainer(t, "search", run, "--images", pictures, "a red fruit", "--json")
	require.Zero(t, code, errs)
	require.Contains(t, stdout, `"hits"`)
	code, _, errs = trainer(t, "embed", run, "--images", pictures, "--out", filepath.Join(dir, "features.safetensors"))
	require.Zero(t, code, errs)
	sheet := filepath.Join(dir, "where.png")
	code, stdout, errs = trainer(t, "score", run, "--image", files[0], "--text", "a red fruit", "--sheet", sheet, "--json")
	require.Zero(t, code, errs)
	var s experiments.Score
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	require.Equal(t, []string{"a", "red", "fruit"}, s.Tokens)
	require.Len(t, s.Plan, 9*3)
	mass := 0.0
	for _, m := range s.Plan {
		mass += m
	}
	require.InDelta(t, 1, mass, 1e-6)
	require.FileExists(t, sheet)
	code, stdout, errs = trainer(t, "fill", run, "--image", files[0], "a [MASK] on a [MASK]", "--top", "3", "--json")
	require.Zero(t, code, errs)
	var words [][]experiments.Word
	require.NoError(t, json.Unmarshal([]byte(stdout), &words))
	require.Len(t, words, 2)
	require.Len(t, words[0], 3)

	for _, c := range []struct {
		text string
		args []string
	}{
		{"--first and --first-weight go with --rerank or --exact", []string{"eval", run, "--first", vilt}},
		{"--rerank 3: want a number of candidates of at least 1, without --exact", []string{"eval", run, "--rerank", "3", "--exact"}},
		{"retrieval alone is measured, not match", []string{"eval", run, "--rerank", "3", "--task", "match"}},
		{"the model has no towers of its own", []string{"eval", vilt, "--rerank", "3"}},
		{"neither has features of its own", []string{"eval", run, "--rerank", "3", "--first", vilt}},
		{"--first-weight NaN: want a finite number", []string{"eval", run, "--rerank", "3", "--first-weight", "nan"}},
		{"there are no first scores", []string{"eval", vilt, "--exact", "--first-weight", "1"}},
		{`no split "none"`, []string{"eval", run, "--rerank", "3", "--split", "none"}},
		{"the objective itc has none", tinyFusion(filepath.Join(dir, "bad"), "--set", "losses=[{name: itc, hardNegatives: true}]")},
		{"add itc or sigmoid", tinyFusion(filepath.Join(dir, "bad"), "--set", "losses=[{name: itm, hardNegatives: true}]")},
	} {
		code, _, errs := trainer(t, c.args...)
		require.Equal(t, exitUsage, code, "%v: %s", c.args, errs)
		require.Contains(t, errs, c.text)
	}
	clip := filepath.Join(dir, "towers")
	code, _, errs = trainer(t, tinyFusion(clip, "--set", "losses=[{name: itc}]")...)
	require.Zero(t, code, errs)
	code, _, errs = trainer(t, "eval", clip, "--rerank", "3")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "a recipe with itm trains one that does")
}
