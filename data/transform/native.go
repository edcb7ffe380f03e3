package transform

import "slices"

// kind is what the samples of a native picture stand for.
type kind uint8

const (
	grey8  kind = iota // one byte for each pixel
	grey16             // two bytes, the high one first
	rgb
	rgba // not premultiplied; a grey picture with alpha is one too
	cmyk // 255 is full ink
)

func (k kind) bytes() int { return [...]int{1, 2, 3, 4, 4}[k] }

// native is a picture in its file's own mode.
type native struct {
	w, h int
	kind kind
	pix  []uint8 // rows without gaps
	// indexed pictures, of a palette or of two levels, are resized by nearest neighbour, whatever the filter. keyed ones have
	// no alpha but one transparent colour.
	indexed, keyed bool
}

func (n *native) size(w, h int, k kind) {
	total := w * h * k.bytes()
	n.w, n.h, n.kind, n.pix = w, h, k, slices.Grow(n.pix[:0], total)[:total]
	n.indexed, n.keyed = false, false
}

// toRGB is Pillow's convert("RGB").
func (n *native) toRGB(dst *Image) {
	dst.resize(n.w, n.h)
	out := dst.Pix
	switch n.kind {
	case grey8:
		for i, v := range n.pix {
			o := out[3*i : 3*i+3 : 3*i+3]
			o[0], o[1], o[2] = v, v, v
		}
	case grey16:
		for i := 0; 2*i < len(n.pix); i++ {
			v := n.pix[2*i+1]
			if n.pix[2*i] > 0 {
				v = 255
			}
			o := out[3*i : 3*i+3 : 3*i+3]
			o[0], o[1], o[2] = v, v, v
		}
	case rgb:
		copy(out, n.pix)
	case rgba:
		for i := 0; 4*i < len(n.pix); i++ {
			copy(out[3*i:3*i+3], n.pix[4*i:4*i+3])
		}
	case cmyk:
		for i := 0; 4*i < len(n.pix); i++ {
			p, o := n.pix[4*i:4*i+4:4*i+4], out[3*i:3*i+3:3*i+3]
			k := 255 - uint32(p[3])
			for c := range o {
				o[c] = uint8(max(int32(k)-int32(byte255(uint32(p[c])*k)), 0))
			}
		}
	}
}

// byte255 is v/255, rounded, for v up to 255².
func byte255(v uint32) uint32 {
	v += 128
	return (v>>8 + v) >> 8
}

// onWhite lays the picture on white, as Pillow's Image.alpha_composite does, which transformers 5 calls.
func (n *native) onWhite() {
	if n.kind != rgba {
		return
	}
	const precision = 7
	for i := 0; i < len(n.pix); i += 4 {
		p := n.pix[i : i+4 : i+4]
		share := uint32(p[3]) << precision // of 255 << precision: the background is opaque
		for c, v := range p[:3] {
			t := uint32(v)*share + 255*(255<<precision-share) + 128<<precision
			p[c] = uint8((t>>8 + t) >> 8 >> precision)
		}
		p[3] = 255
	}
}

// turn writes to dst the picture as an EXIF orientation of 2 to 8 says that it is to be seen (Pillow's exif_transpose).
func (n *native) turn(dst *native, orientation int) {
	w, h := n.w, n.h
	if orientation >= 5 {
		w, h = h, w
	}
	dst.size(w, h, n.kind)
	dst.indexed, dst.keyed = n.indexed, n.keyed
	size := n.kind.bytes()
	for y := range h {
		for x := range w {
			sx, sy := x, y
			if orientation >= 5 {
				sx, sy = y, x
			}
			switch orientation {
			case 2, 8:
				sx = n.w - 1 - sx
			case 3, 7:
				sx, sy = n.w-1-sx, n.h-1-sy
			case 4, 6:
				sy = n.h - 1 - sy
			}
			copy(dst.pix[size*(y*w+x):][:size], n.pix[size*(sy*n.w+sx):][:size])
		}
	}
}

// resize runs o before the conversion to RGB, as Pillow's Image.resize does in each mode: indexed pictures by nearest
// neighbour, transparent ones with premultiplied alpha.
func (n *native) resize(dst *Image, o *resizeOp, d *decoder, sc *Scratch) error {
	from := sides{n.w, n.h}
	to := o.target(from)
	if to == from {
		n.toRGB(dst)
		return nil
	}
	return n.resizeTo(dst, to.w, to.h, o.filter, d, sc)
}

// resizeTo leaves what it makes of pictures with four channels or 16 bits in d.turned too.
func (n *native) resizeTo(dst *Image, w, h int, filter Filter, d *decoder, sc *Scratch) error {
	if n.indexed {
		filter = Nearest
	}
	in, out := &d.parts[0], &d.parts[1]
	four := n.kind == cmyk || n.kind == rgba && !n.keyed && filter != Nearest
	switch {
	case n.kind == grey16 && filter != Nearest:
		if err := checkResize(n.w, n.h, w, h); err != nil {
			return err
		}
		d.turned.size(w, h, grey16)
		resize16(&d.turned, n, filter, sc)
		d.turned.toRGB(dst)
		return nil
	case !four:
		n.toRGB(in)
		return resample(dst, in, w, h, filter, whole(in), sc)
	}
	last, lastOut := &d.parts[2], &d.parts[3] // the fourth channel, three times
	in.resize(n.w, n.h)
	last.resize(n.w, n.h)
	for i := 0; 4*i < len(n.pix); i++ {
		p, o, a := n.pix[4*i:4*i+4:4*i+4], in.Pix[3*i:3*i+3:3*i+3], last.Pix[3*i:3*i+3:3*i+3]
		for c := range o {
			o[c], a[c] = p[c], p[3]
			if n.kind == rgba {
				o[c] = uint8(byte255(uint32(p[c]) * uint32(p[3])))
			}
		}
	}
	if err := resample(out, in, w, h, filter, whole(in), sc); err != nil {
		return err
	}
	if err := resample(lastOut, last, w, h, filter, whole(last), sc); err != nil {
		return err
	}
	kind := n.kind
	d.turned.size(w, h, kind)
	for i := range w * h {
		p, o, a := d.turned.pix[4*i:4*i+4:4*i+4], out.Pix[3*i:3*i+3:3*i+3], lastOut.Pix[3*i]
		for c := range o {
			p[c] = o[c]
			if kind == rgba && a != 0 && a != 255 {
				p[c] = uint8(min(255*uint32(o[c])/uint32(a), 255))
			}
		}
		p[3] = a
	}
	d.turned.toRGB(dst)
	return nil
}
