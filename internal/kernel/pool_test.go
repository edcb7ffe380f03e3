package kernel

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestPoolDealsEveryPieceOnce(t *testing.T) {
	for _, threads := range []int{0, 1, 2, 5} {
		p := NewPool(threads)
		require.Equal(t, max(threads, 1), p.Threads())
		for _, n := range []int{0, 1, 7, 64, 1000} {
			for _, piece := range []int{0, 1, 3, 64, 2000} {
				seen := make([]atomic.Int32, n)
				p.For(n, piece, func(lo, hi, thread int) {
					require.Less(t, thread, p.Threads())
					require.LessOrEqual(t, hi-lo, max(piece, 1))
					for i := lo; i < hi; i++ {
						seen[i].Add(1)
					}
				})
				for i := range seen {
					require.EqualValues(t, 1, seen[i].Load(), "%d threads, n %d, piece %d, index %d", threads, n, piece, i)
				}
			}
		}
		p.Close()
		p.Close()
	}
	var none *Pool
	require.Equal(t, 1, none.Threads())
	sum := 0
	none.For(10, 3, func(lo, hi, _ int) { sum += hi - lo })
	require.Equal(t, 10, sum)
	none.Close()
}

func TestPoolWakesWorkersThatParked(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	for range 20 {
		time.Sleep(200 * time.Microsecond) // long enough for the workers to park
		var both atomic.Int32
		p.For(2, 1, func(_, _, _ int) {
			both.Add(1)
			for start := time.Now(); both.Load() < 2; { // ends only if two threads are in
				require.Less(t, time.Since(start), 10*time.Second)
			}
		})
	}
}

func TestPoolRaisesPanicsOnTheCaller(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	for bad := range 8 {
		require.PanicsWithValue(t, "bad piece", func() {
			p.For(8, 1, func(lo, _, _ int) {
				if lo == bad {
					panic("bad piece")
				}
			})
		})
		var n atomic.Int32
		p.For(8, 1, func(int, int, int) { n.Add(1) })
		require.EqualValues(t, 8, n.Load(), "the pool works on after a panic")
	}
}

func TestScratchIsAlignedAndKept(t *testing.T) {
	p := NewPool(1)
	a := scratch[float32](p, 0, slotA, 1000)
	require.Zero(t, uintptr(unsafe.Pointer(&a[0]))%64)
	require.Len(t, a, 1000)
	b := scratch[float64](p, 0, slotA, 500)
	require.Equal(t, unsafe.Pointer(&a[0]), unsafe.Pointer(&b[0]))
	require.NotEqual(t, unsafe.Pointer(&a[0]), unsafe.Pointer(&scratch[float32](p, 0, slotB, 8)[0]))
}

func TestSlab(t *testing.T) {
	require.Nil(t, NewSlab(0))
	FreeSlab(nil)
	for _, n := range []int{1, 1000, 1 << 20} {
		s := NewSlab(n)
		require.Len(t, s, n)
		require.Zero(t, uintptr(unsafe.Pointer(&s[0]))%64)
		for i, v := range s {
			require.Zero(t, v, i)
			s[i] = float32(i)
		}
		require.Equal(t, float32(n-1), s[n-1])
		FreeSlab(s)
	}
}

// BenchmarkPoolFor measures an empty loop: what it costs to share work.
func BenchmarkPoolFor(b *testing.B) {
	p := NewPool(2)
	defer p.Close()
	f := func(int, int, int) {}
	for b.Loop() {
		p.For(2, 1, f)
	}
}
