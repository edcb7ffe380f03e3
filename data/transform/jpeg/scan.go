package jpeg

import (
	"bytes"
	"fmt"
	"slices"
)

// scan reads the entropy-coded data of one scan. direct sends blocks to the planes at once; else coefficients are kept.
func (d *Decoder) scan(s *scanHeader, direct bool) error {
	if err := d.nextSegment(); err != nil {
		return err
	}
	for _, c := range s.comps {
		c.pred = 0
	}
	d.eobRun, d.starved = 0, false
	mcusX, mcusY := d.mcus()
	single := len(s.comps) == 1
	if single { // blocks that hold no pixels are left out
		mcusX, mcusY = s.comps[0].liveX, s.comps[0].liveY
	}
	left, number := d.restart, 0
	for y := range mcusY {
		for x := range mcusX {
			if d.restart > 0 {
				if left == 0 {
					if err := d.restartMarker(number); err != nil {
						return err
					}
					for _, c := range s.comps {
						c.pred = 0
					}
					left, number = d.restart, number+1
				}
				left--
			}
			if single {
				d.block(s, s.comps[0], x, y, direct)
			} else {
				for _, c := range s.comps {
					for v := range c.v {
						for h := range c.h {
							d.block(s, c, x*c.h+h, y*c.v+v, direct)
						}
					}
				}
			}
			if !d.starved && d.bits.exhausted() {
				d.starved = true // libjpeg leaves all blocks up to the next restart as they are
			}
		}
	}
	return nil
}

// block reads one block of a scan.
func (d *Decoder) block(s *scanHeader, c *component, x, y int, direct bool) {
	if direct {
		d.work = [64]int16{}
		last := 0
		if !d.starved {
			last = d.bits.decodeBlock(&d.work, &d.dc[c.dcTable], &d.ac[c.acTab], &c.pred)
		}
		c.transform(&d.work, x, y, last)
		return
	}
	b := (*[64]int16)(c.coef[64*(y*c.blocksX+x):])
	r := &d.bits
	switch {
	case s.from == 0 && s.high > 0:
		if r.take(1) != 0 {
			b[0] |= 1 << s.low
		}
	case d.starved:
	case !d.progressive:
		*b = [64]int16{}
		r.decodeBlock(b, &d.dc[c.dcTable], &d.ac[c.acTab], &c.pred)
	case s.from == 0:
		size := int(r.decode(&d.dc[c.dcTable]))
		c.pred += extend(r.take(size), size)
		b[0] = int16(c.pred << s.low)
	case s.high == 0:
		d.firstBits(b, &d.ac[c.acTab], s)
	default:
		d.nextBit(b, &d.ac[c.acTab], s)
	}
}

// firstBits reads the first bits of AC coefficients (T.81, G.1.2.2).
func (d *Decoder) firstBits(b *[64]int16, t *huffman, s *scanHeader) {
	if d.eobRun > 0 {
		d.eobRun--
		return
	}
	r := &d.bits
	for k := s.from; k <= s.to; k++ {
		sym := r.decode(t)
		run, size := int(sym>>4), int(sym&15)
		switch {
		case size > 0:
			k += run
			b[order[k&127]&63] = int16(extend(r.take(size), size) << s.low)
		case run == 15:
			k += 15
		default:
			d.eobRun = 1<<run + r.take(run) - 1
			return
		}
	}
}

// nextBit reads one more bit of AC coefficients (T.81, G.1.2.3).
func (d *Decoder) nextBit(b *[64]int16, t *huffman, s *scanHeader) {
	r := &d.bits
	bit := int16(1) << s.low
	refine := func(p *int16) {
		if r.take(1) != 0 && *p&bit == 0 {
			if *p >= 0 {
				*p += bit
			} else {
				*p -= bit
			}
		}
	}
	k := s.from
	if d.eobRun == 0 {
		for ; k <= s.to; k++ {
			sym := r.decode(t)
			run, size := int(sym>>4), sym&15
			v := int16(0)
			if size > 0 { // 1, or damaged
				if v = -bit; r.take(1) != 0 {
					v = bit
				}
			} else if run != 15 {
				d.eobRun = 1<<run + r.take(run)
				break
			}
			for ; k <= s.to; k++ {
				p := &b[order[k]]
				if *p != 0 {
					refine(p)
				} else if run--; run < 0 {
					break
				}
			}
			if v != 0 {
				b[order[k&127]&63] = v
			}
		}
	}
	if d.eobRun > 0 {
		for ; k <= s.to; k++ {
			if p := &b[order[k]]; *p != 0 {
				refine(p)
			}
		}
		d.eobRun--
	}
}

// nextSegment takes the data up to the next marker, without their stuffing, and leaves pos at the marker.
func (d *Decoder) nextSegment() error {
	out := d.segment[:0]
	for {
		i := bytes.IndexByte(d.data[d.pos:], 0xff)
		if i < 0 {
			return d.cut()
		}
		out = append(out, d.data[d.pos:d.pos+i]...)
		d.pos += i
		at := d.pos + 1
		for at < len(d.data) && d.data[at] == 0xff {
			at++
		}
		if at == len(d.data) {
			return d.cut()
		}
		if d.data[at] != 0 {
			break
		}
		out = append(out, 0xff)
		d.pos = at + 1
	}
	end := len(out)
	d.segment = slices.Grow(out, 8)[:end+8]
	clear(d.segment[end:])
	d.bits = bits{data: d.segment, end: 8 * end}
	return nil
}

func (d *Decoder) cut() error {
	d.pos = len(d.data)
	return fmt.Errorf("%w: it ends at byte %d, in the middle of the picture", ErrTruncated, len(d.data))
}

// restartMarker goes on behind restart marker number (modulo 8). What is there instead is handled as libjpeg's
// jpeg_resync_to_restart does.
func (d *Decoder) restartMarker(number int) error {
	d.eobRun = 0
	for {
		at := d.pos
		m, err := d.next()
		if err != nil {
			return err
		}
		switch ahead := (int(m) - markRST0 - number) & 7; {
		case m < markSOF0: // no marker
			continue
		case m < markRST0 || m > markRST7 || ahead == 1 || ahead == 2:
			// The interval is missing: it is left as it is, and the marker is met again.
			d.pos = at
			d.segment = append(d.segment[:0], make([]byte, 8)...)
			d.bits = bits{data: d.segment}
			return nil
		case ahead == 6 || ahead == 7: // one that was passed
			continue
		}
		d.starved = false
		return d.nextSegment()
	}
}
