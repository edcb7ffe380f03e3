package model

import (
	"fmt"
	"math"

	"diptych/internal/addr"
	"diptych/internal/kernel"
	"diptych/ops"
)

// Param is one named parameter: a range of the flat weight slab. Gradients and moments lie at the same place of their slabs.
type Param struct {
	Name    string
	Shape   []int
	Offset  int    // in elements, a multiple of 16 (one cache line of float32)
	Decay   bool   // weight decay applies: matrices and tables, not gains, biases, the class embedding or the scale
	Frozen  bool   // fixed: no gradient, no update; see Layout.Freeze
	Grid    [2]int // not 0: its last rows are the positions of a grid of patches of so many rows and columns
	Context bool   // its rows are the positions of a text's tokens
	Above   int    // layers of its tower (of a text's, the fusion's too) that follow its own, for a learning rate that falls with depth; 0 for heads
	init    initializer
}

// Len returns the number of elements.
func (p *Param) Len() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Layout is the order of a model's parameters in its slabs. Between parameters lie gaps of zeros that keep them aligned.
type Layout struct {
	Params []*Param
	Size   int // elements of a slab
	// Trained is how many of them come before the first frozen parameter, once Freeze was called: gradients and moments need no more.
	Trained int
}

// Freeze marks the parameters that frozen names and lays what is frozen behind all else. No slab of the layout may exist yet, and
// no graph.
func (l *Layout) Freeze(frozen func(name string) bool) {
	l.Size = 0
	for _, p := range l.Params {
		if p.Frozen = p.Frozen || frozen(p.Name); !p.Frozen {
			l.place(p)
		}
	}
	l.Trained = l.Size
	for _, p := range l.Params {
		if p.Frozen {
			l.place(p)
		}
	}
}

// place puts a parameter at the end of the slab.
func (l *Layout) place(p *Param) {
	p.Offset = l.Size
	l.Size = p.end()
}

// end returns where the next parameter may begin.
func (p *Param) end() int {
	const align = 16
	return p.Offset + (p.Len()+align-1)/align*align
}

// Count returns the number of parameters' elements, without gaps.
func (l *Layout) Count() int {
	n := 0
	for _, p := range l.Params {
		n += p.Len()
	}
	return n
}

// Find returns the parameter of that name, or nil.
func (l *Layout) Find(name string) *Param {
	for _, p := range l.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Slice returns p's range of a slab in this layout.
func (p *Param) Slice(slab []float32) []float32 { return slab[p.Offset : p.Offset+p.Len()] }

// add appends a parameter.
func (l *Layout) add(name string, init initializer, shape ...int) *Param {
	p := &Param{Name: name, Shape: shape, Decay: len(shape) > 1, init: init}
	l.Params = append(l.Params, p)
	l.place(p)
	return p
}

// above says how many layers of their tower follow that of the parameters from number first on.
func (l *Layout) above(first, layers int) {
	for _, p := range l.Params[first:] {
		p.Above = layers
	}
}

// Init fills the weight slab with initial values on the threads of pool. Each value depends on the seed, its parameter's name
// and its index only.
func (l *Layout) Init(pool *kernel.Pool, slab []float32, seed uint64) {
	const piece = 1 << 14
	for _, p := range l.Params {
		key := addr.Hash(seed, addr.Name("init"), addr.Name(p.Name))
		w := p.Slice(slab)
		pool.For(len(w), piece, func(lo, hi, _ int) { p.init(w[lo:hi], key, lo) })
		clear(slab[p.Offset+len(w) : p.end()])
	}
}

// initializer sets w to the elements from number first on of a parameter whose address is key.
type initializer func(w []float32, key uint64, first int)

// byElement is an initializer whose elements are computed one by one.
func byElement(value func(key uint64, i int) float64) initializer {
	return func(w []float32, key uint64, first int) {
		for i := range w {
			w[i] = float32(value(key, first+i))
		}
	}
}

func constant(c float64) initializer { return byElement(func(uint64, int) float64 { return c }) }

func normal(std float64) initializer {
	return func(w []float32, key uint64, first int) { kernel.Normals(w, key, uint64(first), std) }
}

// uniform is U(-a, a).
func uniform(a float64) initializer {
	return func(w []float32, key uint64, first int) { kernel.Uniforms(w, key, uint64(first), a) }
}

// fanIn is PyTorch's default for linear layers and convolutions, U(±1/√fanIn), weight and bias alike.
func fanIn(n int) initializer { return uniform(1 / math.Sqrt(float64(n))) }

// node brings a parameter into a graph.
func (p *Param) node(g *ops.Graph) *ops.Node {
	if p == nil {
		return nil
	}
	if p.Frozen {
		return g.FrozenParam(p.Name, p.Offset, p.Shape...)
	}
	return g.Param(p.Name, p.Offset, p.Shape...)
}

// rows brings the rows [lo, hi) of a parameter into a graph, as a parameter of its own.
func (p *Param) rows(g *ops.Graph, lo, hi int) *ops.Node {
	width := p.Len() / p.Shape[0]
	part := Param{Name: fmt.Sprintf("%s[%d:%d]", p.Name, lo, hi), Shape: append([]int{hi - lo}, p.Shape[1:]...), Offset: p.Offset + lo*width, Frozen: p.Frozen}
	return part.node(g)
}

// initScheme names the initial values of a transformer's parts. Widths are in channels, fan-ins in inputs.
type initScheme struct {
	tokenEmbed, textPos             initializer
	attnIn, attnOut, fc, proj, bias func(t tower) initializer
	patch, patchBias                func(fanIn, width int) initializer // patchBias nil: as patch
	class, visionPos                func(width int) initializer
	joint                           func(width int) initializer // projections to the joint space
	represent, head                 func(width int) initializer // a classifier's
}

// tower tells an initScheme for which transformer a value is wanted.
type tower struct {
	vision               bool
	width, hidden, depth int
	fanIn                int // of the layer whose bias is wanted
}

func zeros(tower) initializer { return constant(0) }

func rsqrt(n int) float64 { return 1 / math.Sqrt(float64(n)) }

// initSchemes are the initialisations by name.
var initSchemes = map[string]initScheme{
	// The released CLIP code and open_clip (spec 2.5): the text tower is set specially, the image tower keeps PyTorch's defaults.
	"openai": {
		tokenEmbed: normal(0.02), textPos: normal(0.01),
		attnIn: func(t tower) initializer {
			if t.vision {
				return uniform(math.Sqrt(6 / float64(4*t.width))) // Xavier over the packed (3D, D) matrix
			}
			return normal(rsqrt(t.width))
		},
		attnOut: func(t tower) initializer {
			if t.vision {
				return fanIn(t.width)
			}
			return normal(rsqrt(t.width) * rsqrt(2*t.depth))
		},
		fc: func(t tower) initializer {
			if t.vision {
				return fanIn(t.width)
			}
			return normal(rsqrt(2 * t.width))
		},
		proj: func(t tower) initializer {
			if t.vision {
				return fanIn(t.hidden)
			}
			return normal(rsqrt(t.width) * rsqrt(2*t.depth))
		},
		bias:  func(t tower) initializer { return fanIn(t.fanIn) },
		patch: func(n, _ int) initializer { return fanIn(n) },
		class: func(d int) initializer { return normal(rsqrt(d)) }, visionPos: func(d int) initializer { return normal(rsqrt(d)) },
		joint: func(d int) initializer { return normal(rsqrt(d)) }, represent: rows02, head: rows02,
	},
	// Hugging Face's CLIPModel (spec 2.5): both towers alike, the residual factor on the packed input projection.
	"hf": {
		tokenEmbed: normal(0.02), textPos: normal(0.02),
		attnIn:  func(t tower) initializer { return normal(rsqrt(t.width) * rsqrt(2*t.depth)) },
		attnOut: func(t tower) initializer { return normal(rsqrt(t.width)) },
		fc:      func(t tower) initializer { return normal(rsqrt(2 * t.width)) },
		proj:    func(t tower) initializer { return normal(rsqrt(t.width) * rsqrt(2*t.depth)) },
		bias:    zeros,
		patch:   func(int, int) initializer { return normal(0.02) },
		class:   func(d int) initializer { return normal(rsqrt(d)) }, visionPos: func(int) initializer { return normal(0.02) },
		joint: func(d int) initializer { return normal(rsqrt(d)) }, represent: rows02, head: rows02,
	},
	// timm's ViT (spec 1.3): normal 0.02 for every matrix and table, zero biases, the class token near zero.
	"timm": {
		tokenEmbed: normal(0.02), textPos: normal(0.02),
		attnIn: small, attnOut: small, fc: small, proj: small, bias: zeros,
		patch: func(n, _ int) initializer { return fanIn(n) },
		class: func(int) initializer { return normal(1e-6) }, visionPos: func(int) initializer { return normal(0.02) },
		joint: rows02, represent: rows02, head: rows02,
	},
	// Google's flax ViT (spec 1.3): Xavier for the blocks, zeros for the class token and the head. timm's mode jax draws Xavier over
	// the packed (3D, D) matrix instead, as "openai" does.
	"jax": {
		tokenEmbed: normal(0.02), textPos: normal(0.02),
		attnIn: func(t tower) initializer { return xavier(t.width, t.width) }, attnOut: func(t tower) initializer { return xavier(t.width, t.width) },
		fc: func(t tower) initializer { return xavier(t.width, t.hidden) }, proj: func(t tower) initializer { return xavier(t.hidden, t.width) },
		bias:  func(tower) initializer { return normal(1e-6) },
		patch: func(n, _ int) initializer { return lecun(n) }, patchBias: func(int, int) initializer { return constant(0) },
		class: func(int) initializer { return constant(0) }, visionPos: rows02, joint: rows02,
		represent: lecun, head: func(int) initializer { return constant(0) },
	},
}

func small(tower) initializer { return normal(0.02) }

func rows02(int) initializer { return normal(0.02) }

// xavier is U(±√(6/(fan in + fan out))).
func xavier(in, out int) initializer { return uniform(math.Sqrt(6 / float64(in+out))) }

// lecun is flax's lecun_normal: a normal distribution cut at two deviations, of variance 1/fan in.
func lecun(fanIn int) initializer {
	const uncut = 0.87962566103423978 // deviation of a normal variable that is cut at ±2
	half := math.Erf(math.Sqrt2)
	return byElement(func(key uint64, i int) float64 {
		u := 2*addr.Float64(addr.Hash(key, uint64(i))) - 1
		return rsqrt(fanIn) / uncut * math.Sqrt2 * math.Erfinv(u*half)
	})
}
