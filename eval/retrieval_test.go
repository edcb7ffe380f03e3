package eval

import (
	"fmt"
	"math"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/addr"
	"diptych/internal/kernel"
)

// levels fills n numbers with small integers, so that products are exact and ties many.
func levels(seed uint64, n, count int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(addr.Below(addr.Hash(seed, uint64(i)), count) - count/2)
	}
	return x
}

func groups(seed uint64, n, count int) []int32 {
	g := make([]int32, n)
	for i := range g {
		g[i] = int32(addr.Below(addr.Hash(seed, uint64(i)), count))
	}
	return g
}

// bruteRanks sorts all candidates of each query; 0 stands for a query without a right one.
func bruteRanks(queries, candidates []float32, dim int, queryGroup, candidateGroup []int32) []int {
	ranks := make([]int, len(queryGroup))
	for q := range queryGroup {
		score := make([]float64, len(candidateGroup))
		order := make([]int, len(candidateGroup))
		for c := range order {
			order[c] = c
			for k := range dim {
				score[c] += float64(queries[q*dim+k]) * float64(candidates[c*dim+k])
			}
		}
		sort.SliceStable(order, func(a, b int) bool { return score[order[a]] > score[order[b]] })
		for at, c := range order {
			if candidateGroup[c] == queryGroup[q] {
				ranks[q] = at + 1
				break
			}
		}
	}
	return ranks
}

func checkDirection(t *testing.T, d Direction, ranks []int) {
	t.Helper()
	var found []int
	for _, r := range ranks {
		if r > 0 {
			found = append(found, r)
		}
	}
	require.Equal(t, len(found), d.Queries)
	require.Equal(t, len(ranks)-len(found), d.Unmatched)
	sort.Ints(found)
	sum := 0.0
	for _, r := range found {
		sum += float64(r)
	}
	if n := len(found); n > 0 {
		require.InDelta(t, sum/float64(n), d.MeanRank, 1e-9)
		require.Equal(t, float64(found[(n-1)/2]+found[n/2])/2, d.MedianRank)
		for _, r := range d.Recall {
			require.InDelta(t, float64(sort.SearchInts(found, r.K+1))/float64(n), r.Recall, 1e-12, "R@%d", r.K)
		}
	}
}

func TestRetrievalEqualsBruteForce(t *testing.T) {
	pools := map[string]*kernel.Pool{"no pool": nil, "3 threads": kernel.NewPool(3)}
	defer pools["3 threads"].Close()
	for _, c := range []struct {
		name                          string
		images, texts, dim, groups, k int
	}{
		{"one pair", 1, 1, 1, 1, 1},
		{"many ties, several right ones", 53, 101, 3, 17, 4},
		{"unmatched queries", 29, 31, 5, 200, 3},
		{"more than one block of queries", 1100, 7, 2, 9, 5},
		{"all in one group", 12, 15, 4, 1, 2},
		{"no texts", 5, 0, 4, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := RetrievalInput{
				Images: levels(1, c.images*c.dim, 5), Texts: levels(2, c.texts*c.dim, 5), Dim: c.dim,
				ImageGroup: groups(3, c.images, c.groups), TextGroup: groups(4, c.texts, c.groups), K: []int{c.k, 1, 1000},
			}
			var first RetrievalResult
			for name, p := range pools {
				r, err := Retrieval(p, in)
				require.NoError(t, err)
				if first.ImageToText.Recall == nil {
					first = r
				}
				require.Equal(t, first, r, name)
			}
			checkDirection(t, first.ImageToText, bruteRanks(in.Images, in.Texts, c.dim, in.ImageGroup, in.TextGroup))
			checkDirection(t, first.TextToImage, bruteRanks(in.Texts, in.Images, c.dim, in.TextGroup, in.ImageGroup))
		})
	}
}

// A panel of similarities as wide as this gets the fewest queries at a time.
func TestRetrievalOfManyCandidates(t *testing.T) {
	const n = blockFloats/minBlockRows + 7
	in := RetrievalInput{Dim: 1, Images: make([]float32, 2*minBlockRows+3), Texts: make([]float32, n)}
	for i := range in.Images {
		in.Images[i] = 1
		in.ImageGroup = append(in.ImageGroup, int32(i*5))
	}
	for j := range in.Texts {
		in.Texts[j] = -float32(j)
		in.TextGroup = append(in.TextGroup, int32(j))
	}
	r, err := Retrieval(nil, in)
	require.NoError(t, err)
	last := len(in.Images) - 1
	require.Equal(t, float64(last*5)/2+1, r.ImageToText.MeanRank) // picture i's text is the (5i+1)th
	require.Equal(t, n-len(in.Images), r.TextToImage.Unmatched)
	require.InDelta(t, 1/float64(len(in.Images)), r.ImageToText.RecallAt(1), 1e-12)
	require.True(t, math.IsNaN(r.ImageToText.RecallAt(7)), "not measured")
}

func TestChance(t *testing.T) {
	for _, c := range []struct {
		n, m, k int
		want    float64
	}{{1461, 1, 1, 1.0 / 1461}, {1461, 1, 10, 10.0 / 1461}, {4, 2, 2, 1 - 1.0/6}, {3, 1, 5, 1}, {5, 5, 1, 1}, {6, 4, 3, 1}} {
		require.InDelta(t, c.want, chanceRecall(c.n, c.m, c.k), 1e-12, "%+v", c)
	}
	// Scores that say nothing reach it: each picture has 2 of 6 texts.
	in := RetrievalInput{Dim: 1, Images: []float32{0, 0, 0}, Texts: make([]float32, 6), ImageGroup: []int32{0, 1, 2}, TextGroup: []int32{0, 1, 2, 0, 1, 2}}
	r, err := Retrieval(nil, in)
	require.NoError(t, err)
	require.InDelta(t, 1.0/3, r.ImageToText.Recall[0].Chance, 1e-12)
	require.InDelta(t, 7.0/3, r.ImageToText.ChanceRank, 1e-12)
	require.InDelta(t, 2, r.ImageToText.MeanRank, 1e-12, "ties by index: ranks 1, 2, 3")
	require.InDelta(t, 2, r.TextToImage.ChanceRank, 1e-12)
}

func TestRetrievalErrors(t *testing.T) {
	one := []float32{1, 0}
	nan := []float32{1, float32(math.NaN())}
	g := []int32{0}
	for _, c := range []struct {
		name string
		in   RetrievalInput
		want error
		text string
	}{
		{"no dimension", RetrievalInput{Images: one, Texts: one, ImageGroup: g, TextGroup: g}, ErrShape, "0 dimensions"},
		{"groups missing", RetrievalInput{Images: one, Texts: one, Dim: 2, ImageGroup: g}, ErrShape, "texts has 2 numbers, want 0 rows of 2"},
		{"rows of another width", RetrievalInput{Images: one, Texts: one, Dim: 3, ImageGroup: g, TextGroup: g}, ErrShape, "images"},
		{"NaN", RetrievalInput{Images: one, Texts: nan, Dim: 2, ImageGroup: g, TextGroup: g}, ErrNotFinite, "texts, row 0, column 1: NaN"},
		{"R@0", RetrievalInput{Images: one, Texts: one, Dim: 2, ImageGroup: g, TextGroup: g, K: []int{0}}, ErrShape, "R@0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Retrieval(nil, c.in)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
		})
	}
}

func TestNearest(t *testing.T) {
	queries, candidates := levels(7, 23*3, 5), levels(8, 61*3, 5)
	for _, k := range []int{1, 5, 61, 90} {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			got, err := Nearest(nil, queries, candidates, 3, k)
			require.NoError(t, err)
			for q, hits := range got {
				require.Len(t, hits, min(k, 61))
				for at, h := range hits {
					// The rank of each hit as the only right candidate is its place.
					g := make([]int32, 61)
					g[h.Index] = 1
					require.Equal(t, at+1, bruteRanks(queries[q*3:q*3+3], candidates, 3, []int32{1}, g)[0])
				}
			}
		})
	}
	_, err := Nearest(nil, queries, candidates, 3, 0)
	require.ErrorIs(t, err, ErrShape)
}

func BenchmarkRetrieval(b *testing.B) { // Karpathy's COCO test split at CLIP's width
	const images, texts, dim = 5000, 25000, 512
	in := RetrievalInput{Images: levels(1, images*dim, 9), Texts: levels(2, texts*dim, 9), Dim: dim, ImageGroup: make([]int32, images), TextGroup: make([]int32, texts)}
	for j := range in.TextGroup {
		in.ImageGroup[j/5], in.TextGroup[j] = int32(j/5), int32(j/5)
	}
	p := kernel.NewPool(2)
	defer p.Close()
	for b.Loop() {
		_, err := Retrieval(p, in)
		require.NoError(b, err)
	}
}
