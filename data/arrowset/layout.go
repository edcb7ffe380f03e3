package arrowset

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"diptych/data/arrowset/flatbuf"
)

// This file reads the Arrow IPC file format (arrow.apache.org/docs/format/Columnar.html, format/{File,Schema,Message}.fbs)
// as far as the columns of a data set need: binary, utf8 and list<utf8> without missing values, buffers plain or zstd.
// Whatever the bytes, it returns errors and allocates no more than the file is long plus maxBuffer.

const (
	magic     = "ARROW1"
	maxBuffer = 256 << 20 // bytes of one buffer, unpacked, so that a damaged file cannot claim all memory
	maxMeta   = 16 << 20  // bytes of a footer or of a record batch's header
)

// block is the place of a record batch in the file: its header, then its body.
type block struct {
	offset, body int64
	header       int
}

// readAll reads n bytes at offset; the caller has checked that they lie in the file.
func readAll(r io.ReaderAt, offset int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if got, err := r.ReadAt(b, offset); got < n {
		if err == nil || err == io.EOF {
			return nil, fmt.Errorf("%w: it ends at byte %d, in the middle of something that ends at byte %d", ErrCorrupt, offset+int64(got), offset+int64(n))
		}
		return nil, err
	}
	return b, nil
}

// readFooter returns the columns and the record batches of an Arrow file of size bytes.
func readFooter(r io.ReaderAt, size int64) ([]Column, []block, error) {
	const tail = 4 + len(magic)
	if size < int64(8+tail) {
		return nil, nil, fmt.Errorf("%w: it has %d bytes, too few for an Arrow file; copy or import it again", ErrCorrupt, size)
	}
	head, err := readAll(r, 0, len(magic))
	if err != nil {
		return nil, nil, err
	}
	end, err := readAll(r, size-int64(tail), tail)
	if err != nil {
		return nil, nil, err
	}
	if string(head) != magic {
		return nil, nil, fmt.Errorf("%w: it begins with %q, not with Arrow's magic number %q; is it an Arrow IPC file?", ErrCorrupt, head, magic)
	}
	if string(end[4:]) != magic {
		return nil, nil, fmt.Errorf("%w: it ends with %q, not with Arrow's magic number %q: the file is truncated; copy or import it again", ErrCorrupt, end[4:], magic)
	}
	n := int64(binary.LittleEndian.Uint32(end))
	if n < 8 || n > size-int64(8+tail) || n > maxMeta {
		return nil, nil, fmt.Errorf("%w: its footer claims %d bytes", ErrCorrupt, n)
	}
	foot, err := readAll(r, size-int64(tail)-n, int(n))
	if err != nil {
		return nil, nil, err
	}
	f := &flatbuf.Reader{B: foot}
	root := f.Root()
	cols, err := readSchema(f, f.Table(root, 1))
	if err != nil {
		return nil, nil, err
	}
	if _, dicts := f.Vector(root, 2, 24); dicts != 0 {
		return nil, nil, fmt.Errorf("%w: it has dictionary-encoded columns; write them as plain utf8", ErrSchema)
	}
	at, count := f.Vector(root, 3, 24)
	blocks := make([]block, count)
	for i := range blocks {
		b := block{offset: f.I64(at + 24*i), header: f.I32(at + 24*i + 8), body: f.I64(at + 24*i + 16)}
		if b.offset < 8 || b.header < 16 || b.header > maxMeta || b.body < 0 || b.offset > size || b.body > size || b.offset+int64(b.header)+b.body > size {
			return nil, nil, fmt.Errorf("%w: record batch %d claims bytes %d to %d of a file of %d", ErrCorrupt, i, b.offset, b.offset+int64(b.header)+b.body, size)
		}
		blocks[i] = b
	}
	if f.Bad {
		return nil, nil, fmt.Errorf("%w: its footer does not decode", ErrCorrupt)
	}
	return cols, blocks, nil
}

// Type numbers of Schema.fbs.
const (
	fbBinary = 4
	fbUtf8   = 5
	fbList   = 12
)

func readSchema(f *flatbuf.Reader, schema int) ([]Column, error) {
	if f.FieldU16(schema, 0) != 0 {
		return nil, fmt.Errorf("%w: its numbers are big-endian; write it on a little-endian machine", ErrSchema)
	}
	at, n := f.Vector(schema, 1, 4)
	cols := make([]Column, n)
	kind := func(field int) int { return f.FieldU8(field, 2) }
	for i := range cols {
		field := f.Follow(at + 4*i)
		cols[i] = Column{Name: f.Text(field, 0)}
		if f.Bad {
			return nil, fmt.Errorf("%w: its schema does not decode", ErrCorrupt)
		}
		switch k := kind(field); k {
		case fbBinary:
			cols[i].Type = typeBinary
		case fbUtf8:
			cols[i].Type = typeString
		case fbList:
			if kids, count := f.Vector(field, 5, 4); count == 1 && kind(f.Follow(kids)) == fbUtf8 {
				cols[i].Type = typeStrings
			}
		}
		if cols[i].Type == "" {
			return nil, fmt.Errorf("%w: column %q has Arrow type %d of Schema.fbs; binary, utf8 and list<utf8> are read", ErrSchema, cols[i].Name, kind(field))
		}
		if f.Field(field, 4) != 0 {
			return nil, fmt.Errorf("%w: column %q is dictionary-encoded; write it as plain utf8", ErrSchema, cols[i].Name)
		}
	}
	return cols, checkColumns(cols)
}

// checkColumns checks that the columns make a data set.
func checkColumns(cols []Column) error {
	for i, c := range cols {
		want := standardType(c.Name)
		if want == "" {
			want = typeString // an attribute
		}
		if c.Type != want {
			return fmt.Errorf("%w: column %q has type %s, must be %s", ErrSchema, c.Name, c.Type, want)
		}
		if slices.ContainsFunc(cols[:i], func(o Column) bool { return o.Name == c.Name }) {
			return fmt.Errorf("%w: there are two columns %q", ErrSchema, c.Name)
		}
	}
	for _, name := range required {
		if !slices.ContainsFunc(cols, func(c Column) bool { return c.Name == name }) {
			return fmt.Errorf("%w: column %q is missing; a data set has %q", ErrSchema, name, required)
		}
	}
	return nil
}

// span is a range of a record batch's body.
type span struct{ off, len int64 }

func (s span) end() int64 { return s.off + s.len }

// batchReader holds one record batch without the pictures' bytes.
type batchReader struct {
	cols    []Column
	rows    int
	first   []int  // index in buffers of each column's first buffer
	buffers []span // by depth-first order of the columns: validity, offsets, data
	packed  bool   // buffers are zstd, each after its length
	body    int64  // where the body begins in the file
	image   span   // the pictures' bytes, not read
	second  span   // those of the second pictures, likewise
	read    []part // what of the body was read, in order
	zstd    *zstd.Decoder
}

// part is a piece of a body.
type part struct {
	span
	bytes []byte
}

// readBatch reads the header of a record batch and all columns but the pictures.
func readBatch(r io.ReaderAt, blk block, cols []Column, dec *zstd.Decoder) (*batchReader, error) {
	head, err := readAll(r, blk.offset, blk.header)
	if err != nil {
		return nil, err
	}
	// Files before format V5 (2020) have no continuation marker; such a header fails the check of its size.
	if size := binary.LittleEndian.Uint32(head[4:]); binary.LittleEndian.Uint32(head) != 0xffffffff || int64(size) > int64(len(head)-8) {
		return nil, fmt.Errorf("%w: its header at byte %d does not decode", ErrCorrupt, blk.offset)
	}
	f := &flatbuf.Reader{B: head[8:]}
	b := &batchReader{cols: cols, body: blk.offset + int64(blk.header), zstd: dec}
	root := f.Root()
	if f.FieldU8(root, 1) != 3 {
		return nil, fmt.Errorf("%w: the message at byte %d is no record batch", ErrCorrupt, blk.offset)
	}
	batch := f.Table(root, 2)
	rows := f.FieldI64(batch, 0)
	if compression := f.Table(batch, 3); compression != 0 {
		b.packed = true
		if f.FieldU8(compression, 0) != 1 {
			return nil, fmt.Errorf("%w: its buffers are compressed by another method than zstd", ErrSchema)
		}
	}
	nodes, numNodes := f.Vector(batch, 1, 16)
	buffers, numBuffers := f.Vector(batch, 2, 16)
	b.buffers = make([]span, numBuffers)
	for i := range b.buffers {
		s := span{f.I64(buffers + 16*i), f.I64(buffers + 16*i + 8)}
		if s.off < 0 || s.len < 0 || s.off > blk.body || s.len > blk.body-s.off {
			return nil, fmt.Errorf("%w: buffer %d claims bytes %d to %d of a body of %d", ErrCorrupt, i, s.off, s.end(), blk.body)
		}
		b.buffers[i] = s
	}
	node, buffer := 0, 0
	for _, c := range cols {
		b.first = append(b.first, buffer)
		deep := 1
		buffer += 3
		if c.Type == typeStrings {
			deep, buffer = 2, buffer+2
		}
		for range deep {
			if node < numNodes && f.I64(nodes+16*node+8) != 0 {
				return nil, fmt.Errorf("%w: column %q has missing values (nulls); fill them", ErrSchema, c.Name)
			}
			node++
		}
		if buffer <= numBuffers && c.Name == ColImage {
			b.image = b.buffers[buffer-1]
		} else if buffer <= numBuffers && c.Name == ColSecondImage {
			b.second = b.buffers[buffer-1]
		}
	}
	if f.Bad || node != numNodes || buffer != numBuffers || rows < 0 || rows > maxRows {
		return nil, fmt.Errorf("%w: the header at byte %d does not fit the schema", ErrCorrupt, blk.offset)
	}
	b.rows = int(rows)
	unread := []span{b.image, {blk.body, 0}}
	if b.second.len > 0 {
		unread = append(unread, b.second)
		slices.SortFunc(unread, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	}
	from := int64(0)
	for _, s := range unread {
		if s.off < from {
			return nil, fmt.Errorf("%w: two buffers overlap", ErrCorrupt)
		}
		bytes, err := readAll(r, b.body+from, int(s.off-from))
		if err != nil {
			return nil, err
		}
		b.read = append(b.read, part{span{from, s.off - from}, bytes})
		from = s.end()
	}
	return b, nil
}

// buffer returns the unpacked bytes of a buffer other than the pictures'.
func (b *batchReader) buffer(i int) ([]byte, error) {
	s := b.buffers[i]
	if s.len == 0 {
		return nil, nil
	}
	for _, p := range b.read {
		if s.off >= p.off && s.end() <= p.end() {
			return b.unpack(p.bytes[s.off-p.off : s.end()-p.off])
		}
	}
	return nil, fmt.Errorf("%w: two buffers overlap", ErrCorrupt)
}

func (b *batchReader) unpack(raw []byte) ([]byte, error) {
	if !b.packed || len(raw) == 0 {
		return raw, nil
	}
	return unpack(b.zstd, raw)
}

// unpack undoes the compression of one buffer: its length as int64, then a zstd frame; length -1 means plain bytes.
func unpack(dec *zstd.Decoder, raw []byte) ([]byte, error) {
	if len(raw) < 8 {
		return nil, fmt.Errorf("%w: a compressed buffer has %d bytes", ErrCorrupt, len(raw))
	}
	n := int64(binary.LittleEndian.Uint64(raw))
	if n == -1 {
		return raw[8:], nil
	}
	if n < 0 || n > maxBuffer {
		return nil, fmt.Errorf("%w: a buffer claims %d bytes; at most %d are read", ErrCorrupt, n, maxBuffer)
	}
	out, err := dec.DecodeAll(raw[8:], make([]byte, 0, min(n, 1<<20)))
	if err != nil {
		return nil, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
	}
	if int64(len(out)) != n {
		return nil, fmt.Errorf("%w: a buffer has %d bytes, %d were written", ErrCorrupt, len(out), n)
	}
	return out, nil
}

// offsets are the int32 bounds of n values in a buffer of dataLen bytes or elements, checked to rise.
type offsets []byte

func (o offsets) at(i int) int { return int(int32(binary.LittleEndian.Uint32(o[4*i:]))) }

func (b *batchReader) offsets(i, n, dataLen int) (offsets, error) {
	raw, err := b.buffer(i)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return offsets{0, 0, 0, 0}, nil
	}
	if len(raw)/4 < n+1 {
		return nil, fmt.Errorf("%w: %d bytes of offsets for %d values", ErrCorrupt, len(raw), n)
	}
	o, last := offsets(raw), 0
	for i := range n + 1 {
		at := o.at(i)
		if at < last || dataLen >= 0 && at > dataLen {
			return nil, fmt.Errorf("%w: offset %d of a value is outside of its column", ErrCorrupt, at)
		}
		last = at
	}
	return o, nil
}

// text returns the bounds and the bytes of n utf8 values whose buffers begin at i.
func (b *batchReader) text(i, n int) (offsets, []byte, error) {
	data, err := b.buffer(i + 2)
	if err != nil {
		return nil, nil, err
	}
	o, err := b.offsets(i+1, n, len(data))
	return o, data, err
}
