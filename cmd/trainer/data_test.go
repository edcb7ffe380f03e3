package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/demo"
)

// TestExportImportDemo writes the embedded set as files and imports them with the command that was printed: the same rows.
func TestExportImportDemo(t *testing.T) {
	dir := t.TempDir()
	files, out := filepath.Join(dir, "files"), filepath.Join(dir, "set")
	code, stdout, errs := trainer(t, "data", "export", "demo", "--out", files)
	require.Zero(t, code, errs)
	require.Equal(t, "exporting pictures: 7762\n", errs)
	require.NoError(t, fs.WalkDir(demo.Licenses(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			require.FileExists(t, filepath.Join(files, path))
		}
		return err
	}))

	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	args := strings.Fields(lines[len(lines)-1])
	require.Equal(t, "trainer", args[0])
	args[len(args)-1] = out
	code, stdout, errs = trainer(t, args[1:]...)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "7762 pictures")

	want, err := demo.Open()
	require.NoError(t, err)
	defer want.Close()
	got, err := arrowset.Open(out)
	require.NoError(t, err)
	defer got.Close()
	require.NoError(t, got.Verify(t.Context()))
	require.Equal(t, want.Meta(), got.Meta())
	require.Equal(t, want.Manifest().Classes, got.Manifest().Classes)
	require.Equal(t, want.Manifest().Licenses, got.Manifest().Licenses)
	require.Equal(t, want.Manifest().Splits, got.Manifest().Splits)
	for i := range want.Len() {
		a, err := want.Image(t.Context(), i)
		require.NoError(t, err)
		b, err := got.Image(t.Context(), i)
		require.NoError(t, err)
		require.Equal(t, a, b)
		require.Equal(t, want.Captions(i), got.Captions(i))
	}

	code, stdout, errs = trainer(t, args[1:]...)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "holds the whole data set of 7762 rows that this import made")
	code, _, errs = trainer(t, append(args[1:], "--name", "other")...)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "that an import of something else made, or with other options")
	code, _, errs = trainer(t, "data", "export", "demo", "--out", files)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "the folder is not empty")
}

// TestImportTable imports a table, first with a fault, then without the line that has it.
func TestImportTable(t *testing.T) {
	dir := t.TempDir()
	var picture bytes.Buffer
	require.NoError(t, png.Encode(&picture, image.NewGray(image.Rect(0, 0, 3, 2))))
	table := filepath.Join(dir, "pairs.csv")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.png"), picture.Bytes(), 0o644))
	require.NoError(t, os.WriteFile(table, []byte("path,text\na.png,one\nb.png,two\na.png,three\n"), 0o644))
	out := filepath.Join(dir, "set")
	args := []string{"data", "import", "csv", "--image-column", "path", "--caption-column", "text", "--out", out, "val=" + table}
	code, _, errs := trainer(t, args...)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, table+":3: bad input: picture b.png is missing")
	require.NoDirExists(t, out)

	code, stdout, errs := trainer(t, append(args, "--on-bad", "skip")...)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, out+": 1 pictures in ")
	require.Contains(t, stdout, "1 bad records were left out; see "+filepath.Join(out, "skipped.jsonl"))
	set, err := arrowset.Open(out)
	require.NoError(t, err)
	defer set.Close()
	require.Equal(t, map[string]int{"val": 1}, set.Manifest().Splits)
	require.Equal(t, []arrowset.Caption{{Text: "one"}, {Text: "three"}}, set.Captions(0))

	elsewhere := filepath.Join(t.TempDir(), "more.csv")
	for want, args := range map[string][]string{
		`there is no column "image" for the picture; the columns are ["path" "text"]`: {table},
		"the pictures' folder must be named":                                          {table, elsewhere},
		"--workers -1, --shard-bytes 0: want 0 or more":                               {table, "--workers", "-1"},
		"--on-bad ignore: want fail or skip":                                          {table, "--on-bad", "ignore"},
	} {
		code, _, errs = trainer(t, append([]string{"data", "import", "csv", "--out", out}, args...)...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, want)
	}
	code, _, errs = trainer(t, "data", "import", "flickr30k", "--images", dir, table, "--list", table, "--out", out)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "write --list SPLIT=FILE")
}

func TestShow(t *testing.T) {
	sheet := filepath.Join(t.TempDir(), "sheet.png")
	code, stdout, errs := trainer(t, "data", "show", "demo", "--json", "--verify", "--sheet", sheet)
	require.Zero(t, code, errs)
	var o dataOverview
	require.NoError(t, json.Unmarshal([]byte(stdout), &o))
	require.Equal(t, 7762, o.Rows)
	require.Equal(t, splitOverview{Name: "train", Rows: 5085, Groups: 1461, Captions: 17039, MinCaptions: 2, CaptionsPerPicture: 17039. / 5085, MaxCaptions: 4, Bytes: o.Splits[0].Bytes}, o.Splits[0])
	require.Len(t, o.Splits, 5)
	require.Equal(t, classOverview{Name: "subcategory", Column: "subcategory", Classes: 95, Prompts: 5, Rows: 7762}, o.Classes[2])
	require.Equal(t, map[string]int{"64×64": 1000}, o.Pictures.Sizes)
	require.Equal(t, map[string]int{"png": 1000}, o.Pictures.Formats)
	total, licensed := int64(0), 0
	for _, s := range o.Splits {
		total += s.Bytes
	}
	for _, l := range o.Licenses {
		licensed += l.Rows
	}
	require.Equal(t, o.Pictures.Bytes, total)
	require.Equal(t, 7762, licensed)
	f, err := os.Open(sheet)
	require.NoError(t, err)
	defer f.Close()
	_, err = png.Decode(f)
	require.NoError(t, err)

	code, stdout, errs = trainer(t, "data", "show", "demo", "--sheet", "")
	require.Zero(t, code, errs)
	for _, want := range []string{"7762, 14.6 MB", "label 7762", "caption list<utf8>", "test_concept", "2 to 4, 3.35", "concept"} {
		require.Contains(t, stdout, want)
	}
	require.NotContains(t, stdout, "contact sheet")
}

// TestShowBrokenPicture shows a set with a picture that no one can decode: it is marked, and nothing fails.
func TestShowBrokenPicture(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	w, err := arrowset.Create(dir, arrowset.Manifest{Name: "n"})
	require.NoError(t, err)
	defer w.Abort()
	require.NoError(t, w.Append(arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: "a", Split: "train"}, Image: []byte("no picture")}))
	require.NoError(t, w.Close())
	sheet := filepath.Join(t.TempDir(), "sheet.png")
	code, stdout, errs := trainer(t, "data", "show", dir, "--sheet", sheet)
	require.Zero(t, code, errs)
	require.Contains(t, stdout, "not PNG or JPEG 1")
	require.FileExists(t, sheet)
}

func TestDataMistakes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "captions_train.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"images":[{"id":1,"file_name":"a.png"}],"annotations":[{"image_id":1,"caption":"x"}]}`), 0o666))
	for _, c := range []struct {
		name string
		args []string
		text string
	}{
		{"show nothing", []string{"show"}, "accepts 1 arg"},
		{"show no folder", []string{"show", filepath.Join(dir, "none")}, "none"},
		{"show another folder", []string{"show", dir}, "no manifest.json"},
		{"show a file", []string{"show", file}, "this is a file"},
		{"import without flags", []string{"import", "coco", "--images", dir}, "--captions, --out must be given"},
		{"import a missing picture", []string{"import", "coco", "--images", dir, "--captions", file, "--out", filepath.Join(dir, "out")}, "images[0]: bad input: picture a.png is missing"},
		{"import no file", []string{"import", "coco", "--images", dir, "--captions", filepath.Join(dir, "captions_x.json"), "--out", filepath.Join(dir, "out")}, "captions_x.json"},
		{"export without a folder", []string{"export", "demo"}, "--out must be given"},
		{"unknown format", []string{"import", "xyz"}, "unknown command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, errs := trainer(t, append([]string{"data"}, c.args...)...)
			require.Equal(t, exitUsage, code, errs)
			require.Contains(t, errs, c.text)
		})
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing may be left behind")
}
