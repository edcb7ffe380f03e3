package eval

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"diptych/data/transform"
	"diptych/internal/addr"
	"diptych/internal/kernel"
)

// The tasks of a model that reads a picture and a sentence together.
const (
	TaskMatch Task = "match" // tells a picture's own sentence from another's
	TaskFill  Task = "fill"  // guesses hidden words
)

// PairModel reads pictures and sentences together; package experiments implements it over a trained model.
type PairModel interface {
	Tasks() []Task
	// Picture decodes a picture and runs the recipe's evaluation transforms. It is safe for concurrent use.
	Picture(encoded []byte) (*transform.Image, error)
	// Match returns for each pair, a picture and a sentence by number, how well they belong together: the log odds.
	Match(ctx context.Context, pictures []*transform.Image, texts []string, pairs [][2]int) ([]float32, error)
	// Fill hides words of each pair's sentence, chosen by key and the pair's number, and counts which it guesses.
	Fill(ctx context.Context, pictures []*transform.Image, texts []string, pairs [][2]int, key uint64) (Guesses, error)
}

// Guesses counts hidden words.
type Guesses struct {
	Words int     `json:"words"`
	Right int     `json:"right"`
	NLL   float64 `json:"nll"` // sum over the words, nats
}

// Top1 is the share of the words guessed right.
func (g Guesses) Top1() float64 { return float64(g.Right) / float64(max(g.Words, 1)) }

// MatchResult is how well a model tells pairs from others.
type MatchResult struct {
	Pairs    int     `json:"pairs"`    // half of them true
	Accuracy float64 `json:"accuracy"` // of both halves, at log odds of 0
	Own      float64 `json:"own"`      // of the true ones
	Other    float64 `json:"other"`    // of the false ones
	// Choice is how often a picture's own sentence has the highest odds among Candidates, the others drawn from other groups.
	Choice     float64 `json:"choice"`
	Candidates int     `json:"candidates"`
	Pictures   int     `json:"pictures"` // that chose
}

// FillResult is how well a model guesses hidden words beside the picture, beside another's, and beside an even grey.
type FillResult struct {
	Picture  Guesses `json:"picture"`
	Shuffled Guesses `json:"shuffled"`
	Blank    Guesses `json:"blank"`
}

// What is measured, and where the draws come from: the same in every run, so that models can be compared.
const (
	pairSeed       = 20210205
	pairCandidates = 100
	fillDraws      = 4
)

// Pairs measures a model of pairs on the splits of set. Each picture has the sentence that its address draws among its captions;
// false ones are those of pictures of other groups.
func Pairs(ctx context.Context, m PairModel, set Set, opt Options) (*Result, error) {
	if len(opt.Tasks) == 0 {
		opt.Tasks = m.Tasks()
	}
	for _, t := range opt.Tasks {
		if !slices.Contains(m.Tasks(), t) {
			return nil, fmt.Errorf("eval: %w: the model has no task %q; it has %s", ErrRequest, t, TaskList(m.Tasks()))
		}
	}
	if err := opt.checkPrompts(); err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	if err := checkSplits(set, opt.Splits); err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	if opt.Lang == "" {
		opt.Lang = "en"
	}
	res := &Result{Data: set.Manifest().Name, Splits: make([]SplitResult, len(opt.Splits))}
	for i, split := range opt.Splits {
		out := &res.Splits[i]
		out.Split = split
		var err error
		if slices.Contains(opt.Tasks, TaskMatch) || slices.Contains(opt.Tasks, TaskFill) {
			err = pairSplit(ctx, m, set, opt, split, out)
		}
		for _, t := range opt.Tasks {
			if a, ok := m.(AnswerModel); ok && err == nil && (t == TaskVQA || t == TaskNLVR2 || t == TaskClassify) {
				out.Broken = nil // which it finds again
				err = answerSplit(ctx, a, t, set, opt, split, out)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("eval: split %s: %w", split, err)
		}
	}
	return res, nil
}

// pairs are the pictures of a split with a sentence each.
type pairSet struct {
	pictures []*transform.Image
	texts    []string
	groups   []string
}

func pairSplit(ctx context.Context, m PairModel, set Set, opt Options, split string, out *SplitResult) error {
	var rows []int
	var texts []string
	for i, meta := range set.Meta() {
		if meta.Split != split {
			continue
		}
		var captions []string
		for _, c := range set.Captions(i) {
			if c.Text != "" && (c.Lang == "" || c.Lang == opt.Lang) && (len(opt.Kinds) == 0 || slices.Contains(opt.Kinds, c.Kind)) {
				captions = append(captions, c.Text)
			}
		}
		if len(captions) > 0 {
			rows, texts = append(rows, i), append(texts, captions[addr.Below(addr.Hash(pairSeed, uint64(i)), len(captions))])
		}
	}
	s, err := readPairs(ctx, m, set, rows, texts, out, opt.Pool)
	if err != nil {
		return err
	}
	if out.Images = len(s.pictures); out.Images < 2 {
		return fmt.Errorf("%w: it has %d pictures with a caption, pairs need two", ErrRequest, out.Images)
	}
	progress := func(what string, done, total int) {
		if opt.Progress != nil {
			opt.Progress(split+": "+what, done, total)
		}
	}
	if slices.Contains(opt.Tasks, TaskMatch) {
		if out.Match, err = s.match(ctx, m, opt.MatchPictures, progress); err != nil {
			return err
		}
	}
	if slices.Contains(opt.Tasks, TaskFill) {
		if out.Fill, err = s.fill(ctx, m, progress); err != nil {
			return err
		}
	}
	return nil
}

// readPairs decodes the pictures of rows; one that does not decode is left out and named.
func readPairs(ctx context.Context, m PairModel, set Set, rows []int, texts []string, out *SplitResult, pool *kernel.Pool) (*pairSet, error) {
	pics, errs := readPictures(ctx, m, set, rows, pool.Threads())
	s := &pairSet{}
	meta := set.Meta()
	for i, row := range rows {
		if err := errs[i]; err != nil {
			if !errors.Is(err, transform.ErrBadPicture) {
				return nil, err
			}
			out.Broken = append(out.Broken, Broken{Row: row, ImageID: meta[row].ImageID, Reason: err.Error()})
			continue
		}
		group := meta[row].Group
		if group == "" {
			group = fmt.Sprint("row ", row)
		}
		s.pictures, s.texts, s.groups = append(s.pictures, pics[i]), append(s.texts, texts[i]), append(s.groups, group)
	}
	return s, nil
}

// other draws a pair of another group than pair i; where the split is one group alone, any other.
func (s *pairSet) other(i int, key uint64) int {
	n := len(s.groups)
	j := i
	for try := range uint64(100) {
		if j = addr.Below(addr.Hash(key, uint64(i), try), n); s.groups[j] != s.groups[i] {
			return j
		}
	}
	return (i + 1) % n
}

// match tells true pairs from false ones, and lets pictures choose among sentences; at most limit of them, 0: all.
func (s *pairSet) match(ctx context.Context, m PairModel, limit int, progress func(string, int, int)) (*MatchResult, error) {
	var pairs [][2]int
	for i := range s.pictures {
		pairs = append(pairs, [2]int{i, i}, [2]int{s.other(i, addr.Hash(pairSeed, addr.Name("match"))), i})
	}
	progress("matching", 0, len(pairs))
	odds, err := m.Match(ctx, s.pictures, s.texts, pairs)
	if err != nil {
		return nil, err
	}
	if err := checkRows("log odds", odds, 1, len(pairs)); err != nil {
		return nil, err
	}
	r := &MatchResult{Pairs: len(pairs)}
	half := float64(len(s.pictures))
	for i := 0; i < len(odds); i += 2 {
		if odds[i] > 0 {
			r.Own += 1 / half
		}
		if odds[i+1] <= 0 {
			r.Other += 1 / half
		}
	}
	r.Accuracy = (r.Own + r.Other) / 2
	r.Pictures = len(s.pictures)
	if limit > 0 {
		r.Pictures = min(r.Pictures, limit)
	}
	r.Candidates = min(pairCandidates, len(s.texts))
	for i := range r.Pictures {
		progress("choosing", i, r.Pictures)
		pairs = append(pairs[:0], [2]int{i, i})
		perm := addr.NewPerm(addr.Hash(pairSeed, addr.Name("choice"), uint64(i)), uint64(len(s.texts)))
		for k := 0; k < len(s.texts) && len(pairs) < r.Candidates; k++ {
			if j := int(perm.At(uint64(k))); s.groups[j] != s.groups[i] && s.texts[j] != s.texts[i] {
				pairs = append(pairs, [2]int{i, j})
			}
		}
		odds, err := m.Match(ctx, s.pictures, s.texts, pairs)
		if err != nil {
			return nil, err
		}
		if slices.Max(odds[1:]) < odds[0] {
			r.Choice += 1 / float64(r.Pictures)
		}
	}
	return r, nil
}

// fill guesses words beside the true picture, another one, and an even grey.
func (s *pairSet) fill(ctx context.Context, m PairModel, progress func(string, int, int)) (*FillResult, error) {
	n := len(s.pictures)
	r := &FillResult{}
	pictures := slices.Clone(s.pictures)
	for _, p := range s.pictures {
		grey := &transform.Image{W: p.W, H: p.H, Pix: slices.Repeat([]uint8{greyLevel}, len(p.Pix))}
		pictures = append(pictures, grey)
	}
	for draw := range fillDraws {
		for k, to := range []*Guesses{&r.Picture, &r.Shuffled, &r.Blank} {
			progress("guessing words", 3*draw+k, 3*fillDraws)
			pairs := make([][2]int, n)
			for i := range pairs {
				pairs[i] = [2]int{[]int{i, s.other(i, addr.Hash(pairSeed, addr.Name("fill"))), n + i}[k], i}
			}
			g, err := m.Fill(ctx, pictures, s.texts, pairs, addr.Hash(pairSeed, addr.Name("hide"), uint64(draw)))
			if err != nil {
				return nil, err
			}
			to.Words, to.Right, to.NLL = to.Words+g.Words, to.Right+g.Right, to.NLL+g.NLL
		}
	}
	return r, nil
}

// greyLevel is what a blank picture consists of, in evaluation and in the transform that blanks.
const greyLevel = 128
