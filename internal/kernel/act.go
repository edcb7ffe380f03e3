package kernel

import (
	"fmt"
	"math"
)

// Act names an activation function.
type Act uint8

// The activations.
const (
	ActNone      Act = iota // x
	ActGELU                 // x·Φ(x), Φ the normal distribution, by erf (Hendrycks and Gimpel 2016, §2)
	ActGELUTanh             // x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))), the same paper's approximation
	ActQuickGELU            // x·σ(1.702·x), that of CLIP's released models
	ActTanh                 // tanh(x)
)

var actNames = [...]string{ActNone: "none", ActGELU: "gelu", ActGELUTanh: "gelu_tanh", ActQuickGELU: "quick_gelu", ActTanh: "tanh"}

// String returns the name a recipe uses.
func (a Act) String() string {
	if int(a) < len(actNames) {
		return actNames[a]
	}
	return fmt.Sprintf("Act(%d)", uint8(a))
}

// ParseAct returns the activation of a recipe's name: "gelu", "gelu_tanh", "quick_gelu", "tanh" or "none".
func ParseAct(name string) (Act, error) {
	for a, s := range actNames {
		if s == name {
			return Act(a), nil
		}
	}
	return ActNone, fmt.Errorf("kernel: unknown activation %q; known: gelu, gelu_tanh, quick_gelu, tanh, none", name)
}

const (
	geluC = 0.7978845608028654 // √(2/π)
	geluK = 0.044715
	quick = 1.702
)

// actValue returns act(x), computed in float64.
func actValue[T Float](act Act, x T) T {
	v := float64(x)
	switch act {
	case ActGELU:
		return T(0.5 * v * math.Erfc(-v*(1/math.Sqrt2)))
	case ActGELUTanh:
		return T(0.5 * v * (1 + math.Tanh(geluC*(v+geluK*v*v*v))))
	case ActQuickGELU:
		return T(v / (1 + math.Exp(-quick*v)))
	case ActTanh:
		return T(math.Tanh(v))
	}
	return x
}

// actGrad returns the derivative of act at x, computed in float64.
func actGrad[T Float](act Act, x T) T {
	v := float64(x)
	switch act {
	case ActGELU:
		cdf := 0.5 * math.Erfc(-v*(1/math.Sqrt2))
		return T(cdf + v*math.Exp(-0.5*v*v)*(1/math.Sqrt(2*math.Pi)))
	case ActGELUTanh:
		t := math.Tanh(geluC * (v + geluK*v*v*v))
		return T(0.5*(1+t) + 0.5*v*(1-t*t)*geluC*(1+3*geluK*v*v))
	case ActQuickGELU:
		s := 1 / (1 + math.Exp(-quick*v))
		return T(s + quick*v*s*(1-s))
	case ActTanh:
		t := math.Tanh(v)
		return T(1 - t*t)
	}
	return 1
}

// actRow sets y = act(x); y may be x.
func actRow[T Float](act Act, y, x []T) {
	if isSingle[T]() && actRow32(act, single(y), single(x)) {
		return
	}
	for i, v := range x {
		y[i] = actValue(act, v)
	}
}

// actGradRow multiplies dst by act'(x).
func actGradRow[T Float](act Act, dst, x []T) {
	if isSingle[T]() && actGradRow32(act, single(dst), single(x)) {
		return
	}
	for i, v := range x {
		dst[i] *= actGrad(act, v)
	}
}

// ActForward sets y = act(x), element by element; y may be x.
func ActForward[T Float](p *Pool, act Act, y, x []T) {
	p.For(len(y), flatPiece, func(lo, hi, _ int) { actRow(act, y[lo:hi], x[lo:hi]) })
}

// ActBackward sets dx = dy·act'(pre), pre being the argument of the activation; dx may be dy.
func ActBackward[T Float](p *Pool, act Act, dx, dy, pre []T) {
	p.For(len(dx), flatPiece, func(lo, hi, _ int) {
		copy(dx[lo:hi], dy[lo:hi])
		actGradRow(act, dx[lo:hi], pre[lo:hi])
	})
}

// ActForward16 is ActForward of x in bfloat16.
func ActForward16[T Float](p *Pool, act Act, y []T, x []uint16) {
	p.For(len(y), flatPiece, func(lo, hi, _ int) { actRow16(act, y[lo:hi], x[lo:hi]) })
}

// ActBackward16 is ActBackward of pre in bfloat16.
func ActBackward16[T Float](p *Pool, act Act, dx, dy []T, pre []uint16) {
	p.For(len(dx), flatPiece, func(lo, hi, _ int) {
		copy(dx[lo:hi], dy[lo:hi])
		actGradRow16(act, dx[lo:hi], pre[lo:hi])
	})
}

// actRow16 sets y = act(x).
func actRow16[T Float](act Act, y []T, x []uint16) {
	if isSingle[T]() && actHalf32(act, false, single(y), x) {
		return
	}
	widen(y, x)
	actRow(act, y, y)
}

// actGradRow16 multiplies dst by act'(x).
func actGradRow16[T Float](act Act, dst []T, x []uint16) {
	if isSingle[T]() && actHalf32(act, true, single(dst), x) {
		return
	}
	var wide [256]T
	for len(x) > 0 {
		n := min(len(x), len(wide))
		widen(wide[:n], x[:n])
		actGradRow(act, dst[:n], wide[:n])
		dst, x = dst[n:], x[n:]
	}
}
