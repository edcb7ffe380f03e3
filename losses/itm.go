package losses

import (
	"fmt"

	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// matcher is a model that scores whether a picture is the one that a sentence is about.
type matcher interface {
	// Match adds a pass over sentences and pictures, one of each to a pair: the scores (B, 2) of "another picture" and "its own".
	// With all it also returns the pass's rows after the last norm (R, D) and how they divide.
	Match(g *ops.Graph, pass string, texts *model.TextInput, images *model.ImageInput, all bool) (scores, rows *ops.Node, joined *ops.Joined)
}

// itm is image–text matching with random false pictures (Kim et al. 2021, §3.2), over the N pairs of the global batch:
//
//	L = -1/N Σ_i log softmax(z_i)[y_i]    y_i = 1 where pair i has its own picture
//
// Of the pairs of a grain just half, rounded down, keep their picture, and each of the others gets that of another pair of the
// grain, each equally likely: no batch holds a group twice, so it is a false one. The paper draws false pictures from the whole
// data set, the true one among them; within a grain a batch's pictures serve twice and are decoded once.
func itm(gr *model.Grain, _ Config, o *Options) (Local, error) {
	m, ok := gr.Model.(matcher)
	if !ok {
		return Local{}, unfit("matching of a picture with a sentence")
	}
	if gr.N < 2 {
		return Local{}, fmt.Errorf("a false picture is that of another pair of the grain, but grains have %d (train.grainSize)", gr.N)
	}
	images := gr.NewImages("itm.image")
	scores, rows, joined := m.Match(gr.G, "itm", gr.Texts(), images, o.has("wpa"))
	o.matched, o.joined = rows, joined
	t := ops.Targets{Classes: gr.G.Ints("itm.own", gr.N)}
	var draw matches
	bind := func(p *ops.Program, v View) (int, error) {
		draw.of(v, o)
		p.SetInts(t.Classes, draw.own)
		return v.N, v.setPictures(p, images, "itm", draw.pictures, o)
	}
	return Local{Sums: gr.G.CrossEntropy(scores, t), Bind: bind}, nil
}

// matches says which picture each sentence of a grain is shown.
type matches struct {
	own      []int32 // 1: its own
	pictures []ops.Picture
}

// of draws them for a grain.
func (m *matches) of(v View, o *Options) {
	m.own, m.pictures = m.own[:0], m.pictures[:0]
	perm := addr.NewPerm(addr.Hash(v.Seed, addr.Name("itm"), uint64(v.Batch.Step), uint64(v.Lo)), uint64(v.N))
	for i := range v.N {
		var pic ops.Picture
		own := perm.At(uint64(i)) < uint64(v.N/2)
		switch {
		case o.Draws != nil:
			pic, own = o.Draws.Match(v, i)
		case own:
			pic = v.picture(i)
		default:
			pic = v.picture((i + 1 + addr.Below(v.At("itm.picture", i), v.N-1)) % v.N)
		}
		label := int32(0)
		if own {
			label = 1
		}
		m.own, m.pictures = append(m.own, label), append(m.pictures, pic)
	}
}
