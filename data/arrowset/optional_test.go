package arrowset

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Answers and second pictures come back, of rows that have them and of those that have not, plain and packed;
// a set without the columns takes neither.
func TestOptionalColumns(t *testing.T) {
	for _, flat := range []bool{false, true} {
		want := rows(60, 9000, flat)
		for i := range want {
			for k := range want[i].Captions {
				want[i].Captions[k].Answer = []string{"", "yes\nno", fmt.Sprint(i)}[(i+k)%3]
			}
			if i%4 != 1 {
				want[i].Second = append([]byte{9}, bytes.Repeat([]byte{byte(i)}, 50*i)...)
			}
		}
		m := given
		m.Optional = []string{ColSecondImage, ColCaptionAnswer}
		dir := filepath.Join(t.TempDir(), "set")
		w, err := Create(dir, m)
		require.NoError(t, err)
		w.ShardBytes = 200 << 10
		for _, r := range want {
			require.NoError(t, w.Append(r))
		}
		require.NoError(t, w.Close())
		set, err := Open(dir)
		require.NoError(t, err)
		defer set.Close()
		require.Equal(t, m.Optional, set.Manifest().Optional)
		require.True(t, flat || len(set.Manifest().Shards) > 1, "several files, unless the pictures shrink")
		requireRows(t, want, set)
		for i, r := range want {
			require.Equal(t, len(r.Second) > 0, set.HasSecond(i))
			got, err := set.Second(ctx, i)
			if len(r.Second) == 0 {
				require.ErrorIs(t, err, ErrSchema)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, r.Second, got)
		}
		_, err = set.Second(ctx, len(want))
		require.ErrorIs(t, err, ErrSchema)
	}
	w, err := Create(filepath.Join(t.TempDir(), "plain"), given)
	require.NoError(t, err)
	defer w.Abort()
	r := rows(2, 10, false)[1]
	r.Second = []byte{1}
	require.ErrorContains(t, w.Append(r), "a second picture, which the set has not")
	r.Second, r.Captions[0].Answer = nil, "yes"
	require.ErrorContains(t, w.Append(r), "caption 0 has an answer, for which the set has no column")
	m := given
	m.Optional = []string{"image_2"}
	_, err = Create(filepath.Join(t.TempDir(), "other"), m)
	require.ErrorContains(t, err, `no optional column "image_2"`)
	require.Equal(t, []string{"a b", "c"}, SplitAnswers(JoinAnswers([]string{" a\nb", "", "c\t"})))
	require.Empty(t, SplitAnswers(""))
}
