package convert

import (
	"encoding/binary"
	"fmt"
	"io"
)

// This file and parquetpage.go read the Parquet format (github.com/apache/parquet-format: README.md, Encodings.md,
// parquet.thrift) column by column, a page of each at a time. The Arrow library's reader is not used: where a page holds
// fewer levels than its header says, that of v17 never returns (columnChunkReader.readBatch), and it allocates what headers
// claim; both would let one damaged file end an import.

const (
	parquetMagic      = "PAR1"
	maxParquetFooter  = 32 << 20
	maxParquetColumns = 10_000
	maxParquetDepth   = 64
)

// Physical types.
const (
	parquetBool = iota
	parquetInt32
	parquetInt64
	parquetInt96
	parquetFloat
	parquetDouble
	parquetBytes
	parquetFixed
)

var parquetTypeNames = [...]string{"boolean", "int32", "int64", "int96", "float", "double", "binary", "fixed_len_byte_array"}

// parquetLeaf is a column of values.
type parquetLeaf struct {
	leaf
	typ            int // physical
	unsigned       bool
	maxDef, maxRep int
}

// parquetChunk is the place of a column's values in a row group.
type parquetChunk struct {
	span
	codec  int
	values int64 // with those that are missing
}

type parquetGroup struct {
	rows   int64
	chunks []parquetChunk
}

// parquetFile is a file opened for reading; it is a table.
type parquetFile struct {
	file    io.ReaderAt
	schema  []parquetLeaf
	groups  []parquetGroup
	classes map[string][]string
	chosen  []int
	group   int
	row     int64
	columns []*parquetColumn // of the row group, as chosen
	unpack  unpacker
}

// openParquet reads the footer. Its errors, like those of next, do not name the file.
func openParquet(r io.ReaderAt, size int64) (*parquetFile, error) {
	head, tail := make([]byte, min(size, 4)), make([]byte, min(size, 8))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if _, err := r.ReadAt(tail, max(size-8, 0)); err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case size < 12:
		return nil, fmt.Errorf("%w: it has %d bytes, too few for a Parquet file", ErrInput, size)
	case string(head) == "PARE" || string(tail[4:]) == "PARE":
		return nil, fmt.Errorf("%w: it is encrypted; write it in plain", ErrInput)
	case string(head) != parquetMagic:
		return nil, fmt.Errorf("%w: it begins with %q, not with Parquet's magic number %q; is it a Parquet file?", ErrInput, head, parquetMagic)
	case string(tail[4:]) != parquetMagic:
		return nil, fmt.Errorf("%w: it ends at byte %d with %q, not with Parquet's magic number %q: the file is truncated", ErrInput, size, tail[4:], parquetMagic)
	}
	n := int64(binary.LittleEndian.Uint32(tail))
	if n > size-12 || n > maxParquetFooter {
		return nil, fmt.Errorf("%w: its footer claims %d bytes of a file of %d", ErrInput, n, size)
	}
	start := size - 8 - n
	foot := make([]byte, n)
	if _, err := r.ReadAt(foot, start); err != nil && err != io.EOF {
		return nil, err
	}
	t := &thriftReader{b: foot}
	meta := t.structure(0)
	if t.bad {
		return nil, fmt.Errorf("%w: its footer at byte %d does not decode", ErrInput, start)
	}
	p := &parquetFile{file: r, group: -1}
	if err := p.readSchema(meta.list(2)); err != nil {
		return nil, err
	}
	for g, v := range meta.list(4) {
		if err := p.readGroup(v, start); err != nil {
			return nil, fmt.Errorf("row group %d: %w", g, err)
		}
	}
	for _, v := range meta.list(5) {
		if kv, _ := v.(thriftStruct); string(kv.bytes(1)) == "huggingface" {
			p.classes = classNames(string(kv.bytes(2)))
		}
	}
	return p, nil
}

// readSchema lists the leaves. The elements are the nodes of a tree, depth first.
func (p *parquetFile) readSchema(elements []any) error {
	bad := fmt.Errorf("%w: its schema does not decode, or has more than %d columns or %d levels", ErrInput, maxParquetColumns, maxParquetDepth)
	if len(elements) == 0 || len(elements) > maxParquetColumns {
		return bad
	}
	next := 0
	// walk reads the element that comes next and those below it. unnamed says that it only makes a list.
	var walk func(prefix string, unnamed bool, def, rep, depth int) bool
	walk = func(prefix string, unnamed bool, def, rep, depth int) bool {
		if next >= len(elements) || depth > maxParquetDepth {
			return false
		}
		e, ok := elements[next].(thriftStruct)
		root := next == 0
		next++
		if !ok {
			return false
		}
		switch e.int(3) {
		case 1:
			def++
		case 2:
			def, rep = def+1, rep+1
		}
		name := prefix
		if !root && !unnamed {
			if name != "" {
				name += "."
			}
			name += string(e.bytes(4))
		}
		kids := int32Of(e.int(5))
		if kids == 0 {
			p.schema = append(p.schema, newParquetLeaf(e, name, def, rep))
			return true
		}
		if kids < 0 || kids > len(elements) {
			return false
		}
		// A list is a group of one repeated group of one element; older files lack the level between.
		list := e.has(6) && e.int(6) == 3 || e.sub(10).has(3)
		within := depth > 0 && unnamed && kids == 1 && e.int(3) == 2
		for range kids {
			if !walk(name, list && kids == 1 || within, def, rep, depth+1) {
				return false
			}
		}
		return true
	}
	if !walk("", false, 0, 0, 0) || next != len(elements) {
		return bad
	}
	return nil
}

func newParquetLeaf(e thriftStruct, name string, def, rep int) parquetLeaf {
	l := parquetLeaf{leaf: leaf{name: name, typ: "?", repeated: rep > 0}, typ: int(e.int(1)), maxDef: def, maxRep: rep}
	if l.typ >= 0 && l.typ < len(parquetTypeNames) {
		l.leaf.typ = parquetTypeNames[l.typ]
	}
	converted := int64(-1)
	if e.has(6) {
		converted = e.int(6)
	}
	logical := e.sub(10)
	if logical.has(11) { // null
		l.leaf.typ = "null"
		return l
	}
	switch l.typ {
	case parquetBytes:
		switch {
		case converted == 0 || converted == 4 || converted == 19 || logical.has(1) || logical.has(4) || logical.has(12):
			l.kind, l.leaf.typ = leafText, "string"
		case converted < 0 && len(logical) == 0:
			l.kind = leafBytes
		}
	case parquetInt32, parquetInt64:
		signed := logical.sub(10)
		l.unsigned = converted >= 11 && converted <= 14 || signed.has(1) && !signed.bool(2)
		if converted < 0 && len(logical) == 0 || converted >= 11 && converted <= 18 || logical.has(10) {
			l.kind = leafNumber
		} else {
			l.leaf.typ = "date, time or decimal"
		}
	case parquetBool, parquetFloat, parquetDouble:
		l.kind = leafNumber
	}
	return l
}

// readGroup reads the place of a row group's columns, which must lie before the footer at byte end.
func (p *parquetFile) readGroup(v any, end int64) error {
	t, _ := v.(thriftStruct)
	g := parquetGroup{rows: t.int(3)}
	columns := t.list(1)
	if g.rows < 0 || len(columns) != len(p.schema) {
		return fmt.Errorf("%w: %d rows, %d columns where the schema has %d", ErrInput, g.rows, len(columns), len(p.schema))
	}
	for i, v := range columns {
		column, _ := v.(thriftStruct)
		meta := column.sub(3)
		at := meta.int(9)
		if dict := meta.int(11); dict > 0 && dict < at {
			at = dict
		}
		c := parquetChunk{span: span{at, meta.int(7)}, codec: int(meta.int(4)), values: meta.int(5)}
		switch {
		case column.has(1):
			return fmt.Errorf("%w: column %s lies in another file, %q", ErrInput, p.schema[i].name, column.bytes(1))
		case meta == nil || c.off < 4 || c.len < 0 || c.off > end || c.len > end-c.off || c.values < 0 || int(meta.int(1)) != p.schema[i].typ:
			return fmt.Errorf("%w: column %s claims %d values in %d bytes at byte %d of a file whose data end at byte %d", ErrInput, p.schema[i].name, c.values, c.len, c.off, end)
		}
		g.chunks = append(g.chunks, c)
	}
	p.groups = append(p.groups, g)
	return nil
}

func (p *parquetFile) leaves() []leaf {
	out := make([]leaf, len(p.schema))
	for i, l := range p.schema {
		out[i] = l.leaf
	}
	return out
}

// rows is how many there are, as the footer says; a number for the display of progress only.
func (p *parquetFile) rows() int {
	n := 0
	for _, g := range p.groups {
		n += int(min(g.rows, 1<<31))
	}
	return n
}

func (p *parquetFile) classNames() map[string][]string { return p.classes }
func (p *parquetFile) choose(leaves []int)             { p.chosen = leaves }
func (p *parquetFile) where() string                   { return fmt.Sprintf("row group %d, row %d", p.group, p.row) }

// next returns the values of the next row, of each chosen leaf those that are there.
func (p *parquetFile) next() ([][]value, error) {
	for p.row++; p.group < 0 || p.row >= p.groups[p.group].rows; p.row = 0 {
		for _, c := range p.columns {
			if err := c.end(); err != nil {
				return nil, fmt.Errorf("row group %d: %w", p.group, err)
			}
		}
		if p.group++; p.group == len(p.groups) {
			return nil, io.EOF
		}
		p.columns = p.columns[:0]
		for _, k := range p.chosen {
			chunk := p.groups[p.group].chunks[k]
			p.columns = append(p.columns, &parquetColumn{parquetLeaf: p.schema[k], file: p, at: chunk.off, stop: chunk.off + chunk.len, codec: chunk.codec, left: chunk.values})
		}
	}
	out := make([][]value, len(p.columns))
	for k, c := range p.columns {
		if err := c.row(&out[k]); err != nil {
			return nil, fmt.Errorf("%s: %w", p.where(), err)
		}
	}
	return out, nil
}
