// Package flatbuf reads FlatBuffers (flatbuffers.dev/internals), in which the headers of Arrow files are written. The library's
// own reader panics where bytes do not fit; this one gives zeros and remembers it. Start at Reader.
package flatbuf

import "encoding/binary"

// Reader reads the tables of a buffer. A read outside of B gives zeros and sets Bad, which is checked once, after a structure
// was read; so hostile bytes can neither stop the program nor claim memory. Places are offsets in B; a field is named by its
// slot, its number in the schema from 0.
type Reader struct {
	B   []byte
	Bad bool
}

func (r *Reader) bytes(at, n int) []byte {
	if at < 0 || n < 0 || at > len(r.B) || n > len(r.B)-at {
		r.Bad = true
		return make([]byte, min(max(n, 0), 8))
	}
	return r.B[at : at+n]
}

// U8 is the byte at a place; U16, I32 and I64 are numbers of more bytes.
func (r *Reader) U8(at int) int    { return int(r.bytes(at, 1)[0]) }
func (r *Reader) U16(at int) int   { return int(binary.LittleEndian.Uint16(r.bytes(at, 2))) }
func (r *Reader) I32(at int) int   { return int(int32(binary.LittleEndian.Uint32(r.bytes(at, 4)))) }
func (r *Reader) I64(at int) int64 { return int64(binary.LittleEndian.Uint64(r.bytes(at, 8))) }

// Follow is where the reference at a place leads to: a table, or a vector's length.
func (r *Reader) Follow(at int) int { return at + r.I32(at) }

// Root is the place of the buffer's table.
func (r *Reader) Root() int { return r.Follow(0) }

// Field is the place of a table's field, 0 if the table does not have it.
func (r *Reader) Field(table, slot int) int {
	vtable := table - r.I32(table)
	entry := 4 + 2*slot
	if entry+2 > r.U16(vtable) {
		return 0
	}
	if off := r.U16(vtable + entry); off != 0 {
		return table + off
	}
	return 0
}

// FieldU8 is a field of one byte, 0 if the table does not have it; FieldU16, FieldI32 and FieldI64 likewise.
func (r *Reader) FieldU8(table, slot int) int {
	if at := r.Field(table, slot); at != 0 {
		return r.U8(at)
	}
	return 0
}

func (r *Reader) FieldU16(table, slot int) int {
	if at := r.Field(table, slot); at != 0 {
		return r.U16(at)
	}
	return 0
}

func (r *Reader) FieldI32(table, slot int) int {
	if at := r.Field(table, slot); at != 0 {
		return r.I32(at)
	}
	return 0
}

func (r *Reader) FieldI64(table, slot int) int64 {
	if at := r.Field(table, slot); at != 0 {
		return r.I64(at)
	}
	return 0
}

// Table is the table that a field refers to, 0 if there is none.
func (r *Reader) Table(table, slot int) int {
	if at := r.Field(table, slot); at != 0 {
		return r.Follow(at)
	}
	return 0
}

// Vector is the place and the length of the vector that a field refers to, whose elements of elemSize bytes all lie in B.
func (r *Reader) Vector(table, slot, elemSize int) (at, n int) {
	if at = r.Table(table, slot); at == 0 {
		return 0, 0
	}
	n = r.I32(at)
	at += 4
	if n < 0 || n > len(r.B)/elemSize {
		r.Bad = true
		return 0, 0
	}
	r.bytes(at, n*elemSize)
	if r.Bad {
		return 0, 0
	}
	return at, n
}

// Text is the text that a field refers to.
func (r *Reader) Text(table, slot int) string {
	at, n := r.Vector(table, slot, 1)
	return string(r.bytes(at, n))
}
