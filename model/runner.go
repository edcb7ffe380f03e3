package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// Runner runs a model forward, without gradients, for evaluation. It is not safe for concurrent use; its kernels use all
// threads of its pool.
type Runner struct {
	m                *CLIP
	images           *ImageInput
	texts            *TextInput
	imgProg, txtProg *ops.Program
	x, y             *ops.Node
	run              ops.Run[float32]
	chunk            int
}

// NewRunner builds the forward graphs for chunks of at most chunk pictures or texts. weights is the slab that is read.
func (m *CLIP) NewRunner(weights []float32, chunk int, mean, std [3]float32, pool *kernel.Pool) (*Runner, error) {
	r := &Runner{m: m, chunk: chunk}
	g := ops.NewGraph[float32]()
	r.images = m.NewImageInput(g, chunk, mean, std)
	r.x = m.EncodeImage(g, r.images)
	h := ops.NewGraph[float32]()
	r.texts = m.NewTextInput(h, chunk)
	r.y = m.EncodeText(h, r.texts)
	var err error
	if r.imgProg, err = g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{r.x}, ForwardOnly: true}); err != nil {
		return nil, fmt.Errorf("model: image tower: %w", err)
	}
	if r.txtProg, err = h.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{r.y}, ForwardOnly: true}); err != nil {
		r.imgProg.Close()
		return nil, fmt.Errorf("model: text tower: %w", err)
	}
	arena := kernel.NewSlab(max(r.imgProg.ArenaSize(), r.txtProg.ArenaSize()))
	r.run = ops.Run[float32]{Weights: weights, Arena: arena, Pool: pool}
	return r, nil
}

// Close gives the memory back.
func (r *Runner) Close() {
	r.imgProg.Close()
	r.txtProg.Close()
	kernel.FreeSlab(r.run.Arena)
}

// Images encodes n pictures, pixels (n, S, S, 3), into out (n, E), unit rows.
func (r *Runner) Images(pixels []uint8, n int, out []float32) error {
	size := 3 * r.m.Config.Vision.ImageSize * r.m.Config.Vision.ImageSize
	e := r.m.Config.EmbedDim
	for lo := 0; lo < n; lo += r.chunk {
		k := min(r.chunk, n-lo)
		r.imgProg.Bind(&r.run)
		r.images.Set(r.imgProg, pixels[lo*size:(lo+k)*size], k)
		if err := r.imgProg.Forward(); err != nil {
			return fmt.Errorf("model: image tower: %w", err)
		}
		copy(out[lo*e:(lo+k)*e], r.imgProg.Value(r.x))
	}
	return nil
}

// Texts encodes texts, each bos … eos, into out (n, E), unit rows.
func (r *Runner) Texts(texts [][]int32, out []float32) error {
	e := r.m.Config.EmbedDim
	for lo := 0; lo < len(texts); lo += r.chunk {
		k := min(r.chunk, len(texts)-lo)
		r.txtProg.Bind(&r.run)
		if err := r.texts.Set(r.txtProg, texts[lo:lo+k]); err != nil {
			return err
		}
		if err := r.txtProg.Forward(); err != nil {
			return fmt.Errorf("model: text tower: %w", err)
		}
		copy(out[lo*e:(lo+k)*e], r.txtProg.Value(r.y))
	}
	return nil
}
