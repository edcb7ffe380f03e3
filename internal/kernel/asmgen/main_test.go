package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The committed assembly is what this generator writes: a change of one without the other fails here.
func TestCommittedFilesAreUpToDate(t *testing.T) {
	dir := t.TempDir()
	for _, g := range groups {
		require.NoError(t, g.generate(dir))
		assembly, stubs := g.files()
		for _, file := range []string{assembly, stubs} {
			want, err := os.ReadFile(filepath.Join(dir, file))
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join("..", file))
			require.NoError(t, err)
			require.True(t, string(want) == string(got), "%s is stale: run go generate in internal/kernel", file)
		}
	}
}
