package eval

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/transform"
	"diptych/internal/kernel"
)

// pairsSet is a set of n pictures, each a byte, of two captions and a group of its own.
type pairsSet struct{ n int }

func (s pairsSet) Manifest() *arrowset.Manifest           { return &arrowset.Manifest{Name: "numbers"} }
func (s pairsSet) Column(string) (func(int) string, bool) { return nil, false }
func (s pairsSet) Captions(row int) (out []arrowset.Caption) {
	return []arrowset.Caption{{Text: fmt.Sprint(row), Kind: "label"}, {Text: "no number", Kind: "other"}}
}

func (s pairsSet) Meta() (out []arrowset.RowMeta) {
	for i := range s.n {
		out = append(out, arrowset.RowMeta{Split: "val", Group: fmt.Sprint("g", i), ImageID: fmt.Sprint("id", i)})
	}
	return out
}

func (s pairsSet) Image(_ context.Context, row int) ([]byte, error) { return []byte{byte(row)}, nil }

// reader knows picture i by its only level and matches it with the caption "i"; picture 7 does not decode.
type reader struct{ blind bool }

func (reader) Tasks() []Task { return []Task{TaskMatch, TaskFill} }

func (reader) Picture(b []byte) (*transform.Image, error) {
	if b[0] == 7 {
		return nil, fmt.Errorf("seven: %w", transform.ErrBadPicture)
	}
	return &transform.Image{W: 1, H: 1, Pix: bytes.Repeat(b, 3)}, nil
}

func (r reader) Match(_ context.Context, pics []*transform.Image, texts []string, pairs [][2]int) (out []float32, _ error) {
	for _, p := range pairs {
		odds := float32(-1)
		if !r.blind && fmt.Sprint(pics[p[0]].Pix[0]) == texts[p[1]] {
			odds = 1
		}
		out = append(out, odds)
	}
	return out, nil
}

func (r reader) Fill(ctx context.Context, pics []*transform.Image, texts []string, pairs [][2]int, _ uint64) (g Guesses, _ error) {
	odds, _ := r.Match(ctx, pics, texts, pairs)
	for _, o := range odds {
		g.Words++
		if o > 0 {
			g.Right++
		}
	}
	return g, nil
}

// A model that knows every picture is right everywhere but beside false and blank pictures; one that sees nothing is at chance.
func TestPairs(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	opt := Options{Splits: []string{"val"}, Kinds: []string{"label"}, Pool: pool}
	res, err := Pairs(t.Context(), reader{}, pairsSet{120}, opt)
	require.NoError(t, err)
	s := res.Splits[0]
	require.Equal(t, 119, s.Images)
	require.Equal(t, 7, s.Broken[0].Row)
	require.InDelta(t, 1, s.Match.Accuracy, 1e-9)
	require.InDelta(t, 1, s.Match.Choice, 1e-9)
	require.Equal(t, 100, s.Match.Candidates)
	require.Equal(t, 238, s.Match.Pairs)
	require.Equal(t, 1.0, s.Fill.Picture.Top1())
	require.Zero(t, s.Fill.Shuffled.Top1())
	require.Equal(t, 4*119, s.Fill.Blank.Words)

	opt.MatchPictures = 10
	res, err = Pairs(t.Context(), reader{blind: true}, pairsSet{120}, opt)
	require.NoError(t, err)
	m := res.Splits[0].Match
	require.InDelta(t, 0.5, m.Accuracy, 1e-9)
	require.Zero(t, m.Choice, "a tie is not a choice")
	require.Equal(t, 10, m.Pictures)

	opt.Splits = []string{"test"}
	_, err = Pairs(t.Context(), reader{}, pairsSet{5}, opt)
	require.ErrorIs(t, err, ErrRequest)
	opt.Tasks = []Task{TaskRetrieval}
	_, err = Pairs(t.Context(), reader{}, pairsSet{5}, opt)
	require.ErrorIs(t, err, ErrRequest)
}
