package safetensors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Tensor is what [Write] writes: a description and the elements, which stay the caller's.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	size  int // bytes
	write func(w io.Writer, buf []byte) error
}

// Size returns the bytes of the elements.
func (t *Tensor) Size() int64 { return int64(t.size) }

// Write writes the elements, as little-endian bytes. It can be called again.
func (t *Tensor) Write(w io.Writer) error { return t.write(w, make([]byte, pieceSize)) }

// Float32 returns the elements as float32; the 8-bit floats cannot be.
func (t *Tensor) Float32() ([]float32, error) {
	var b bytes.Buffer
	if err := t.Write(&b); err != nil {
		return nil, err
	}
	v := make([]float32, b.Len()/max(t.DType.Size(), 1))
	if !t.DType.Widen(v, b.Bytes()) {
		return nil, fmt.Errorf("%q is %s, which is not read as float32", t.Name, t.DType)
	}
	return v, nil
}

// Streamed is a tensor whose elements come from elsewhere: produce gives them to use as the little-endian bytes of the file, piece by
// piece, and can be called again. [File.Stream] is such a function.
func Streamed(name string, dtype DType, shape []int, produce func(use func(b []byte) error) error) Tensor {
	size := dtype.Size()
	for _, d := range shape {
		size *= d
	}
	return Tensor{Name: name, DType: dtype, Shape: shape, size: size, write: func(w io.Writer, _ []byte) error {
		left := size
		err := produce(func(b []byte) error {
			left -= len(b)
			_, err := w.Write(b)
			return err
		})
		if err == nil && left != 0 {
			err = fmt.Errorf("%s %v takes %d bytes, %d came", dtype, shape, size, size-left)
		}
		return err
	}}
}

// Floats is a tensor of float32. Its elements are converted piece by piece while they are written.
func Floats(name string, shape []int, data []float32) Tensor {
	return Tensor{Name: name, DType: F32, Shape: shape, size: 4 * len(data), write: func(w io.Writer, buf []byte) error {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), len(buf)/4)
			for i, v := range rest[:n] {
				le.PutUint32(buf[4*i:], math.Float32bits(v))
			}
			if _, err := w.Write(buf[:4*n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}}
}

// Int64s is a tensor of int64.
func Int64s(name string, shape []int, data []int64) Tensor {
	return Tensor{Name: name, DType: I64, Shape: shape, size: 8 * len(data), write: func(w io.Writer, buf []byte) error {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), len(buf)/8)
			for i, v := range rest[:n] {
				le.PutUint64(buf[8*i:], uint64(v))
			}
			if _, err := w.Write(buf[:8*n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}}
}

// Raw is a tensor of any type whose elements are given as the little-endian bytes of the file.
func Raw(name string, dtype DType, shape []int, data []byte) Tensor {
	return Tensor{Name: name, DType: dtype, Shape: shape, size: len(data), write: func(w io.Writer, _ []byte) error {
		_, err := w.Write(data)
		return err
	}}
}

// Write writes tensors and metadata (nil for none) as the reference writer does, so that equal input gives equal bytes: tensors
// sorted by falling width of their type, then by name; the header padded with spaces to a multiple of eight. It streams:
// beside the tensors themselves it holds the header and one piece. A shape that does not fit the number of elements,
// an unknown type or a name that occurs twice is an error before anything is written.
func Write(w io.Writer, tensors []Tensor, meta map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		if a.DType != b.DType {
			return a.DType.rank() - b.DType.rank()
		}
		return strings.Compare(a.Name, b.Name)
	})
	head, err := header(sorted, meta)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	buf := make([]byte, pieceSize)
	for _, t := range sorted {
		if err := t.write(w, buf); err != nil {
			return fmt.Errorf("safetensors: %q: %w", t.Name, err)
		}
	}
	return nil
}

// header returns the length and the JSON of the header. It is put together by hand because a map would lose the order.
func header(tensors []Tensor, meta map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(meta) > 0 {
		b.WriteString(`"__metadata__":`)
		writeJSON(&b, meta)
	}
	seen := map[string]bool{"__metadata__": true}
	at := 0
	for _, t := range tensors {
		if seen[t.Name] {
			return nil, fmt.Errorf("the name %q is taken", t.Name)
		}
		seen[t.Name] = true
		n := t.DType.Size()
		if n == 0 {
			return nil, fmt.Errorf("%q: unknown dtype %q", t.Name, string(t.DType))
		}
		for _, d := range t.Shape {
			n *= max(d, 0)
		}
		if n != t.size {
			return nil, fmt.Errorf("%q: %s %v takes %d bytes, the data have %d", t.Name, t.DType, t.Shape, n, t.size)
		}
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		writeJSON(&b, t.Name)
		b.WriteByte(':')
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		writeJSON(&b, struct {
			DType   DType  `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{t.DType, shape, [2]int{at, at + n}})
		at += n
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len()-8 > maxHeader {
		return nil, fmt.Errorf("the header takes %d bytes, at most %d are allowed", b.Len()-8, maxHeader)
	}
	head := b.Bytes()
	le.PutUint64(head, uint64(len(head)-8))
	return head, nil
}

// writeJSON appends v, which cannot fail to encode, without escaping < > &.
func writeJSON(b *bytes.Buffer, v any) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
}
