package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/transform"
)

// memorySet is a data set whose pictures are one byte: the dimension that the model of these tests gives them.
type memorySet struct {
	manifest arrowset.Manifest
	meta     []arrowset.RowMeta
	captions [][]arrowset.Caption
	images   []string
	fail     error // of reading
}

func (s *memorySet) Manifest() *arrowset.Manifest      { return &s.manifest }
func (s *memorySet) Meta() []arrowset.RowMeta          { return s.meta }
func (s *memorySet) Captions(i int) []arrowset.Caption { return s.captions[i] }
func (s *memorySet) Image(_ context.Context, i int) ([]byte, error) {
	return []byte(s.images[i]), s.fail
}

func (s *memorySet) Column(name string) (func(int) string, bool) {
	if name != arrowset.ColLabel {
		return nil, false
	}
	return func(i int) string { return s.meta[i].Label }, true
}

func (s *memorySet) add(split, group, label, image string, captions ...arrowset.Caption) {
	s.meta = append(s.meta, arrowset.RowMeta{ImageID: fmt.Sprintf("p%d", len(s.meta)), Split: split, Group: group, Label: label})
	s.images = append(s.images, image)
	s.captions = append(s.captions, captions)
}

// tinyModel embeds a picture as the unit vector that its byte names and a text by a table.
type tinyModel struct {
	wordEncoder
	prepared atomic.Int32
}

func (m *tinyModel) Tasks() []Task { return []Task{TaskRetrieval, TaskZeroShot} }

func (m *tinyModel) Prepare(b []byte, dst []uint8) error {
	m.prepared.Add(1)
	if bytes.Equal(b, []byte("?")) {
		return errors.New("bad picture")
	}
	dst[0] = b[0] - '0'
	return nil
}

func caption(text, kind, lang string) arrowset.Caption {
	return arrowset.Caption{Text: text, Kind: kind, Lang: lang}
}

// emojis is a set of three concepts, of which "dog" has two pictures.
func emojis() (*memorySet, *tinyModel) {
	s := &memorySet{manifest: arrowset.Manifest{Name: "tiny", Classes: []arrowset.ClassSystem{{
		Name: "concept", Column: arrowset.ColLabel, Templates: []string{"{}", "a {}"},
		Classes: []arrowset.Class{{ID: "C", Text: "cat"}, {ID: "D", Text: "dog"}, {ID: "B", Text: "bus"}},
	}}}}
	s.add("train", "c", "C", "0", caption("cat", "label", "en"))
	s.add("test", "c", "C", "0", caption("a cat sits", "name", "en"), caption("cat", "label", "en"))
	s.add("test", "d", "D", "1", caption("Hund", "label", "de"), caption("dog", "label", "en"))
	s.add("test", "d", "D", "2", caption("dog", "label", "en"))
	s.add("test", "b", "", "?", caption("bus", "label", ""))
	s.add("test", "x", "X", "2", caption("no label", "tags", "en"))
	m := &tinyModel{wordEncoder: wordEncoder{dim: 4, text: map[string][]float32{
		"cat": {1, 0, 0, 0}, "dog": {0, 1, .5, 0}, "bus": {.2, 0, 1, 0}, "no label": {0, 0, 0, 1}, "a cat sits": {1, 0, 0, 0},
		"a cat": {1, 0, 0, 0}, "a dog": {0, 0, 1, 0}, "a bus": {0, 0, 0, 1},
	}}}
	return s, m
}

func TestRun(t *testing.T) {
	s, m := emojis()
	var heard []string
	res, err := Run(t.Context(), m, s, Options{K: []int{1, 2}, Progress: func(what string, done, total int) {
		if done == total {
			heard = append(heard, what)
		}
	}})
	require.NoError(t, err)
	require.Equal(t, []string{"pictures of test", "texts of test", "class names of concept"}, heard)
	require.Equal(t, "tiny", res.Data)
	require.Len(t, res.Splits, 1, "train is left out")
	sp := res.Splits[0]
	require.Equal(t, 4, sp.Images)
	require.Equal(t, []Broken{{Row: 4, ImageID: "p4", Reason: "bad picture"}}, sp.Broken)
	require.Equal(t, []int{1, 2, 3, 5}, sp.Features.Rows)
	require.Equal(t, []string{"cat", "dog", "bus", "no label"}, sp.Features.Texts, "one label of each group, in English")

	r := sp.Retrieval
	require.Equal(t, TextsLabel, r.Choice)
	require.Equal(t, [3]int{4, 4, 3}, [3]int{r.Texts, r.ImageToText.Queries, r.Groups})
	// Ranks of the texts: cat 1; dog 1; second dog 2 (bus is nearer); the unlabelled one 4.
	require.Equal(t, []float64{.5, .75}, []float64{r.ImageToText.RecallAt(1), r.ImageToText.RecallAt(2)})
	require.InDelta(t, 2, r.ImageToText.MeanRank, 1e-12)
	require.Equal(t, 1, r.TextToImage.Unmatched, "the picture of the bus is broken")
	require.Equal(t, 3, r.TextToImage.Queries)

	z := sp.ZeroShot[0]
	require.Equal(t, [3]int{3, 3, 1}, [3]int{z.Classes, z.Images, z.Unlabelled})
	require.InDelta(t, 2.0/3, z.Largest, 1e-12)
	require.InDelta(t, 1.0/3, z.ChanceTop1, 1e-12)
	require.InDelta(t, 1, z.ChanceTop5, 1e-12)
	require.InDelta(t, 2.0/3, z.Bare.Top1, 1e-12)
	require.Equal(t, "a {}", z.Templates[1].Template)
	require.InDelta(t, 2.0/3, z.Templates[1].Top1, 1e-12, "cat and the second dog")
	// The ensemble's dog is (0, .89, 1.45)/|…|, its bus (.2, 0, .98, 1)/|…|: all right.
	require.InDelta(t, 1, z.Ensemble.Top1, 1e-12)
	require.Equal(t, ClassAccuracy{Class: "dog", Images: 2, Top1: 1, Top5: 1}, z.PerClass[1])

	text, err := json.Marshal(res)
	require.NoError(t, err)
	var back Result
	require.NoError(t, json.Unmarshal(text, &back))
	back.Splits[0].Features = sp.Features
	require.Equal(t, res, &back, "the JSON loses nothing")
}

func TestRunAllTexts(t *testing.T) {
	s, m := emojis()
	res, err := Run(t.Context(), m, s, Options{Splits: []string{"test", "train"}, Texts: TextsAll, Tasks: []Task{TaskRetrieval}})
	require.NoError(t, err)
	require.Len(t, res.Splits, 2)
	require.Equal(t, []string{"a cat sits", "cat", "dog", "dog", "bus", "no label"}, res.Splits[0].Features.Texts)
	require.Equal(t, []int32{0, 0, 1, 1, 2, 3}, res.Splits[0].Features.TextGroup)
	require.Nil(t, res.Splits[0].ZeroShot)
	require.Equal(t, 1.0, res.Splits[1].Retrieval.ImageToText.RecallAt(1))
}

// Rows without a group stand for themselves, and sentences are all candidates.
func TestRunWithoutGroups(t *testing.T) {
	s := &memorySet{}
	s.add("test", "", "", "0", caption("cat", "", ""), caption("a cat", "", ""))
	s.add("test", "", "", "1", caption("dog", "", ""))
	_, m := emojis()
	res, err := Run(t.Context(), m, s, Options{})
	require.NoError(t, err)
	r := res.Splits[0].Retrieval
	require.Equal(t, []int32{0, 0, 1}, res.Splits[0].Features.TextGroup)
	require.Equal(t, TextsAll, r.Choice)
	require.Equal(t, 1.0, r.ImageToText.RecallAt(1))
	require.InDelta(t, .5, r.ImageToText.Recall[0].Chance, 1e-12, "two of three texts, and one of three")
	require.InDelta(t, .5, r.TextToImage.Recall[0].Chance, 1e-12)
}

func TestRunErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*memorySet, *tinyModel, *Options)
		is     error
		text   string
	}{
		{"no such split", func(_ *memorySet, _ *tinyModel, o *Options) { o.Splits = []string{"val"} }, ErrRequest, `no split "val"; it has test, train`},
		{"no such task", func(_ *memorySet, _ *tinyModel, o *Options) { o.Tasks = []Task{"vqa"} }, ErrRequest, "it has retrieval, zeroshot"},
		{"no such class system", func(_ *memorySet, _ *tinyModel, o *Options) { o.Systems = []string{"style"} }, ErrRequest, "it has concept"},
		{"no such choice", func(_ *memorySet, _ *tinyModel, o *Options) { o.Texts = "some" }, ErrRequest, "label and all"},
		{"R@-1", func(_ *memorySet, _ *tinyModel, o *Options) { o.K = []int{-1} }, ErrShape, "R@-1"},
		{"another language", func(_ *memorySet, _ *tinyModel, o *Options) { o.Splits, o.Lang = []string{"train"}, "fr" }, ErrRequest, `language "fr"`},
		{"class column missing", func(s *memorySet, _ *tinyModel, _ *Options) { s.manifest.Classes[0].Column = "style" }, ErrRequest, `no text column "style"`},
		{"every picture broken", func(s *memorySet, _ *tinyModel, o *Options) { s.images[0] = "?"; o.Splits = []string{"train"} }, ErrRequest, "row 0: bad picture"},
		{"file cannot be read", func(s *memorySet, _ *tinyModel, _ *Options) { s.fail = arrowset.ErrCorrupt }, arrowset.ErrCorrupt, "split test"},
		{"model gives NaN", func(_ *memorySet, m *tinyModel, _ *Options) { m.text["dog"][1] = float32(math.NaN()) }, ErrNotFinite, "row 1"},
		{"no classes", func(s *memorySet, _ *tinyModel, o *Options) { s.manifest.Classes, o.Tasks = nil, []Task{TaskZeroShot} }, ErrRequest, "the data set tiny has none"},
		{"prompts without classes", func(s *memorySet, _ *tinyModel, o *Options) {
			s.manifest.Classes, o.Templates = nil, []string{"a {}"}
		}, ErrRequest, "the data set tiny has none"},
		{"empty set", func(s *memorySet, _ *tinyModel, _ *Options) { s.meta = nil }, ErrRequest, "no rows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, m := emojis()
			var o Options
			c.change(s, m, &o)
			_, err := Run(t.Context(), m, s, o)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.text)
			require.Equal(t, 1, strings.Count(err.Error(), "eval:"), err)
		})
	}
}

func TestPictures(t *testing.T) {
	_, m := emojis()
	files := []string{"1", "?", "0", "gone"}
	read := func(i int) ([]byte, error) {
		if files[i] == "gone" {
			return nil, fmt.Errorf("%w: no such file", transform.ErrBadPicture)
		}
		return []byte(files[i]), nil
	}
	x, good, bad, err := Pictures(t.Context(), m, len(files), read, nil)
	require.NoError(t, err)
	require.Equal(t, []int{0, 2}, good)
	require.Equal(t, []float32{0, 1, 0, 0, 1, 0, 0, 0}, x)
	require.Len(t, bad, 2)
	require.Equal(t, 1, bad[0].Index)
	require.ErrorIs(t, bad[1].Err, transform.ErrBadPicture)

	_, _, _, err = Pictures(t.Context(), m, 1, func(int) ([]byte, error) { return nil, context.Canceled }, nil)
	require.ErrorIs(t, err, context.Canceled)
}
