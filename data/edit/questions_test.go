package edit

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/demo"
	"diptych/data/transform"
)

// Colours of small pictures drawn by letters: a white ground does not count, white that it does not reach does.
func TestColour(t *testing.T) {
	levels := map[byte][3]uint8{
		'.': {255, 255, 255}, 'r': {220, 20, 30}, 'o': {250, 150, 30}, 'y': {250, 220, 50}, 'g': {60, 180, 70}, 'b': {40, 90, 220}, 'p': {150, 60, 220},
		'k': {250, 150, 200}, 'n': {120, 70, 30}, 'x': {20, 20, 20}, 'e': {140, 140, 140},
	}
	for want, lines := range map[string][]string{
		"white": {"....", "....", "...."}, "red": {"....", ".rb.", ".r.."}, "green": {"gggg", "g..g", "gggg"}, "orange": {"oo..", "....", "...."}, "yellow": {"y"}, "blue": {"xbbx"},
		"purple": {"pp", "xx", "p."}, "pink": {"kk", "x."}, "brown": {"nx", "n."}, "black": {"xx", "r."}, "grey": {"ee", "b."},
	} {
		im := &transform.Image{W: len(lines[0]), H: len(lines)}
		for _, line := range lines {
			for i := range line {
				c := levels[line[i]]
				im.Pix = append(im.Pix, c[:]...)
			}
		}
		require.Equal(t, want, dominant(im), lines)
	}
	ring := &transform.Image{W: 5, H: 5, Pix: slices.Repeat([]uint8{255}, 75)}
	for _, i := range []int{6, 7, 8, 11, 13, 16, 17, 18} {
		copy(ring.Pix[3*i:], []uint8{20, 20, 20})
	}
	require.Equal(t, "black", dominant(ring), "the ground is larger and does not count")
	for _, i := range []int{6, 7, 8, 11, 13, 16, 17, 18} {
		copy(ring.Pix[3*i:], []uint8{255, 255, 255})
	}
	require.Equal(t, "white", dominant(ring))
}

func TestLetters(t *testing.T) {
	for label, want := range map[string]int{"SOS button": 3, "A button (blood type)": 1, "UP! button": 2, "BACK arrow": 4, "ATM sign": 3, "ZZZ": 3, "circled M": 1, "T-Rex": 0,
		"OK hand": 0, "person gesturing NO": 0, "cat": 0, "Japanese “here” button": 0, "": 0} {
		require.Equal(t, want, letters(label), label)
	}
}

// The demo's questions: the same each time, with splits and pictures as they were, and answers that are true.
func TestQuestions(t *testing.T) {
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	dir := t.TempDir()
	small := filepath.Join(dir, "small")
	require.NoError(t, Sample(t.Context(), set, 300, 0, 1, Options{Out: small}))
	from, err := arrowset.Open(small)
	require.NoError(t, err)
	defer from.Close()
	var sets [2]*arrowset.Set
	for i, workers := range []int{1, 3} {
		out := filepath.Join(dir, []string{"a", "b"}[i])
		require.NoError(t, Questions(t.Context(), from, 1, Options{Out: out, Workers: workers}))
		sets[i], err = arrowset.Open(out)
		require.NoError(t, err)
		defer sets[i].Close()
	}
	require.Equal(t, sets[0].Manifest().Shards, sets[1].Manifest().Shards)
	require.Equal(t, from.Manifest().Splits, sets[0].Manifest().Splits)
	require.Equal(t, from.Meta(), sets[0].Meta())
	kinds, yes, no := map[string]int{}, 0, 0
	category, _ := from.Column("category")
	for i := range sets[0].Len() {
		for _, c := range sets[0].Captions(i) {
			kinds[c.Kind]++
			switch {
			case c.Kind == "category":
				require.Equal(t, category(i), map[string]string{"animals nature": "animals-nature", "food drink": "food-drink", "people body": "people-body",
					"smileys emotion": "smileys-emotion", "travel places": "travel-places"}[c.Answer]+map[string]string{"activities": c.Answer, "objects": c.Answer, "symbols": c.Answer}[c.Answer])
			case c.Answer == "yes":
				yes++
			case c.Answer == "no":
				no++
			}
		}
	}
	require.Equal(t, 300, kinds["category"])
	require.Equal(t, 300, kinds["subcategory"])
	require.Equal(t, 300, kinds[KindColour])
	require.Equal(t, 600, kinds[KindYesNo])
	require.Equal(t, 600, yes+no)
	require.InDelta(t, 0.6, float64(yes)/600, 0.08)
	require.NotContains(t, kinds, "concept")
}
