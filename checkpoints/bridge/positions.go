package bridge

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// The ways of bringing learned positions to another grid (spec 1.4). Each source has its own, and weights that were trained further
// expect it.
const (
	MethodOpenCLIP = "open_clip" // bicubic (a = -0.5) with antialiasing: open_clip and timm
	MethodHF       = "hf"        // bicubic (a = -0.75) without: transformers' ViT and CLIP
	MethodGoogle   = "google"    // bilinear with aligned corners: Google's vision_transformer and big_vision
	MethodTimmNPZ  = "timm_npz"  // bilinear without antialiasing: timm when it reads Google's files
)

// method says which taps with which weights make position i of out from in along one axis.
type method func(in, out, i int) (taps []int, weights []float64)

var methods = map[string]method{
	MethodOpenCLIP: antialiasedCubic,
	MethodHF: func(in, out, i int) ([]int, []float64) {
		return sampled(in, out, i, 2, func(x float64) float64 { return cubic(x, -0.75) })
	},
	MethodTimmNPZ: func(in, out, i int) ([]int, []float64) { return sampled(in, out, i, 1, triangle) },
	MethodGoogle:  aligned,
}

// Methods lists their names.
func Methods() []string { return slices.Sorted(maps.Keys(methods)) }

// ResizePositions brings a table of positions, rows (skip + h·w, width) with skip rows before the grid that are copied, to another grid. A text's positions are a
// grid of one row, which open_clip resizes by MethodTimmNPZ.
func ResizePositions(name string, table []float32, width, skip int, from, to [2]int) ([]float32, error) {
	m, ok := methods[name]
	if !ok {
		return nil, fmt.Errorf("bridge: positions: method %q is unknown; known: %s", name, strings.Join(Methods(), ", "))
	}
	if len(table) != (skip+from[0]*from[1])*width || min(from[0], from[1], to[0], to[1]) < 1 {
		return nil, fmt.Errorf("bridge: positions: %d numbers are not %d rows and a grid of %d × %d, %d wide", len(table), skip, from[0], from[1], width)
	}
	if from == to {
		return slices.Clone(table), nil
	}
	grid := make([]float64, from[0]*from[1]*width)
	for i := range grid {
		grid[i] = float64(table[skip*width+i])
	}
	// Along the rows, then along the columns, as the separable kernels are.
	grid = resample(m, grid, from[0], from[1], to[1], width)
	grid = resample(m, grid, 1, from[0], to[0], to[1]*width)
	out := slices.Clone(table[:skip*width])
	for _, v := range grid {
		out = append(out, float32(v))
	}
	return out, nil
}

// resample changes the middle axis of (outer, in, inner) to out.
func resample(m method, x []float64, outer, in, out, inner int) []float64 {
	y := make([]float64, outer*out*inner)
	for i := range out {
		taps, weights := m(in, out, i)
		for o := range outer {
			dst := y[(o*out+i)*inner:][:inner]
			for t, k := range taps {
				src := x[(o*in+k)*inner:][:inner]
				for c := range dst {
					dst[c] += weights[t] * src[c]
				}
			}
		}
	}
	return y
}

// cubic is the convolution kernel of Keys 1981 with parameter a.
func cubic(x, a float64) float64 {
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return ((x-5)*x+8)*x*a - 4*a
	}
	return 0
}

func triangle(x float64) float64 { return max(0, 1-math.Abs(x)) }

// sampled reads at pixel centres with a kernel of fixed width; what lies outside is the nearest edge.
func sampled(in, out, i, support int, kernel func(x float64) float64) (taps []int, weights []float64) {
	c := (float64(i)+0.5)*float64(in)/float64(out) - 0.5
	if support == 1 { // torch's bilinear clamps the coordinate itself
		c = max(c, 0)
	}
	base := int(math.Floor(c))
	for k := base - support + 1; k <= base+support; k++ {
		taps = append(taps, min(max(k, 0), in-1))
		weights = append(weights, kernel(c-float64(k)))
	}
	return taps, weights
}

// antialiasedCubic widens the kernel when it shrinks, and divides by the sum of the weights that lie inside.
func antialiasedCubic(in, out, i int) (taps []int, weights []float64) {
	scale := float64(in) / float64(out)
	wide := max(scale, 1)
	c := (float64(i) + 0.5) * scale
	lo := max(0, int(c-2*wide+0.5))
	hi := min(in, int(c+2*wide+0.5))
	sum := 0.0
	for k := lo; k < hi; k++ {
		w := cubic((float64(k)-c+0.5)/wide, -0.5)
		taps, weights = append(taps, k), append(weights, w)
		sum += w
	}
	for k := range weights {
		weights[k] /= sum
	}
	return taps, weights
}

// aligned puts the first and last positions of both grids on each other.
func aligned(in, out, i int) ([]int, []float64) {
	if in == 1 || out == 1 {
		return []int{0}, []float64{1}
	}
	c := float64(i) * float64(in-1) / float64(out-1)
	k := min(int(c), in-2)
	return []int{k, k + 1}, []float64{1 - (c - float64(k)), c - float64(k)}
}
