package kernel

// NewSlab returns n zeroed floats that begin at a multiple of 64 bytes, every page of them already touched, so that the
// first step is as fast as the next. On unix the memory is off the Go heap, in huge pages where the system
// has them, and stays until FreeSlab; elsewhere it is an ordinary slice. It panics if the system gives no memory.
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
