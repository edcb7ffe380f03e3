package data

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/data/transform"
)

// stopsAt runs a loader from an update on and returns the update that too many broken pictures refuse.
func stopsAt(t *testing.T, s *Source, from, to, workers, ahead int) (u int, err error) {
	l := NewLoader(t.Context(), s, from, to, workers, ahead)
	defer l.Close()
	for u = from; u < to; u++ {
		b, err := l.Next(t.Context())
		if err != nil {
			return u, err
		}
		l.Release(b)
	}
	return u, nil
}

// Too many broken pictures stop a run at the same update, however far ahead batches are prepared, and also when it was
// interrupted before.
func TestBrokenLimitStopsAtTheSameUpdate(t *testing.T) {
	rows, samples := fakeSet(t, 60, 7, 20, 31, 44, 58)
	const limit, to = 4.0 / 60, 40
	fresh := func() *Source { return newSource(t, rows, samples, 2, limit) }
	want, s := 0, fresh()
	for ; want < to; want++ {
		if err := s.At(t.Context(), want, new(batch.Batch)); err != nil {
			require.ErrorIs(t, err, transform.ErrBadPicture)
			require.ErrorContains(t, err, "5 pictures do not decode, data.brokenLimit allows 4 of 60: row 7: ")
			break
		}
	}
	require.Greater(t, want, 10)
	require.Less(t, want, to)

	for _, workers := range []int{1, 4} {
		u, err := stopsAt(t, fresh(), 0, to, workers, 8)
		require.ErrorIs(t, err, transform.ErrBadPicture)
		require.Equal(t, want, u)
	}

	for _, half := range []int{want - 1, want} {
		first := fresh()
		_, err := stopsAt(t, first, 0, half, 2, 8)
		require.NoError(t, err)
		require.Len(t, first.Broken(), 4)
		again := fresh()
		again.Resume(first.Broken())
		u, err := stopsAt(t, again, half, to, 2, 8)
		require.ErrorIs(t, err, transform.ErrBadPicture, "the count goes on after update %d", half)
		require.Equal(t, want, u)
	}
}
