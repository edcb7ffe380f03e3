// Package torchfile reads the weights in files of PyTorch and NumPy, and writes PyTorch's: torch.save's zip form (.pt, .pth, .bin, .ckpt), its
// legacy form (before 1.6), TorchScript archives such as OpenAI's releases of CLIP, and .npz as Google's ViT come.
//
// A pickle is a program for a small stack machine that can call anything by its name. Here it is parsed, never executed: the machine
// (pickle.go) makes plain data only, the few constructors that tensors are made by stand in one table (builders.go), and an instance
// of any other class is kept as a name with attributes. Nothing in a file is trusted: every tensor is checked against its storage,
// every storage against the file; records of archives may not overlap, and have their checksums verified when they are first read.
//
// Start at [Open]. A [File] has the same methods as one of package safetensors.
package torchfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"diptych/checkpoints/safetensors"
)

// ErrCorrupt is wrapped by every error about a file that breaks its format's rules, or means more than weights.
var ErrCorrupt = errors.New("not a valid file of tensors")

// The forms of a file.
const (
	Zip         = "torch.save, zip"
	Legacy      = "torch.save, legacy"
	TorchScript = "TorchScript"
	NPZ         = "NumPy npz"
)

// pieceSize is how many bytes are given out at once; a multiple of every element's size.
const pieceSize = 1 << 16

// corrupt makes an error that wraps ErrCorrupt and says what is wrong.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// File is an open file of tensors. Its methods are safe for concurrent use if its ReaderAt is.
type File struct {
	Form string // Zip, Legacy, TorchScript or NPZ

	name    string
	size    int64
	closer  io.Closer
	tensors []tensor // in the order of their names
	values  map[string]any
	skipped []string
}

// tensor is a view of a storage.
type tensor struct {
	safetensors.Info
	from    storage
	offset  int64 // in elements
	strides []int64
	swap    bool // big-endian
}

// storage is a run of bytes in a file.
type storage interface {
	// bytes gives use the bytes [lo, hi) in pieces of at most pieceSize, whole elements of any type if lo is that of one.
	bytes(lo, hi int64, use func(b []byte) error) error
}

// Open opens the file at path, whatever its form; which one it is is recognised from its content. A file that breaks the
// rules gives an error wrapping [ErrCorrupt].
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("torchfile: %w", err)
	}
	st, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("torchfile: %w", err)
	}
	f, err := New(file, st.Size(), path)
	if err != nil {
		file.Close()
		return nil, err
	}
	f.closer = file
	return f, nil
}

// New reads the structure of a file of size bytes behind r; name stands in errors. The caller keeps r open and closes it.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{name: name, size: size, values: map[string]any{}}
	var head [4]byte
	if n, err := r.ReadAt(head[:], 0); n < len(head) && err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("torchfile: %s: %w", name, err)
	}
	var err error
	switch {
	case bytes.Equal(head[:], []byte("PK\x03\x04")):
		err = f.openZip(r)
	case head[0] == 0x80:
		f.Form = Legacy
		err = f.openLegacy(r)
	default:
		err = corrupt("neither a zip archive nor a pickle: the file begins with %q", head[:])
	}
	if err != nil {
		return nil, fmt.Errorf("torchfile: %s: %w", name, err)
	}
	return f, nil
}

// Close closes what [Open] opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Names returns the tensors' names in their order: keys of dicts and attributes of objects, joined by dots, and numbers for list items.
func (f *File) Names() []string {
	names := make([]string, len(f.tensors))
	for i := range f.tensors {
		names[i] = f.tensors[i].Name
	}
	return names
}

// Values returns what is no tensor in the file: int64, float64, string and bool values under their names. The caller must not write to it.
func (f *File) Values() map[string]any { return f.values }

// Skipped names the tensors of kinds that cannot be read, such as complex numbers and pickled NumPy objects.
func (f *File) Skipped() []string { return f.skipped }

func (f *File) find(name string) (*tensor, error) {
	i, ok := slices.BinarySearchFunc(f.tensors, name, func(t tensor, name string) int {
		switch {
		case t.Name < name:
			return -1
		case t.Name > name:
			return 1
		}
		return 0
	})
	if !ok {
		return nil, fmt.Errorf("torchfile: %s: %q: %w", f.name, name, safetensors.ErrMissing)
	}
	return &f.tensors[i], nil
}

// Info describes the tensor of that name; an error wrapping [safetensors.ErrMissing] if there is none.
func (f *File) Info(name string) (safetensors.Info, error) {
	t, err := f.find(name)
	if err != nil {
		return safetensors.Info{}, err
	}
	return t.Info, nil
}

// Stream gives use a tensor's elements in C order as little-endian bytes, piece by piece; a piece holds whole elements and is
// use's only until it returns. A record whose checksum is wrong gives an error, at the latest after its last piece.
func (f *File) Stream(name string, use func(b []byte) error) error {
	t, err := f.find(name)
	if err != nil {
		return err
	}
	if err := t.stream(use); err != nil {
		return fmt.Errorf("torchfile: %s: %q: %w", f.name, name, err)
	}
	return nil
}

// ReadFloat32 converts a tensor's elements to float32 into the caller's slice, whose length must be their number.
func (f *File) ReadFloat32(name string, dst []float32) error {
	t, err := f.find(name)
	if err != nil {
		return err
	}
	if len(dst) != t.Len() {
		return fmt.Errorf("torchfile: %s: %q has shape %v, %d elements; %d are wanted", f.name, name, t.Shape, t.Len(), len(dst))
	}
	width := t.DType.Size()
	return f.Stream(name, func(b []byte) error {
		n := len(b) / width
		if !t.DType.Widen(dst[:n], b) {
			return fmt.Errorf("%s is not read as float32", t.DType)
		}
		dst = dst[n:]
		return nil
	})
}

// Float32 is [File.ReadFloat32] into a new slice; it returns the shape too.
func (f *File) Float32(name string) ([]float32, []int, error) {
	t, err := f.find(name)
	if err != nil {
		return nil, nil, err
	}
	dst := make([]float32, t.Len())
	return dst, t.Shape, f.ReadFloat32(name, dst)
}

// contiguous reports whether the elements lie one after the other in C order.
func (t *tensor) contiguous() bool {
	next := int64(1)
	for i := len(t.Shape) - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.strides[i] != next {
			return false
		}
		next *= int64(t.Shape[i])
	}
	return true
}

func (t *tensor) stream(use func(b []byte) error) error {
	width, count := int64(t.DType.Size()), int64(t.Len())
	if count == 0 {
		return nil
	}
	if t.swap && width > 1 {
		plain := use
		use = func(b []byte) error {
			b = slices.Clone(b)
			for e := b; len(e) > 0; e = e[width:] {
				slices.Reverse(e[:width])
			}
			return plain(b)
		}
	}
	if t.contiguous() {
		return t.from.bytes(t.offset*width, (t.offset+count)*width, use)
	}
	shape := make([]int64, len(t.Shape))
	for i, n := range t.Shape {
		shape[i] = int64(n)
	}
	_, end, _ := extent(t.offset, shape, t.strides)
	span := make([]byte, 0, (end-t.offset)*width)
	if err := t.from.bytes(t.offset*width, end*width, func(b []byte) error { span = append(span, b...); return nil }); err != nil {
		return err
	}
	return gather(span, shape, t.strides, int(width), use)
}

// gather gives out the elements of a strided view of span in C order.
func gather(span []byte, shape, strides []int64, width int, use func(b []byte) error) error {
	buf := make([]byte, 0, pieceSize)
	index := make([]int64, len(shape))
	for at := int64(0); ; {
		buf = append(buf, span[at*int64(width):][:width]...)
		i := len(shape) - 1
		for ; i >= 0; i-- { // the next element in C order
			index[i]++
			at += strides[i]
			if index[i] < shape[i] {
				break
			}
			at -= index[i] * strides[i]
			index[i] = 0
		}
		if len(buf) == cap(buf) || i < 0 {
			if err := use(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		if i < 0 {
			return nil
		}
	}
}

// region is a storage that lies in the file as it is.
type region struct {
	r     io.ReaderAt
	at    int64
	rec   *record     // the record that it lies in; nil where the format has no checksum
	whole atomic.Bool // the record was read to its end and has its checksum
}

func (s *region) bytes(lo, hi int64, use func(b []byte) error) error {
	if s.rec == nil || s.whole.Load() {
		return s.read(lo, hi, use)
	}
	if lo > 0 || hi < s.rec.size || s.at != s.rec.at { // a part: the record is read before
		if err := s.rec.verify(); err != nil {
			return err
		}
		s.whole.Store(true)
		return s.read(lo, hi, use)
	}
	sum := uint32(0)
	err := s.read(lo, hi, func(b []byte) error {
		sum = crc32.Update(sum, crc32.IEEETable, b)
		return use(b)
	})
	if err == nil && sum != s.rec.CRC32 {
		err = corrupt("record %q does not have its checksum", s.rec.Name)
	}
	if err == nil {
		s.whole.Store(true)
	}
	return err
}

func (s *region) read(lo, hi int64, use func(b []byte) error) error {
	whole := buffers.Get().(*[]byte)
	defer buffers.Put(whole)
	buf := *whole
	for lo < hi {
		buf = buf[:min(int64(len(buf)), hi-lo)]
		if n, err := s.r.ReadAt(buf, s.at+lo); n < len(buf) {
			if err == nil || errors.Is(err, io.EOF) {
				err = corrupt("the file ends at byte %d", s.at+lo+int64(n))
			}
			return err
		}
		for b := buf; len(b) > 0; b = b[min(pieceSize, len(b)):] {
			if err := use(b[:min(pieceSize, len(b))]); err != nil {
				return err
			}
		}
		lo += int64(len(buf))
	}
	return nil
}

// buffers are what files are read into.
var buffers = sync.Pool{New: func() any { b := make([]byte, 8*pieceSize); return &b }}

// slack is how many bytes of elements the views of a small file may repeat.
const slack = 64 << 20

// add checks views against their storages and takes them in. size and from describe a storage by its key.
func (f *File) add(found []named, size func(s *storageRef) (int64, error), from func(key string) storage) error {
	total := int64(0)
	for _, n := range found {
		t := n.tensor
		dtype, known := classes[t.storage.class]
		if t.dtype != "" {
			dtype, known = dtypes[t.dtype]
		}
		if !known {
			f.skipped = append(f.skipped, n.name)
			continue
		}
		width := int64(dtype.Size())
		bytes, err := size(t.storage)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", n.name, err)
		}
		count, end, ok := extent(t.offset, t.shape, t.strides)
		if !ok || end > bytes/width {
			return corrupt("tensor %q: shape %v with strides %v from element %d reads past its storage %s of %d elements",
				n.name, t.shape, t.strides, t.offset, t.storage.key, bytes/width)
		}
		if count > (f.size+slack)/width {
			return corrupt("tensor %q: shape %v repeats %d stored elements too often", n.name, t.shape, end-t.offset)
		}
		if total += count * width; total > 16*f.size+slack {
			return corrupt("the tensors have over %d bytes in a file of %d", total, f.size)
		}
		out := tensor{Info: safetensors.Info{Name: n.name, DType: dtype, Shape: make([]int, len(t.shape))}, from: from(t.storage.key), offset: t.offset, strides: t.strides}
		for i, d := range t.shape {
			if d > math.MaxInt {
				return corrupt("tensor %q: shape %v", n.name, t.shape)
			}
			out.Shape[i] = int(d)
		}
		f.tensors = append(f.tensors, out)
	}
	return f.sort()
}

// sort brings the tensors into the order of their names, of which none may occur twice.
func (f *File) sort() error {
	slices.SortFunc(f.tensors, func(a, b tensor) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	for i := range f.tensors[min(1, len(f.tensors)):] {
		if f.tensors[i].Name == f.tensors[i+1].Name {
			return corrupt("two tensors have the name %q", f.tensors[i].Name)
		}
	}
	slices.Sort(f.skipped)
	return nil
}

var le = binary.LittleEndian
