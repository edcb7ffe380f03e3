package torchfile

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// The limits of a pickle. A training checkpoint of a thousand parameters with AdamW's moments takes 60,000 operations and 2 MB.
const (
	maxPickle = 64 << 20 // bytes
	maxOps    = 2 << 20  // operations; each makes at most one value, so that this bounds memory too
)

// The values that a pickle can make. Numbers, strings and truth values are int64, float64, string and bool; None is nil.
type (
	global struct{ module, name string } // a class or function by its name; none is ever looked up or called
	tuple  []any
	list   struct{ items []any }
	dict   struct{ keys, values []any }
	// object is an instance of a class that this package does not know, with what the pickle says belongs to it.
	object struct {
		class global
		items dict // of a subclass of dict
		state any  // what its attributes are set from
	}
	// opaque stands for a value that is read past: bytes, large integers, sets.
	opaque struct{}
	// storageRef names a run of elements in the file.
	storageRef struct {
		key   string
		class string // FloatStorage, …
		count int64  // elements
	}
	// tensorRef is a view of a storage, in elements.
	tensorRef struct {
		storage        *storageRef
		dtype          string // of torch, where the storage is untyped; else ""
		offset         int64
		shape, strides []int64
	}
)

// machine runs a pickle. It knows the operations of protocols 2 to 5 that make plain data. Whatever would be a call in Python
// is looked up in a table of constructors (builders), or gives an object that only holds what it was given.
type machine struct {
	b     []byte
	at    int
	stack []any
	marks []int // heights of the stack
	memo  map[uint64]any
	ops   int
}

// unpickle runs the pickle at the beginning of b and returns its value and how many bytes it takes.
func unpickle(b []byte) (v any, n int, err error) {
	if len(b) > maxPickle {
		b = b[:maxPickle]
	}
	m := &machine{b: b, memo: map[uint64]any{}}
	v, err = m.run()
	return v, m.at, err
}

func (m *machine) run() (any, error) {
	for m.ops = 0; m.ops < maxOps; m.ops++ {
		op, err := m.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' { // STOP
			return m.pop()
		}
		if err := m.step(op[0]); err != nil {
			return nil, err
		}
	}
	return nil, corrupt("a pickle of more than %d operations", maxOps)
}

// take returns the next n bytes.
func (m *machine) take(n uint64) ([]byte, error) {
	if n > uint64(len(m.b)-m.at) {
		return nil, corrupt("pickle: byte %d: %d bytes are wanted, %d are there", m.at, n, len(m.b)-m.at)
	}
	b := m.b[m.at : m.at+int(n)]
	m.at += int(n)
	return b, nil
}

// number returns the next n bytes as a little-endian number.
func (m *machine) number(n uint64) (uint64, error) {
	b, err := m.take(n)
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

// counted returns as many bytes as the number in the next n bytes says.
func (m *machine) counted(n uint64) ([]byte, error) {
	size, err := m.number(n)
	if err != nil {
		return nil, err
	}
	return m.take(size)
}

// line returns the bytes up to the next newline.
func (m *machine) line() (string, error) {
	rest := m.b[m.at:]
	i := bytes.IndexByte(rest[:min(len(rest), 4096)], '\n')
	if i < 0 {
		return "", corrupt("pickle: byte %d: a name without an end", m.at)
	}
	m.at += i + 1
	return string(rest[:i]), nil
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// floor is the height below which the stack may not shrink without its mark.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) pop() (any, error) {
	if len(m.stack) <= m.floor() {
		return nil, corrupt("pickle: byte %d: the stack is empty", m.at)
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// popN returns the n topmost values in their order, which are the caller's.
func (m *machine) popN(n int) ([]any, error) {
	lo := len(m.stack) - n
	if lo < m.floor() {
		return nil, corrupt("pickle: byte %d: the stack is empty", m.at)
	}
	out := append([]any(nil), m.stack[lo:]...)
	m.stack = m.stack[:lo]
	return out, nil
}

// popMark returns the values above the last mark and removes it.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, corrupt("pickle: byte %d: there is no mark", m.at)
	}
	lo := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	out := append([]any(nil), m.stack[lo:]...)
	m.stack = m.stack[:lo]
	return out, nil
}

func (m *machine) top() (any, error) {
	if len(m.stack) <= m.floor() {
		return nil, corrupt("pickle: byte %d: the stack is empty", m.at)
	}
	return m.stack[len(m.stack)-1], nil
}

// step runs one operation.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := m.number(1)
		if err == nil && (v < 2 || v > 5) {
			err = corrupt("pickle: protocol %d", v)
		}
		return err
	case 0x95: // FRAME
		_, err := m.take(8)
		return err
	case '(': // MARK
		m.marks = append(m.marks, len(m.stack))
		return nil
	case '0': // POP
		_, err := m.pop()
		return err
	case '1': // POP_MARK
		_, err := m.popMark()
		return err
	case '2': // DUP
		v, err := m.top()
		m.push(v)
		return err
	case 'N':
		m.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		m.push(op == 0x88)
	case 'J', 'K', 'M', 0x8a, 0x8b, 'G':
		return m.scalar(op)
	case 'X', 0x8c, 0x8d, 'T', 'U', 'B', 'C', 0x8e, 0x96:
		return m.text(op)
	case 'q', 'r', 0x94, 'h', 'j':
		return m.remember(op)
	case ')', 't', 0x85, 0x86, 0x87, ']', 'l', '}', 'd', 0x8f, 0x91:
		return m.collection(op)
	case 'a', 'e', 0x90, 's', 'u':
		return m.fill(op)
	case 'c', 0x93, 'Q', 'R', 0x81, 0x92, 'b':
		return m.construct(op)
	default:
		return corrupt("pickle: byte %d: operation %#02x is not one that weights need", m.at-1, op)
	}
	return nil
}

// scalar pushes a number.
func (m *machine) scalar(op byte) error {
	size := map[byte]uint64{'J': 4, 'K': 1, 'M': 2, 'G': 8}[op]
	if op == 0x8a || op == 0x8b { // LONG1, LONG4: two's complement of any length
		b, err := m.counted(map[byte]uint64{0x8a: 1, 0x8b: 4}[op])
		if err != nil {
			return err
		}
		if len(b) > 8 {
			m.push(opaque{})
			return nil
		}
		var wide [8]byte
		if len(b) > 0 && b[len(b)-1] > 127 {
			wide = [8]byte{255, 255, 255, 255, 255, 255, 255, 255}
		}
		copy(wide[:], b)
		m.push(int64(binary.LittleEndian.Uint64(wide[:])))
		return nil
	}
	if op == 'G' {
		b, err := m.take(size)
		if err == nil {
			m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return err
	}
	v, err := m.number(size)
	if op == 'J' {
		v = uint64(int64(int32(v)))
	}
	m.push(int64(v))
	return err
}

// text pushes a string; bytes are read past.
func (m *machine) text(op byte) error {
	b, err := m.counted(map[byte]uint64{'X': 4, 0x8c: 1, 0x8d: 8, 'T': 4, 'U': 1, 'B': 4, 'C': 1, 0x8e: 8, 0x96: 8}[op])
	if err != nil {
		return err
	}
	switch op {
	case 'X', 0x8c, 0x8d, 'T', 'U': // the last two are Python 2's strings
		if !utf8.Valid(b) {
			m.push(opaque{})
			return nil
		}
		m.push(string(b))
	default:
		m.push(opaque{})
	}
	return nil
}

// remember stores the topmost value under a number, or pushes one that was.
func (m *machine) remember(op byte) error {
	if op == 0x94 { // MEMOIZE
		v, err := m.top()
		m.memo[uint64(len(m.memo))] = v
		return err
	}
	key, err := m.number(map[byte]uint64{'q': 1, 'r': 4, 'h': 1, 'j': 4}[op])
	if err != nil {
		return err
	}
	if op == 'q' || op == 'r' {
		v, err := m.top()
		m.memo[key] = v
		return err
	}
	v, ok := m.memo[key]
	if !ok {
		return corrupt("pickle: byte %d: nothing is remembered as %d", m.at, key)
	}
	m.push(v)
	return nil
}

// collection pushes a tuple, list, dict or set of values on the stack.
func (m *machine) collection(op byte) error {
	var items []any
	var err error
	switch op {
	case 0x85, 0x86, 0x87:
		items, err = m.popN(int(op) - 0x84)
	case 't', 'l', 'd', 0x91:
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	switch op {
	case ')', 't', 0x85, 0x86, 0x87:
		m.push(tuple(items))
	case ']', 'l':
		m.push(&list{items})
	case '}', 'd':
		d := &dict{}
		m.push(d)
		return m.set(d, items)
	default: // sets
		m.push(&list{items})
	}
	return nil
}

// set adds keys and values that alternate.
func (m *machine) set(d *dict, items []any) error {
	if len(items)%2 != 0 {
		return corrupt("pickle: byte %d: a key without a value", m.at)
	}
	for i := 0; i < len(items); i += 2 {
		d.keys, d.values = append(d.keys, items[i]), append(d.values, items[i+1])
	}
	return nil
}

// fill adds values from the stack to the collection below them.
func (m *machine) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a':
		items, err = m.popN(1)
	case 's':
		items, err = m.popN(2)
	default:
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	to, err := m.top()
	if err != nil {
		return err
	}
	if op == 's' || op == 'u' {
		switch to := to.(type) {
		case *dict:
			return m.set(to, items)
		case *object:
			return m.set(&to.items, items)
		case opaque:
			return nil
		}
		return corrupt("pickle: byte %d: entries for what is not a dict", m.at)
	}
	switch to := to.(type) {
	case *list:
		to.items = append(to.items, items...)
	case *object, opaque: // a subclass of list: read past
	default:
		return corrupt("pickle: byte %d: items for what is not a list", m.at)
	}
	return nil
}

// construct pushes what in Python would be found by name or made by a call.
func (m *machine) construct(op byte) error {
	switch op {
	case 'c': // GLOBAL
		module, err := m.line()
		if err != nil {
			return err
		}
		name, err := m.line()
		m.push(global{module, name})
		return err
	case 0x93: // STACK_GLOBAL
		v, err := m.popN(2)
		if err != nil {
			return err
		}
		module, ok := v[0].(string)
		name, ok2 := v[1].(string)
		if !ok || !ok2 {
			return corrupt("pickle: byte %d: a class whose name is not a string", m.at)
		}
		m.push(global{module, name})
		return nil
	case 'Q': // BINPERSID
		v, err := m.pop()
		if err != nil {
			return err
		}
		s, err := newStorage(v)
		m.push(s)
		return err
	}
	n := 2
	if op == 0x92 { // NEWOBJ_EX has keyword arguments too
		n = 3
	}
	v, err := m.popN(n)
	if err != nil {
		return err
	}
	if op == 'b' { // BUILD
		switch to := v[0].(type) {
		case *object:
			to.state = v[1]
		case *dict, *list, *tensorRef, opaque: // attributes beside the content, such as a state dict's _metadata
		default:
			return corrupt("pickle: byte %d: attributes for what has none", m.at)
		}
		m.push(v[0])
		return nil
	}
	class, ok := v[0].(global)
	args, ok2 := v[1].(tuple)
	if !ok2 {
		return corrupt("pickle: byte %d: arguments that are not a tuple", m.at)
	}
	if !ok { // an object that is called
		m.push(opaque{})
		return nil
	}
	made, err := build(class, args)
	m.push(made)
	return err
}
