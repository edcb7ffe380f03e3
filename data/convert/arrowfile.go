package convert

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
)

// This file reads the Arrow IPC formats, file and stream (arrow.apache.org/docs/format/Columnar.html, format/{Schema,
// Message}.fbs), value by value through small windows: the record batches of ViLT's files hold up to 2 GiB of pictures, and
// the Arrow library's reader would hold a whole batch, allocates what a damaged file claims, and panics where it does not fit.

const (
	arrowMagic    = "ARROW1"
	maxArrowMeta  = 64 << 20  // bytes of one message's header
	maxArrowDepth = 32        // levels of a column's type
	maxArrowCols  = 10_000    // columns with all their members
	maxValue      = 256 << 20 // bytes of one value: what a data set can hold
	maxListed     = 1 << 16   // values of one row in a list
)

// Numbers of types in Schema.fbs.
const (
	arrowNull = iota + 1
	arrowInt
	arrowFloat
	arrowBinary
	arrowUtf8
	arrowBool
	arrowDecimal
	arrowDate
	arrowTime
	arrowTimestamp
	arrowInterval
	arrowList
	arrowStruct
	arrowUnion
	arrowFixedBinary
	arrowFixedList
	arrowMap
	arrowDuration
	arrowLargeBinary
	arrowLargeUtf8
	arrowLargeList
	arrowRunEnd
	arrowBinaryView
	arrowUtf8View
	arrowListView
	arrowLargeListView
)

var arrowTypeNames = [...]string{"", "null", "int", "float", "binary", "utf8", "bool", "decimal", "date", "time", "timestamp", "interval", "list",
	"struct", "union", "fixed_size_binary", "fixed_size_list", "map", "duration", "large_binary", "large_utf8", "large_list", "run_end_encoded",
	"binary_view", "utf8_view", "list_view", "large_list_view"}

// arrowField is a column or a member of one.
type arrowField struct {
	name   string
	typ    int
	width  int  // bytes of a number
	signed bool // of an int
	dense  bool // of a union
	size   int  // values of a fixed_size_list
	kids   []*arrowField
	dict   *arrowField // the type of the index, if the values are in dictionary dictID
	dictID int64

	// In the record batch at hand: its first node and buffer, and the least offset that the next value may have.
	node, buffer int
	low          int64
}

// arrowFile is a file opened for reading; it is a table.
type arrowFile struct {
	file    io.ReaderAt
	end     int64 // where the messages end
	at      int64 // of the next message
	fields  []*arrowField
	paths   [][]*arrowField // of each leaf
	columns []leaf
	classes map[string][]string
	dicts   map[int64][]string
	chosen  []int
	batch   *arrowBatch
	number  int // of the batch
	row     int64
}

// openArrow reads the schema. Its errors, like those of next, do not name the file.
func openArrow(r io.ReaderAt, size int64) (*arrowFile, error) {
	a := &arrowFile{file: r, end: size, dicts: map[int64][]string{}, number: -1}
	head := make([]byte, min(size, 8))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case len(head) < 8:
		return nil, fmt.Errorf("%w: it has %d bytes, too few for an Arrow file", ErrInput, size)
	case string(head[:6]) == arrowMagic:
		tail := make([]byte, 10)
		if _, err := r.ReadAt(tail, max(size-10, 0)); err != nil && err != io.EOF {
			return nil, err
		}
		foot := int64(binary.LittleEndian.Uint32(tail))
		if string(tail[4:]) != arrowMagic {
			return nil, fmt.Errorf("%w: it ends at byte %d with %q, not with Arrow's magic number %q: the file is truncated", ErrInput, size, tail[4:], arrowMagic)
		}
		if foot > size-18 {
			return nil, fmt.Errorf("%w: its footer claims %d bytes of a file of %d", ErrInput, foot, size)
		}
		a.at, a.end = 8, size-10-foot
	case string(head[:4]) == "PAR1":
		return nil, fmt.Errorf("%w: it is a Parquet file: use `trainer data import parquet`", ErrInput)
	case string(head[:4]) == "FEA1":
		return nil, fmt.Errorf("%w: it is a Feather file of version 1; write it as version 2", ErrInput)
	}
	m, err := a.message()
	if err == io.EOF || err == nil && m.kind != 1 {
		err = fmt.Errorf("%w: it does not begin with a schema; is it an Arrow IPC file?", ErrInput)
	}
	if err != nil {
		return nil, err
	}
	return a, a.schema(m)
}

// arrowMessage is the header of a message and the place of its body.
type arrowMessage struct {
	flatbuffer
	offset        int64 // in the file
	kind, version int
	header        int
	body          span
}

// span is a range of a file.
type span struct{ off, len int64 }

// message reads the next message's header; io.EOF after the last one.
func (a *arrowFile) message() (*arrowMessage, error) {
	m := &arrowMessage{offset: a.at}
	cut := func(until int64) error {
		return fmt.Errorf("%w: the message at byte %d claims to end at byte %d, the file's messages end at %d: it is truncated or damaged", ErrInput, m.offset, until, a.end)
	}
	word := func() (int32, error) {
		if a.end-a.at < 4 {
			return 0, cut(a.at + 4)
		}
		var b [4]byte
		if _, err := a.file.ReadAt(b[:], a.at); err != nil && err != io.EOF {
			return 0, err
		}
		a.at += 4
		return int32(binary.LittleEndian.Uint32(b[:])), nil
	}
	if a.at == a.end {
		return nil, io.EOF
	}
	n, err := word()
	if err == nil && n == -1 { // files before format V5 (2020) have no such mark
		n, err = word()
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if n < 0 || n > maxArrowMeta {
		return nil, fmt.Errorf("%w: the message at byte %d claims a header of %d bytes; is it an Arrow IPC file?", ErrInput, m.offset, n)
	}
	if int64(n) > a.end-a.at {
		return nil, cut(a.at + int64(n))
	}
	m.b = make([]byte, n)
	if _, err := a.file.ReadAt(m.b, a.at); err != nil && err != io.EOF {
		return nil, err
	}
	a.at += int64(n)
	root := m.i32(0)
	m.version, m.kind, m.header = m.int16Field(root, 0), m.byteField(root, 1), m.table(root, 2)
	m.body = span{a.at, m.int64Field(root, 3)}
	if m.bad || m.header == 0 || m.body.len < 0 {
		return nil, fmt.Errorf("%w: the header of the message at byte %d does not decode", ErrInput, m.offset)
	}
	if m.body.len > a.end-a.at {
		return nil, cut(a.at + m.body.len)
	}
	a.at += m.body.len
	return m, nil
}

func (a *arrowFile) schema(m *arrowMessage) error {
	if m.int16Field(m.header, 0) != 0 {
		return fmt.Errorf("%w: its numbers are big-endian; write it on a little-endian machine", ErrInput)
	}
	at, n := m.vector(m.header, 1, 4)
	count := 0
	for i := range n {
		f := m.column(at+4*i+m.i32(at+4*i), 0, &count)
		if m.bad {
			return fmt.Errorf("%w: the schema at byte %d does not decode, or has more than %d columns or %d levels", ErrInput, m.offset, maxArrowCols, maxArrowDepth)
		}
		a.fields = append(a.fields, f)
		a.flatten(f, f.name, nil, false)
	}
	pairs, n := m.vector(m.header, 2, 4)
	for i := range n {
		pair := pairs + 4*i + m.i32(pairs+4*i)
		if m.text(pair, 0) == "huggingface" {
			a.classes = classNames(m.text(pair, 1))
		}
	}
	if m.bad {
		return fmt.Errorf("%w: the schema at byte %d does not decode", ErrInput, m.offset)
	}
	return nil
}

// column reads a Field table; count bounds how many there are, whatever refers to what.
func (m *arrowMessage) column(at, depth int, count *int) *arrowField {
	f := &arrowField{}
	if *count++; *count > maxArrowCols || depth > maxArrowDepth {
		m.bad = true
	}
	if m.bad {
		return f
	}
	f.name, f.typ = m.text(at, 0), m.byteField(at, 2)
	number := func(f *arrowField, typ int) {
		f.width, f.signed = int(int32(m.i32Field(typ, 0)))/8, m.byteField(typ, 1) != 0
		if f.width != 1 && f.width != 2 && f.width != 4 && f.width != 8 {
			m.bad = true
		}
	}
	switch typ := m.table(at, 3); f.typ {
	case arrowInt:
		number(f, typ)
	case arrowFloat:
		f.width = []int{2, 4, 8, 0}[min(m.int16Field(typ, 0), 3)]
	case arrowUnion:
		f.dense = m.int16Field(typ, 0) == 1
	case arrowFixedList:
		if f.size = m.i32Field(typ, 0); f.size < 0 {
			m.bad = true
		}
	}
	if dict := m.table(at, 4); dict != 0 {
		f.dictID = m.int64Field(dict, 0)
		f.dict = &arrowField{typ: arrowInt, width: 4, signed: true}
		if typ := m.table(dict, 1); typ != 0 {
			number(f.dict, typ)
		}
	}
	kids, n := m.vector(at, 5, 4)
	for i := range n {
		f.kids = append(f.kids, m.column(kids+4*i+m.i32(kids+4*i), depth+1, count))
		if m.bad {
			return f
		}
	}
	switch f.typ {
	case arrowList, arrowLargeList, arrowFixedList, arrowMap:
		m.bad = m.bad || n != 1
	}
	return f
}

func (f *flatbuffer) i32Field(table, slot int) int {
	if at := f.field(table, slot); at != 0 {
		return f.i32(at)
	}
	return 0
}

// flatten lists the leaves of a column.
func (a *arrowFile) flatten(f *arrowField, name string, above []*arrowField, repeated bool) {
	path := append(append([]*arrowField{}, above...), f)
	l := leaf{name: name, typ: "?", repeated: repeated}
	if f.typ < len(arrowTypeNames) {
		l.typ = arrowTypeNames[f.typ]
	}
	switch f.typ {
	case arrowStruct:
		for _, kid := range f.kids {
			a.flatten(kid, name+"."+kid.name, path, repeated)
		}
		return
	case arrowList, arrowLargeList, arrowFixedList:
		if f.dict == nil {
			a.flatten(f.kids[0], name, path, true)
			return
		}
	case arrowBinary, arrowLargeBinary:
		l.kind = leafBytes
	case arrowUtf8, arrowLargeUtf8:
		l.kind = leafText
	case arrowInt, arrowBool:
		l.kind = leafNumber
	case arrowFloat:
		if f.width >= 4 {
			l.kind = leafNumber
		}
	}
	if f.dict != nil {
		l.typ = "dictionary<" + l.typ + ">"
		if l.kind != leafText {
			l.kind = leafOther
		}
	}
	a.columns, a.paths = append(a.columns, l), append(a.paths, path)
}

func (a *arrowFile) leaves() []leaf                  { return a.columns }
func (a *arrowFile) classNames() map[string][]string { return a.classes }
func (a *arrowFile) choose(leaves []int)             { a.chosen = leaves }
func (a *arrowFile) where() string                   { return fmt.Sprintf("record batch %d, row %d", a.number, a.row) }

// next returns the values of the next row, of each chosen leaf those that are there.
func (a *arrowFile) next() ([][]value, error) {
	for a.row++; a.batch == nil || a.row >= a.batch.rows; {
		m, err := a.message()
		if err != nil {
			return nil, err
		}
		switch m.kind {
		case 2:
			if err := a.dictionary(m); err != nil {
				return nil, fmt.Errorf("dictionary at byte %d: %w", m.offset, err)
			}
		case 3:
			a.number++
			if a.batch, err = a.newBatch(m, m.header, a.fields); err != nil {
				return nil, fmt.Errorf("record batch %d at byte %d: %w", a.number, m.offset, err)
			}
			a.row = 0
		default:
			return nil, fmt.Errorf("%w: the message at byte %d is of kind %d, not a record batch", ErrInput, m.offset, m.kind)
		}
	}
	out := make([][]value, len(a.chosen))
	for k, c := range a.chosen {
		if err := a.batch.visit(a.paths[c], a.row, &out[k]); err != nil {
			return nil, fmt.Errorf("%s: column %s: %w", a.where(), a.columns[c].name, err)
		}
	}
	return out, nil
}

// arrowBatch is a record batch being read.
type arrowBatch struct {
	file    *arrowFile
	rows    int64
	nodes   []arrowNode
	buffers []window
}

type arrowNode struct{ length, nulls int64 }

func (a *arrowFile) newBatch(m *arrowMessage, batch int, fields []*arrowField) (*arrowBatch, error) {
	b := &arrowBatch{file: a, rows: m.int64Field(batch, 0)}
	codec := -1
	if compression := m.table(batch, 3); compression != 0 {
		codec = m.byteField(compression, 0)
		if codec > 1 {
			return nil, fmt.Errorf("%w: its buffers are compressed by unknown method %d", ErrInput, codec)
		}
	}
	at, n := m.vector(batch, 1, 16)
	for i := range n {
		b.nodes = append(b.nodes, arrowNode{m.i64(at + 16*i), m.i64(at + 16*i + 8)})
	}
	at, n = m.vector(batch, 2, 16)
	for i := range n {
		s := span{m.i64(at + 16*i), m.i64(at + 16*i + 8)}
		if s.off < 0 || s.len < 0 || s.off > m.body.len || s.len > m.body.len-s.off {
			return nil, fmt.Errorf("%w: buffer %d claims %d bytes at byte %d of a body of %d", ErrInput, i, s.len, s.off, m.body.len)
		}
		b.buffers = append(b.buffers, window{file: a.file, place: span{m.body.off + s.off, s.len}, size: s.len, codec: codec})
	}
	views, n := m.vector(batch, 4, 8)
	node, buffer, view := 0, 0, 0
	var assign func(fields []*arrowField)
	assign = func(fields []*arrowField) {
		for _, f := range fields {
			f.node, f.buffer, f.low = node, buffer, 0
			node++
			if f.dict != nil {
				buffer += 2
				continue
			}
			switch f.typ {
			case arrowNull, arrowRunEnd:
			case arrowStruct, arrowFixedList:
				buffer++
			case arrowBinary, arrowUtf8, arrowLargeBinary, arrowLargeUtf8, arrowListView, arrowLargeListView:
				buffer += 3
			case arrowBinaryView, arrowUtf8View:
				buffer += 2
				if view < n {
					buffer += int(min(max(m.i64(views+8*view), 0), int64(len(b.buffers))))
				}
				view++
			case arrowUnion:
				buffer++
				if f.dense {
					buffer++
				}
				if m.version < 4 { // before V5 unions had a validity buffer
					buffer++
				}
			default: // numbers; lists, whose values are the kid's
				buffer += 2
			}
			assign(f.kids)
		}
	}
	assign(fields)
	if m.bad || node != len(b.nodes) || buffer != len(b.buffers) || b.rows < 0 {
		return nil, fmt.Errorf("%w: its header (%d rows, %d columns and members, %d buffers) does not fit the schema (%d, %d)", ErrInput, b.rows, len(b.nodes), len(b.buffers), node, buffer)
	}
	return b, nil
}

// dictionary reads the values of dictionary-encoded columns.
func (a *arrowFile) dictionary(m *arrowMessage) error {
	id, delta := m.int64Field(m.header, 0), m.byteField(m.header, 2) != 0
	var find func(fields []*arrowField) *arrowField
	find = func(fields []*arrowField) *arrowField {
		for _, f := range fields {
			if f.dict != nil && f.dictID == id {
				return f
			}
			if kid := find(f.kids); kid != nil {
				return kid
			}
		}
		return nil
	}
	f := find(a.fields)
	if f == nil {
		return fmt.Errorf("%w: no column has dictionary %d", ErrInput, id)
	}
	if f.typ != arrowUtf8 && f.typ != arrowLargeUtf8 {
		return nil // such columns are not read
	}
	values := &arrowField{typ: f.typ}
	b, err := a.newBatch(m, m.table(m.header, 1), []*arrowField{values})
	if err != nil {
		return err
	}
	if !delta {
		a.dicts[id] = nil
	}
	var out []value
	for i := range b.nodes[0].length {
		out = out[:0]
		if err := b.visit([]*arrowField{values}, i, &out); err != nil {
			return fmt.Errorf("value %d: %w", i, err)
		}
		text := "" // of a null
		if len(out) > 0 {
			text = string(out[0].b)
		}
		a.dicts[id] = append(a.dicts[id], text)
	}
	return nil
}

// visit appends to out the values at index i of path's first field: one, none if it is null, or those of a list.
func (b *arrowBatch) visit(path []*arrowField, i int64, out *[]value) error {
	f := path[0]
	if node := b.nodes[f.node]; i < 0 || i >= node.length {
		return fmt.Errorf("%w: value %d of %d", ErrInput, i, node.length)
	} else if node.nulls != 0 && b.buffers[f.buffer].size > 0 {
		bits, err := b.buffers[f.buffer].read(i/8, 1)
		if err != nil {
			return err
		}
		if bits[0]>>(i%8)&1 == 0 {
			return nil
		}
	}
	if len(*out) >= maxListed {
		return fmt.Errorf("%w: the row has more than %d values", ErrInput, maxListed)
	}
	if f.dict != nil {
		k, err := b.integer(f, f.dict, i)
		dict := b.file.dicts[f.dictID]
		if err == nil && (k < 0 || k >= int64(len(dict))) {
			err = fmt.Errorf("%w: index %d of a dictionary of %d values", ErrInput, k, len(dict))
		}
		if err != nil {
			return err
		}
		*out = append(*out, value{b: []byte(dict[k])})
		return nil
	}
	var text []byte
	switch f.typ {
	case arrowStruct:
		return b.visit(path[1:], i, out)
	case arrowList, arrowLargeList:
		lo, hi, err := b.bounds(f, i, f.typ == arrowLargeList)
		for j := lo; j < hi && err == nil; j++ {
			err = b.visit(path[1:], j, out)
		}
		return err
	case arrowFixedList:
		if i > math.MaxInt64/int64(f.size+1) {
			return fmt.Errorf("%w: value %d of a list of %d", ErrInput, i, f.size)
		}
		for j := range int64(f.size) {
			if err := b.visit(path[1:], i*int64(f.size)+j, out); err != nil {
				return err
			}
		}
		return nil
	case arrowBinary, arrowUtf8, arrowLargeBinary, arrowLargeUtf8:
		lo, hi, err := b.bounds(f, i, f.typ == arrowLargeBinary || f.typ == arrowLargeUtf8)
		if err != nil {
			return err
		}
		data := &b.buffers[f.buffer+2]
		if hi-lo > maxValue {
			return fmt.Errorf("%w: a value claims %d bytes; at most %d are possible", ErrInput, hi-lo, maxValue)
		}
		if (f.typ == arrowBinary || f.typ == arrowLargeBinary) && data.codec < 0 {
			if hi > data.size {
				return fmt.Errorf("%w: a value ends at byte %d of a buffer of %d", ErrInput, hi, data.size)
			}
			*out = append(*out, value{at: span{data.place.off + lo, hi - lo}})
			return nil
		}
		raw, err := data.read(lo, hi-lo)
		if err != nil {
			return err
		}
		text = append([]byte{}, raw...)
	case arrowInt:
		n, err := b.integer(f, f, i)
		if err != nil {
			return err
		}
		if text = strconv.AppendInt(nil, n, 10); !f.signed {
			text = strconv.AppendUint(nil, uint64(n), 10)
		}
	case arrowFloat:
		raw, err := b.buffers[f.buffer+1].read(i*int64(f.width), int64(f.width))
		if err != nil {
			return err
		}
		if f.width == 4 {
			text = strconv.AppendFloat(nil, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))), 'g', -1, 32)
		} else {
			text = strconv.AppendFloat(nil, math.Float64frombits(binary.LittleEndian.Uint64(raw)), 'g', -1, 64)
		}
	case arrowBool:
		raw, err := b.buffers[f.buffer+1].read(i/8, 1)
		if err != nil {
			return err
		}
		text = strconv.AppendBool(nil, raw[0]>>(i%8)&1 == 1)
	}
	*out = append(*out, value{b: text})
	return nil
}

// integer is value i of the numbers of f, which are of type typ.
func (b *arrowBatch) integer(f, typ *arrowField, i int64) (int64, error) {
	raw, err := b.buffers[f.buffer+1].read(i*int64(typ.width), int64(typ.width))
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], raw)
	n := int64(binary.LittleEndian.Uint64(wide[:]))
	if shift := 64 - 8*typ.width; typ.signed {
		n = n << shift >> shift
	}
	return n, nil
}

// bounds are the offsets of value i of a list or text, checked to rise from value to value, so that nothing is read twice.
func (b *arrowBatch) bounds(f *arrowField, i int64, wide bool) (lo, hi int64, err error) {
	width := int64(4)
	if wide {
		width = 8
	}
	if i > math.MaxInt64/width-2 {
		return 0, 0, fmt.Errorf("%w: value %d", ErrInput, i)
	}
	raw, err := b.buffers[f.buffer+1].read(i*width, 2*width)
	if err != nil {
		return 0, 0, err
	}
	if wide {
		lo, hi = int64(binary.LittleEndian.Uint64(raw)), int64(binary.LittleEndian.Uint64(raw[8:]))
	} else {
		lo, hi = int64(int32(binary.LittleEndian.Uint32(raw))), int64(int32(binary.LittleEndian.Uint32(raw[4:])))
	}
	if lo < f.low || hi < lo {
		return 0, 0, fmt.Errorf("%w: a value's offsets %d to %d after %d", ErrInput, lo, hi, f.low)
	}
	f.low = hi
	return lo, hi, nil
}
