package eval

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"sync"

	"diptych/data/transform"
)

// Rescore says how retrieval is ranked again by a model that reads a picture and a sentence together, which must score each pair:
// the K best of each query by the first scores (Li et al. 2021, §4: ALBEF ranks the k most similar by its matching head), or all pairs.
type Rescore struct {
	K     int // candidates of each query; 0: all pairs
	Model PairScorer
	// First is what a cosine of the first scores adds to a pair's odds. The odds of a head that learnt from hard negatives say how much
	// likelier a pair is than the first scores have it: with First = t = exp(logScale) the sum is the log odds of both.
	First   float64
	Journal Journal // of what was scored, so that an evaluation that was killed goes on; nil: none
}

// PairScorer is what ranking again needs of a PairModel.
type PairScorer interface {
	Picture(encoded []byte) (*transform.Image, error)
	Match(ctx context.Context, pictures []*transform.Image, texts []string, pairs [][2]int) ([]float32, error)
}

// Journal keeps scores of pictures.
type Journal interface {
	// Begin opens the scores of a split and returns those that are there. key tells what is scored from anything else; scores of
	// another key are forgotten.
	Begin(split string, key uint64) (map[int][]float32, error)
	// Append adds the scores of a picture.
	Append(picture int, scores []float32) error
	// End closes the scores of the split that was begun; done says that all are used.
	End(done bool) error
}

// Rescored is retrieval ranked again.
type Rescored struct {
	K     int     `json:"k"` // candidates of each query; 0: all
	Pairs int     `json:"pairs"`
	First float64 `json:"first"` // what the first cosine was multiplied with before it was added
	// MostImageToText and MostTextToImage are the shares of queries with a right candidate among the K: no recall can be higher,
	// whatever the second scores are. What it lacks to 1 was lost by the first ones.
	MostImageToText float64 `json:"mostImageToText"`
	MostTextToImage float64 `json:"mostTextToImage"`
	RetrievalResult
}

// rescore is one split's work.
type rescore struct {
	*Rescore
	f    *Features // with embeddings, unless all pairs are scored and nothing is added; then with pictures that may not decode
	opt  *Options
	need [][]int32   // of each picture: the texts that are scored with it, ascending
	odds [][]float32 // likewise
	ks   []int
}

// Retrieve measures retrieval alone, by opt.Rescore. first gives the first scores; nil if there are none, and all pairs are scored.
func Retrieve(ctx context.Context, first Model, set Set, opt Options) (*Result, error) {
	r := &runner{Model: first, set: set, opt: opt}
	r.opt.Tasks = []Task{TaskRetrieval}
	if err := r.check([]Task{TaskRetrieval}); err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	if s := opt.Rescore; s.K < 0 || s.K > 0 && first == nil || s.First != 0 && first == nil || math.IsNaN(s.First) {
		return nil, fmt.Errorf("eval: %w: the %d best by %v times the first scores, without a model that gives these", ErrRequest, s.K, s.First)
	}
	res := &Result{Data: set.Manifest().Name, Splits: make([]SplitResult, len(r.opt.Splits))}
	if first != nil {
		res.EmbedDim = first.EmbedDim()
	}
	for i, split := range r.opt.Splits {
		if err := r.rescored(ctx, split, &res.Splits[i]); err != nil {
			return nil, fmt.Errorf("eval: split %s: %w", split, err)
		}
	}
	return res, nil
}

// rescored measures one split.
func (r *runner) rescored(ctx context.Context, split string, out *SplitResult) error {
	if r.Model != nil {
		if err := r.split(ctx, split, out); err != nil {
			return err
		}
	} else if err := r.unembedded(split, out); err != nil {
		return err
	}
	s := &rescore{Rescore: r.opt.Rescore, f: out.Features, opt: &r.opt}
	s.ks, _ = checkK(r.opt.K) // check has seen it
	s.choose()
	if err := s.score(ctx, r.set, split, out); err != nil {
		return err
	}
	if r.Model == nil {
		if err := s.leaveOut(out); err != nil {
			return err
		}
	}
	res := s.rank()
	out.Retrieval.Rescored = &res
	return nil
}

// unembedded finds a split's pictures, whether they decode or not, and its texts.
func (r *runner) unembedded(split string, out *SplitResult) error {
	meta := r.set.Meta()
	var rows []int
	for i := range meta {
		if meta[i].Split == split {
			rows = append(rows, i)
		}
	}
	f, groups := &Features{Rows: rows}, groupsOf(meta, rows)
	for _, row := range rows {
		f.ImageGroup = append(f.ImageGroup, groups[row])
	}
	out.Split, out.Features, out.Retrieval = split, f, &SplitRetrieval{}
	f.Texts, f.TextGroup, out.Retrieval.Choice = r.texts(rows, groups)
	if len(f.Texts) == 0 {
		return fmt.Errorf("%w: it has no captions of language %q", ErrRequest, r.opt.Lang)
	}
	out.Retrieval.Texts = len(f.Texts)
	return nil
}

// leaveOut takes the pictures that did not decode out of a split without embeddings.
func (s *rescore) leaveOut(out *SplitResult) error {
	f, n := s.f, 0
	for i, odds := range s.odds {
		if odds != nil {
			f.Rows[n], f.ImageGroup[n], s.need[n], s.odds[n] = f.Rows[i], f.ImageGroup[i], s.need[i], odds
			n++
		}
	}
	if n == 0 {
		first := out.Broken[0]
		return fmt.Errorf("%w: none of its %d pictures decodes; row %d: %s", ErrRequest, len(f.Rows), first.Row, first.Reason)
	}
	f.Rows, f.ImageGroup, s.need, s.odds = f.Rows[:n], f.ImageGroup[:n], s.need[:n], s.odds[:n]
	out.Images, out.Retrieval.Groups = n, countGroups(f.ImageGroup)
	out.Features = nil // there are no embeddings to draw
	return nil
}

// choose fills in which texts each picture is scored with.
func (s *rescore) choose() {
	f, texts := s.f, len(s.f.Texts)
	s.need, s.odds = make([][]int32, len(f.Rows)), make([][]float32, len(f.Rows))
	if s.K == 0 {
		all := make([]int32, texts)
		for j := range all {
			all[j] = int32(j)
		}
		for i := range s.need {
			s.need[i] = all
		}
		return
	}
	var mu sync.Mutex
	eachRow(s.opt.Pool, f.Images, f.TextEmbeds, f.Dim, func(i int, scores []float32) {
		top := topK(scores, s.K)
		mu.Lock()
		defer mu.Unlock()
		for _, h := range top {
			s.need[i] = append(s.need[i], int32(h.Index))
		}
	})
	eachRow(s.opt.Pool, f.TextEmbeds, f.Images, f.Dim, func(j int, scores []float32) {
		top := topK(scores, s.K)
		mu.Lock()
		defer mu.Unlock()
		for _, h := range top {
			s.need[h.Index] = append(s.need[h.Index], int32(j))
		}
	})
	for i := range s.need {
		slices.Sort(s.need[i])
		s.need[i] = slices.Compact(s.need[i])
	}
}

// pairsAtOnce is about how many pairs are scored between two entries of the journal.
const pairsAtOnce = 2048

// score fills in the odds. A picture that does not decode is named in out and stays without, if no first scores have found it whole.
func (s *rescore) score(ctx context.Context, set Set, split string, out *SplitResult) (err error) {
	total, done := 0, 0
	for _, n := range s.need {
		total += len(n)
	}
	if s.Journal != nil {
		var known map[int][]float32
		if known, err = s.Journal.Begin(split, s.key(set)); err != nil {
			return err
		}
		defer func() {
			if end := s.Journal.End(err == nil); err == nil {
				err = end
			}
		}()
		for i, scores := range known {
			if i >= 0 && i < len(s.need) && len(scores) == len(s.need[i]) {
				s.odds[i] = scores
				done += len(scores)
			}
		}
	}
	progress := func() {
		if s.opt.Progress != nil {
			s.opt.Progress("pairs of "+split, done, total)
		}
	}
	progress()
	for lo := 0; lo < len(s.need); {
		var rows, numbers []int // of the pictures that are scored at once
		for n := 0; lo < len(s.need) && (n == 0 || n+len(s.need[lo]) <= pairsAtOnce); lo++ {
			if s.odds[lo] == nil && len(s.need[lo]) > 0 {
				rows, numbers, n = append(rows, s.f.Rows[lo]), append(numbers, lo), n+len(s.need[lo])
			}
		}
		pics, errs := readPictures(ctx, s.Model, set, rows, s.opt.Pool.Threads())
		var whole []int // of numbers, those that decode
		var pairs [][2]int
		for i, number := range numbers {
			switch err := errs[i]; {
			case err == nil:
				for _, j := range s.need[number] {
					pairs = append(pairs, [2]int{i, int(j)})
				}
				whole = append(whole, number)
			case s.f.Images == nil && errors.Is(err, transform.ErrBadPicture):
				out.Broken = append(out.Broken, Broken{Row: rows[i], ImageID: set.Meta()[rows[i]].ImageID, Reason: err.Error()})
				total -= len(s.need[number])
			default:
				return fmt.Errorf("row %d: %w", rows[i], err)
			}
		}
		if len(pairs) == 0 {
			continue
		}
		odds, err := s.Model.Match(ctx, pics, s.f.Texts, pairs)
		if err != nil {
			return err
		}
		if err := checkRows("log odds", odds, 1, len(pairs)); err != nil {
			return err
		}
		for _, i := range whole {
			n := len(s.need[i])
			s.odds[i], odds = odds[:n:n], odds[n:]
			if s.Journal != nil {
				if err := s.Journal.Append(i, s.odds[i]); err != nil {
					return err
				}
			}
		}
		done += len(pairs)
		progress()
	}
	return nil
}

// key tells these pairs of these pictures and texts from others: rows of shards of these checksums.
func (s *rescore) key(set Set) uint64 {
	h := fnv.New64a()
	text := func(t string) { // with its length, so that two are not one
		_ = binary.Write(h, binary.LittleEndian, int64(len(t)))
		_, _ = io.WriteString(h, t)
	}
	for _, shard := range set.Manifest().Shards {
		text(shard.SHA256)
	}
	for i, row := range s.f.Rows {
		_ = binary.Write(h, binary.LittleEndian, int64(row))
		_ = binary.Write(h, binary.LittleEndian, int64(len(s.need[i])))
		_ = binary.Write(h, binary.LittleEndian, s.need[i])
	}
	for _, t := range s.f.Texts {
		text(t)
	}
	return h.Sum64()
}

// rank makes the result of the odds.
func (s *rescore) rank() Rescored {
	f := s.f
	res := Rescored{K: s.K, First: s.First}
	for _, n := range s.need {
		res.Pairs += len(n)
	}
	odds := func(picture, text int32) float32 {
		at, _ := slices.BinarySearch(s.need[picture], text)
		return s.odds[picture][at]
	}
	res.ImageToText, res.MostImageToText = s.direction(f.Images, f.TextEmbeds, f.ImageGroup, f.TextGroup, odds)
	res.TextToImage, res.MostTextToImage = s.direction(f.TextEmbeds, f.Images, f.TextGroup, f.ImageGroup, func(text, picture int32) float32 { return odds(picture, text) })
	return res
}

// direction ranks one way, and says which share of the queries has a right candidate among those that were scored again.
func (s *rescore) direction(queries, candidates []float32, queryGroup, candidateGroup []int32, odds func(query, candidate int32) float32) (Direction, float64) {
	right, n := rightOf(candidateGroup), len(candidateGroup)
	ranks, firsts := make([]int, len(queryGroup)), make([]int, len(queryGroup))
	again := func(q int, top []int32, cosine func(j int32) float32) []float32 {
		scores := make([]float32, len(top))
		for i, j := range top {
			scores[i] = odds(int32(q), j)
			if s.First != 0 {
				scores[i] += float32(s.First) * cosine(j)
			}
		}
		return scores
	}
	if s.K == 0 && s.First == 0 {
		all := make([]int32, n)
		for j := range all {
			all[j] = int32(j)
		}
		s.opt.Pool.For(len(queryGroup), 4, func(lo, hi, _ int) {
			for q := lo; q < hi; q++ {
				ranks[q] = bestRank(again(q, all, nil), right[queryGroup[q]])
				firsts[q] = min(ranks[q], 1)
			}
		})
	} else {
		eachRow(s.opt.Pool, queries, candidates, s.f.Dim, func(q int, scores []float32) {
			r := right[queryGroup[q]]
			if firsts[q] = bestRank(scores, r); firsts[q] == 0 {
				return
			}
			k := s.K
			if k == 0 {
				k = n
			}
			var top []int32
			for _, h := range topK(scores, k) {
				top = append(top, int32(h.Index))
			}
			slices.Sort(top)
			if ranks[q] = firsts[q]; firsts[q] > k {
				return // the first k are others, in whatever order
			}
			var within []int32 // where in top the right ones are
			for i, j := range top {
				if _, ok := slices.BinarySearch(r, j); ok {
					within = append(within, int32(i))
				}
			}
			ranks[q] = bestRank(again(q, top, func(j int32) float32 { return scores[j] }), within)
		})
	}
	d := summarize(ranks, queryGroup, right, n, s.ks)
	kept := 0
	for _, rank := range firsts {
		if rank > 0 && (s.K == 0 || rank <= s.K) {
			kept++
		}
	}
	return d, float64(kept) / float64(max(1, d.Queries))
}

// readPictures decodes the pictures of rows, each with its error.
func readPictures(ctx context.Context, m PairScorer, set Set, rows []int, threads int) ([]*transform.Image, []error) {
	pics, errs := make([]*transform.Image, len(rows)), make([]error, len(rows))
	var wg sync.WaitGroup
	gate := make(chan struct{}, max(1, threads))
	for i, row := range rows {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			raw, err := set.Image(ctx, row)
			if err == nil {
				pics[i], err = m.Picture(raw)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return pics, errs
}
