package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Pool is a fixed set of threads that share the work of one caller at a time, and the scratch memory they need; in a crowd
// there are twice as many (crowd.go). One goroutine at a time may use a Pool; a piece of a loop must not start another loop on
// the same Pool.
type Pool struct {
	threads int
	workers []*worker // 2·threads-1, unless there is one thread
	crowd   crowd

	// The loop being dealt, written before state opens it.
	f     func(lo, hi, thread int)
	n     int
	piece int

	_     [64]byte // the counters below are hot: each has a line of its own
	next  atomic.Int64
	_     [64]byte
	state atomic.Uint64 // loop number <<32 | stateOpen | workers inside
	_     [64]byte

	active  atomic.Int32 // threads that may enter, the caller among them
	closed  atomic.Bool
	waiting atomic.Bool // the caller is parked on done
	done    chan struct{}
	fault   atomic.Pointer[fault]

	memory []scratchSet // one for each thread
	gemm   gemmRun

	portable32 portableRun[float32]
	portable64 portableRun[float64]
}

type worker struct {
	parked atomic.Bool
	wake   chan struct{}
}

// fault is a panic of a worker, kept to be raised again on the caller.
type fault struct{ value any }

const (
	stateOpen   = 1 << 31
	stateActive = stateOpen - 1

	// spinTime is how long a worker or the caller looks for work before it parks. To wake a core that sleeps takes up to a
	// tenth of a millisecond on a virtual machine, so it bridges what the caller does alone between two loops; it is a small
	// part of the milliseconds for which a scheduler takes a core away, so that nobody else who wants the core misses it.
	spinTime = 150 * time.Microsecond
	// looks are how often it looks before it asks for the time.
	looks = 128
)

// patience counts down spinTime.
type patience struct {
	looked int
	since  time.Time
}

// over reports, asked at each look, whether it is time to park.
func (w *patience) over() bool {
	if w.looked++; w.looked%looks != 0 {
		return false
	}
	if w.looked == looks {
		w.since = time.Now()
		return false
	}
	return time.Since(w.since) > spinTime
}

// NewPool makes a Pool of so many threads, the caller among them; below 1 counts as 1. Close ends its goroutines.
func NewPool(threads int) *Pool {
	p := &Pool{threads: max(threads, 1), done: make(chan struct{}, 1)}
	most := 1
	if p.threads > 1 {
		most = 2 * p.threads
	}
	p.memory = make([]scratchSet, most)
	p.active.Store(int32(p.threads))
	for i := 1; i < most; i++ {
		w := &worker{wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, w)
		go p.work(w, i)
	}
	return p
}

// Threads returns how many threads share a loop, the caller among them; 1 for a nil Pool.
func (p *Pool) Threads() int {
	if p == nil {
		return 1
	}
	return p.threads
}

// Close ends the Pool's goroutines and drops its scratch. No loop may be running.
func (p *Pool) Close() {
	if p == nil || p.closed.Swap(true) {
		return
	}
	for _, w := range p.workers {
		if w.parked.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
	p.memory = make([]scratchSet, len(p.memory))
	p.double(false)
}

// For deals [0, n) in pieces of the given length (the last may be shorter) to the caller, which is thread 0, and to the
// workers, as each becomes free, and returns when all are done. f(lo, hi, thread) must compute what does not depend on
// thread, which only names scratch. A nil Pool runs everything on the caller. A panic in f is raised again on the caller.
//
// f escapes: a caller on the hot path keeps one func value instead of a fresh closure for each loop.
func (p *Pool) For(n, piece int, f func(lo, hi, thread int)) {
	if n <= 0 {
		return
	}
	piece = max(piece, 1)
	if p == nil || p.threads == 1 || n <= piece {
		for lo := 0; lo < n; lo += piece {
			f(lo, min(n, lo+piece), 0)
		}
		return
	}
	begun := time.Now()
	p.f, p.n, p.piece = f, n, piece
	p.next.Store(0)
	loop := p.state.Load()>>32 + 1
	p.state.Store(loop<<32 | stateOpen)
	for _, w := range p.workers[:min(int(p.active.Load())-1, (n-1)/piece)] {
		if w.parked.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
	defer p.finish(begun)
	p.deal(0)
}

// finish shuts the loop, so that a worker that wakes late does not enter, and waits for those inside.
func (p *Pool) finish(begun time.Time) {
	p.state.And(^uint64(stateOpen))
	var wait patience
	for p.state.Load()&stateActive != 0 {
		if !wait.over() {
			continue
		}
		p.waiting.Store(true)
		if p.state.Load()&stateActive != 0 || !p.waiting.CompareAndSwap(true, false) {
			<-p.done
		}
	}
	p.f = nil
	p.watch(time.Since(begun))
	if e := p.fault.Swap(nil); e != nil {
		panic(e.value)
	}
}

// deal takes pieces until none is left.
func (p *Pool) deal(thread int) {
	n, piece := p.n, p.piece
	for {
		lo := int(p.next.Add(int64(piece))) - piece
		if lo >= n {
			return
		}
		p.f(lo, min(n, lo+piece), thread)
	}
}

func (p *Pool) work(w *worker, thread int) {
	var last uint64
	var wait patience
	for !p.closed.Load() {
		s := p.state.Load()
		if s&stateOpen != 0 && s>>32 != last && int32(thread) < p.active.Load() {
			if p.state.CompareAndSwap(s, s+1) {
				last = s >> 32
				p.inside(thread)
			}
			wait = patience{}
			continue
		}
		if !wait.over() {
			continue
		}
		wait = patience{}
		w.parked.Store(true)
		// Whoever opened a loop before it could see us parked did not wake us, so look once more.
		s = p.state.Load()
		if (s&stateOpen != 0 && s>>32 != last && int32(thread) < p.active.Load() || p.closed.Load()) && w.parked.CompareAndSwap(true, false) {
			continue
		}
		<-w.wake
	}
}

func (p *Pool) inside(thread int) {
	defer func() {
		if e := recover(); e != nil {
			p.next.Store(int64(p.n)) // deal nothing more
			p.fault.CompareAndSwap(nil, &fault{e})
		}
		if s := p.state.Add(^uint64(0)); s&(stateOpen|stateActive) == 0 && p.waiting.CompareAndSwap(true, false) {
			p.done <- struct{}{}
		}
	}()
	p.deal(thread)
}

// slot names one of the scratch buffers of a thread. Kernels that call one another use different slots.
type slot int

const (
	slotPackA   slot = iota // gemm: a block of A
	slotPackB               // gemm: all of B (of thread 0, shared) or a panel of it
	slotSharedA             // gemm: all of A (of thread 0, shared)
	slotSums                // gemm: sums that become bfloat16
	slotA                   // free for the other kernels, as are the following
	slotB
	slotC
	slotD
	slotE
	numSlots
)

type scratchSet [numSlots][]float64

// scratch returns n elements of a thread's memory that begin at a multiple of 64 bytes, with whatever was left in them. They
// are the caller's until it asks for the same slot again.
func scratch[T Float](p *Pool, thread int, s slot, n int) []T {
	words := (n*int(unsafe.Sizeof(T(0))) + 7) / 8
	m := &p.memory[thread][s]
	if len(*m) < words {
		*m = aligned[float64](words + words/4 + 8)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(*m))), n)
}

// serial keeps pools of one thread, so that a nil Pool has scratch too.
var serial = sync.Pool{New: func() any { return NewPool(1) }}

// own returns p, or a pool of one thread if p is nil; give it back with disown(p, the result).
func own(p *Pool) *Pool {
	if p != nil {
		return p
	}
	return serial.Get().(*Pool)
}

func disown(p, owned *Pool) {
	if p == nil {
		serial.Put(owned)
	}
}

// DefaultThreads is the number of threads to use when nobody says: what the scheduler gives the program.
func DefaultThreads() int { return runtime.GOMAXPROCS(0) }
