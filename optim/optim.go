// Package optim turns gradients into updates: AdamW with decoupled weight decay, SGD with momentum, learning-rate schedules, clipping by the global
// norm, factors and freezing by parameter name, and a moving average of the weights.
//
// Weights, gradients, moments and average are flat float32 slabs in one layout, which the caller describes by [Segment]s;
// an update is a few passes over them ([Optimizer.Step]). Results do not depend on the number of threads. What a step needs
// to be repeated exactly is the slabs of [Optimizer.State] and the step's number: there is no other state.
package optim

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"diptych/internal/kernel"
)

// ErrNotFinite is wrapped by the error of a step whose gradient has a NaN or an infinity.
var ErrNotFinite = errors.New("gradient is not finite")

// Segment is one parameter's range of the slabs. What lies between segments is padding: zero in weights and gradients; it stays so.
type Segment struct {
	Name   string
	Offset int // elements
	Shape  []int
	Decay  bool // weight decay applies: matrices and tables, not gains, biases or the scale
	Frozen bool // not updated
	Above  int  // layers above it, for Config.LayerDecay
}

// Len returns the number of elements.
func (s *Segment) Len() int {
	n := 1
	for _, d := range s.Shape {
		n *= d
	}
	return n
}

// run is a range of the slabs that is updated alike.
type run struct {
	lo, hi   int
	lrFactor float64
	decay    float64
}

// Optimizer holds the moments of one model's parameters.
type Optimizer struct {
	cfg      Config
	segments []Segment // by offset
	runs     []run     // what is updated, by offset
	size     int       // elements that the weights have at least
	trained  int       // of them those up to the last parameter that is not frozen
	total    int
	m, v     []float32 // moments; v is nil for sgd
	ema      []float32 // nil without an average
}

// StepInfo is what a step did.
type StepInfo struct {
	LR         float64 // before the groups' factors
	GradNorm   float64 // global L2 norm before clipping, without what is frozen
	Clipped    bool
	WeightNorm float64 // global L2 norm of the weights up to the last that is not frozen, after the update
}

// New makes the optimizer of a run of totalSteps updates. Segments that overlap and groups that match no parameter are errors.
// Moments lie outside of Go's heap; [Optimizer.Close] frees them.
func New(cfg Config, segments []Segment, totalSteps int) (*Optimizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := &Optimizer{cfg: cfg, segments: slices.Clone(segments), total: totalSteps}
	slices.SortFunc(o.segments, func(a, b Segment) int { return cmp.Compare(a.Offset, b.Offset) })
	matched := make([]bool, len(cfg.Groups))
	for i := range o.segments {
		s := &o.segments[i]
		if s.Offset < o.size {
			return nil, fmt.Errorf("optim: parameter %q begins at element %d, the one before ends at %d", s.Name, s.Offset, o.size)
		}
		o.size = s.Offset + s.Len()
		o.add(s, matched)
	}
	for i, ok := range matched {
		if !ok {
			return nil, fmt.Errorf("optim: groups[%d].pattern %q matches no parameter", i, cfg.Groups[i].Pattern)
		}
	}
	if n := len(o.runs); n > 0 {
		o.trained = o.runs[n-1].hi
	}
	o.m = kernel.NewSlab(o.trained)
	if cfg.Name == "adamw" {
		o.v = kernel.NewSlab(o.trained)
	}
	if cfg.EMA.Decay > 0 {
		o.ema = kernel.NewSlab(o.size)
	}
	return o, nil
}

// add puts a segment into the runs, joined with the one before where they are updated alike, and notes its group.
func (o *Optimizer) add(s *Segment, matched []bool) {
	r := run{lo: s.Offset, hi: s.Offset + s.Len(), lrFactor: 1}
	if s.Decay {
		r.decay = o.cfg.WeightDecay
	}
	found := false
	for i, g := range o.cfg.Groups {
		if ok, _ := path.Match(g.Pattern, s.Name); !ok { // Validate has checked the pattern
			continue
		}
		matched[i] = true
		if found {
			continue
		}
		found = true
		if g.LRFactor > 0 {
			r.lrFactor = g.LRFactor
		}
		if g.WeightDecay != nil && s.Decay {
			r.decay = *g.WeightDecay
		}
		s.Frozen = s.Frozen || g.Freeze
	}
	if o.cfg.LayerDecay > 0 {
		r.lrFactor *= math.Pow(o.cfg.LayerDecay, float64(s.Above))
	}
	if s.Frozen {
		return
	}
	if n := len(o.runs); n > 0 {
		last := &o.runs[n-1]
		if last.lrFactor == r.lrFactor && last.decay == r.decay && !o.frozenBetween(last.hi, r.lo) {
			last.hi = r.hi
			return
		}
	}
	o.runs = append(o.runs, r)
}

// frozenBetween reports whether a frozen segment lies in [lo, hi).
func (o *Optimizer) frozenBetween(lo, hi int) bool {
	return slices.ContainsFunc(o.segments, func(s Segment) bool { return s.Frozen && s.Offset >= lo && s.Offset < hi })
}

// Close frees the slabs.
func (o *Optimizer) Close() {
	for _, s := range [][]float32{o.m, o.v, o.ema} {
		kernel.FreeSlab(s)
	}
	o.m, o.v, o.ema = nil, nil, nil
}

// LR returns the learning rate of update step, counted from 0.
func (o *Optimizer) LR(step int) float64 { return o.cfg.Schedule.At(o.cfg.LR, step, o.total) }

// Slab is one of the optimizer's slabs, in the layout of the weights; the moments end with the last parameter that is not frozen.
type Slab struct {
	Name string // m, v: the moments, of sgd only m; ema: the averaged weights
	Data []float32
}

// State returns the optimizer's slabs, which stay its own: a checkpoint writes them out, and a resumed run reads them in before
// its first step.
func (o *Optimizer) State() []Slab {
	slabs := []Slab{{"m", o.m}}
	if o.v != nil {
		slabs = append(slabs, Slab{"v", o.v})
	}
	if o.ema != nil {
		slabs = append(slabs, Slab{"ema", o.ema})
	}
	return slabs
}

// Average returns the slab of averaged weights, nil if the recipe keeps none. It is valid after the update of step 0.
func (o *Optimizer) Average() []float32 { return o.ema }

// Step makes update number step, counted from 0, from the gradient: clips it, updates weights and moments in place
// (Loshchilov and Hutter 2019, Algorithm 2, or kernel.SGD, in PyTorch's order), then the average. The gradient is left as it is.
//
// A gradient that is not finite gives an error that wraps [ErrNotFinite] and names a parameter, and nothing is changed.
func (o *Optimizer) Step(pool *kernel.Pool, step int, weights, grads []float32) (StepInfo, error) {
	if len(weights) < o.size || len(grads) < o.trained {
		return StepInfo{}, fmt.Errorf("optim: weights have %d elements, gradients %d; the parameters need %d and %d", len(weights), len(grads), o.size, o.trained)
	}
	info := StepInfo{LR: o.LR(step)}
	sum := 0.0
	for _, r := range o.runs {
		sum += kernel.SumSquares(pool, grads[r.lo:r.hi])
	}
	info.GradNorm = math.Sqrt(sum)
	if !finite(info.GradNorm) {
		return info, o.notFinite(grads)
	}
	h := kernel.AdamWStep{
		Beta1: o.cfg.Beta1, Beta2: o.cfg.Beta2, Eps: o.cfg.Eps, GradScale: 1,
		Correction1: 1 - math.Pow(o.cfg.Beta1, float64(step+1)),
		Correction2: 1 - math.Pow(o.cfg.Beta2, float64(step+1)),
	}
	if o.cfg.GradClipNorm > 0 {
		if f := o.cfg.GradClipNorm / (info.GradNorm + 1e-6); f < 1 { // torch.nn.utils.clip_grad_norm_
			h.GradScale, info.Clipped = f, true
		}
	}
	if o.ema != nil && step == 0 {
		copy(o.ema, weights)
	}
	for _, r := range o.runs {
		if o.cfg.Name == "sgd" {
			kernel.SGD(pool, weights[r.lo:r.hi], grads[r.lo:r.hi], o.m[r.lo:r.hi], kernel.SGDStep{
				LR: info.LR * r.lrFactor, Momentum: o.cfg.Momentum, Nesterov: o.cfg.Nesterov, Decay: r.decay, GradScale: h.GradScale})
			continue
		}
		h.LR = info.LR * r.lrFactor
		h.Decay = h.LR * r.decay
		kernel.AdamW(pool, weights[r.lo:r.hi], grads[r.lo:r.hi], o.m[r.lo:r.hi], o.v[r.lo:r.hi], h)
	}
	if o.ema != nil {
		kernel.Lerp(pool, o.ema[:o.trained], weights[:o.trained], float32(1-o.cfg.EMA.Decay))
	}
	info.WeightNorm = math.Sqrt(kernel.SumSquares(pool, weights[:o.trained]))
	return info, nil
}

// notFinite names the first parameter whose gradient is not finite.
func (o *Optimizer) notFinite(grads []float32) error {
	for _, s := range o.segments {
		if s.Frozen {
			continue
		}
		for i, g := range grads[s.Offset : s.Offset+s.Len()] {
			if !finite(float64(g)) {
				return fmt.Errorf("optim: parameter %q, element %d of shape %v is %v: %w", s.Name, i, s.Shape, g, ErrNotFinite)
			}
		}
	}
	return fmt.Errorf("optim: the norm overflows: %w", ErrNotFinite)
}
