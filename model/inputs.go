package model

import (
	"fmt"

	"diptych/ops"
)

// ImageInput is the run-time input of the image tower in one graph.
type ImageInput struct {
	image *ops.Image
	seqs  *ops.Seqs
	class *ops.Ints // rows of the class tokens

	tokens          int // of a picture
	offsets, clsRow []int32
}

// NewImageInput makes an input of at most n pictures. mean and std are those of the pixel levels divided by 255.
func (m *CLIP) NewImageInput(g *ops.Graph, n int, mean, std [3]float32) *ImageInput {
	v := &m.Config.Vision
	in := &ImageInput{tokens: v.NumTokens()}
	in.image = g.Image("image", n, v.ImageSize, mean, std)
	in.seqs = g.Seqs("image.seqs", n, n*in.tokens)
	if v.Pool == "cls" {
		in.class = g.Ints("image.class", n)
	}
	for i := range n + 1 {
		in.offsets = append(in.offsets, int32(i*in.tokens))
	}
	return in
}

// Set binds the pictures of the next run: pixels (n, S, S, 3), levels 0 to 255. The slice must stay until the backward pass.
func (in *ImageInput) Set(p *ops.Program, pixels []uint8, n int) {
	p.SetImageU8(in.image, pixels)
	in.setCount(p, n)
}

// SetFloat binds normalised pictures (n, 3, S, S).
func (in *ImageInput) SetFloat(p *ops.Program, pixels []float32, n int) {
	p.SetImageF32(in.image, pixels)
	in.setCount(p, n)
}

func (in *ImageInput) setCount(p *ops.Program, n int) {
	p.SetSeqs(in.seqs, in.offsets[:n+1])
	if in.class != nil {
		p.SetInts(in.class, in.offsets[:n]) // the class token comes first
	}
}

// TextInput is the run-time input of the text tower in one graph.
type TextInput struct {
	ids  *ops.Ints
	seqs *ops.Seqs
	last *ops.Ints // rows of the last tokens

	vocab, context          int
	tokens, offsets, lastID []int32
}

// NewTextInput makes an input of at most n texts.
func (m *CLIP) NewTextInput(g *ops.Graph, n int) *TextInput {
	t := &m.Config.Text
	in := &TextInput{vocab: t.VocabSize, context: t.ContextLength}
	rows := n * t.ContextLength
	in.ids = g.Ints("text.ids", rows)
	in.seqs = g.Seqs("text.seqs", n, rows)
	if t.Pool == "eos" {
		in.last = g.Ints("text.last", n)
	}
	return in
}

// Set packs the texts of the next run: each brings just its own tokens. A text that is empty, longer than the context or
// holds an id outside the vocabulary gives an error.
func (in *TextInput) Set(p *ops.Program, texts [][]int32) error {
	in.tokens, in.offsets, in.lastID = in.tokens[:0], append(in.offsets[:0], 0), in.lastID[:0]
	for i, ids := range texts {
		if len(ids) == 0 || len(ids) > in.context {
			return fmt.Errorf("model: text %d has %d tokens, the context holds 1 to %d: %w", i, len(ids), in.context, ops.ErrShape)
		}
		for _, id := range ids {
			if id < 0 || int(id) >= in.vocab {
				return fmt.Errorf("model: text %d holds token %d, the vocabulary has %d: %w", i, id, in.vocab, ops.ErrShape)
			}
		}
		in.tokens = append(in.tokens, ids...)
		in.offsets = append(in.offsets, int32(len(in.tokens)))
		in.lastID = append(in.lastID, int32(len(in.tokens)-1))
	}
	p.SetInts(in.ids, in.tokens)
	p.SetSeqs(in.seqs, in.offsets)
	if in.last != nil {
		p.SetInts(in.last, in.lastID)
	}
	return nil
}
