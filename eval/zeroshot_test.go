package eval

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestZeroShot(t *testing.T) {
	names := []string{"cat", "dog", "car", "bus", "cup", "hat", "cat"}
	e := func(c int) []float32 { x := make([]float32, 8); x[c] = 1; return x }
	var classes []float32
	for c := range 6 {
		classes = append(classes, e(c)...)
	}
	classes = append(classes, e(0)...) // a name that occurs twice: ties go to the first
	pictures := []struct {
		label int
		x     []float32
	}{
		{0, e(0)},                             // right
		{6, e(0)},                             // its twin wins: rank 2
		{1, []float32{.5, .9}},                // right
		{1, []float32{.9, .5}},                // rank 3, after both cats
		{1, []float32{.9, .5}},                // again
		{1, []float32{0, .1, .9}},             // rank 2, after car
		{5, []float32{.9, .8, .7, .6, .5, 0}}, // rank 7
	}
	in := ZeroShotInput{Classes: classes, Dim: 8}
	for _, p := range pictures {
		in.Images = append(in.Images, append(p.x, make([]float32, 8-len(p.x))...)...)
		in.Labels = append(in.Labels, p.label)
	}
	acc, per, err := ZeroShot(nil, in, names)
	require.NoError(t, err)
	require.InDelta(t, 2.0/7, acc.Top1, 1e-12)
	require.InDelta(t, 6.0/7, acc.Top5, 1e-12)
	require.InDelta(t, (1+.25+0+0)/4, acc.MeanPerClass, 1e-12)
	require.Equal(t, ClassAccuracy{Class: "dog", Images: 4, Top1: .25, Top5: 1, Mistaken: "cat", MistakenFor: .5}, per[1])
	require.Equal(t, ClassAccuracy{Class: "cat", Images: 1, Top5: 1, Mistaken: "cat", MistakenFor: 1}, per[6])
	require.Equal(t, ClassAccuracy{Class: "bus"}, per[3])
	require.Equal(t, ClassAccuracy{Class: "hat", Images: 1, Mistaken: "cat", MistakenFor: 1}, per[5])

	in.Labels[2] = 7
	_, _, err = ZeroShot(nil, in, names)
	require.ErrorIs(t, err, ErrShape)
	require.ErrorContains(t, err, "picture 2 has class 7 of 7")
	_, _, err = ZeroShot(nil, in, names[1:])
	require.ErrorIs(t, err, ErrShape)
}

// wordEncoder embeds texts from a table and pictures from their first pixel.
type wordEncoder struct {
	dim  int
	text map[string][]float32
	err  error
}

func (e *wordEncoder) EmbedDim() int                   { return e.dim }
func (e *wordEncoder) ImageSides() (height, width int) { return 1, 1 }

func (e *wordEncoder) Texts(_ context.Context, texts []string) ([]float32, error) {
	var x []float32
	for _, t := range texts {
		row, ok := e.text[t]
		if !ok {
			return nil, errors.New("unexpected text: " + t)
		}
		x = append(x, row...)
	}
	return x, e.err
}

func (e *wordEncoder) Images(_ context.Context, n int, at func(int, []uint8) error) ([]float32, error) {
	x := make([]float32, n*e.dim)
	var dst [3]uint8
	for i := range n {
		if err := at(i, dst[:]); err != nil {
			return nil, err
		}
		x[i*e.dim+int(dst[0])] = 1
	}
	return x, e.err
}

func TestPromptEmbeds(t *testing.T) {
	enc := &wordEncoder{dim: 2, text: map[string][]float32{"cat": {3, 0}, "dog": {0, -2}}}
	bare, err := promptEmbeds(t.Context(), enc, []string{"cat", "dog"}, BareTemplate)
	require.NoError(t, err)
	require.Equal(t, []float32{1, 0, 0, -1}, bare, "normalised")
	_, err = promptEmbeds(t.Context(), enc, []string{"cat"}, "a photo")
	require.ErrorContains(t, err, `template "a photo" has no {}`)
	_, err = promptEmbeds(t.Context(), enc, []string{"fox"}, "{}")
	require.ErrorContains(t, err, "unexpected text: fox")
	enc.text["cat"] = []float32{1}
	_, err = promptEmbeds(t.Context(), enc, []string{"cat"}, "{}")
	require.ErrorIs(t, err, ErrShape)
}
