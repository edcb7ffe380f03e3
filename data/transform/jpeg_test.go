package transform

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUpsampler holds the cases of jdsample.c that the golden pictures do not have, worked out by hand.
func TestUpsampler(t *testing.T) {
	tests := []struct {
		name  string
		u     upsampler
		plane []uint8
		want  [][]uint8 // rows of pixels
	}{
		{"4:4:0", upsampler{h: 1, v: 2, w: 2, rows: 2}, []uint8{10, 200, 20, 100}, [][]uint8{
			{10, 200}, {13, 175}, {17, 125}, {20, 100}, // (3·10+10+1)>>2, (3·10+20+2)>>2, (3·20+10+1)>>2, (3·20+20+2)>>2
		}},
		{"4:2:0 of two samples", upsampler{h: 2, v: 2, w: 2, rows: 1}, []uint8{10, 200}, [][]uint8{{10, 10, 200, 200}, {10, 10, 200, 200}}},
		{"4:2:2 of two samples", upsampler{h: 2, v: 1, w: 2, rows: 1}, []uint8{10, 200}, [][]uint8{{10, 10, 200, 200}}},
		{"4:2:2 of three samples", upsampler{h: 2, v: 1, w: 3, rows: 1}, []uint8{10, 20, 0}, [][]uint8{{10, 13, 17, 15, 5, 0}}},
		{"4:2:0 of three samples", upsampler{h: 2, v: 2, w: 3, rows: 1}, []uint8{10, 20, 0}, [][]uint8{{10, 12, 18, 15, 5, 0}, {10, 12, 18, 15, 5, 0}}},
		{"4:1:1", upsampler{h: 4, v: 1, w: 3, rows: 1}, []uint8{1, 2, 3}, [][]uint8{{1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}}},
		{"4:1:0", upsampler{h: 4, v: 2, w: 1, rows: 2}, []uint8{1, 9}, [][]uint8{{1, 1, 1, 1}, {1, 1, 1, 1}, {9, 9, 9, 9}, {9, 9, 9, 9}}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			c.u.stride, c.u.sum = c.u.w, make([]int32, c.u.w)
			got := make([]uint8, c.u.h*c.u.w)
			for y, want := range c.want {
				c.u.row(got, c.plane, y)
				require.Equal(t, want, got, "row %d", y)
			}
		})
	}
}
