package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints"
	"diptych/data/arrowset"
	"diptych/data/demo"
	"diptych/eval"
	"diptych/experiments"
	"diptych/train"
)

var slow = flag.Bool("slow", false, "also run the proofs that take minutes")

// needSlow skips a test that takes long.
func needSlow(t *testing.T) {
	t.Helper()
	if !*slow {
		t.Skip("takes long: run go test ./tests -slow")
	}
}

// hardRecipe has everything that could make a result depend on how it was computed: eight grains, dropout and stochastic depth
// in both towers, every random transform, several captions, a broken picture, group targets, averaged weights, evaluations.
const hardRecipe = `
name: hard
seed: 7
data:
  path: %s
  tokenizer: {kind: bpe, file: demo}
  transforms:
    - {op: random_resized_crop, scale: [0.4, 1]}
    - {op: flip, prob: 0.5}
    - {op: affine, rotate: 10, scale: [0.8, 1.2], shift: 0.0625}
    - {op: grey, prob: 0.3}
    - {op: color_gain, gain: 0.2, offset: 0.1}
    - {op: normalize, stats: half}
  evalTransforms:
    - {op: resize, mode: squash}
    - {op: normalize, stats: half}
  brokenLimit: 0.02
  cacheMiB: 1
model:
  embedDim: 16
  vision: {imageSize: 32, patchSize: 8, width: 32, depth: 2, numHeads: 2, dropout: 0.1, dropPath: 0.2}
  text: {contextLength: 16, width: 32, depth: 2, numHeads: 2, dropout: 0.1, dropPath: 0.2}
losses:
  - {name: itc, groupTargets: true, labelSmoothing: 0.05}
optim:
  lr: 1e-3
  gradClipNorm: 1
  schedule: {name: cosine, warmupSteps: 3}
  ema: {decay: 0.9}
train:
  steps: 8
  globalBatch: 16
  grainSize: 2
  lanes: 4
  checkpointEvery: 3
  keepBest: val.imageToText.recallAt1
  evalEvery: 4
  logSamples: true
eval:
  splits: [val]
  tasks: [retrieval]
`

// brokenID names the picture that does not decode.
const brokenID = "broken.png"

// writeData makes a data set of some of the demo's rows: 40 groups of two training pictures, a broken one, and 12 to measure.
func writeData(t testing.TB, dir string) {
	t.Helper()
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	w, err := arrowset.Create(dir, arrowset.Manifest{Name: "small"})
	require.NoError(t, err)
	defer w.Abort()
	add := func(row int) {
		m := set.Meta()[row]
		m.Attributes = nil
		image, err := set.Image(t.Context(), row)
		require.NoError(t, err)
		require.NoError(t, w.Append(arrowset.Row{RowMeta: m, Image: image, Captions: set.Captions(row)}))
	}
	groups, vals := map[string]int{}, 0
	for i, m := range set.Meta() {
		switch {
		case m.Split == "train" && groups[m.Group] < 2 && (groups[m.Group] > 0 || len(groups) < 40):
			groups[m.Group]++
			add(i)
		case m.Split == "val" && vals < 12:
			vals++
			add(i)
		}
	}
	require.NoError(t, w.Append(arrowset.Row{
		RowMeta: arrowset.RowMeta{ImageID: brokenID, Split: "train"}, Image: []byte("\x89PNG\r\n\x1a\nand no more"),
		Captions: []arrowset.Caption{{Text: "nothing to see"}},
	}))
	require.NoError(t, w.Close())
}

// writeRecipe writes a data set and hardRecipe over it into dir and returns the recipe's file.
func writeRecipe(t testing.TB, dir string) string {
	t.Helper()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "hard.yaml")
	writeData(t, data)
	require.NoError(t, os.WriteFile(file, hardRecipeOn(filepath.ToSlash(data)), 0o666))
	return file
}

// hardRecipeOn is the text of hardRecipe over a data set.
func hardRecipeOn(path string) []byte { return fmt.Appendf(nil, hardRecipe, path) }

// watcher is told of a run. Its functions may be nil.
type watcher struct {
	begin func(p experiments.Plan)
	step  func(r train.Record, wait time.Duration)
	plan  experiments.Plan
	notes []string
}

func (w *watcher) Begin(_ *experiments.Run, p experiments.Plan) {
	w.plan = p
	if w.begin != nil {
		w.begin(p)
	}
}

func (w *watcher) Step(r train.Record, wait time.Duration) {
	if w.step != nil {
		w.step(r, wait)
	}
}

func (w *watcher) Measuring(string, int, int) {}
func (w *watcher) Measured(int, *eval.Result) {}
func (w *watcher) Note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// pretrain is what "trainer pretrain" does, in this process.
func pretrain(ctx context.Context, o experiments.Options, w *watcher) error {
	r, err := experiments.Resolve(o)
	if err != nil {
		return err
	}
	return r.Train(ctx, w)
}

// pretrainUntil interrupts a run after an update, as Ctrl-C does.
func pretrainUntil(t *testing.T, o experiments.Options, step int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := pretrain(ctx, o, &watcher{step: func(r train.Record, _ time.Duration) {
		if r.Step == step {
			cancel()
		}
	}})
	require.ErrorIs(t, err, train.ErrInterrupted)
}

// timings are the columns of the records that two equal runs may differ in.
var timings = []string{"pairsPerSecond", "dataWait", "heapMiB", "anonymousMiB"}

// outcome is all that must be equal in the directories of equal runs, by name: checksums of weights, moments, averages and of
// the checkpoints' state, the samples seen, the records without timings.
func outcome(t testing.TB, dir string, steps int) map[string]string {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return b
	}
	out := map[string]string{"samples": string(read("samples.txt")), "evaluations": string(read("eval.jsonl"))}
	last := filepath.Join(checkpoints.DirName, fmt.Sprintf("step-%08d", steps))
	for _, name := range []string{
		"model/model.safetensors", "model/state.json", last + "/model.safetensors", last + "/moments.safetensors", last + "/average.safetensors", last + "/state.json",
	} {
		out[name] = fmt.Sprintf("%x", sha256.Sum256(read(name)))
	}
	var records strings.Builder
	for i, line := range bytes.Split(bytes.TrimSpace(read("metrics.jsonl")), []byte("\n")) {
		var r map[string]any
		require.NoError(t, json.Unmarshal(line, &r))
		require.EqualValues(t, i+1, r["step"], "each step is recorded once, in order")
		for _, c := range timings {
			require.Contains(t, r, c)
			delete(r, c)
		}
		b, err := json.Marshal(r)
		require.NoError(t, err)
		fmt.Fprintf(&records, "%s\n", b)
	}
	out["records"] = records.String()
	require.Equal(t, steps, strings.Count(out["records"], "\n"))
	require.Equal(t, steps, strings.Count(out["samples"], "\n"))
	require.Equal(t, steps+1, bytes.Count(read("metrics.csv"), []byte("\n")))
	return out
}
