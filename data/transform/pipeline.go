package transform

import (
	"errors"
	"fmt"
	"slices"

	"diptych/internal/addr"
)

// Pipeline is a recipe's checked list of operations. It is read-only: goroutines share one, each with its own Scratch.
type Pipeline struct {
	// Mean and Std are what the final normalize entry says, for levels in [0, 1]: a model computes
	// (level/255 - Mean) / Std. Without that entry they are 0 and 1.
	Mean, Std [3]float32

	side    int
	decode  options
	entries []entry
	fixed   int // how many entries come before the first random one
}

// entry is one operation of the list.
type entry struct {
	step   step
	number int     // in the list, from 1
	op     string  // its name
	random bool    // its result depends on the key
	prob   float64 // it is skipped with probability 1 - prob
}

// step is one operation with its parameters.
type step interface {
	// side returns the side of the squares that come out when those that go in have side in; 0 means that it varies.
	side(in int) int
	// apply returns the changed picture in a buffer of sc, or im itself when nothing changes. It never writes to im.
	apply(im *Image, d draws, sc *Scratch) (*Image, error)
}

// draws are the random numbers of one entry for one picture. Number 0 decides whether the entry is applied at all.
type draws struct{ key, entry uint64 }

func (d draws) uniform(i uint64) float64 { return addr.Float64(addr.Hash(d.key, d.entry, i)) }

func (d draws) between(i uint64, lo, hi float64) float64 { return lo + float64((hi-lo)*d.uniform(i)) }

func (d draws) below(i uint64, n int) int { return addr.Below(addr.Hash(d.key, d.entry, i), n) }

// Scratch is the working memory of one goroutine. The zero value is ready; it grows to what the largest picture needs.
type Scratch struct {
	bufs         [2]Image // results alternate between them
	between      Image    // between the two passes of a resize
	across, down axis
	pair         []int64
	mixed        []uint8 // four rows of pixels side by side
	sums         []int32
	spread       []uint64
	aside        Image // what a colour operation mixes with
	decoder      *decoder
}

// other returns a buffer that is not im.
func (sc *Scratch) other(im *Image) *Image {
	if im == &sc.bufs[0] {
		return &sc.bufs[1]
	}
	return &sc.bufs[0]
}

// spreadOut returns the pixels of im with their channels laneBits apart, with a row and two pixels of padding behind.
func (sc *Scratch) spreadOut(im *Image) []uint64 {
	n := im.W * im.H
	sc.spread = slices.Grow(sc.spread[:0], n+im.W+2)[:n+im.W+2]
	clear(sc.spread[n:])
	out, p := sc.spread[:n], im.Pix[:3*n]
	for i := range out {
		q := p[3*i : 3*i+3 : 3*i+3]
		out[i] = uint64(q[0]) | uint64(q[1])<<laneBits | uint64(q[2])<<(2*laneBits)
	}
	return sc.spread
}

// New checks a recipe's list of operations, which must end with pictures of side×side pixels. Every fault is reported
// (errors.Join), with the number of the entry from 1, its op and the parameter.
func New(specs []Spec, side int) (*Pipeline, error) {
	if side <= 0 {
		return nil, fmt.Errorf("transform: image size %d", side)
	}
	p := &Pipeline{Std: [3]float32{1, 1, 1}, side: side}
	var errs []error
	for i, spec := range specs {
		e, err := parse(spec, i+1, side)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if n, ok := e.step.(*normalize); ok {
			p.Mean, p.Std = n.mean, n.std
			if i != len(specs)-1 {
				errs = append(errs, fmt.Errorf("transform: entry %d (normalize): it must be the last of the %d entries", i+1, len(specs)))
			}
			continue
		}
		if n, ok := e.step.(*decodeOp); ok {
			if i != 0 {
				errs = append(errs, fmt.Errorf("transform: entry %d (decode): it must be the first entry", i+1))
			}
			errs = append(errs, n.link(p, specs, side))
			continue
		}
		if !e.random && p.fixed == len(p.entries) {
			p.fixed++
		}
		p.entries = append(p.entries, e)
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, p.checkSide())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// checkSide follows the size of the pictures through the list.
func (p *Pipeline) checkSide() error {
	const add = `; add {op: center_crop} or {op: resize, mode: squash}`
	at, last := 0, "no entry resizes or crops the pictures, whose sizes vary"
	for _, e := range p.entries {
		out := e.step.side(at)
		if _, ok := e.step.(*resizeOp); ok || out != at {
			last = fmt.Sprintf("entry %d (%s) leads to ", e.number, e.op)
			if out == 0 {
				last += "pictures of which only one side is known"
			} else {
				last += fmt.Sprintf("%d×%d pixels", out, out)
			}
		}
		at = out
	}
	switch at {
	case p.side:
		return nil
	case 0:
		return fmt.Errorf("transform: the pictures must end with %d×%d pixels, but %s%s", p.side, p.side, last, add)
	default:
		return fmt.Errorf("transform: the pictures must end with %d×%d pixels, but %s", p.side, p.side, last)
	}
}

// Side returns the side of the pictures that Apply makes, in pixels.
func (p *Pipeline) Side() int { return p.side }

// Decode reads a picture file as the list's decode entry says; without one it is the function Decode. It allocates nothing
// for JPEG files once sc has grown.
func (p *Pipeline) Decode(b []byte, dst *Image, sc *Scratch) error {
	return decode(b, DefaultMaxPixels, &p.decode, dst, sc)
}

// Apply runs the list on im, which is not changed, and writes (side, side, 3) levels to dst. key is the address of the
// picture's place in the run: the same key gives the same bits on every machine. A picture that cannot be used gives an
// error that wraps ErrBadPicture. It allocates nothing once sc has grown.
func (p *Pipeline) Apply(im *Image, key uint64, dst []uint8, sc *Scratch) error {
	return p.finish(p.entries, im, key, dst, sc)
}

// Prepare runs the entries that come before the first random one, which need no key, and keeps the result in dst.
// Finish does the rest: the two together are Apply. So a cache can hold small pictures instead of whole photographs.
func (p *Pipeline) Prepare(im, dst *Image, sc *Scratch) error {
	out, err := run(p.entries[:p.fixed], im, 0, sc)
	if err != nil {
		return err
	}
	dst.copyFrom(out)
	return nil
}

// Finish is Apply for a picture that Prepare has made.
func (p *Pipeline) Finish(prepared *Image, key uint64, dst []uint8, sc *Scratch) error {
	return p.finish(p.entries[p.fixed:], prepared, key, dst, sc)
}

func (p *Pipeline) finish(entries []entry, im *Image, key uint64, dst []uint8, sc *Scratch) error {
	if len(dst) != 3*p.side*p.side {
		return fmt.Errorf("transform: %d bytes for %d×%d pixels", len(dst), p.side, p.side)
	}
	out, err := run(entries, im, key, sc)
	if err != nil {
		return err
	}
	if out.W != p.side || out.H != p.side { // a list without random entries, finished without being prepared
		return fmt.Errorf("transform: %d×%d pixels for %d×%d: not prepared", out.W, out.H, p.side, p.side)
	}
	copy(dst, out.Pix)
	return nil
}

func run(entries []entry, im *Image, key uint64, sc *Scratch) (*Image, error) {
	if err := im.check(); err != nil {
		return nil, fmt.Errorf("transform: %w", err)
	}
	for i := range entries {
		e := &entries[i]
		d := draws{key, uint64(e.number)}
		if e.prob < 1 && d.uniform(0) >= e.prob {
			continue
		}
		next, err := e.step.apply(im, d, sc)
		if err != nil {
			return nil, fmt.Errorf("transform: entry %d (%s): %w", e.number, e.op, err)
		}
		im = next
	}
	return im, nil
}
