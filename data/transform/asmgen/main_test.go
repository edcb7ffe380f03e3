package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The committed assembly is what this generator writes: a change of one without the other fails here.
func TestCommittedFilesAreUpToDate(t *testing.T) {
	for _, g := range groups {
		dir := t.TempDir()
		require.NoError(t, generate(dir, g.pkg, g.write))
		for _, file := range []string{assembly, stubs} {
			want, err := os.ReadFile(filepath.Join(dir, file))
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join("..", g.dir, file))
			require.NoError(t, err)
			require.True(t, string(want) == string(got), "%s of package %s is stale: run go generate in data/transform", file, g.pkg)
		}
	}
}
