package model

import (
	"fmt"

	"diptych/ops"
)

// Answer returns the scores of the answers to each picture, with the second of the same number where the model reads two, and
// the sentence of the same number: (B, K), appended to out.
func (r *PairRunner) Answer(pics, seconds []ops.Picture, texts [][]int32, out []float32) ([]float32, error) {
	if len(seconds) > 0 != (r.m.Pictures() == 2) {
		return nil, fmt.Errorf("model: pairs: %d second pictures for a model of %d: %w", len(seconds), r.m.Pictures(), ops.ErrShape)
	}
	p, err := r.program(&r.answer, func(p *pairProgram, g *ops.Graph) {
		images := []*ImageInput{p.images}
		if r.m.Pictures() == 2 {
			p.second = r.m.NewImages(g, "second", r.chunk, r.mean, r.std)
			images = append(images, p.second)
		}
		p.out = r.m.Answer(g, "answer", p.texts, images...)
	})
	if err != nil {
		return nil, err
	}
	for lo := 0; lo < len(pics); lo += r.chunk {
		hi := min(lo+r.chunk, len(pics))
		if p.second != nil {
			p.others = seconds[lo:hi]
		}
		if err := p.forward(pics[lo:hi], texts[lo:hi], nil); err != nil {
			return nil, err
		}
		out = append(out, p.prog.Value(p.out)...)
	}
	return out, nil
}
