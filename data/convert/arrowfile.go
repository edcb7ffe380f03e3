package convert

import (
	"encoding/binary"
	"fmt"
	"io"

	"diptych/data/arrowset/flatbuf"
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
	maxDicts      = 1 << 30   // bytes that the values of all dictionaries take in memory
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
	room    int // bytes that further values of dictionaries may take
	chosen  []int
	batch   *arrowBatch
	number  int // of the batch
	row     int64
}

// openArrow reads the schema. Its errors, like those of next, do not name the file.
func openArrow(r io.ReaderAt, size int64) (*arrowFile, error) {
	a := &arrowFile{file: r, end: size, dicts: map[int64][]string{}, room: maxDicts, number: -1}
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
	flatbuf.Reader
	offset        int64 // in the file
	kind, version int
	header        int
	body          span
}

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
	m.B = make([]byte, n)
	if _, err := a.file.ReadAt(m.B, a.at); err != nil && err != io.EOF {
		return nil, err
	}
	a.at += int64(n)
	root := m.Root()
	m.version, m.kind, m.header = m.FieldU16(root, 0), m.FieldU8(root, 1), m.Table(root, 2)
	m.body = span{a.at, m.FieldI64(root, 3)}
	if m.Bad || m.header == 0 || m.body.len < 0 {
		return nil, fmt.Errorf("%w: the header of the message at byte %d does not decode", ErrInput, m.offset)
	}
	if m.body.len > a.end-a.at {
		return nil, cut(a.at + m.body.len)
	}
	a.at += m.body.len
	return m, nil
}

func (a *arrowFile) schema(m *arrowMessage) error {
	if m.FieldU16(m.header, 0) != 0 {
		return fmt.Errorf("%w: its numbers are big-endian; write it on a little-endian machine", ErrInput)
	}
	at, n := m.Vector(m.header, 1, 4)
	count := 0
	for i := range n {
		f := m.column(m.Follow(at+4*i), 0, &count)
		if m.Bad {
			return fmt.Errorf("%w: the schema at byte %d does not decode, or has more than %d columns or %d levels", ErrInput, m.offset, maxArrowCols, maxArrowDepth)
		}
		a.fields = append(a.fields, f)
		a.flatten(f, f.name, nil, false)
	}
	pairs, n := m.Vector(m.header, 2, 4)
	for i := range n {
		pair := m.Follow(pairs + 4*i)
		if m.Text(pair, 0) == "huggingface" {
			a.classes = classNames(m.Text(pair, 1))
		}
	}
	if m.Bad {
		return fmt.Errorf("%w: the schema at byte %d does not decode", ErrInput, m.offset)
	}
	return nil
}

// column reads a Field table; count bounds how many there are, whatever refers to what.
func (m *arrowMessage) column(at, depth int, count *int) *arrowField {
	f := &arrowField{}
	if *count++; *count > maxArrowCols || depth > maxArrowDepth {
		m.Bad = true
	}
	if m.Bad {
		return f
	}
	f.name, f.typ = m.Text(at, 0), m.FieldU8(at, 2)
	number := func(f *arrowField, typ int) {
		f.width, f.signed = m.FieldI32(typ, 0)/8, m.FieldU8(typ, 1) != 0
		if f.width != 1 && f.width != 2 && f.width != 4 && f.width != 8 {
			m.Bad = true
		}
	}
	switch typ := m.Table(at, 3); f.typ {
	case arrowInt:
		number(f, typ)
	case arrowFloat:
		f.width = []int{2, 4, 8, 0}[min(m.FieldU16(typ, 0), 3)]
	case arrowUnion:
		f.dense = m.FieldU16(typ, 0) == 1
	case arrowFixedList:
		if f.size = m.FieldI32(typ, 0); f.size < 0 {
			m.Bad = true
		}
	}
	if dict := m.Table(at, 4); dict != 0 {
		f.dictID = m.FieldI64(dict, 0)
		f.dict = &arrowField{typ: arrowInt, width: 4, signed: true}
		if typ := m.Table(dict, 1); typ != 0 {
			number(f.dict, typ)
		}
	}
	kids, n := m.Vector(at, 5, 4)
	for i := range n {
		f.kids = append(f.kids, m.column(m.Follow(kids+4*i), depth+1, count))
		if m.Bad {
			return f
		}
	}
	switch f.typ {
	case arrowList, arrowLargeList, arrowFixedList, arrowMap:
		m.Bad = m.Bad || n != 1
	}
	return f
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
