package losses

import (
	"fmt"

	"diptych/model"
	"diptych/ops"
)

// answerer is a model that scores answers to a sentence about one picture or two.
type answerer interface {
	NumClasses() int // K
	Pictures() int   // of a sentence
	// Answer adds a pass over sentences and each of their pictures: the scores of the answers (B, K).
	Answer(g *ops.Graph, pass string, texts *model.TextInput, images ...*model.ImageInput) *ops.Node
}

// answering is the pass of an objective that learns answers.
type answering struct {
	pass   string
	images []*model.ImageInput
	o      *Options
	pics   [2][]ops.Picture // first and second ones, which stay bound
}

// newAnswering adds the pass: the scores of the answers to each pair's sentence (B, K).
func newAnswering(gr *model.Grain, pass string, o *Options) (a *answering, scores *ops.Node, err error) {
	m, ok := gr.Model.(answerer)
	if !ok {
		return nil, nil, unfit("scores of answers to a sentence about a picture")
	}
	a = &answering{pass: pass, o: o}
	for i := range m.Pictures() {
		a.images = append(a.images, gr.NewImages(pass+[]string{".image", ".second"}[i]))
	}
	return a, m.Answer(gr.G, pass, gr.Texts(), a.images...), nil
}

// bind binds the pairs' pictures.
func (a *answering) bind(p *ops.Program, v View) error {
	for i, in := range a.images {
		pics := a.pics[i][:0]
		if i == 0 {
			pics = v.own(pics)
		} else {
			for k := range v.N {
				s := &v.Pair(k).Second
				pics = append(pics, ops.Picture{W: s.Width, H: s.Height, U8: s.Pixels})
			}
		}
		a.pics[i] = pics
		if err := v.setPictures(p, in, a.pass+[]string{"", ".second"}[i], pics, a.o); err != nil {
			return err
		}
	}
	return nil
}

// checkClass sees that a class of pair i is one of k.
func (v View) checkClass(name string, i int, class int32, k int) error {
	if class < 0 || int(class) >= k {
		return fmt.Errorf("losses: %s: row %d has class %d, the model has %d: %w", name, v.Pair(i).Row, class, k, ops.ErrShape)
	}
	return nil
}
