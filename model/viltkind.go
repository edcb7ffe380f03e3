package model

import "diptych/ops"

// Parameters returns the order of the parameters in a slab.
func (m *ViLT) Parameters() *Layout { return &m.Layout }

// Clamp does nothing: no parameter has a range.
func (m *ViLT) Clamp([]float32) {}

// NewImages makes an input of pictures, which may differ in shape: see ImageInput.Shapes.
func (m *ViLT) NewImages(g *ops.Graph, name string, n int, mean, std [3]float32) *ImageInput {
	return &ImageInput{vision: &m.Config.Vision, Shapes: newPictureInput(g, name, &m.cfg, n, mean, std)}
}

// NewTexts makes an input of sentences.
func (m *ViLT) NewTexts(g *ops.Graph, name string, n int) *TextInput {
	return newTextInput(g, name, &m.Config.Text, n)
}

// Match adds a pass over pairs and the scores (B, 2) of "another picture" and "its own". With all it also returns the rows after
// the last norm (R, D) and how they divide; without, only the first of each sequence leaves the last block.
func (m *ViLT) Match(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, all bool) (scores, rows *ops.Node, joined *ops.Joined) {
	s := m.Embed(g, texts, images.Shapes, pass, 0, nil)
	if g.Err() != nil {
		return nil, nil, nil
	}
	first := g.First(s.Joined.Seqs)
	if !all {
		return m.MatchLogits(g, m.Pool(g, m.Encode(g, s, first))), nil, nil
	}
	rows = m.Encode(g, s, nil)
	return m.MatchLogits(g, m.Pool(g, g.Gather(rows, first.Rows))), rows, s.Joined
}

// FillWords adds a pass over pairs and the scores of every word (rows, V) at the listed rows of the packed sentences, which ascend.
func (m *ViLT) FillWords(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, rows *ops.Ints) *ops.Node {
	s := m.Embed(g, texts, images.Shapes, pass, 0, nil)
	if g.Err() != nil {
		return nil
	}
	return m.WordLogits(g, m.Encode(g, s, g.Pick(s.Joined, rows)))
}

// FillColors adds a pass over pairs in which a learned row replaces the listed patches, by their number among those taken, and the
// scores of the 256 levels of each channel (3·rows, 256) at rows of the pictures' sequences, which ascend.
func (m *ViLT) FillColors(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, replaced, rows *ops.Ints) *ops.Node {
	s := m.Embed(g, texts, images.Shapes, pass, 0, replaced)
	if g.Err() != nil {
		return nil
	}
	return g.Split(m.ColorLogits(g, m.Encode(g, s, g.PickSecond(s.Joined, rows))), 3)
}
