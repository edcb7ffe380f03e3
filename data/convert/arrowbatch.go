package convert

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// arrowBatch is a record batch being read.
type arrowBatch struct {
	file    *arrowFile
	rows    int64
	nodes   []arrowNode
	buffers []window
}

type arrowNode struct{ length, nulls int64 }

func (a *arrowFile) newBatch(m *arrowMessage, batch int, fields []*arrowField) (*arrowBatch, error) {
	b := &arrowBatch{file: a, rows: m.FieldI64(batch, 0)}
	codec := -1
	if compression := m.Table(batch, 3); compression != 0 {
		codec = m.FieldU8(compression, 0)
		if codec > 1 {
			return nil, fmt.Errorf("%w: its buffers are compressed by unknown method %d", ErrInput, codec)
		}
	}
	at, n := m.Vector(batch, 1, 16)
	for i := range n {
		b.nodes = append(b.nodes, arrowNode{m.I64(at + 16*i), m.I64(at + 16*i + 8)})
	}
	at, n = m.Vector(batch, 2, 16)
	for i := range n {
		s := span{m.I64(at + 16*i), m.I64(at + 16*i + 8)}
		if s.off < 0 || s.len < 0 || s.off > m.body.len || s.len > m.body.len-s.off {
			return nil, fmt.Errorf("%w: buffer %d claims %d bytes at byte %d of a body of %d", ErrInput, i, s.len, s.off, m.body.len)
		}
		b.buffers = append(b.buffers, window{file: a.file, place: span{m.body.off + s.off, s.len}, size: s.len, codec: codec})
	}
	views, n := m.Vector(batch, 4, 8)
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
					buffer += int(min(max(m.I64(views+8*view), 0), int64(len(b.buffers))))
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
	if m.Bad || node != len(b.nodes) || buffer != len(b.buffers) || b.rows < 0 {
		return nil, fmt.Errorf("%w: its header (%d rows, %d columns and members, %d buffers) does not fit the schema (%d, %d)", ErrInput, b.rows, len(b.nodes), len(b.buffers), node, buffer)
	}
	return b, nil
}

// dictionary reads the values of dictionary-encoded columns.
func (a *arrowFile) dictionary(m *arrowMessage) error {
	id, delta := m.FieldI64(m.header, 0), m.FieldU8(m.header, 2) != 0
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
	b, err := a.newBatch(m, m.Table(m.header, 1), []*arrowField{values})
	if err != nil {
		return err
	}
	if !delta {
		for _, text := range a.dicts[id] {
			a.room += dictValueBytes(text)
		}
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
		if a.room -= dictValueBytes(text); a.room < 0 {
			return fmt.Errorf("%w: value %d: the dictionaries take more than %d MiB", ErrInput, i, maxDicts>>20)
		}
		a.dicts[id] = append(a.dicts[id], text)
	}
	return nil
}

// dictValueBytes is what a value of a dictionary takes in memory, an empty one too.
func dictValueBytes(text string) int { return len(text) + 16 }

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
