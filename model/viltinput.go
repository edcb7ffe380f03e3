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
	mean, std   [3]float32
	take        [][]ops.Patch
	order       []int
}

// newPictureInput makes an input of at most n pictures. mean and std are those of the pixel levels divided by 255.
func newPictureInput(g *ops.Graph, name string, c *viltConfig, n int, mean, std [3]float32) *PictureInput {
	most := c.MostPatches()
	return &PictureInput{pics: g.Pictures(name, n, n*most, c.PatchSize, mean, std), patch: c.PatchSize, most: most, mean: mean, std: std}
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

// SetTaken binds pictures with given patches of each.
func (in *PictureInput) SetTaken(p *ops.Program, pics []ops.Picture, take [][]ops.Patch) {
	in.take = take
	p.SetPictures(in.pics, pics, take)
}

// Taken returns the patches that are taken of each of the pictures that Set or SetTaken has bound.
func (in *PictureInput) Taken() [][]ops.Patch { return in.take }

// MostPatches returns how many patches a picture has in a sequence at most.
func (in *PictureInput) MostPatches() int { return in.most }

// PatchSize returns P, in pixels.
func (in *PictureInput) PatchSize() int { return in.patch }

// MeanLevel returns the mean level of a channel over a patch, cut to a whole one.
func (in *PictureInput) MeanLevel(pic *ops.Picture, at ops.Patch, channel int) int32 {
	p, levels, sum := in.patch, 0, 0.0
	for y := int(at.Row) * p; y < int(at.Row+1)*p; y++ {
		for x := int(at.Col) * p; x < int(at.Col+1)*p; x++ {
			if pic.F32 == nil {
				levels += int(pic.U8[(y*pic.W+x)*3+channel])
			} else {
				sum += float64(pic.F32[(channel*pic.H+y)*pic.W+x]*in.std[channel] + in.mean[channel])
			}
		}
	}
	if pic.F32 == nil {
		return int32(levels / (p * p))
	}
	return int32(min(max(sum/float64(p*p)*255, 0), 255))
}
