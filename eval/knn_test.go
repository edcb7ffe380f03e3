package eval

import (
	"math"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/kernel"
)

// The votes are those of a plain program that sorts all similarities in float64.
func TestNeighbours(t *testing.T) {
	const classes, dim = 4, 6
	train, s := cloud(80, classes, dim, 4), cloud(31, classes, dim, 5)
	clear(s.x[:dim]) // a row of zeros
	cosine := func(a, b []float32) float64 {
		var ab, aa, bb float64
		for i := range a {
			ab += float64(a[i]) * float64(b[i])
			aa += float64(a[i]) * float64(a[i])
			bb += float64(b[i]) * float64(b[i])
		}
		if aa == 0 || bb == 0 {
			return 0
		}
		return ab / math.Sqrt(aa*bb)
	}
	pool := kernel.NewPool(3)
	defer pool.Close()
	for _, knn := range []KNN{{1, 0.07}, {20, 0.07}, {5, 1}, {200, 0.5}} {
		got := neighbours(pool, knn, train, s, classes, dim)
		for i := range s.labels {
			type near struct {
				at  int
				cos float64
			}
			var all []near
			for j := range train.labels {
				all = append(all, near{j, cosine(s.x[i*dim:(i+1)*dim], train.x[j*dim:(j+1)*dim])})
			}
			sort.SliceStable(all, func(a, b int) bool { return all[a].cos > all[b].cos })
			votes := make([]float64, classes)
			for _, v := range all[:min(knn.K, len(all))] {
				votes[train.labels[v.at]] += math.Exp(v.cos / knn.Temperature)
			}
			rank := 1
			for c, v := range votes {
				if own := votes[s.labels[i]]; v > own || v == own && c < s.labels[i] {
					rank++
				}
			}
			require.Equal(t, rank, got[i].rank, "picture %d, %v", i, knn)
		}
	}
}

// A near picture outvotes two far ones at a low temperature, and not at a high one.
func TestNeighboursTemperature(t *testing.T) {
	train := samples{[]float32{1, 0, 0, 1, 0.1, 1}, []int{0, 1, 1}}
	s := samples{[]float32{3, 1}, []int{0}}
	require.Equal(t, 1, neighbours(nil, KNN{3, 0.07}, train, s, 2, 2)[0].rank)
	require.Equal(t, 2, neighbours(nil, KNN{3, 10}, train, s, 2, 2)[0].rank)
	require.Equal(t, 1, neighbours(nil, KNN{1, 10}, train, s, 2, 2)[0].rank)
}
