package transform

import "math"

// grey replaces the three channels by one level.
type grey struct{ mean bool }

func (grey) extent(in extent) extent { return in }

func (o grey) apply(im *Image, _ draws, sc *Scratch) (*Image, error) {
	dst := sc.other(im)
	o.run(dst, im)
	return dst, nil
}

func (o grey) run(dst, im *Image) {
	dst.resize(im.W, im.H)
	out := dst.Pix[:len(im.Pix)]
	for i := 0; i+3 <= len(im.Pix); i += 3 {
		p, o3 := im.Pix[i:i+3:i+3], out[i:i+3:i+3]
		var v uint8
		if o.mean {
			v = uint8((uint32(p[0]) + uint32(p[1]) + uint32(p[2]) + 1) / 3) // rounded
		} else {
			v = luma(p[0], p[1], p[2])
		}
		o3[0], o3[1], o3[2] = v, v, v
	}
}

// blank makes a picture an even grey.
type blank struct{}

func (blank) extent(in extent) extent { return in }

func (blank) apply(im *Image, _ draws, sc *Scratch) (*Image, error) {
	dst := sc.other(im)
	dst.resize(im.W, im.H)
	for i := range dst.Pix {
		dst.Pix[i] = 128
	}
	return dst, nil
}

// luma is the grey of ITU-R 601-2, as Pillow and torchvision compute it.
func luma(r, g, b uint8) uint8 {
	return uint8((19595*uint32(r) + 38470*uint32(g) + 7471*uint32(b) + 1<<15) >> 16)
}

// colorGain stretches and shifts each channel: a level x in [-1, 1] becomes x·(1+u) + v, clamped, with one uniform u in
// [-gain, gain] and v in [-offset, offset] for each channel.
type colorGain struct{ gain, offset float64 }

func (colorGain) extent(in extent) extent { return in }

func (o colorGain) apply(im *Image, d draws, sc *Scratch) (*Image, error) {
	var tables [3][256]uint8
	for c := range tables {
		u := d.between(uint64(1+c), -o.gain, o.gain)
		v := d.between(uint64(4+c), -o.offset, o.offset)
		for i := range tables[c] {
			// 127.5·(x·(1+u) + v + 1) with x = i/127.5 - 1
			y := float64((float64(i)-127.5)*(1+u)) + float64(v*127.5) + 127.5
			tables[c][i] = uint8(math.Round(min(max(y, 0), 255)))
		}
	}
	dst := sc.other(im)
	lookUp(dst, im, &tables)
	return dst, nil
}
