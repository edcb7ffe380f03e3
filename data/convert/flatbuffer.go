package convert

import "encoding/binary"

// flatbuffer reads the tables of a FlatBuffer (flatbuffers.dev/internals). A read outside of b gives zeros and sets bad,
// which is checked once, after a structure was read; so hostile bytes can neither stop the program nor claim memory.
type flatbuffer struct {
	b   []byte
	bad bool
}

func (f *flatbuffer) bytes(at, n int) []byte {
	if at < 0 || n < 0 || at > len(f.b) || n > len(f.b)-at {
		f.bad = true
		return make([]byte, min(max(n, 0), 8))
	}
	return f.b[at : at+n]
}
func (f *flatbuffer) u8(at int) int    { return int(f.bytes(at, 1)[0]) }
func (f *flatbuffer) u16(at int) int   { return int(binary.LittleEndian.Uint16(f.bytes(at, 2))) }
func (f *flatbuffer) i32(at int) int   { return int(int32(binary.LittleEndian.Uint32(f.bytes(at, 4)))) }
func (f *flatbuffer) i64(at int) int64 { return int64(binary.LittleEndian.Uint64(f.bytes(at, 8))) }

// field is the place of a table's field, 0 if the table does not have it.
func (f *flatbuffer) field(table, slot int) int {
	vtable := table - f.i32(table)
	entry := 4 + 2*slot
	if entry+2 > f.u16(vtable) {
		return 0
	}
	if off := f.u16(vtable + entry); off != 0 {
		return table + off
	}
	return 0
}

// byteField is a field of one byte, 0 if the table does not have it; int16Field and int64Field likewise.
func (f *flatbuffer) byteField(table, slot int) int {
	if at := f.field(table, slot); at != 0 {
		return f.u8(at)
	}
	return 0
}

func (f *flatbuffer) int16Field(table, slot int) int {
	if at := f.field(table, slot); at != 0 {
		return f.u16(at)
	}
	return 0
}

func (f *flatbuffer) int64Field(table, slot int) int64 {
	if at := f.field(table, slot); at != 0 {
		return f.i64(at)
	}
	return 0
}

// table follows the reference in a field to a table, 0 if there is none.
func (f *flatbuffer) table(table, slot int) int {
	if at := f.field(table, slot); at != 0 {
		return at + f.i32(at)
	}
	return 0
}

// vector is the place and length of a vector in a field.
func (f *flatbuffer) vector(table, slot, elemSize int) (at, n int) {
	if at = f.table(table, slot); at == 0 {
		return 0, 0
	}
	n = f.i32(at)
	at += 4
	if n < 0 || n > len(f.b)/elemSize {
		f.bad = true
		return 0, 0
	}
	f.bytes(at, n*elemSize)
	if f.bad {
		return 0, 0
	}
	return at, n
}

func (f *flatbuffer) text(table, slot int) string {
	at, n := f.vector(table, slot, 1)
	return string(f.bytes(at, n))
}
