package eval

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"diptych/internal/kernel"
)

// RetrievalInput is what is to be ranked: I pictures and T texts with E = Dim numbers each.
type RetrievalInput struct {
	Images, Texts []float32 // (I, E), (T, E), unit rows: the score of a pair is their product
	Dim           int       // E
	// ImageGroup (I) and TextGroup (T) say what belongs together: a text is right for a picture, and the picture for the
	// text, if their groups are equal. A picture with five sentences shares its group with them; pictures of one concept
	// share theirs with each other.
	ImageGroup, TextGroup []int32
	K                     []int // the K of R@K; nil means 1, 5, 10
}

// RetrievalResult holds both directions.
type RetrievalResult struct {
	ImageToText Direction `json:"imageToText"` // a picture asks, texts are ranked
	TextToImage Direction `json:"textToImage"` // a text asks, pictures are ranked
}

// Direction is one way of retrieval. A query's rank is that of its best right candidate, from 1, when candidates are sorted
// by falling score and, where scores are equal, by index.
type Direction struct {
	Queries    int        `json:"queries"`    // that have a right candidate; only these count below
	Unmatched  int        `json:"unmatched"`  // queries without any right candidate
	Candidates int        `json:"candidates"` // ranked for each query
	Recall     []RecallAt `json:"recall"`
	MedianRank float64    `json:"medianRank"` // mean of the two middle ranks for an even number of queries
	MeanRank   float64    `json:"meanRank"`
	// ChanceRank is the mean rank that random scores reach on average.
	ChanceRank float64 `json:"chanceMeanRank"`
}

// RecallAt is the fraction of queries whose rank is at most K, and the fraction that random scores reach on average.
type RecallAt struct {
	K      int     `json:"k"`
	Recall float64 `json:"recall"`
	Chance float64 `json:"chance"`
}

// RecallAt gives the recall at one K, or NaN if it was not measured.
func (d Direction) RecallAt(k int) float64 {
	for _, r := range d.Recall {
		if r.K == k {
			return r.Recall
		}
	}
	return math.NaN()
}

// Retrieval ranks all texts for each picture and all pictures for each text, exactly: every pair is scored, in blocks of
// bounded memory. The result does not depend on p's number of threads. Slices that do not fit together give ErrShape, NaN
// or Inf among the embeddings ErrNotFinite.
func Retrieval(p *kernel.Pool, in RetrievalInput) (RetrievalResult, error) {
	r, err := retrieval(p, in)
	if err != nil {
		return r, fmt.Errorf("eval: retrieval: %w", err)
	}
	return r, nil
}

func retrieval(p *kernel.Pool, in RetrievalInput) (r RetrievalResult, err error) {
	ks, err := checkK(in.K)
	if err != nil {
		return r, err
	}
	if err := checkRows("images", in.Images, in.Dim, len(in.ImageGroup)); err != nil {
		return r, err
	}
	if err := checkRows("texts", in.Texts, in.Dim, len(in.TextGroup)); err != nil {
		return r, err
	}
	r.ImageToText = direction(p, in.Images, in.Texts, in.Dim, in.ImageGroup, in.TextGroup, ks)
	r.TextToImage = direction(p, in.Texts, in.Images, in.Dim, in.TextGroup, in.ImageGroup, ks)
	return r, nil
}

// checkK returns the sorted, distinct K, or the default.
func checkK(ks []int) ([]int, error) {
	if len(ks) == 0 {
		return []int{1, 5, 10}, nil
	}
	ks = slices.Clone(ks)
	slices.Sort(ks)
	if ks[0] < 1 {
		return nil, fmt.Errorf("%w: R@%d, want K of at least 1", ErrShape, ks[0])
	}
	return slices.Compact(ks), nil
}

func direction(p *kernel.Pool, queries, candidates []float32, dim int, queryGroup, candidateGroup []int32, ks []int) Direction {
	right := rightOf(candidateGroup)
	ranks := make([]int, len(queryGroup))
	eachRow(p, queries, candidates, dim, func(q int, scores []float32) {
		ranks[q] = bestRank(scores, right[queryGroup[q]])
	})
	return summarize(ranks, queryGroup, right, len(candidateGroup), ks)
}

// rightOf maps a group to its candidates, in order of index.
func rightOf(candidateGroup []int32) map[int32][]int32 {
	right := make(map[int32][]int32)
	for j, g := range candidateGroup {
		right[g] = append(right[g], int32(j))
	}
	return right
}

// summarize makes the numbers of a direction from the rank of each query's best right candidate among n; 0: it has none.
func summarize(ranks []int, queryGroup []int32, right map[int32][]int32, n int, ks []int) Direction {
	d := Direction{Candidates: n, Recall: make([]RecallAt, len(ks))}
	for i, k := range ks {
		d.Recall[i].K = k
	}
	found := make([]int, 0, len(ranks))
	sum := 0
	for q, rank := range ranks {
		if rank == 0 {
			d.Unmatched++
			continue
		}
		found = append(found, rank)
		sum += rank
		m := len(right[queryGroup[q]])
		d.ChanceRank += float64(n+1) / float64(m+1)
		for i, k := range ks {
			if rank <= k {
				d.Recall[i].Recall++
			}
			d.Recall[i].Chance += chanceRecall(n, m, k)
		}
	}
	d.Queries = len(found)
	if d.Queries == 0 {
		return d
	}
	count := float64(d.Queries)
	for i := range d.Recall {
		d.Recall[i].Recall /= count
		d.Recall[i].Chance /= count
	}
	slices.Sort(found)
	d.MedianRank = float64(found[(len(found)-1)/2]+found[len(found)/2]) / 2
	d.MeanRank = float64(sum) / count
	d.ChanceRank /= count
	return d
}

// bestRank is the rank, from 1, of the best of the candidates in right (ascending indices), or 0 if there is none.
func bestRank(scores []float32, right []int32) int {
	if len(right) == 0 {
		return 0
	}
	best := right[0]
	for _, j := range right[1:] {
		if scores[j] > scores[best] {
			best = j
		}
	}
	s, rank := scores[best], 1
	for _, v := range scores[:best] {
		if v >= s {
			rank++
		}
	}
	for _, v := range scores[best+1:] {
		if v > s {
			rank++
		}
	}
	return rank
}

// chanceRecall is the probability that the first k of n candidates in random order hold at least one of m right ones:
// 1 - C(n-m, k)/C(n, k).
func chanceRecall(n, m, k int) float64 {
	miss := 1.0
	for i := range min(k, n) {
		miss *= max(0, float64(n-m-i)) / float64(n-i)
	}
	return 1 - miss
}

// Hit is one ranked candidate.
type Hit struct {
	Index int     `json:"index"`
	Score float32 `json:"score"`
}

// Nearest gives for each query the k candidates (all, if there are fewer) with the highest scores, best first, equal scores
// by index. The errors are those of Retrieval.
func Nearest(p *kernel.Pool, queries, candidates []float32, dim, k int) ([][]Hit, error) {
	if k < 1 {
		return nil, fmt.Errorf("eval: %w: the %d nearest, want at least 1", ErrShape, k)
	}
	if err := errors.Join(checkRows("queries", queries, dim, -1), checkRows("candidates", candidates, dim, -1)); err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	out := make([][]Hit, len(queries)/dim)
	eachRow(p, queries, candidates, dim, func(q int, scores []float32) {
		out[q] = topK(scores, k)
	})
	return out, nil
}

// topK inserts each score that beats the last kept one; k is small.
func topK(scores []float32, k int) []Hit {
	top := make([]Hit, 0, min(k, len(scores)))
	for j, s := range scores {
		if len(top) == cap(top) {
			if s <= top[len(top)-1].Score {
				continue
			}
			top = top[:len(top)-1]
		}
		at := len(top)
		for at > 0 && top[at-1].Score < s {
			at--
		}
		top = slices.Insert(top, at, Hit{Index: j, Score: s})
	}
	return top
}
