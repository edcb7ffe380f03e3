//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package remote

import (
	"fmt"
	"os"
)

// tryLock needs no lock, because partName is another for each process.
func tryLock(*os.File) (bool, error) { return true, nil }

// partName is the file that grows until a file of the cache is whole. Two processes may fetch the same at once; the one that
// ends last finds it there.
func partName(sum string) string { return fmt.Sprintf("%s.%d%s", sum, os.Getpid(), partSuffix) }
