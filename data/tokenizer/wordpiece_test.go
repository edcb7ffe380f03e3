package tokenizer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
)

// bertLine is a line of testdata/bert.jsonl, which transformers 5.23.0 made with tokenizers 0.23.3: ids are cut to 40, n the
// pieces before truncation, continued the positions whose piece begins with "##", groups the number of whole words.
type bertLine struct {
	Text      string
	IDs       []int32
	N         int
	Continued []int
	Groups    int
}

func bertLines(t testing.TB) []bertLine {
	t.Helper()
	f, err := os.Open("testdata/bert.jsonl")
	require.NoError(t, err)
	defer f.Close()
	var lines []bertLine
	for s := bufio.NewScanner(f); s.Scan(); {
		var l bertLine
		require.NoError(t, json.Unmarshal(s.Bytes(), &l))
		lines = append(lines, l)
	}
	require.Len(t, lines, 444)
	return lines
}

func openBERT(t testing.TB, contextLength int) *WordPiece {
	t.Helper()
	return open(t, Config{Kind: "wordpiece", File: "bert-base-uncased", ContextLength: contextLength}).(*WordPiece)
}

func TestGoldenBERT(t *testing.T) {
	tok, long := openBERT(t, 40), openBERT(t, 10_000)
	for i, l := range bertLines(t) {
		ids := tok.Encode(l.Text, nil)
		require.Equalf(t, l.IDs, ids, "line %d: %q", i+1, l.Text)
		require.Lenf(t, long.Encode(l.Text, nil), l.N+2, "line %d: %q", i+1, l.Text)

		var continued []int
		for j, name := range tok.Tokens(ids) {
			if strings.HasPrefix(name, "##") {
				continued = append(continued, j)
			}
		}
		require.Equalf(t, l.Continued, continued, "line %d: %q", i+1, l.Text)
		groups := int(slices.Max(tok.Words(ids, nil))) + 1
		// The reference counts a [PAD] that the text spells.
		require.Equalf(t, l.Groups, groups+strings.Count(l.Text, "[PAD]"), "line %d: %q", i+1, l.Text)
	}
}

func TestBERTIDs(t *testing.T) {
	tok := openBERT(t, 0)
	require.Equal(t, 30522, tok.VocabSize())
	require.Equal(t, []int32{101, 102, 103, 0, 100}, []int32{tok.BOS(), tok.EOS(), tok.Mask(), tok.Pad(), tok.unk})
	require.Equal(t, 77, tok.ContextLength())
	for _, c := range []struct {
		text string
		ids  []int32
	}{
		{"How many cats are there?", []int32{2129, 2116, 8870, 2024, 2045, 1029}},
		{"a bunch of [MASK] laying on a [MASK].", []int32{1037, 9129, 1997, 103, 10201, 2006, 1037, 103, 1012}},
		{"Two giraffes standing.", []int32{2048, 21025, 27528, 7959, 2015, 3061, 1012}},
		{"It's a  café—naïve\tresumé!", []int32{2009, 1005, 1055, 1037, 7668, 1517, 15743, 13746, 999}},
		{"A man's t-shirt, $3.50 (new)", []int32{1037, 2158, 1005, 1055, 1056, 1011, 3797, 1010, 1002, 1017, 1012, 2753, 1006, 2047, 1007}},
		{"东京 tower", []int32{100, 1755, 3578}},
		{"☃ snowman", []int32{100, 4586, 2386}},
		{"unaffable", []int32{14477, 20961, 3468}},
		{"hello\u200Bworld", []int32{7592, 11108}},
		{strings.Repeat("x", 101), []int32{100}},
		{"skateboarder doing kickflip", []int32{17260, 6277, 2121, 2725, 5926, 10258, 11514}},
		{"[mask] [CLS][", []int32{1031, 7308, 1033, 101, 1031}},
	} {
		t.Run(c.text, func(t *testing.T) {
			ids := tok.Encode(c.text, nil)
			require.Equal(t, c.ids, ids[1:len(ids)-1])
		})
	}
	require.Equal(t, "##～", tok.Tokens([]int32{30521})[0])
	licence, err := os.ReadFile("bert/LICENSE")
	require.NoError(t, err)
	require.Contains(t, string(licence), "Apache License")
	text, err := unpack(bertFile)
	require.NoError(t, err)
	sum := sha256.Sum256(text)
	require.Equal(t, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", hex.EncodeToString(sum[:]))
}

func TestWordPieceTruncates(t *testing.T) {
	tok := openBERT(t, 5)
	for text, want := range map[string][]int32{
		"":                      {101, 102},
		"a cat sat":             {101, 1037, 4937, 2938, 102},
		"a cat sat down":        {101, 1037, 4937, 2938, 102},
		"two giraffes standing": {101, 2048, 21025, 27528, 102}, // within a word
		"a cat [MASK][MASK]":    {101, 1037, 4937, 103, 102},
		"a [MASK] cat sat [SEP": {101, 1037, 103, 4937, 102},
	} {
		require.Equal(t, want, tok.Encode(text, nil), text)
		require.Equal(t, append([]int32{7}, want...), tok.Encode(text, []int32{7}), text)
	}
}

func TestWordPieceWords(t *testing.T) {
	tok := openBERT(t, 0)
	ids := append(tok.Encode("two giraffes [MASK] standing", nil), 0, 0, -1, 1<<30)
	require.Equal(t, []int32{-1, 0, 1, 1, 1, 1, 2, 3, -1, -1, -1, -1, -1}, tok.Words(ids, nil))
	// A piece at the start is a word of its own, and one behind a [SEP] belongs to the word before that.
	require.Equal(t, []int32{9, -1, 0, 0, -1, 0}, tok.Words([]int32{101, 27528, 7959, 102, 2015}, []int32{9}))
	require.Equal(t, "two giraffes [MASK] standing \uFFFD \uFFFD", tok.Decode(ids))
	require.Equal(t, "café", open(t, Config{Kind: "wordpiece", File: "v", Content: []byte("[UNK]\n[CLS]\n[SEP]\nca\n##fé\n"), Cased: true}).Decode([]int32{3, 4}))
}

func TestBPEWords(t *testing.T) {
	tok := open(t, Config{Kind: "bpe", File: "demo"})
	ids := tok.Encode("a zebra's zig-zag", nil)
	names, words := tok.Tokens(ids), tok.Words(ids, nil)
	var joined []string
	for i, w := range words {
		switch {
		case w < 0:
			continue
		case int(w) == len(joined):
			joined = append(joined, "")
		}
		joined[w] += strings.TrimSuffix(names[i], "</w>")
	}
	require.Equal(t, []string{"a", "zebra", "'s", "zig", "-", "zag"}, joined)
	require.Equal(t, []int32{-1, -1}, []int32{words[0], words[len(words)-1]})
	require.Equal(t, int32(-1), tok.Mask())
}

const smallVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nCafé\ncafe\n##s\n#\n日\nA\na\n"

func TestVocabFile(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte(smallVocab))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	for name, c := range map[string]struct {
		file  []byte
		cased bool
		want  []int32
	}{
		"uncased": {[]byte(smallVocab), false, []int32{2, 6, 7, 9, 9, 11, 4, 3}},
		"cased":   {[]byte(smallVocab), true, []int32{2, 5, 7, 9, 9, 10, 4, 3}},
		"gzip":    {packed.Bytes(), false, []int32{2, 6, 7, 9, 9, 11, 4, 3}},
		"CRLF":    {[]byte(strings.ReplaceAll(smallVocab, "\n", "\r\n")), true, []int32{2, 5, 7, 9, 9, 10, 4, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vocab.txt")
			require.NoError(t, os.WriteFile(path, c.file, 0o600))
			tok := open(t, Config{Kind: "wordpiece", File: path, Cased: c.cased}).(*WordPiece)
			require.Equal(t, c.want, tok.Encode("Cafés 日日 A[MASK]", nil))
			again := filepath.Join(t.TempDir(), "vocab.txt")
			require.NoError(t, tok.WriteFile(again))
			require.Equal(t, tok.names, open(t, Config{Kind: "wordpiece", File: again}).(*WordPiece).names)

			b, err := tok.Config().ReadFile()
			require.NoError(t, err)
			cfg := tok.Config()
			cfg.SHA256 = Checksum(b)
			open(t, cfg)
			require.NoError(t, os.WriteFile(path, []byte(smallVocab+"x\n"), 0o600))
			_, err = New(cfg)
			require.ErrorContains(t, err, "not the one that the run began with")
			cfg.Content = b
			require.Equal(t, c.want, open(t, cfg).Encode("Cafés 日日 A[MASK]", nil))
		})
	}
}

func smallJSON(edit ...string) string {
	return strings.NewReplacer(edit...).Replace(`{
		"added_tokens": [{"id": 4, "content": "[MASK]", "special": true}, {"id": 7, "content": "<x>"}],
		"truncation": {"max_length": 3},
		"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": false, "strip_accents": false, "lowercase": true},
		"pre_tokenizer": {"type": "BertPreTokenizer"},
		"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 6,
			"vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "café": 5, "##日": 6, "i\u0307": 8}}}`)
}

func TestTokenizerJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	require.NoError(t, os.WriteFile(path, []byte(smallJSON()), 0o600))
	tok := open(t, Config{Kind: "wordpiece", File: path})
	require.Equal(t, 9, tok.VocabSize())
	require.Equal(t, []int32{2, 5, 6, 4, 7, 1, 1, 1, 1, 8, 3}, tok.Encode("CAFÉ日[MASK]<x> <X> cafécafé İ", nil))
	for name, c := range map[string]struct{ old, new, want string }{
		"not JSON":   {`"truncation"`, `truncation`, "tokenizer.json: invalid"},
		"model":      {`"WordPiece"`, `"BPE"`, `model.type is "BPE"`},
		"prefix":     {`"##",`, `"@@",`, `"@@", want "##"`},
		"normalizer": {`"BertNormalizer"`, `"NFC"`, `normalizer.type is "NFC"`},
		"none":       {`"pre_tokenizer"`, `"other"`, "is missing"},
		"longest":    {`"max_input_chars_per_word": 6`, `"max_input_chars_per_word": 0`, "max_input_chars_per_word is 0"},
		"added":      {`"content": "<x>"`, `"content": "<x>", "normalized": true`, `"<x>" is single_word`},
		"gap":        {`"i\u0307": 8`, `"i\u0307": 9`, "id 9 among 9 entries"},
		"two":        {`"i\u0307": 8`, `"i\u0307": 6`, `"##日" and "i̇" both have id 6`},
		"special":    {`"[CLS]": 2`, `"[cls]": 2`, "no [CLS]"},
		"empty":      {`"<x>"`, `""`, "entry 7 (of those counted from 0) is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{Kind: "wordpiece", File: "tokenizer.json", Content: []byte(smallJSON(c.old, c.new))})
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestWordPieceErrors(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no file":        {Config{Kind: "wordpiece"}, "wants a vocab.txt"},
		"cased uncased":  {Config{Kind: "wordpiece", File: "bert-base-uncased", Cased: true}, "no words with capitals"},
		"cased clip":     {Config{Kind: "clip", Cased: true}, "always lower-case"},
		"cased json":     {Config{Kind: "wordpiece", File: "t.json", Cased: true, Content: []byte(smallJSON())}, "leave cased out"},
		"twice":          {Config{Kind: "wordpiece", File: "v", Content: []byte(smallVocab + "cafe\n")}, `entries 6 and 12 (of those counted from 0) are both "cafe"`},
		"empty":          {Config{Kind: "wordpiece", File: "v", Content: []byte("[UNK]\n\n[CLS]\n")}, "entry 1"},
		"no specials":    {Config{Kind: "wordpiece", File: "v", Content: []byte("[UNK]\nx\n")}, "the vocabulary of 2 entries has no [CLS], [SEP]"},
		"another format": {Config{Kind: "wordpiece", File: "demo.gz", Content: []byte("\x1f\x8b")}, "demo.gz: gzip"},
		"none such":      {Config{Kind: "wordpiece", File: "testdata/none.txt"}, "testdata/none.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c.cfg)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Many special tokens in a long text take no quadratic time.
func TestWordPieceVeryLong(t *testing.T) {
	tok := openBERT(t, 1<<22)
	require.Len(t, tok.Encode(strings.Repeat("[MASK]", 200_000), nil), 200_002)
	require.Len(t, tok.Encode(strings.Repeat("x", 1<<20)+" a", nil), 4)
	require.Len(t, tok.Encode(strings.Repeat("[", 200_000), nil), 200_002)
}

func FuzzWordPiece(f *testing.F) {
	for _, l := range bertLines(f)[:60] {
		f.Add(l.Text)
	}
	f.Add("[MASK][mask]\xff日\u0301[CLS")
	tok, short := openBERT(f, 100_000), openBERT(f, 9)
	f.Fuzz(func(t *testing.T, text string) {
		ids := tok.Encode(text, nil)
		require.Equal(t, tok.BOS(), ids[0])
		require.Equal(t, tok.EOS(), ids[len(ids)-1])
		cut := short.Encode(text, nil)
		n := min(len(ids), 9)
		require.Equal(t, ids[:n-1], cut[:n-1])
		require.Len(t, cut, n)
		words := tok.Words(ids, nil)
		require.Len(t, words, len(ids))
		require.True(t, utf8.ValidString(tok.Decode(ids)))
		// What a text reads is encoded to the same ids, but for characters that no entry has, which BERT takes out of a word.
		if !slices.Contains(ids, tok.unk) && !slices.Contains(ids[1:], tok.cls) && !slices.Contains(ids[:len(ids)-1], tok.sep) && !slices.Contains(ids, 0) {
			require.Equal(t, ids, tok.Encode(tok.Decode(ids), nil))
		}
	})
}

func FuzzReadPieces(f *testing.F) {
	f.Add([]byte(smallVocab), false)
	f.Add([]byte(smallJSON()), false)
	f.Add([]byte(smallJSON("\"<x>\"", "\"\"")), false)
	f.Add([]byte("\x1f\x8b"), true)
	f.Fuzz(func(t *testing.T, file []byte, cased bool) {
		p, err := readPieces(file, "fuzz", cased)
		if err != nil {
			return
		}
		tok := &WordPiece{pieces: p, cfg: Config{ContextLength: 50}}
		for _, id := range tok.Encode("Cafés [MASK] 日 <x> "+string(file), nil) {
			require.Less(t, int(id), tok.VocabSize())
			require.GreaterOrEqual(t, id, int32(0))
		}
	})
}

func BenchmarkWordPiece(b *testing.B) {
	tok := openBERT(b, 0)
	var dst []int32
	for b.Loop() {
		dst = tok.Encode("A black dog and a spotted dog are fighting over a stick near the water.", dst[:0])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "texts/s")
}
