package kernel

import (
	"errors"
	"fmt"
)

// ErrNoMemory marks memory that the system does not give.
var ErrNoMemory = errors.New("the system gives no memory")

// noMemory is the panic of NewSlab.
type noMemory struct {
	bytes int
	cause error
}

// CatchNoMemory is deferred where a run or a model takes its memory: it turns the panic of NewSlab into an error that wraps
// ErrNoMemory, and lets others pass.
func CatchNoMemory(err *error) {
	switch p := recover().(type) {
	case nil:
	case noMemory:
		*err = errors.Join(fmt.Errorf("%w: %d MiB are wanted at once: %w", ErrNoMemory, p.bytes>>20, p.cause), *err)
	default:
		panic(p)
	}
}

// NewSlab returns n zeroed floats that begin at a multiple of 64 bytes, every page of them already touched, so that the
// first step is as fast as the next. On unix the memory is off the Go heap, in huge pages where the system
// has them, and stays until FreeSlab; elsewhere it is an ordinary slice. If the system gives no memory it panics with what
// CatchNoMemory turns into an error.
func NewSlab(n int) []float32 {
	if n == 0 {
		return nil
	}
	return newSlab(n)
}

// FreeSlab gives back a slab of NewSlab, whole as it was returned. Nothing may use it afterwards. nil is ignored.
func FreeSlab(s []float32) {
	if cap(s) > 0 {
		freeSlab(s)
	}
}
