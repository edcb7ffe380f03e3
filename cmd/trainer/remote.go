package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"diptych/data/remote"
)

// addCacheFlags adds the flags of the commands that may read remote data sets.
func addCacheFlags(cmd *cobra.Command, o *remote.Options) {
	o.Limit = 64 << 30
	cmd.Flags().StringVar(&o.Dir, "cache", "", "`directory` for shards of remote data sets, which several runs may share (default diptych in the user's cache folder)")
	cmd.Flags().Var((*gib)(&o.Limit), "cache-size", "`GiB` that it may hold; 0 is without end. What was not used for longest is removed")
}

// gib is a flag's value in GiB, kept in bytes.
type gib int64

func (g *gib) String() string { return strconv.FormatFloat(float64(*g)/(1<<30), 'g', -1, 64) }

func (g *gib) Type() string { return "GiB" }

func (g *gib) Set(s string) error {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0) || v > math.MaxInt64>>31 {
		return fmt.Errorf("%q, want a number of GiB, or 0", s)
	}
	*g = gib(v * (1 << 30))
	return nil
}

// notes writes what a person should know, one line each.
func notes(w io.Writer) func(format string, args ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, format+"\n", args...)
	}
}
