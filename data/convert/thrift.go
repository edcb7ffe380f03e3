package convert

import "math"

// thriftStruct is a structure of Thrift's compact protocol: its fields by their numbers. A value is an int64, a bool, []byte,
// []any or a thriftStruct; fractions and maps are passed over.
type thriftStruct map[int16]any

func (s thriftStruct) int(id int16) int64 {
	n, _ := s[id].(int64)
	return n
}

func (s thriftStruct) has(id int16) bool { _, ok := s[id]; return ok }

func (s thriftStruct) bool(id int16) bool {
	b, _ := s[id].(bool)
	return b
}

func (s thriftStruct) bytes(id int16) []byte {
	b, _ := s[id].([]byte)
	return b
}

func (s thriftStruct) list(id int16) []any {
	l, _ := s[id].([]any)
	return l
}

// sub is the structure in a field, nil if there is none; a nil structure has no fields.
func (s thriftStruct) sub(id int16) thriftStruct {
	t, _ := s[id].(thriftStruct)
	return t
}

// thriftReader decodes it (github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). What does not decode
// sets bad; what comes out is never larger than some times the input.
type thriftReader struct {
	b   []byte
	at  int
	bad bool
}

const maxThriftDepth = 32

func (r *thriftReader) byte() byte {
	if r.at >= len(r.b) {
		r.bad = true
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *thriftReader) varint() uint64 {
	var n uint64
	for shift := 0; shift < 70; shift += 7 {
		c := r.byte()
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *thriftReader) zigzag() int64 {
	n := r.varint()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *thriftReader) take(n uint64) []byte {
	if n > uint64(len(r.b)-r.at) {
		r.bad = true
		return nil
	}
	r.at += int(n)
	return r.b[r.at-int(n) : r.at : r.at]
}

// Types of the compact protocol.
const (
	thriftTrue = iota + 1
	thriftFalse
	thriftByte
	thriftI16
	thriftI32
	thriftI64
	thriftDouble
	thriftBinary
	thriftList
	thriftSet
	thriftMap
	thriftSub
)

func (r *thriftReader) structure(depth int) thriftStruct {
	s := thriftStruct{}
	for id := int16(0); ; {
		head := r.byte()
		if head == 0 || r.bad {
			return s
		}
		if delta := int16(head >> 4); delta != 0 {
			id += delta
		} else {
			id = int16(r.zigzag())
		}
		switch typ := head & 15; typ {
		case thriftTrue, thriftFalse:
			s[id] = typ == thriftTrue
		default:
			if v := r.value(typ, depth); v != nil {
				s[id] = v
			}
		}
	}
}

func (r *thriftReader) value(typ byte, depth int) any {
	if depth > maxThriftDepth {
		r.bad = true
	}
	if r.bad {
		return nil
	}
	switch typ {
	case thriftTrue, thriftFalse: // in a list
		return r.byte() == thriftTrue
	case thriftByte:
		return int64(int8(r.byte()))
	case thriftI16, thriftI32, thriftI64:
		return r.zigzag()
	case thriftDouble:
		r.take(8)
		return nil
	case thriftBinary:
		return r.take(r.varint())
	case thriftList, thriftSet:
		head := r.byte()
		n := uint64(head >> 4)
		if n == 15 {
			n = r.varint()
		}
		var list []any
		for i := uint64(0); i < n && !r.bad; i++ { // every value takes a byte at least
			list = append(list, r.value(head&15, depth+1))
		}
		return list
	case thriftMap:
		n := r.varint()
		if n == 0 {
			return nil
		}
		types := r.byte()
		for i := uint64(0); i < n && !r.bad; i++ {
			r.value(types>>4, depth+1)
			r.value(types&15, depth+1)
		}
		return nil
	case thriftSub:
		return r.structure(depth + 1)
	}
	r.bad = true
	return nil
}

// int32Of is a number of a field that must fit; what does not is -1.
func int32Of(n int64) int {
	if n < 0 || n > math.MaxInt32 {
		return -1
	}
	return int(n)
}
