package data

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/data/tokenizer"
	"diptych/data/transform"
)

func TestShares(t *testing.T) {
	for _, c := range []struct {
		weights []float64
		n       int
		want    []int
		err     string
	}{
		{[]float64{3}, 5, []int{5}, ""},
		{[]float64{1, 1}, 4, []int{2, 2}, ""},
		{[]float64{1, 1}, 5, []int{3, 2}, ""},
		{[]float64{2, 1, 1}, 7, []int{3, 2, 2}, ""}, // 3.5, 1.75, 1.75
		{[]float64{0.1, 0.2, 0.7}, 10, []int{1, 2, 7}, ""},
		{[]float64{1000, 1}, 128, nil, "weight 2, 1 of 1001 in all, is less than a pair in a batch of 128; give it at least 7.82"},
		{[]float64{1, 0}, 128, nil, "weight 2 is 0, want a positive number"},
		{[]float64{1, math.NaN()}, 128, nil, "weight 2 is NaN"},
		{[]float64{math.Inf(1)}, 128, nil, "weight 1 is +Inf"},
	} {
		got, err := Shares(c.weights, c.n)
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

// mixed makes a source of three sets with 5, 2 and 1 pairs of a batch of 8; the second has a broken picture in row 3.
func mixed(t *testing.T) (*Source, []int) {
	shares := []int{5, 2, 1}
	var parts []Part
	for k, n := range []int{60, 12, 30} {
		var broken []int
		if k == 1 {
			broken = []int{3}
		}
		rows, samples := fakeSet(t, n, broken...)
		var groups [][]int32
		for i := range samples {
			if i%3 == 0 {
				groups = append(groups, nil)
			}
			groups[i/3] = append(groups[i/3], int32(i))
		}
		order, err := NewOrder(PartSeed(5, k), shares[k], groups)
		require.NoError(t, err)
		parts = append(parts, Part{
			Name: fmt.Sprint("set", k), Rows: rows, Order: order, Len: n, Samples: n,
			Captions: func(_ context.Context, row int) ([]string, error) { return samples[row].Captions, nil },
		})
	}
	pipe, err := transform.New([]transform.Spec{{"op": "resize", "mode": "squash"}}, side, side)
	require.NoError(t, err)
	tok, err := tokenizer.New(tokenizer.Config{Kind: "bpe", File: "demo", ContextLength: 16})
	require.NoError(t, err)
	s, err := NewMixed(parts, Options{Seed: 5, Batch: 8, Pipeline: pipe, Tokenizer: tok, BrokenLimit: 0.05})
	require.NoError(t, err)
	return s, []int{0, 60, 72, 102}
}

// Every batch has the same share of each set, in slots that change; each set goes through its own epochs; no group comes
// twice; what stands in for a broken picture is of the same set; and any update can be entered.
func TestMixed(t *testing.T) {
	s, bases := mixed(t)
	require.Equal(t, 20+4+10, s.Groups())
	require.Equal(t, 102, s.Samples())
	where := map[string]bool{}
	seen := make([]int, 102)
	broken := 0
	var all []batch.Batch
	for u := range 24 { // 6 epochs of the first, 12 of the second, 2.4 of the third
		var b batch.Batch
		require.NoError(t, s.At(t.Context(), u, &b))
		counts, slots := [3]int{}, ""
		held := map[int32]bool{}
		for _, p := range b.Pairs {
			k := 0
			for p.Row >= bases[k+1] {
				k++
			}
			counts[k]++
			slots += fmt.Sprint(k)
			require.False(t, held[p.Group])
			held[p.Group] = true
			require.Equal(t, uint8(p.Row-bases[k]), p.Pixels[0], "the pixels are the row's")
			seen[p.Row]++
		}
		require.Equal(t, [3]int{5, 2, 1}, counts)
		where[slots] = true
		for _, x := range b.Broken {
			require.Equal(t, 63, x.Row)
			broken++
		}
		all = append(all, clone(&b))
	}
	require.NotZero(t, broken)
	require.Zero(t, seen[63])
	require.Greater(t, len(where), 15, "slots are mixed")
	require.Equal(t, "set1, row 3", s.RowName(63))
	for row := range 60 {
		require.Equal(t, 2, seen[row], "six epochs of groups of three rows show each row twice")
	}
	for _, workers := range []int{1, 3} {
		fresh, _ := mixed(t)
		l := NewLoader(t.Context(), fresh, 13, 24, workers, 3)
		for u := 13; u < 24; u++ {
			b, err := l.Next(t.Context())
			require.NoError(t, err)
			require.Equal(t, all[u], clone(b))
			l.Release(b)
		}
		l.Close()
	}
}
