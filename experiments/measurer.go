package experiments

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"diptych/checkpoints"
	"diptych/eval"
	"diptych/experiments/report"
	"diptych/internal/kernel"
	"diptych/internal/runlog"
	"diptych/model"
	"diptych/train"
)

// measurer evaluates the model of a run while it trains and at its end.
type measurer struct {
	run      *Run
	trainer  *train.Trainer
	log      *runLog
	observer Observer
	enc      evaluator
	final    *eval.Result
}

// newMeasurer takes the memory of the evaluation.
func newMeasurer(r *Run, t *train.Trainer, log *runLog, ob Observer) (*measurer, error) {
	m := &measurer{run: r, trainer: t, log: log, observer: ob}
	var err error
	m.enc, err = newEvaluator(r.Config, r.parts, m.weights(), t.Pool())
	return m, err
}

func (m *measurer) close() { m.enc.close() }

// evaluator measures a model.
type evaluator interface {
	measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error)
	close()
}

// newEvaluator takes the memory of what measures models of the recipe's kind.
func newEvaluator(c *Config, p *parts, weights []float32, pool *kernel.Pool) (evaluator, error) {
	if m, ok := p.model.(*model.ViLT); ok {
		return newPairEncoder(c, p, m, weights, pool), nil
	}
	e, err := newEncoder(c, p, weights, pool)
	if f, ok := p.model.(*model.Fusion); ok && err == nil {
		return &bothEncoder{e, newFusionEncoder(c, p, f, weights, pool)}, nil
	}
	return e, err
}

// bothEncoder measures a model of two towers and a fusion.
type bothEncoder struct {
	*encoder
	pairs *pairEncoder
}

func (b *bothEncoder) measure(ctx context.Context, set eval.Set, o eval.Options) (*eval.Result, error) {
	return measureBoth(ctx, b.encoder, func() *pairEncoder { return b.pairs }, set, o)
}

func (b *bothEncoder) close() {
	b.encoder.close()
	b.pairs.close()
}

// measureBoth measures the towers by their tasks and the fusion by its own. o names the splits.
func measureBoth(ctx context.Context, e *encoder, pairs func() *pairEncoder, set eval.Set, o eval.Options) (*eval.Result, error) {
	if len(o.Tasks) == 0 {
		o.Tasks = eval.Served(e.Tasks(), set.Manifest())
	}
	ofPairs, towers := o, o
	ofPairs.Tasks, towers.Tasks = nil, nil
	for _, t := range o.Tasks {
		if slices.Contains(pairTasks(e.config), t) {
			ofPairs.Tasks = append(ofPairs.Tasks, t)
		} else {
			towers.Tasks = append(towers.Tasks, t) // what is unknown is told there
		}
	}
	if len(towers.Tasks) == 0 {
		return pairs().measure(ctx, set, ofPairs)
	}
	res, err := e.measure(ctx, set, towers)
	if err != nil || len(ofPairs.Tasks) == 0 {
		return res, err
	}
	more, err := pairs().measure(ctx, set, ofPairs)
	if err != nil {
		return nil, err
	}
	for i := range res.Splits {
		res.Splits[i].Match, res.Splits[i].Fill = more.Splits[i].Match, more.Splits[i].Fill
	}
	return res, nil
}

// weights are those that are measured and that the finished model has: the average where the recipe keeps one.
func (m *measurer) weights() []float32 {
	if avg := m.trainer.Optimizer().Average(); avg != nil {
		return avg
	}
	return m.trainer.Weights()
}

// measure runs the recipe's evaluation: the short one during the run, the whole one at its end.
func (m *measurer) measure(ctx context.Context, step int) (*eval.Result, error) {
	o := m.run.Config.evalOptions(m.run.data[0].manifest(), step)
	o.Pool, o.Progress = m.trainer.Pool(), m.observer.Measuring
	res, err := m.enc.measure(ctx, m.run.set, o)
	if errors.Is(err, eval.ErrNotFinite) {
		return nil, fmt.Errorf("after update %d: %w: %w", step, train.ErrNotFinite, err)
	}
	if err != nil {
		return nil, err
	}
	if step == m.run.Config.Train.Steps {
		m.final = res
	}
	return res, nil
}

func (m *measurer) evaluate(ctx context.Context, step int) (map[string]float64, error) {
	res, err := m.measure(ctx, step)
	if err != nil {
		return nil, err
	}
	metrics := Metrics(res)
	m.observer.Measured(step, res)
	if m.log.Evaluated(step) { // only the checkpoint that has the score is missing
		return metrics, nil
	}
	return metrics, m.log.Eval(step, metrics)
}

// enough tells whether train.patience is used up after an update that was measured: it follows from the records.
func (m *measurer) enough(step int) (bool, error) {
	c := &m.run.Config.Train
	if c.Patience == 0 {
		return false, nil
	}
	if err := m.log.sync(); err != nil {
		return false, err
	}
	records, err := runlog.Read(m.run.Dir, runlog.EvalFile)
	if err != nil {
		return false, err
	}
	best, since := math.Inf(-1), 0
	for _, r := range records {
		if v, ok := r[c.KeepBest]; !ok || int(r["step"]) > step {
			continue
		} else if v > best {
			best, since = v, 0
		} else {
			since++
		}
	}
	if since >= c.Patience {
		m.observer.Note("%s has not grown in %d evaluations: the run ends after update %d", c.KeepBest, since, step)
	}
	return since >= c.Patience, nil
}

// restoreBest brings the weights of the best checkpoint back, for a run with patience.
func (m *measurer) restoreBest(store *checkpoints.Store) error {
	best, _, err := store.Best()
	if err != nil || best == nil {
		return err
	}
	for name, ts := range files(m.trainer) {
		if err := best.Load(name, ts); err != nil {
			return err
		}
	}
	m.final = nil
	m.observer.Note("the finished model is that of update %d: %s %.4f", best.Step, best.Score.Name, best.Score.Value)
	return nil
}

// finish leaves the finished model and the report. It is done again from the start when it was interrupted.
func (m *measurer) finish(ctx context.Context, store *checkpoints.Store) error {
	c, steps := m.run.Config, m.run.Config.Train.Steps
	if c.Train.Patience > 0 {
		if err := m.restoreBest(store); err != nil {
			return err
		}
	}
	if m.final == nil {
		if _, err := m.measure(ctx, steps); err != nil {
			if errors.Is(err, context.Canceled) {
				return train.ErrInterrupted // everything is saved; the same command measures again
			}
			return err
		}
	}
	dir := filepath.Join(m.run.Dir, "report")
	rep := &report.Report{
		Title: c.Name, Result: m.final, Set: m.run.set, Pool: m.trainer.Pool(),
		About: []report.Fact{
			{Name: "recipe", Value: c.Name}, {Name: "seed", Value: fmt.Sprint(c.Seed)},
			{Name: "updates", Value: fmt.Sprintf("%d of %d pairs", steps, c.Train.GlobalBatch)},
			{Name: "parameters", Value: fmt.Sprint(m.trainer.Plan().Params)},
			{Name: "kernels", Value: kernel.Family()},
		},
	}
	pictures, err := m.log.curves()
	if err != nil {
		return err
	}
	rep.Pictures = pictures
	if err := rep.Write(ctx, dir); err != nil {
		if errors.Is(err, context.Canceled) {
			return train.ErrInterrupted
		}
		return err
	}
	s := &checkpoints.State{Files: map[string][]checkpoints.Tensor{fileModel: tensors(m.trainer.Model().Parameters(), "", m.weights())}}
	if err := m.run.describe(s, steps); err != nil {
		return err
	}
	return checkpoints.WriteFolder(m.fs(), filepath.Join(m.run.Dir, checkpoints.ModelName), s)
}

func (m *measurer) fs() checkpoints.FS {
	if m.run.opt.FS != nil {
		return m.run.opt.FS
	}
	return checkpoints.Disk
}

// Metrics flattens an evaluation: val.imageToText.recallAt1, val.concept.top1 (zero-shot), val.classify.top1 and so on, fractions in [0, 1].
func Metrics(res *eval.Result) map[string]float64 {
	out := map[string]float64{}
	for _, s := range res.Splits {
		if s.Retrieval != nil {
			for name, d := range map[string]*eval.Direction{"imageToText": &s.Retrieval.ImageToText, "textToImage": &s.Retrieval.TextToImage} {
				for _, at := range d.Recall {
					out[fmt.Sprintf("%s.%s.recallAt%d", s.Split, name, at.K)] = at.Recall
				}
				out[fmt.Sprintf("%s.%s.medianRank", s.Split, name)] = d.MedianRank
			}
		}
		if m := s.Match; m != nil {
			out[s.Split+".match.accuracy"], out[s.Split+".match.choice"] = m.Accuracy, m.Choice
		}
		if f := s.Fill; f != nil {
			out[s.Split+".fill.top1"], out[s.Split+".fill.shuffled"], out[s.Split+".fill.blank"] = f.Picture.Top1(), f.Shuffled.Top1(), f.Blank.Top1()
		}
		if a := s.Answers; a != nil {
			out[fmt.Sprintf("%s.%s.accuracy", s.Split, a.Task)] = a.Accuracy
			if a.Task == eval.TaskNLVR2 {
				out[s.Split+".nlvr2.consistency"] = a.Consistency
			}
		}
		for _, c := range s.Classified {
			out[fmt.Sprintf("%s.%s.top1", s.Split, c.Method)] = c.Top1
			out[fmt.Sprintf("%s.%s.top5", s.Split, c.Method)] = c.Top5
		}
		for _, z := range s.ZeroShot {
			out[fmt.Sprintf("%s.%s.top1", s.Split, z.System)] = z.Ensemble.Top1
			out[fmt.Sprintf("%s.%s.top5", s.Split, z.System)] = z.Ensemble.Top5
		}
	}
	return out
}
