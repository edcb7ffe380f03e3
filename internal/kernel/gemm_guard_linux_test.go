package kernel

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// guarded returns a copy of s that ends, or begins, where a page begins, or ends, that nobody may touch: one element too far
// and the test dies.
func guarded(t *testing.T, s []float32, atEnd bool) []float32 {
	t.Helper()
	page := unix.Getpagesize()
	size := (4*len(s)+page-1)/page*page + 2*page
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	require.NoError(t, unix.Mprotect(b[:page], unix.PROT_NONE))
	require.NoError(t, unix.Mprotect(b[size-page:], unix.PROT_NONE))
	if len(s) == 0 {
		return nil
	}
	from := page
	if atEnd {
		from = size - page - 4*len(s)
	}
	g := unsafe.Slice((*float32)(unsafe.Pointer(&b[from])), len(s))
	copy(g, s)
	return g
}

func TestMatMulStaysInsideItsSlices(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, f := range forms {
			rng := newRand()
			for i, s := range sizes {
				g := product[float32](rng, s[0], s[1], s[2], 0, f.transA, f.transB)
				g.BF16 = bf16
				switch i % 3 {
				case 0:
					g.Pre, g.Act = make([]float32, len(g.C)), ActQuickGELU
				case 1:
					g.Accumulate = true
				}
				g.Bias, g.Residual = fill[float32](rng, g.N), fill[float32](rng, len(g.C))
				want, _ := run(1, g)
				for _, atEnd := range []bool{true, false} {
					h := *g
					for _, x := range []*[]float32{&h.A, &h.B, &h.C, &h.Bias, &h.Residual, &h.Pre} {
						if *x != nil {
							*x = guarded(t, *x, atEnd)
						}
					}
					MatMul(p, &h)
					require.Equal(t, want, append([]float32(nil), h.C...), fmt.Sprintf("%s %v", f.name, s))
				}
			}
		}
	})
}
