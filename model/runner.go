package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// Runner runs a model forward, without gradients, for evaluation. It is not safe for concurrent use; its kernels use all
// threads of its pool.
type Runner struct {
	images           *ImageInput
	texts            *TextInput
	imgProg, txtProg *ops.Program
	pictures         []*ops.Node // what is computed of them
	text             *ops.Node
	run              ops.Run[float32]
	chunk            int
	size             int // levels of a picture
}

// NewRunner builds the forward graphs for chunks of at most chunk pictures or texts. picture and text add to a graph what is
// computed of them, of pictures one thing or several, a row of each; text may be nil. weights is the slab that is read.
func NewRunner(m Model, picture func(*ops.Graph, *ImageInput) []*ops.Node, text func(*ops.Graph, *TextInput) *ops.Node,
	weights []float32, chunk int, mean, std [3]float32, pool *kernel.Pool) (_ *Runner, err error) {
	r := &Runner{chunk: chunk}
	defer func() {
		if err != nil {
			r.closePrograms()
		}
	}()
	compile := func(g *ops.Graph, what string, outputs ...*ops.Node) (*ops.Program, error) {
		p, err := g.Compile(ops.CompileOpt[float32]{Outputs: outputs, ForwardOnly: true})
		if err != nil {
			return nil, fmt.Errorf("model: %s tower: %w", what, err)
		}
		return p, nil
	}
	g := ops.NewGraph[float32]()
	r.images = m.NewImages(g, "image", chunk, mean, std)
	r.size = 3 * r.images.image.Height * r.images.image.Width
	r.pictures = picture(g, r.images)
	if r.imgProg, err = compile(g, "image", r.pictures...); err != nil {
		return nil, err
	}
	arena := r.imgProg.ArenaSize()
	if text != nil {
		g := ops.NewGraph[float32]()
		r.texts = m.NewTexts(g, "text", chunk)
		r.text = text(g, r.texts)
		if r.txtProg, err = compile(g, "text", r.text); err != nil {
			return nil, err
		}
		arena = max(arena, r.txtProg.ArenaSize())
	}
	r.run = ops.Run[float32]{Weights: weights, Arena: kernel.NewSlab(arena), Pool: pool}
	return r, nil
}

// Dim returns the numbers of a row of the first thing that is computed of pictures, and of a text.
func (r *Runner) Dim() int { return r.pictures[0].Cols() }

// Close gives the memory back.
func (r *Runner) Close() {
	r.closePrograms()
	kernel.FreeSlab(r.run.Arena)
}

func (r *Runner) closePrograms() {
	for _, p := range []*ops.Program{r.imgProg, r.txtProg} {
		if p != nil {
			p.Close()
		}
	}
}

// Images encodes n pictures, pixels (n, height, width, 3), into a slice of n rows for each thing that is computed of them; what has nil is left.
func (r *Runner) Images(pixels []uint8, n int, out ...[]float32) error {
	for lo := 0; lo < n; lo += r.chunk {
		k := min(r.chunk, n-lo)
		r.imgProg.Bind(&r.run)
		r.images.Set(r.imgProg, pixels[lo*r.size:(lo+k)*r.size], k)
		if err := r.imgProg.Forward(); err != nil {
			return fmt.Errorf("model: image tower: %w", err)
		}
		for i, dst := range out {
			if e := r.pictures[i].Cols(); dst != nil {
				copy(dst[lo*e:(lo+k)*e], r.imgProg.Value(r.pictures[i]))
			}
		}
	}
	return nil
}

// Texts encodes texts, each bos … eos, into out (n, Dim). The runner must have been made with a text tower.
func (r *Runner) Texts(texts [][]int32, out []float32) error {
	e := r.Dim()
	for lo := 0; lo < len(texts); lo += r.chunk {
		k := min(r.chunk, len(texts)-lo)
		r.txtProg.Bind(&r.run)
		if err := r.texts.Set(r.txtProg, texts[lo:lo+k]); err != nil {
			return err
		}
		if err := r.txtProg.Forward(); err != nil {
			return fmt.Errorf("model: text tower: %w", err)
		}
		copy(out[lo*e:(lo+k)*e], r.txtProg.Value(r.text))
	}
	return nil
}
