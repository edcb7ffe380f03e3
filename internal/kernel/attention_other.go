//go:build !amd64 || noasm

package kernel

// Elsewhere attention runs the portable loops, whose parts have vectors.

func (h *head[T]) forward32(*Pool, int, *head[T]) bool  { return false }
func (h *head[T]) backward32(*Pool, int, *head[T]) bool { return false }
