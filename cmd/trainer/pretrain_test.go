package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"diptych/checkpoints"
	"diptych/data/arrowset"
	"diptych/internal/runlog"
)

// TestMain lets the tests start this program as the command itself, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("DIPTYCH_TEST_COMMAND") != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is the command in a process of its own.
func process(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "DIPTYCH_TEST_COMMAND=1")
	return cmd
}

// tiny are arguments that train a tiny model on the demo for a few updates into the run directory out.
func tiny(out string, more ...string) []string {
	args := []string{"pretrain", "clip-emoji", "--out", out, "--threads", "1"}
	for _, s := range append([]string{
		"train.steps=4", "train.globalBatch=16", "train.grainSize=4", "train.checkpointEvery=2", "train.evalEvery=0", "eval.splits=[test_both]", "eval.tasks=[retrieval]",
		"optim.lr=1e-3", "optim.ema.decay=0.9", "train.lanes=4", "model.embedDim=16", "model.vision.imageSize=32", "model.vision.patchSize=8", "model.vision.width=32", "model.vision.depth=1", "model.vision.numHeads=2",
		"model.text.width=32", "model.text.depth=1", "model.text.numHeads=2",
	}, more...) {
		args = append(args, "--set", s)
	}
	return args
}

// requirePlain checks that what the command said is for people: no panic, no stack trace.
func requirePlain(t *testing.T, text string) {
	t.Helper()
	for _, s := range []string{"panic", "goroutine ", "runtime error", ".go:", "%!"} {
		require.NotContains(t, text, s)
	}
}

// Every mistake gives one error that names the file, key or row, and the exit code for the user's mistakes.
func TestPretrainMistakes(t *testing.T) {
	dir := t.TempDir()
	recipe := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
		return file
	}
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"unknown key", []string{recipe("a.yaml", "name: a\noptim:\n  learningrate: 1\n")}, []string{"a.yaml:3:3: unknown key optim.learningrate"}},
		{"unknown key, nearest", []string{recipe("b.yaml", "train:\n  step: 10\n")}, []string{"b.yaml:2:3: unknown key train.step; did you mean steps?"}},
		{"two unknown keys", []string{recipe("c.yaml", "modle: {}\ntrain: {batch: 3}\n")}, []string{"c.yaml:1:1: unknown key modle; did you mean model?", "c.yaml:2:9: unknown key train.batch"}},
		{"unknown key in a list", []string{recipe("d.yaml", "losses:\n  - {name: itc, wieght: 2}\n")}, []string{"d.yaml:2:", "unknown key losses[0].wieght; did you mean weight?"}},
		{"unknown key by an alias", []string{recipe("h.yaml", "optim: &a {lr: 1}\ntrain: *a\n")}, []string{"h.yaml", "lr"}},
		{"values of another kind", []string{recipe("i.yaml", "train:\n  steps: many\nlosses: {name: itc}\nmodel: 3\n")},
			[]string{"i.yaml:2:10: train.steps: many, want a whole number", "i.yaml:3:9: losses: {name: itc}, want a list", "i.yaml:4:8: model: 3, want keys: embedDim"}},
		{"a part of a step", []string{"--set", "train.steps=1.5"}, []string{"--set train.steps=1.5: train.steps: 1.5, want a whole number"}},
		{"not YAML", []string{recipe("e.yaml", "train: [\n")}, []string{"e.yaml"}},
		{"empty recipe", []string{recipe("g.yaml", "")}, []string{"train.globalBatch: 0, want at least 2 pairs", "model.embedDim: 0", "data.transforms: empty"}},
		{"no such recipe", []string{"clip-emojy"}, []string{"clip-emojy", "built in: clip-emoji"}},
		{"no such file", []string{filepath.Join(dir, "none.yaml")}, []string{"none.yaml"}},
		{"a folder", []string{dir}, []string{dir}},
		{"set: unknown key", []string{"--set", "optim.rl=1"}, []string{"--set optim.rl=1: unknown key optim.rl; did you mean lr?"}},
		{"set: below a value", []string{"--set", "seed.a=1"}, []string{"--set seed.a=1: seed has no keys below it"}},
		{"set: no value", []string{"--set", "optim.lr"}, []string{"--set optim.lr: want key=value"}},
		{"set: wrong kind", []string{"--set", "train.steps=many"}, []string{"--set train.steps=many: train.steps: many, want a whole number"}},
		{"unknown preset", []string{"--set", "model.preset=ViT-X"}, []string{`model.preset: "ViT-X" is unknown; known: ViT-B-16, ViT-B-32, ViT-S-32-alt`}},
		{"unknown loss", []string{"--set", "losses=[{name: triplet}]"}, []string{`losses[0].name: "triplet" is unknown; known: `}},
		{"unknown transform", []string{"--set", "data.transforms=[{op: rotate}]"}, []string{`data.transforms: transform: entry 1: unknown op "rotate"`}},
		{"picture size against patch", []string{"--set", "model.vision.imageSize=64", "--set", "model.vision.patchSize=12"}, []string{"model.vision.imageSize: 64 is not a multiple of patchSize 12"}},
		{"heads", []string{"--set", "model.text.width=128", "--set", "model.text.numHeads=3"}, []string{"model.text.width: 128 is not a multiple of numHeads 3"}},
		{"batch against lanes", []string{"--set", "train.globalBatch=126", "--set", "train.lanes=4", "--set", "train.grainSize=0"}, []string{"train.globalBatch: 126 pairs do not divide into 4 lanes"}},
		{"batch against grains", []string{"--set", "train.globalBatch=128", "--set", "train.grainSize=3"}, []string{"train.grainSize: 128 pairs of globalBatch 128 do not divide into grains of 3"}},
		{"lanes", []string{"--set", "train.lanes=3"}, []string{"train.lanes: 3, want a power of two"}},
		{"several faults", []string{"--set", "optim.lr=-1", "--set", "train.keepLast=0", "--set", "seed=3"}, []string{"optim: lr is -1", "train.keepLast: 0, want at least 1"}},
		{"batch larger than the groups", []string{"--set", "train.globalBatch=2048"}, []string{"a batch of 2048 pairs needs as many groups, the split has 1461: lower train.globalBatch"}},
		{"missing split", []string{"--set", "data.split=exam"}, []string{`data.split: emoji has no rows of split "exam"; it has test_both, test_concept, test_style, train, val`}},
		{"missing split to measure", []string{"--set", "eval.splits=[exam]"}, []string{`eval.splits: emoji has no split "exam"; it has test_both`}},
		{"no data set", []string{"--set", "data.path=" + filepath.ToSlash(filepath.Join(dir, "nodata"))}, []string{"data.path: ", "nodata"}},
		{"vocabulary", []string{"--set", "model.text.vocabSize=100"}, []string{"model.text.vocabSize: 100, the tokenizer has 3072 entries"}},
		{"workers against lanes", []string{"--workers", "3", "--set", "train.lanes=4"}, []string{"--workers: 3 workers do not divide the recipe's 4 lanes"}},
		{"no workers", []string{"--workers", "-1"}, []string{"--workers -1: want at least 1"}},
		{"threads", []string{"--threads", "-1"}, []string{"--threads -1"}},
		{"memory", []string{"--memory", "-1"}, []string{"--memory -1"}},
		{"two recipes", []string{"a", "b"}, []string{"accepts at most 1 arg", "--help"}},
		{"unknown flag", []string{"--worker", "2"}, []string{"unknown flag: --worker", "--help"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(dir, "out")
			code, stdout, errs := trainer(t, append([]string{"pretrain", "--out", out, "--set", "train.steps=1"}, c.args...)...)
			require.Equal(t, exitUsage, code, errs)
			for _, w := range c.want {
				require.Contains(t, errs, w)
			}
			require.True(t, strings.HasPrefix(errs, "trainer: "))
			requirePlain(t, stdout+errs)
			require.NoDirExists(t, out, "a mistake leaves nothing behind")
		})
	}
	t.Run("too little memory", func(t *testing.T) {
		code, _, errs := trainer(t, append(tiny(filepath.Join(dir, "small"), "data.cacheMiB=0"), "--memory", "0.003")...)
		require.NotZero(t, code)
		require.Contains(t, errs, "lower train.grainSize or the model's size")
		requirePlain(t, errs)
	})
}

// A run from its first update to its last: it is finished once, refuses another recipe, and continues what is asked of it.
func TestPretrainRun(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "run")
	code, stdout, errs := trainer(t, tiny(out)...)
	require.Zero(t, code, errs)
	for _, s := range []string{"run " + out, "parameters", "memory ", "disk ", "4 updates of 16 pairs", "step 4/4", "finished: model " + out} {
		require.Contains(t, stdout, s)
	}
	require.True(t, strings.HasPrefix(stdout, "run "+out), "the directory is printed first")
	for _, f := range []string{"metrics.jsonl", "metrics.csv", "eval.jsonl", "curves.png", "recipe.yaml", "report/report.md", "report/report.json", "model/model.safetensors", "model/state.json"} {
		require.FileExists(t, filepath.Join(out, filepath.FromSlash(f)))
	}

	t.Run("finished", func(t *testing.T) {
		for _, args := range [][]string{tiny(out), {"pretrain", "--out", out}} {
			code, stdout, errs := trainer(t, args...)
			require.Zero(t, code, errs)
			require.Contains(t, stdout, "finished already, 4 updates")
		}
	})
	t.Run("recipe differs, finished", func(t *testing.T) {
		code, _, errs := trainer(t, tiny(out, "optim.lr=0.5", "train.steps=9")...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, out)
		require.Contains(t, errs, "optim.lr: 0.5, not 0.001")
		require.Contains(t, errs, "train.steps: 9, not 4")
		require.NotContains(t, errs, "seed")
		requirePlain(t, errs)
	})
	t.Run("json", func(t *testing.T) {
		code, stdout, errs := trainer(t, append(tiny(filepath.Join(dir, "json"), "train.evalEvery=2", "eval.during=[test_both]"), "--json")...)
		require.Zero(t, code, errs)
		events := map[string]int{}
		for in := bufio.NewScanner(strings.NewReader(stdout)); in.Scan(); {
			var line map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(in.Bytes(), &line), in.Text())
			require.Len(t, line, 1)
			for event := range line {
				events[event]++
			}
		}
		require.Equal(t, map[string]int{"plan": 1, "step": 4, "evaluation": 2}, events)
		require.Contains(t, errs, "run "+filepath.Join(dir, "json"), "what is for people goes to standard error")
	})
	t.Run("the default directory", func(t *testing.T) {
		t.Chdir(dir)
		args := tiny("", "name=here")
		code, stdout, errs := trainer(t, append(args[:2:2], args[4:]...)...)
		require.Zero(t, code, errs)
		require.Contains(t, stdout, "run "+filepath.Join("runs", "here"))
		require.FileExists(t, filepath.Join("runs", "here", "model", "model.safetensors"))
	})
}

// The user's mistakes and a machine's failures around a run that is half done: one clear error each, and nothing is lost.
func TestPretrainInterrupted(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "half")
	interrupt(t, tiny(half, "train.steps=1000"), 3)
	steps := folders(t, half)
	require.NotEmpty(t, steps)

	// again copies the interrupted run, damages the copy and tries to go on with it.
	again := func(name string, damage func(run string), args ...string) (code int, out, errs, run string) {
		run = filepath.Join(dir, name)
		require.NoError(t, os.CopyFS(run, os.DirFS(half)))
		damage(run)
		code, out, errs = trainer(t, append([]string{"pretrain", "--out", run, "--threads", "1", "--set", "train.steps=1000"}, args...)...)
		requirePlain(t, out+errs)
		return code, out, errs, run
	}
	newest := func(run string) string { return filepath.Join(run, checkpoints.DirName, steps[len(steps)-1]) }

	t.Run("recipe differs", func(t *testing.T) {
		code, _, errs, run := again("differs", func(string) {}, "--set", "optim.lr=0.5")
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "begun with another recipe: optim.lr: 0.5, not 0.001")
		require.Equal(t, steps, folders(t, run))
	})
	t.Run("all checkpoints damaged", func(t *testing.T) {
		code, _, errs, run := again("damaged", func(run string) {
			for _, s := range folders(t, run) {
				truncate(t, filepath.Join(run, checkpoints.DirName, s, "moments.safetensors"))
			}
		})
		require.Equal(t, exitFailure, code)
		require.Contains(t, errs, "none of ")
		for _, s := range steps {
			require.Contains(t, errs, filepath.Join(s, "moments.safetensors"))
		}
		require.Equal(t, steps, folders(t, run), "nothing is overwritten")
		same(t, filepath.Join(half, runlog.MetricsFile), filepath.Join(run, runlog.MetricsFile))
	})
	t.Run("checkpoint of another model", func(t *testing.T) {
		other := filepath.Join(dir, "other")
		code, _, errs := trainer(t, tiny(other, "train.steps=1", "model.embedDim=8", "model.vision.depth=2")...)
		require.Zero(t, code, errs)
		code, _, errs, run := again("stranger", func(run string) {
			require.NoError(t, os.RemoveAll(newest(run)))
			require.NoError(t, os.CopyFS(newest(run), os.DirFS(filepath.Join(other, checkpoints.DirName, "step-00000001"))))
			b, err := os.ReadFile(filepath.Join(newest(run), "state.json"))
			require.NoError(t, err)
			require.Contains(t, string(b), `"step": 1`)
			require.NoError(t, os.Rename(newest(run), filepath.Join(run, checkpoints.DirName, "step-00000001")))
			for _, s := range folders(t, run) {
				if s != "step-00000001" {
					require.NoError(t, os.RemoveAll(filepath.Join(run, checkpoints.DirName, s)))
				}
			}
		})
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "step-00000001")
		require.Contains(t, errs, "model.embedDim: 16, not 8")
		require.Contains(t, errs, "model.vision.depth: 1, not 2")
		require.Equal(t, []string{"step-00000001"}, folders(t, run))
	})
	t.Run("a second process", func(t *testing.T) {
		lock, err := runlog.Lock(half)
		require.NoError(t, err)
		defer lock.Close()
		cmd := process(t, "pretrain", "--out", half)
		b, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, exitFailure, cmd.ProcessState.ExitCode())
		require.Contains(t, string(b), fmt.Sprintf("the run directory is in use by process %d", os.Getpid()))
		requirePlain(t, string(b))
		require.Equal(t, steps, folders(t, half))
	})
	t.Run("no place to write", func(t *testing.T) {
		file := filepath.Join(dir, "file")
		require.NoError(t, os.WriteFile(file, nil, 0o666))
		places := []string{filepath.Join(file, "run")}
		if runtime.GOOS == "linux" {
			places = append(places, "/proc/run") // nobody may make a folder there, root neither
		}
		if runtime.GOOS != "windows" && os.Geteuid() != 0 {
			locked := filepath.Join(dir, "locked")
			require.NoError(t, os.Mkdir(locked, 0o555))
			places = append(places, filepath.Join(locked, "run"))
		}
		for _, p := range places {
			code, out, errs := trainer(t, tiny(p)...)
			require.Equal(t, exitFailure, code)
			require.Contains(t, errs, p)
			requirePlain(t, out+errs)
		}
	})
	t.Run("newest checkpoint damaged", func(t *testing.T) {
		run := filepath.Join(dir, "older")
		require.NoError(t, os.CopyFS(run, os.DirFS(half)))
		require.Greater(t, len(steps), 1)
		truncate(t, filepath.Join(newest(run), "model.safetensors"))
		out := interrupt(t, tiny(run, "train.steps=1000"), 1)
		require.Contains(t, out, "note: ")
		require.Contains(t, out, filepath.Join(newest(run), "model.safetensors"))
		require.Contains(t, out, "the one before it is used")
		var step int
		_, err := fmt.Sscanf(steps[len(steps)-2], "step-%d", &step)
		require.NoError(t, err)
		require.Contains(t, out, fmt.Sprintf("continued   after update %d", step))
	})
	t.Run("goes on", func(t *testing.T) {
		out := interrupt(t, tiny(half, "train.steps=1000"), 2)
		require.Contains(t, out, "continued   after update ")
	})
}

// A loss that is not finite stops the run before the update, and the checkpoint from before stays.
func TestPretrainNotFinite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	args := tiny(out, "optim.lr=1e30", "train.checkpointEvery=1", "train.keepLast=1", "train.steps=50", "train.logSamples=true")
	code, stdout, errs := trainer(t, args...)
	require.Equal(t, exitFailure, code)
	require.Regexp(t, `train: step \d+: (loss term itc is |optim: parameter ".+", element)`, errs)
	require.Contains(t, errs, "not finite")
	requirePlain(t, stdout+errs)
	var step int
	_, err := fmt.Sscanf(errs, "trainer: train: step %d:", &step)
	require.NoError(t, err)
	require.Equal(t, []string{fmt.Sprintf("step-%08d", step-1)}, folders(t, out), "the checkpoint before the step stays")
	require.Contains(t, errs, "; rows ")
	records, err := runlog.Read(out, runlog.MetricsFile)
	require.NoError(t, err)
	require.Len(t, records, step-1, "the step that failed is not recorded")

	again, _, errsAgain := trainer(t, args...)
	require.Equal(t, exitFailure, again)
	require.Equal(t, errs, errsAgain, "the same step fails again, with the same rows")
}

// Ctrl-C ends a run after the update at hand, with a checkpoint and exit code 130.
func interrupt(t *testing.T, args []string, after int) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		return interruptInside(t, args, after)
	}
	cmd := process(t, append(args, "--json")...)
	var people bytes.Buffer
	cmd.Stderr = &people
	events, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	updates := 0
	for in := bufio.NewScanner(events); in.Scan(); {
		if strings.HasPrefix(in.Text(), `{"step"`) {
			if updates++; updates == after {
				require.NoError(t, cmd.Process.Signal(os.Interrupt))
			}
		}
	}
	require.Error(t, cmd.Wait())
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode(), people.String())
	require.GreaterOrEqual(t, updates, after)
	require.Contains(t, people.String(), "interrupted")
	requirePlain(t, people.String())
	return people.String()
}

// interruptInside does the same without a signal.
func interruptInside(t *testing.T, args []string, after int) string {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := newRoot()
	var people bytes.Buffer
	root.SetErr(&people)
	updates := 0
	root.SetOut(writerFunc(func(b []byte) (int, error) {
		if bytes.HasPrefix(b, []byte(`{"step"`)) {
			if updates++; updates == after {
				cancel()
			}
		}
		return len(b), nil
	}))
	require.Equal(t, exitInterrupted, run(ctx, root, append(args, "--json")))
	return people.String()
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// folders lists the checkpoints of a run, oldest first.
func folders(t *testing.T, run string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(run, checkpoints.DirName))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// truncate takes the last byte of a file.
func truncate(t *testing.T, file string) {
	t.Helper()
	st, err := os.Stat(file)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(file, st.Size()-1))
}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	require.NoError(t, err)
	y, err := os.ReadFile(b)
	require.NoError(t, err)
	require.Equal(t, string(x), string(y))
}

// Every command that can be run explains itself with an example.
func TestHelp(t *testing.T) {
	var walk func(cmd *cobra.Command, path []string)
	n := 0
	walk = func(cmd *cobra.Command, path []string) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		n++
		code, out, errs := trainer(t, append(path, "--help")...)
		require.Zero(t, code, errs)
		require.Contains(t, out, "Usage:", path)
		require.Contains(t, out, "Example", path)
		require.Contains(t, out, "trainer "+strings.Join(path, " "), path)
		require.NotEmpty(t, cmd.Short, path)
		for _, sub := range cmd.Commands() {
			walk(sub, append(path[:len(path):len(path)], sub.Name()))
		}
	}
	walk(newRoot(), nil)
	require.GreaterOrEqual(t, n, 9)
}

// writeSet makes a data set of n pictures of one colour each; those in broken do not decode.
func writeSet(t *testing.T, dir string, n int, broken ...int) {
	t.Helper()
	w, err := arrowset.Create(dir, arrowset.Manifest{Name: "colours"})
	require.NoError(t, err)
	defer w.Abort()
	for i := range n {
		var b bytes.Buffer
		im := image.NewGray(image.Rect(0, 0, 8, 8))
		im.Pix[0] = uint8(i)
		require.NoError(t, png.Encode(&b, im))
		if slices.Contains(broken, i) {
			b.Truncate(20)
		}
		split := "train"
		if i%5 == 4 {
			split = "val"
		}
		require.NoError(t, w.Append(arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: fmt.Sprintf("%d.png", i), Split: split},
			Image: b.Bytes(), Captions: []arrowset.Caption{{Text: fmt.Sprint("colour ", i)}}}))
	}
	require.NoError(t, w.Close())
}

// Data that are damaged or broken give one error that names the file, or the rows and the key that allows them.
func TestPretrainData(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	writeSet(t, whole, 50)
	shards, err := filepath.Glob(filepath.Join(whole, "*.arrow"))
	require.NoError(t, err)
	require.Len(t, shards, 1)
	shard := filepath.Base(shards[0])
	change := func(file string, f func(b []byte) []byte) func(t *testing.T, set string) {
		return func(t *testing.T, set string) {
			b, err := os.ReadFile(filepath.Join(set, file))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(set, file), f(b), 0o666))
		}
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, set string)
		want   []string
	}{
		{"truncated shard", change(shard, func(b []byte) []byte { return b[:len(b)/2] }), []string{shard}},
		{"wrong magic number", change(shard, func(b []byte) []byte { copy(b, "NOTARR"); return b }), []string{shard}},
		{"shard is gone", func(t *testing.T, set string) { require.NoError(t, os.Remove(filepath.Join(set, shard))) }, []string{shard}},
		{"manifest is no JSON", change("manifest.json", func(b []byte) []byte { return b[1:] }), []string{"manifest.json"}},
		{"another version", change("manifest.json", func(b []byte) []byte { return bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 7`), 1) }),
			[]string{"manifest.json has version 7, this program reads version 1"}},
		{"manifest is gone", func(t *testing.T, set string) { require.NoError(t, os.Remove(filepath.Join(set, "manifest.json"))) }, []string{"manifest.json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-"))
			require.NoError(t, os.CopyFS(set, os.DirFS(whole)))
			c.damage(t, set)
			code, out, errs := trainer(t, tiny(filepath.Join(dir, "run"), "data.path="+filepath.ToSlash(set), "eval.splits=[val]")...)
			require.NotZero(t, code)
			require.Contains(t, errs, set)
			for _, w := range c.want {
				require.Contains(t, errs, w)
			}
			requirePlain(t, out+errs)
		})
	}
	t.Run("too many broken pictures", func(t *testing.T) {
		set := filepath.Join(dir, "broken")
		writeSet(t, set, 50, 3, 11)
		args := func(limit float64) []string {
			return tiny(filepath.Join(dir, fmt.Sprint("limit", limit)), "data.path="+filepath.ToSlash(set), "eval.splits=[val]", fmt.Sprint("data.brokenLimit=", limit), "train.steps=6")
		}
		code, out, errs := trainer(t, args(0.025)...) // one of 40
		require.Equal(t, exitFailure, code)
		require.Contains(t, errs, "2 pictures do not decode, data.brokenLimit allows 1 of 40")
		for _, row := range []string{"row 3", "row 11"} {
			require.Contains(t, errs, row)
		}
		requirePlain(t, out+errs)
		code, out, errs = trainer(t, args(0.05)...)
		require.Zero(t, code, errs)
		require.Contains(t, out, "does not decode and is replaced")
	})
}
