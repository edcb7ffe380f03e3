package model

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/kernel"
)

// The presets have the parameters of spec 1.2, with a head of 1000 classes; M, which the table lacks, those of its formula.
func TestViTPresetSizes(t *testing.T) {
	want := map[string][3]int{ // at /32, /16, /14
		"Ti": {6131560, 5717416, 5694376}, "S": {22878952, 22050664, 22004584}, "B": {88224232, 86567656, 86475496},
		"L": {306535400, 304326632, 304203752}, "H": {634960360, 632199400, 632045800},
	}
	formula := func(d, depth, patch int) int {
		n, m := (224/patch)*(224/patch), 4*d
		return 3*patch*patch*d + d + (n+2)*d + depth*(4*d*d+4*d+2*d*m+m+d+4*d) + 2*d + d*1000 + 1000
	}
	require.Equal(t, want["B"][1], formula(768, 12, 16))
	patches := [3]int{32, 16, 14}
	m := [3]int{}
	for i, p := range patches {
		m[i] = formula(512, 12, p)
	}
	want["M"] = m
	require.Len(t, ViTPresets, 3*len(want))
	for name, counts := range want {
		for i, p := range patches {
			c := ViTPresets[fmt.Sprintf("ViT-%s-%d", name, p)]
			c.NumClasses = 1000
			v, err := NewViT(c)
			require.NoError(t, err)
			require.Equal(t, counts[i], v.Layout.Count(), "%s/%d", name, p)
		}
	}
}

// The tables of spec 1.4 that no stored fixture has, written out for single elements, on a grid that is no square.
func TestPositionTables(t *testing.T) {
	const width = 16
	at := func(of float64, k int, n float64) float64 { return of * math.Pow(10000, -float64(k)/n) }
	pool := kernel.NewPool(1)
	defer pool.Close()
	for _, c := range []struct {
		name string
		want func(x, y, i float64) [4]float64 // elements 1 of the four quarters of the row of patch i at column x of row y
	}{
		{"sincos2d", func(x, y, _ float64) [4]float64 {
			return [4]float64{math.Sin(at(x, 1, 4)), math.Cos(at(x, 1, 4)), math.Sin(at(y, 1, 4)), math.Cos(at(y, 1, 4))}
		}},
		{"sincos2d_timm", func(x, y, _ float64) [4]float64 {
			return [4]float64{math.Sin(at(y, 1, 4)), math.Sin(at(x, 1, 4)), math.Cos(at(y, 1, 4)), math.Cos(at(x, 1, 4))}
		}},
		{"sincos2d_bigvision", func(x, y, _ float64) [4]float64 {
			return [4]float64{math.Sin(at(x, 1, 3)), math.Cos(at(x, 1, 3)), math.Sin(at(y, 1, 3)), math.Cos(at(y, 1, 3))}
		}},
		{"sincos1d", func(_, _, i float64) [4]float64 {
			return [4]float64{math.Sin(at(i, 1, 8)), math.Sin(at(i, 5, 8)), math.Cos(at(i, 1, 8)), math.Cos(at(i, 5, 8))}
		}},
	} {
		cfg := DefaultViT()
		v := &cfg.Vision
		v.ImageSize, v.ImageWidth, v.PatchSize, v.Width, v.Depth, v.NumHeads, v.Positions, cfg.NumClasses = 8, 12, 4, width, 1, 2, c.name, 2
		m, err := NewViT(cfg)
		require.NoError(t, err)
		slab := make([]float32, m.Layout.Size)
		m.Layout.Init(pool, slab, 1)
		pos := m.Layout.Find("pos_embed")
		require.True(t, pos.Frozen)
		table := pos.Slice(slab)
		require.Equal(t, make([]float32, width), table[:width], "the class token's row is zero")
		for i := range 6 {
			row := table[(1+i)*width:][:width]
			for q, want := range c.want(float64(i%3), float64(i/3), float64(i)) {
				require.InDelta(t, want, row[q*width/4+1], 1e-6, "%s, patch %d, quarter %d", c.name, i, q)
			}
		}
	}
}
