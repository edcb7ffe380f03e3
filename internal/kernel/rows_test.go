package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGatherAndScatter(t *testing.T) {
	ids := []int32{3, 0, 3, 4, 3}
	for _, cols := range oddSizes {
		table := normals[float32]("table", 5*cols)
		y := fenced[float32](t, len(ids)*cols)
		Gather(nil, y, table, ids, cols)
		for i, id := range ids {
			require.Equal(t, table[int(id)*cols:int(id+1)*cols], y[i*cols:(i+1)*cols])
		}
		run := func(p *Pool) [][]float32 {
			d := fencedCopy(t, table)
			ScatterAdd(p, d, y, ids, cols)
			return [][]float32{d}
		}
		got := run(nil)[0]
		for c := range cols {
			require.Equal(t, table[c]+table[c], got[c])
			require.Equal(t, table[cols+c], got[cols+c])
			v := table[3*cols+c]
			require.Equal(t, v+v+v+v, got[3*cols+c])
		}
		sameBits(t, run)
	}
}

var packed = []struct {
	name    string
	offsets []int32
}{
	{"one row", []int32{0, 1}},
	{"one sequence", []int32{0, 17}},
	{"several", []int32{0, 4, 5, 22, 39, 51}},
	{"with an empty one", []int32{0, 3, 3, 10}},
}

func TestPositions(t *testing.T) {
	for _, c := range packed {
		t.Run(c.name, func(t *testing.T) {
			const cols, context = 33, 17
			rows := int(c.offsets[len(c.offsets)-1])
			x, pos := normals[float64]("x", rows*cols), normals[float64]("pos", context*cols)
			y := fenced[float64](t, rows*cols)
			dy := normals[float64]("dy", rows*cols)
			loss := func() float64 {
				AddPositions(nil, y, x, pos, c.offsets, cols)
				return dot(y, dy)
			}
			loss()
			for s := 0; s+1 < len(c.offsets); s++ {
				for r := c.offsets[s]; r < c.offsets[s+1]; r++ {
					for col := range int32(cols) {
						require.Equal(t, x[r*cols+col]+pos[(r-c.offsets[s])*cols+col], y[r*cols+col])
					}
				}
			}
			dpos := make([]float64, context*cols)
			PositionsBackward(nil, dpos, dy, c.offsets, cols)
			checkGradient(t, "pos", pos, dpos, loss)
			sameBits(t, func(p *Pool) [][]float32 {
				d, y := make([]float32, context*cols), fenced[float32](t, rows*cols)
				PositionsBackward(p, d, normals[float32]("dy", rows*cols), c.offsets, cols)
				AddPositions(p, y, normals[float32]("x", rows*cols), normals[float32]("pos", context*cols), c.offsets, cols)
				return [][]float32{d, y}
			})
		})
	}
}

func TestPoolMean(t *testing.T) {
	for _, c := range packed {
		for _, skip := range []int{0, 1, 2} {
			t.Run(fmt.Sprintf("%s, skip %d", c.name, skip), func(t *testing.T) {
				const cols = 17
				count, rows := len(c.offsets)-1, int(c.offsets[len(c.offsets)-1])
				x, dy := normals[float64]("x", rows*cols), normals[float64]("dy", count*cols)
				y, dx := fenced[float64](t, count*cols), fenced[float64](t, rows*cols)
				loss := func() float64 {
					PoolMean(nil, y, x, c.offsets, cols, skip)
					return dot(y, dy)
				}
				loss()
				for s := range count {
					n, sum := 0, 0.0
					for r := int(c.offsets[s]) + skip; r < int(c.offsets[s+1]); r++ {
						n, sum = n+1, sum+x[r*cols]
					}
					require.InDelta(t, sum/float64(max(n, 1)), y[s*cols], 1e-12)
				}
				PoolMeanBackward(nil, dx, dy, c.offsets, cols, skip)
				checkGradient(t, "x", x, dx, loss)
			})
		}
	}
}

func TestL2Normalize(t *testing.T) {
	const rows, eps = 5, 1e-6
	for _, cols := range oddSizes {
		x, dy := normals[float64]("x", rows*cols), normals[float64]("dy", rows*cols)
		for c := range cols {
			x[2*cols+c] = 0      // shorter than eps
			x[3*cols+c] *= 1e-10 // too
		}
		small, smallDY := make([]float32, rows*cols), normals[float32]("dy", rows*cols)
		for i, v := range x {
			small[i] = float32(v)
			x[i] = float64(small[i])
		}
		y, inv, dx := make([]float64, rows*cols), make([]float64, rows), make([]float64, rows*cols)
		loss := func() float64 {
			L2Normalize(nil, y, inv, x, rows, cols, eps)
			return dot(y, dy)
		}
		loss()
		require.InDelta(t, 1, dot(y[:cols], y[:cols]), 1e-12)
		require.Zero(t, y[2*cols])
		require.InDelta(t, x[3*cols]/eps, y[3*cols], 1e-12)
		L2NormalizeBackward(nil, dx, dy, y, inv, rows, cols)
		require.InDelta(t, dy[2*cols]/eps, dx[2*cols], 1e-6)
		checkGradient(t, "x", x[:2*cols], dx[:2*cols], loss)
		loss()

		run := func(p *Pool) [][]float32 {
			y, inv, dx := fenced[float32](t, rows*cols), fenced[float32](t, rows), fenced[float32](t, rows*cols)
			L2Normalize(p, y, inv, small, rows, cols, eps)
			L2NormalizeBackward(p, dx, smallDY, y, inv, rows, cols)
			return [][]float32{y, inv, dx}
		}
		got := run(nil)
		near(t, y, got[0], 1e-6, "y")
		near(t, inv, got[1], 1e-6, "inv")
		near(t, dx, got[2], 1e-4, "dx") // of one column the gradient is the difference of equal numbers
		sameBits(t, run)
	}
}

func TestPatches(t *testing.T) {
	const n, height, width, patch = 2, 6, 12, 3
	mean, std := [3]float32{0.1, 0.2, 0.3}, [3]float32{0.5, 0.6, 0.7}
	pixels := make([]uint8, n*height*width*3)
	planes := make([]float32, n*3*height*width)
	for i := range pixels {
		pixels[i] = uint8(i*37 + i/7)
	}
	want := make([]float32, n*8*3*patch*patch)
	for i := range n {
		for y := range height {
			for x := range width {
				for c := range 3 {
					u := pixels[((i*height+y)*width+x)*3+c]
					v := (float32(u)/255 - mean[c]) / std[c]
					planes[((i*3+c)*height+y)*width+x] = v
					row := i*8 + y/patch*4 + x/patch
					want[row*3*patch*patch+(c*patch+y%patch)*patch+x%patch] = v
				}
			}
		}
	}
	forPools(func(p *Pool) {
		out := fenced[float32](t, len(want))
		PatchesU8(p, out, pixels, n, height, width, patch, mean, std)
		require.Equal(t, want, out)
		out = fenced[float32](t, len(want))
		PatchesF32(p, out, planes, n, height, width, patch)
		require.Equal(t, want, out)
		wide := fenced[float64](t, len(want))
		PatchesU8(p, wide, pixels, n, height, width, patch, mean, std)
		near(t, wide, out, 1e-6, "float64")
	})
}

func TestDropout(t *testing.T) {
	const rows, cols, prob = 64, 101, 0.3
	address := make([]uint64, rows)
	for r := range address {
		address[r] = uint64(1000 - r)
	}
	x := make([]float32, rows*cols)
	for i := range x {
		x[i] = 2
	}
	run := func(p *Pool) [][]float32 {
		y := fenced[float32](t, rows*cols)
		Dropout(p, y, x, rows, cols, prob, 7, address)
		return [][]float32{y}
	}
	y := run(nil)[0]
	sameBits(t, run)
	dropped := 0
	for _, v := range y {
		if v == 0 {
			dropped++
		} else {
			require.Equal(t, float32(2*(1/(1-prob))), v)
		}
	}
	n := float64(rows * cols)
	require.InDelta(t, prob, float64(dropped)/n, 5*math.Sqrt(prob*(1-prob)/n)) // five deviations

	// A row's bits follow its address wherever it is packed and whatever the element type.
	one := make([]float64, cols)
	ones := make([]float64, cols)
	for i := range ones {
		ones[i] = 2
	}
	Dropout(nil, one, ones, 1, cols, prob, 7, address[9:10])
	other := make([]float32, cols)
	Dropout(nil, other, x[:cols], 1, cols, prob, 8, address[9:10])
	same := 0
	for c := range cols {
		require.Equal(t, one[c] == 0, y[9*cols+c] == 0)
		if (other[c] == 0) == (y[9*cols+c] == 0) {
			same++
		}
	}
	require.Less(t, same, cols) // another key, other bits
	Dropout(nil, other, x[:cols], 1, cols, 0, 8, address)
	require.Equal(t, x[:cols], other)
}
