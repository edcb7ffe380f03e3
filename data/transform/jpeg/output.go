package jpeg

import (
	"fmt"
	"slices"
)

// channels checks which colours the components stand for, by libjpeg's rules, and returns how many the output has.
func (d *Decoder) channels() (int, error) {
	if n := len(d.comps); n != 1 && n != 3 && n != 4 {
		return 0, fmt.Errorf("%w: %d components", ErrUnsupported, n)
	}
	return len(d.comps), nil
}

// isYCC reports whether three components are YCbCr rather than RGB, or four YCCK rather than CMYK.
func (d *Decoder) isYCC() bool {
	if len(d.comps) == 4 {
		return d.adobe >= 0 && d.adobe != 0
	}
	switch {
	case d.jfif:
		return true
	case d.adobe >= 0:
		return d.adobe != 0
	}
	return !(d.comps[0].id == 'R' && d.comps[1].id == 'G' && d.comps[2].id == 'B')
}

// margin is how far vector code may read and write past the end of a row of samples.
const margin = 32

// output upsamples the planes and converts their colours.
func (d *Decoder) output(dst []uint8, w, h int) {
	n := len(d.comps)
	stride, most := 0, 0
	for i := range d.comps {
		c := &d.comps[i]
		hx, _ := d.ratio(c)
		stride, most = max(stride, hx*c.w+2*margin), max(most, c.w)
	}
	stride = max(stride, w+2*margin)
	d.rows = slices.Grow(d.rows[:0], n*stride)[:n*stride]
	d.sums = slices.Grow(d.sums[:0], most+2*margin)[:most+2*margin]
	ycc := n > 1 && d.isYCC()
	var rows [4][]uint8
	for y := range h {
		for i := range d.comps {
			rows[i] = d.upsample(&d.comps[i], d.rows[i*stride:(i+1)*stride], y)[:w]
		}
		out := dst[y*w*n : (y+1)*w*n]
		switch {
		case n == 1:
			copy(out, rows[0])
		case n == 3 && ycc:
			convert(out, rows[0], rows[1], rows[2])
		case n == 3:
			for x := range w {
				o := out[3*x : 3*x+3 : 3*x+3]
				o[0], o[1], o[2] = rows[0][x], rows[1][x], rows[2][x]
			}
		default:
			// libjpeg's CMYK of YCCK is 255 - RGB, and Adobe's files are inverted, which Pillow takes back for all.
			for x := range w {
				o := out[4*x : 4*x+4 : 4*x+4]
				if ycc {
					o[0], o[1], o[2] = pixel(rows[0][x], rows[1][x], rows[2][x])
				} else {
					o[0], o[1], o[2] = 255-rows[0][x], 255-rows[1][x], 255-rows[2][x]
				}
				o[3] = 255 - rows[3][x]
			}
		}
	}
}

// ratio returns how many pixels a sample of c stands for.
func (d *Decoder) ratio(c *component) (h, v int) {
	return d.hMax * d.size / (c.h * c.size), d.vMax * d.size / (c.v * c.size)
}

// upsample returns the values of c for pixel row y, in buf where it has to make them. It widens as libjpeg's jdsample.c does:
// by a triangle filter of weights 3:1 along each axis that is halved. Planes narrower than three samples, pictures at 1/8,
// and other ratios are repeated instead.
func (d *Decoder) upsample(c *component, buf []uint8, y int) []uint8 {
	h, v := d.ratio(c)
	near := y / v
	in := c.plane[near*c.stride:][:c.stride]
	if h == 1 && v == 1 {
		return in
	}
	if d.size > 1 && h <= 2 && v <= 2 && (h == 1 || c.w > 2) {
		far := near
		if v == 2 { // the row above for even y, below for odd y
			far = min(max(near-1+2*(y%2), 0), c.rows-1)
		}
		other := c.plane[far*c.stride:][:c.stride]
		s := d.sums[margin-1 : margin+c.w+1]
		blend(d.sums[margin:], in, other, c.w) // with v = 1: four times the sample
		switch {
		case h == 1:
			bias := int16(1 + y%2)
			for x, p := range s[1 : 1+c.w] {
				buf[x] = uint8((p + bias) >> 2)
			}
			return buf
		case v == 2:
			s[0], s[c.w+1] = s[1], s[c.w]
			widen(buf, d.sums, c.w, 8, 7)
		default:
			s[0], s[c.w+1] = s[1], s[c.w]
			widen(buf, d.sums, c.w, 4, 8)
		}
		return buf
	}
	for x := range c.w * h {
		buf[x] = in[x/h]
	}
	return buf
}

// blendGo writes 3·near + far to the first n of s.
func blendGo(s []int16, near, far []uint8, n int) {
	s, near, far = s[:n], near[:n], far[:n]
	for x, p := range near {
		s[x] = 3*int16(p) + int16(far[x])
	}
}

// widenGo makes two values of each of n sums, which begin at sums[margin] and have one more on either side: 3 parts of the
// sum and 1 of its neighbour.
func widenGo(dst []uint8, sums []int16, n int, even, odd int16) {
	s := sums[margin-1 : margin+n+1]
	dst = dst[:2*n]
	for x := range n {
		p := 3 * s[x+1]
		dst[2*x], dst[2*x+1] = uint8((p+s[x]+even)>>4), uint8((p+s[x+2]+odd)>>4)
	}
}

// convertGo is libjpeg's YCbCr -> RGB of one row.
func convertGo(dst, luma, cb, cr []uint8) {
	cb, cr, dst = cb[:len(luma)], cr[:len(luma)], dst[:3*len(luma)]
	for x, l := range luma {
		o := dst[3*x : 3*x+3 : 3*x+3]
		o[0], o[1], o[2] = pixel(l, cb[x], cr[x])
	}
}

// pixel is YCbCr -> RGB (jdcolor.c, ITU-R BT.601 in 16-bit fixed point).
func pixel(luma, cb, cr uint8) (r, g, b uint8) {
	y, u, v := int32(luma), int32(cb)-128, int32(cr)-128
	return clip(y + (91881*v+32768)>>16), clip(y + (-22554*u-46802*v+32768)>>16), clip(y + (116130*u+32768)>>16)
}
