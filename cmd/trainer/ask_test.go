package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/experiments"
	"diptych/experiments/report"
)

// TestAsk fine-tunes a tiny ViLT on questions, interrupted and not, asks it, and measures it; then on pairs of pictures, on classes and
// on ranking.
func TestAsk(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ok := func(args ...string) string {
		t.Helper()
		code, stdout, errs := trainer(t, args...)
		require.Zero(t, code, errs)
		return stdout
	}
	ok("data", "sample", "demo", "--n", "250", "--out", at("small"))
	ok("data", "questions", at("small"), "--out", at("questions"))
	ok(tinyViLT(at("base"), "--set", "train.steps=1", "--set", "eval.choices=1", "--set", "data.path="+at("small"))...)
	tune := func(recipe, out string, more ...string) []string {
		return append([]string{"finetune", recipe, "--from", at("base"), "--out", out, "--set", "train.steps=4", "--set", "train.globalBatch=16", "--set", "train.evalEvery=0",
			"--set", "train.checkpointEvery=2", "--set", "eval.splits=[test_style]", "--set", "data.cacheMiB=16"}, more...)
	}
	vqa := func(out string, more ...string) []string {
		return tune("vilt-vqa", out, append([]string{"--set", "data.path=" + at("questions")}, more...)...)
	}
	ok(vqa(at("vqa"))...)
	interrupt(t, vqa(at("halted")), 2)
	ok(vqa(at("halted"), "--workers", "2")...)
	for _, f := range []string{"model/model.safetensors", "eval.jsonl"} {
		same(t, filepath.Join(at("vqa"), f), filepath.Join(at("halted"), f))
	}
	curve, err := os.ReadFile(filepath.Join(at("vqa"), "metrics.jsonl"))
	require.NoError(t, err)
	require.Contains(t, string(curve), `"vqa.score"`)

	var r report.Report
	require.NoError(t, json.Unmarshal([]byte(ok("eval", at("vqa"), "--task", "vqa", "--split", "test_style", "--json")), &r))
	a := r.Result.Splits[0].Answers
	kinds := 0
	for _, k := range a.Kinds {
		kinds += k.Questions
	}
	require.Equal(t, a.Questions, kinds)
	require.Greater(t, a.Reach, a.Accuracy)
	require.Contains(t, ok("eval", at("vqa"), "--split", "val"), "colour")

	exportPictures(t, at("pictures"), "test_both", 2)
	files, err := filepath.Glob(filepath.Join(at("pictures"), "*", "*"))
	require.NoError(t, err)
	var words []experiments.Word
	require.NoError(t, json.Unmarshal([]byte(ok("ask", at("vqa"), "--image", files[0], "is it red?", "--top", "3", "--json")), &words))
	require.Len(t, words, 3)
	require.GreaterOrEqual(t, words[0].Probability, words[2].Probability)
	require.Contains(t, ok("ask", at("vqa"), "--image", files[0], "is it red?"), " %  ")

	// Two pictures of a sentence, from files in NLVR2's form.
	var lines strings.Builder
	for i := range 24 {
		for k := range 2 {
			b, err := os.ReadFile(files[(i+k)%2])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(at("pictures"), fmt.Sprintf("train-%d-0-img%d.png", i, k)), b, 0o666))
		}
		fmt.Fprintf(&lines, "{\"identifier\": \"train-%d-0-0\", \"sentence\": \"the left one is larger\", \"label\": \"%s\"}\n", i, []string{"True", "False"}[i%2])
	}
	require.NoError(t, os.WriteFile(at("train.json"), []byte(lines.String()), 0o666))
	ok("data", "import", "nlvr2", at("train.json"), "--images", at("pictures"), "--names", "{pair}-img{n}.png", "--out", at("pairs"))
	ok(tune("vilt-nlvr2", at("nlvr2"), "--set", "data.path="+at("pairs"), "--set", "eval.splits=[train]")...)
	require.NoError(t, json.Unmarshal([]byte(ok("ask", at("nlvr2"), "--image", files[0], "--second", files[1], "the left one is larger", "--json")), &words))
	require.Len(t, words, 2)
	require.InDelta(t, 1, words[0].Probability+words[1].Probability, 1e-6)
	require.NoError(t, json.Unmarshal([]byte(ok("eval", at("nlvr2"), "--task", "nlvr2", "--split", "train", "--json")), &r))
	require.Equal(t, 24, r.Result.Splits[0].Answers.Questions)
	require.Equal(t, 24, r.Result.Splits[0].Answers.Sentences, "the same words of other pictures are another sentence")

	ok(tune("vilt-classify", at("classify"), "--set", "data.path="+at("small"))...)
	require.NoError(t, json.Unmarshal([]byte(ok("eval", at("classify"), "--task", "classify", "--split", "test_style", "--json")), &r))
	require.Equal(t, 8, r.Result.Splits[0].Classified[0].Classes)
	require.Contains(t, ok(tune("vilt-retrieval", at("rank"), "--set", "data.path="+at("small"), "--set", "losses=[{name: rank, negatives: 3}]", "--set", "eval.choices=2")...), "choice")
	require.Regexp(t, `^score -?\d+\.\d{3}\n$`, ok("score", at("rank"), "--image", files[0], "--text", "a red apple"))
	var score map[string]any
	require.NoError(t, json.Unmarshal([]byte(ok("score", at("rank"), "--image", files[0], "--text", "a red apple", "--json")), &score))
	require.NotContains(t, score, "probability")
	require.NotEmpty(t, score["plan"])

	b, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(at("pictures"), "1.jpg"), b, 0o666))
	require.NoError(t, os.WriteFile(at("lines.jsonl"), []byte(`{"Flickr30K_ID": 1, "sentence2": "It is red.", "gold_label": "neutral"}`), 0o666))
	ok("data", "import", "snli-ve", "train="+at("lines.jsonl"), "--images", at("pictures"), "--out", at("entailment"))

	for _, c := range []struct {
		text string
		args []string
	}{
		{"--image is missing", []string{"ask", at("vqa"), "x"}},
		{"--image: open", []string{"ask", at("vqa"), "--image", at("none"), "x"}},
		{"the question is empty", []string{"ask", at("vqa"), "--image", files[0], " "}},
		{"leave --second out", []string{"ask", at("vqa"), "--image", files[0], "--second", files[0], "x"}},
		{"name the other with --second", []string{"ask", at("nlvr2"), "--image", files[0], "x"}},
		{"its recipe has neither vqa nor pairclass", []string{"ask", at("base"), "--image", files[0], "x"}},
		{"none of its rows has a caption with an answer", []string{"eval", at("vqa"), "--data", at("small"), "--split", "val"}},
		{"neither itm nor rank", []string{"score", at("vqa"), "--image", files[0], "--text", "x"}},
		{"its recipe has no mlm", []string{"fill", at("rank"), "--image", files[0], "a [MASK]"}},
		{"has no split \"nowhere\"", []string{"eval", at("vqa"), "--split", "nowhere"}},
		{"has no second picture", []string{"eval", at("nlvr2"), "--data", at("questions"), "--split", "val"}},
		{"has two pictures, and the model answers about one", []string{"eval", at("vqa"), "--data", at("pairs"), "--split", "train"}},
		{"none of the answers in it, such as \"neutral\", is one of the", []string{"eval", at("vqa"), "--data", at("entailment"), "--split", "train"}},
		{"has no second picture (column image_1), and the recipe's model reads two", tune("vilt-nlvr2", at("one"), "--set", "data.path="+at("questions"), "--set", "eval.splits=[val]")},
		{"{pear} is unknown; known: {pair}, {n}, {split}, {directory}", []string{"data", "import", "nlvr2", at("train.json"), "--images", at("pictures"), "--names", "{pear}-img{n}.png", "--out", at("x")}},
		{"{n} is missing", []string{"data", "import", "nlvr2", at("train.json"), "--images", at("pictures"), "--names", "{pair}-img0.png", "--out", at("x")}},
		{"{identifier} is missing", []string{"data", "import", "nlvr1", at("train.json"), "--images", at("pictures"), "--names", "{n}.png", "--out", at("x")}},
		{"{ID} is unknown; known: {id}, {subtype}", []string{"data", "import", "vqav2", at("train.json"), "--images", at("pictures"), "--names", "{ID}.png", "--out", at("x")}},
		{"grains have 4", tune("vilt-retrieval", at("few"), "--set", "data.path="+at("small"))},
		{"unknown command \"vqa\"", []string{"data", "import", "vqa", "q.json", "--images", at("pictures")}},
		{"have 0 answers in all", vqa(at("no"), "--set", "data.path="+at("small"))},
		{"trainer finetune --from MODEL", []string{"pretrain", "vilt-vqa"}},
	} {
		code, _, errs := trainer(t, c.args...)
		require.Equal(t, exitUsage, code, "%v: %s", c.args, errs)
		require.Contains(t, errs, c.text)
	}
}
