package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/check"
)

// smallData writes a part of the demo as a set of its own and returns its folder.
func smallData(t *testing.T, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "small")
	code, _, errs := trainer(t, append([]string{"data", "sample", "demo", "--n", "60", "--seed", "5", "--out", out}, args...)...)
	require.Zero(t, code, errs)
	return out
}

func requirePNG(t *testing.T, file string) image.Image {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	m, err := png.Decode(f)
	require.NoError(t, err)
	return m
}

func TestCheckCommand(t *testing.T) {
	dir := smallData(t)
	code, stdout, errs := trainer(t, "data", "check", dir, "--recipe", "clip-emoji")
	require.Zero(t, code, errs)
	for _, want := range []string{"60 pictures", "0 errors", "train", "the tokenizer (bpe) takes 32"} {
		require.Contains(t, stdout, want)
	}

	set, err := arrowset.Open(dir)
	require.NoError(t, err)
	defer set.Close()
	bad := filepath.Join(t.TempDir(), "bad")
	m := set.Manifest()
	w, err := arrowset.Create(bad, arrowset.Manifest{Name: "bad", Attributes: m.Attributes, Classes: m.Classes, Licenses: m.Licenses})
	require.NoError(t, err)
	defer w.Abort()
	for i, meta := range set.Meta() {
		b, err := set.Image(t.Context(), i)
		require.NoError(t, err)
		if i == 3 {
			b = b[:len(b)/2]
		}
		captions := append([]arrowset.Caption{}, set.Captions(i)...)
		if i == 5 {
			captions = append(captions, arrowset.Caption{Text: " "}, arrowset.Caption{Text: "donâ€™t"})
		}
		require.NoError(t, w.Append(arrowset.Row{RowMeta: meta, Image: b, Captions: captions}))
	}
	require.NoError(t, w.Close())

	sheet := filepath.Join(t.TempDir(), "sheet.png")
	code, stdout, errs = trainer(t, "data", "check", bad, "--json", "--sheet", sheet)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "the data set has errors: 2")
	var r check.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	require.Equal(t, 2, r.Errors)
	require.Equal(t, check.Finding{Kind: check.ImageTruncated, Severity: check.Error, Row: 3, ImageID: set.Meta()[3].ImageID, Caption: -1, Other: -1, Detail: r.Findings[0].Detail}, r.Findings[0])
	requirePNG(t, sheet)

	clean := filepath.Join(t.TempDir(), "clean")
	code, stdout, errs = trainer(t, "data", "check", bad, "--fix", "--also", "caption-mojibake", "--out", clean)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "59 of 60 rows; 1 rows and 1 captions left out, 1 captions rewritten")
	list, err := os.ReadFile(filepath.Join(clean, check.FixesName))
	require.NoError(t, err)
	require.Equal(t, 3, bytes.Count(list, []byte("\n")))
	code, _, errs = trainer(t, "data", "check", clean)
	require.Zero(t, code, errs)

	require.NoError(t, os.Truncate(filepath.Join(bad, "00000.arrow"), 100))
	code, stdout, _ = trainer(t, "data", "check", bad)
	require.Equal(t, exitFailure, code)
	require.Contains(t, stdout, "set-unreadable")
}

func TestEditCommands(t *testing.T) {
	dir := smallData(t)
	for _, c := range []struct {
		name string
		args []string
		text string
	}{
		{"mix", []string{"mix", dir, dir, "--weights", "2,1", "--split", "train"}, "rename one"},
		{"filter", []string{"filter", dir, "--where", "style!=twemoji"}, "pictures (train"},
		{"sample", []string{"sample", dir, "--fraction", "0.5"}, "pictures"},
		{"split", []string{"split", dir, "--fractions", "train=.5,test=.5", "--by", "subcategory"}, "test "},
		{"reshard", []string{"reshard", dir, "--shard-mib", "1", "--name", "other"}, "60 pictures"},
		{"resize", []string{"resize", dir, "--size", "32"}, "60 pictures"},
		{"re-encode", []string{"re-encode", dir, "--format", "jpeg", "--quality", "80"}, "60 pictures"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			code, stdout, errs := trainer(t, append(append([]string{"data"}, c.args...), "--out", out)...)
			require.Contains(t, stdout+errs, c.text)
			if c.name == "mix" { // a set with itself: all names are there twice
				require.Equal(t, exitUsage, code)
				return
			}
			require.Zero(t, code, errs)
			set, err := arrowset.Open(out)
			require.NoError(t, err)
			defer set.Close()
			require.NoError(t, set.Verify(t.Context()))
			require.Len(t, set.Manifest().Classes, 3)
		})
	}
	other := smallData(t, "--name", "other", "--seed", "6")
	out := filepath.Join(t.TempDir(), "out")
	code, stdout, errs := trainer(t, "data", "mix", dir, other, "--out", out)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "120 pictures")
}

func TestPreview(t *testing.T) {
	out := filepath.Join(t.TempDir(), "preview.png")
	code, stdout, errs := trainer(t, "data", "preview", "clip-emoji", "--n", "3", "--draws", "4", "--out", out)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "3 samples of split train, 4 draws")
	first := requirePNG(t, out)
	require.Greater(t, first.Bounds().Dx(), 6*128)
	code, _, errs = trainer(t, "data", "preview", "clip-emoji", "--n", "3", "--draws", "4", "--out", out, "--set", "data.split=val")
	require.Zero(t, code, errs)
	require.NotEqual(t, first, requirePNG(t, out))
}

func TestCheckMistakes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		text string
	}{
		{"no set", []string{"check", filepath.Join(dir, "none")}, "none"},
		{"fix without a folder", []string{"check", "demo", "--fix"}, "--fix and --out go together"},
		{"no kind", []string{"check", "demo", "--fix", "--out", filepath.Join(dir, "x"), "--also", "mojibake"}, "--also mojibake: want some of"},
		{"no published set", []string{"check", "demo", "--published", "imagenet"}, "known are flickr8k"},
		{"no recipe", []string{"check", "demo", "--recipe", "nothing"}, "built in"},
		{"no condition", []string{"filter", "demo", "--out", filepath.Join(dir, "x")}, "--where or --split"},
		{"no folder", []string{"reshard", "demo"}, "--out must be given"},
		{"n and fraction", []string{"sample", "demo", "--n", "1", "--fraction", "1", "--out", filepath.Join(dir, "x")}, "either --n or --fraction"},
		{"one set", []string{"mix", "demo", "--out", filepath.Join(dir, "x")}, "requires at least 2 arg"},
		{"filter name", []string{"resize", "demo", "--size", "9", "--filter", "nearest", "--out", filepath.Join(dir, "x")}, "--filter nearest"},
		{"format", []string{"re-encode", "demo", "--format", "gif", "--out", filepath.Join(dir, "x")}, "--format gif: want jpeg or png"},
		{"preview of no split", []string{"preview", "clip-emoji", "--set", "data.split=exam", "--out", filepath.Join(dir, "x")}, "no rows of split"},
		{"preview of nothing", []string{"preview", "clip-emoji", "--n", "0"}, "--n 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, errs := trainer(t, append([]string{"data"}, c.args...)...)
			require.Equal(t, exitUsage, code, errs)
			require.Contains(t, errs, c.text)
			require.False(t, strings.Contains(errs, "panic"))
		})
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing may be left behind")
}
