//go:build !unix

package kernel

import "time"

func processTime() time.Duration { return 0 }
