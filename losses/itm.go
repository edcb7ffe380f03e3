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

// fuser is a matcher that computes a picture once for all sentences that it is matched with.
type fuser interface {
	// MatchRead adds a pass over sentences, each with picture reads[i]: the scores (B, 2).
	MatchRead(g *ops.Graph, pass string, texts *model.TextInput, images *model.ImageInput, reads *ops.Ints) *ops.Node
	// MatchHard adds a pass over pairs and their hard negatives: the scores (3·B, 2) of a pair, of its sentence with another picture and
	// of its picture with another sentence; before update `after` the negatives are drawn evenly.
	MatchHard(g *ops.Graph, pass string, texts *model.TextInput, images *model.ImageInput, groups *ops.Ints, after int) *ops.Node
}

// itm is image–text matching with random false pictures (Kim et al. 2021, §3.2), over the N pairs of the global batch:
//
//	L = -1/N Σ_i log softmax(z_i)[y_i]    y_i = 1 where pair i has its own picture
//
// Of the pairs of a grain just half, rounded down, keep their picture, and each of the others gets that of another pair of the
// grain, each equally likely: no batch holds a group twice, so it is a false one. The paper draws false pictures from the whole
// data set, the true one among them; within a grain a batch's pictures serve twice and are decoded once.
//
// With hardNegatives each pair is matched three times (Li et al. 2021, §3.2): with its own picture, its sentence with another pair's
// picture, its picture with another pair's sentence, drawn within the grain by how alike the towers find them, as ALBEF draws them
// within a device's batch; L is the mean over the 3·N. A head that has learnt nothing yet finds nothing to learn in pairs that the
// towers cannot tell apart: before update hardAfter the others are drawn evenly.
func itm(gr *model.Grain, c Config, o *Options) (Local, error) {
	if gr.N < 2 {
		return Local{}, fmt.Errorf("a false picture is that of another pair of the grain, but grains have %d (train.grainSize)", gr.N)
	}
	if f, ok := gr.Model.(fuser); ok && c.HardNegatives {
		return itmHard(gr, c, f), nil
	} else if ok {
		return itmRead(gr, f, o), nil
	}
	if c.HardNegatives {
		return Local{}, unfit("towers whose similarity hardNegatives are drawn by")
	}
	m, ok := gr.Model.(matcher)
	if !ok {
		return Local{}, unfit("matching of a picture with a sentence")
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

// itmRead is itm with random false pictures for a model whose passes share them.
func itmRead(gr *model.Grain, m fuser, o *Options) Local {
	reads := gr.G.Ints("itm.reads", gr.N)
	t := ops.Targets{Classes: gr.G.Ints("itm.own", gr.N)}
	scores := m.MatchRead(gr.G, "itm", gr.Texts(), gr.Images(), reads)
	var draw matches
	bind := func(p *ops.Program, v View) (int, error) {
		draw.of(v, o)
		p.SetInts(t.Classes, draw.own)
		p.SetInts(reads, draw.from)
		return v.N, nil
	}
	return Local{Sums: gr.G.CrossEntropy(scores, t), Bind: bind}
}

// itmHard is itm with hard negatives.
func itmHard(gr *model.Grain, c Config, m fuser) Local {
	groups := gr.G.Ints("itm.groups", gr.N)
	t := ops.Targets{Classes: gr.G.Ints("itm.own", 3*gr.N)}
	scores := m.MatchHard(gr.G, "itm", gr.Texts(), gr.Images(), groups, c.HardAfter)
	var own, group []int32
	bind := func(p *ops.Program, v View) (int, error) {
		own, group = own[:0], group[:0]
		for i := range v.N {
			own, group = append(own, 1, 0, 0), append(group, v.Pair(i).Group)
		}
		p.SetInts(t.Classes, own)
		p.SetInts(groups, group)
		return 3 * v.N, nil
	}
	return Local{Sums: gr.G.CrossEntropy(scores, t), Bind: bind}
}

// matches says which picture each sentence of a grain is shown.
type matches struct {
	own      []int32 // 1: its own
	from     []int32 // the pair whose picture it is
	pictures []ops.Picture
}

// of draws them for a grain.
func (m *matches) of(v View, o *Options) {
	m.own, m.from, m.pictures = m.own[:0], m.from[:0], m.pictures[:0]
	perm := addr.NewPerm(addr.Hash(v.Seed, addr.Name("itm"), uint64(v.Batch.Step), uint64(v.Lo)), uint64(v.N))
	for i := range v.N {
		own, from := perm.At(uint64(i)) < uint64(v.N/2), i
		if !own {
			from = (i + 1 + addr.Below(v.At("itm.picture", i), v.N-1)) % v.N
		}
		pic := v.picture(from)
		if o.Draws != nil {
			pic, own = o.Draws.Match(v, i)
		}
		label := int32(0)
		if own {
			label = 1
		}
		m.own, m.from, m.pictures = append(m.own, label), append(m.from, int32(from)), append(m.pictures, pic)
	}
}
