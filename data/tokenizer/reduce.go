package tokenizer

import (
	"errors"
	"iter"
	"math"
	"strings"
)

// Reduce returns the vocabulary of those entries of t that texts take, in t's order: a table of words for a small model of one
// data set. It cuts every word of texts as t does, since of the entries that fit somewhere in it the longest stays. Other words
// are cut into smaller parts; all printable ASCII characters of t stay too, so that a word made of them is never [UNK].
func (t *WordPiece) Reduce(texts iter.Seq[string]) (*WordPiece, error) {
	whole := &WordPiece{pieces: t.pieces, cfg: Config{ContextLength: math.MaxInt}}
	used := make([]bool, len(t.names))
	for _, id := range []int32{t.pad, t.unk, t.cls, t.sep, t.mask} {
		if id >= 0 {
			used[id] = true
		}
	}
	for i, name := range t.names {
		part := name
		if rest, ok := strings.CutPrefix(name, continues); ok && rest != "" {
			part = rest
		}
		if len(part) == 1 && ' ' < part[0] && part[0] <= '~' {
			used[i] = true
		}
	}
	var ids []int32
	for text := range texts {
		ids = whole.Encode(text, ids[:0])
		for _, id := range ids {
			used[id] = true
		}
	}
	var names []string
	for i, name := range t.names {
		if used[i] {
			names = append(names, name)
		}
	}
	p, err := parseVocab(strings.Join(names, "\n"), t.cfg.Cased)
	if err != nil {
		return nil, err
	}
	if !p.normalize.equal(t.normalize) || p.wordRunes != t.wordRunes || len(p.added) != len(t.added) {
		return nil, errors.New("tokenizer: a vocab.txt cannot say what this tokenizer.json does beside its words, so it cannot be reduced to one")
	}
	return &WordPiece{pieces: p, cfg: Config{Kind: "wordpiece", Cased: t.cfg.Cased, ContextLength: t.cfg.ContextLength}}, nil
}

// equal tells whether two normalizers do the same.
func (n normalizer) equal(m normalizer) bool {
	return n.Clean == m.Clean && n.Ideographs == m.Ideographs && n.Lowercase == m.Lowercase && n.strips() == m.strips()
}
