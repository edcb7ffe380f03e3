//go:build !amd64 || noasm

package kernel

func (a *CrossAttention[T]) forward32(p *Pool, thread, seq, index int) bool  { return false }
func (a *CrossAttention[T]) backward32(p *Pool, thread, seq, index int) bool { return false }
