package experiments

import (
	"fmt"
	"slices"
	"strings"

	"diptych/data/arrowset"
	"diptych/eval"
)

// lang is the language of the captions that a run measures with: English, unless the recipe trains on others only.
func (c *Config) lang() string {
	if l := c.Data.All()[0].CaptionLangs; len(l) > 0 && !slices.Contains(l, "en") {
		return l[0]
	}
	return "en"
}

// evalOptions says what is measured after an update: little during the run, all that the recipe names at its end.
func (c *Config) evalOptions(man *arrowset.Manifest, step int) eval.Options {
	o := eval.Options{Splits: c.Eval.Splits, Tasks: c.Eval.Tasks, Texts: c.Eval.Texts, Lang: c.lang(), MatchPictures: c.Eval.Choices}
	if step < c.Train.Steps {
		o.Splits, o.Tasks, o.MatchPictures = c.Eval.During, tasks(c)[:1], 50
		if c.Model.Kind == "vilt" {
			o.Tasks = tasks(c)
		}
		if len(o.Splits) == 0 && man.Splits["val"] > 0 {
			o.Splits = []string{"val"}
		}
	}
	if len(o.Splits) == 0 { // all but train, or train where there is nothing else
		o.Splits = slices.DeleteFunc(splitNames(man), func(s string) bool { return s == "train" })
		if len(o.Splits) == 0 {
			o.Splits = splitNames(man)
		}
	}
	if len(o.Tasks) == 0 {
		o.Tasks = eval.Served(tasks(c), man)
	}
	return o
}

// checkEval names what the evaluations of the recipe ask for and the data set does not have, before anything is trained.
func (r *Run) checkEval() error {
	c, set, man := r.Config, r.set, r.data[0].manifest()
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrRecipe}, args...)...)
	}
	for _, t := range c.Eval.Tasks {
		if !slices.Contains(tasks(c), t) {
			return bad("eval.tasks: %q is unknown; known: %s", t, eval.TaskList(tasks(c)))
		}
		if !slices.Contains(eval.Served(tasks(c), man), t) {
			return bad("eval.tasks: %s sorts into classes, and %s has none", t, man.Name)
		}
	}
	if c.Eval.Choices < 0 {
		return bad("eval.choices: %d, want 0 (all) or more", c.Eval.Choices)
	}
	if t := c.Eval.Texts; t != eval.TextsAuto && t != eval.TextsLabel && t != eval.TextsAll {
		return bad("eval.texts: %q is unknown; known: %s, %s", t, eval.TextsLabel, eval.TextsAll)
	}
	spoken := map[string]bool{} // splits with a caption of the evaluation's language
	for i, m := range set.Meta() {
		spoken[m.Split] = spoken[m.Split] || slices.ContainsFunc(set.Captions(i), func(cp arrowset.Caption) bool {
			return cp.Text != "" && (cp.Lang == "" || cp.Lang == c.lang())
		})
	}
	check := func(key string, o eval.Options) error {
		for _, s := range o.Splits {
			switch {
			case man.Splits[s] == 0:
				return bad("%s: %s has no split %q; it has %s", key, man.Name, s, strings.Join(splitNames(man), ", "))
			case slices.Contains(o.Tasks, eval.TaskRetrieval) && !spoken[s]:
				return bad("%s: split %q of %s has no captions of language %q to retrieve; name theirs first in data.captionLangs, or leave the split or the task out",
					key, s, man.Name, c.lang())
			}
		}
		return nil
	}
	last := c.evalOptions(man, c.Train.Steps)
	if err := check("eval.splits", last); err != nil {
		return err
	}
	during := last
	if c.Train.EvalEvery > 0 {
		during = c.evalOptions(man, 0)
		if err := check("eval.during", during); err != nil {
			return err
		}
	}
	if best := c.Train.KeepBest; best != "" && !slices.Contains(scores(during), best) {
		return bad("train.keepBest: %q is not measured, or less of it is better; there are %s", best, strings.Join(scores(during), ", "))
	}
	return nil
}

// scores lists the metrics of which more is better, by their names in Metrics.
func scores(o eval.Options) []string {
	var names []string
	for _, s := range o.Splits {
		if slices.Contains(o.Tasks, eval.TaskMatch) {
			names = append(names, s+".match.accuracy", s+".match.choice")
		}
		if slices.Contains(o.Tasks, eval.TaskFill) {
			names = append(names, s+".fill.top1")
		}
		for _, t := range []eval.Task{eval.TaskVQA, eval.TaskNLVR2} {
			if slices.Contains(o.Tasks, t) {
				names = append(names, fmt.Sprintf("%s.%s.accuracy", s, t))
			}
		}
		if slices.Contains(o.Tasks, eval.TaskClassify) {
			names = append(names, s+".classify.top1", s+".classify.top5")
		}
		if !slices.Contains(o.Tasks, eval.TaskRetrieval) {
			continue
		}
		for _, direction := range []string{"imageToText", "textToImage"} {
			for _, k := range []int{1, 5, 10} {
				names = append(names, fmt.Sprintf("%s.%s.recallAt%d", s, direction, k))
			}
		}
	}
	return names
}
