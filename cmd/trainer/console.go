package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"diptych/eval"
	"diptych/experiments"
	"diptych/experiments/report"
	"diptych/train"
)

// console shows a run to a person, with a bar on a terminal and lines elsewhere, or to a program as JSON lines.
type console struct {
	out, err io.Writer
	json     bool
	terminal bool

	plan    experiments.Plan
	batch   int
	bar     *progressbar.ProgressBar
	begun   time.Time
	printed time.Time
	steps   int        // since begun
	window  stepWindow // since printed
}

// stepWindow sums up the updates between two lines.
type stepWindow struct {
	steps      int
	loss       float64
	busy, wait time.Duration
}

// lineEvery is the time between two lines where there is no terminal.
const lineEvery = 10 * time.Second

func newConsole(out, errw io.Writer, asJSON bool) *console {
	f, ok := errw.(*os.File)
	return &console{out: out, err: errw, json: asJSON, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// say prints a line for a person: to standard output, or to standard error when that carries JSON.
func (c *console) say(format string, args ...any) {
	w := c.out
	if c.json {
		w = c.err
	}
	if c.bar != nil {
		_ = c.bar.Clear()
	}
	fmt.Fprintf(w, format+"\n", args...)
}

// emit writes one JSON line.
func (c *console) emit(event string, v any) {
	if !c.json {
		return
	}
	b, err := json.Marshal(map[string]any{event: v})
	if err != nil {
		fmt.Fprintln(c.err, "trainer: --json:", err)
		return
	}
	fmt.Fprintf(c.out, "%s\n", b)
}

func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// Begin tells what the run will take.
func (c *console) Begin(r *experiments.Run, p experiments.Plan) {
	c.plan, c.batch, c.begun, c.printed = p, r.Config.Train.GlobalBatch, time.Now(), time.Now()
	c.emit("plan", p)
	c.say("data        %d pictures of split %s in %d groups", p.Pairs, r.Config.Data.Split, p.Groups)
	c.say("parameters  %.2f M", float64(p.Params)/1e6)
	c.say("memory      %s: weights and moments %s, gradients %s, activations %s (%d of %d grains kept)%s",
		size(p.Total), size(p.Weights), size(p.Gradients), size(p.Activations), p.KeptGrains, p.Grains, free(p.MemoryFree))
	c.say("pictures    %s at most: decoded ones, and batches ahead", size(p.Data))
	c.say("disk        %s of checkpoints%s", size(p.Disk), free(p.DiskFree))
	c.say("work        %d updates of %d pairs, at most %.1f GFLOP each", p.Steps, c.batch, p.StepFLOPs/1e9)
	if p.From > 0 {
		c.say("continued   after update %d", p.From)
	}
	if c.terminal {
		c.bar = progressbar.NewOptions(p.Steps, progressbar.OptionSetWriter(c.err), progressbar.OptionSetWidth(24), progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetPredictTime(false), progressbar.OptionFullWidth())
		_ = c.bar.Set(p.From)
	}
}

func free(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %s are free", size(n))
}

// Step shows an update.
func (c *console) Step(r train.Record, wait time.Duration) {
	c.emit("step", struct {
		train.Record
		DataWait float64 `json:"dataWait"`
	}{r, wait.Seconds()})
	c.steps++
	w := &c.window
	w.steps++
	w.loss += r.Loss
	w.busy += time.Duration(r.Seconds * float64(time.Second))
	w.wait += wait
	now := time.Now()
	last := r.Step == c.plan.Steps
	if c.bar != nil {
		if now.Sub(c.printed) > time.Second || last {
			c.bar.Describe(c.status(r.Step))
			c.printed, c.window = now, stepWindow{}
		}
		_ = c.bar.Set(r.Step)
		return
	}
	if c.steps == 1 || now.Sub(c.printed) > lineEvery || last {
		c.say("step %d/%d  %s", r.Step, c.plan.Steps, c.status(r.Step))
		c.printed, c.window = now, stepWindow{}
	}
}

// status is what the window says.
func (c *console) status(step int) string {
	w := &c.window
	if w.steps == 0 {
		return ""
	}
	total := w.busy + w.wait
	left := time.Duration(float64(time.Since(c.begun)) / float64(c.steps) * float64(c.plan.Steps-step))
	return fmt.Sprintf("loss %.4f  %.0f pairs/s  data wait %.1f %%  ETA %s", w.loss/float64(w.steps),
		float64(w.steps*c.batch)/total.Seconds(), 100*w.wait.Seconds()/total.Seconds(), left.Round(time.Second))
}

// Measuring shows how far an evaluation is.
func (c *console) Measuring(what string, done, total int) {
	if c.bar != nil {
		c.bar.Describe(fmt.Sprintf("measuring %s %d/%d", what, done, total))
	}
}

// Measured shows an evaluation.
func (c *console) Measured(step int, res *eval.Result) {
	c.emit("evaluation", map[string]any{"step": step, "result": res})
	c.say("after update %d:\n%s", step, report.Summary(res))
}

// Note shows what a person should know.
func (c *console) Note(format string, args ...any) {
	c.emit("note", fmt.Sprintf(format, args...))
	c.say("note: "+format, args...)
}

// end leaves the bar's line.
func (c *console) end() {
	if c.bar != nil {
		_ = c.bar.Clear()
		c.bar = nil
	}
}
