package report

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/eval"
)

var update = flag.Bool("update", false, "rewrite testdata/report.md")

// shapes is a data set of coloured squares: the picture of class c of style s is the colour c, a little darker for s.
type shapes struct {
	manifest arrowset.Manifest
	meta     []arrowset.RowMeta
	images   [][]byte
}

var colours = []struct {
	name string
	c    color.RGBA
}{{"red", color.RGBA{200, 0, 0, 255}}, {"green | lime", color.RGBA{0, 200, 0, 255}}, {"blue", color.RGBA{0, 0, 200, 255}}, {"*white*", color.RGBA{200, 200, 200, 255}}}

func newShapes(t *testing.T) *shapes {
	s := &shapes{manifest: arrowset.Manifest{Name: "shapes", Classes: []arrowset.ClassSystem{{
		Name: "colour", Column: "label", Templates: []string{"{}", "a {} | square"}}}}}
	for _, c := range colours {
		s.manifest.Classes[0].Classes = append(s.manifest.Classes[0].Classes, arrowset.Class{ID: c.name, Text: c.name})
	}
	for style := range 3 {
		for _, c := range colours {
			m := image.NewRGBA(image.Rect(0, 0, 8, 8))
			for i := range m.Pix {
				m.Pix[i] = 255
			}
			for y := 1; y < 7; y++ {
				for x := 1; x < 7; x++ {
					m.SetRGBA(x, y, color.RGBA{c.c.R - uint8(20*style), c.c.G, c.c.B, 255})
				}
			}
			var b bytes.Buffer
			require.NoError(t, png.Encode(&b, m))
			s.images = append(s.images, b.Bytes())
			s.meta = append(s.meta, arrowset.RowMeta{ImageID: fmt.Sprintf("%s-%d", c.name, style), Split: "test", Group: c.name, Label: c.name})
		}
	}
	s.images[5] = []byte("no picture")
	return s
}

func (s *shapes) Manifest() *arrowset.Manifest                   { return &s.manifest }
func (s *shapes) Meta() []arrowset.RowMeta                       { return s.meta }
func (s *shapes) Image(_ context.Context, i int) ([]byte, error) { return s.images[i], nil }
func (s *shapes) Column(string) (func(int) string, bool) {
	return func(i int) string { return s.meta[i].Label }, true
}
func (s *shapes) Captions(i int) []arrowset.Caption {
	return []arrowset.Caption{{Text: s.meta[i].Label, Kind: "label", Lang: "en"}}
}

// eye embeds a picture as the colour in its middle and a text as the colour it names; one template misleads it.
type eye struct{}

func (eye) EmbedDim() int                   { return 3 }
func (eye) ImageSides() (height, width int) { return 1, 1 }

func (eye) Tasks() []eval.Task { return []eval.Task{eval.TaskRetrieval, eval.TaskZeroShot} }

func (eye) Prepare(b []byte, dst []uint8) error {
	m, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return err
	}
	r, g, bl, _ := m.At(4, 4).RGBA()
	dst[0], dst[1], dst[2] = uint8(r>>8), uint8(g>>8), uint8(bl>>8)
	return nil
}

func (eye) Images(_ context.Context, n int, at func(int, []uint8) error) ([]float32, error) {
	var x []float32
	for i := range n {
		var dst [3]uint8
		if err := at(i, dst[:]); err != nil {
			return nil, err
		}
		x = append(x, full(float32(dst[0]), float32(dst[1]), float32(dst[2]))...)
	}
	return x, nil
}

func (eye) Texts(_ context.Context, texts []string) ([]float32, error) {
	var x []float32
	for _, t := range texts {
		for _, c := range colours {
			if strings.Contains(t, c.name) {
				if c.name == "red" && t != "red" { // a template that misleads
					x = append(x, 0, 0, 1)
				} else {
					x = append(x, full(float32(c.c.R), float32(c.c.G), float32(c.c.B))...)
				}
			}
		}
	}
	if len(x) != 3*len(texts) {
		return nil, errors.New("unknown colour")
	}
	return x, nil
}

// full brings a colour to full brightness.
func full(x ...float32) []float32 {
	if m := max(x[0], x[1], x[2]); m > 0 {
		for i := range x {
			x[i] /= m
		}
	}
	return x
}

func TestWrite(t *testing.T) {
	set := newShapes(t)
	res, err := eval.Run(t.Context(), eye{}, set, eval.Options{K: []int{1, 2}})
	require.NoError(t, err)
	r := &Report{
		Title: "colours", About: []Fact{{"run", "runs/a"}, {"parameters", "3 | none"}}, Result: res, Set: set, Queries: 3,
		Pictures: []Picture{{"Curves", "curves.png"}},
	}
	dir := filepath.Join(t.TempDir(), "new", "report")
	require.NoError(t, r.Write(t.Context(), dir))
	require.NoError(t, r.Write(t.Context(), dir), "again, over the first")

	got, err := os.ReadFile(filepath.Join(dir, "report.md"))
	require.NoError(t, err)
	golden := filepath.Join("testdata", "report.md")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o777))
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "go test -run TestWrite -update rewrites it")

	summary := Summary(res)
	require.Contains(t, string(want), strings.SplitAfter(summary, "\n\n")[0])
	require.Contains(t, summary, "| colour       | test  |")
	require.Equal(t, "\n", Summary(&eval.Result{}))

	var back Report
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, res.Splits[0].Retrieval, back.Result.Splits[0].Retrieval)

	f, err := os.Open(filepath.Join(dir, "zeroshot-colour-test.csv"))
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+len(colours))
	require.Equal(t, []string{"green | lime", "2"}, rows[2][:2])

	for _, name := range []string{"image-to-text-test.png", "text-to-image-test.png"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		m, err := png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		require.Greater(t, m.Bounds().Dy(), 3*128, "three queries")
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 5, "nothing is left beside them")
}

// The queries of a sheet have an answer, are of different groups and the same each time.
func TestSample(t *testing.T) {
	asked := []int32{0, 0, 1, 1, 2, 3, 3, 9}
	got := sample("test", asked, []int32{3, 1, 0, 3}, 10)
	require.Len(t, got, 3)
	seen := map[int32]bool{}
	for _, q := range got {
		seen[asked[q]] = true
	}
	require.Equal(t, map[int32]bool{0: true, 1: true, 3: true}, seen)
	require.Equal(t, got, sample("test", asked, []int32{3, 1, 0, 3}, 10))
	require.Len(t, sample("test", asked, []int32{3, 1, 0}, 2), 2)
}

func TestWriteErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	err := (&Report{Result: &eval.Result{}}).Write(t.Context(), filepath.Join(file, "sub"))
	require.ErrorContains(t, err, "report: ")
	require.ErrorContains(t, err, file)

	dir := t.TempDir()
	require.ErrorContains(t, writeFile(dir, "a", func(io.Writer) error { return errors.New("disk full") }), "a: disk full")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
}

func TestText(t *testing.T) {
	require.Equal(t, []string{"0", "999", "1,000", "12,345,678"}, []string{thousands(0), thousands(999), thousands(1000), thousands(12345678)})
	require.Equal(t, []string{"0.0 %", "0.07 %", "0.99 %", "1.0 %", "100.0 %"}, []string{percent(0), percent(.00068), percent(.0099), percent(.00999), percent(1)})
	require.Equal(t, "zeroshot-a_b__-test_style", fileName("zeroshot", "a/bé", "test_style"))
}
