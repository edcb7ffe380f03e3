package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
)

// pieceSize is how many bytes are converted at once; a multiple of every element's size.
const pieceSize = 1 << 16

// Bytes reads a tensor's bytes as they are stored.
func (f *File) Bytes(name string) ([]byte, error) {
	info, err := f.Info(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.end-info.begin)
	if err := readAt(info.r, b, info.begin); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %q: %w", f.name, name, err)
	}
	return b, nil
}

// Float32 reads a tensor of any type but the 8-bit floats as float32 and returns its shape. F64 and wide integers are rounded.
func (f *File) Float32(name string) ([]float32, []int, error) {
	info, err := f.Info(name)
	if err != nil {
		return nil, nil, err
	}
	if err := f.checkFloat32(info); err != nil { // before the allocation
		return nil, nil, err
	}
	dst := make([]float32, info.Len())
	return dst, info.Shape, f.ReadFloat32(name, dst)
}

// Stream gives use the bytes of a tensor as they are stored, piece by piece; a piece holds whole elements and is use's only until it returns.
func (f *File) Stream(name string, use func(b []byte) error) error {
	info, err := f.Info(name)
	if err != nil {
		return err
	}
	return f.pieces(info, use)
}

// ReadFloat32 is [File.Float32] into the caller's slice, whose length must be the tensor's number of elements. After an
// error dst may be partly written.
func (f *File) ReadFloat32(name string, dst []float32) error {
	info, err := f.Info(name)
	if err != nil {
		return err
	}
	if len(dst) != info.Len() {
		return fmt.Errorf("safetensors: %s: %q has shape %v, %d elements; %d are wanted", f.name, name, info.Shape, info.Len(), len(dst))
	}
	if err := f.checkFloat32(info); err != nil {
		return err
	}
	width := info.DType.Size()
	return f.pieces(info, func(b []byte) error {
		n := len(b) / width
		info.DType.Widen(dst[:n], b)
		dst = dst[n:]
		return nil
	})
}

// Widen converts the first len(dst) elements in b to float32 and reports whether the type can be: the 8-bit floats cannot.
func (d DType) Widen(dst []float32, b []byte) bool {
	convert := toFloat32[d]
	if convert != nil {
		convert(dst, b)
	}
	return convert != nil
}

func (f *File) checkFloat32(info Info) error {
	if toFloat32[info.DType] == nil {
		return fmt.Errorf("safetensors: %s: %q is %s, which is not read as float32", f.name, info.Name, info.DType)
	}
	return nil
}

// Ints reads a tensor of an integer type or of booleans (0 and 1).
func (f *File) Ints(name string) ([]int64, error) {
	info, err := f.Info(name)
	if err != nil {
		return nil, err
	}
	at, ok := toInt64[info.DType]
	if !ok {
		return nil, fmt.Errorf("safetensors: %s: %q is %s, not an integer type", f.name, name, info.DType)
	}
	out := make([]int64, 0, info.Len())
	width := info.DType.Size()
	err = f.pieces(info, func(b []byte) error {
		for ; len(b) > 0; b = b[width:] {
			v := at(b)
			if info.DType == U64 && v < 0 {
				return fmt.Errorf("safetensors: %s: %q: %d does not fit in an int64", f.name, name, uint64(v))
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

// pieces reads a tensor's bytes piece by piece.
func (f *File) pieces(info Info, use func(b []byte) error) error {
	if m, ok := info.r.(*mapping); ok {
		if err := m.pieces(info.begin, info.end, use); err != nil {
			return fmt.Errorf("safetensors: %s: %q: %w", f.name, info.Name, err)
		}
		return nil
	}
	buf := make([]byte, min(pieceSize, info.end-info.begin))
	for at := info.begin; at < info.end; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), info.end-at)]
		if err := readAt(info.r, buf, at); err != nil {
			return fmt.Errorf("safetensors: %s: %q: %w", f.name, info.Name, err)
		}
		if err := use(buf); err != nil {
			return err
		}
	}
	return nil
}

var le = binary.LittleEndian

// toFloat32 has, for each type, the conversion of the elements in b to dst.
var toFloat32 = map[DType]func(dst []float32, b []byte){
	F64: func(dst []float32, b []byte) {
		for i := range dst {
			dst[i] = float32(math.Float64frombits(le.Uint64(b[8*i:])))
		}
	},
	F32: func(dst []float32, b []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(le.Uint32(b[4*i:]))
		}
	},
	F16: func(dst []float32, b []byte) {
		for i := range dst {
			dst[i] = halfToFloat32(le.Uint16(b[2*i:]))
		}
	},
	BF16: func(dst []float32, b []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(le.Uint16(b[2*i:])) << 16)
		}
	},
	I64: intToFloat32(I64), I32: intToFloat32(I32), I16: intToFloat32(I16), I8: intToFloat32(I8),
	U32: intToFloat32(U32), U16: intToFloat32(U16), U8: intToFloat32(U8), Bool: intToFloat32(Bool),
	U64: func(dst []float32, b []byte) {
		for i := range dst {
			dst[i] = float32(le.Uint64(b[8*i:]))
		}
	},
}

func intToFloat32(d DType) func(dst []float32, b []byte) {
	at, width := toInt64[d], d.Size()
	return func(dst []float32, b []byte) {
		for i := range dst {
			dst[i] = float32(at(b[width*i:]))
		}
	}
}

// toInt64 has, for each integer type, the first element of b. A U64 of 2^63 or more comes out negative.
var toInt64 = map[DType]func(b []byte) int64{
	I64: func(b []byte) int64 { return int64(le.Uint64(b)) },
	I32: func(b []byte) int64 { return int64(int32(le.Uint32(b))) },
	I16: func(b []byte) int64 { return int64(int16(le.Uint16(b))) },
	I8:  func(b []byte) int64 { return int64(int8(b[0])) },
	U64: func(b []byte) int64 { return int64(le.Uint64(b)) },
	U32: func(b []byte) int64 { return int64(le.Uint32(b)) },
	U16: func(b []byte) int64 { return int64(le.Uint16(b)) },
	U8:  func(b []byte) int64 { return int64(b[0]) },
	Bool: func(b []byte) int64 {
		if b[0] != 0 {
			return 1
		}
		return 0
	},
}

// halfToFloat32 converts IEEE 754 binary16, exactly.
func halfToFloat32(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp := uint32(h>>10) & 31
	frac := uint32(h) & 1023
	switch exp {
	case 0: // zero or subnormal: frac·2^-24, which float32 holds exactly
		v := float32(frac) * 0x1p-24
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31: // Inf or NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// Narrow converts numbers to the bytes of F32, F16 or BF16 elements, to the nearest, ties to even; it returns nil for other types.
func (d DType) Narrow(v []float32) []byte {
	b := make([]byte, 0, d.Size()*len(v))
	switch d {
	case F32:
		for _, x := range v {
			b = le.AppendUint32(b, math.Float32bits(x))
		}
	case F16:
		for _, x := range v {
			b = le.AppendUint16(b, float32ToHalf(x))
		}
	case BF16:
		for _, x := range v {
			u := math.Float32bits(x)
			if x != x {
				b = le.AppendUint16(b, uint16(u>>16)|0x40) // stays a NaN
				continue
			}
			b = le.AppendUint16(b, uint16((u+0x7fff+u>>16&1)>>16))
		}
	default:
		return nil
	}
	return b
}

// float32ToHalf rounds to IEEE 754 binary16, to nearest even.
func float32ToHalf(x float32) uint16 {
	u := math.Float32bits(x)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(u>>13&0x1ff)
	case u >= 0x477ff000: // 65520 and more round to infinity
		return sign | 0x7c00
	case u < 0x38800000: // subnormal: the float32 sum with 2^-1 aligns and rounds the fraction to units of 2^-24
		f := math.Float32frombits(u) + 0.5
		return sign | uint16(math.Float32bits(f)-0x3f000000)
	}
	u += 0xfff + u>>13&1
	return sign | uint16((u-(127-15)<<23)>>13)
}
