package transform

import (
	"bytes"
	"encoding/binary"

	"diptych/data/transform/jpeg"
)

// orientation is the EXIF orientation of a PNG (chunk eXIf), WebP (chunk EXIF) or TIFF file, 1 to 8; 1 without one.
func orientation(b []byte) int {
	block := b // of TIFF, which EXIF is
	switch {
	case hasMagic(b, pngMagic, 0):
		block = nil
		for at := len(pngMagic); at+12 <= len(b); {
			n := int(binary.BigEndian.Uint32(b[at:]))
			if n > len(b)-at-12 {
				break
			}
			if string(b[at+4:at+8]) == "eXIf" {
				block = b[at+8 : at+8+n]
			}
			at += 12 + n
		}
	case hasMagic(b, "WEBP", 8):
		block = nil
		eachChunk(b[12:], func(name string, chunk []byte) bool {
			if name == "EXIF" {
				block = bytes.TrimPrefix(chunk, []byte("Exif\x00\x00"))
			}
			return block == nil
		})
	}
	return max(jpeg.Orientation(block), 1)
}

// eachChunk calls each with the chunks of a RIFF file, or of one of its chunks, as long as it returns true.
func eachChunk(b []byte, each func(name string, chunk []byte) bool) {
	for len(b) >= 8 {
		name, n := string(b[:4]), int(binary.LittleEndian.Uint32(b[4:]))
		if b = b[8:]; n > len(b) || !each(name, b[:n]) {
			return
		}
		b = b[min(n+n%2, len(b)):]
	}
}
