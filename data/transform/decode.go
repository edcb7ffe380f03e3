package transform

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
)

// DefaultMaxPixels bounds the pictures that Decode accepts: 25 million pixels, 75 MB of RGB.
const DefaultMaxPixels = 25_000_000

const pngMagic = "\x89PNG\r\n\x1a\n"

// formats are the signatures of picture files that people keep, so that an error can name what it was given.
var formats = []struct {
	name, magic string
	at          int
}{
	{"GIF", "GIF8", 0},
	{"WebP", "WEBP", 8},
	{"BMP", "BM", 0},
	{"TIFF", "II*\x00", 0},
	{"TIFF", "MM\x00*", 0},
	{"AVIF", "ftypavi", 4},
	{"HEIC", "ftyphe", 4},
	{"HEIC", "ftypmif1", 4},
	{"JPEG 2000", "\x00\x00\x00\x0cjP  ", 0},
	{"JPEG XL", "\x00\x00\x00\x0cJXL ", 0},
	{"JPEG XL", "\xff\x0a", 0},
	{"Photoshop", "8BPS", 0},
	{"icon", "\x00\x00\x01\x00", 0},
	{"SVG", "<svg", 0},
	{"XML (perhaps SVG)", "<?xml", 0},
	{"HTML", "<!DOCTYPE", 0},
	{"HTML", "<html", 0},
}

// Decode reads a PNG or JPEG file into dst, whose memory it reuses, with DefaultMaxPixels.
// See DecodeLimit.
func Decode(b []byte, dst *Image) error { return DecodeLimit(b, DefaultMaxPixels, dst) }

// DecodeLimit reads a PNG or JPEG file into dst, whose memory it reuses, as Pillow's convert("RGB") gives it: grey is
// repeated, alpha is dropped, palettes are looked up, of 16-bit colour the high byte is kept, 16-bit grey is clipped at
// 255. Of an animated PNG it is the still picture. A header that asks for more than maxPixels is refused before any
// pixel is read. Errors wrap ErrBadPicture; those about other formats and about CMYK wrap ErrUnsupported too.
func DecodeLimit(b []byte, maxPixels int, dst *Image) error {
	if err := decode(b, maxPixels, dst); err != nil {
		return fmt.Errorf("transform: %w", err)
	}
	return nil
}

func decode(b []byte, maxPixels int, dst *Image) error {
	switch {
	case hasMagic(b, pngMagic, 0):
		return decodePNG(b, maxPixels, dst)
	case hasMagic(b, "\xff\xd8\xff", 0):
		return decodeJPEG(b, maxPixels, dst)
	case len(b) == 0:
		return fmt.Errorf("%w: no bytes", ErrBadPicture)
	}
	for _, f := range formats {
		if hasMagic(b, f.magic, f.at) {
			return fmt.Errorf("%w format %s; convert it to PNG or JPEG", ErrUnsupported, f.name)
		}
	}
	return fmt.Errorf("%w: neither PNG nor JPEG (begins with % x)", ErrBadPicture, b[:min(len(b), 8)])
}

func hasMagic(b []byte, magic string, at int) bool {
	return len(b) >= at+len(magic) && string(b[at:at+len(magic)]) == magic
}

func checkSize(format string, c image.Config, maxPixels int) error {
	if c.Width <= 0 || c.Height <= 0 {
		return fmt.Errorf("%w: %s of %d×%d pixels", ErrBadPicture, format, c.Width, c.Height)
	}
	if c.Width > maxPixels/c.Height {
		return fmt.Errorf("%w: %s of %d×%d pixels, more than the limit of %d pixels", ErrBadPicture, format, c.Width, c.Height, maxPixels)
	}
	return nil
}

// broken wraps what Go's decoders report.
func broken(format string, err error) error {
	var j jpeg.UnsupportedError
	var p png.UnsupportedError
	switch {
	case errors.As(err, &j):
		return fmt.Errorf("%w %s: %s", ErrUnsupported, format, string(j))
	case errors.As(err, &p):
		return fmt.Errorf("%w %s: %s", ErrUnsupported, format, string(p))
	}
	return fmt.Errorf("%w: %s: %w", ErrBadPicture, format, err)
}

func decodePNG(b []byte, maxPixels int, dst *Image) error {
	c, err := png.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return broken("PNG", err)
	}
	if err := checkSize("PNG", c, maxPixels); err != nil {
		return err
	}
	m, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return broken("PNG", err)
	}
	dst.resize(c.Width, c.Height)
	switch m := m.(type) {
	case *image.Gray:
		fromGray(dst, m)
	case *image.RGBA: // opaque
		from32(dst, m.Pix, m.Stride)
	case *image.NRGBA: // alpha is dropped, not composited
		from32(dst, m.Pix, m.Stride)
	case *image.RGBA64: // opaque
		from64(dst, m.Pix, m.Stride, false)
	case *image.NRGBA64:
		// Grey of 16 bits with a transparent level arrives here too (colour type 0, byte 25 of the file).
		from64(dst, m.Pix, m.Stride, b[25] == 0)
	case *image.Gray16:
		fromGray16(dst, m)
	case *image.Paletted:
		fromPalette(dst, m)
	default:
		return fmt.Errorf("%w PNG mode %T", ErrUnsupported, m)
	}
	return nil
}

func fromGray(dst *Image, m *image.Gray) {
	for y := range dst.H {
		out, in := dst.row(y), m.Pix[y*m.Stride:][:dst.W]
		for x, v := range in {
			o := out[3*x : 3*x+3 : 3*x+3]
			o[0], o[1], o[2] = v, v, v
		}
	}
}

func from32(dst *Image, pix []uint8, stride int) {
	for y := range dst.H {
		out, in := dst.row(y), pix[y*stride:][:4*dst.W]
		for x := range dst.W {
			o, i := out[3*x:3*x+3:3*x+3], in[4*x:4*x+3:4*x+3]
			o[0], o[1], o[2] = i[0], i[1], i[2]
		}
	}
}

// clipped is Pillow's conversion of a 16-bit grey level, high and low byte, to 8 bits.
func clipped(hi, lo uint8) uint8 {
	if hi > 0 {
		return 255
	}
	return lo
}

func from64(dst *Image, pix []uint8, stride int, gray bool) {
	for y := range dst.H {
		out, in := dst.row(y), pix[y*stride:][:8*dst.W]
		for x := range dst.W {
			o, i := out[3*x:3*x+3:3*x+3], in[8*x:8*x+8:8*x+8]
			if gray {
				v := clipped(i[0], i[1])
				o[0], o[1], o[2] = v, v, v
			} else {
				o[0], o[1], o[2] = i[0], i[2], i[4]
			}
		}
	}
}

func fromGray16(dst *Image, m *image.Gray16) {
	for y := range dst.H {
		out, in := dst.row(y), m.Pix[y*m.Stride:][:2*dst.W]
		for x := range dst.W {
			v := clipped(in[2*x], in[2*x+1])
			out[3*x], out[3*x+1], out[3*x+2] = v, v, v
		}
	}
}

func fromPalette(dst *Image, m *image.Paletted) {
	var table [256][3]uint8
	for i, c := range m.Palette {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		if s, ok := c.(color.NRGBA); ok {
			n = s // as stored: going through premultiplied alpha would lose the colour of transparent entries
		}
		table[i] = [3]uint8{n.R, n.G, n.B}
	}
	for y := range dst.H {
		out, in := dst.row(y), m.Pix[y*m.Stride:][:dst.W]
		for x, i := range in {
			copy(out[3*x:3*x+3], table[i][:])
		}
	}
}
