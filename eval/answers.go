package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/transform"
	"diptych/internal/addr"
)

// The tasks of a model that answers, beside TaskClassify, which of picture and sentence together is theirs too.
const (
	TaskVQA   Task = "vqa"   // questions that several annotators answered
	TaskNLVR2 Task = "nlvr2" // whether a sentence is true of two pictures
)

// AnswerModel is a PairModel that scores answers to sentences.
type AnswerModel interface {
	PairModel
	// Classes returns the answers in the order of the scores, and the class system that they are of; "" if they are the answers to
	// captions.
	Classes() (system string, classes []arrowset.Class)
	// Answer returns the scores of the answers to each pair, a picture and a sentence by number: (len(pairs), K). seconds are the
	// pictures' second ones, nil for a model that reads one.
	Answer(ctx context.Context, pictures, seconds []*transform.Image, texts []string, pairs [][2]int) ([]float32, error)
}

// SecondSet is a Set whose rows may have second pictures; *arrowset.Set is one.
type SecondSet interface {
	Set
	HasSecond(row int) bool
	Second(ctx context.Context, row int) ([]byte, error)
}

// AnswerResult is how well questions are answered.
type AnswerResult struct {
	Task      Task    `json:"task"`
	Questions int     `json:"questions"`
	Answers   int     `json:"answers"`  // that the model can give
	Accuracy  float64 `json:"accuracy"` // of TaskVQA the official one, beside all annotators; see data.AnswerAccuracy
	// Reach is the accuracy of always choosing the best of the answers that the model can give.
	Reach float64 `json:"reach"`
	// Consistency is the share of sentences that are judged right with all their pictures (TaskNLVR2; Suhr et al. 2019, §4). Two rows
	// of one group have the same sentence where the texts are equal.
	Consistency float64      `json:"consistency,omitempty"`
	Sentences   int          `json:"sentences,omitempty"` // distinct ones, of TaskNLVR2
	Kinds       []KindResult `json:"kinds,omitempty"`     // of questions, by the captions' kinds, if there are several
}

// KindResult is the accuracy on questions of one kind.
type KindResult struct {
	Kind      string  `json:"kind"`
	Questions int     `json:"questions"`
	Accuracy  float64 `json:"accuracy"`
}

// answerRows is how many rows of a split are in memory at once.
const answerRows = 64

// asked is a question with what the model said.
type asked struct {
	text, kind string
	group      string   // of the row
	answers    []string // the annotators'
	label      int      // the class that is right, of several answers the first; -1 if it is none of the model's
	said       answer
}

// answerSplit asks a model all questions of a split, or for a class system one sentence of each row, drawn as Pairs does.
func answerSplit(ctx context.Context, m AnswerModel, task Task, set Set, opt Options, split string, out *SplitResult) error {
	system, classes := m.Classes()
	names, index := classNames(classes)
	q := &questions{model: m, set: set, opt: opt, two: task == TaskNLVR2, index: index, k: len(classes), out: out}
	if system != "" {
		var err error
		if q.class, err = classColumn(set, system); err != nil {
			return err
		}
	}
	var rows []int
	for i, meta := range set.Meta() {
		if meta.Split == split {
			rows = append(rows, i)
		}
	}
	out.Images = 0
	var all []asked
	for lo := 0; lo < len(rows); lo += answerRows {
		if opt.Progress != nil {
			opt.Progress(split+": answering", lo, len(rows))
		}
		part, err := q.ask(ctx, rows[lo:min(lo+answerRows, len(rows))])
		if err != nil {
			return err
		}
		all = append(all, part...)
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: none of its rows has a caption with an answer, or a class of the model's", ErrRequest)
	}
	if !slices.ContainsFunc(all, func(a asked) bool { return a.label >= 0 || slices.ContainsFunc(a.answers, q.knows) }) {
		return fmt.Errorf("%w: none of the answers in it, such as %q, is one of the %d that the model gives, such as %q", ErrRequest, all[0].answers[0], len(classes), names[0])
	}
	if task == TaskClassify {
		out.Classified = append(out.Classified, classified(all, cmp.Or(system, "answers"), names))
	} else {
		ids := make([]string, len(classes))
		for i, c := range classes {
			ids[i] = c.ID
		}
		out.Answers = judge(task, all, ids, index)
	}
	return nil
}

// questions asks a model about rows of a set.
type questions struct {
	model AnswerModel
	set   Set
	opt   Options
	two   bool                 // pictures are read
	class func(row int) string // of a class system; nil: answers to captions
	index map[string]int       // of the answers
	k     int                  // how many there are
	out   *SplitResult
}

// knows tells whether an answer is one that the model can give.
func (q *questions) knows(answer string) bool {
	_, ok := q.index[data.NormalizeAnswer(answer)]
	return ok
}

// of lists the questions of a row.
func (q *questions) of(row int) []asked {
	var list []asked
	for _, c := range q.set.Captions(row) {
		if c.Text == "" || c.Lang != "" && c.Lang != q.opt.Lang || len(q.opt.Kinds) > 0 && !slices.Contains(q.opt.Kinds, c.Kind) {
			continue
		}
		a := asked{text: c.Text, kind: c.Kind, group: q.set.Meta()[row].Group, answers: arrowset.SplitAnswers(c.Answer), label: -1}
		if len(a.answers) > 0 {
			if k, ok := q.index[data.NormalizeAnswer(a.answers[0])]; ok {
				a.label = k
			}
		}
		if q.class != nil || len(a.answers) > 0 {
			list = append(list, a)
		}
	}
	if q.class == nil || len(list) == 0 {
		return list
	}
	one, known := list[addr.Below(addr.Hash(pairSeed, uint64(row)), len(list))], false
	if one.label, known = q.index[q.class(row)]; !known {
		return nil
	}
	return []asked{one}
}

// ask decodes the pictures of some rows and asks their questions.
func (q *questions) ask(ctx context.Context, rows []int) ([]asked, error) {
	pics, seconds, errs := make([]*transform.Image, len(rows)), make([]*transform.Image, len(rows)), make([]error, len(rows))
	asks := make([][]asked, len(rows))
	var wg sync.WaitGroup
	gate := make(chan struct{}, max(1, q.opt.Pool.Threads()))
	for i, row := range rows {
		if asks[i] = q.of(row); len(asks[i]) == 0 {
			continue
		}
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			pics[i], seconds[i], errs[i] = q.pictures(ctx, row)
		})
	}
	wg.Wait()
	var all []asked
	var texts []string
	var pairs [][2]int
	for i, row := range rows {
		if err := errs[i]; errors.Is(err, transform.ErrBadPicture) {
			q.out.Broken = append(q.out.Broken, Broken{Row: row, ImageID: q.set.Meta()[row].ImageID, Reason: err.Error()})
			continue
		} else if err != nil {
			return nil, err
		}
		for _, a := range asks[i] {
			pairs, texts, all = append(pairs, [2]int{i, len(texts)}), append(texts, a.text), append(all, a)
		}
		if len(asks[i]) > 0 {
			q.out.Images++
		}
	}
	if !q.two {
		seconds = nil
	}
	scores, err := q.model.Answer(ctx, pics, seconds, texts, pairs)
	if err != nil {
		return nil, err
	}
	k := q.k
	if err := checkRows("scores of answers", scores, k, len(pairs)); err != nil {
		return nil, err
	}
	for i := range all {
		all[i].said = answerOf(scores[i*k:(i+1)*k], max(all[i].label, 0))
	}
	return all, nil
}

// pictures decodes the pictures of a row.
func (q *questions) pictures(ctx context.Context, row int) (own, second *transform.Image, err error) {
	raw, err := q.set.Image(ctx, row)
	if err == nil {
		own, err = q.model.Picture(raw)
	}
	if err != nil {
		return nil, nil, err
	}
	s, ok := q.set.(SecondSet)
	switch {
	case !q.two && ok && s.HasSecond(row):
		return nil, nil, fmt.Errorf("%w: row %d (%s) has two pictures, and the model answers about one", ErrRequest, row, q.set.Meta()[row].ImageID)
	case !q.two:
		return own, nil, nil
	case !ok:
		return nil, nil, fmt.Errorf("%w: the data set has no second pictures", ErrRequest)
	}
	if raw, err = s.Second(ctx, row); err == nil {
		second, err = q.model.Picture(raw)
	}
	return own, second, err
}

// judge scores answers beside the annotators'.
func judge(task Task, all []asked, ids []string, index map[string]int) *AnswerResult {
	r := &AnswerResult{Task: task, Questions: len(all), Answers: len(ids)}
	kinds, consistent := map[string]*KindResult{}, map[[2]string]bool{}
	for i := range all {
		a := &all[i]
		score, best := data.AnswerAccuracy(a.answers, ids[a.said.first]), 0.0
		for _, given := range a.answers {
			if given = data.NormalizeAnswer(given); hasKey(index, given) {
				best = max(best, data.AnswerAccuracy(a.answers, given))
			}
		}
		r.Accuracy += score
		r.Reach += best
		k := kinds[a.kind]
		if k == nil {
			k = &KindResult{Kind: a.kind}
			kinds[a.kind] = k
		}
		k.Questions++
		k.Accuracy += score
		sentence := [2]string{a.group, a.text}
		before, seen := consistent[sentence]
		consistent[sentence] = (before || !seen) && score == 1
	}
	r.Accuracy /= float64(len(all))
	r.Reach /= float64(len(all))
	if task == TaskNLVR2 {
		right := 0
		for _, ok := range consistent {
			if ok {
				right++
			}
		}
		r.Sentences, r.Consistency = len(consistent), float64(right)/float64(len(consistent))
	}
	if len(kinds) > 1 {
		for _, k := range kinds {
			k.Accuracy /= float64(k.Questions)
			r.Kinds = append(r.Kinds, *k)
		}
		slices.SortFunc(r.Kinds, func(a, b KindResult) int { return cmp.Compare(a.Kind, b.Kind) })
	}
	return r
}

func hasKey(m map[string]int, key string) bool {
	_, ok := m[key]
	return ok
}

// classified counts the classes of pictures and sentences together.
func classified(all []asked, system string, names []string) Classification {
	c := Classification{Method: string(TaskClassify), Labelled: Labelled{System: system, Classes: len(names)}}
	var answers []answer
	var labels []int
	count := make([]int, len(names))
	for _, a := range all {
		if a.label < 0 {
			c.Unlabelled++
			continue
		}
		answers, labels = append(answers, a.said), append(labels, a.label)
		count[a.label]++
	}
	c.count(count)
	c.Accuracy, c.PerClass = tally(answers, labels, names)
	return c
}
