package model

import (
	"strings"

	"diptych/ops"
)

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
	if !all {
		return m.MatchLogits(g, m.pooled(g, pass, texts, images, 0)), nil, nil
	}
	pooled, rows, joined := m.pooledOfAll(g, pass, texts, images)
	return m.MatchLogits(g, pooled), rows, joined
}

// pooledOfAll adds a pass over pairs -> pooled (B, D), with the rows after the last norm (R, D) and how they divide.
func (m *ViLT) pooledOfAll(g *ops.Graph, pass string, texts *TextInput, images *ImageInput) (pooled, rows *ops.Node, joined *ops.Joined) {
	s := m.Embed(g, texts, images.Shapes, pass, 0, nil)
	if g.Err() != nil {
		return nil, nil, nil
	}
	rows = m.Encode(g, s, nil)
	return m.Pool(g, g.Gather(rows, g.First(s.Joined.Seqs).Rows)), rows, s.Joined
}

// NumClasses returns K, the number of answers.
func (m *ViLT) NumClasses() int { return m.Heads.Classes }

// Pictures returns how many pictures a sentence has whose answers are scored: 1 or 2.
func (m *ViLT) Pictures() int { return m.cfg.PictureTypes }

// pooled adds a pass over pairs; picture is 0, or 1 for the second one of a sentence -> (B, D).
func (m *ViLT) pooled(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, picture int) *ops.Node {
	s := m.Embed(g, texts, images.Shapes, pass, picture, nil)
	if g.Err() != nil {
		return nil
	}
	return m.Pool(g, m.Encode(g, s, g.First(s.Joined.Seqs)))
}

// Answer adds a pass over sentences and each of their Pictures, and the scores of the answers (B, K).
func (m *ViLT) Answer(g *ops.Graph, pass string, texts *TextInput, images ...*ImageInput) *ops.Node {
	pooled := m.pooled(g, pass, texts, images[0], 0)
	if len(images) == 2 {
		pooled = g.SideBySide(pooled, m.pooled(g, pass+".second", texts, images[1], 1))
	}
	if g.Err() != nil {
		return nil
	}
	return m.ClassLogits(g, pooled)
}

// Rank adds a pass over pairs and the score (B, 1) by which sentences are ranked for a picture.
func (m *ViLT) Rank(g *ops.Graph, pass string, texts *TextInput, images *ImageInput) *ops.Node {
	return m.RankScore(g, m.pooled(g, pass, texts, images, 0))
}

// Inherit fills dst, the elements of parameter p, from those of a model that lacks it or has it in another form; slab holds
// that model's. The score of ranking begins as the odds of matching, the row of a second picture as that of the first (Kim et
// al. 2021, §4; spec/vilt 2 and 7). It tells how, or returns "" where there is no such rule.
func (m *ViLT) Inherit(p *Param, dst []float32, from *Layout, slab []float32) string {
	d := m.cfg.Width
	switch p.Name {
	case "rank_output.weight", "rank_output.bias":
		name := strings.Replace(p.Name, "rank_output", "itm_score.fc", 1)
		if q := from.Find(name); q != nil && q.Len() == 2*p.Len() {
			copy(dst, q.Slice(slab)[p.Len():])
			return "row 1 of " + name
		}
	case m.types.Name:
		if q := from.Find(p.Name); q != nil && q.Len() == 2*d && p.Len() == 3*d {
			copy(dst, q.Slice(slab))
			copy(dst[2*d:], q.Slice(slab)[d:])
			return "its row of the first picture also for the second"
		}
	}
	return ""
}

// FillWords adds a pass over pairs that guesses the words at the listed rows of the packed sentences, which ascend: the scores are
// hidden·tableᵀ + bias of hidden (rows, D), table (V, D) and bias (V).
func (m *ViLT) FillWords(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, rows *ops.Ints) (hidden, table, bias *ops.Node) {
	s := m.Embed(g, texts, images.Shapes, pass, 0, nil)
	if g.Err() != nil {
		return nil, nil, nil
	}
	return m.WordHead(g, m.Encode(g, s, g.Pick(s.Joined, rows)))
}

// FillColors adds a pass over pairs in which a learned row replaces the listed patches, by their number among those taken, and the
// scores of the 256 levels of each channel (3·rows, 256) at rows of the pictures' sequences, which ascend.
func (m *ViLT) FillColors(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, replaced, rows *ops.Ints) *ops.Node {
	s := m.Embed(g, texts, images.Shapes, pass, 0, replaced)
	if g.Err() != nil {
		return nil
	}
	return g.Split(m.colorLogits(g, m.Encode(g, s, g.PickSecond(s.Joined, rows))), 3)
}
