package data

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"diptych/data/batch"
)

// Loader prepares the batches of consecutive updates ahead of their use, in a bounded pool.
type Loader struct {
	s      *Source
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ready  chan *job // in the order of updates
	free   chan *batch.Batch
}

// job is one batch in the making.
type job struct {
	b    *batch.Batch
	left atomic.Int64
	done chan struct{}
	mu   sync.Mutex
	err  error // the first
}

// slotJob is one pair of a job.
type slotJob struct {
	j *job
	i int
}

// PoolBatches returns how many batches a Loader holds that prepares ahead of them: those, the one in the making and the one in use.
func PoolBatches(ahead int) int { return ahead + 2 }

// NewLoader starts workers goroutines that prepare the updates [from, to), at most ahead batches before they are asked for.
func NewLoader(ctx context.Context, s *Source, from, to, workers, ahead int) *Loader {
	ctx, cancel := context.WithCancel(ctx)
	l := &Loader{s: s, ctx: ctx, cancel: cancel, ready: make(chan *job, ahead), free: make(chan *batch.Batch, PoolBatches(ahead))}
	for range cap(l.free) {
		l.free <- new(batch.Batch)
	}
	slots := make(chan slotJob, 2*workers)
	l.wg.Add(1 + workers)
	go l.schedule(from, to, slots)
	for range workers {
		go l.work(slots)
	}
	return l
}

func (l *Loader) schedule(from, to int, slots chan<- slotJob) {
	defer l.wg.Done()
	defer close(l.ready)
	defer close(slots)
	for u := from; u < to; u++ {
		var b *batch.Batch
		select {
		case b = <-l.free:
		case <-l.ctx.Done():
			return
		}
		l.s.fetch(u)
		l.s.prepare(u, b)
		j := &job{b: b, done: make(chan struct{})}
		j.left.Store(int64(len(b.Pairs)))
		select {
		case l.ready <- j:
		case <-l.ctx.Done():
			return
		}
		for i := range b.Pairs {
			select {
			case slots <- slotJob{j, i}:
			case <-l.ctx.Done():
				return
			}
		}
	}
}

func (l *Loader) work(slots <-chan slotJob) {
	defer l.wg.Done()
	w := new(worker)
	for sj := range slots {
		j := sj.j
		if err := l.s.slot(l.ctx, j.b, sj.i, w); err != nil {
			j.mu.Lock()
			if j.err == nil {
				j.err = err
			}
			j.mu.Unlock()
		}
		if j.left.Add(-1) == 0 {
			slices.SortFunc(j.b.Broken, func(a, b batch.Broken) int { return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Row, b.Row)) })
			close(j.done)
		}
	}
}

// Next waits for the next update's batch; after the last it returns nil. Release gives the batch back.
func (l *Loader) Next(ctx context.Context) (*batch.Batch, error) {
	select {
	case j, ok := <-l.ready:
		if !ok {
			return nil, l.ctx.Err()
		}
		select {
		case <-j.done:
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := l.s.take(j.b, j.err); err != nil {
				return nil, err
			}
			return j.b, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.ctx.Done():
			return nil, l.ctx.Err()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Release hands a batch back for reuse.
func (l *Loader) Release(b *batch.Batch) { l.free <- b }

// Close stops the pool and waits for it.
func (l *Loader) Close() {
	l.cancel()
	l.wg.Wait()
}
