package transform

import (
	"math"
	"slices"
	"strconv"
)

// augments are the operations that rand_augment draws from. The value at magnitude m of 30 is lo + m/30·(hi - lo), with a
// drawn sign where signed. Those of ViLT's list (Cubuk et al. 2020 without inversion and cutout) are the default.
var augments = []struct {
	name   string
	vilt   bool
	lo, hi float64
	signed bool
	run    func(dst, src *Image, v float64, sc *Scratch)             // levels, or
	matrix func(im *Image, v float64) (m [6]float64, identical bool) // geometry: output pixel to input
}{
	{"autocontrast", true, 0, 0, false, autoContrast, nil},
	{"equalize", true, 0, 0, false, equalize, nil},
	{"rotate", true, 0, 30, true, nil, rotation}, // degrees
	{"posterize", true, 0, 4, false, posterize, nil},
	{"solarize", true, 0, 256, false, solarize, nil},
	{"solarize_add", true, 0, 110, false, solarizeAdd, nil},
	{"color", true, 0.1, 1.9, false, saturation, nil},
	{"contrast", true, 0.1, 1.9, false, contrast, nil},
	{"brightness", true, 0.1, 1.9, false, brightness, nil},
	{"sharpness", true, 0.1, 1.9, false, sharpness, nil},
	{"shear_x", true, 0, 0.3, true, nil, func(_ *Image, v float64) ([6]float64, bool) { return [6]float64{1, v, 0, 0, 1, 0}, false }},
	{"shear_y", true, 0, 0.3, true, nil, func(_ *Image, v float64) ([6]float64, bool) { return [6]float64{1, 0, 0, v, 1, 0}, false }},
	{"translate_x", true, 0, 100, true, nil, func(_ *Image, v float64) ([6]float64, bool) { return [6]float64{1, 0, v, 0, 1, 0}, false }}, // pixels
	{"translate_y", true, 0, 100, true, nil, func(_ *Image, v float64) ([6]float64, bool) { return [6]float64{1, 0, 0, 0, 1, v}, false }},
	{"invert", false, 0, 0, false, invert, nil},
	{"solarize_add_below", false, 0, 110, false, solarizeAddBelow, nil}, // timm's solarize_add
}

// randAugment is RandAugment (Cubuk et al. 2020) as ViLT runs it: n operations, each always applied.
type randAugment struct {
	n         int
	magnitude float64
	ops       []int // in augments
	filter    Filter
	fill      uint8
}

func newRandAugment(p *params, _ sides) step {
	p.chance(&always)
	var all, vilt []string
	for _, a := range augments {
		if all = append(all, a.name); a.vilt {
			vilt = append(vilt, a.name)
		}
	}
	o := &randAugment{n: p.int("n", 1, 16, 2), magnitude: p.float("magnitude", 0, 30, &nine)}
	for _, name := range p.names("ops", all, vilt) {
		o.ops = append(o.ops, slices.Index(all, name))
	}
	o.filter = Filter(slices.Index(filterNames, p.choice("filter", []string{"nearest", "bilinear", "bicubic"})))
	o.fill = uint8(p.int("fill", 0, 255, 0))
	return o
}

var nine = 9.0

func (*randAugment) extent(in extent) extent { return in }

func (o *randAugment) apply(im *Image, d draws, sc *Scratch) (*Image, error) {
	for i := range uint64(o.n) {
		k := o.ops[d.below(1+2*i, len(o.ops))]
		a := &augments[k]
		v := a.lo + float64(o.magnitude/30*(a.hi-a.lo))
		if a.signed && d.uniform(2+2*i) < 0.5 {
			v = -v
		}
		dst := sc.other(im)
		augment(dst, im, k, v, o.filter, o.fill, sc)
		im = dst
	}
	return im, nil
}

// augment runs operation k of augments with value v.
func augment(dst, src *Image, k int, v float64, f Filter, fill uint8, sc *Scratch) {
	if a := &augments[k]; a.run != nil {
		a.run(dst, src, v, sc)
	} else if m, identical := a.matrix(src, v); identical {
		dst.copyFrom(src)
	} else {
		affineTransform(dst, src, m, f, fill, sc)
	}
}

// rotation is the matrix of Pillow's Image.rotate: degrees against the clock about the centre, with its rounding to 15
// decimals.
func rotation(im *Image, degrees float64) (m [6]float64, identical bool) {
	degrees = math.Mod(degrees, 360)
	if degrees < 0 {
		degrees += 360
	}
	if degrees == 0 {
		return m, true
	}
	sin, cos := math.Sincos(-(degrees * (math.Pi / 180)))
	round := func(v float64) float64 {
		r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 15, 64), 64)
		return r
	}
	m = [6]float64{round(cos), round(sin), 0, round(-sin), round(cos), 0}
	x, y := float64(im.W)/2, float64(im.H)/2
	m[2] = float64(m[0]*-x) + float64(m[1]*-y) + x
	m[5] = float64(m[3]*-x) + float64(m[4]*-y) + y
	return m, false
}

// affineTransform is Pillow's Image.transform with AFFINE: output pixel (x, y) shows the input at (m0·x + m1·y + m2, m3·x +
// m4·y + m5), or fill where that lies outside.
func affineTransform(dst, src *Image, m [6]float64, f Filter, fill uint8, sc *Scratch) {
	dst.resize(src.W, src.H)
	for i := range dst.Pix {
		dst.Pix[i] = fill
	}
	switch {
	case f != Nearest:
		affineFiltered(dst, src, m, f)
	case m[1] == 0 && m[3] == 0:
		affineScale(dst, src, m)
	default:
		affineFixed(dst, src, m)
	}
}

// affineScale steps along both axes by adding (ImagingScaleAffine).
func affineScale(dst, src *Image, m [6]float64) {
	at := func(v float64) int {
		if v < 0 {
			return -1
		}
		return int(v)
	}
	y := m[5] + float64(m[4]*0.5)
	for row := range dst.H {
		sy := at(y)
		y += m[4]
		if sy < 0 || sy >= src.H {
			continue
		}
		in, out := src.row(sy), dst.row(row)
		x := m[2] + float64(m[0]*0.5)
		for col := range dst.W {
			if sx := at(x); sx >= 0 && sx < src.W {
				copy(out[3*col:3*col+3], in[3*sx:])
			}
			x += m[0]
		}
	}
}

// affineFixed works in 16.16 fixed point (affine_fixed), which holds for sides below 32768; wider pictures, which decoding
// refuses long before, would wrap.
func affineFixed(dst, src *Image, m [6]float64) {
	fixed := func(v float64) int { return int(math.Floor(float64(v*65536) + 0.5)) }
	dx, dy := [2]int{fixed(m[0]), fixed(m[3])}, [2]int{fixed(m[1]), fixed(m[4])}
	x0 := fixed(m[2] + float64(m[0]*0.5) + float64(m[1]*0.5))
	y0 := fixed(m[5] + float64(m[3]*0.5) + float64(m[4]*0.5))
	for row := range dst.H {
		out := dst.row(row)
		x, y := x0, y0
		for col := range dst.W {
			if sx, sy := x>>16, y>>16; sx >= 0 && sx < src.W && sy >= 0 && sy < src.H {
				copy(out[3*col:3*col+3], src.Pix[3*(sy*src.W+sx):])
			}
			x, y = x+dx[0], y+dx[1]
		}
		x0, y0 = x0+dy[0], y0+dy[1]
	}
}

// affineFiltered interpolates (Geometry.c, bilinear_filter and bicubic_filter).
func affineFiltered(dst, src *Image, m [6]float64, f Filter) {
	taps, before := 2, 0
	if f == Bicubic {
		taps, before = 4, 1
	}
	mix := func(v *[4]float64, d float64) float64 {
		if taps == 2 {
			return v[0] + float64((v[1]-v[0])*d)
		}
		p2, p3, p4 := -v[0]+v[2], 2*(v[0]-v[1])+v[2]-v[3], -v[0]+v[1]-v[2]+v[3]
		return v[1] + float64(d*(p2+float64(d*(p3+float64(d*p4)))))
	}
	for row := range dst.H {
		out := dst.row(row)
		for col := range dst.W {
			cx, cy := float64(col)+0.5, float64(row)+0.5
			x := float64(m[0]*cx) + float64(m[1]*cy) + m[2]
			y := float64(m[3]*cx) + float64(m[4]*cy) + m[5]
			if x < 0 || x >= float64(src.W) || y < 0 || y >= float64(src.H) {
				continue
			}
			x, y = x-0.5, y-0.5
			left, top := math.Floor(x), math.Floor(y)
			dx, dy := x-left, y-top
			x0, y0 := int(left)-before, int(top)-before
			for c := range 3 {
				var down [4]float64
				for j := range taps {
					// A row outside repeats the one before; the first is clipped.
					sy := y0 + j
					if j > 0 && (sy < 0 || sy >= src.H) {
						down[j] = down[j-1]
						continue
					}
					in := src.row(min(max(sy, 0), src.H-1))
					var across [4]float64
					for k := range taps {
						across[k] = float64(in[3*min(max(x0+k, 0), src.W-1)+c])
					}
					down[j] = mix(&across, dx)
				}
				out[3*col+c] = uint8(min(max(mix(&down, dy), 0), 255))
			}
		}
	}
}

// randomErasing is torchvision's RandomErasing (Zhong et al. 2020), on levels: a rectangle becomes one level or noise.
type randomErasing struct {
	scale, ratio [2]float64
	noise        bool
	fill         uint8
}

func (*randomErasing) extent(in extent) extent { return in }

// apply makes up to ten attempts; attempt a uses the draws 4a … 4a+3 after the first.
func (o *randomErasing) apply(im *Image, d draws, sc *Scratch) (*Image, error) {
	lo, hi := math.Log(o.ratio[0]), math.Log(o.ratio[1])
	for a := range uint64(10) {
		area := float64(im.W*im.H) * d.between(4*a+1, o.scale[0], o.scale[1])
		ratio := math.Exp(d.between(4*a+2, lo, hi))
		h, w := int(math.RoundToEven(math.Sqrt(area*ratio))), int(math.RoundToEven(math.Sqrt(area/ratio)))
		if h >= im.H || w >= im.W {
			continue
		}
		top, left := d.below(4*a+3, im.H-h+1), d.below(4*a+4, im.W-w+1)
		dst := sc.other(im)
		dst.copyFrom(im)
		for y := range h {
			row := dst.row(top + y)[3*left : 3*(left+w)]
			for i := range row {
				row[i] = o.fill
				if o.noise {
					row[i] = uint8(256 * d.uniform(uint64(64+y*len(row)+i)))
				}
			}
		}
		return dst, nil
	}
	return im, nil
}
