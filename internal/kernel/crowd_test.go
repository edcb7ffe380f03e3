package kernel

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPoolDoublesItsThreadsInACrowd(t *testing.T) {
	if processTime() == 0 {
		t.Skip("the system does not tell the process's time")
	}
	procs := runtime.GOMAXPROCS(0)
	p := NewPool(2)
	defer p.Close()
	covers := func(threads int) {
		seen := make([]atomic.Int32, 1000)
		p.For(len(seen), 3, func(lo, hi, thread int) {
			require.Less(t, thread, threads)
			for i := lo; i < hi; i++ {
				seen[i].Add(1)
			}
		})
		for i := range seen {
			require.EqualValues(t, 1, seen[i].Load(), i)
		}
	}
	covers(2)
	p.crowd = crowd{used: processTime()}
	p.watch(time.Hour) // and the process ran for much less
	require.EqualValues(t, 4, p.active.Load())
	require.GreaterOrEqual(t, runtime.GOMAXPROCS(0), 4)
	for range 100 {
		covers(4)
	}
	p.crowd = crowd{used: processTime() - 2*crowdLook}
	p.watch(crowdLook)
	require.EqualValues(t, 2, p.active.Load())
	require.Equal(t, procs, runtime.GOMAXPROCS(0))
	for range 100 {
		covers(2)
	}
}
