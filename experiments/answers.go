package experiments

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/batch"
	"diptych/data/transform"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
)

// learnsAnswers tells whether an objective of the recipe learns the answers to captions.
func (c *Config) learnsAnswers() bool {
	n := losses.NeedsOf(c.Losses)
	return n.Answers || n.Classes && c.Data.Classes == ""
}

// readsTwo tells whether the recipe's model answers about two pictures.
func (c *Config) readsTwo() bool {
	return c.Model.Kind == "vilt" && c.Model.ViLT.PictureTypes == 2 && losses.Heads(c.Losses).Answers != ""
}

// readAnswers lists the answers to the captions of the recipe's data that its model can learn: those of questions in the order
// in which they first come, other classes by the alphabet, so that False comes before True.
func (c *Config) readAnswers() ([]arrowset.Class, error) {
	var sets []*arrowset.Set
	defer func() {
		for _, s := range sets {
			s.Close()
		}
	}()
	all := c.Data.All()
	for _, sc := range all {
		if data.IsAddress(sc.Path) {
			return nil, fmt.Errorf("data.path: the answers in %s are not known before it is fetched: name a copy on this machine", sc.Path)
		}
		set, err := openSet(sc.Path)
		if err != nil {
			return nil, fmt.Errorf("data.path: %w", err)
		}
		sets = append(sets, set)
	}
	list := data.AnswerList(func(yield func([]string) bool) {
		for k, set := range sets {
			for i, m := range set.Meta() {
				for _, cp := range set.Captions(i) {
					if m.Split == all[k].Split && cp.Answer != "" && admitsCaption(&all[k], cp) && !yield(arrowset.SplitAnswers(cp.Answer)) {
						return
					}
				}
			}
		}
	}, max(c.Data.LeastAnswers, 1))
	if len(list) < 2 {
		return nil, fmt.Errorf("data.path: the captions of split %q of %s have %d answers in all that are the most common one of %d questions (data.leastAnswers), want at least 2; "+
			"`trainer data import vqav2` and its like make sets with answers", all[0].Split, c.Data.Paths(), len(list), max(c.Data.LeastAnswers, 1))
	}
	if losses.NeedsOf(c.Losses).Classes {
		slices.Sort(list)
	}
	classes := make([]arrowset.Class, len(list))
	for i, a := range list {
		classes[i] = arrowset.Class{ID: a, Text: a}
	}
	return classes, nil
}

// answerClasses numbers the answers that the model learns; nil where it learns none.
func (c *Config) answerClasses(p *parts) map[string]int32 {
	if !c.learnsAnswers() {
		return nil
	}
	class := make(map[string]int32, len(p.classes))
	for i, a := range p.classes {
		class[a.ID] = int32(i)
	}
	return class
}

// admitsCaption says whether the recipe admits a caption.
func admitsCaption(c *data.SourceConfig, cp arrowset.Caption) bool {
	return admits(c.CaptionKinds, cp.Kind) && admits(c.CaptionLangs, cp.Lang)
}

// sentences are the captions that may be drawn, and where the recipe learns answers those to each; captions without an answer
// that the model can give are then left out. class numbers the answers.
func sentences(captions []arrowset.Caption, c *data.SourceConfig, class map[string]int32) (texts []string, answers [][]batch.Answer) {
	for _, cp := range captions {
		if !admitsCaption(c, cp) {
			continue
		}
		if class != nil {
			targets := data.SoftTargets(arrowset.SplitAnswers(cp.Answer), class)
			if len(targets) == 0 {
				continue
			}
			answers = append(answers, targets)
		}
		texts = append(texts, cp.Text)
	}
	return texts, answers
}

// answered gives samples the answers to their captions; rows of which none has an answer that the model can give are left out.
func answered(rows []data.Sample, d *dataset, class map[string]int32) []data.Sample {
	kept := rows[:0]
	for _, s := range rows {
		if s.Captions, s.Answers = sentences(d.near.Captions(s.Row), &d.config, class); len(s.Captions) > 0 {
			kept = append(kept, s)
		}
	}
	return kept
}

// captions returns a row's captions.
func (d *dataset) captions(ctx context.Context, row int) ([]arrowset.Caption, error) {
	if d.far != nil {
		return d.far.Captions(ctx, row)
	}
	return d.near.Captions(row), nil
}

// Classes returns what the scores of Answer are of, and the class system, "" for answers to captions.
func (e *pairEncoder) Classes() (system string, classes []arrowset.Class) {
	return e.config.Data.Classes, e.parts.classes
}

// Answer returns the scores of the model's answers to each pair, a picture (with the second of the same number, if any) and a
// sentence by number: (len(pairs), K).
func (e *pairEncoder) Answer(ctx context.Context, pictures, seconds []*transform.Image, texts []string, pairs [][2]int) ([]float32, error) {
	var out []float32
	for lo := 0; lo < len(pairs); lo += pairChunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var pics, second []ops.Picture
		var tokens [][]int32
		for _, p := range pairs[lo:min(lo+pairChunk, len(pairs))] {
			pics, tokens = append(pics, picture(pictures[p[0]])), append(tokens, e.encode(texts[p[1]]))
			if seconds != nil {
				second = append(second, picture(seconds[p[0]]))
			}
		}
		var err error
		if out, err = e.runner.Answer(pics, second, tokens, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ErrQuestion marks a question that the model cannot be asked.
var ErrQuestion = errors.New("the model cannot be asked this")

// Ask answers a question about a picture, or about two (second is nil for one), with the most probable answers, best first. The
// probability of an answer to a question is its own, so that they need not add up to 1; that of a class is a share of 1.
func (m *Pairs) Ask(ctx context.Context, im, second *transform.Image, text string, top int) ([]Word, error) {
	c := m.Config()
	heads := losses.Heads(c.Losses)
	switch {
	case heads.Answers == "":
		return nil, fmt.Errorf("experiments: %w: it was not trained to answer; its recipe has neither vqa nor pairclass", ErrQuestion)
	case c.readsTwo() && second == nil:
		return nil, fmt.Errorf("experiments: %w: it is asked about two pictures; name the other with --second", ErrQuestion)
	case !c.readsTwo() && second != nil:
		return nil, fmt.Errorf("experiments: %w: it is asked about one picture; leave --second out", ErrQuestion)
	case strings.TrimSpace(text) == "":
		return nil, fmt.Errorf("experiments: %w: the question is empty", ErrQuestion)
	}
	var seconds []*transform.Image
	if second != nil {
		seconds = []*transform.Image{second}
	}
	scores, err := m.Answer(ctx, []*transform.Image{im}, seconds, []string{text}, [][2]int{{0, 0}})
	if err != nil {
		return nil, err
	}
	words := make([]Word, len(scores))
	for k, z := range scores {
		words[k] = Word{m.pairEncoder.parts.classes[k].Text, 1 / (1 + math.Exp(-float64(z)))}
		if heads.Answers != model.AnswersOfQuestion {
			nll, _ := softmaxNLL(scores, k)
			words[k].Probability = math.Exp(-nll)
		}
	}
	slices.SortStableFunc(words, func(a, b Word) int { return cmp.Compare(b.Probability, a.Probability) })
	return words[:min(top, len(words))], nil
}
