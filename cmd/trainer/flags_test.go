package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Numbers that no machine has are refused before anything is started or reserved.
func TestPretrainFlagNumbers(t *testing.T) {
	for _, args := range [][]string{
		{"--threads", "1000000000"}, {"--memory", "NaN"}, {"--memory", "+Inf"}, {"--memory", "1e30"},
	} {
		t.Run(args[1], func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			code, _, errs := trainer(t, append(tiny(out), args...)...)
			require.Equal(t, exitUsage, code)
			require.Contains(t, errs, args[0])
			require.NoDirExists(t, out)
		})
	}
}
