package experiments

import (
	"sync"
	"time"

	"diptych/eval"
	"diptych/train"
)

// oneByOne passes calls on one at a time: what is fetched in the background has notes of its own.
type oneByOne struct {
	mu sync.Mutex
	to Observer
}

func (o *oneByOne) Begin(r *Run, p Plan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Begin(r, p)
}

func (o *oneByOne) Step(r train.Record, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Step(r, wait)
}

func (o *oneByOne) Measuring(what string, done, total int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Measuring(what, done, total)
}

func (o *oneByOne) Measured(step int, res *eval.Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Measured(step, res)
}

func (o *oneByOne) Note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Note(format, args...)
}
