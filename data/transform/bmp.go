package transform

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"

	"golang.org/x/image/bmp"
)

// Two-level BMP files (BITMAPINFOHEADER with one bit for a pixel), which golang.org/x/image/bmp does not read.

const bmpHead = 54 // bytes of the file's header and the shortest info header that is read

// bmpConfig is bmp.DecodeConfig with two-level files.
func bmpConfig(r io.Reader) (image.Config, error) {
	head := make([]byte, bmpHead)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return image.Config{}, err
	}
	if !isTwoLevel(head[:n]) {
		return bmp.DecodeConfig(io.MultiReader(bytes.NewReader(head[:n]), r))
	}
	w, h := int32(binary.LittleEndian.Uint32(head[18:])), int32(binary.LittleEndian.Uint32(head[22:]))
	if h < 0 {
		h = -h // rows from the top down
	}
	return image.Config{Width: int(w), Height: int(h)}, nil
}

func isTwoLevel(b []byte) bool {
	return len(b) >= bmpHead && binary.LittleEndian.Uint32(b[14:]) >= 40 && binary.LittleEndian.Uint16(b[28:]) == 1
}

// decodeBMP is bmp.Decode with two-level files.
func decodeBMP(r io.Reader) (image.Image, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if !isTwoLevel(b) {
		return bmp.Decode(bytes.NewReader(b))
	}
	c, err := bmpConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if method := binary.LittleEndian.Uint32(b[30:]); method != 0 {
		return nil, fmt.Errorf("%w: two levels, compressed by method %d", bmp.ErrUnsupported, method)
	}
	colors := int64(binary.LittleEndian.Uint32(b[46:]))
	if colors == 0 || colors > 2 {
		colors = 2
	}
	table, pixels := 14+int64(binary.LittleEndian.Uint32(b[14:])), int64(binary.LittleEndian.Uint32(b[10:]))
	stride := int64(c.Width+31) / 32 * 4
	if end := pixels + stride*int64(c.Height); table+4*colors > int64(len(b)) || end > int64(len(b)) {
		return nil, io.ErrUnexpectedEOF
	}
	palette := color.Palette{color.NRGBA{A: 255}, color.NRGBA{A: 255}}
	for i := range colors {
		p := b[table+4*i:]
		palette[i] = color.NRGBA{R: p[2], G: p[1], B: p[0], A: 255}
	}
	m := image.NewPaletted(image.Rect(0, 0, c.Width, c.Height), palette)
	upward := int32(binary.LittleEndian.Uint32(b[22:])) > 0
	for y := range c.Height {
		row := b[pixels+int64(y)*stride:]
		out := m.Pix[y*m.Stride:]
		if upward {
			out = m.Pix[(c.Height-1-y)*m.Stride:]
		}
		for x := range c.Width {
			out[x] = row[x/8] >> (7 - x%8) & 1
		}
	}
	return m, nil
}
