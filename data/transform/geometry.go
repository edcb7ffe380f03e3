package transform

import (
	"cmp"
	"fmt"
	"math"
)

// resizeOp resizes as open_clip's resize modes do.
type resizeOp struct {
	size   sides
	mode   string // shortest, longest, squash
	filter Filter
}

func (o *resizeOp) extent(in extent) extent {
	switch {
	case o.mode == "squash":
		return sized(o.size)
	case in.known():
		return sized(o.target(in.sides))
	}
	return extent{}
}

func (o *resizeOp) apply(im *Image, _ draws, sc *Scratch) (*Image, error) {
	to := o.target(im.sides())
	if to == im.sides() {
		return im, nil
	}
	dst := sc.other(im)
	return dst, resample(dst, im, to.w, to.h, o.filter, whole(im), sc)
}

func (o *resizeOp) target(from sides) sides {
	switch {
	case o.mode == "squash":
		return o.size
	case o.mode == "shortest" && o.size.w == o.size.h: // torchvision truncates the longer side
		if size := o.size.w; from.w <= from.h {
			return sides{size, size * from.h / from.w}
		} else {
			return sides{size * from.w / from.h, size}
		}
	}
	// open_clip's ResizeKeepRatio rounds, half to even
	across, down := float64(from.w)/float64(o.size.w), float64(from.h)/float64(o.size.h)
	ratio := max(across, down)
	if o.mode == "shortest" {
		ratio = min(across, down)
	}
	return sides{int(math.RoundToEven(float64(from.w) / ratio)), int(math.RoundToEven(float64(from.h) / ratio))}
}

// minMaxResize keeps a picture's shape nearly, as ViLT does (its MinMaxResize; transformers' ViltImageProcessor): the shorter
// side gets size pixels, but the longer one at most longest, and both are then cut down to multiples.
type minMaxResize struct {
	size, longest, multiple int
	filter                  Filter
}

func newMinMaxResize(p *params, size sides) step {
	o := &minMaxResize{size: p.int("size", 1, maxSize, size.h)}
	o.longest = p.int("longest", 1, maxSize, int(1333.0/800*float64(o.size)))
	o.multiple = p.int("multiple", 1, maxSize, cmp.Or(p.patch, 32))
	o.filter = p.filter()
	if o.multiple > min(o.size, o.longest) {
		p.fail("multiple: %d is more than size, %d, or longest, %d", o.multiple, o.size, o.longest)
	}
	return o
}

func (o *minMaxResize) extent(extent) extent {
	floor := func(n int) int { return n / o.multiple * o.multiple }
	return extent{multiple: o.multiple, pixels: floor(min(o.size, o.longest)) * floor(max(o.size, o.longest))}
}

func (o *minMaxResize) apply(im *Image, _ draws, sc *Scratch) (*Image, error) {
	to := o.target(im.sides())
	if to == im.sides() {
		return im, nil
	}
	if to.w == 0 || to.h == 0 {
		return nil, fmt.Errorf("%w: %d×%d pixels: too narrow for a longer side of %d and sides that are multiples of %d", ErrBadPicture, im.W, im.H, o.longest, o.multiple)
	}
	dst := sc.other(im)
	return dst, resample(dst, im, to.w, to.h, o.filter, whole(im), sc)
}

// target follows the reference's floating-point operations, which decide on which side of a multiple a picture falls.
func (o *minMaxResize) target(from sides) sides {
	scale := float64(o.size) / float64(min(from.w, from.h))
	width, height := float64(o.size), float64(o.size)
	if from.h < from.w {
		width = scale * float64(from.w)
	} else {
		height = scale * float64(from.h)
	}
	if longer := max(width, height); longer > float64(o.longest) {
		scale = float64(o.longest) / longer
		width, height = width*scale, height*scale
	}
	whole := func(v float64) int { return int(v+0.5) / o.multiple * o.multiple }
	return sides{whole(width), whole(height)}
}

// centerCrop takes the middle, as torchvision does: padding where the picture is smaller, offsets rounded half to even.
type centerCrop struct {
	size sides
	fill uint8
	down bool // offsets are rounded down instead
}

func (o *centerCrop) extent(extent) extent { return sized(o.size) }

func (o *centerCrop) apply(im *Image, _ draws, sc *Scratch) (*Image, error) {
	if im.sides() == o.size {
		return im, nil
	}
	dst := sc.other(im)
	dst.resize(o.size.w, o.size.h)
	if im.W < o.size.w || im.H < o.size.h {
		for i := range dst.Pix {
			dst.Pix[i] = o.fill
		}
	}
	left, padLeft := o.offset(im.W, o.size.w)
	top, padTop := o.offset(im.H, o.size.h)
	w, h := min(im.W, o.size.w), min(im.H, o.size.h)
	for y := range h {
		copy(dst.row(padTop + y)[3*padLeft:], im.row(top + y)[3*left:3*(left+w)])
	}
	return dst, nil
}

// offset returns where a crop to size begins in n pixels, and how many pixels of padding go before them: one of the two is 0.
func (o *centerCrop) offset(n, size int) (crop, pad int) {
	if n < size {
		return 0, (size - n) / 2
	}
	if o.down {
		return (n - size) / 2, 0
	}
	return int(math.RoundToEven(float64(n-size) / 2)), 0
}

// randomResizedCrop is torchvision's RandomResizedCrop: a part of random area and aspect ratio, resized.
type randomResizedCrop struct {
	size         sides
	scale, ratio [2]float64
	filter       Filter
}

func (o *randomResizedCrop) extent(extent) extent { return sized(o.size) }

func (o *randomResizedCrop) apply(im *Image, d draws, sc *Scratch) (*Image, error) {
	x, y, w, h := o.part(im.W, im.H, d)
	return cropResize(im, x, y, w, h, o.size, o.filter, sc)
}

// cropResize cuts out a part and resizes it. The cut comes first: no pixel from outside enters the result.
func cropResize(im *Image, x, y, w, h int, size sides, f Filter, sc *Scratch) (*Image, error) {
	if w != im.W || h != im.H {
		dst := sc.other(im)
		dst.resize(w, h)
		for i := range h {
			copy(dst.row(i), im.row(y + i)[3*x:3*(x+w)])
		}
		im = dst
	}
	if im.sides() == size {
		return im, nil
	}
	dst := sc.other(im)
	return dst, resample(dst, im, size.w, size.h, f, whole(im), sc)
}

// part draws the crop: ten attempts, then the largest one in the middle whose ratio is allowed. Attempt a uses the draws
// 4a … 4a+3 after the first.
func (o *randomResizedCrop) part(w, h int, d draws) (x, y, cw, ch int) {
	area := float64(w) * float64(h)
	lo, hi := math.Log(o.ratio[0]), math.Log(o.ratio[1])
	for a := range uint64(10) {
		target := area * d.between(4*a+1, o.scale[0], o.scale[1])
		ratio := math.Exp(d.between(4*a+2, lo, hi))
		cw = int(math.RoundToEven(math.Sqrt(target * ratio)))
		ch = int(math.RoundToEven(math.Sqrt(target / ratio)))
		if 0 < cw && cw <= w && 0 < ch && ch <= h {
			return d.below(4*a+3, w-cw+1), d.below(4*a+4, h-ch+1), cw, ch
		}
	}
	cw, ch = w, h
	switch ratio := float64(w) / float64(h); {
	case ratio < o.ratio[0]:
		ch = min(max(int(math.RoundToEven(float64(w)/o.ratio[0])), 1), h)
	case ratio > o.ratio[1]:
		cw = min(max(int(math.RoundToEven(float64(h)*o.ratio[1])), 1), w)
	}
	return (w - cw) / 2, (h - ch) / 2, cw, ch
}

// flip mirrors left and right.
type flip struct{}

func (flip) extent(in extent) extent { return in }

func (flip) apply(im *Image, _ draws, sc *Scratch) (*Image, error) {
	dst := sc.other(im)
	dst.resize(im.W, im.H)
	for y := range im.H {
		in, out := im.row(y), dst.row(y)
		for l, r := 0, len(in)-3; r >= 0; l, r = l+3, r-3 {
			o, i := out[l:l+3:l+3], in[r:r+3:r+3]
			o[0], o[1], o[2] = i[0], i[1], i[2]
		}
	}
	return dst, nil
}

// affine turns, scales and shifts a picture about its centre: the output pixel at p, measured from the centre, shows the
// input at s·R(φ)·p + t. Its grid is that of PyTorch's affine_grid and grid_sample for square pictures (bilinear,
// align_corners=False, padding_mode="border"), in fixed point: coordinates have 16 fractional bits, weights 13.
type affine struct {
	rotate float64    // degrees: φ is uniform in [-rotate, rotate]
	scale  [2]float64 // s is uniform in it: the part of the picture's side that is shown
	shift  float64    // t is uniform in [-shift, shift] of the width and of the height
}

func (*affine) extent(in extent) extent { return in }

func (o *affine) apply(im *Image, d draws, sc *Scratch) (*Image, error) {
	sin, cos := math.Sincos(d.between(1, -o.rotate, o.rotate) * (math.Pi / 180))
	s := d.between(2, o.scale[0], o.scale[1])
	tx := d.between(3, -o.shift, o.shift) * float64(im.W)
	ty := d.between(4, -o.shift, o.shift) * float64(im.H)
	if im.W > maxAffineSide || im.H > maxAffineSide {
		return nil, fmt.Errorf("%w: %d×%d pixels, more than the %d of a side that fit; resize first", ErrBadPicture, im.W, im.H, maxAffineSide)
	}
	dst := sc.other(im)
	warp(dst, im, s*cos, s*sin, tx, ty, sc)
	return dst, nil
}

const (
	one           = 1 << 16 // one pixel in the fixed point of warp
	maxAffineSide = 1 << 14
	laneBits      = 21 // three channels lie side by side in 64 bits
	laneMask      = 1<<laneBits - 1
	warpBits      = 13 // 8 bits of level and 13 of weight just fill a lane
	lanes         = 1 | 1<<laneBits | 1<<(2*laneBits)
)

// warp fills dst with src sampled at (c·x − s·y + tx, s·x + c·y + ty), both ends measured from the centre.
func warp(dst, src *Image, c, s, tx, ty float64, sc *Scratch) {
	dst.resize(src.W, src.H)
	spread := sc.spreadOut(src)
	// The centre of pixel x is x + 1/2 in coordinates whose origin is the picture's corner.
	midX, midY := float64(src.W)/2, float64(src.H)/2
	fixed := func(v float64) int { return int(math.Round(v * one)) }
	dx, dy := fixed(c), fixed(s)
	x0 := fixed(float64(c*(0.5-midX)) - float64(s*(0.5-midY)) + (midX + tx - 0.5))
	y0 := fixed(float64(s*(0.5-midX)) + float64(c*(0.5-midY)) + (midY + ty - 0.5))
	limX, limY, w := (src.W-1)*one, (src.H-1)*one, src.W
	for y := range dst.H {
		out := dst.row(y)
		sx, sy := x0-y*dy, y0+y*dx
		for ; len(out) >= 3; out = out[3:] {
			// Outside, the border repeats: clamping the coordinate is the same.
			px, py := min(max(sx, 0), limX), min(max(sy, 0), limY)
			sx, sy = sx+dx, sy+dy
			fx, fy := uint64(px>>8)&0xff, uint64(py>>8)&0xff
			at := py>>16*w + px>>16
			// The row below and the column to the right of the last one are padding that is never given a weight.
			a, b := spread[at:at+2:at+2], spread[at+w:at+w+2:at+w+2]
			w11 := (fx*fy + 4) >> 3
			w10, w01 := fy<<5-w11, fx<<5-w11
			w00 := 1<<warpBits - fx<<5 - w10
			v := a[0]*w00 + a[1]*w01 + b[0]*w10 + b[1]*w11 + lanes<<(warpBits-1)
			out[0], out[1], out[2] = uint8(v>>warpBits), uint8(v>>(warpBits+laneBits)), uint8(v>>(warpBits+2*laneBits))
		}
	}
}
