package ops

import "fmt"

// The Set methods bind what a run reads. Slices are not copied: they must stay as they are until the run is over, and be
// bound again for a Backward that comes after another Forward. What does not fit is reported by the next run.

// SetDim sets a length made by NewDim.
func (p *ProgramOf[T]) SetDim(d *Dim, n int) {
	if d.of != nil || d.fixed {
		p.fail("length %s follows from others and cannot be set", d)
		return
	}
	p.setDim(d, n)
}

func (p *ProgramOf[T]) setDim(d *Dim, n int) bool {
	if n < 1 || n > d.Max {
		p.fail("%s is %d, must be in [1, %d]: %w", d, n, d.Max, ErrShape)
		return false
	}
	d.n = n
	return true
}

// SetInput binds the elements of an input, Len of its rows times its columns.
func (p *ProgramOf[T]) SetInput(n *Node, data []T) {
	if n == nil || n.buf.class != inInput {
		p.fail("SetInput of %s, which is not an input", n.Name())
		return
	}
	p.g.mem.inputs[n.buf.off] = data
}

// SetOutputGrad binds the gradient that Backward starts from at output n, in the shape of Value(n).
func (p *ProgramOf[T]) SetOutputGrad(n *Node, d []T) {
	seed := p.seeds[n]
	if seed == nil {
		p.fail("SetOutputGrad of %s, which is not an output with a gradient", n.Name())
		return
	}
	p.g.mem.inputs[seed.off] = d
}

// SetInts binds a list of indices and sets its length.
func (p *ProgramOf[T]) SetInts(x *Ints, data []int32) {
	x.set = p.setDim(x.Dim, len(data))
	x.data = data
}

// SetSeqs binds the offsets of sequences, beginning with 0 and ending with the number of rows, and sets both lengths.
func (p *ProgramOf[T]) SetSeqs(x *Seqs, offsets []int32) {
	x.set = false
	if len(offsets) == 0 || offsets[0] != 0 {
		p.fail("%s: offsets must begin with 0: %w", x.name, ErrShape)
		return
	}
	for i, o := range offsets[1:] {
		if o <= offsets[i] {
			p.fail("%s: sequence %d goes from row %d to %d; none may be empty: %w", x.name, i, offsets[i], o, ErrShape)
			return
		}
	}
	x.set = p.setDim(x.Count, len(offsets)-1) && p.setDim(x.Rows, int(offsets[len(offsets)-1]))
	x.offsets = offsets
}

// SetImageU8 binds n pictures as levels (n, height, width, 3).
func (p *ProgramOf[T]) SetImageU8(x *Image, pixels []uint8) {
	x.u8, x.f32 = pixels, nil
	p.setImage(x, len(pixels))
}

// SetImageF32 binds n pictures that are normalised already (n, 3, height, width).
func (p *ProgramOf[T]) SetImageF32(x *Image, pixels []float32) {
	x.u8, x.f32 = nil, pixels
	p.setImage(x, len(pixels))
}

func (p *ProgramOf[T]) setImage(x *Image, n int) {
	x.set = false
	size := 3 * x.Height * x.Width
	if n%size != 0 {
		p.fail("%s: %d pixels are no whole number of pictures of 3·%d·%d: %w", x.name, n, x.Height, x.Width, ErrShape)
		return
	}
	x.set = p.setDim(x.Count, n/size)
}

// fail keeps the first error of the Set methods for the next run.
func (p *ProgramOf[T]) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("ops: "+format, args...)
	}
}
