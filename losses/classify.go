package losses

import (
	"fmt"
	"math"

	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// classifier is a model that gives pictures scores of classes.
type classifier interface {
	NumClasses() int
	Features(g *ops.Graph, in *model.ImageInput) *ops.Node // (B, D)
	Scores(g *ops.Graph, x *ops.Node) *ops.Node            // (B, D) -> (B, K)
}

// classify is the cross-entropy of a picture's class, over the N pairs of the global batch:
//
//	L = -1/N Σ_i Σ_k q_ik·log softmax_k(z_i)    q_i = (1-ε)·((1-λ_i)·e(class i) + λ_i·e(class j_i)) + ε/K
//
// ε smooths labels (Szegedy et al. 2016, §7). λ_i is 0 without mixing. Mixup (Zhang et al. 2018, §2) shows picture i as
// (1-λ)·x_i + λ·x_j, in levels rounded to whole ones; CutMix (Yun et al. 2019, §3.1) pastes a rectangle of picture j, whose
// share of the area is λ. With both, each pair has one of them, by a coin. λ is drawn from Beta(α, α) for each pair; j is the
// next of pair i in a random order of the grain. top1 counts the class with the larger share.
func classify(gr *model.Grain, c Config, _ *Options) (Local, error) {
	m, ok := gr.Model.(classifier)
	if !ok {
		return Local{}, unfit("scores of classes")
	}
	k := m.NumClasses()
	if k == 0 {
		return Local{}, fmt.Errorf("the recipe's model has no classes (model.numClasses 0); name those of the data set in data.classes")
	}
	mixing := c.Mixup > 0 || c.CutMix > 0
	t := ops.Targets{Classes: gr.G.Ints("classify.classes", gr.N), Smoothing: c.LabelSmoothing}
	var x *ops.Node
	mix := mixer{cfg: c}
	if mixing {
		mix.images = gr.NewImages("classify.image")
		x = m.Features(gr.G, mix.images)
		t.Others, t.Mix = gr.G.Ints("classify.others", gr.N), gr.G.Input("classify.mix", x.Rows(), 1)
	} else {
		x = gr.Once("features", func() *ops.Node { return m.Features(gr.G, gr.Images()) })
	}
	classes, others := make([]int32, gr.N), make([]int32, gr.N)
	bind := func(p *ops.Program, v View) (int, error) {
		for i := range v.N {
			pair := v.Pair(i)
			if pair.Label < 0 || int(pair.Label) >= k {
				return 0, fmt.Errorf("losses: classify: row %d has class %d, the model has %d: %w", pair.Row, pair.Label, k, ops.ErrShape)
			}
			classes[i] = pair.Label
		}
		p.SetInts(t.Classes, classes[:v.N])
		if !mixing {
			return v.N, nil
		}
		shares, partners := mix.bind(p, v)
		for i, j := range partners {
			others[i] = classes[j]
		}
		p.SetInts(t.Others, others[:v.N])
		p.SetInput(t.Mix, shares)
		return v.N, nil
	}
	return Local{Sums: gr.G.CrossEntropy(m.Scores(gr.G, x), t), Bind: bind}, nil
}

// mixer shows each picture of a grain with a part of another.
type mixer struct {
	cfg      Config
	images   *model.ImageInput
	levels   []uint8
	numbers  []float32
	shares   []float32
	partners []int
}

// bind binds the mixed pictures of a grain and returns the share that each has of its partner, and the partners.
func (m *mixer) bind(p *ops.Program, v View) (shares []float32, partners []int) {
	m.shares, m.partners = m.shares[:0], m.partners[:0]
	size, from, to := v.size(), v.Lo*v.size(), (v.Lo+v.N)*v.size()
	side := int(math.Sqrt(float64(size / 3)))
	perm := addr.NewPerm(addr.Hash(v.Seed, addr.Name("partners"), uint64(v.Batch.Step), uint64(v.Lo)), uint64(v.N))
	place := make([]int, v.N) // of each pair in the random order, in which the next is its partner
	for at := range v.N {
		place[perm.At(uint64(at))] = at
	}
	float := v.Batch.Normalized != nil
	if float {
		m.numbers = append(m.numbers[:0], v.Batch.Normalized[from:to]...)
	} else {
		m.levels = append(m.levels[:0], v.Batch.Pixels[from:to]...)
	}
	for i := range v.N {
		j := int(perm.At(uint64((place[i] + 1) % v.N)))
		m.partners = append(m.partners, j)
		cut := m.cfg.CutMix > 0 && (m.cfg.Mixup == 0 || addr.Float64(v.At("mix", i)) < 0.5)
		var share float64
		if cut {
			share = drawBeta(v.At("cutmix", i), m.cfg.CutMix)
		} else {
			share = drawBeta(v.At("mixup", i), m.cfg.Mixup)
		}
		if cut {
			x0, x1, y0, y1 := box(v.At("box", i), share, side)
			share = float64((x1-x0)*(y1-y0)) / float64(side*side)
			if float {
				paste(m.numbers[i*size:], v.Batch.Normalized[from+j*size:], side, side, 1, 3, x0, x1, y0, y1)
			} else {
				paste(m.levels[i*size:], v.Batch.Pixels[from+j*size:], side, side, 3, 1, x0, x1, y0, y1)
			}
		} else if float {
			other := v.Batch.Normalized[from+j*size:][:size]
			for n, x := range m.numbers[i*size : (i+1)*size] {
				m.numbers[i*size+n] = x + float32(share)*(other[n]-x)
			}
		} else {
			other := v.Batch.Pixels[from+j*size:][:size]
			w := int32(math.Round(share * 65536))
			for n, x := range m.levels[i*size : (i+1)*size] {
				m.levels[i*size+n] = uint8((int32(x)*65536 + w*(int32(other[n])-int32(x)) + 32768) >> 16)
			}
		}
		m.shares = append(m.shares, float32(share))
	}
	if float {
		m.images.SetFloat(p, m.numbers, v.N)
	} else {
		m.images.Set(p, m.levels, v.N)
	}
	m.images.Draw(p, v.Seed, v.Batch.Step, v.Lo)
	return m.shares, m.partners
}

// box returns the rectangle [x0, x1)·[y0, y1) that CutMix pastes: of the picture's shape and the share of its area, around a
// point drawn evenly, cut at the picture's border.
func box(key uint64, share float64, side int) (x0, x1, y0, y1 int) {
	half := math.Sqrt(share) * float64(side) / 2
	bounds := func(at float64) (int, int) {
		at *= float64(side)
		return max(0, int(math.Round(at-half))), min(side, int(math.Round(at+half)))
	}
	x0, x1 = bounds(addr.Float64(addr.Hash(key, 0)))
	y0, y1 = bounds(addr.Float64(addr.Hash(key, 1)))
	return x0, x1, y0, y1
}

// paste copies a rectangle between pictures of planes planes of side·side pixels with depth numbers each.
func paste[T uint8 | float32](dst, src []T, width, height, depth, planes, x0, x1, y0, y1 int) {
	for c := range planes {
		for y := y0; y < y1; y++ {
			line := (c*height + y) * width * depth
			copy(dst[line+x0*depth:line+x1*depth], src[line+x0*depth:line+x1*depth])
		}
	}
}

// drawBeta draws from Beta(a, a) by the address key: X/(X+Y) of two draws of Gamma(a).
func drawBeta(key uint64, a float64) float64 {
	x, y := logGamma(addr.Hash(key, 0), a), logGamma(addr.Hash(key, 1), a)
	return 1 / (1 + math.Exp(y-x))
}

// logGamma draws the logarithm of Gamma(a, 1) (Marsaglia and Tsang 2000; for a < 1 by Gamma(a) = Gamma(a+1)·U^(1/a), their
// §6). The logarithm does not underflow where a is small.
func logGamma(key uint64, a float64) float64 {
	shift := 0.0
	if a < 1 {
		shift = math.Log(uniform(addr.Hash(key, 0))) / a
		a++
	}
	d := a - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for n := uint64(1); ; n++ {
		x := addr.Norm(addr.Hash(key, n, 0))
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(uniform(addr.Hash(key, n, 1))) < 0.5*x*x+d-d*v+d*math.Log(v) {
			return math.Log(d*v) + shift
		}
	}
}

// uniform is in (0, 1].
func uniform(key uint64) float64 { return 1 - addr.Float64(key) }
