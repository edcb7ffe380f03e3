//go:build amd64 && !noasm

package transform

import (
	"os"
	"slices"

	"golang.org/x/sys/cpu"
)

// useAVX2 is set once, when the program starts.
var useAVX2 = os.Getenv("DIPTYCH_KERNEL") != "portable" && cpu.X86.HasAVX2

// acrossVector makes rows of dst from row y0 of src on, four at a time, and returns how many it made.
func acrossVector(dst, src *Image, y0 int, a *axis, sc *Scratch) int {
	const tail = 2 // pixels at a row's end that are mixed one by one, because mixAVX2 reads past those that it mixes
	if !useAVX2 || src.W < 4+tail || dst.W < 2 || !a.sound() {
		return 0
	}
	n := src.W
	bulk := (n - tail) &^ 3
	sc.mixed = slices.Grow(sc.mixed[:0], 16*n)[:16*n]
	y := 0
	for ; y+4 <= dst.H; y += 4 {
		mixAVX2(&sc.mixed[0], &src.row(y0 + y)[0], 3*n, bulk)
		for r := range 4 {
			in := src.row(y0 + y + r)
			for p := bulk; p < n; p++ {
				copy(sc.mixed[16*p+4*r:16*p+4*r+3], in[3*p:])
			}
		}
		acrossAVX2(&dst.row(y)[0], 3*dst.W, &sc.mixed[0], &a.bounds[0].first, &a.weights[0], a.size, dst.W-1)
		// The last pixel: its fourth byte would be the next row's.
		last := dst.W - 1
		b := a.bounds[last]
		for r := range 4 {
			out := dst.row(y + r)[3*last:]
			for c := range out {
				sum := int32(half)
				for k, w := range a.weights[last*a.size:][:b.count] {
					sum += w * int32(sc.mixed[16*(b.first+k)+4*r+c])
				}
				out[c] = clip8(sum >> weightBits)
			}
		}
	}
	return y
}

// sound reports whether every output has inputs.
func (a *axis) sound() bool {
	return !slices.ContainsFunc(a.bounds, func(b bound) bool { return b.count <= 0 })
}

// downVector makes one row of levels from the rows of src from row first on, or reports that it cannot.
func downVector(out []uint8, src *Image, first int, weights []int32) bool {
	const block = 32
	n := len(out)
	if !useAVX2 || n < block || len(weights) == 0 {
		return false
	}
	in, stride := src.Pix[3*src.W*first:3*src.W*(first+len(weights))], 3*src.W
	downAVX2(&out[0], &in[0], stride, &weights[0], len(weights), n&^(block-1))
	if n%block != 0 { // some levels again
		downAVX2(&out[n-block], &in[n-block], stride, &weights[0], len(weights), block)
	}
	return true
}
