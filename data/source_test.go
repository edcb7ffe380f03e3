package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// fakeRows are pictures in memory; a nil one is broken.
type fakeRows [][]byte

func (f fakeRows) Image(_ context.Context, row int) ([]byte, error) {
	if row >= len(f) {
		return nil, errors.New("no such row")
	}
	return f[row], nil
}

const side = 8

// fakeSet makes rows of one colour each, three to a group, the broken ones of no format at all.
func fakeSet(t *testing.T, n int, broken ...int) (fakeRows, []Sample) {
	rows := make(fakeRows, n)
	var samples []Sample
	for i := range rows {
		im := image.NewRGBA(image.Rect(0, 0, side, side))
		for p := range side * side {
			im.Set(p%side, p/side, color.RGBA{R: uint8(i), G: uint8(p), A: 255})
		}
		var b bytes.Buffer
		require.NoError(t, png.Encode(&b, im))
		rows[i] = b.Bytes()
		samples = append(samples, Sample{Row: i, Group: fmt.Sprint(i / 3), Captions: []string{fmt.Sprintf("row %d", i), "another"}})
	}
	for _, i := range broken {
		rows[i] = []byte("not a picture")
	}
	return rows, samples
}

func newSource(t *testing.T, rows Rows, samples []Sample, batch int, limit float64) *Source {
	pipe, err := transform.New([]transform.Spec{{"op": "resize", "mode": "squash"}, {"op": "flip", "prob": 0.5}}, side, side)
	require.NoError(t, err)
	tok, err := tokenizer.New(tokenizer.Config{Kind: "bpe", File: "demo", ContextLength: 16})
	require.NoError(t, err)
	s, err := NewSource(rows, samples, Options{Seed: 5, Batch: batch, Pipeline: pipe, Tokenizer: tok, BrokenLimit: limit, CacheBytes: 20 * side * side * 3})
	require.NoError(t, err)
	return s
}

func TestOrder(t *testing.T) {
	groups := make([][]int32, 11)
	next := int32(0)
	for g := range groups {
		for range 1 + g%4 {
			groups[g] = append(groups[g], next)
			next++
		}
	}
	o, err := NewOrder(3, 5, groups)
	require.NoError(t, err)
	require.Equal(t, 2, o.updatesPerEpoch())
	seen := make([]int, next)
	for u := range 2 * 4 * 50 { // 200 epochs
		held := map[int]bool{}
		for i := range 5 {
			g, row := o.At(u, i)
			require.False(t, held[g], "group %d twice in update %d", g, u)
			held[g] = true
			require.Contains(t, groups[g], int32(row))
			seen[row]++
		}
	}
	for row, n := range seen {
		require.NotZero(t, n, "row %d never comes", row)
	}
	_, err = NewOrder(3, 12, groups)
	require.ErrorContains(t, err, "a batch of 12 pairs needs as many groups, the split has 11")
}

// Every row of a group comes once in as many epochs as the group has rows.
func TestOrderDealsRowsEvenly(t *testing.T) {
	groups := [][]int32{{0, 1, 2}, {3}, {4, 5, 6, 7}}
	o, err := NewOrder(1, 3, groups)
	require.NoError(t, err)
	seen := make([]int, 8)
	for u := range 12 { // an epoch each
		for i := range 3 {
			_, row := o.At(u, i)
			seen[row]++
		}
	}
	require.Equal(t, []int{4, 4, 4, 12, 3, 3, 3, 3}, seen)
}

// A substitute is what no other slot of its batch can hold.
func TestSubstituteKeepsGroupsApart(t *testing.T) {
	groups := make([][]int32, 20)
	for g := range groups {
		groups[g] = []int32{int32(g)}
	}
	o, err := NewOrder(9, 6, groups)
	require.NoError(t, err)
	for u := range 30 {
		held := map[int]int{}
		for i := range 6 {
			for k := range o.updatesPerEpoch() {
				g, _ := o.substitute(u, i, k)
				if other, ok := held[g]; ok {
					require.Equal(t, other, i, "group %d could stand in two slots of update %d", g, u)
				}
				held[g] = i
			}
		}
	}
}

func clone(b *batch.Batch) batch.Batch {
	c := batch.Batch{Step: b.Step, Broken: append([]batch.Broken(nil), b.Broken...), Pixels: bytes.Clone(b.Pixels)}
	for _, p := range b.Pairs {
		p.Pixels, p.Tokens = bytes.Clone(p.Pixels), append([]int32(nil), p.Tokens...)
		c.Pairs = append(c.Pairs, p)
	}
	return c
}

// The loader gives what At gives, whatever the number of its workers, from any update on.
func TestLoaderEqualsAt(t *testing.T) {
	rows, samples := fakeSet(t, 60, 7, 31)
	var want []batch.Batch
	s := newSource(t, rows, samples, 4, 0.5)
	for u := range 25 {
		var b batch.Batch
		require.NoError(t, s.At(t.Context(), u, &b))
		want = append(want, clone(&b))
	}
	broken := 0
	for _, b := range want {
		broken += len(b.Broken)
		for _, p := range b.Pairs {
			require.NotContains(t, []int{7, 31}, p.Row)
			require.Equal(t, uint8(p.Row), p.Pixels[0], "the pixels are the row's")
		}
	}
	require.NotZero(t, broken)
	for _, workers := range []int{1, 3} {
		for _, from := range []int{0, 11} {
			l := NewLoader(t.Context(), newSource(t, rows, samples, 4, 0.5), from, 25, workers, 3)
			for u := from; u < 25; u++ {
				b, err := l.Next(t.Context())
				require.NoError(t, err)
				require.Equal(t, want[u], clone(b))
				l.Release(b)
			}
			b, err := l.Next(t.Context())
			require.NoError(t, err)
			require.Nil(t, b)
			l.Close()
		}
	}
}

func TestTooManyBrokenPictures(t *testing.T) {
	rows, samples := fakeSet(t, 30, 1, 2, 3, 4, 5, 6, 7, 8)
	s := newSource(t, rows, samples, 4, 0.1)
	var err error
	for u := 0; u < 20 && err == nil; u++ {
		var b batch.Batch
		err = s.At(t.Context(), u, &b)
	}
	require.ErrorIs(t, err, transform.ErrBadPicture)
	require.ErrorContains(t, err, "4 pictures do not decode, data.brokenLimit allows 3 of 30: row ")
}

// An error of the store, other than a broken picture, stops the run and names update, slot and cause.
func TestLoaderReportsErrors(t *testing.T) {
	rows, samples := fakeSet(t, 30)
	l := NewLoader(t.Context(), newSource(t, rows[:5], samples, 4, 1), 0, 10, 2, 2)
	defer l.Close()
	var err error
	for range 10 {
		if _, err = l.Next(t.Context()); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "no such row")
	require.ErrorContains(t, err, "slot")
}

// Pictures keep their shapes where the model takes them so; batches are reused, and each is what At makes of its update.
func TestShapes(t *testing.T) {
	const n = 24
	rows, samples := fakeSet(t, n)
	for i := range rows {
		var buf bytes.Buffer
		im := image.NewGray(image.Rect(0, 0, 40+i, 64-i))
		im.Set(0, 0, color.Gray{uint8(i)})
		require.NoError(t, png.Encode(&buf, im))
		rows[i] = buf.Bytes()
	}
	s := newSource(t, rows, samples, 4, 0)
	var err error
	s.pipe, err = transform.NewPatches([]transform.Spec{{"op": "min_max_resize", "longest": 64}, {"op": "flip", "prob": 0.5}}, 32, 8)
	require.NoError(t, err)
	l := NewLoader(t.Context(), s, 0, 30, 2, 2)
	defer l.Close()
	shapes := map[[2]int]bool{}
	for u := range 30 {
		b, err := l.Next(t.Context())
		require.NoError(t, err)
		require.Nil(t, b.Pixels)
		var alone batch.Batch
		require.NoError(t, s.At(t.Context(), u, &alone))
		for i, p := range b.Pairs {
			require.Equal(t, alone.Pairs[i], p)
			require.Len(t, p.Pixels, 3*p.Height*p.Width)
			require.LessOrEqual(t, p.Height*p.Width, s.pipe.MaxPixels())
			w, h := 40+p.Row, 64-p.Row
			require.InDelta(t, float64(w)/float64(h), float64(p.Width)/float64(p.Height), 0.35, "the shape is the row's")
			shapes[[2]int{p.Height, p.Width}] = true
		}
		l.Release(b)
	}
	require.Greater(t, len(shapes), 2)
}

func TestLoaderStopsWhenCancelled(t *testing.T) {
	rows, samples := fakeSet(t, 30)
	ctx, cancel := context.WithCancel(t.Context())
	l := NewLoader(ctx, newSource(t, rows, samples, 4, 1), 0, 1000, 2, 2)
	_, err := l.Next(ctx)
	require.NoError(t, err)
	cancel()
	for err == nil {
		_, err = l.Next(ctx)
	}
	require.ErrorIs(t, err, context.Canceled)
	l.Close()
}
