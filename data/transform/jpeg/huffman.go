package jpeg

import (
	"encoding/binary"
	"fmt"
)

const (
	lookBits = 9  // codes of up to so many bits are found at once
	fastBits = 10 // codes of AC coefficients and their values, together
)

// huffman is a table of codes.
type huffman struct {
	set    bool
	look   [1 << lookBits]uint16 // length<<8 | symbol of the code that the bits begin with; 0 for longer ones
	most   [18]int32             // the largest code of each length, or -1; of length 17, more than any
	first  [17]int32             // index of the symbol of code 0 of a length
	symbol [256]uint8
	// fast is for AC coefficients: value<<16 | run<<8 | bits of code and value, or 0 where they are more than fastBits.
	// A run of endRun is the end of the block.
	fast [1 << fastBits]int32
}

const endRun = 128

// readHuffman reads tables. p is the segment of a marker DHT.
func (d *Decoder) readHuffman(p []byte) error {
	for len(p) > 0 {
		if len(p) < 17 || p[0]>>4 > 1 || p[0]&15 > 3 {
			return fmt.Errorf("bad Huffman table")
		}
		ac := p[0]>>4 == 1
		t := &d.dc[p[0]&3]
		if ac {
			t = &d.ac[p[0]&3]
		}
		total := 0
		for _, n := range p[1:17] {
			total += int(n)
		}
		if total > 256 || len(p) < 17+total {
			return fmt.Errorf("Huffman table of %d codes in %d bytes", total, len(p)-17)
		}
		if err := t.build(p[1:17], p[17:17+total], ac); err != nil {
			return err
		}
		p = p[17+total:]
	}
	return nil
}

// build makes the tables of the code that has counts[i] codes of i+1 bits (T.81, annex C).
func (t *huffman) build(counts, symbols []uint8, ac bool) error {
	t.set = false
	t.symbol = [256]uint8{}
	copy(t.symbol[:], symbols)
	if !ac {
		for _, s := range symbols {
			if s > 15 {
				return fmt.Errorf("Huffman table: a DC difference of %d bits", s)
			}
		}
	}
	clear(t.look[:])
	code, at := int32(0), int32(0)
	for i, n := range counts {
		length := i + 1
		t.first[length] = at - code
		t.most[length] = -1
		for range n {
			if code >= 1<<length {
				return fmt.Errorf("Huffman table: too many codes of %d bits", length)
			}
			if length <= lookBits {
				from := code << (lookBits - length)
				for k := range int32(1) << (lookBits - length) {
					t.look[from+k] = uint16(length)<<8 | uint16(t.symbol[at])
				}
			}
			t.most[length] = code
			code, at = code+1, at+1
		}
		code <<= 1
	}
	t.most[17] = 1<<31 - 1
	if ac {
		t.buildFast()
	}
	t.set = true
	return nil
}

func (t *huffman) buildFast() {
	clear(t.fast[:])
	for i := range int32(1 << fastBits) {
		e := t.look[i>>(fastBits-lookBits)]
		length, run, size := int(e>>8), int32(e>>4&15), int(e&15)
		switch {
		case length == 0 || length+size > fastBits:
		case size > 0:
			v := i << length & (1<<fastBits - 1) >> (fastBits - size)
			t.fast[i] = extend(v, size)<<16 | run<<8 | int32(length+size)
		case run == 15:
			t.fast[i] = run<<8 | int32(length) // 15 zeros, and a zero for a value
		default:
			t.fast[i] = endRun<<8 | int32(length)
		}
	}
}

// extend is the signed value that size bits stand for (T.81, F.2.2.1).
func extend(v int32, size int) int32 {
	if size > 0 && v < 1<<(size-1) {
		v -= 1<<size - 1
	}
	return v
}

// bits reads a segment of entropy-coded data, whose stuffing is gone. Behind its end come zeros.
type bits struct {
	data []byte // the segment and eight more bytes
	end  int    // bits in the segment
	pos  int    // of the next byte to be taken into acc
	n    int    // bits in acc
	acc  uint64 // the next bits, the first one uppermost
}

// exhausted reports whether more bits were taken than there are.
func (r *bits) exhausted() bool { return 8*r.pos-r.n > r.end }

// refill makes n at least 56. It is written out in decodeBlock.
func (r *bits) refill() {
	if r.pos+8 <= len(r.data) {
		r.acc |= binary.BigEndian.Uint64(r.data[r.pos:]) >> (r.n & 63)
	}
	r.pos += (63 - r.n) >> 3
	r.n |= 56
}

// take returns the next size ≤ 16 bits.
func (r *bits) take(size int) int32 {
	if r.n < size {
		r.refill()
	}
	v := int32(r.acc >> 1 >> ((63 - size) & 63))
	r.acc <<= size & 63
	r.n -= size
	return v
}

// decode returns the next symbol of t. A code that t lacks is 17 bits long and stands for 0, as libjpeg has it.
func (r *bits) decode(t *huffman) uint8 {
	if r.n < 32 {
		r.refill()
	}
	if e := t.look[r.acc>>(64-lookBits)]; e != 0 {
		r.acc <<= e >> 8 & 63
		r.n -= int(e >> 8)
		return uint8(e)
	}
	s, length := t.long(r.acc)
	r.acc <<= length & 63
	r.n -= length
	return s
}

// long finds a code of more than lookBits bits at the top of acc.
func (t *huffman) long(acc uint64) (symbol uint8, length int) {
	length = lookBits + 1
	for int32(acc>>(64-length)) > t.most[length] {
		length++
	}
	if length > 16 {
		return 0, length
	}
	return t.symbol[(int32(acc>>(64-length))+t.first[length])&255], length
}

// decodeBlock reads a block of a sequential file into b, which is zero, and returns the position of its last coefficient
// in zigzag order.
func (r *bits) decodeBlock(b *[64]int16, dc, ac *huffman, pred *int32) int {
	size := int(r.decode(dc))
	*pred += extend(r.take(size), size)
	b[0] = int16(*pred)

	// The reader's fields live in registers for the loop.
	data, pos, n, acc := r.data, r.pos, r.n, r.acc
	last := 0
	for k := 1; k < 64; k++ {
		if n < 32 { // a code has up to 17 bits, its value up to 15
			if pos+8 <= len(data) {
				acc |= binary.BigEndian.Uint64(data[pos:]) >> (n & 63)
			}
			pos += (63 - n) >> 3
			n |= 56
		}
		if e := ac.fast[acc>>(64-fastBits)]; e != 0 {
			acc <<= e & 63
			n -= int(e & 63)
			run := int(e>>8) & 255
			if run == endRun {
				break
			}
			k += run
			b[order[k&127]&63] = int16(e >> 16)
			last = k
			continue
		}
		var sym uint8
		var length int
		if e := ac.look[acc>>(64-lookBits)]; e != 0 {
			sym, length = uint8(e), int(e>>8)
		} else {
			sym, length = ac.long(acc)
		}
		acc <<= length & 63
		n -= length
		run, size := int(sym>>4), int(sym&15)
		if size == 0 {
			if run != 15 {
				break
			}
			k += 15
			continue
		}
		k += run
		v := int32(acc >> ((64 - size) & 63))
		acc <<= size & 63
		n -= size
		b[order[k&127]&63] = int16(extend(v, size))
		last = k
	}
	r.pos, r.n, r.acc = pos, n, acc
	return last
}
