package model

import (
	"fmt"
	"slices"

	"diptych/internal/addr"
	"diptych/ops"
)

// PictureInput is the run-time input of pictures of different shapes in one graph.
type PictureInput struct {
	pics *ops.Pictures

	patch, most int // pixels; patches that a sequence holds
	take        [][]ops.Patch
	order       []int
}

// NewPictures makes an input of at most n pictures. mean and std are those of the pixel levels divided by 255.
func (m *ViLT) NewPictures(g *ops.Graph, name string, n int, mean, std [3]float32) *PictureInput {
	c := &m.Config
	most := c.MostPatches()
	return &PictureInput{pics: g.Pictures(name, n, n*most, c.PatchSize, mean, std), patch: c.PatchSize, most: most}
}

// NewTexts makes an input of at most n sentences.
func (m *ViLT) NewTexts(g *ops.Graph, name string, n int) *TextInput {
	c := &m.Config
	rows := n * c.ContextLength
	return &TextInput{
		vocab: c.VocabSize, context: c.ContextLength,
		ids: g.Ints(name+".ids", rows), seqs: g.Seqs(name+".seqs", n, rows),
	}
}

// Set binds the pictures of the next run. Of one with more patches than the model's cap the cap's number is drawn, without
// replacement; key(i) is the address of picture i's draw. The authors' code also shuffles the patches, which changes nothing.
func (in *PictureInput) Set(p *ops.Program, pics []ops.Picture, key func(i int) uint64) error {
	in.take = slices.Grow(in.take[:0], len(pics))[:len(pics)]
	for i, pic := range pics {
		rows, cols := pic.H/in.patch, pic.W/in.patch
		if rows == 0 || cols == 0 || pic.H%in.patch != 0 || pic.W%in.patch != 0 {
			return fmt.Errorf("model: picture %d of %d×%d pixels is not made of patches of %d: %w", i, pic.W, pic.H, in.patch, ops.ErrShape)
		}
		in.take[i] = in.take[i][:0]
		for _, k := range in.draw(rows*cols, i, key) {
			in.take[i] = append(in.take[i], ops.Patch{Row: int32(k / cols), Col: int32(k % cols)})
		}
	}
	p.SetPictures(in.pics, pics, in.take)
	return nil
}

// draw returns the numbers, in raster order, of the patches that are taken of n.
func (in *PictureInput) draw(n, picture int, key func(i int) uint64) []int {
	in.order = in.order[:0]
	if n <= in.most {
		for k := range n {
			in.order = append(in.order, k)
		}
		return in.order
	}
	perm := addr.NewPerm(key(picture), uint64(n))
	for k := range in.most {
		in.order = append(in.order, int(perm.At(uint64(k))))
	}
	slices.Sort(in.order)
	return in.order
}

// setTaken binds pictures with given patches, as the authors' code drew them.
func (in *PictureInput) setTaken(p *ops.Program, pics []ops.Picture, take [][]ops.Patch) {
	p.SetPictures(in.pics, pics, take)
}
