package transform

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"io"

	"golang.org/x/image/webp"
)

// webpFrame is the first picture of an animation (developers.google.com/speed/webp/docs/riff_container), as a file of its own.
type webpFrame struct {
	file   []byte
	x, y   int  // its place
	opaque bool // the animation says that nothing in it is transparent
}

// firstFrame returns the first picture of an animation; ok tells whether b is one.
func firstFrame(b []byte) (f webpFrame, ok bool) {
	eachChunk(b[min(12, len(b)):], func(name string, chunk []byte) bool {
		switch {
		case name == "VP8X" && len(chunk) >= 10:
			ok = chunk[0]&0x02 != 0
			f.opaque = chunk[0]&0x10 == 0
			return ok
		case name != "ANMF" || len(chunk) < 16:
			return name != "ANMF"
		}
		u24 := func(at int) int { return int(chunk[at]) | int(chunk[at+1])<<8 | int(chunk[at+2])<<16 }
		f.x, f.y = 2*u24(0), 2*u24(3)
		f.file = []byte("RIFF....WEBP")
		if bytes.HasPrefix(chunk[16:], []byte("ALPH")) { // is read in an extended file only
			f.file = append(f.file, "VP8X\x0a\x00\x00\x00\x10\x00\x00\x00"...)
			f.file = append(f.file, chunk[6:12]...) // width and height
		}
		f.file = append(f.file, chunk[16:]...)
		binary.LittleEndian.PutUint32(f.file[4:], uint32(len(f.file)-8))
		return false
	})
	return f, ok
}

// decodeWebP decodes a picture, or the first one of an animation.
func decodeWebP(r io.Reader) (image.Image, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	c, err := webp.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	f, animated := firstFrame(b)
	if !animated {
		f.file = b
	}
	m, err := webp.Decode(bytes.NewReader(f.file))
	if err != nil {
		return nil, err
	}
	size := m.Bounds().Size()
	if !animated && (size.X != c.Width || size.Y != c.Height) || f.x+size.X > c.Width || f.y+size.Y > c.Height {
		return nil, errors.New("a picture is not of the size that the header says")
	}
	return m, nil
}

// adaptWebP lays the first picture of an animation on its canvas, which is transparent black, as libwebp's WebPAnimDecoder
// does.
func adaptWebP(b []byte, c image.Config, _ image.Image, n *native) {
	f, animated := firstFrame(b)
	if !animated {
		return
	}
	size := n.kind.bytes()
	var canvas native
	canvas.size(c.Width, c.Height, rgba)
	if f.opaque {
		canvas.size(c.Width, c.Height, rgb)
	}
	clear(canvas.pix)
	out := canvas.kind.bytes()
	for y := range n.h {
		for x := range n.w {
			p, q := n.pix[size*(y*n.w+x):][:size], canvas.pix[out*((f.y+y)*c.Width+f.x+x):][:out]
			if out == 4 {
				q[3] = 255
			}
			copy(q, p)
		}
	}
	n.size(canvas.w, canvas.h, canvas.kind)
	copy(n.pix, canvas.pix)
}
