package convert

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

var ctx = context.Background()

// pic is a file that begins as a picture does.
func pic(name string) string { return "\x89PNG\r\n\x1a\n" + name }

func pngOf(t testing.TB, w, h int) []byte {
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))))
	return b.Bytes()
}

// put writes files below a new folder and returns it.
func put(t testing.TB, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

// all returns the rows of a set.
func all(t testing.TB, dir string) (rows []arrowset.Row, m arrowset.Manifest) {
	set, err := arrowset.Open(dir)
	require.NoError(t, err)
	defer set.Close()
	for i, meta := range set.Meta() {
		b, err := set.Image(ctx, i)
		require.NoError(t, err)
		rows = append(rows, arrowset.Row{RowMeta: meta, Image: b, Captions: append([]arrowset.Caption{}, set.Captions(i)...)})
	}
	return rows, *set.Manifest()
}

func TestImport(t *testing.T) {
	dir := put(t, map[string]string{
		"images/a.png": pic("A"), "images/sub/b.png": pic("B"), "images/c.jpg": pic("C"),
		// annotations before images, ids as texts, a caption with escapes, fields that no one asked for
		"captions_train.json": `{"info": {"deep": [{"x": []}]}, "annotations": [
			{"image_id": "one", "id": 5, "caption": "first", "kind": "label", "lang": "en"},
			{"image_id": 2, "id": "5", "caption": "a \"quoted\" \u00e4"} , {"id":6,"image_id":"one","caption":"second"}],
			"licenses": [{"id": 4, "name": "MIT", "url": "u"}, {"id": 5, "url": "only an address"}],
			"images": [{"id": "one", "file_name": "a.png", "style": "flat", "concept": "c1", "license": 4, "height": 3, "coco_url": "http://x"},
				{"file_name": "sub/b.png", "id": 2, "concept": "c2", "label": "own", "source": "s", "year": 1999, "license": 5}]}`,
		"captions_test.json": `{"images":[{"id":"one","file_name":"c.jpg","colour":"red"}],"annotations":[{"image_id":"one","caption":"third"}]}`,
		"classes.json":       `{"templates":["a {}"],"concept":[{"id":"c1","text":"concept one"}],"style":[{"id":"flat","text":"flat"}]}`,
	})
	out := filepath.Join(dir, "out")
	var steps [][2]int
	c := COCO{Images: filepath.Join(dir, "images"), Captions: []string{filepath.Join(dir, "captions_train.json"), filepath.Join(dir, "captions_test.json")}}
	classes, err := ReadClasses(filepath.Join(dir, "classes.json"))
	require.NoError(t, err)
	result, err := Run(ctx, c, Options{Classes: classes, Out: out, Progress: func(p Progress) { steps = append(steps, [2]int{p.Rows, p.Total}) }})
	require.NoError(t, err)
	require.Equal(t, Result{Rows: 3}, result)
	rows, m := all(t, out)
	require.Equal(t, []string{"style", "license", "colour"}, m.Attributes)
	require.Equal(t, []arrowset.Row{
		{RowMeta: arrowset.RowMeta{ImageID: "a.png", Split: "train", Group: "c1", Label: "concept one", Source: "http://x", Attributes: []string{"flat", "MIT", ""}},
			Image: []byte(pic("A")), Captions: []arrowset.Caption{{Text: "first", Kind: "label", Lang: "en"}, {Text: "second"}}},
		{RowMeta: arrowset.RowMeta{ImageID: "sub/b.png", Split: "train", Group: "c2", Label: "own", Source: "s", Attributes: []string{"", "only an address", ""}},
			Image: []byte(pic("B")), Captions: []arrowset.Caption{{Text: `a "quoted" ä`}}},
		{RowMeta: arrowset.RowMeta{ImageID: "c.jpg", Split: "test", Attributes: []string{"", "", "red"}}, Image: []byte(pic("C")), Captions: []arrowset.Caption{{Text: "third"}}},
	}, rows)
	require.Equal(t, "out", m.Name)
	require.Equal(t, map[string]int{"train": 2, "test": 1}, m.Splits)
	require.Equal(t, 3, m.Groups)
	require.Equal(t, []arrowset.License{{Name: "MIT", URL: "u"}, {Name: "only an address", URL: "only an address"}}, m.Licenses)
	require.Equal(t, []arrowset.ClassSystem{
		{Name: "concept", Column: "group", Templates: []string{"a {}"}, Classes: []arrowset.Class{{ID: "c1", Text: "concept one"}}},
		{Name: "style", Column: "style", Templates: []string{"a {}"}, Classes: []arrowset.Class{{ID: "flat", Text: "flat"}}},
	}, m.Classes)
	require.Equal(t, [][2]int{{1, 3}, {2, 3}, {3, 3}}, steps)

	c.Split = "all"
	out = filepath.Join(dir, "one split")
	_, err = Run(ctx, c, Options{Out: out})
	require.NoError(t, err)
	_, m = all(t, out)
	require.Equal(t, map[string]int{"all": 3}, m.Splits)
}

func TestImportErrors(t *testing.T) {
	coco := func(images, annotations string) string {
		return `{"licenses":[{"id":1,"name":"MIT"}],"images":[` + images + `],"annotations":[` + annotations + `]}`
	}
	const image, caption = `{"id":1,"file_name":"a.png"}`, `{"id":1,"image_id":1,"caption":"x"}`
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"not JSON", "id,caption\n", []string{"near byte"}},
		{"another JSON", `[1]`, []string{"'[' stands where '{' must"}},
		{"no images", `{"annotations":[]}`, []string{`no array "images"`, "COCO captions file"}},
		{"no annotations", `{"images":[]}`, []string{`no array "annotations"`}},
		{"images twice", `{"images":[],"images":[]}`, []string{"two arrays"}},
		{"images is no array", `{"images":{}}`, []string{"images: '{' stands where '[' must"}},
		{"cut", coco(image, caption)[:80], []string{"ends in the middle"}},
		{"image id twice", coco(image+`,{"id":1,"file_name":"b.png"}`, caption), []string{"images[1]", "id 1 is also that of images[0]"}},
		{"picture twice", coco(image+`,{"id":2,"file_name":"./a.png"}`, caption), []string{"images[1]", "picture ./a.png is there twice"}},
		{"image without id", coco(`{"file_name":"a.png"}`, caption), []string{"images[0]", "id is"}},
		{"image without file", coco(`{"id":1}`, caption), []string{"images[0]", "file_name"}},
		{"file_name is a number", coco(`{"id":1,"file_name":7}`, caption), []string{"images[0]", "file_name is 7"}},
		{"file outside", coco(`{"id":1,"file_name":"../../secret"}`, caption), []string{"images[0]", "../../secret"}},
		{"image is no object", coco(`7`, caption), []string{"images[0]"}},
		{"license unknown", coco(`{"id":1,"file_name":"a.png","license":9}`, caption), []string{"images[0]", "license 9"}},
		{"picture missing", coco(image+`,{"id":2,"file_name":"gone.png"}`, caption+`,{"id":2,"image_id":2,"caption":"y"}`), []string{"images[1]", "picture gone.png is missing"}},
		{"picture empty", coco(`{"id":1,"file_name":"empty.png"}`, caption), []string{"images[0]", "empty.png", "picture is empty"}},
		{"no picture", coco(`{"id":1,"file_name":"html.png"}`, caption), []string{"images[0]", "<!DOCTYPE", "neither JPEG"}},
		{"annotation id twice", coco(image, caption+`,`+caption), []string{"annotations[1]", "id 1 is there twice"}},
		{"annotation without image", coco(image, caption+`,{"id":2,"image_id":8,"caption":"x"}`), []string{"annotations[1]", "image_id 8 is the id of no image"}},
		{"annotation without caption", coco(image, `{"id":2,"image_id":1}`), []string{"annotations[0]", "no caption"}},
		{"annotation without image_id", coco(image, `{"id":2,"caption":"x"}`), []string{"annotations[0]", "image_id"}},
		{"caption is a number", coco(image, `{"id":2,"image_id":1,"caption":3}`), []string{"annotations[0]", "caption"}},
		{"image without caption", coco(image+`,{"id":2,"file_name":"b.png"}`, caption), []string{"images[1]", "it has no caption"}},
		{"caption not UTF-8", coco(image, caption+",{\"id\":2,\"image_id\":1,\"caption\":\"caf\xe9\"}"), []string{"annotations[1]", "not UTF-8"}},
		{"image not UTF-8", coco("{\"id\":1,\"file_name\":\"a.png\",\"style\":\"\xff\"}", caption), []string{"images[0]", "not UTF-8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := put(t, map[string]string{"images/a.png": pic("A"), "images/b.png": pic("B"), "images/html.png": "<!DOCTYPE html>", "images/empty.png": "", "captions_train.json": c.file})
			name := filepath.Join(dir, "captions_train.json")
			_, err := Run(ctx, COCO{Images: filepath.Join(dir, "images"), Captions: []string{name}}, Options{Out: filepath.Join(dir, "out")})
			require.ErrorIs(t, err, ErrInput)
			for _, want := range append(c.want, name) {
				require.ErrorContains(t, err, want)
			}
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 2, "nothing may be left behind")
		})
	}
	good := put(t, map[string]string{"images/a.png": pic("A"), "captions_train.json": coco(image, caption), "other.json": coco(image, caption), "bad.json": `{"templates":["{}"],"planet":[]}`, "wrong.json": `{"concept":[{"id":"a","text":"a"}]}`})
	at := func(name string) string { return filepath.Join(good, name) }
	for _, c := range []struct {
		name string
		coco COCO
		want string
	}{
		{"no captions", COCO{Images: at("images")}, "no captions file"},
		{"no images", COCO{Images: at("none"), Captions: []string{at("other.json")}}, "none"},
		{"images is a file", COCO{Images: at("other.json"), Captions: []string{at("other.json")}}, "not a folder"},
		{"no such file", COCO{Images: at("images"), Captions: []string{at("captions_val.json")}}, "captions_val.json"},
		{"split unknown", COCO{Images: at("images"), Captions: []string{at("other.json")}}, "--split"},
		{"picture in two files", COCO{Images: at("images"), Captions: []string{at("captions_train.json"), at("other.json")}, Split: "s"}, "twice (before in " + at("captions_train.json")},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			_, err := Run(ctx, c.coco, Options{Out: out})
			require.ErrorContains(t, err, c.want)
			require.NoDirExists(t, out)
		})
	}
	whole := COCO{Images: at("images"), Captions: []string{at("captions_train.json")}}
	t.Run("class column missing", func(t *testing.T) {
		classes, err := ReadClasses(at("bad.json"))
		require.NoError(t, err)
		_, err = Run(ctx, whole, Options{Out: filepath.Join(t.TempDir(), "out"), Classes: classes})
		require.ErrorContains(t, err, `column "planet"`)
	})
	t.Run("no templates", func(t *testing.T) {
		_, err := ReadClasses(at("wrong.json"))
		require.ErrorContains(t, err, `"concept" has no templates`)
		require.ErrorContains(t, err, at("wrong.json"))
	})
	t.Run("stopped", func(t *testing.T) {
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		parent := t.TempDir()
		_, err := Run(stopped, whole, Options{Out: filepath.Join(parent, "out")})
		require.ErrorIs(t, err, context.Canceled)
		entries, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Empty(t, entries)
	})
}

// TestScanMemory scans 20 MB of texts: what is held for the second pass must be ids and places, not the texts.
func TestScanMemory(t *testing.T) {
	var file bytes.Buffer
	file.WriteString(`{"annotations":[{"image_id":0,"caption":"x"}`)
	for i := range 1000 {
		fmt.Fprintf(&file, `,{"id":%d,"image_id":%d,"caption":"%s"}`, i, i, strings.Repeat("word ", 4<<10))
	}
	file.WriteString(`],"images":[{"id":0}`)
	for i := range 999 {
		fmt.Fprintf(&file, `,{"id":%d}`, i+1)
	}
	file.WriteString(`]}`)
	live := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := live()
	c := newCOCO(bytes.NewReader(file.Bytes()), int64(file.Len()))
	require.NoError(t, c.scan(ctx, func([]field) error { return nil }))
	require.Less(t, live()-before, int64(1<<20))
	texts, err := c.captions([]byte("0"))
	require.NoError(t, err)
	require.Len(t, texts, 2)
}

func TestExportImport(t *testing.T) {
	dir := t.TempDir()
	m := arrowset.Manifest{Name: "small", Description: "d", Attributes: []string{"style", "license", "note"},
		Licenses: []arrowset.License{{Name: "MIT", URL: "u"}, {Name: "CC-BY-4.0", URL: "v"}},
		Classes: []arrowset.ClassSystem{
			{Name: "concept", Column: "group", Templates: []string{"{}", "a <{}> & more"}, Classes: []arrowset.Class{{ID: "c0", Text: "zero"}, {ID: "c1", Text: "one"}}},
			{Name: "style", Column: "style", Templates: []string{"{} only"}, Classes: []arrowset.Class{{ID: "s0", Text: "s"}}},
		}}
	w, err := arrowset.Create(filepath.Join(dir, "a"), m)
	require.NoError(t, err)
	defer w.Abort()
	for i := range 24 {
		r := arrowset.Row{Image: pngOf(t, 2+i, 3), RowMeta: arrowset.RowMeta{
			ImageID: fmt.Sprintf("d%d/%d <ä>.png", i%3, i), Split: []string{"train", "val", "test"}[i/8],
			Attributes: []string{fmt.Sprintf("s%d", i%2), []string{"", "MIT", "CC-BY-4.0"}[i%3], "\u2028\"&"}}}
		if i%4 != 0 {
			r.Group, r.Label, r.Source = fmt.Sprintf("c%d", i%2), []string{"zero", "one"}[i%2], "http://x?a&b"
		}
		for k := range 1 + i%5 {
			r.Captions = append(r.Captions, arrowset.Caption{Text: fmt.Sprintf("text %d, größer\n", k), Kind: []string{"", "label"}[k%2], Lang: []string{"de", ""}[k%2]})
		}
		require.NoError(t, w.Append(r))
	}
	require.NoError(t, w.Close())

	set, err := arrowset.Open(filepath.Join(dir, "a"))
	require.NoError(t, err)
	defer set.Close()
	out := filepath.Join(dir, "files")
	var done int
	captions, err := Export(ctx, set, out, func(n, total int) { done = n; require.Equal(t, 24, total) })
	require.NoError(t, err)
	require.Equal(t, 24, done)
	require.Equal(t, []string{filepath.Join(out, "annotations", "captions_train.json"), filepath.Join(out, "annotations", "captions_val.json"), filepath.Join(out, "annotations", "captions_test.json")}, captions)
	classes, err := ReadClasses(filepath.Join(out, "classes.json"))
	require.NoError(t, err)
	_, err = Run(ctx, COCO{Images: filepath.Join(out, "images"), Captions: captions}, Options{Classes: classes, Name: m.Name, Description: m.Description, Out: filepath.Join(dir, "b")})
	require.NoError(t, err)

	wantRows, wantManifest := all(t, filepath.Join(dir, "a"))
	gotRows, gotManifest := all(t, filepath.Join(dir, "b"))
	require.Equal(t, wantRows, gotRows)
	require.Equal(t, wantManifest, gotManifest) // with the shards' checksums

	// The files are COCO's: plain decoding finds the usual fields.
	text, err := os.ReadFile(captions[1])
	require.NoError(t, err)
	var coco struct {
		Images      []struct{ ID, Width, Height int }
		Annotations []struct {
			ImageID int `json:"image_id"`
			Caption string
		}
	}
	require.NoError(t, json.Unmarshal(text, &coco))
	require.Len(t, coco.Images, 8)
	require.Equal(t, 2+8, coco.Images[0].Width)
	require.Equal(t, coco.Images[0].ID, coco.Annotations[0].ImageID)

	_, err = Export(ctx, set, out, nil)
	require.ErrorIs(t, err, fs.ErrExist)
}

func TestExportErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		m    arrowset.Manifest
		row  arrowset.RowMeta
		want string
	}{
		{"name outside", arrowset.Manifest{}, arrowset.RowMeta{ImageID: "../x", Split: "s"}, `row 0: image_id "../x"`},
		{"split no file name", arrowset.Manifest{}, arrowset.RowMeta{ImageID: "x", Split: "a/b"}, `split "a/b"`},
		{"attribute of COCO", arrowset.Manifest{Attributes: []string{"width"}}, arrowset.RowMeta{ImageID: "x", Split: "s", Attributes: []string{"1"}}, `attribute "width"`},
		{"license unlisted", arrowset.Manifest{Attributes: []string{"license"}}, arrowset.RowMeta{ImageID: "x", Split: "s", Attributes: []string{"L"}}, `license "L"`},
		{"classes elsewhere", arrowset.Manifest{Classes: []arrowset.ClassSystem{{Name: "c", Column: "group", Templates: []string{"{}"}}}}, arrowset.RowMeta{ImageID: "x", Split: "s"}, `"c" lies in column "group"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			w, err := arrowset.Create(filepath.Join(dir, "a"), c.m)
			require.NoError(t, err)
			defer w.Abort()
			require.NoError(t, w.Append(arrowset.Row{RowMeta: c.row, Image: []byte{1}}))
			require.NoError(t, w.Close())
			set, err := arrowset.Open(filepath.Join(dir, "a"))
			require.NoError(t, err)
			defer set.Close()
			_, err = Export(ctx, set, filepath.Join(dir, "b"), nil)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// flickr8k unpacks Flickr8k, whose pictures may not lie in this repository.
func flickr8k(t testing.TB) COCO {
	dir := os.Getenv("DIPTYCH_DATA")
	if dir == "" {
		t.Skip("DIPTYCH_DATA does not name a folder with flickr8k-128.tar")
	}
	f, err := os.Open(filepath.Join(dir, "flickr8k-128.tar"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no flickr8k-128.tar in DIPTYCH_DATA")
	}
	require.NoError(t, err)
	defer f.Close()
	files := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		require.True(t, filepath.IsLocal(h.Name))
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(files, h.Name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(files, h.Name), b, 0o644))
	}
	c := COCO{Images: filepath.Join(files, "images")}
	for _, split := range []string{"train", "val", "test"} {
		c.Captions = append(c.Captions, filepath.Join(files, "annotations", "captions_"+split+".json"))
	}
	return c
}

// TestFlickr8k imports the whole of it.
func TestFlickr8k(t *testing.T) {
	c, out := flickr8k(t), filepath.Join(t.TempDir(), "set")
	_, err := Run(ctx, c, Options{Out: out})
	require.NoError(t, err)
	set, err := arrowset.Open(out)
	require.NoError(t, err)
	defer set.Close()
	require.NoError(t, set.Verify(ctx))
	require.Equal(t, map[string]int{"train": 6000, "val": 1000, "test": 1000}, set.Manifest().Splits)
	for i := range set.Len() {
		require.Len(t, set.Captions(i), 5)
	}
}

const cocoSeed = `{"info":{},"images":[{"id":1,"file_name":"a.png","concept":"c","style":"s"},{"id":"b","file_name":"b"}],"annotations":[{"id":1,"image_id":1,"caption":"x"},{"image_id":"b","caption":"y\u00e4"},{"image_id":1,"caption":"z"}],"licenses":[{"id":1,"url":"u"}]}`

// readCOCO reads b as a captions file. What was found in the first pass is found again: each record is good or named as bad,
// each caption read once.
func readCOCO(t testing.TB, b []byte) {
	c := newCOCO(bytes.NewReader(b), int64(len(b)))
	c.close = func() error { return nil }
	s := &cocoSource{files: []*cocoFile{c}, splits: []string{"s"}}
	var o Options
	if err := s.scan(ctx, c, &o); err != nil {
		require.ErrorIs(t, err, ErrInput)
		return
	}
	s.attributes = o.Attributes
	records, captions := 0, 0
	for {
		rec, err := s.Next()
		if err == io.EOF {
			break
		}
		if records++; err != nil {
			require.IsType(t, &RecordError{}, err)
			continue
		}
		captions += len(rec.Row.Captions)
	}
	require.LessOrEqual(t, o.Total, records)
	require.LessOrEqual(t, captions, len(c.annotations))
}

func FuzzCOCO(f *testing.F) {
	f.Add([]byte(cocoSeed))
	f.Add([]byte(`{"annotations":[],"images":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) { readCOCO(t, b) })
}

func FuzzClasses(f *testing.F) {
	f.Add([]byte(`{"templates":["a {}"],"concept":[{"id":"c1","text":"concept one"}],"style":[]}`))
	f.Add([]byte(`{"templates":{"a":["{}"],"b":["x {}"]},"a":[],"b":[{"id":"","text":"<"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		systems, err := parseClasses(b)
		if err != nil {
			require.ErrorIs(t, err, ErrInput)
			return
		}
		if len(systems) == 0 {
			return
		}
		text, err := formatClasses(systems)
		require.NoError(t, err)
		again, err := parseClasses(text)
		require.NoError(t, err)
		require.Equal(t, len(systems), len(again))
	})
}
