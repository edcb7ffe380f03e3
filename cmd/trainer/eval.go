package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"diptych/data/arrowset"
	"diptych/data/remote"
	"diptych/eval"
	"diptych/experiments"
	"diptych/experiments/report"
	"diptych/internal/kernel"
	"diptych/internal/machine"
	"diptych/model"
)

// newEval is "trainer eval": it measures a trained model on a data set.
func newEval() *cobra.Command {
	var data, out, start, prompts, names string
	var second rescoring
	ensemble := 1.0
	var tasks []string
	var threads int
	var asJSON bool
	var cache remote.Options
	var opt eval.Options
	cmd := &cobra.Command{
		Use:   "eval RUN",
		Short: "Measure a trained model: retrieval, zero-shot classification, linear probe, nearest neighbours",
		Long: `Measure the model of a run directory on splits of a data set.

Retrieval ranks all texts of a split for each picture and all pictures for each text, exactly. Where captions of the kind
"label" exist, the candidates are one label for each group; otherwise every caption is one. What shares a picture's group is
right for it. Zero-shot classification uses the class systems and prompt templates of the data set's manifest. --prompts
takes others: a file with one template a line, {} where the name goes, or one of CLIP's sets:

  ` + strings.Join(eval.PromptNames(), " ") + `

linear-probe and knn learn the classes from the training split's pictures, of which they know the features of the image tower before its
projection or scores. linear-probe is logistic regression by L-BFGS, its regularisation λ chosen among 97 between 1e-6 and 1e6 on the split
--val, or on a fifth of the training split, and then fitted to both (Radford et al. 2021, Appendix A.3). knn is a vote of the nearest by
cosine, weighted by exp(cosine/temperature) (Wu et al. 2018, §3.4). The features of the splits that are learnt from stay in memory twice, 4
bytes a number. Classes that the training split does not show are not counted.

A model that reads a picture and a sentence together (kind vilt) is measured by other tasks: match tells a picture's own sentence
from another's, half and half, and chooses it among 100; fill guesses hidden words beside the picture, another's and an even grey.
One that answers is measured by the captions' answers: vqa is VQA's official accuracy beside all annotators, by kind of question;
nlvr2 accuracy and consistency of sentences about two pictures; classify the classes of picture and sentence together.

Such a model, and one of kind fusion, ranks by scoring pairs: --rerank K scores the K best candidates of each query again, by the first
scores of the model's own towers or of --first, --exact all pairs. What it loses is told: no query whose right candidates are not among
the K best can be answered. Scores are kept in a journal in --out, or else in RUN, and an evaluation that was stopped goes on from
there.`,
		Example: `  trainer eval runs/clip-emoji
  trainer eval runs/clip-emoji --split test_style,test_concept --out report
  trainer eval runs/a --data DIR --split test --task retrieval --texts all --json
  trainer eval runs/fusion-emoji --split test_style --task retrieval --rerank 32
  trainer eval runs/vilt-emoji --split val --task retrieval --rerank 32 --first runs/clip-emoji
  trainer eval models/b32 --data DIR --task zeroshot --prompts imagenet
  trainer eval models/b32 --data DIR --split test --task linear-probe,knn --val val`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out != "" { // what cannot be written should not show after the work
				if err := os.MkdirAll(out, 0o777); err != nil {
					return usagef("--out: %w", err)
				}
			}
			opt.Memory, opt.Progress = machine.AvailableMemory(), stages(cmd.ErrOrStderr())
			for _, t := range tasks {
				opt.Tasks = append(opt.Tasks, eval.Task(t))
			}
			if err := addPrompts(&opt, prompts, names); err != nil {
				return err
			}
			m, err := openMeasured(cmd, args[0], threads)
			if err != nil {
				return err
			}
			defer m.Close()
			if start != "" || cmd.Flags().Changed("ensemble") {
				if !(ensemble >= 0 && ensemble <= 1) {
					return usagef("--ensemble %v: want 0 to 1", ensemble)
				}
				if err := m.Ensemble(start, ensemble); err != nil {
					return usageError{err}
				}
			}
			opt.Pool = m.Pool()
			second.weighed = cmd.Flags().Changed("first-weight")
			if err := second.open(cmd, m, args[0], out, threads, &opt); err != nil {
				return err
			}
			defer second.close()
			cache.Note = notes(cmd.ErrOrStderr())
			set, err := m.OpenData(cmd.Context(), data, cache, opt)
			if misnamed(err) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
			defer set.Close()
			res, err := second.measure(cmd.Context(), m, set, opt)
			if err != nil {
				return asUsage(err)
			}
			summary := report.Summary(res)
			if strings.TrimSpace(summary) == "" {
				return usagef("there was nothing to measure: no picture of %s has one of the classes", strings.Join(splitsOf(res), ", "))
			}
			r := &report.Report{Title: "Evaluation of " + args[0], About: factsOf(m), Result: res, Set: set, Pool: m.Pool()}
			if out != "" {
				if err := r.Write(cmd.Context(), out); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), r)
			}
			fmt.Fprint(cmd.OutOrStdout(), summary)
			for _, s := range res.Splits {
				for _, b := range s.Broken {
					fmt.Fprintf(cmd.ErrOrStderr(), "left out: %s, row %d, %s: %s\n", s.Split, b.Row, b.ImageID, b.Reason)
				}
			}
			if out != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "\nThe report is in %s.\n", out)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "data set `directory` or address, or demo; the run's own if not given")
	addCacheFlags(cmd, &cache)
	f.StringSliceVar(&opt.Splits, "split", nil, "`names` of splits; all but train if not given")
	f.StringSliceVar(&tasks, "task", nil, "`names` of tasks: retrieval, zeroshot (both if not given), linear-probe, knn; of a classifier: classify; of pairs: match, fill; of answers: vqa, nlvr2, classify")
	f.StringSliceVar(&opt.Systems, "classes", nil, "`names` of class systems; all if not given")
	f.StringVar(&prompts, "prompts", "", "`name or file` of prompt templates for zeroshot; the data set's own if not given")
	f.StringVar(&names, "class-names", "", "`file` with the names of the classes for zeroshot, one a line, in their order")
	f.StringVar(&opt.Train, "train", "train", "`split` that linear-probe and knn learn from")
	f.StringVar(&opt.Validation, "val", "", "`split` that chooses the regularisation of linear-probe; a fifth of the training split if not given")
	f.IntVar(&opt.KNN.K, "knn-k", 20, "`number` of neighbours that vote in knn")
	f.Float64Var(&opt.KNN.Temperature, "knn-temperature", 0.07, "`temperature` of their votes")
	f.StringVar(&opt.Texts, "texts", "", "`candidates` of retrieval: label (one of each group) or all; label where there are any if not given")
	f.Float64Var(&ensemble, "ensemble", 1, "`share` of this model in an average of weights with the one it was fine-tuned from (WiSE-FT)")
	f.StringVar(&start, "start", "", "the other `model` of --ensemble, if not the one that the recipe started from")
	f.StringVar(&opt.Lang, "lang", "", "`language` of the captions; en if not given")
	f.StringVar(&out, "out", "", "write a report (Markdown, JSON, CSV, contact sheets) to this `directory`")
	second.addFlags(cmd)
	addModelFlags(cmd, &threads, &asJSON)
	return cmd
}

// splitsOf names the splits that were read.
func splitsOf(res *eval.Result) (names []string) {
	for _, s := range res.Splits {
		names = append(names, s.Split)
	}
	return names
}

// addPrompts reads the templates and class names that take the place of the data set's.
func addPrompts(opt *eval.Options, prompts, names string) (err error) {
	if prompts != "" {
		if opt.Templates, err = eval.Prompts(prompts); err != nil {
			return usageError{err}
		}
	}
	if names != "" {
		if opt.ClassNames, err = eval.ClassNames(names); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// addModelFlags adds the flags that all commands that use a trained model have.
func addModelFlags(cmd *cobra.Command, threads *int, asJSON *bool) {
	cmd.Flags().IntVar(threads, "threads", 0, "`number` of threads; all cores if 0 (changes no result)")
	cmd.Flags().BoolVar(asJSON, "json", false, "write the result as JSON")
}

// factsOf says which model it is.
func factsOf(m measured) []report.Fact {
	c := m.Config()
	return []report.Fact{
		{Name: "recipe", Value: c.Name}, {Name: "seed", Value: fmt.Sprint(c.Seed)}, {Name: "updates", Value: fmt.Sprint(m.Updates())},
		{Name: "trained on", Value: c.Data.Paths()}, {Name: "picture size", Value: pictureSize(&c.Model.Vision)},
	}
}

// measured is a model that trainer eval measures.
type measured interface {
	Config() *experiments.Config
	Pool() *kernel.Pool
	Updates() int
	Ensemble(from string, share float64) error
	OpenData(ctx context.Context, path string, cache remote.Options, opt eval.Options) (*arrowset.Set, error)
	Measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error)
	Close()
}

// openMeasured opens a model of any kind; the caller closes it.
func openMeasured(cmd *cobra.Command, dir string, threads int) (measured, error) {
	m, err := openModel(cmd, dir, threads)
	if errors.Is(err, experiments.ErrPairs) {
		return openPairs(cmd, dir, threads)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// openModel opens the model of a run directory; the caller closes it.
func openModel(cmd *cobra.Command, dir string, threads int) (*experiments.Model, error) {
	if threads < 0 {
		return nil, usagef("--threads %d: want a number of threads, or 0 for all cores", threads)
	}
	if err := isFolder(dir); err != nil {
		return nil, usagef("run directory %s: %w; give the one that trainer pretrain wrote", dir, err)
	}
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	m, err := experiments.OpenModel(dir, threads)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, experiments.ErrPairs) {
		return nil, usageError{err}
	}
	if err != nil {
		return nil, err
	}
	for _, w := range m.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	return m, nil
}

// isFolder says why a path cannot be read as a folder.
func isFolder(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("no such folder")
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("it is a file, not a folder")
	}
	return nil
}

// asUsage marks what the data set cannot serve as the user's mistake.
func asUsage(err error) error {
	if errors.Is(err, eval.ErrRequest) {
		return usagef("%w", err)
	}
	return err
}

// writeJSON writes v for programs.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// stageEvery is how often a stage says how far it is, where there is no terminal.
const stageEvery = 30 * time.Second

// stages shows how far each stage of a long command is: a bar on a terminal, elsewhere a line when it begins and now and then.
func stages(w io.Writer) func(what string, done, total int) {
	var bar *progressbar.ProgressBar
	var stage string
	var begun, said time.Time
	var first int // done when the stage began
	f, ok := w.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	return func(what string, done, total int) {
		begins := what != stage
		stage = what
		switch {
		case terminal && begins:
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(),
				progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetPredictTime(true))
			fallthrough
		case terminal:
			_ = bar.Set(done) // a bar that cannot be drawn must not stop the work
		case begins:
			begun, said, first = time.Now(), time.Now(), done
			fmt.Fprintf(w, "%s: %d\n", what, total)
		case done > first && time.Since(said) >= stageEvery:
			said = time.Now()
			left := time.Duration(float64(said.Sub(begun)) / float64(done-first) * float64(total-done))
			fmt.Fprintf(w, "%s: %d of %d, ETA %s\n", what, done, total, left.Round(time.Second))
		}
	}
}

// pictureSize says the size of a tower's pictures.
func pictureSize(v *model.Vision) string {
	height, width := v.Sides()
	if height == width {
		return fmt.Sprintf("%d pixels", height)
	}
	return fmt.Sprintf("%d×%d pixels", width, height)
}
