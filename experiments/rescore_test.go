package experiments

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/transform"
	"diptych/internal/runlog"
)

// A journal gives back what was written for the same model and work, up to an entry that is cut or damaged, and is gone when done.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j := &journal{dir: dir, model: 1}
	known, err := j.Begin("val", 5)
	require.NoError(t, err)
	require.Empty(t, known)
	require.NoError(t, j.Append(3, []float32{1, -2.5}))
	require.NoError(t, j.Append(0, nil))
	require.NoError(t, j.Append(7, []float32{0.25}))
	require.NoError(t, j.End(false))
	want := map[int][]float32{3: {1, -2.5}, 0: {}, 7: {0.25}}

	file := j.path("val")
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	begin := func(key uint64, content []byte) map[int][]float32 {
		require.NoError(t, os.WriteFile(file, content, 0o666))
		known, err := j.Begin("val", key)
		require.NoError(t, err)
		require.NoError(t, j.End(false))
		return known
	}
	require.Equal(t, want, begin(5, whole))
	require.Empty(t, begin(6, whole), "other work")
	for cut := range whole {
		got := begin(5, whole[:cut])
		for picture, scores := range got {
			require.Equal(t, want[picture], scores)
		}
		require.Less(t, len(got), 3)
	}
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		for picture, scores := range begin(5, damaged) {
			require.Equal(t, want[picture], scores)
		}
	}

	// After a cut the rest is written behind what is good.
	require.NoError(t, os.WriteFile(file, whole[:len(whole)-1], 0o666))
	_, err = j.Begin("val", 5)
	require.NoError(t, err)
	require.NoError(t, j.Append(7, []float32{0.25}))
	require.NoError(t, j.End(false))
	require.Equal(t, want, begin(5, whole))
	_, err = j.Begin("val", 5)
	require.NoError(t, err)
	require.NoError(t, j.End(true))
	require.NoFileExists(t, file)

	// Of two evaluations at a time the second is refused, and the first one's scores stay.
	_, err = j.Begin("val", 5)
	require.NoError(t, err)
	require.NoError(t, j.Append(7, []float32{0.25}))
	second := &journal{dir: dir, model: 1}
	_, err = second.Begin("val", 6)
	require.ErrorIs(t, err, runlog.ErrBusy)
	require.ErrorContains(t, err, file)
	require.NoError(t, second.End(false))
	_, err = second.Begin("test", 5)
	require.NoError(t, err, "another split")
	require.NoError(t, second.End(true))
	require.NoError(t, j.Append(3, []float32{1}))
	require.NoError(t, j.End(false))
	known, err = second.Begin("val", 5)
	require.NoError(t, err)
	require.Equal(t, map[int][]float32{7: {0.25}, 3: {1}}, known)
	require.NoError(t, second.End(true))

	_, err = (&journal{dir: "no/such/folder"}).Begin("val", 5)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The scores of a model are its own: those of its weights, its recipe and its tokenizer.
func TestJournalOfAnotherModel(t *testing.T) {
	keyOf := func(change func(o *opened)) uint64 {
		o := &opened{config: &Config{Name: "fusion"}, parts: &parts{vocabulary: []byte("cat dog")}, weights: []float32{1, 2}}
		change(o)
		return o.Journal("").(*journal).model
	}
	key := keyOf(func(*opened) {})
	require.Equal(t, key, keyOf(func(*opened) {}))
	for name, change := range map[string]func(o *opened){
		"weights":    func(o *opened) { o.weights[1] = 3 },
		"tokenizer":  func(o *opened) { o.config.Data.Tokenizer.Kind = "wordpiece" },
		"vocabulary": func(o *opened) { o.parts.vocabulary = []byte("dog cat") },
		"transforms": func(o *opened) { o.config.Data.EvalTransforms = []transform.Spec{{"op": "flip"}} },
	} {
		require.NotEqual(t, key, keyOf(change), name)
	}
}

// No file makes reading fail or take memory that it does not have.
func FuzzJournal(f *testing.F) {
	head := []byte(journalMagic + "12345678")
	f.Add(head)
	f.Add(append(bytes.Clone(head), 1, 0, 0, 0, 255, 255, 255, 15))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, good := readJournal(bytes.NewReader(b), head)
		require.LessOrEqual(t, good, int64(len(b)))
	})
}
