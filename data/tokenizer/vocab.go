package tokenizer

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// bertUncased names the vocabulary in the binary.
const bertUncased = "bert-base-uncased"

//go:embed bert/vocab.txt.gz
var bertFile []byte

// bertPieces reads BERT's uncased vocabulary from the binary.
var bertPieces = sync.OnceValues(func() (*pieces, error) { return readPieces(bertFile, bertUncased, false) })

// openWordPiece opens kind "wordpiece".
func openWordPiece(c Config) (Tokenizer, error) {
	b, err := c.readVerified()
	if err != nil {
		return nil, err
	}
	var p *pieces
	if c.File == bertUncased && c.Content == nil {
		p, err = bertPieces()
	} else {
		p, err = readPieces(b, c.File, c.Cased)
	}
	if err != nil {
		return nil, err
	}
	return &WordPiece{pieces: p, cfg: c}, nil
}

// readPieces reads a vocab.txt or a tokenizer.json, plain or gzip; name is for errors.
func readPieces(b []byte, name string, cased bool) (*pieces, error) {
	b, err := unpack(b)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", name, err)
	}
	var p *pieces
	if bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) {
		if cased {
			return nil, fmt.Errorf("tokenizer: %s: a tokenizer.json says itself whether its words are cased; leave cased out", name)
		}
		p, err = parseTokenizerJSON(b)
	} else {
		p, err = parseVocab(string(b), cased)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", name, err)
	}
	return p, nil
}

// parseVocab reads a vocab.txt: one entry per line, whose number counted from 0 is its id.
func parseVocab(text string, cased bool) (*pieces, error) {
	names := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, "\r")
	}
	p := &pieces{names: names, wordRunes: maxWordRunes, normalize: normalizer{Clean: true, Ideographs: true, Lowercase: !cased}}
	if err := p.index(); err != nil {
		return nil, err
	}
	for _, id := range []int32{p.pad, p.unk, p.cls, p.sep, p.mask} {
		if id >= 0 {
			p.add(names[id], id)
		}
	}
	return p, nil
}

// index fills the tables of p from its names.
func (p *pieces) index() error {
	p.begin, p.goOn = make(map[string]int32, len(p.names)), make(map[string]int32)
	for i, name := range p.names {
		key, table := name, p.begin
		if rest, ok := strings.CutPrefix(name, continues); ok && rest != "" {
			key, table = rest, p.goOn
		}
		if name == "" || !utf8.ValidString(name) {
			return fmt.Errorf("entry %d (of those counted from 0) is empty or not UTF-8", i)
		}
		if old, ok := table[key]; ok {
			return fmt.Errorf("entries %d and %d (of those counted from 0) are both %q", old, i, shorten(name))
		}
		table[key] = int32(i)
		p.longest = max(p.longest, len(key))
	}
	var missing []string
	find := func(name string, needed bool) int32 {
		id, ok := p.begin[name]
		if ok {
			return id
		}
		if needed {
			missing = append(missing, name)
		}
		return -1
	}
	p.unk, p.cls, p.sep = find("[UNK]", true), find("[CLS]", true), find("[SEP]", true)
	p.pad, p.mask = find("[PAD]", false), find("[MASK]", false)
	if missing != nil {
		return fmt.Errorf("the vocabulary of %d entries has no %s", len(p.names), strings.Join(missing, ", "))
	}
	return nil
}

// add makes an entry an added token.
func (p *pieces) add(name string, id int32) {
	p.added = append(p.added, addedToken{name, id})
	if first, _ := utf8.DecodeRuneInString(name); !strings.ContainsRune(p.addedStarts, first) {
		p.addedStarts += string(first)
	}
}

// tokenizerJSON is what is read of a Hugging Face tokenizer.json. Its truncation and padding are the recipe's business.
type tokenizerJSON struct {
	Added []struct {
		ID         int32  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
	} `json:"added_tokens"`
	Normalizer *struct {
		Type string `json:"type"`
		normalizer
	} `json:"normalizer"`
	PreTokenizer *struct {
		Type string `json:"type"`
	} `json:"pre_tokenizer"`
	Model struct {
		Type    string           `json:"type"`
		Unknown string           `json:"unk_token"`
		Prefix  string           `json:"continuing_subword_prefix"`
		Longest int              `json:"max_input_chars_per_word"`
		Vocab   map[string]int32 `json:"vocab"`
	} `json:"model"`
}

// parseTokenizerJSON reads a tokenizer.json of a BERT tokenizer. What would make other ids than Encode's is an error.
func parseTokenizerJSON(b []byte) (*pieces, error) {
	var f tokenizerJSON
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	var errs []error
	want := func(what, have, want string) {
		if have != want {
			errs = append(errs, fmt.Errorf("tokenizer.json: %s is %q, want %q", what, shorten(have), want))
		}
	}
	want("model.type", f.Model.Type, "WordPiece")
	want("model.unk_token", f.Model.Unknown, "[UNK]")
	want("model.continuing_subword_prefix", f.Model.Prefix, continues)
	if f.Normalizer == nil || f.PreTokenizer == nil {
		errs = append(errs, errors.New("tokenizer.json: normalizer or pre_tokenizer is missing"))
	} else {
		want("normalizer.type", f.Normalizer.Type, "BertNormalizer")
		want("pre_tokenizer.type", f.PreTokenizer.Type, "BertPreTokenizer")
	}
	if f.Model.Longest < 1 {
		errs = append(errs, fmt.Errorf("tokenizer.json: model.max_input_chars_per_word is %d", f.Model.Longest))
	}
	for _, a := range f.Added {
		if a.SingleWord || a.LStrip || a.RStrip || a.Normalized {
			errs = append(errs, fmt.Errorf("tokenizer.json: added token %q is single_word, lstrip, rstrip or normalized, which is not supported", shorten(a.Content)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	p := &pieces{names: names, wordRunes: f.Model.Longest, normalize: f.Normalizer.normalizer}
	if err := p.index(); err != nil {
		return nil, err
	}
	for _, a := range f.Added {
		p.add(a.Content, a.ID)
		if _, ok := f.Model.Vocab[a.Content]; ok {
			continue
		}
		if rest, ok := strings.CutPrefix(a.Content, continues); ok { // it is no piece of other words
			delete(p.goOn, rest)
		} else {
			delete(p.begin, a.Content)
		}
	}
	return p, nil
}

// names lists the entries of model and added tokens by id.
func (f *tokenizerJSON) names() ([]string, error) {
	n := len(f.Model.Vocab)
	for _, a := range f.Added {
		if _, ok := f.Model.Vocab[a.Content]; !ok {
			n++
		}
	}
	names := make([]string, min(n, math.MaxInt32))
	put := func(name string, id int32) error {
		switch {
		case id < 0 || int(id) >= len(names):
			return fmt.Errorf("tokenizer.json: %q has id %d among %d entries: there is a gap", shorten(name), id, len(names))
		case names[id] != "" && names[id] != name:
			return fmt.Errorf("tokenizer.json: %q and %q both have id %d", shorten(min(names[id], name)), shorten(max(names[id], name)), id)
		}
		names[id] = name
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(f.Model.Vocab)) {
		if err := put(name, f.Model.Vocab[name]); err != nil {
			return nil, err
		}
	}
	for _, a := range f.Added {
		if err := put(a.Content, a.ID); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// WriteFile writes the vocabulary as a vocab.txt, which New reads. The file appears whole or not at all.
func (t *WordPiece) WriteFile(path string) error {
	return writeFile(path, []byte(strings.Join(t.names, "\n")+"\n"))
}
