package transform

import (
	"fmt"
	"math"
	"slices"
)

// Filter is a way to resize: one of Pillow's resampling filters, or PyTorch's rendering of one. PyTorch's resize of 8-bit
// tensors (interpolate with antialias), which torchvision and the fast image processors of transformers call, has the same
// weights, but rounds them to 16 bits, and always takes the rows first; it differs from Pillow's by a level here and there.
type Filter uint8

const (
	Bicubic Filter = iota // the default of CLIP
	Bilinear
	Box
	Nearest
	Lanczos
	Hamming
	TorchBicubic
	TorchBilinear
)

var filterNames = []string{"bicubic", "bilinear", "box", "nearest", "lanczos", "hamming", "torch_bicubic", "torch_bilinear"} // in the order of the constants

// torch tells whether the filter is PyTorch's.
func (f Filter) torch() bool { return f >= TorchBicubic }

// support is the half width of the filter in source pixels, when it does not shrink.
func (f Filter) support() float64 { return [...]float64{2, 1, 0.5, 0, 3, 1, 2, 1}[f] }

// at is the filter's weight at distance x. Conversions to float64 keep compilers from fusing a product with a sum, so
// that every machine computes the same weights.
func (f Filter) at(x float64) float64 {
	switch f {
	case Bicubic, TorchBicubic: // Keys 1981 with a = -1/2
		const a = -0.5
		x = math.Abs(x)
		switch {
		case x < 1:
			return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
		case x < 2:
			return (float64((float64((x-5)*x)+8)*x) - 4) * a
		}
		return 0
	case Bilinear, TorchBilinear:
		return max(1-math.Abs(x), 0)
	case Box:
		if x > -0.5 && x <= 0.5 {
			return 1
		}
		return 0
	case Lanczos:
		if x >= -3 && x < 3 {
			return sinc(x) * sinc(x/3)
		}
		return 0
	default: // Hamming; Pillow's constants are single precision
		x = math.Abs(x)
		if x >= 1 {
			return 0
		}
		return sinc(x) * (float64(float32(0.54)) + float64(float64(float32(0.46))*math.Cos(x*math.Pi)))
	}
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}

// weightBits is the precision of integer weights: 8 bits are the pixel's, 2 are room for weights outside [0, 1].
const weightBits = 32 - 8 - 2

// axis holds what one pass needs: output i is the sum over k < count of weight[i·size+k] · in[first+k].
type axis struct {
	size    int // weights kept for each output
	bounds  []bound
	weights []int32

	filter             Filter
	lo, scale, support float64   // in source pixels
	real               []float64 // of one output
}

type bound struct{ first, count int }

// fill computes the weights that map the part [lo, hi) of an axis of in pixels to out pixels (Pillow's
// precompute_coeffs and normalize_coeffs_8bpc).
func (a *axis) fill(in int, lo, hi float32, out int, f Filter) {
	a.begin(lo, hi, out, f)
	a.bounds = slices.Grow(a.bounds[:0], out)[:out]
	a.weights = slices.Grow(a.weights[:0], out*a.size)[:out*a.size]
	bits := weightBits
	if f.torch() {
		bits = a.torchBits(in, out)
	}
	for i := range out {
		a.bounds[i] = a.window(i, in)
		for k, w := range a.real[:a.bounds[i].count] {
			a.weights[i*a.size+k] = int32(math.Copysign(0.5, w)+w*float64(int(1)<<bits)) << (weightBits - bits) // exact product; truncation rounds half away
		}
	}
}

// torchBits is the precision of PyTorch's weights: the most at which all of an axis fit 16 bits with their sign
// (UpSampleKernel.cpp, compute_index_ranges_int16_weights).
func (a *axis) torchBits(in, out int) int {
	most := 0.0
	for i := range out {
		for _, w := range a.real[:a.window(i, in).count] {
			most = max(most, w)
		}
	}
	bits := 0
	for bits < weightBits && int(0.5+most*float64(int(2)<<bits)) < 1<<15 {
		bits++
	}
	return bits
}

// begin prepares for window.
func (a *axis) begin(lo, hi float32, out int, f Filter) {
	a.filter, a.lo = f, float64(lo)
	a.scale = float64(hi-lo) / float64(out)
	a.support = f.support() * max(a.scale, 1)
	a.size = int(math.Ceil(a.support))*2 + 1
	a.real = slices.Grow(a.real[:0], a.size)[:a.size]
}

// window writes the weights of output i, whose sum is 1, to the first of a.real, and returns what they are for.
func (a *axis) window(i, in int) bound {
	centre := a.lo + float64((float64(i)+0.5)*a.scale)
	first := max(int(centre-a.support+0.5), 0)
	count := min(int(centre+a.support+0.5), in) - first
	sum := 0.0
	for k := range count {
		w := a.filter.at((float64(k+first) - centre + 0.5) * (1 / max(a.scale, 1)))
		a.real[k] = w
		sum += w
	}
	if sum != 0 {
		for k := range count {
			a.real[k] /= sum
		}
	}
	return bound{first, count}
}

// Resize makes dst the picture src at w×h pixels, bit-equal to Pillow's Image.resize. dst must not be src. A result of no
// pixels or of more than DefaultMaxPixels gives an error that wraps ErrBadPicture.
func Resize(dst, src *Image, w, h int, f Filter, sc *Scratch) error {
	if err := resample(dst, src, w, h, f, whole(src), sc); err != nil {
		return fmt.Errorf("transform: resize: %w", err)
	}
	return nil
}

// whole is the box that resample takes for all of im.
func whole(im *Image) [4]float32 { return [4]float32{0, 0, float32(im.W), float32(im.H)} }

// resample resizes the part of src inside box = left, top, right, bottom, in pixels that may be fractions, as Pillow's
// Image.resize(size, filter, box) does.
func resample(dst, src *Image, w, h int, f Filter, box [4]float32, sc *Scratch) error {
	if err := src.check(); err != nil {
		return err
	}
	if int(f) >= len(filterNames) {
		return fmt.Errorf("filter %d is none of %s", f, list(filterNames))
	}
	if err := checkResize(src.W, src.H, w, h); err != nil {
		return err
	}
	left, top, right, bottom := box[0], box[1], box[2], box[3]
	if !(0 <= left && left < right && right <= float32(src.W) && 0 <= top && top < bottom && bottom <= float32(src.H)) {
		return fmt.Errorf("box %v of a picture of %d×%d pixels", box, src.W, src.H)
	}
	across := w != src.W || left != 0 || right != float32(src.W)
	down := h != src.H || top != 0 || bottom != float32(src.H)
	if f == Nearest {
		resizeNearest(dst, src, w, h, box, sc)
		return nil
	}
	switch {
	case !across && !down:
		dst.copyFrom(src)
		return nil
	case !down:
		sc.across.fill(src.W, left, right, w, f)
		resizeAcross(dst, src, w, 0, src.H, &sc.across, sc)
		return nil
	}
	sc.down.fill(src.H, top, bottom, h, f)
	if !across {
		resizeDown(dst, src, h, 0, &sc.down, sc)
		return nil
	}
	// What lies between the passes has 8 bits, so that their order shows.
	sc.across.fill(src.W, left, right, w, f)
	if !f.torch() && downFirst(src.W, src.H, w, h) {
		resizeDown(&sc.between, src, h, 0, &sc.down, sc)
		resizeAcross(dst, &sc.between, w, 0, h, &sc.across, sc)
		return nil
	}
	// Only the rows that the second pass reads are made.
	first, last := sc.down.bounds[0].first, sc.down.bounds[h-1]
	resizeAcross(&sc.between, src, w, first, last.first+last.count, &sc.across, sc)
	resizeDown(dst, &sc.between, h, first, &sc.down, sc)
	return nil
}

// downFirst reports whether Pillow resizes the columns first: since version 13 it does so where the height shrinks by more
// than twice as many pixels as the width (pull request 9549). Before, rows always came first.
func downFirst(w, h, toW, toH int) bool { return toH < h && h-toH > 2*(w-toW) }

func checkResize(w, h, toW, toH int) error {
	if toW <= 0 || toH <= 0 || toW > DefaultMaxPixels/toH {
		return fmt.Errorf("%w: %d×%d pixels cannot become %d×%d", ErrBadPicture, w, h, toW, toH)
	}
	return nil
}

// half is what rounds a sum of weighted levels.
const half = 1 << (weightBits - 1)

// resizeAcross resizes the rows [y0, y1) of src to width w. It takes two rows at once, in the halves of 64-bit numbers: a
// product with a signed weight, and a sum, carry from the lower half into the upper one only what apart takes back.
func resizeAcross(dst, src *Image, w, y0, y1 int, a *axis, sc *Scratch) {
	dst.resize(w, y1-y0)
	sc.pair = slices.Grow(sc.pair[:0], 3*src.W)[:3*src.W]
	for y := acrossVector(dst, src, y0, a, sc); y < dst.H; y += 2 {
		next := min(y+1, dst.H-1) // an odd last row is paired with itself
		in0, in1 := src.row(y0 + y)[:len(sc.pair)], src.row(y0 + next)[:len(sc.pair)]
		for i := range sc.pair {
			sc.pair[i] = int64(in0[i]) | int64(in1[i])<<32
		}
		out0, out1 := dst.row(y), dst.row(next)
		for x, b := range a.bounds {
			red, green, blue := weighted(sc.pair[3*b.first:3*(b.first+b.count)], a.weights[x*a.size:][:b.count])
			o0, o1 := out0[3*x:3*x+3:3*x+3], out1[3*x:3*x+3:3*x+3]
			o0[0], o1[0] = apart(red)
			o0[1], o1[1] = apart(green)
			o0[2], o1[2] = apart(blue)
		}
	}
}

// weighted returns the sums of three interleaved channels. It stands alone to have the registers for itself.
//
//go:noinline
func weighted(p []int64, weights []int32) (red, green, blue int64) {
	red, green, blue = half|half<<32, half|half<<32, half|half<<32
	i := 0
	for _, w := range weights {
		q := p[i : i+3 : i+3]
		red += int64(w) * q[0]
		green += int64(w) * q[1]
		blue += int64(w) * q[2]
		i += 3
	}
	return red, green, blue
}

// apart takes the two sums of a pair to levels.
func apart(v int64) (uint8, uint8) {
	lower := int32(v)
	return clip8(lower >> weightBits), clip8(int32((v-int64(lower))>>32) >> weightBits)
}

// resizeDown resizes the columns of src, whose row 0 is row y0 of what a was made for, to height h. Four rows are added
// at a time, to pass over the sums less often.
func resizeDown(dst, src *Image, h, y0 int, a *axis, sc *Scratch) {
	dst.resize(src.W, h)
	n := 3 * src.W
	sc.sums = slices.Grow(sc.sums[:0], n)[:n]
	sums := sc.sums
	for y, b := range a.bounds {
		if downVector(dst.row(y), src, b.first-y0, a.weights[y*a.size:][:b.count]) {
			continue
		}
		for i := range sums {
			sums[i] = half
		}
		wt, r := a.weights[y*a.size:][:b.count], b.first-y0
		for ; len(wt) >= 4; wt, r = wt[4:], r+4 {
			w0, w1, w2, w3 := wt[0], wt[1], wt[2], wt[3]
			in0, in1, in2, in3 := src.row(r)[:n], src.row(r + 1)[:n], src.row(r + 2)[:n], src.row(r + 3)[:n]
			for i := range sums {
				sums[i] += w0*int32(in0[i]) + w1*int32(in1[i]) + w2*int32(in2[i]) + w3*int32(in3[i])
			}
		}
		for k, w0 := range wt {
			for i, v := range src.row(r + k)[:n] {
				sums[i] += w0 * int32(v)
			}
		}
		out := dst.row(y)[:n]
		for i, s := range sums {
			out[i] = clip8(s >> weightBits)
		}
	}
}

// resizeNearest steps through the source by adding, as Pillow's ImagingScaleAffine does, so that ties fall alike.
func resizeNearest(dst, src *Image, w, h int, box [4]float32, sc *Scratch) {
	sx, sy := float64(box[2]-box[0])/float64(w), float64(box[3]-box[1])/float64(h)
	sc.sums = slices.Grow(sc.sums[:0], w)[:w]
	at := float64(box[0]) + float64(sx*0.5)
	for x := range sc.sums {
		sc.sums[x] = int32(3 * min(int(at), src.W-1))
		at += sx
	}
	dst.resize(w, h)
	at = float64(box[1]) + float64(sy*0.5)
	for y := range h {
		in, out := src.row(min(int(at), src.H-1)), dst.row(y)
		for x, from := range sc.sums {
			copy(out[3*x:3*x+3], in[from:])
		}
		at += sy
	}
}
