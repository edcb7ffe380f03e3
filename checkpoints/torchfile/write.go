package torchfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"strconv"

	"diptych/checkpoints/safetensors"
)

// alignment is where PyTorch puts storages in a file, so that they can be mapped.
const alignment = 64

// Write writes tensors as torch.save writes a state dict: a zip archive whose pickle holds an OrderedDict of contiguous tensors in
// the order they are given; with a key, such as PyTorch Lightning's state_dict, in a dict that has it there. Each tensor is produced
// twice, once for its checksum; memory stays at one piece.
// A type that PyTorch has no storage class for, or a name that occurs twice, is an error before anything is written.
func Write(w io.Writer, tensors []safetensors.Tensor, key string) error {
	text, err := statePickle(tensors, key)
	if err != nil {
		return fmt.Errorf("torchfile: %w", err)
	}
	out := bufio.NewWriterSize(w, 16*pieceSize)
	z := &zipWriter{w: out}
	z.bytes("archive/data.pkl", text)
	z.bytes("archive/byteorder", []byte("little"))
	for i, t := range tensors {
		z.record("archive/data/"+strconv.Itoa(i), t.Size(), t.Write)
	}
	z.bytes("archive/version", []byte("3\n"))
	if err := z.close(); err != nil {
		return fmt.Errorf("torchfile: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("torchfile: %w", err)
	}
	return nil
}

// statePickle returns the pickle, protocol 2, of an OrderedDict of tensors whose storages are numbered, or of a dict that has it under key.
func statePickle(tensors []safetensors.Tensor, key string) ([]byte, error) {
	class := map[safetensors.DType]string{}
	for name, d := range classes {
		if name != "UntypedStorage" {
			class[d] = name
		}
	}
	b := []byte("\x80\x02")
	if key != "" {
		b = pickleText(append(b, '}'), key)
	}
	b = append(b, "ccollections\nOrderedDict\n)R("...)
	seen := map[string]bool{}
	for i, t := range tensors {
		if class[t.DType] == "" {
			return nil, fmt.Errorf("%q: PyTorch has no storage of type %s", t.Name, t.DType)
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("the name %q is taken", t.Name)
		}
		seen[t.Name] = true
		count := int64(1)
		for _, d := range t.Shape {
			count *= int64(d)
		}
		if count*int64(t.DType.Size()) != t.Size() {
			return nil, fmt.Errorf("%q: %s %v takes %d bytes, the data have %d", t.Name, t.DType, t.Shape, count*int64(t.DType.Size()), t.Size())
		}
		b = pickleText(b, t.Name)
		b = append(b, "ctorch._utils\n_rebuild_tensor_v2\n(("...)
		b = pickleText(b, "storage")
		b = append(b, "ctorch\n"+class[t.DType]+"\n"...)
		b = pickleText(b, strconv.Itoa(i))
		b = pickleText(b, "cpu")
		b = pickleInt(b, count)
		b = append(b, "tQK\x00("...)
		strides := make([]int64, len(t.Shape))
		next := int64(1)
		for k := len(t.Shape) - 1; k >= 0; k-- {
			strides[k] = next
			next *= max(int64(t.Shape[k]), 1)
		}
		for _, d := range t.Shape {
			b = pickleInt(b, int64(d))
		}
		b = append(b, "t("...)
		for _, s := range strides {
			b = pickleInt(b, s)
		}
		b = append(b, "t\x89ccollections\nOrderedDict\n)RtR"...)
	}
	b = append(b, 'u')
	if key != "" {
		b = append(b, 's')
	}
	return append(b, '.'), nil
}

func pickleText(b []byte, s string) []byte {
	b = append(b, 'X')
	b = le.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func pickleInt(b []byte, v int64) []byte {
	switch {
	case v < 256:
		return append(b, 'K', byte(v))
	case v <= math.MaxInt32:
		return le.AppendUint32(append(b, 'J'), uint32(v))
	}
	return le.AppendUint64(append(b, 0x8a, 8), uint64(v))
}

// zipWriter writes stored records, each beginning at a multiple of alignment, with checksum and sizes before the content. Sizes and places
// are always given in zip64's fields where they need them. The first error sticks.
type zipWriter struct {
	w         io.Writer
	at        int64
	directory []byte
	count     uint64
	err       error
}

func (z *zipWriter) write(b []byte) {
	if z.err == nil {
		var n int
		n, z.err = z.w.Write(b)
		z.at += int64(n)
	}
}

func (z *zipWriter) bytes(name string, b []byte) {
	z.record(name, int64(len(b)), func(w io.Writer) error { _, err := w.Write(b); return err })
}

// record writes a record of size bytes that write produces, each time it is called.
func (z *zipWriter) record(name string, size int64, write func(w io.Writer) error) {
	if z.err != nil {
		return
	}
	sum := crc32.NewIEEE()
	if z.err = write(sum); z.err != nil {
		return
	}
	var sizes []byte // zip64: unpacked, packed
	short := uint32(size)
	if size >= math.MaxUint32 {
		short = math.MaxUint32
		sizes = le.AppendUint16(sizes, 1)
		sizes = le.AppendUint16(sizes, 16)
		sizes = le.AppendUint64(le.AppendUint64(sizes, uint64(size)), uint64(size))
	}
	header := z.at
	unpadded := header + 30 + int64(len(name)+len(sizes)) + 4
	pad := (alignment - unpadded%alignment) % alignment
	extra := append(le.AppendUint16(append([]byte(nil), "FB"...), uint16(pad)), make([]byte, pad)...) // PyTorch's padding field
	extra = append(sizes, extra...)

	common := func(b []byte) []byte { // of both headers, from the version that is needed to the lengths
		b = le.AppendUint16(b, 45)
		b = le.AppendUint16(b, 0x800)      // names are UTF-8
		b = append(b, 0, 0, 0, 0, 0x21, 0) // stored; 1980-01-01, so that equal tensors give equal bytes
		b = le.AppendUint32(b, sum.Sum32())
		b = le.AppendUint32(le.AppendUint32(b, short), short)
		return le.AppendUint16(b, uint16(len(name)))
	}
	local := common([]byte("PK\x03\x04"))
	local = le.AppendUint16(local, uint16(len(extra)))
	z.write(append(append(local, name...), extra...))

	entryExtra := sizes
	place := uint32(header)
	if header >= math.MaxUint32 {
		place = math.MaxUint32
		if len(sizes) == 0 {
			entryExtra = le.AppendUint16(le.AppendUint16(nil, 1), 8)
		} else {
			entryExtra = append([]byte(nil), sizes...)
			le.PutUint16(entryExtra[2:], 24)
		}
		entryExtra = le.AppendUint64(entryExtra, uint64(header))
	}
	entry := common([]byte("PK\x01\x02\x2d\x00"))
	entry = le.AppendUint16(entry, uint16(len(entryExtra)))
	entry = append(entry, make([]byte, 10)...) // comment, disk, attributes
	entry = le.AppendUint32(entry, place)
	z.directory = append(append(append(z.directory, entry...), name...), entryExtra...)
	z.count++
	if z.err != nil {
		return
	}
	again := &tally{w: z.w, sum: crc32.NewIEEE()}
	z.err = write(again)
	z.at += again.n
	if z.err == nil && (again.n != size || again.sum.Sum32() != sum.Sum32()) {
		z.err = fmt.Errorf("record %s changed while it was written", name)
	}
}

// tally counts and sums what is written.
type tally struct {
	w   io.Writer
	n   int64
	sum hash.Hash32
}

func (t *tally) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	t.n += int64(n)
	t.sum.Write(b[:n])
	return n, err
}

// close writes the directory and the end records.
func (z *zipWriter) close() error {
	begin, size := uint64(z.at), uint64(len(z.directory))
	z.write(z.directory)
	end64 := binary.LittleEndian.AppendUint64([]byte("PK\x06\x06"), 44)
	end64 = append(end64, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, v := range []uint64{z.count, z.count, size, begin} {
		end64 = le.AppendUint64(end64, v)
	}
	locator := le.AppendUint64([]byte("PK\x06\x07\x00\x00\x00\x00"), uint64(z.at))
	locator = le.AppendUint32(locator, 1)
	z.write(append(end64, locator...))
	end := []byte("PK\x05\x06\x00\x00\x00\x00")
	n := uint16(min(z.count, math.MaxUint16))
	end = le.AppendUint16(le.AppendUint16(end, n), n)
	end = le.AppendUint32(le.AppendUint32(end, uint32(min(size, math.MaxUint32))), uint32(min(begin, math.MaxUint32)))
	z.write(append(end, 0, 0))
	return z.err
}
