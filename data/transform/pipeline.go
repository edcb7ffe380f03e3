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

	out     extent // the pictures that come out
	patch   int    // both sides are multiples of it, if not 0
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
	// extent returns what is known of the pictures that come out from what is known of those that go in.
	extent(in extent) extent
	// apply returns the changed picture in a buffer of sc, or im itself when nothing changes. It never writes to im.
	apply(im *Image, d draws, sc *Scratch) (*Image, error)
}

// extent is what is known of the sizes of pictures at some place of a list; the zero value is nothing.
type extent struct {
	sides        // of all; zero: their shapes differ
	multiple int // what both sides of all are multiples of, if their shapes differ; 0: nothing is known
	pixels   int // they have at most, if one of these is known
}

func (e extent) known() bool { return e.sides != sides{} }

// sized is the extent of pictures of one size.
func sized(s sides) extent { return extent{sides: s, pixels: s.w * s.h} }

// inPatches tells whether both sides are multiples of patch.
func (e extent) inPatches(patch int) bool {
	if e.known() {
		return e.w%patch == 0 && e.h%patch == 0
	}
	return e.multiple > 0 && e.multiple%patch == 0
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

// New checks a recipe's list of operations, which must end with pictures of height×width pixels, the size of an entry without one. Every fault is reported
// (errors.Join), with the number of the entry from 1, its op and the parameter.
func New(specs []Spec, height, width int) (*Pipeline, error) {
	return build(specs, sides{w: width, h: height}, 0)
}

// NewPatches is New for a model that takes pictures of different shapes: they must end with sides that are multiples of patch
// pixels, as min_max_resize makes them or a crop of such a size. side is what an entry's size is without one.
func NewPatches(specs []Spec, side, patch int) (*Pipeline, error) {
	if patch <= 0 {
		return nil, fmt.Errorf("transform: patch size %d", patch)
	}
	return build(specs, sides{side, side}, patch)
}

func build(specs []Spec, size sides, patch int) (*Pipeline, error) {
	if size.w <= 0 || size.h <= 0 {
		return nil, fmt.Errorf("transform: image size %d×%d", size.w, size.h)
	}
	p := &Pipeline{Std: [3]float32{1, 1, 1}, patch: patch}
	var errs []error
	for i, spec := range specs {
		e, err := parse(spec, i+1, size, patch)
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
			errs = append(errs, n.link(p, specs, size))
			continue
		}
		if !e.random && p.fixed == len(p.entries) {
			p.fixed++
		}
		p.entries = append(p.entries, e)
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, p.checkExtent(size))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// checkExtent follows the size of the pictures through the list. Those of a model without different shapes must end with
// that size.
func (p *Pipeline) checkExtent(size sides) error {
	at, last := extent{}, "no entry resizes or crops the pictures, whose sizes vary"
	for _, e := range p.entries {
		out := e.step.extent(at)
		if _, ok := e.step.(*resizeOp); ok || out != at {
			last = fmt.Sprintf("entry %d (%s) leads to ", e.number, e.op)
			switch {
			case out.known():
				last += fmt.Sprintf("%d×%d pixels", out.w, out.h)
			case out.multiple > 0:
				last += fmt.Sprintf("different shapes, whose sides are multiples of %d", out.multiple)
			default:
				last += "pictures of which only one side is known"
			}
		}
		at = out
	}
	p.out = at
	if p.patch > 0 {
		if !at.inPatches(p.patch) {
			return fmt.Errorf("transform: the pictures must end with sides that are multiples of %d pixels, but %s; add {op: min_max_resize}", p.patch, last)
		}
		return nil
	}
	switch at.sides {
	case size:
		return nil
	case sides{}:
		return fmt.Errorf("transform: the pictures must end with %d×%d pixels, but %s; add {op: center_crop} or {op: resize, mode: squash}", size.w, size.h, last)
	default:
		return fmt.Errorf("transform: the pictures must end with %d×%d pixels, but %s", size.w, size.h, last)
	}
}

// Size returns the width and the height of the pictures that Apply makes, in pixels; 0, 0 if their shapes differ.
func (p *Pipeline) Size() (w, h int) { return p.out.w, p.out.h }

// MaxPixels returns how many pixels a picture that Apply makes has at most: all of them have as many if Size is not 0.
func (p *Pipeline) MaxPixels() int { return p.out.pixels }

// Decode reads a picture file as the list's decode entry says; without one it is the function Decode. It allocates nothing
// for JPEG files once sc has grown.
func (p *Pipeline) Decode(b []byte, dst *Image, sc *Scratch) error {
	return decode(b, DefaultMaxPixels, &p.decode, dst, sc)
}

// Apply runs the list on im, which is not changed, and puts the result into dst, in the memory it has when that is enough. key
// is the address of the picture's place in the run: the same key gives the same bits on every machine. A picture that cannot
// be used gives an error that wraps ErrBadPicture. It allocates nothing once dst and sc have grown.
func (p *Pipeline) Apply(im *Image, key uint64, dst *Image, sc *Scratch) error {
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
func (p *Pipeline) Finish(prepared *Image, key uint64, dst *Image, sc *Scratch) error {
	return p.finish(p.entries[p.fixed:], prepared, key, dst, sc)
}

func (p *Pipeline) finish(entries []entry, im *Image, key uint64, dst *Image, sc *Scratch) error {
	out, err := run(entries, im, key, sc)
	if err != nil {
		return err
	}
	if p.out.known() && out.sides() != p.out.sides { // a list without random entries, finished without being prepared
		return fmt.Errorf("transform: %d×%d pixels for %d×%d: not prepared", out.W, out.H, p.out.w, p.out.h)
	}
	if !p.out.known() && (out.W%p.patch != 0 || out.H%p.patch != 0) {
		return fmt.Errorf("transform: %d×%d pixels for multiples of %d: not prepared", out.W, out.H, p.patch)
	}
	dst.copyFrom(out)
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
