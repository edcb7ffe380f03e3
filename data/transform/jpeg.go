package transform

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
)

// decodeJPEG takes the planes from Go's decoder; chroma upsampling and colour conversion are libjpeg's, because Go's own
// repeat chroma samples, which is tens of levels away at coloured edges.
func decodeJPEG(b []byte, maxPixels int, dst *Image) error {
	c, err := jpeg.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return broken("JPEG", err)
	}
	if err := checkSize("JPEG", c, maxPixels); err != nil {
		return err
	}
	if c.ColorModel == color.CMYKModel {
		return fmt.Errorf("%w mode CMYK of a JPEG; convert it to RGB", ErrUnsupported)
	}
	m, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		return broken("JPEG", err)
	}
	dst.resize(c.Width, c.Height)
	switch m := m.(type) {
	case *image.Gray:
		fromGray(dst, m)
	case *image.RGBA: // stored as RGB, without a colour transform
		from32(dst, m.Pix, m.Stride)
	case *image.YCbCr:
		fromYCbCr(dst, m)
	default:
		return fmt.Errorf("%w JPEG mode %T", ErrUnsupported, m)
	}
	return nil
}

func fromYCbCr(dst *Image, m *image.YCbCr) {
	h, v := 1, 1 // pixels for each chroma sample
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio420:
		h, v = 2, 2
	case image.YCbCrSubsampleRatio422:
		h = 2
	case image.YCbCrSubsampleRatio440:
		v = 2
	case image.YCbCrSubsampleRatio411:
		h = 4
	case image.YCbCrSubsampleRatio410:
		h, v = 4, 2
	}
	up := upsampler{h: h, v: v, w: (dst.W + h - 1) / h, rows: (dst.H + v - 1) / v, stride: m.CStride}
	up.sum = make([]int32, up.w)
	cb, cr := make([]uint8, h*up.w), make([]uint8, h*up.w)
	for y := range dst.H {
		up.row(cb, m.Cb, y)
		up.row(cr, m.Cr, y)
		convertRow(dst.row(y), m.Y[y*m.YStride:][:dst.W], cb, cr)
	}
}

// upsampler widens one chroma plane as libjpeg's jdsample.c does ("fancy upsampling"): a triangle filter of weights 3:1
// along each axis that is halved. Planes narrower than three samples, and ratios of four, are repeated instead.
type upsampler struct {
	h, v    int // pixels for each sample
	w, rows int // samples
	stride  int
	sum     []int32 // (w): 3·near row + far row
}

// row writes the h·w chroma values of pixel row y.
func (u *upsampler) row(dst, plane []uint8, y int) {
	near := y / u.v
	in := plane[near*u.stride:][:u.w]
	far := min(max(near-1+2*(y%u.v), 0), u.rows-1) // with v = 2: the row above for even y, below for odd y
	other := plane[far*u.stride:][:u.w]
	switch {
	case u.h == 1 && u.v == 1:
		copy(dst, in)
	case u.h == 1 && u.v == 2:
		bias := int32(1 + y%2)
		for x, p := range in {
			dst[x] = uint8((3*int32(p) + int32(other[x]) + bias) >> 2)
		}
	case u.h == 2 && u.v == 1 && u.w > 2:
		last := u.w - 1
		dst[0] = in[0]
		dst[1] = uint8((3*int32(in[0]) + int32(in[1]) + 2) >> 2)
		for x := 1; x < last; x++ {
			p := 3 * int32(in[x])
			dst[2*x] = uint8((p + int32(in[x-1]) + 1) >> 2)
			dst[2*x+1] = uint8((p + int32(in[x+1]) + 2) >> 2)
		}
		dst[2*last] = uint8((3*int32(in[last]) + int32(in[last-1]) + 1) >> 2)
		dst[2*last+1] = in[last]
	case u.h == 2 && u.v == 2 && u.w > 2:
		s := u.sum
		for x, p := range in {
			s[x] = 3*int32(p) + int32(other[x])
		}
		last := u.w - 1
		dst[0] = uint8((4*s[0] + 8) >> 4)
		dst[1] = uint8((3*s[0] + s[1] + 7) >> 4)
		for x := 1; x < last; x++ {
			dst[2*x] = uint8((3*s[x] + s[x-1] + 8) >> 4)
			dst[2*x+1] = uint8((3*s[x] + s[x+1] + 7) >> 4)
		}
		dst[2*last] = uint8((3*s[last] + s[last-1] + 8) >> 4)
		dst[2*last+1] = uint8((4*s[last] + 7) >> 4)
	default:
		for x := range dst {
			dst[x] = in[x/u.h]
		}
	}
}

// convertRow is libjpeg's YCbCr -> RGB (jdcolor.c, ITU-R BT.601 in 16-bit fixed point).
func convertRow(dst, luma, cb, cr []uint8) {
	cb, cr, dst = cb[:len(luma)], cr[:len(luma)], dst[:3*len(luma)]
	for x, l := range luma {
		y, b, r := int32(l), int32(cb[x])-128, int32(cr[x])-128
		o := dst[3*x : 3*x+3 : 3*x+3]
		o[0] = clip8(y + (91881*r+32768)>>16)
		o[1] = clip8(y + (-22554*b-46802*r+32768)>>16)
		o[2] = clip8(y + (116130*b+32768)>>16)
	}
}

func clip8(v int32) uint8 { return uint8(min(max(v, 0), 255)) }
