package losses

import (
	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// Vocabulary is what objectives on words must know of the tokenizer.
type Vocabulary interface {
	VocabSize() int
	Mask() int32                    // the id that hides a token, -1: none
	Words(ids, dst []int32) []int32 // the number of the word that each id is part of, -1 for marks
}

// Options are what local objectives need beside their own part of the recipe. The zero value is enough for those that read no
// words.
type Options struct {
	Vocabulary Vocabulary
	// Draws, where not nil, stands in for what objectives draw at random: a reference's own draws, to compare with it.
	Draws *Draws

	cfgs    []Config    // of the whole recipe
	matched *ops.Node   // the rows of ITM's pass, for alignment
	joined  *ops.Joined // how they divide
}

// Draws is what objectives draw, by the position of a pair in the global batch.
type Draws struct {
	Match func(v View, i int) (picture ops.Picture, own bool)                      // what the sentence is shown
	Words func(v View, i int) (tokens []int32, masked []int)                       // what is read, and which places count
	Color func(v View, i int) (masked, replaced []int)                             // patches by their number in raster order
	Taken func(v View, pass string, i int, pic *ops.Picture) (patches []ops.Patch) // of a picture with more than the cap
}

// has tells whether the recipe has an objective.
func (o *Options) has(name string) bool {
	for _, c := range o.cfgs {
		if c.Name == name {
			return true
		}
	}
	return false
}

// setPictures binds a picture for each pair of the grain. pass is part of the address by which patches are drawn where a picture
// has more than the model's cap.
func (v View) setPictures(p *ops.Program, in *model.ImageInput, pass string, pics []ops.Picture, o *Options) error {
	if o.Draws != nil && o.Draws.Taken != nil {
		take := make([][]ops.Patch, v.N)
		for i := range take {
			take[i] = o.Draws.Taken(v, pass, i, &pics[i])
		}
		in.Shapes.SetTaken(p, pics, take)
		return nil
	}
	return in.Shapes.Set(p, pics, func(i int) uint64 { return v.At(pass+".patches", i) })
}

// ownPictures returns the input of the pairs' own pictures for a pass, and what binds it. Where pictures have their own shape each
// pass draws patches for itself; else all passes share what the loop binds.
func (o *Options) ownPictures(gr *model.Grain, pass string) (*model.ImageInput, func(p *ops.Program, v View) error) {
	if _, shared := gr.Model.(fuser); shared {
		return gr.Images(), func(*ops.Program, View) error { return nil }
	}
	images := gr.NewImages(pass + ".image")
	var own []ops.Picture
	return images, func(p *ops.Program, v View) error {
		own = v.own(own[:0])
		return v.setPictures(p, images, pass, own, o)
	}
}

// own appends the pairs' own pictures to pics.
func (v View) own(pics []ops.Picture) []ops.Picture {
	for i := range v.N {
		pics = append(pics, v.picture(i))
	}
	return pics
}

// picture returns the picture of pair i of the grain.
func (v View) picture(i int) ops.Picture {
	pair := v.Pair(i)
	pic := ops.Picture{W: pair.Width, H: pair.Height, U8: pair.Pixels, F32: pair.Normalized}
	if v.Batch.Normalized != nil {
		size := v.size()
		pic.F32 = v.Batch.Normalized[(v.Lo+i)*size : (v.Lo+i+1)*size]
	}
	return pic
}

// shuffle returns the numbers below n in an order drawn by key, into dst.
func shuffle(dst []int, key uint64, n int) []int {
	perm := addr.NewPerm(key, uint64(n))
	for i := range n {
		dst = append(dst, int(perm.At(uint64(i))))
	}
	return dst
}
