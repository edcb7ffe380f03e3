package arrowset

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The index that Writer leaves is that of the rows, and its bytes decode to it.
func TestIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	want := rows(40, 60<<10, false)
	write(t, dir, want, 1)
	set, err := Open(dir)
	require.NoError(t, err)
	defer set.Close()
	m := set.Manifest()
	require.Greater(t, len(m.Shards), 5)
	require.Equal(t, indexName, m.Index.File)
	file, err := os.ReadFile(filepath.Join(dir, indexName))
	require.NoError(t, err)
	require.Len(t, file, int(m.Index.Bytes))
	x, err := DecodeIndex(file, m)
	require.NoError(t, err)
	require.Equal(t, set.Index(), x)

	row, numbers := 0, map[string]uint32{"": 0}
	for i, s := range x.Shards {
		require.Equal(t, row, s.First)
		require.Equal(t, m.Shards[i].Rows, s.Rows)
		at := 0
		for _, run := range s.Runs {
			for range run.Rows {
				require.Equal(t, want[row].Split, x.Splits[run.Split])
				g, ok := numbers[want[row].Group]
				if !ok {
					g = uint32(len(numbers))
					numbers[want[row].Group] = g
				}
				require.Equal(t, g, s.Groups[at])
				row, at = row+1, at+1
			}
		}
	}
	require.Equal(t, len(want), row)
}

// A set without groups costs a few bytes for each shard, and nothing for its rows.
func TestIndexIsCompact(t *testing.T) {
	m := &Manifest{Splits: map[string]int{}}
	x := &Index{Splits: []string{"train", "val"}}
	for i := range 10000 {
		s := ShardIndex{First: m.Rows, Rows: 10000, Runs: []Run{{i % 50 / 49, 10000}}}
		x.Shards = append(x.Shards, s)
		m.Shards = append(m.Shards, Shard{Rows: s.Rows})
		m.Splits[x.Splits[s.Runs[0].Split]] += s.Rows
		m.Rows += s.Rows
	}
	b, err := x.Encode()
	require.NoError(t, err)
	require.Less(t, len(b), 10000)
	again, err := DecodeIndex(b, m)
	require.NoError(t, err)
	require.Equal(t, x, again)
}

func TestIndexErrors(t *testing.T) {
	m := &Manifest{Rows: 3, Splits: map[string]int{"train": 3}, Shards: []Shard{{File: "a", Rows: 3}}}
	good := func() *Index {
		return &Index{Splits: []string{"train"}, Shards: []ShardIndex{{Rows: 3, Runs: []Run{{0, 3}}, Groups: []uint32{1, 0, 1}}}}
	}
	encode := func(x *Index) []byte {
		b, err := x.Encode()
		require.NoError(t, err)
		return b
	}
	change := func(f func(x *Index)) []byte {
		x := good()
		f(x)
		return encode(x)
	}
	whole := encode(good())
	x, err := DecodeIndex(whole, m)
	require.NoError(t, err)
	require.Equal(t, good(), x)
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "begin"},
		{"cut", whole[:len(whole)-5], "unpack"},
		{"no zstd", []byte("diptych rows 1\n"), "begin"},
		{"rows missing", change(func(x *Index) { x.Shards[0].Runs[0].Rows = 2; x.Shards[0].Groups = nil }), "shard a has 2 rows in it, the manifest says 3"},
		{"another split", change(func(x *Index) { x.Splits[0] = "val" }), `split "train" has 0 rows in it, the manifest says 3`},
		{"split that is not there", change(func(x *Index) { x.Shards[0].Runs[0].Split = 1 }), "a run of 3 rows of split 1"},
		{"shard too many", change(func(x *Index) { x.Shards = append(x.Shards, x.Shards[0]) }), "it is about 2 shards, the manifest has 1"},
		{"too many rows", change(func(x *Index) { x.Shards[0].Runs[0].Rows = 4 }), "number 4 where at most 3 is possible"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeIndex(c.file, m)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Some shards open as a set with their rows.
func TestOpenShards(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	want := rows(40, 60<<10, false)
	write(t, dir, want, 1)
	set, err := Open(dir)
	require.NoError(t, err)
	defer set.Close()
	m := set.Manifest()
	part, err := OpenShards("there", m, []int{1, 3}, func(i int) (fs.File, error) { return os.Open(filepath.Join(dir, m.Shards[i].File)) })
	require.NoError(t, err)
	defer part.Close()
	var chosen []Row
	x := set.Index()
	for _, i := range []int{1, 3} {
		chosen = append(chosen, want[x.Shards[i].First:x.Shards[i].First+x.Shards[i].Rows]...)
	}
	requireRows(t, chosen, part)
	require.Equal(t, len(chosen), part.Manifest().Rows)
	require.Equal(t, len(chosen), part.Manifest().Splits["train"]+part.Manifest().Splits["test"])
	require.Len(t, m.Splits, 2, "the whole set's manifest is as it was")
	require.Equal(t, []int{0, 1, 2}, x.SplitShards("train")[:3])
	require.Empty(t, x.SplitShards("exam"))
}

func FuzzIndex(f *testing.F) {
	m := &Manifest{Rows: 3, Splits: map[string]int{"train": 3}, Shards: []Shard{{File: "a", Rows: 3}}}
	x := &Index{Splits: []string{"train"}, Shards: []ShardIndex{{Rows: 3, Runs: []Run{{0, 3}}, Groups: []uint32{1, 0, 1}}}}
	b, err := x.Encode()
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeIndex(b, m)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		again, err := x.Encode()
		require.NoError(t, err)
		y, err := DecodeIndex(again, m)
		require.NoError(t, err)
		require.Equal(t, x, y)
	})
}
