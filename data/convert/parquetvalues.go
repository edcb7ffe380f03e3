package convert

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The encodings of Parquet's values and levels (parquet-format, Encodings.md).

var errValuesEnd = errors.New("its values end early")

// runs reads numbers of width bits in the RLE / bit-packing hybrid.
type runs struct {
	data     []byte
	width    int
	repeats  uint64 // of value that are left
	value    uint32
	literals int // numbers that are left in the run of packed bits
	bit      int // of data, where the next of them begins
	ahead    uint32
	peeked   bool
}

// peek returns the number that next will.
func (r *runs) peek() (uint32, bool) {
	if !r.peeked {
		n, ok := r.read()
		if !ok {
			return 0, false
		}
		r.ahead, r.peeked = n, true
	}
	return r.ahead, true
}

func (r *runs) next() (uint32, bool) {
	n, ok := r.peek()
	r.peeked = false
	return n, ok
}

func (r *runs) read() (uint32, bool) {
	for r.repeats == 0 && r.literals == 0 {
		head, n := binary.Uvarint(r.data)
		if n <= 0 {
			return 0, false
		}
		r.data = r.data[n:]
		if head&1 == 0 {
			size := (r.width + 7) / 8
			if len(r.data) < size {
				return 0, false
			}
			var wide [4]byte
			copy(wide[:], r.data[:size])
			r.repeats, r.value, r.data = head>>1, binary.LittleEndian.Uint32(wide[:]), r.data[size:]
			continue
		}
		groups := head >> 1 // of eight numbers, which take width bytes
		if r.width > 0 {
			groups = min(groups, uint64((len(r.data)+r.width-1)/r.width)) // some writers cut the last one
		} else if groups > 1<<28 {
			return 0, false
		}
		r.literals, r.bit = int(groups)*8, 0
	}
	if r.repeats > 0 {
		r.repeats--
		return r.value, true
	}
	n, ok := bitsAt(r.data, r.bit, r.width)
	if !ok {
		return 0, false
	}
	r.bit += r.width
	if r.literals--; r.literals == 0 {
		r.data = r.data[min((r.bit+7)/8, len(r.data)):]
		r.bit = 0
	}
	return uint32(n), true
}

// bitsAt are width bits that begin at bit at, the lowest first.
func bitsAt(data []byte, at, width int) (uint64, bool) {
	if width > 8*len(data)-at {
		return 0, false
	}
	var n uint64
	for got := 0; got < width; {
		b, off := data[(at+got)/8], (at+got)%8
		n |= uint64(b>>off) << got
		got += 8 - off
	}
	if width < 64 {
		n &= 1<<width - 1
	}
	return n, true
}

// plainBytes are values after their lengths.
type plainBytes struct{ data []byte }

func (p *plainBytes) next() ([]byte, error) {
	if len(p.data) < 4 {
		return nil, errValuesEnd
	}
	n := uint64(binary.LittleEndian.Uint32(p.data))
	if n > uint64(len(p.data)-4) {
		return nil, fmt.Errorf("a value claims %d bytes of %d", n, len(p.data)-4)
	}
	v := p.data[4 : 4+n : 4+n]
	p.data = p.data[4+n:]
	return v, nil
}

// plainFixed are values of one width.
type plainFixed struct {
	data  []byte
	width int
}

func (p *plainFixed) next() ([]byte, error) {
	if len(p.data) < p.width {
		return nil, errValuesEnd
	}
	v := p.data[:p.width:p.width]
	p.data = p.data[p.width:]
	return v, nil
}

type boolRuns struct{ runs }

func (b *boolRuns) next() ([]byte, error) {
	n, ok := b.runs.next()
	if !ok {
		return nil, errValuesEnd
	}
	return []byte{byte(n)}, nil
}

// dictValues are indexes into a dictionary.
type dictValues struct {
	dict    [][]byte
	indexes *runs
}

func (d *dictValues) next() ([]byte, error) {
	i, ok := d.indexes.next()
	if !ok {
		return nil, errValuesEnd
	}
	if int64(i) >= int64(len(d.dict)) {
		return nil, fmt.Errorf("index %d of a dictionary of %d values", i, len(d.dict))
	}
	return d.dict[i], nil
}

// splitValues hold the first bytes of all values, then the second ones, and so on (BYTE_STREAM_SPLIT).
type splitValues struct {
	data  []byte
	width int
	i     int
}

func (s *splitValues) next() ([]byte, error) {
	n := len(s.data) / s.width
	if s.i >= n {
		return nil, errValuesEnd
	}
	v := make([]byte, s.width)
	for k := range v {
		v[k] = s.data[k*n+s.i]
	}
	s.i++
	return v, nil
}

// deltas reads numbers in DELTA_BINARY_PACKED: blocks of differences, in miniblocks of one width each.
type deltas struct {
	data    []byte // from the block or miniblock at hand
	mini    int    // values of a miniblock
	minis   int    // of a block
	left    uint64 // values, with the one at hand
	last    int64
	least   int64  // difference of the block
	widths  []byte // of the block's miniblocks that are left
	inMini  int    // values left in the miniblock
	bit     int    // of data
	started bool
}

func newDeltas(data []byte) (*deltas, error) {
	d := &deltas{}
	bad := errors.New("its differences do not decode")
	block, n := binary.Uvarint(data)
	if n <= 0 {
		return nil, bad
	}
	data = data[n:]
	minis, n := binary.Uvarint(data)
	if n <= 0 {
		return nil, bad
	}
	data = data[n:]
	total, n := binary.Uvarint(data)
	if n <= 0 {
		return nil, bad
	}
	data = data[n:]
	first, n := binary.Varint(data)
	if n <= 0 || block == 0 || block > 1<<20 || minis == 0 || minis > block || block%minis != 0 || block/minis%8 != 0 {
		return nil, bad
	}
	d.data, d.mini, d.minis, d.left, d.last = data[n:], int(block/minis), int(minis), total, first
	return d, nil
}

// step takes in the header of the next block or miniblock, if the one at hand is used up.
func (d *deltas) step() bool {
	if d.inMini > 0 {
		return true
	}
	if len(d.widths) == 0 {
		least, n := binary.Varint(d.data)
		if n <= 0 || len(d.data)-n < d.minis {
			return false
		}
		d.least, d.widths, d.data = least, d.data[n:n+d.minis], d.data[n+d.minis:]
	}
	if int(d.widths[0]) > 64 || int(d.widths[0])*d.mini/8 > len(d.data) {
		return false
	}
	d.inMini, d.bit = d.mini, 0
	return true
}

// endMini passes on to what follows the miniblock.
func (d *deltas) endMini() {
	d.data = d.data[int(d.widths[0])*d.mini/8:]
	d.widths, d.inMini = d.widths[1:], 0
}

func (d *deltas) next() (int64, error) {
	if d.left == 0 {
		return 0, errValuesEnd
	}
	if d.left--; !d.started {
		d.started = true
		return d.last, nil
	}
	if !d.step() {
		return 0, errValuesEnd
	}
	width := int(d.widths[0])
	n, _ := bitsAt(d.data, d.bit, width) // step has seen that they are there
	d.last += d.least + int64(n)
	d.bit += width
	if d.inMini--; d.inMini == 0 {
		d.endMini()
	}
	return d.last, nil
}

// rest is what follows the numbers. It is asked for before the first of them.
func (d *deltas) rest() ([]byte, error) {
	c := *d
	for left := c.left; left > 1; left -= min(left-1, uint64(c.mini)) {
		if !c.step() {
			return nil, errValuesEnd
		}
		c.endMini()
	}
	return c.data, nil
}

type deltaNumbers struct {
	*deltas
	narrow bool
}

func (d *deltaNumbers) next() ([]byte, error) {
	n, err := d.deltas.next()
	if err != nil {
		return nil, err
	}
	if d.narrow {
		return binary.LittleEndian.AppendUint32(nil, uint32(n)), nil
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(n)), nil
}

// deltaLengths are the lengths of all values, then the values.
type deltaLengths struct {
	lengths *deltas
	data    []byte
}

func newDeltaLengths(data []byte) (*deltaLengths, error) {
	lengths, err := newDeltas(data)
	if err != nil {
		return nil, err
	}
	rest, err := lengths.rest()
	return &deltaLengths{lengths, rest}, err
}

func (d *deltaLengths) next() ([]byte, error) {
	n, err := d.lengths.next()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(d.data)) {
		return nil, fmt.Errorf("a value claims %d bytes of %d", n, len(d.data))
	}
	v := d.data[:n:n]
	d.data = d.data[n:]
	return v, nil
}

// deltaBytes are values without what they begin with like the one before.
type deltaBytes struct {
	shared   *deltas
	suffixes *deltaLengths
	last     []byte
	total    int // bytes of the values so far
}

func newDeltaBytes(data []byte) (*deltaBytes, error) {
	shared, err := newDeltas(data)
	if err != nil {
		return nil, err
	}
	rest, err := shared.rest()
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaLengths(rest)
	return &deltaBytes{shared: shared, suffixes: suffixes}, err
}

func (d *deltaBytes) next() ([]byte, error) {
	n, err := d.shared.next()
	if err != nil {
		return nil, err
	}
	suffix, err := d.suffixes.next()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(d.last)) {
		return nil, fmt.Errorf("a value shares %d bytes with one of %d", n, len(d.last))
	}
	v := append(append(make([]byte, 0, int(n)+len(suffix)), d.last[:n]...), suffix...)
	if d.total += len(v); d.total > maxPage {
		return nil, fmt.Errorf("its values unfold to more than %d bytes", maxPage)
	}
	d.last = v
	return v, nil
}
