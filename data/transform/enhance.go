package transform

import "math"

// mixed is Pillow's Image.blend of two levels: a·(1-f) + b·f in single precision, truncated.
func mixed(a, b uint8, f float32) uint8 {
	x := float32(a) + float32(f*float32(int(b)-int(a)))
	return uint8(min(max(x, 0), 255))
}

// mixWith writes to dst the blend of base and src (ImageEnhance): f = 0 gives base, 1 gives src, more goes beyond.
func mixWith(dst, base, src *Image, f float32) {
	dst.resize(src.W, src.H)
	for i, v := range src.Pix {
		dst.Pix[i] = mixed(base.Pix[i], v, f)
	}
}

// mixLevel is mixWith for a base of one level.
func mixLevel(dst, src *Image, level uint8, f float32) {
	var tables [3][256]uint8
	for i := range tables[0] {
		tables[0][i] = mixed(level, uint8(i), f)
	}
	tables[1], tables[2] = tables[0], tables[0]
	lookUp(dst, src, &tables)
}

func brightness(dst, src *Image, f float64, _ *Scratch) { mixLevel(dst, src, 0, float32(f)) }

// contrast mixes with the mean grey, rounded.
func contrast(dst, src *Image, f float64, _ *Scratch) {
	sum := 0
	for i := 0; i+3 <= len(src.Pix); i += 3 {
		sum += int(luma(src.Pix[i], src.Pix[i+1], src.Pix[i+2]))
	}
	mixLevel(dst, src, uint8(float64(sum)/float64(src.W*src.H)+0.5), float32(f))
}

// saturation is ImageEnhance.Color.
func saturation(dst, src *Image, f float64, sc *Scratch) {
	grey{}.run(&sc.aside, src)
	mixWith(dst, &sc.aside, src, float32(f))
}

func sharpness(dst, src *Image, f float64, sc *Scratch) {
	smooth(&sc.aside, src)
	mixWith(dst, &sc.aside, src, float32(f))
}

// smooth is ImageFilter.SMOOTH: weights 5 for the pixel and 1 for its neighbours, of 13, in single precision and in the order
// of Pillow's ImagingFilter3x3. The border stays.
func smooth(dst, src *Image) {
	dst.copyFrom(src)
	const one, five = float32(1) / 13, float32(5) / 13
	for y := 1; y < src.H-1; y++ {
		above, at, below, out := src.row(y-1), src.row(y), src.row(y+1), dst.row(y)
		for i := 3; i < len(at)-3; i++ {
			row := func(p []uint8, middle float32) float32 {
				return float32(float32(float32(p[i-3])*one)+float32(float32(p[i])*middle)) + float32(float32(p[i+3])*one)
			}
			sum := float32(0.5) + row(below, one)
			sum += row(at, five)
			sum += row(above, one)
			out[i] = clip8(int32(sum))
		}
	}
}

// shiftHue is torchvision's adjust_hue on Pillow's HSV: shift is a share of the circle in [-0.5, 0.5].
func shiftHue(dst, src *Image, shift float64, _ *Scratch) {
	dst.resize(src.W, src.H)
	by := uint8(int(shift * 255))
	for i := 0; i+3 <= len(src.Pix); i += 3 {
		h, s, v := toHSV(src.Pix[i], src.Pix[i+1], src.Pix[i+2])
		dst.Pix[i], dst.Pix[i+1], dst.Pix[i+2] = fromHSV(h+by, s, v)
	}
}

// toHSV is Pillow's rgb2hsv_row, with its single and double precision.
func toHSV(r, g, b uint8) (h, s, v uint8) {
	v = max(r, g, b)
	least := min(r, g, b)
	if v == least {
		return 0, 0, v
	}
	span := float32(v - least)
	rc, gc, bc := float32(v-r)/span, float32(v-g)/span, float32(v-b)/span
	var hue float32
	switch v {
	case r:
		hue = bc - gc
	case g:
		hue = float32(2 + float64(rc) - float64(bc))
	default:
		hue = float32(4 + float64(gc) - float64(rc))
	}
	hue = float32(math.Mod(float64(hue)/6+1, 1))
	return clip8(int32(float64(hue) * 255)), clip8(int32(float64(span/float32(v)) * 255)), v
}

// fromHSV is Pillow's hsv2rgb_row.
func fromHSV(h, s, v uint8) (r, g, b uint8) {
	if s == 0 {
		return v, v, v
	}
	at := float64(h) * 6 / 255
	sector := math.Floor(at)
	f, fs := float64(float32(at-sector)), float64(float32(float64(s)/255))
	level := func(share float64) uint8 { return clip8(int32(math.Round(float64(v) * share))) }
	p, q, t := level(1-fs), level(1-float64(fs*f)), level(1-float64(fs*(1-f)))
	switch int(sector) % 6 {
	case 0:
		return v, t, p
	case 1:
		return q, v, p
	case 2:
		return p, v, t
	case 3:
		return p, q, v
	case 4:
		return t, p, v
	default:
		return v, p, q
	}
}

// histograms counts the levels of each channel.
func histograms(src *Image) (h [3][256]int) {
	for i, v := range src.Pix {
		h[i%3][v]++
	}
	return h
}

// autoContrast is ImageOps.autocontrast: each channel is stretched to the full range.
func autoContrast(dst, src *Image, _ float64, _ *Scratch) {
	var tables [3][256]uint8
	for c, h := range histograms(src) {
		lo, hi := 0, 255
		for lo < 255 && h[lo] == 0 {
			lo++
		}
		for hi > 0 && h[hi] == 0 {
			hi--
		}
		for i := range tables[c] {
			tables[c][i] = uint8(i)
			if hi > lo {
				scale := 255 / float64(hi-lo)
				offset := -float64(float64(lo) * scale)
				tables[c][i] = clip8(int32(float64(float64(i)*scale) + offset))
			}
		}
	}
	lookUp(dst, src, &tables)
}

// equalize is ImageOps.equalize.
func equalize(dst, src *Image, _ float64, _ *Scratch) {
	var tables [3][256]uint8
	for c, h := range histograms(src) {
		total, last, levels := 0, 0, 0
		for _, n := range h {
			if n > 0 {
				total, last, levels = total+n, n, levels+1
			}
		}
		step := (total - last) / 255
		n := step / 2
		for i := range tables[c] {
			tables[c][i] = uint8(i)
			if levels > 1 && step > 0 {
				tables[c][i] = uint8(min(n/step, 255))
				n += h[i]
			}
		}
	}
	lookUp(dst, src, &tables)
}

// eachLevel applies f to every level.
func eachLevel(dst, src *Image, f func(level int) int) {
	var tables [3][256]uint8
	for i := range tables[0] {
		tables[0][i] = clip8(int32(f(i)))
	}
	tables[1], tables[2] = tables[0], tables[0]
	lookUp(dst, src, &tables)
}

func invert(dst, src *Image, _ float64, _ *Scratch) {
	eachLevel(dst, src, func(i int) int { return 255 - i })
}

// posterize keeps the upper bits, at least one (ViLT's max(1, int)).
func posterize(dst, src *Image, bits float64, _ *Scratch) {
	mask := -1 << (8 - max(1, min(int(bits), 8)))
	eachLevel(dst, src, func(i int) int { return i & mask })
}

// solarize inverts the levels from a threshold on.
func solarize(dst, src *Image, threshold float64, _ *Scratch) {
	eachLevel(dst, src, func(i int) int {
		if float64(i) < threshold {
			return i
		}
		return 255 - i
	})
}

// solarizeAdd is ViLT's: it adds to all levels, clips, and inverts those from 128 on.
func solarizeAdd(dst, src *Image, add float64, _ *Scratch) {
	eachLevel(dst, src, func(i int) int {
		if i = min(i+int(add), 255); i < 128 {
			return i
		}
		return 255 - i
	})
}

// solarizeAddBelow is timm's: it adds to the levels below 128.
func solarizeAddBelow(dst, src *Image, add float64, _ *Scratch) {
	eachLevel(dst, src, func(i int) int {
		if i < 128 {
			return min(i+int(add), 255)
		}
		return i
	})
}

// colorJitter is torchvision's ColorJitter: brightness, contrast, saturation by factors in [1-x, 1+x], and hue by a shift in
// [-hue, hue], in an order that is drawn.
type colorJitter struct {
	factors [3]float64
	hue     float64
}

func (*colorJitter) extent(in extent) extent { return in }

func (o *colorJitter) apply(im *Image, d draws, sc *Scratch) (*Image, error) {
	order := [4]int{0, 1, 2, 3}
	for i := 3; i > 0; i-- { // Fisher and Yates
		k := d.below(uint64(4+i), i+1)
		order[i], order[k] = order[k], order[i]
	}
	run := [3]func(dst, src *Image, f float64, sc *Scratch){brightness, contrast, saturation}
	for _, i := range order {
		dst := sc.other(im)
		switch {
		case i == 3 && o.hue > 0:
			shiftHue(dst, im, d.between(4, -o.hue, o.hue), sc)
		case i < 3 && o.factors[i] > 0:
			run[i](dst, im, d.between(uint64(1+i), max(0, 1-o.factors[i]), 1+o.factors[i]), sc)
		default:
			continue
		}
		im = dst
	}
	return im, nil
}
