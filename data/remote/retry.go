package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// permanent is an error that trying again does not mend.
type permanent struct{ error }

func (p *permanent) Unwrap() error { return p.error }

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 15 * time.Second
)

// retry runs do until it succeeds, fails for good, or patience has passed without a sign of life. do calls alive whenever
// something came; when nothing comes for Options.Stall its context ends. Pauses double from firstPause to lastPause and begin
// anew after a sign of life; each is up to half as long again by chance, so that many clients do not come back at once.
func (o *Options) retry(ctx context.Context, patience time.Duration, do func(ctx context.Context, alive func()) error) error {
	pause, last := firstPause, time.Now()
	for {
		err := func() error {
			attempt, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			stall := time.AfterFunc(o.Stall, func() { cancel(fmt.Errorf("nothing came for %v", o.Stall)) })
			defer stall.Stop()
			err := do(attempt, func() {
				stall.Reset(o.Stall)
				pause, last = firstPause, time.Now()
			})
			if cause := context.Cause(attempt); err != nil && cause != nil && ctx.Err() == nil && !errors.Is(err, cause) {
				return fmt.Errorf("%w: %w", err, cause)
			}
			return err
		}()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if errors.As(err, new(*permanent)) || !temporary(err) {
			return err
		}
		if time.Since(last)+pause > patience {
			return fmt.Errorf("%w; gave up after %v without an answer of use", err, time.Since(last).Round(time.Second))
		}
		wait := pause + rand.N(pause/2)
		o.Note("%v; trying again in %v", err, wait.Round(10*time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, lastPause)
	}
}
