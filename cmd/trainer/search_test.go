package main

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// writePicture writes a PNG of one colour.
func writePicture(t *testing.T, path string, c color.Color) {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 9, 7))
	for y := range 7 {
		for x := range 9 {
			m.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o666))
}

// trainer runs a command line and returns its exit code and what it wrote.
func trainer(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&errs)
	code = run(t.Context(), root, args)
	return code, out.String(), errs.String()
}

func TestUseMistakes(t *testing.T) {
	dir := t.TempDir()
	pictures := filepath.Join(dir, "pictures")
	writePicture(t, filepath.Join(pictures, "a.png"), color.White)
	texts := filepath.Join(dir, "texts.txt")
	require.NoError(t, os.WriteFile(texts, []byte("one\ntw\xffo\n"), 0o666))
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.Mkdir(empty, 0o777))
	none := filepath.Join(dir, "none")
	for _, c := range []struct {
		name string
		args []string
		text string
	}{
		{"eval without a run", []string{"eval"}, "accepts 1 arg"},
		{"eval of no folder", []string{"eval", none}, "no such folder; give the one that trainer pretrain wrote"},
		{"eval of a file", []string{"eval", texts}, "it is a file"},
		{"eval with negative threads", []string{"eval", dir, "--threads", "-1"}, "--threads -1"},
		{"eval with an unknown flag", []string{"eval", dir, "--spilt", "test"}, "--spilt; see trainer eval --help"},
		{"embed without out", []string{"embed", dir, "--texts", texts}, "--out is missing"},
		{"embed of nothing", []string{"embed", dir, "--out", "x.safetensors"}, "give --images DIR, --texts FILE or both"},
		{"embed over its index", []string{"embed", dir, "--texts", texts, "--out", "x.json"}, "must not end in .json"},
		{"embed of an empty folder", []string{"embed", dir, "--images", empty, "--out", "x.safetensors"}, "it holds no pictures"},
		{"embed of a missing text file", []string{"embed", dir, "--texts", none, "--out", "x.safetensors"}, "no such file"},
		{"embed of a text that is not UTF-8", []string{"embed", dir, "--texts", texts, "--out", "x.safetensors"}, "texts.txt, line 2: it is not UTF-8"},
		{"eval of a folder without a model", []string{"eval", empty}, "neither a run directory"},
		{"eval into a file", []string{"eval", dir, "--out", texts}, "--out: "},
		{"embed into a missing folder", []string{"embed", dir, "--images", pictures, "--out", filepath.Join(none, "x.safetensors")}, "no such folder"},
		{"search with a sheet in a missing folder", []string{"search", dir, "--images", pictures, "--sheet", filepath.Join(none, "s.png"), "a"}, "no such folder"},
		{"search without images", []string{"search", dir, "a red fruit"}, "--images is missing"},
		{"search for nothing", []string{"search", dir, "--images", pictures}, "give what to search for"},
		{"search for two things", []string{"search", dir, "--images", pictures, "--image", texts, "a red fruit"}, "give what to search for"},
		{"search with top 0", []string{"search", dir, "--images", pictures, "--top", "0", "a"}, "--top 0"},
		{"search for a missing picture", []string{"search", dir, "--images", pictures, "--image", none}, "no such file"},
		{"search of a missing folder", []string{"search", dir, "--images", none, "a"}, "no such folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := trainer(t, c.args...)
			require.Equal(t, exitUsage, code, errs)
			require.Contains(t, errs, c.text)
			require.Empty(t, out)
		})
	}
}

func TestPictureFiles(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"b.PNG", "sub/a.jpg", "a.gif", "notes.txt", "sub/.hidden"} {
		path := filepath.Join(dir, filepath.FromSlash(f))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, nil, 0o666))
	}
	files, err := pictureFiles(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"a.gif", "b.PNG", filepath.Join("sub", "a.jpg")}, files)
}

func TestReadLines(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"no newline at the end", "one\ntwo", []string{"one", "two"}},
		{"a blank line is a row", "one\n\ntwo\n", []string{"one", "", "two"}},
		{"Windows", "\uFEFFone\r\ntwo\r\n", []string{"one", "two"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readLines(strings.NewReader(c.text), "-")
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	_, err := readLines(strings.NewReader("\n"), "-")
	require.ErrorIs(t, err, errUsage)
}

func TestReplaceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o666))
	full := errors.New("disk full")
	err := replaceFile(path, func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return full })
	require.ErrorIs(t, err, full)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(b))
	require.NoError(t, replaceFile(path, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }))
	b, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "new", string(b))
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 1)
}

// Without a terminal a stage is one line.
func TestStages(t *testing.T) {
	var b bytes.Buffer
	progress := stages(&b)
	for i := range 3 {
		progress("pictures of val", i+1, 3)
	}
	progress("texts of val", 1, 7)
	require.Equal(t, "pictures of val: 3\ntexts of val: 7\n", b.String())
}
