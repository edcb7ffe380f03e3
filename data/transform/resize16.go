package transform

import "math"

// resize16 resizes a 16-bit grey picture to the size of dst as Pillow does (ImagingResampleHorizontal_16bpc): weights are not
// rounded, sums are, between the passes too.
func resize16(dst, src *native, f Filter, sc *Scratch) {
	across, down := dst.w != src.w, dst.h != src.h
	in := src
	if across {
		out := dst
		if down {
			out = &native{}
			out.size(dst.w, src.h, grey16)
		}
		pass16(out, in, dst.w, src.h, src.w, 1, src.w, dst.w, f, sc)
		in = out
	}
	if down {
		pass16(dst, in, dst.h, dst.w, in.h, dst.w, 1, 1, f, sc)
	}
}

// pass16 makes n values of each of lines lines of in values. step leads from one value to the next, line and outLine from one
// line to the next, in values.
func pass16(dst, src *native, n, lines, in, step, line, outLine int, f Filter, sc *Scratch) {
	a := &sc.across
	a.begin(0, float32(in), n, f)
	for i := range n {
		b := a.window(i, in)
		weights := a.real[:b.count]
		for l := range lines {
			sum := 0.0
			for k, w := range weights {
				p := src.pix[2*(l*line+(b.first+k)*step):]
				sum += float64(float64(int(p[0])<<8|int(p[1])) * w)
			}
			v := int(math.Copysign(math.Floor(math.Abs(sum)+0.5), sum))
			p := dst.pix[2*(l*outLine+i*step):]
			p[0], p[1] = clip8(int32(v>>8)), clip8(int32(v%256))
		}
	}
}
