package experiments

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints"
	"diptych/data/arrowset"
	"diptych/data/demo"
	"diptych/data/transform"
	"diptych/eval"
	"diptych/internal/runlog"
	"diptych/train"
)

// pocketRecipe trains a very small model on the data set of makePocket.
const pocketRecipe = `
name: pocket
data:
  path: %s
  tokenizer: {kind: bpe, file: demo}
  transforms: [{op: resize, mode: squash}]
  evalTransforms: [{op: resize, mode: squash}]
  cacheMiB: 1
  brokenLimit: 0.2
model:
  embedDim: 8
  vision: {imageSize: 8, patchSize: 4, width: 16, depth: 1, numHeads: 2}
  text: {contextLength: 16, width: 16, depth: 1, numHeads: 2}
train: {steps: 8, globalBatch: 4, lanes: 1, evalEvery: 4, checkpointEvery: 2}
eval: {tasks: [retrieval]}
`

// makePocket makes a data set of 20 training pictures, of which the first broken ones do not decode, and 4 of each other split
// named; its captions have the language lang. It returns the recipe's file and the set's folder.
func makePocket(t *testing.T, broken int, lang string, splits ...string) (recipe, data string) {
	t.Helper()
	dir := t.TempDir()
	recipe, data = filepath.Join(dir, "pocket.yaml"), filepath.Join(dir, "data")
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	w, err := arrowset.Create(data, arrowset.Manifest{Name: "pocket"})
	require.NoError(t, err)
	defer w.Abort()
	next := 0
	add := func(split string) {
		image, err := set.Image(t.Context(), next)
		require.NoError(t, err)
		if next < broken {
			image = image[:20]
		}
		require.NoError(t, w.Append(arrowset.Row{
			RowMeta: arrowset.RowMeta{ImageID: fmt.Sprint("id-", next), Split: split}, Image: image,
			Captions: []arrowset.Caption{{Text: "one of them", Lang: lang}},
		}))
		next++
	}
	for range 20 {
		add("train")
	}
	for _, s := range splits {
		for range 4 {
			add(s)
		}
	}
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(recipe, fmt.Appendf(nil, pocketRecipe, filepath.ToSlash(data)), 0o666))
	return recipe, data
}

// listener calls back at each event of a run; nil functions are left out.
type listener struct {
	step     func(r train.Record)
	measured func(step int)
	notes    []string
}

func (l *listener) Begin(*Run, Plan) {}
func (l *listener) Step(r train.Record, _ time.Duration) {
	if l.step != nil {
		l.step(r)
	}
}
func (l *listener) Measuring(string, int, int) {}
func (l *listener) Measured(step int, _ *eval.Result) {
	if l.measured != nil {
		l.measured(step)
	}
}
func (l *listener) Note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

func trainPocket(ctx context.Context, l *listener, recipe, out string, sets ...string) error {
	r, err := Resolve(Options{Recipe: recipe, Out: out, Sets: sets, Workers: 1, Threads: 1})
	if err != nil {
		return err
	}
	return r.Train(ctx, l)
}

// What an evaluation would miss is told before anything is trained.
func TestEvaluationIsCheckedFirst(t *testing.T) {
	english, _ := makePocket(t, 0, "en", "val", "test")
	german, _ := makePocket(t, 0, "de", "val")
	for _, c := range []struct {
		name, recipe, set string
		want              string // empty: it trains
	}{
		{"no such split", english, "eval.splits=[dev]", `eval.splits: pocket has no split "dev"; it has test, train, val`},
		{"no such split in between", english, "eval.during=[dev]", `eval.during: pocket has no split "dev"`},
		{"no such task", english, "eval.tasks=[retreival]", `eval.tasks: "retreival" is unknown; known: retrieval, zeroshot`},
		{"no such texts", english, "eval.texts=captions", `eval.texts: "captions" is unknown; known: label, all`},
		{"no such metric", english, "train.keepBest=val.recall", `train.keepBest: "val.recall" is not measured, or less of it is better; there are val.imageToText.recallAt1,`},
		{"less is better", english, "train.keepBest=val.imageToText.medianRank", `"val.imageToText.medianRank" is not measured, or less of it is better`},
		{"metric of a split that is measured at the end only", english, "train.keepBest=test.imageToText.recallAt1", `train.keepBest: "test.imageToText.recallAt1"`},
		{"no captions of the language", german, "seed=1", `eval.splits: split "val" of pocket has no captions of language "en"`},
		{"its captions' language", german, "data.captionLangs=[de]", ""},
		{"metric of a split that is not measured at the end", english, "train={steps: 4, globalBatch: 4, lanes: 1, evalEvery: 2, keepBest: val.imageToText.recallAt1}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			sets := []string{c.set}
			if c.want == "" {
				sets = append(sets, "train.steps=4", "train.evalEvery=2")
			}
			if c.recipe == english && c.want == "" {
				sets = append(sets, "eval.splits=[test]")
			}
			err := trainPocket(t.Context(), &listener{}, c.recipe, out, sets...)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrRecipe)
			require.ErrorContains(t, err, c.want)
			require.NoDirExists(t, out, "nothing is begun")
		})
	}
	err := trainPocket(t.Context(), &listener{}, english, filepath.Join(t.TempDir(), "run"), "data.path=nowhere")
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, "data.path: ")
}

// A run goes on only with the data that it was begun with.
func TestDataChangedMeanwhile(t *testing.T) {
	recipe, data := makePocket(t, 0, "en", "val")
	out := filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.ErrorIs(t, trainPocket(ctx, &listener{step: func(train.Record) { cancel() }}, recipe, out), train.ErrInterrupted)

	_, other := makePocket(t, 1, "en", "val")
	require.NoError(t, os.Rename(data, data+".before"))
	require.NoError(t, os.Rename(other, data))
	err := trainPocket(t.Context(), &listener{}, recipe, out)
	require.ErrorIs(t, err, ErrDiffers)
	require.ErrorContains(t, err, "data.path: "+filepath.ToSlash(data)+" held other rows then")

	require.NoError(t, os.RemoveAll(data))
	require.NoError(t, os.Rename(data+".before", data))
	require.NoError(t, trainPocket(t.Context(), &listener{}, recipe, out))
}

// Broken pictures are named once, and their count goes on where a run was interrupted.
func TestBrokenPicturesAreCountedOn(t *testing.T) {
	recipe, _ := makePocket(t, 5, "en", "val")
	refused := 0 // the update that has one too many
	last := &listener{step: func(r train.Record) { refused = r.Step }}
	err := trainPocket(t.Context(), last, recipe, filepath.Join(t.TempDir(), "run"))
	require.ErrorIs(t, err, transform.ErrBadPicture)
	require.ErrorContains(t, err, "allows 4 of 20: row 0 (id-0): ")
	require.NotEmpty(t, last.notes)
	require.Regexp(t, `^row (\d) \(id-\d\) does not decode and is replaced: `, last.notes[0])
	require.Greater(t, refused, 1)
	require.Less(t, refused, 8)

	out := filepath.Join(t.TempDir(), "run")
	var seen []string
	for step := 1; step <= refused; step++ {
		ctx, cancel := context.WithCancel(t.Context())
		l := &listener{step: func(r train.Record) {
			require.Equal(t, step, r.Step)
			cancel()
		}}
		require.ErrorIs(t, trainPocket(ctx, l, recipe, out), train.ErrInterrupted)
		seen = append(seen, l.notes...)
	}
	require.Equal(t, last.notes, seen, "each row is named once")
	err = trainPocket(t.Context(), &listener{step: func(train.Record) { t.Error("an update after the limit") }}, recipe, out)
	require.ErrorIs(t, err, transform.ErrBadPicture)
}

// An interruption between the last record of an evaluation and the end of the run loses neither score nor report.
func TestInterruptedWhenAllIsMeasured(t *testing.T) {
	recipe, _ := makePocket(t, 0, "en", "val")
	const best = "train.keepBest=val.imageToText.recallAt5"
	for _, step := range []int{4, 8} {
		t.Run(fmt.Sprint("after update ", step), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := &listener{measured: func(at int) {
				if at == step {
					cancel()
				}
			}}
			require.ErrorIs(t, trainPocket(ctx, l, recipe, out, best), train.ErrInterrupted)
			c, _, err := checkpoints.Find(out)
			require.NoError(t, err)
			require.Equal(t, step, c.Step)
			require.NotNil(t, c.Score)
			require.NoError(t, trainPocket(t.Context(), &listener{}, recipe, out, best))
			records, err := runlog.Read(out, runlog.EvalFile)
			require.NoError(t, err)
			require.Len(t, records, 2, "each evaluation is recorded once")
			require.FileExists(t, filepath.Join(out, "report", "report.md"))
		})
	}
}

// What the cache of pictures takes is named when nothing is left for the model.
func TestCacheLeavesNoMemory(t *testing.T) {
	recipe, _ := makePocket(t, 0, "en", "val")
	out := filepath.Join(t.TempDir(), "run")
	r, err := Resolve(Options{Recipe: recipe, Out: out, Workers: 1, Threads: 1, Memory: 1 << 20})
	require.NoError(t, err)
	err = r.Train(t.Context(), &listener{})
	require.ErrorContains(t, err, "data.cacheMiB: 1 MiB of decoded pictures, and the batches that are read ahead, leave nothing of the 1 MiB that are free")
	require.NoDirExists(t, out)
}
