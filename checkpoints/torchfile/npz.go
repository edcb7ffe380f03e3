package torchfile

import (
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"diptych/checkpoints/safetensors"
)

// maxArrayHeader bounds an array's header, which takes about 120 bytes.
const maxArrayHeader = 1 << 16

// openArrays opens the arrays of an .npz: each a record NAME.npy in NumPy's format, stored or compressed.
func (f *File) openArrays(records map[string]*record) error {
	total := int64(0)
	for path, rec := range records {
		name := strings.TrimSuffix(path, ".npy")
		t, dataAt, err := rec.arrayHeader(name)
		if err != nil {
			return err
		}
		if t == nil {
			f.skipped = append(f.skipped, name)
			continue
		}
		width := int64(t.DType.Size())
		count := int64(t.Len())
		if size := rec.size; count > (math.MaxInt64-dataAt)/width || dataAt+count*width != size {
			return corrupt("array %q: %s %v takes %d bytes after its header, there are %d", name, t.DType, t.Shape, count*width, size-dataAt)
		}
		if total += count * width; total > 2048*f.size {
			return corrupt("the arrays have over %d bytes in a file of %d", total, f.size)
		}
		if rec.Method == methodStore {
			s := rec.stored()
			s.at += dataAt
			t.from = s
		} else {
			t.from = &deflated{rec, dataAt}
			if !t.contiguous() && count*width > slack {
				return corrupt("array %q: compressed and in Fortran order with %d bytes, at most %d are read", name, count*width, slack)
			}
		}
		f.tensors = append(f.tensors, *t)
	}
	return f.sort()
}

// The keys of an array's header, which NumPy writes as the text of a Python dict.
var arrayKeys = regexp.MustCompile(`^\{'descr': '([<>|=])([a-zA-Z])(\d{1,2})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\}\s*$`)

// arrayHeader reads the header of an array (NEP 1): magic, version, length, text. A nil tensor is of a type that is not read.
func (rec *record) arrayHeader(name string) (*tensor, int64, error) {
	rc := rec.reader()
	head := make([]byte, 12)
	read := func(b []byte) error {
		_, err := io.ReadFull(rc, b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return corrupt("array %q: no header", name)
		}
		return err
	}
	if err := read(head[:8]); err != nil {
		return nil, 0, err
	}
	if string(head[:6]) != "\x93NUMPY" || head[6] < 1 || head[6] > 3 {
		return nil, 0, corrupt("array %q: not in NumPy's format, or of a later version", name)
	}
	wide := 2
	if head[6] > 1 {
		wide = 4
	}
	if err := read(head[8 : 8+wide]); err != nil {
		return nil, 0, err
	}
	n := int64(le.Uint16(head[8:]))
	if wide == 4 {
		n = int64(le.Uint32(head[8:]))
	}
	if n > maxArrayHeader {
		return nil, 0, corrupt("array %q: a header of %d bytes", name, n)
	}
	text := make([]byte, n)
	if err := read(text); err != nil {
		return nil, 0, err
	}
	t, err := parseArray(name, string(text))
	if err == nil && t == nil { // what is passed over is not read later: the checksum says whether it is so
		_, err = io.Copy(io.Discard, rc)
	}
	return t, 8 + int64(wide) + n, err
}

// parseArray reads the text of an array's header.
func parseArray(name, text string) (*tensor, error) {
	m := arrayKeys.FindStringSubmatch(text)
	if m == nil {
		if strings.Contains(text, "|O") || strings.Contains(text, "'descr': [") {
			return nil, nil // Python objects, records
		}
		return nil, corrupt("array %q: header %.100q", name, text)
	}
	t := &tensor{Info: safetensors.Info{Name: name, Shape: []int{}}, swap: m[1] == ">"}
	switch m[2] + m[3] {
	case "f8":
		t.DType = safetensors.F64
	case "f4":
		t.DType = safetensors.F32
	case "f2":
		t.DType = safetensors.F16
	case "V2": // how NumPy stores the bfloat16 of JAX, which it does not know
		t.DType = safetensors.BF16
	case "i8":
		t.DType = safetensors.I64
	case "i4":
		t.DType = safetensors.I32
	case "i2":
		t.DType = safetensors.I16
	case "i1":
		t.DType = safetensors.I8
	case "u8":
		t.DType = safetensors.U64
	case "u4":
		t.DType = safetensors.U32
	case "u2":
		t.DType = safetensors.U16
	case "u1":
		t.DType = safetensors.U8
	case "b1":
		t.DType = safetensors.Bool
	default:
		return nil, nil
	}
	var shape []int64
	for _, s := range strings.FieldsFunc(m[5], func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, corrupt("array %q: shape %q", name, m[5])
		}
		shape = append(shape, n)
		t.Shape = append(t.Shape, int(n))
	}
	if len(shape) > maxRank {
		return nil, corrupt("array %q: %d dimensions", name, len(shape))
	}
	t.strides = make([]int64, len(shape))
	if _, _, ok := extent(0, shape, t.strides); !ok {
		return nil, corrupt("array %q: shape %v", name, shape)
	}
	next := int64(1)
	for i := range shape {
		k := len(shape) - 1 - i
		if m[4] == "True" {
			k = i
		}
		t.strides[k] = next
		next *= shape[k]
	}
	return t, nil
}

// deflated is a compressed record behind its header of skip bytes. It is unpacked from its beginning to its end each time, because its checksum comes last.
type deflated struct {
	rec  *record
	skip int64
}

func (s *deflated) bytes(lo, hi int64, use func(b []byte) error) error {
	rc := s.rec.reader()
	if _, err := io.CopyN(io.Discard, rc, s.skip+lo); err != nil {
		return err
	}
	buf := make([]byte, min(pieceSize, hi-lo))
	for lo < hi {
		buf = buf[:min(int64(len(buf)), hi-lo)]
		if _, err := io.ReadFull(rc, buf); err != nil {
			return err
		}
		if err := use(buf); err != nil {
			return err
		}
		lo += int64(len(buf))
	}
	_, err := io.Copy(io.Discard, rc)
	return err
}
