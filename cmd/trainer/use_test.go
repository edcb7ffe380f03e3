package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
	"diptych/data/demo"
	"diptych/eval"
	"diptych/experiments"
	"diptych/experiments/report"
)

// TestUse trains a tiny model for three updates and uses it as a user would: eval, embed and search.
func TestUse(t *testing.T) {
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	code, _, errs := trainer(t, "pretrain", "clip-emoji", "--out", run, "--set", "train.steps=3", "--set", "train.globalBatch=32",
		"--set", "model.embedDim=16", "--set", "model.vision.width=32", "--set", "model.vision.depth=1", "--set", "model.text.width=32",
		"--set", "model.text.depth=1", "--set", "train.evalEvery=0", "--set", "eval.splits=[val]")
	require.Zero(t, code, errs)
	pictures, texts := filepath.Join(dir, "pictures"), filepath.Join(dir, "texts.txt")
	exportPictures(t, pictures, "test_both", 12)
	require.NoError(t, os.WriteFile(filepath.Join(pictures, "broken.png"), []byte("\x89PNG\r\n\x1a\nnothing"), 0o666))
	require.NoError(t, os.WriteFile(texts, []byte("a red fruit\na clock\n"), 0o666))

	t.Run("eval", func(t *testing.T) {
		out := filepath.Join(dir, "report")
		code, stdout, errs := trainer(t, "eval", run, "--split", "test_both", "--out", out, "--json", "--threads", "1")
		require.Zero(t, code, errs)
		var r report.Report
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		split := r.Result.Splits[0]
		require.Equal(t, 183, split.Images)
		require.Equal(t, 183, split.Retrieval.Texts, "one text for each concept")
		require.InDelta(t, 1.0/183, split.Retrieval.ImageToText.Recall[0].Chance, 1e-9)
		require.Len(t, split.ZeroShot, 3)
		for _, f := range []string{"report.md", "report.json", "image-to-text-test_both.png", "text-to-image-test_both.png", "zeroshot-concept-test_both.csv"} {
			require.FileExists(t, filepath.Join(out, f))
		}
		_, again, _ := trainer(t, "eval", run, "--split", "test_both", "--json", "--threads", "2")
		require.Equal(t, stdout, again, "threads change no figure")

		code, stdout, errs = trainer(t, "eval", run, "--split", "test_both", "--task", "retrieval")
		require.Zero(t, code, errs)
		require.Contains(t, stdout, "| test_both | image to text      |     183 |        183 |")
		require.NotContains(t, stdout, "class system")
	})
	t.Run("eval learns", func(t *testing.T) {
		code, stdout, errs := trainer(t, "eval", run, "--train", "val", "--split", "test_both", "--task", "linear-probe,knn", "--classes", "category", "--knn-k", "5", "--json", "--threads", "1")
		require.Zero(t, code, errs)
		var r report.Report
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		found := r.Result.Splits[0].Classified
		require.Len(t, found, 2)
		require.Positive(t, found[0].Fit.Lambda)
		require.Equal(t, 8, found[0].Classes)
		require.Equal(t, "(k = 5, τ = 0.07)", found[1].Detail)
		_, again, _ := trainer(t, "eval", run, "--train", "val", "--split", "test_both", "--task", "linear-probe,knn", "--classes", "category", "--knn-k", "5", "--json", "--threads", "2")
		require.Equal(t, stdout, again, "threads change no figure")
	})
	t.Run("eval prompts", func(t *testing.T) {
		code, stdout, errs := trainer(t, "eval", run, "--split", "test_both", "--task", "zeroshot", "--classes", "category", "--prompts", "imagenet7", "--json")
		require.Zero(t, code, errs)
		var r report.Report
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		require.Len(t, r.Result.Splits[0].ZeroShot[0].Templates, 7)
	})
	t.Run("eval mistakes", func(t *testing.T) {
		for _, c := range []struct{ name, flag, value, text string }{
			{"split", "--split", "exam", "no split \"exam\"; it has test_both, test_concept"},
			{"task", "--task", "vqa", "no task \"vqa\""},
			{"texts", "--texts", "few", "no choice of texts \"few\""},
			{"classes", "--classes", "colour", "no class system \"colour\"; it has concept"},
			{"prompts", "--prompts", "imagenot", "built-in set of prompts"},
			{"class names", "--class-names", filepath.Join(dir, "none.txt"), "none.txt"},
			{"no data", "--data", filepath.Join(dir, "none"), "none"},
			{"other data", "--data", pictures, "no manifest.json"},
		} {
			code, _, errs := trainer(t, "eval", run, c.flag, c.value)
			require.Equal(t, exitUsage, code, c.name)
			require.Contains(t, errs, c.text)
		}

		// No picture has a class, and then the set has none.
		list, set := filepath.Join(dir, "list.csv"), filepath.Join(dir, "unlabelled")
		files, err := filepath.Glob(filepath.Join(pictures, "*", "*"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(list, []byte("image,caption\n"+files[0]+",an apple\n"), 0o666))
		classes := filepath.Join(dir, "classes.json")
		require.NoError(t, os.WriteFile(classes, []byte(`{"templates": ["{}"], "concept": [{"id": "A", "text": "a"}, {"id": "B", "text": "b"}]}`), 0o666))
		for _, c := range []struct {
			name string
			args []string
			text string
		}{
			{"no picture with a class", []string{"--classes", classes}, "nothing to measure: no picture of test has one of the classes"},
			{"no classes", nil, "zeroshot sorts into classes, and the data set unlabelled has none"},
		} {
			require.NoError(t, os.RemoveAll(set))
			code, _, errs := trainer(t, append([]string{"data", "import", "csv", list, "--split", "test", "--out", set}, c.args...)...)
			require.Zero(t, code, errs)
			code, stdout, errs := trainer(t, "eval", run, "--data", set, "--task", "zeroshot")
			require.Equal(t, exitUsage, code, c.name)
			require.Contains(t, errs, c.text)
			require.Empty(t, stdout)
			code, stdout, errs = trainer(t, "eval", run, "--data", set)
			require.Zero(t, code, errs)
			require.Contains(t, stdout, "image to text")
		}
	})

	features := filepath.Join(dir, "features.safetensors")
	var index embedIndex
	t.Run("embed", func(t *testing.T) {
		code, stdout, errs := trainer(t, "embed", run, "--images", pictures, "--texts", texts, "--out", features, "--json")
		require.Zero(t, code, errs)
		require.Contains(t, errs, "skipped: broken.png: ")
		require.NoError(t, json.Unmarshal([]byte(stdout), &index))
		require.Len(t, index.Images, 12)
		require.Equal(t, []string{"a red fruit", "a clock"}, index.Texts)
		require.Equal(t, "broken.png", index.Skipped[0].File)
		beside, err := os.ReadFile(filepath.Join(dir, "features.json"))
		require.NoError(t, err)
		require.Equal(t, stdout, string(beside))
	})
	t.Run("search by text", func(t *testing.T) {
		sheet := filepath.Join(dir, "found.png")
		code, stdout, errs := trainer(t, "search", run, "--images", pictures, "a clock", "--top", "20", "--sheet", sheet, "--json")
		require.Zero(t, code, errs)
		var r searchResult
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		require.Len(t, r.Hits, 12, "all there are")
		f, err := safetensors.Open(features)
		require.NoError(t, err)
		defer f.Close()
		x, shape, err := f.Float32(tensorImages)
		require.NoError(t, err)
		require.Equal(t, []int{12, 16}, shape)
		y, _, err := f.Float32(tensorTexts)
		require.NoError(t, err)
		want, err := eval.Nearest(nil, y[16:], x, 16, 20)
		require.NoError(t, err)
		for i, h := range want[0] {
			require.Equal(t, filepath.Join(pictures, index.Images[h.Index]), r.Hits[i].File)
			require.InDelta(t, h.Score, r.Hits[i].Score, 1e-5, "two kernels may round differently")
		}
		b, err := os.ReadFile(sheet)
		require.NoError(t, err)
		_, err = png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
	})
	t.Run("search by picture", func(t *testing.T) {
		query := filepath.Join(pictures, index.Images[3])
		code, stdout, errs := trainer(t, "search", run, "--images", pictures, "--image", query, "--top", "3", "--sheet", filepath.Join(dir, "like.png"))
		require.Zero(t, code, errs)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		require.Len(t, lines, 3)
		require.Contains(t, stdout, " 1.000  ", "the picture itself is found")
		code, _, errs = trainer(t, "search", run, "--images", pictures, "--image", filepath.Join(pictures, "broken.png"))
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "broken.png")
	})
	t.Run("nothing decodes", func(t *testing.T) {
		bad := filepath.Join(dir, "bad")
		require.NoError(t, os.Mkdir(bad, 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(bad, "a.png"), nil, 0o666))
		code, _, errs := trainer(t, "embed", run, "--images", bad, "--out", filepath.Join(dir, "none.safetensors"))
		require.Equal(t, exitFailure, code)
		require.Contains(t, errs, "none of the 1 pictures in "+bad+" decodes")
		require.NoFileExists(t, filepath.Join(dir, "none.safetensors"))
	})
}

// exportPictures writes the first n pictures of a split of the demo set.
func exportPictures(t *testing.T, dir, split string, n int) {
	t.Helper()
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	for i, m := range set.Meta() {
		if m.Split != split || n == 0 {
			continue
		}
		n--
		b, err := set.Image(t.Context(), i)
		require.NoError(t, err)
		path := filepath.Join(dir, filepath.FromSlash(m.ImageID))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, b, 0o666))
	}
}

// A classifier of pictures that are not square is trained, measured, and goes on with others, its positions resampled.
func TestRectangles(t *testing.T) {
	dir := t.TempDir()
	small := []string{"--set", "train.steps=2", "--set", "train.globalBatch=32", "--set", "train.evalEvery=0", "--set", "eval.splits=[val]", "--threads", "1"}
	sized := func(height, width int) []string {
		return append(small, "--set", fmt.Sprintf("model.vision.imageSize=%d", height), "--set", fmt.Sprintf("model.vision.imageWidth=%d", width),
			"--set", "data.transforms=[{op: resize, mode: squash}, {op: normalize, stats: half}]", "--set", "data.evalTransforms=[{op: resize, mode: squash}, {op: normalize, stats: half}]")
	}
	run, more := filepath.Join(dir, "run"), filepath.Join(dir, "more")
	code, _, errs := trainer(t, append([]string{"pretrain", "vit-emoji", "--out", run, "--set", "model.vision.width=32", "--set", "model.vision.numHeads=2",
		"--set", "model.vision.depth=1"}, sized(16, 32)...)...)
	require.Zero(t, code, errs)
	code, stdout, errs := trainer(t, "eval", run, "--split", "test_both", "--task", "classify,knn", "--train", "val", "--threads", "1", "--json")
	require.Zero(t, code, errs)
	var r report.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	require.Equal(t, "32×16 pixels", r.About[slices.IndexFunc(r.About, func(f report.Fact) bool { return f.Name == "picture size" })].Value)
	recipe := filepath.Join(dir, "more.yaml")
	require.NoError(t, os.WriteFile(recipe, []byte("name: more\ndata: {path: demo, classes: category}\nlosses: [{name: classify}]\ntrain: {lanes: 1}\noptim: {lr: 0.001}\nstart: {new: [head.*]}\n"), 0o666))
	code, stdout, errs = trainer(t, append([]string{"finetune", recipe, "--from", run, "--out", more}, sized(32, 16)...)...)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "pos_embed: [9 32] resampled to [9 32]")

	fusion, pictures := filepath.Join(dir, "fusion"), filepath.Join(dir, "pictures")
	code, _, errs = trainer(t, tinyFusion(fusion, "--set", "model.vision.imageWidth=40", "--set", "train.steps=1", "--set", "train.evalEvery=0")...)
	require.Zero(t, code, errs)
	exportPictures(t, pictures, "test_both", 1)
	files, err := filepath.Glob(filepath.Join(pictures, "*", "*"))
	require.NoError(t, err)
	code, stdout, errs = trainer(t, "score", fusion, "--image", files[0], "--text", "a red fruit", "--json")
	require.Zero(t, code, errs)
	var s experiments.Score
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	require.Equal(t, []int{3, 5}, []int{s.Rows, s.Cols})
	require.Len(t, s.Plan, 3*5*3)
}
