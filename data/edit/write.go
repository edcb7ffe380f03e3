package edit

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"diptych/data/arrowset"
	"diptych/data/transform"
)

// worker is what one goroutine reuses from picture to picture.
type worker struct {
	decoded, resized transform.Image
	scratch          transform.Scratch
}

// made is a row on its way to the writer.
type made struct {
	row arrowset.Row
	err error
}

// write carries a plan out. Workers take rows in order; each row comes back on a channel of its own, and these channels wait in
// the plan's order, so the writer sees that order whatever finishes first.
func (p *plan) write(ctx context.Context, o Options) error {
	if o.Name != "" {
		p.manifest.Name = o.Name
	}
	w, err := arrowset.Create(o.Out, p.manifest)
	if err != nil {
		return err
	}
	defer w.Abort()
	if o.ShardBytes > 0 {
		w.ShardBytes = o.ShardBytes
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait() // the caller may close the sets
	defer stop()
	type job struct {
		at   ref
		done chan made
	}
	jobs := make(chan job)
	queue := make(chan chan made, 4*workers) // bounds the rows in memory
	wg.Go(func() {
		defer close(jobs)
		defer close(queue)
		for _, at := range p.rows {
			j := job{at, make(chan made, 1)}
			select {
			case queue <- j.done:
			case <-ctx.Done():
				return
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				j.done <- made{err: ctx.Err()}
				return
			}
		}
	})
	for range workers {
		wg.Go(func() {
			w := &worker{}
			for j := range jobs {
				row, err := p.row(ctx, w, j.at)
				j.done <- made{row, err}
			}
		})
	}
	n := 0
	for done := range queue {
		m := <-done
		if m.err != nil {
			return m.err
		}
		if err := w.Append(m.row); err != nil {
			return err
		}
		if n++; o.Progress != nil {
			o.Progress(n, len(p.rows))
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.Close()
}

// row makes one row.
func (p *plan) row(ctx context.Context, w *worker, at ref) (arrowset.Row, error) {
	set := p.sets[at.set]
	r := arrowset.Row{RowMeta: set.Meta()[at.row], Captions: set.Captions(at.row)}
	var err error
	if r.Image, err = set.Image(ctx, at.row); err != nil {
		return r, err
	}
	if set.HasSecond(at.row) {
		if r.Second, err = set.Second(ctx, at.row); err != nil {
			return r, err
		}
	}
	if p.captions != nil {
		if r.Captions, err = p.captions(w, at.row, r.Image); err != nil {
			return r, fmt.Errorf("edit: %s: row %d (%s): %w; `trainer data check --fix` leaves such rows out", nameOf(set), at.row, r.ImageID, err)
		}
	}
	for _, b := range []*[]byte{&r.Image, &r.Second} {
		if p.picture == nil || len(*b) == 0 {
			continue
		}
		if *b, err = p.picture(w, at, *b); err != nil {
			return r, fmt.Errorf("edit: %s: row %d (%s): %w; `trainer data check --fix` leaves such rows out", nameOf(set), at.row, r.ImageID, err)
		}
	}
	if p.meta != nil {
		p.meta(at, &r.RowMeta)
	}
	return r, nil
}
