// Package safetensors reads and writes the safetensors format (github.com/huggingface/safetensors): eight bytes with the
// little-endian length h of a header, h bytes of JSON that give every tensor's element type, shape and range of bytes, then the bytes.
//
// Reading is lazy: [Open], [OpenIndex] (a model cut into several files) and [New] read and check headers only, and a tensor's bytes
// are read when they are asked for, in pieces, straight into the caller's slice; where the system can, a file is mapped into
// memory instead of read. Nothing in a file is trusted: sizes are compared with the file's before anything
// is allocated. [Write] streams tensors out in the order of the reference writer.
package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"
	"unicode/utf8"
)

// ErrCorrupt is wrapped by every error about bytes that break the format's rules.
var ErrCorrupt = errors.New("not a valid safetensors file")

// ErrMissing is wrapped by errors about a tensor that the file does not have.
var ErrMissing = errors.New("no such tensor")

// maxHeader is the reference reader's limit of the header's size in bytes.
const maxHeader = 100_000_000

// DType is the type of a tensor's elements, under its name in the header.
type DType string

// The element types of the format.
const (
	F64    DType = "F64"
	F32    DType = "F32"
	F16    DType = "F16"
	BF16   DType = "BF16"
	I64    DType = "I64"
	I32    DType = "I32"
	I16    DType = "I16"
	I8     DType = "I8"
	U64    DType = "U64"
	U32    DType = "U32"
	U16    DType = "U16"
	U8     DType = "U8"
	Bool   DType = "BOOL"
	F8E4M3 DType = "F8_E4M3" // readable as bytes only
	F8E5M2 DType = "F8_E5M2" // readable as bytes only
)

// Size returns the bytes of an element, 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case F64, I64, U64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case I8, U8, Bool, F8E4M3, F8E5M2:
		return 1
	}
	return 0
}

// rank orders the types as the reference writer does among tensors: wide ones first, so that all of them are aligned.
// Among types of one width the order is that of the reference's enumeration, from its end.
func (d DType) rank() int {
	return slices.Index([]DType{U64, I64, F64, F32, U32, I32, BF16, F16, U16, I16, F8E4M3, F8E5M2, I8, U8, Bool}, d)
}

// Info describes a stored tensor.
type Info struct {
	Name  string
	DType DType
	Shape []int       // [] is a scalar
	r     io.ReaderAt // the file with its bytes
	begin int64       // their range there
	end   int64
}

// Len returns the number of elements, 1 for a scalar.
func (i Info) Len() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// File is an open safetensors file. Its methods are safe for concurrent use if its ReaderAt is.
type File struct {
	r       io.ReaderAt
	closers []io.Closer
	name    string
	infos   []Info // in the order of their bytes
	index   map[string]int
	meta    map[string]string
}

// Open opens the file at path and checks its header. A file that breaks the format's rules gives an error wrapping [ErrCorrupt].
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	st, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	r, closer := mapped(file, st.Size())
	f, err := New(r, st.Size(), path)
	if err != nil {
		closer.Close()
		return nil, err
	}
	f.closers = []io.Closer{closer}
	return f, nil
}

// New reads the header of a file of size bytes behind r; name stands in errors. The caller keeps r open and closes it.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{r: r, name: name, index: map[string]int{}}
	if err := f.readHeader(size); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	return f, nil
}

// Close closes what [Open] or [OpenIndex] opened.
func (f *File) Close() error {
	var errs []error
	for _, c := range f.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Names returns the tensors' names in the order of their bytes.
func (f *File) Names() []string {
	names := make([]string, len(f.infos))
	for i := range f.infos {
		names[i] = f.infos[i].Name
	}
	return names
}

// Info describes the tensor of that name; an error wrapping [ErrMissing] if there is none.
func (f *File) Info(name string) (Info, error) {
	i, ok := f.index[name]
	if !ok {
		return Info{}, fmt.Errorf("safetensors: %s: %q: %w", f.name, name, ErrMissing)
	}
	return f.infos[i], nil
}

// corrupt makes an error that wraps ErrCorrupt and says what is wrong.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

func (f *File) readHeader(size int64) error {
	var first [8]byte
	if size < 8 {
		return corrupt("%d bytes are too few for a header", size)
	}
	if err := readAt(f.r, first[:], 0); err != nil {
		return err
	}
	h := binary.LittleEndian.Uint64(first[:])
	switch {
	case h > maxHeader:
		return corrupt("header of %d bytes, at most %d are allowed", h, maxHeader)
	case h > uint64(size-8):
		return corrupt("header of %d bytes in a file of %d: cut off, or another format", h, size)
	case h < 2:
		return corrupt("header of %d bytes", h)
	}
	text := make([]byte, h)
	if err := readAt(f.r, text, 8); err != nil {
		return err
	}
	if text[0] != '{' {
		return corrupt("the header does not begin with {")
	}
	if !utf8.Valid(text) {
		return corrupt("the header is not UTF-8")
	}
	if err := f.parseHeader(text); err != nil {
		return err
	}
	return f.place(8+int64(h), size)
}

// entry is a tensor's value in the header.
type entry struct {
	DType   DType     `json:"dtype"`
	Shape   *[]uint64 `json:"shape"`
	Offsets []uint64  `json:"data_offsets"` // relative to the end of the header
}

// parseHeader walks over the top object by hand, because encoding/json lets the last of two equal names win.
func (f *File) parseHeader(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if _, err := dec.Token(); err != nil {
		return corrupt("header: %v", err)
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return corrupt("header: %v", err)
		}
		name := tok.(string) // the decoder accepts nothing else as a key
		if name == "__metadata__" {
			if f.meta != nil {
				return corrupt("__metadata__ occurs twice")
			}
			if err := dec.Decode(&f.meta); err != nil {
				return corrupt("__metadata__: %v", err)
			}
			continue
		}
		var e entry
		if err := dec.Decode(&e); err != nil {
			return corrupt("tensor %q: %v", name, err)
		}
		if _, twice := f.index[name]; twice {
			return corrupt("tensor %q occurs twice", name)
		}
		info, err := e.info(name)
		if err != nil {
			return err
		}
		f.index[name] = len(f.infos)
		f.infos = append(f.infos, info)
	}
	if _, err := dec.Token(); err != nil {
		return corrupt("header: %v", err)
	}
	if rest := bytes.TrimRight(text[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return corrupt("header: %d bytes follow the object", len(rest))
	}
	return nil
}

// info checks a header's value by itself; its offsets are still relative.
func (e *entry) info(name string) (Info, error) {
	info := Info{Name: name, DType: e.DType}
	width := e.DType.Size()
	switch {
	case width == 0:
		return info, corrupt("tensor %q: unknown dtype %q", name, string(e.DType))
	case e.Shape == nil:
		return info, corrupt("tensor %q: no shape", name)
	case len(e.Offsets) != 2:
		return info, corrupt("tensor %q: data_offsets has %d numbers instead of 2", name, len(e.Offsets))
	case e.Offsets[0] > e.Offsets[1] || e.Offsets[1] > math.MaxInt64:
		return info, corrupt("tensor %q: bytes [%d, %d)", name, e.Offsets[0], e.Offsets[1])
	}
	size := uint64(width)
	info.Shape = make([]int, len(*e.Shape))
	for i, n := range *e.Shape {
		hi, lo := bits.Mul64(size, n)
		if hi != 0 || n > math.MaxInt {
			return info, corrupt("tensor %q: shape %v is too large", name, *e.Shape)
		}
		size, info.Shape[i] = lo, int(n)
	}
	if size != e.Offsets[1]-e.Offsets[0] {
		return info, corrupt("tensor %q: %s %v takes %d bytes, [%d, %d) are given", name, e.DType, info.Shape, size, e.Offsets[0], e.Offsets[1])
	}
	info.begin, info.end = int64(e.Offsets[0]), int64(e.Offsets[1])
	return info, nil
}

// place sorts the tensors by their bytes, checks that they cover the buffer [base, size) without gap or overlap, and makes
// their offsets absolute.
func (f *File) place(base, size int64) error {
	slices.SortFunc(f.infos, func(a, b Info) int {
		if a.begin != b.begin {
			return cmp.Compare(a.begin, b.begin)
		}
		return cmp.Compare(a.end, b.end) // an empty tensor before the one that begins where it lies
	})
	at := int64(0)
	for i := range f.infos {
		t := &f.infos[i]
		if t.begin != at {
			return corrupt("tensor %q begins at byte %d of the data, the one before ends at %d", t.Name, t.begin, at)
		}
		at = t.end
		if at > size-base {
			return corrupt("tensor %q ends at byte %d of the data, there are only %d: cut off", t.Name, at, size-base)
		}
		t.begin += base
		t.end += base
		t.r = f.r
		f.index[t.Name] = i
	}
	if at != size-base {
		return corrupt("the tensors end at byte %d of the data, the file at %d", at, size-base)
	}
	return nil
}

// readAt fills b from offset off; an early end is a corrupt file.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return corrupt("the file ends at byte %d, %d are expected", off+int64(n), off+int64(len(b)))
	}
	return err
}
