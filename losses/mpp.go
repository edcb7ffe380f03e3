package losses

import (
	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// colorFiller is a model that guesses the mean colours of hidden patches.
type colorFiller interface {
	// FillColors adds a pass over sentences and pictures in which a learned row replaces the listed patches, by their number among
	// those taken: the scores of the 256 levels of each channel (3·rows, 256) at rows of the pictures' sequences, which ascend.
	FillColors(g *ops.Graph, pass string, texts *model.TextInput, images *model.ImageInput, replaced, rows *ops.Ints) *ops.Node
}

// mpp is masked patch prediction (Kim et al. 2021, §3.2 and table 5, where it does not help), over the M chosen patches of the
// global batch and their channels:
//
//	L = -1/(3M) Σ_m Σ_c log softmax(z_mc)[mean level of channel c in patch m]
//
// A patch is chosen with probability 0.15. Of the chosen 80 % are replaced by a learned row, the others stay (spec/vilt 3.4). Means
// are cut to whole levels.
func mpp(gr *model.Grain, _ Config, o *Options) (Local, error) {
	m, ok := gr.Model.(colorFiller)
	if !ok {
		return Local{}, unfit("head that guesses the colours of hidden patches")
	}
	images := gr.NewImages("mpp.image")
	shapes := images.Shapes
	most := shapes.MostPatches() * gr.N
	replaced, rows := gr.G.Ints("mpp.replaced", most), gr.G.Ints("mpp.rows", most)
	scores := m.FillColors(gr.G, "mpp", gr.Texts(), images, replaced, rows)
	t := ops.Targets{Classes: gr.G.Ints("mpp.levels", 3*most), Weights: gr.G.Input("mpp.weights", scores.Rows(), 1)}
	var (
		hidden, where, levels []int32
		weights               []float32
		own                   []ops.Picture
	)
	bind := func(p *ops.Program, v View) (int, error) {
		own, hidden, where, levels = v.own(own[:0]), hidden[:0], where[:0], levels[:0]
		if err := v.setPictures(p, images, "mpp", own, o); err != nil {
			return 0, err
		}
		at := 0 // patches before
		for i, taken := range shapes.Taken() {
			pic := &own[i]
			choose := chooseColors(v, i, o, pic.W/shapes.PatchSize())
			for k, patch := range taken {
				chosen, replace := choose(patch)
				if replace {
					hidden = append(hidden, int32(at+k))
				}
				if chosen {
					where = append(where, int32(at+k+i+1)) // behind the class tokens
					for c := range 3 {
						levels = append(levels, shapes.MeanLevel(pic, patch, c))
					}
				}
			}
			at += len(taken)
		}
		items := len(levels)
		weights = weights[:0]
		for range items {
			weights = append(weights, 1)
		}
		if len(hidden) == 0 {
			hidden = append(hidden, -1)
		}
		if items == 0 { // a list has at least one row: this one counts for nothing
			where, levels, weights = append(where, 0), append(levels, 0, 0, 0), append(weights, 0, 0, 0)
		}
		p.SetInts(replaced, hidden)
		p.SetInts(rows, where)
		p.SetInts(t.Classes, levels)
		p.SetInput(t.Weights, weights)
		return items, nil
	}
	return Local{Sums: gr.G.CrossEntropy(scores, t), Bind: bind}, nil
}

// chooseColors tells of a patch of pair i's picture, with cols patches in a row, whether it is to be guessed, and whether it is
// replaced.
func chooseColors(v View, i int, o *Options, cols int) func(ops.Patch) (chosen, replaced bool) {
	key := v.At("mpp", i)
	if o.Draws != nil {
		masked, swapped := o.Draws.Color(v, i)
		in := func(list []int, p ops.Patch) bool {
			for _, k := range list {
				if k == int(p.Row)*cols+int(p.Col) {
					return true
				}
			}
			return false
		}
		return func(p ops.Patch) (bool, bool) { return in(masked, p), in(swapped, p) }
	}
	return func(p ops.Patch) (chosen, replaced bool) {
		at := addr.Hash(key, uint64(p.Row), uint64(p.Col))
		chosen = addr.Float64(addr.Hash(at, 0)) < maskProb
		return chosen, chosen && addr.Float64(addr.Hash(at, 1)) < 0.8
	}
}
