package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
)

func pack(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestTrim(t *testing.T) {
	var text strings.Builder
	for i := range lines + 9 {
		fmt.Fprintln(&text, "line", i)
	}
	trimmed, err := trim(pack(t, text.String()))
	require.NoError(t, err)
	z, err := gzip.NewReader(bytes.NewReader(trimmed))
	require.NoError(t, err)
	got, err := io.ReadAll(z)
	require.NoError(t, err)
	want, _, _ := strings.Cut(text.String(), fmt.Sprintf("line %d\n", lines))
	require.Equal(t, want, string(got))

	_, err = trim(pack(t, "line\n"))
	require.ErrorContains(t, err, "fewer than 48895 lines")
	_, err = trim([]byte("no gzip at all, ten bytes"))
	require.ErrorIs(t, err, gzip.ErrHeader)
}

func TestRunRefusesAnotherWheel(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"no licence":   {[]string{mergesName}, "no LICENSE"},
		"other merges": {[]string{mergesName, "x/LICENSE"}, "not " + mergesSum},
	} {
		t.Run(name, func(t *testing.T) {
			wheel := filepath.Join(t.TempDir(), "a.whl")
			f, err := os.Create(wheel)
			require.NoError(t, err)
			z := zip.NewWriter(f)
			for _, name := range c.files {
				w, err := z.Create(name)
				require.NoError(t, err)
				_, err = w.Write(pack(t, "other"))
				require.NoError(t, err)
			}
			require.NoError(t, z.Close())
			require.NoError(t, f.Close())
			out := t.TempDir()
			require.ErrorContains(t, run(wheel, out), c.want)
			left, err := os.ReadDir(out)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}
