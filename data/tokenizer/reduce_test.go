package tokenizer

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/demo/vocab"
)

// A reduced vocabulary cuts the texts that it was made of as the whole one does, and knows the letters of all others.
func TestReduce(t *testing.T) {
	whole := openBERT(t, 200)
	var texts []string
	for _, l := range bertLines(t) {
		texts = append(texts, l.Text)
	}
	part, err := whole.Reduce(slices.Values(texts))
	require.NoError(t, err)
	require.Less(t, part.VocabSize(), whole.VocabSize()/10)
	file := filepath.Join(t.TempDir(), "vocab.txt")
	require.NoError(t, part.WriteFile(file))
	again := open(t, Config{Kind: "wordpiece", File: file, ContextLength: 200})
	for _, text := range texts {
		want := whole.Tokens(whole.Encode(text, nil))
		require.Equal(t, want, part.Tokens(part.Encode(text, nil)), text)
		require.Equal(t, want, again.Tokens(again.Encode(text, nil)), text)
	}
	other := "sphinx of black quartz, judge my vow {42}"
	require.NotContains(t, part.Encode(other, nil), part.unk)
	require.GreaterOrEqual(t, part.Mask(), int32(0))
}

// The entries of the demo's pieces are BERT's, in BERT's order.
func TestDemoPieces(t *testing.T) {
	demo, whole := open(t, Config{Kind: "wordpiece", File: "demo"}).(*WordPiece), openBERT(t, 77)
	at := 0
	for _, name := range demo.names {
		i := slices.Index(whole.names[at:], name)
		require.GreaterOrEqual(t, i, 0, name)
		at += i + 1
	}
	require.NotEmpty(t, vocab.Pieces)
	_, err := New(Config{Kind: "wordpiece", File: "demo", Cased: true})
	require.ErrorContains(t, err, "demo has no words with capitals")
}

// What a vocab.txt cannot say is not dropped.
func TestReduceRefuses(t *testing.T) {
	tok := openBERT(t, 77)
	odd := *tok.pieces
	odd.wordRunes = 7
	_, err := (&WordPiece{pieces: &odd, cfg: tok.cfg}).Reduce(slices.Values([]string{"a"}))
	require.ErrorContains(t, err, "cannot be reduced")
}
