package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
	"diptych/experiments"
	"diptych/train"
)

// vitRecipe is a small classifier on the demo with everything random that a classifier has.
const vitRecipe = `
name: vit
seed: 3
data:
  path: demo
  classes: category
  cacheMiB: 1
  transforms: [{op: resize, mode: squash}, {op: flip, prob: 0.5}, {op: normalize, stats: half}]
  evalTransforms: [{op: resize, mode: squash}, {op: normalize, stats: half}]
model:
  kind: vit
  representation: 16
  vision: {imageSize: 32, patchSize: 8, width: 32, depth: 2, numHeads: 2, dropout: 0.1, dropPath: 0.2, patchDropout: 0.25, layerScale: 0.1}
losses: [{name: classify, labelSmoothing: 0.1, mixup: 0.2, cutmix: 1}]
optim: {name: sgd, momentum: 0.9, lr: 0.05, weightDecay: 1e-4, schedule: {warmupSteps: 2}, ema: {decay: 0.9}}
train: {steps: 6, globalBatch: 16, grainSize: 4, lanes: 4, checkpointEvery: 3, logSamples: true}
eval: {splits: [test_both]}
`

// model reads a finished model's tensors.
func model(t *testing.T, dir string) map[string][]float32 {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "model", "model.safetensors"))
	require.NoError(t, err)
	defer f.Close()
	out := map[string][]float32{}
	for _, name := range f.Names() {
		out[name], _, err = f.Float32(name)
		require.NoError(t, err)
	}
	return out
}

// A classifier's run ends with the same bits on other workers and when it was interrupted, and is measured.
func TestClassifierRun(t *testing.T) {
	dir := t.TempDir()
	recipe := filepath.Join(dir, "vit.yaml")
	require.NoError(t, os.WriteFile(recipe, []byte(vitRecipe), 0o666))
	options := func(name string, workers, threads int) experiments.Options {
		return experiments.Options{Recipe: recipe, Out: filepath.Join(dir, name), Workers: workers, Threads: threads}
	}
	require.NoError(t, pretrain(t.Context(), options("base", 1, 2), &watcher{}))
	want := outcome(t, filepath.Join(dir, "base"), 6)
	require.Contains(t, want["records"], `"classify.top1"`)
	require.Contains(t, want["evaluations"], `"test_both.classify.top5"`)
	pretrainUntil(t, options("again", 4, 1), 4)
	require.NoError(t, pretrain(t.Context(), options("again", 2, 2), &watcher{}))
	require.Equal(t, want, outcome(t, filepath.Join(dir, "again"), 6))

	// Another set of classes: the head begins anew.
	o := options("other", 1, 2)
	o.Sets = []string{"start.from=" + filepath.Join(dir, "base"), `start.new=["head.*"]`, "data.classes=subcategory", "train.steps=2"}
	require.NoError(t, pretrain(t.Context(), o, &watcher{}))
	require.Len(t, model(t, o.Out)["head.bias"], 95)
	o.Out, o.Sets = filepath.Join(dir, "refused"), o.Sets[:1]
	o.Sets = append(o.Sets, "data.classes=subcategory")
	require.ErrorContains(t, pretrain(t.Context(), o, &watcher{}), "has parameter head.weight of shape [8 16], the recipe's model wants [95 16]")
}

// Fine-tuning takes model, tokenizer and transforms from where it starts, resamples positions, leaves frozen parameters as they
// are, and is resumed to the same bits; an ensemble of all of the new or all of the old model is that model.
func TestFinetune(t *testing.T) {
	dir := t.TempDir()
	base := experiments.Options{Recipe: writeRecipe(t, dir), Out: filepath.Join(dir, "base"), Sets: []string{"train.steps=4", "optim.ema.decay=0"}}
	require.NoError(t, pretrain(t.Context(), base, &watcher{}))
	recipe := filepath.Join(dir, "tune.yaml")
	require.NoError(t, os.WriteFile(recipe, fmt.Appendf(nil, `
name: tune
data: {path: %s, brokenLimit: 0.02}
start: {from: %s, new: [logit_scale]}
model: {vision: {imageSize: 48}, text: {contextLength: 20}}
optim: {lr: 1e-3, layerDecay: 0.5, groups: [{pattern: "visual.transformer*", freeze: true}], schedule: {warmupSteps: 1}}
train: {steps: 6, globalBatch: 16, grainSize: 4, lanes: 2, checkpointEvery: 2, logSamples: true}
eval: {splits: [val], tasks: [retrieval]}
`, filepath.ToSlash(filepath.Join(dir, "data")), filepath.ToSlash(base.Out)), 0o666))
	options := func(name string) experiments.Options {
		return experiments.Options{Recipe: recipe, Out: filepath.Join(dir, name)}
	}
	w := &watcher{}
	require.NoError(t, pretrain(t.Context(), options("tune"), w))
	notes := strings.Join(w.notes, "\n")
	require.Contains(t, notes, "visual.positional_embedding: [17 32] resampled to [37 32]")
	require.Contains(t, notes, "positional_embedding: [16 32] resampled to [20 32]")
	require.Contains(t, notes, "logit_scale begins anew")
	from, to := model(t, base.Out), model(t, options("tune").Out)
	for name, x := range to {
		switch {
		case strings.HasPrefix(name, "visual.transformer"):
			require.Equal(t, from[name], x, "%s is frozen", name)
		case name == "visual.conv1.weight" || name == "text_projection":
			require.NotEqual(t, from[name], x, name)
		}
	}

	pretrainUntil(t, options("again"), 3)
	require.NoError(t, pretrain(t.Context(), experiments.Options{Out: options("again").Out, Threads: 1}, &watcher{}), "goes on without its recipe")
	require.Equal(t, to, model(t, options("again").Out))

	m, err := experiments.OpenModel(options("tune").Out, 1)
	require.NoError(t, err)
	defer m.Close()
	texts := []string{"a red fruit", "two cats"}
	embeds := func() []float32 {
		x, err := m.Texts(t.Context(), texts)
		require.NoError(t, err)
		return x
	}
	tuned := embeds()
	require.NoError(t, m.Ensemble("", 1))
	require.Equal(t, tuned, embeds())
	require.NoError(t, m.Ensemble("", 0))
	require.NotEqual(t, tuned, embeds())
	require.ErrorContains(t, m.Ensemble(filepath.Join(dir, "none"), 0.5), "start.from")

	o := options("missing")
	o.Sets = []string{"start.from=" + filepath.Join(dir, "none")}
	require.ErrorIs(t, pretrain(t.Context(), o, &watcher{}), experiments.ErrRecipe)
}

// With patience a run ends when its metric no longer grows, and the finished model is the best one's.
func TestPatience(t *testing.T) {
	dir := t.TempDir()
	o := experiments.Options{Recipe: writeRecipe(t, dir), Out: filepath.Join(dir, "run"), Sets: []string{
		"train.steps=40", "train.evalEvery=1", "train.patience=2", "train.checkpointEvery=0", "optim.lr=1e-9", "optim.ema.decay=0",
	}}
	steps := 0
	w := &watcher{step: func(r train.Record, _ time.Duration) { steps = r.Step }}
	require.NoError(t, pretrain(t.Context(), o, w))
	require.Less(t, steps, 40)
	require.Contains(t, strings.Join(w.notes, "\n"), "has not grown in 2 evaluations")
	var best struct{ Step int }
	b, err := os.ReadFile(filepath.Join(o.Out, "checkpoints", fmt.Sprintf("step-%08d", steps-2), "state.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &best))
	f, err := safetensors.Open(filepath.Join(o.Out, "checkpoints", fmt.Sprintf("step-%08d", best.Step), "model.safetensors"))
	require.NoError(t, err)
	defer f.Close()
	for name, x := range model(t, o.Out) {
		y, _, err := f.Float32(name)
		require.NoError(t, err)
		require.Equal(t, y, x, name)
	}
}
