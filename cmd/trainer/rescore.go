package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"diptych/data/arrowset"
	"diptych/eval"
	"diptych/experiments"
)

// rescoring is retrieval that is ranked again by a model that reads a picture and a sentence together.
type rescoring struct {
	k       int
	exact   bool
	first   string
	weight  float64
	weighed bool // the weight was given

	of    *eval.Rescore      // nil unless it is asked for
	model *experiments.Model // that gives the first scores; nil: none does
	other bool               // it is not the one that is measured
}

func (r *rescoring) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&r.k, "rerank", 0, "`number` of candidates of each query that are scored again by a model that reads picture and sentence together")
	f.BoolVar(&r.exact, "exact", false, "score all pairs by such a model")
	f.StringVar(&r.first, "first", "", "`run` whose towers give the first scores of --rerank; the model's own if not given")
	f.Float64Var(&r.weight, "first-weight", 0, "what the first scores, on the scale that the towers learnt, are added with; 1 for a model's own towers that drew its hard negatives, else 0")
}

// open prepares what the flags ask for. m was opened from dir.
func (r *rescoring) open(cmd *cobra.Command, m measured, dir, out string, threads int, opt *eval.Options) error {
	if r.k == 0 && !r.exact {
		if r.first != "" || r.weighed {
			return usagef("--first and --first-weight go with --rerank or --exact")
		}
		return nil
	}
	switch {
	case r.k < 0 || r.k > 0 && r.exact:
		return usagef("--rerank %d: want a number of candidates of at least 1, without --exact", r.k)
	case math.IsNaN(r.weight) || math.IsInf(r.weight, 0):
		return usagef("--first-weight %v: want a finite number", r.weight)
	case slices.ContainsFunc(opt.Tasks, func(t eval.Task) bool { return t != eval.TaskRetrieval }):
		return usagef("--task: with --rerank and --exact retrieval alone is measured, not %s", eval.TaskList(opt.Tasks))
	}
	r.of = &eval.Rescore{K: r.k}
	var err error
	switch m := m.(type) {
	case *experiments.Model:
		r.model = m
		r.of.Model, r.of.First, err = m.Scorer()
		r.of.Journal = m.Journal(orElse(out, dir))
	case *experiments.Pairs:
		r.of.Model, err = m.Scorer()
		r.of.Journal = m.Journal(orElse(out, dir))
	}
	if err != nil {
		return usagef("%s: %w", dir, err)
	}
	if r.first != "" {
		if r.model, err = openModel(cmd, r.first, threads); err != nil {
			return err
		}
		r.other, r.of.First = true, 0
	}
	if r.model == nil && r.k > 0 {
		return usagef("--rerank: the model has no towers of its own to rank by first: name a run that has by --first, or score all pairs by --exact")
	}
	if r.weighed {
		if r.of.First = 0; r.weight != 0 {
			if r.model == nil {
				return usagef("--first-weight %v: there are no first scores; name a run that gives them by --first", r.weight)
			}
			scale, err := r.model.Scale()
			if err != nil {
				return usagef("--first: %w", err)
			}
			r.of.First = r.weight * scale
		}
	}
	opt.Rescore = r.of
	return nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (r *rescoring) close() {
	if r.other {
		r.model.Close()
	}
}

// measure measures m, or retrieval that is ranked again.
func (r *rescoring) measure(ctx context.Context, m measured, set *arrowset.Set, opt eval.Options) (*eval.Result, error) {
	if r.of == nil {
		return m.Measure(ctx, set, opt)
	}
	var first eval.Model
	if r.model != nil {
		first = r.model
	}
	res, err := eval.Retrieve(ctx, first, set, opt)
	if errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("%w; the same command goes on from the pairs that are scored", err)
	}
	return res, err
}
