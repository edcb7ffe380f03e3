package transform

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"io"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// reader reads one format with a decoder of others.
type reader struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	adapt  func(b []byte, c image.Config, m image.Image, n *native) // corrects what the decoder does otherwise than Pillow; may be nil
}

var (
	pngReader  = reader{png.DecodeConfig, png.Decode, adaptPNG}
	gifReader  = reader{gif.DecodeConfig, gif.Decode, adaptGIF}
	webpReader = reader{webp.DecodeConfig, decodeWebP, adaptWebP}
	bmpReader  = reader{bmpConfig, decodeBMP, nil}
	tiffReader = reader{tiff.DecodeConfig, tiff.Decode, nil}
)

// unsupported reports whether err says that a sound file has a mode that its decoder lacks.
func unsupported(err error) bool {
	var p png.UnsupportedError
	var t tiff.UnsupportedError
	return errors.As(err, &p) || errors.As(err, &t) || errors.Is(err, bmp.ErrUnsupported)
}

// read decodes b, whose header said c. A decoder that panics has met a damaged file.
func (r *reader) read(b []byte, c image.Config, n *native, format string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrBadPicture, format, p)
		}
	}()
	m, err := r.decode(bytes.NewReader(b))
	if err != nil {
		return broken(format, err)
	}
	if size := m.Bounds().Size(); r.adapt == nil && (size.X != c.Width || size.Y != c.Height) {
		return fmt.Errorf("%w: %s: %v pixels where the header says %d×%d", ErrBadPicture, format, size, c.Width, c.Height)
	}
	if !n.from(m) {
		return fmt.Errorf("%w %s mode %T", ErrUnsupported, format, m)
	}
	if r.adapt != nil {
		r.adapt(b, c, m, n)
	}
	return nil
}

// from takes over the pixels of m, or reports that it does not know its type.
func (n *native) from(m image.Image) bool {
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	// rows copies bytes [0, size·w) of each row.
	rows := func(pix []uint8, stride, size int) {
		for y := range h {
			copy(n.pix[y*size*w:(y+1)*size*w], pix[y*stride:])
		}
	}
	switch m := m.(type) {
	case *image.Gray:
		n.size(w, h, grey8)
		rows(m.Pix, m.Stride, 1)
	case *image.Gray16:
		n.size(w, h, grey16)
		rows(m.Pix, m.Stride, 2)
	case *image.NRGBA:
		n.size(w, h, rgba)
		rows(m.Pix, m.Stride, 4)
	case *image.RGBA: // opaque in PNG and BMP, premultiplied in TIFF
		n.size(w, h, rgba)
		rows(m.Pix, m.Stride, 4)
		for i := 0; i < len(n.pix); i += 4 {
			if a := uint32(n.pix[i+3]); a != 0 && a != 255 {
				for c := range 3 {
					n.pix[i+c] = uint8(min(255*uint32(n.pix[i+c])/a, 255))
				}
			}
		}
	case *image.RGBA64:
		n.size(w, h, rgba)
		n.high(m.Pix, m.Stride)
	case *image.NRGBA64:
		n.size(w, h, rgba)
		n.high(m.Pix, m.Stride)
	case *image.Paletted:
		n.size(w, h, rgba)
		n.indexed = true
		n.lookUp(m)
	case *image.YCbCr:
		n.size(w, h, rgb)
		n.fromVP8(m, nil, 0)
	case *image.NYCbCrA:
		n.size(w, h, rgba)
		n.fromVP8(&m.YCbCr, m.A, m.AStride)
	default:
		return false
	}
	return true
}

// high keeps the high bytes of 16-bit samples.
func (n *native) high(pix []uint8, stride int) {
	for y := range n.h {
		in, out := pix[y*stride:][:8*n.w], n.pix[4*n.w*y:]
		for i := range 4 * n.w {
			out[i] = in[2*i]
		}
	}
}

// lookUp replaces indices by the palette's colours, transparent ones too.
func (n *native) lookUp(m *image.Paletted) {
	var table [256][4]uint8
	for i, c := range m.Palette[:min(len(m.Palette), 256)] {
		s, ok := c.(color.NRGBA)
		if !ok {
			s = color.NRGBAModel.Convert(c).(color.NRGBA)
		}
		table[i] = [4]uint8{s.R, s.G, s.B, s.A}
	}
	for y := range n.h {
		out := n.pix[4*n.w*y:]
		for x, i := range m.Pix[y*m.Stride:][:n.w] {
			copy(out[4*x:4*x+4], table[i][:])
		}
	}
}

// adaptPNG marks what only the header tells (bytes 24 and 25: bits of a sample and colour type).
func adaptPNG(b []byte, _ image.Config, m image.Image, n *native) {
	switch bits, mode := b[24], b[25]; mode {
	case 0: // grey
		n.indexed = bits == 1
		if wide, ok := m.(*image.NRGBA64); ok { // with a transparent level
			n.size(n.w, n.h, grey16)
			for i := range n.w * n.h {
				at := i/n.w*wide.Stride + 8*(i%n.w)
				n.pix[2*i], n.pix[2*i+1] = wide.Pix[at], wide.Pix[at+1]
			}
			return
		}
		n.keyed = n.kind == rgba
	case 2: // RGB
		n.keyed = n.kind == rgba
	}
}

// adaptGIF lays a frame that is smaller than the picture on the background that Pillow gives it, and puts back the colour of
// the transparent entry, which Go's decoder forgets.
func adaptGIF(b []byte, c image.Config, m image.Image, n *native) {
	p := m.(*image.Paletted)
	index, raw := gifTransparent(b)
	background := 0
	var table color.Palette
	for i, v := range p.Palette {
		s := color.NRGBAModel.Convert(v).(color.NRGBA)
		if i == index && len(raw) >= 3*i+3 {
			s = color.NRGBA{raw[3*i], raw[3*i+1], raw[3*i+2], 0}
		}
		table = append(table, s)
	}
	if index >= 0 && index < len(table) {
		background = index
	}
	whole := image.NewPaletted(image.Rect(0, 0, c.Width, c.Height), table)
	for i := range whole.Pix {
		whole.Pix[i] = uint8(background)
	}
	r := p.Rect
	for y := r.Min.Y; y < r.Max.Y; y++ {
		copy(whole.Pix[y*whole.Stride+r.Min.X:], p.Pix[(y-r.Min.Y)*p.Stride:][:r.Dx()])
	}
	n.from(whole)
}

// gifTransparent returns the transparent entry of the first frame, or -1, and the palette that it belongs to. b is a file
// that Go's decoder has read.
func gifTransparent(b []byte) (index int, palette []byte) {
	index = -1
	if len(b) < 13 {
		return index, nil
	}
	at := 13
	take := func(flags byte) []byte {
		if flags&0x80 == 0 {
			return nil
		}
		n := 3 << (1 + flags&7)
		p := b[min(at, len(b)):min(at+n, len(b))]
		at += n
		return p
	}
	palette = take(b[10])
	for at+10 <= len(b) {
		switch b[at] {
		case 0x21: // an extension; graphic control is F9, length, flags, delay (2), transparent entry
			if b[at+1] == 0xf9 && b[at+3]&1 != 0 {
				index = int(b[at+6])
			}
			at += 2
			for at < len(b) && b[at] != 0 {
				at += 1 + int(b[at])
			}
			at++
		case 0x2c: // the frame
			flags := b[at+9]
			at += 10
			if local := take(flags); local != nil {
				palette = local
			}
			return index, palette
		default:
			return index, palette
		}
	}
	return index, palette
}

// fromVP8 converts the planes of a lossy WebP as libwebp does: chroma upsampled by weights 9:3:3:1 (UpsampleRgbLinePair,
// whose roundings it keeps) and BT.601 of limited range (yuv.h). alpha may be nil.
func (n *native) fromVP8(m *image.YCbCr, alpha []uint8, alphaStride int) {
	size := n.kind.bytes()
	chromaW, chromaH := (n.w+1)/2, (n.h+1)/2
	for y := range n.h {
		near := y / 2
		far := min(max(near-1+2*(y%2), 0), chromaH-1)
		for x := range n.w {
			// Of the four samples around the pixel a is the nearest, d the farthest.
			left := (x + 1) / 2 // pixels 2i-1 and 2i lie between samples i-1 and i
			a, b := left, left-1
			if x%2 == 1 {
				a, b = left-1, left
			}
			a, b = min(max(a, 0), chromaW-1), min(max(b, 0), chromaW-1)
			if x == 0 || x == n.w-1 && x%2 == 1 {
				b = a
			}
			at := func(plane []uint8) uint32 {
				p, q := uint32(plane[near*m.CStride+a]), uint32(plane[near*m.CStride+b])
				r, s := uint32(plane[far*m.CStride+a]), uint32(plane[far*m.CStride+b])
				if x == 0 || x == n.w-1 && x%2 == 1 {
					return (3*p + r + 2) >> 2
				}
				return ((p+q+r+s+8+2*(q+r))>>3 + p) >> 1
			}
			o := n.pix[size*(y*n.w+x):]
			luma, u, v := int32(m.Y[y*m.YStride+x])*19077>>8, int32(at(m.Cb)), int32(at(m.Cr))
			o[0] = clip8((luma + v*26149>>8 - 14234) >> 6)
			o[1] = clip8((luma - u*6419>>8 - v*13320>>8 + 8708) >> 6)
			o[2] = clip8((luma + u*33050>>8 - 17685) >> 6)
			if size == 4 {
				o[3] = alpha[y*alphaStride+x]
			}
		}
	}
}
