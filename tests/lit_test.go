package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
	"diptych/experiments"
)

const litRecipe = `
name: lit
seed: 3
data:
  path: %s
  tokenizer: {kind: wordpiece, file: %s}
  brokenLimit: 0.02
  transforms: [{op: resize, mode: squash}, {op: flip, prob: 0.5}, {op: normalize, stats: half}]
  evalTransforms: [{op: resize, mode: squash}, {op: normalize, stats: half}]
model:
  embedDim: %d
  vision: {imageSize: 16, patchSize: 8, width: 16, depth: 1, numHeads: 2}
  text: {kind: bert, weights: %s, contextLength: 12, pool: avg, projection: %s}
optim: {lr: 1e-3, groups: [%s], schedule: {name: cosine, warmupSteps: 1}, ema: {decay: 0.9}}
train: {steps: 4, globalBatch: 16, grainSize: 4, lanes: 2, checkpointEvery: 2, evalEvery: 2, logSamples: true}
eval: {splits: [val], tasks: [retrieval]}
`

// A frozen text tower keeps the weights that it is given, whoever works and however often the run is interrupted; with a
// trained projection nothing but that changes beside the image tower; one that is not frozen learns.
func TestLockedText(t *testing.T) {
	dir := t.TempDir()
	data, vocab := filepath.Join(dir, "data"), filepath.Join(dir, "vocab.txt")
	writeData(t, data)
	words := "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
	for c := 'a'; c <= 'z'; c++ {
		words += fmt.Sprintf("%c\n##%c\n", c, c)
	}
	require.NoError(t, os.WriteFile(vocab, []byte(words), 0o666))
	const weights = "../model/testdata/bert"
	run := func(name, projection string, embedDim int, frozen bool, interrupt bool, workers int) string {
		recipe, out := filepath.Join(dir, name+".yaml"), filepath.Join(dir, name)
		groups := ""
		if frozen {
			groups = `{pattern: "bert.*", freeze: true}`
		}
		text := fmt.Sprintf(litRecipe, filepath.ToSlash(data), filepath.ToSlash(vocab), embedDim, weights, projection, groups)
		require.NoError(t, os.WriteFile(recipe, []byte(text), 0o666))
		o := experiments.Options{Recipe: recipe, Out: out, Workers: workers, Threads: workers}
		if interrupt {
			pretrainUntil(t, o, 1)
			pretrainUntil(t, o, 3)
		}
		require.NoError(t, pretrain(t.Context(), o, &watcher{}))
		return out
	}
	one := run("one", "none", 32, true, false, 1)
	require.Equal(t, outcome(t, one, 4), outcome(t, run("two", "none", 32, true, true, 2), 4))

	tensors := func(file string) map[string][]float32 {
		f, err := safetensors.Open(file)
		require.NoError(t, err)
		defer f.Close()
		m := map[string][]float32{}
		for _, name := range f.Names() {
			if strings.HasSuffix(name, "position_ids") {
				continue
			}
			v, _, err := f.Float32(name)
			require.NoError(t, err)
			m[name] = v
		}
		return m
	}
	given := tensors(weights + "/model.safetensors")
	kept := func(dir string) (equal, other int) {
		m := tensors(filepath.Join(dir, "model", "model.safetensors"))
		for name, v := range given {
			got, ok := m["bert."+name]
			switch {
			case !ok: // query, key and value, which lie in one
			case fmt.Sprint(got) == fmt.Sprint(v):
				equal++
			default:
				other++
			}
		}
		return equal, other
	}
	same, other := kept(one)
	require.Zero(t, other)
	require.Greater(t, same, 30)
	same, other = kept(run("projected", "''", 24, true, false, 1))
	require.Zero(t, other)
	require.Greater(t, same, 30)
	_, other = kept(run("trained", "none", 32, false, false, 1))
	require.Greater(t, other, 30)
}
