package main

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
)

func TestRestore(t *testing.T) {
	text, err := restore([]byte(`["[PAD]", "▁", "[unused1]", "[CLS]", "▁the", "s", "[x]", "▁[", "▁##"]`))
	require.NoError(t, err)
	require.Equal(t, "[PAD]\n[unused0]\n[unused1]\n[CLS]\nthe\n##s\n##[x]\n[\n##\n", string(text))
	for _, list := range []string{`{}`, `[]`, ``, `["a"]`} {
		_, err := restore([]byte(list))
		require.Error(t, err, list)
	}
}

func TestRunRefusesAnotherArchive(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no licence":    {map[string]string{vocabName: `["a", "b"]`}, "no LICENSE"},
		"no vocabulary": {map[string]string{licenceName: "L"}, vocabName},
		"another":       {map[string]string{vocabName: `["a", "b"]`, licenceName: "L"}, "not " + vocabSum},
	} {
		t.Run(name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "a.tgz")
			f, err := os.Create(archive)
			require.NoError(t, err)
			z := gzip.NewWriter(f)
			w := tar.NewWriter(z)
			for name, text := range c.files {
				require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
				_, err := w.Write([]byte(text))
				require.NoError(t, err)
			}
			require.NoError(t, w.Close())
			require.NoError(t, z.Close())
			require.NoError(t, f.Close())
			out := t.TempDir()
			require.ErrorContains(t, run(archive, out), c.want)
			left, err := os.ReadDir(out)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}
