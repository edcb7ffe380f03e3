package kernel

import (
	"runtime"
	"sync"
	"time"
)

// A thread that loses its core to another process holds up all who wait for it at the end of a loop, and as long as these sleep
// nobody disputes the other process the core: beside one busy neighbour on two cores, two threads were given 1.1 cores, of the 1.5
// that are their share. With twice the threads there is nearly always one that wants the core; that is slower where nobody else
// does. So a Pool compares the time its loops take with the processor's time that the process is given meanwhile.
type crowd struct {
	looped time.Duration // in loops since the last look
	used   time.Duration // processor's time of the process at the last look
}

const (
	// crowdLook is how long loops run between two looks: a hundred times that for which a scheduler takes a core away.
	crowdLook = 500 * time.Millisecond
	// crowdBelow is the part of the cores below which others must be using them, and crowdAbove that at which they no longer do.
	// On two cores, in looks of 0.1 s: alone 0.95, on a virtual machine whose host is busy 0.67 to 0.79; beside one neighbour
	// 0.50 to 0.61, with twice the threads 0.50 to 0.75.
	crowdBelow, crowdAbove = 0.65, 0.75
)

// watch counts a loop that took d, and sets how many threads the next ones have.
func (p *Pool) watch(d time.Duration) {
	c := &p.crowd
	if c.looped += d; c.looped < crowdLook {
		return
	}
	used := processTime()
	share := float64(used-c.used) / (float64(c.looped) * float64(min(p.threads, processors.own())))
	bound := crowdBelow
	if int(p.active.Load()) > p.threads {
		bound = crowdAbove
	}
	p.double(c.used > 0 && share < bound)
	c.used, c.looped = used, 0
}

// double lets twice the threads enter the next loops, or no longer.
func (p *Pool) double(on bool) {
	if on == (int(p.active.Load()) > p.threads) {
		return
	}
	if on {
		p.active.Store(int32(len(p.memory)))
		processors.raise(len(p.memory))
	} else {
		p.active.Store(int32(p.threads))
		processors.lower()
	}
}

// processors are the threads that Go runs at once: more while a Pool is doubled.
var processors raised

type raised struct {
	sync.Mutex
	pools int // doubled
	procs int // GOMAXPROCS without them
}

func (r *raised) raise(n int) {
	r.Lock()
	defer r.Unlock()
	if r.pools++; r.pools == 1 {
		r.procs = runtime.GOMAXPROCS(0)
	}
	if n > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}

func (r *raised) lower() {
	r.Lock()
	defer r.Unlock()
	if r.pools--; r.pools == 0 {
		runtime.GOMAXPROCS(r.procs)
	}
}

// own returns GOMAXPROCS as it was given.
func (r *raised) own() int {
	r.Lock()
	defer r.Unlock()
	if r.pools > 0 {
		return r.procs
	}
	return runtime.GOMAXPROCS(0)
}
