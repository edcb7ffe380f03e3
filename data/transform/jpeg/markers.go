package jpeg

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Markers, by the names of ITU-T T.81, table B.1.
const (
	markSOF0  = 0xc0
	markDHT   = 0xc4
	markJPG   = 0xc8
	markDAC   = 0xcc
	markRST0  = 0xd0
	markRST7  = 0xd7
	markSOI   = 0xd8
	markEOI   = 0xd9
	markSOS   = 0xda
	markDQT   = 0xdb
	markDNL   = 0xdc
	markDRI   = 0xdd
	markAPP0  = 0xe0
	markAPP1  = 0xe1
	markAPP14 = 0xee
	markTEM   = 0x01
)

// frames names the kinds of frame that are refused.
var frames = map[byte]string{
	0xc3: "lossless", 0xc5: "hierarchical", 0xc6: "hierarchical progressive", 0xc7: "hierarchical lossless", markJPG: "reserved",
	0xc9: "arithmetic coding", 0xca: "progressive arithmetic coding", 0xcb: "lossless arithmetic coding",
	0xcd: "hierarchical arithmetic coding", 0xce: "hierarchical arithmetic coding", 0xcf: "hierarchical lossless arithmetic coding",
	0xf7: "JPEG-LS",
}

// order is the natural position of each coefficient in zigzag order. Runs that leave a damaged block end at its last one.
var order = [128]uint8{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
}

// next moves behind the next marker and returns it, skipping what stands before it, as libjpeg does.
func (d *Decoder) next() (byte, error) {
	for {
		i := bytes.IndexByte(d.data[d.pos:], 0xff)
		if i < 0 {
			d.pos = len(d.data)
			return 0, fmt.Errorf("%w: it ends at byte %d without an end marker", ErrTruncated, len(d.data))
		}
		d.pos += i
		for d.pos < len(d.data) && d.data[d.pos] == 0xff {
			d.pos++
		}
		if d.pos < len(d.data) && d.data[d.pos] != 0 {
			d.pos++
			return d.data[d.pos-1], nil
		}
	}
}

// markers reads marker segments up to a scan's header or the end, and returns which of the two it is.
func (d *Decoder) markers() (byte, error) {
	for {
		m, err := d.next()
		if err != nil {
			return 0, err
		}
		at := d.pos - 2
		switch {
		case m == markSOS || m == markEOI:
			return m, nil
		case m == markSOI:
			return 0, fmt.Errorf("%w: a second start marker at byte %d", ErrFormat, at)
		case markRST0 <= m && m <= markRST7, m == markTEM: // no segment follows
			continue
		}
		if name, ok := frames[m]; ok {
			return 0, fmt.Errorf("%w: %s (marker FF%02X at byte %d)", ErrUnsupported, name, m, at)
		}
		p, err := d.payload(m)
		if err != nil {
			return 0, err
		}
		switch {
		case m == markDHT:
			err = d.readHuffman(p)
		case m == markDQT:
			err = d.readQuant(p)
		case m >= markSOF0 && m <= markSOF0+2:
			d.progressive = m == markSOF0+2
			err = d.readFrame(p)
		case m == markDRI:
			if len(p) != 2 {
				err = fmt.Errorf("restart interval of %d bytes", len(p))
			} else {
				d.restart = int(binary.BigEndian.Uint16(p))
			}
		case m == markAPP0 && len(p) >= 14 && string(p[:5]) == "JFIF\x00": // 14 as libjpeg wants it
			d.jfif = true
		case m == markAPP14 && len(p) >= 12 && string(p[:5]) == "Adobe":
			d.adobe = int(p[11])
		case m == markAPP1 && bytes.HasPrefix(p, []byte("Exif\x00\x00")):
			if o := Orientation(p[6:]); o != 0 {
				d.hdr.Orientation = o
			}
		case m >= 2 && m < markSOF0:
			err = fmt.Errorf("unknown marker FF%02X", m)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: byte %d: %w", ErrFormat, at, err)
		}
	}
}

// payload returns the segment of marker m and moves behind it.
func (d *Decoder) payload(m byte) ([]byte, error) {
	if d.pos+2 > len(d.data) {
		return nil, fmt.Errorf("%w: it ends at byte %d, in marker FF%02X", ErrTruncated, len(d.data), m)
	}
	n := int(binary.BigEndian.Uint16(d.data[d.pos:]))
	if n < 2 {
		return nil, fmt.Errorf("%w: marker FF%02X at byte %d has length %d", ErrFormat, m, d.pos-2, n)
	}
	if d.pos+n > len(d.data) {
		return nil, fmt.Errorf("%w: it ends at byte %d, in marker FF%02X", ErrTruncated, len(d.data), m)
	}
	p := d.data[d.pos+2 : d.pos+n]
	d.pos += n
	return p, nil
}

func (d *Decoder) readQuant(p []byte) error {
	for len(p) > 0 {
		wide, t := p[0]>>4 != 0, p[0]&15
		n := 64
		if wide {
			n = 128
		}
		if p = p[1:]; t > 3 || len(p) < n {
			return fmt.Errorf("bad quantization table %d", t)
		}
		for k := range 64 {
			v := uint16(p[k])
			if wide {
				v = binary.BigEndian.Uint16(p[2*k:])
			}
			d.quant[t][order[k]] = int16(v)
		}
		d.hasQuant[t] = true
		p = p[n:]
	}
	return nil
}

func (d *Decoder) readFrame(p []byte) error {
	if len(d.comps) > 0 {
		return fmt.Errorf("a second frame")
	}
	if len(p) < 6 || len(p) != 6+3*int(p[5]) {
		return fmt.Errorf("frame header of %d bytes", len(p))
	}
	if p[0] != 8 {
		return fmt.Errorf("%w: %d bits for each sample; 8 are read", ErrUnsupported, p[0])
	}
	d.hdr.H, d.hdr.W = int(binary.BigEndian.Uint16(p[1:])), int(binary.BigEndian.Uint16(p[3:]))
	if d.hdr.H == 0 || d.hdr.W == 0 {
		return fmt.Errorf("%d×%d pixels", d.hdr.W, d.hdr.H)
	}
	n := int(p[5])
	if n != 1 && n != 3 && n != 4 {
		return fmt.Errorf("%w: %d components; 1, 3 and 4 are read", ErrUnsupported, n)
	}
	d.hMax, d.vMax = 1, 1
	for i := range n {
		q := p[6+3*i:]
		c := component{id: int(q[0]), h: int(q[1] >> 4), v: int(q[1] & 15), table: int(q[2])}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.table > 3 {
			return fmt.Errorf("component %d: sampling %d×%d, quantization table %d", c.id, c.h, c.v, c.table)
		}
		d.hMax, d.vMax = max(d.hMax, c.h), max(d.vMax, c.v)
		d.comps = append(d.comps, c)
	}
	return nil
}

// scanHeader is what a scan holds: whole blocks, or bits of some coefficients of a progressive file.
type scanHeader struct {
	comps     []*component
	from, to  int // coefficients in zigzag order
	high, low int // successive approximation
	store     [4]*component
}

// scanHeader reads the segment of a start-of-scan marker.
func (d *Decoder) scanHeader() (*scanHeader, error) {
	at := d.pos - 2
	p, err := d.payload(markSOS)
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) (*scanHeader, error) {
		return nil, fmt.Errorf("%w: scan at byte %d: "+format, append([]any{ErrFormat, at}, args...)...)
	}
	if len(p) < 1 || p[0] < 1 || p[0] > 4 || len(p) != 4+2*int(p[0]) {
		return bad("header of %d bytes", len(p))
	}
	s := &d.scanned
	*s = scanHeader{}
	s.comps = s.store[:0]
	blocks := 0
	for i := range int(p[0]) {
		id, tables := int(p[1+2*i]), p[2+2*i]
		var c *component
		for k := range d.comps {
			if d.comps[k].id == id {
				c = &d.comps[k]
				break
			}
		}
		if c == nil {
			return bad("no component %d", id)
		}
		for _, o := range s.comps {
			if o == c {
				return bad("component %d twice", id)
			}
		}
		c.dcTable, c.acTab = int(tables>>4), int(tables&15)
		if c.dcTable > 3 || c.acTab > 3 {
			return bad("Huffman tables %d and %d", c.dcTable, c.acTab)
		}
		if !c.latched {
			if !d.hasQuant[c.table] {
				return bad("quantization table %d is missing", c.table)
			}
			c.quant, c.latched = d.quant[c.table], true
		}
		blocks += c.h * c.v
		s.comps = append(s.comps, c)
	}
	if len(s.comps) > 1 && blocks > 10 { // T.81, B.2.3
		return bad("%d blocks in an MCU", blocks)
	}
	q := p[1+2*len(s.comps):]
	s.from, s.to, s.high, s.low = int(q[0]), int(q[1]), int(q[2]>>4), int(q[2]&15)
	if !d.progressive {
		s.from, s.to, s.high, s.low = 0, 63, 0, 0
	} else if s.from > s.to || s.to > 63 || s.low > 13 || s.from == 0 && s.to != 0 || s.from > 0 && len(s.comps) > 1 || s.high > 0 && s.low != s.high-1 {
		return bad("coefficients %d to %d of bits %d, %d", s.from, s.to, s.high, s.low)
	}
	for _, c := range s.comps {
		if s.from == 0 && s.high == 0 && !d.dc[c.dcTable].set {
			return bad("Huffman table %d of DC coefficients is missing", c.dcTable)
		}
		if s.to > 0 && !d.ac[c.acTab].set {
			return bad("Huffman table %d of AC coefficients is missing", c.acTab)
		}
	}
	return s, nil
}

// Orientation finds tag 274, EXIF's orientation, in the first directory of a TIFF block, or 0.
func Orientation(b []byte) int {
	if len(b) < 8 {
		return 0
	}
	var e binary.ByteOrder = binary.LittleEndian
	switch string(b[:4]) {
	case "II*\x00":
	case "MM\x00*":
		e = binary.BigEndian
	default:
		return 0
	}
	at := int64(e.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 0
	}
	b = b[at:]
	for n, e2 := int(e.Uint16(b)), b[2:]; n > 0 && len(e2) >= 12; n, e2 = n-1, e2[12:] {
		if e.Uint16(e2) == 274 && e.Uint16(e2[2:]) == 3 && e.Uint32(e2[4:]) == 1 { // one SHORT
			if o := int(e.Uint16(e2[8:])); 1 <= o && o <= 8 {
				return o
			}
			return 0
		}
	}
	return 0
}
