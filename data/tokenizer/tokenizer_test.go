package tokenizer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"diptych/data/demo/vocab"
)

func open(t testing.TB, cfg Config) Tokenizer {
	t.Helper()
	tok, err := New(cfg)
	require.NoError(t, err)
	return tok
}

// goldenLine is a line of testdata/clip.jsonl, which open_clip 3.3.0 made: ids are a row of context 77 cut after its last
// eos, n the tokens before truncation, clean the text after cleaning if that changes it.
type goldenLine struct {
	Text  string
	IDs   []int32
	N     int
	Clean *string
}

func goldenLines(t testing.TB) []goldenLine {
	t.Helper()
	f, err := os.Open("testdata/clip.jsonl")
	require.NoError(t, err)
	defer f.Close()
	var lines []goldenLine
	for s := bufio.NewScanner(f); s.Scan(); {
		var l goldenLine
		require.NoError(t, json.Unmarshal(s.Bytes(), &l))
		lines = append(lines, l)
	}
	require.Len(t, lines, 444)
	return lines
}

func TestGoldenCLIP(t *testing.T) {
	tok := open(t, Default())
	long := open(t, Config{Kind: "clip", ContextLength: 10_000})
	for i, l := range goldenLines(t) {
		require.Equalf(t, l.IDs, tok.Encode(l.Text, nil), "line %d: %q", i+1, l.Text)
		require.Lenf(t, long.Encode(l.Text, nil), l.N+2, "line %d: %q", i+1, l.Text)
		if l.Clean == nil {
			l.Clean = &l.Text
		}
		require.Equalf(t, *l.Clean, clean(l.Text), "line %d", i+1)
	}
}

func TestCLIPIDs(t *testing.T) {
	tok := open(t, Default())
	require.Equal(t, 49408, tok.VocabSize())
	require.Equal(t, int32(49406), tok.BOS())
	require.Equal(t, int32(49407), tok.EOS())
	require.Equal(t, 77, tok.ContextLength())
	for _, c := range []struct {
		text string
		ids  []int32
	}{
		{"a diagram", []int32{320, 22697}},
		{"a photo of a cat", []int32{320, 1125, 539, 320, 2368}},
		{"a photo of a dog.", []int32{320, 1125, 539, 320, 1929, 269}},
		{"Hello, World! 123", []int32{3306, 267, 1002, 256, 272, 273, 274}},
		{"it's 2024's café", []int32{585, 568, 273, 271, 273, 275, 568, 15304}},
		{"I'll we've don't", []int32{328, 1342, 649, 1200, 847, 713}},
		{"X-ray: 3.14%", []int32{343, 268, 3077, 281, 274, 269, 272, 275, 260}},
		{"&amp;lt;b&amp;gt;", []int32{283, 321, 285}},
		{"日本語", []int32{39121, 44353, 34002, 508}},
		{"a 🐱 emoji", []int32{320, 22979, 16327}},
		{"supercalifragilisticexpialidocious", []int32{1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466}},
		{"", []int32{}},
		{"!", []int32{256}},
		// The special strings as open_clip spells them; those of OpenAI are plain text in it.
		{"<start_of_text>x<END_OF_TEXT>", []int32{49406, 343, 49407}},
	} {
		t.Run(c.text, func(t *testing.T) {
			ids := tok.Encode(c.text, nil)
			require.Equal(t, c.ids, ids[1:len(ids)-1])
		})
	}
	require.Equal(t, []string{"in", "th", "an", "re", "!", "!</w>", "a</w>"}, tok.Tokens([]int32{512, 513, 514, 515, 0, 256, 320}))
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"as it is", "a red fruit", "a red fruit"},
		{"white space", "\u2003 a\t\n b\u00A0\x1c c ", "a b c"},
		{"trailing", "a ", "a"},
		{"twice escaped", "Tom &amp;amp; Jerry", "tom & jerry"},
		{"thrice escaped", "&amp;amp;lt;", "<"},
		{"thrice escaped in HTML", "<b>&amp;amp;lt;", "<b>&lt;"},
		{"no semicolon", "&ltb &copy2 &notit;", "<b ©2 ¬it;"},
		{"two characters", "&nGt;&nLt;&NotEqualTilde;", "≫⃒≪⃒≂̸"},
		{"numeric", "&#65;&#x42;&#X43 &#9d", "abc d"},
		{"numeric, invalid", "a&#1;b&#xFDD0;c&#127;d&#x1FFFE;", "abcd"},
		{"numeric, replaced", "&#0;&#xD800;&#99999999999999999999;&#128;&#x99;&#159;", "\uFFFD\uFFFD\uFFFD€™ÿ"},
		{"numeric, none", "&# &#x; &#xg; &", "&# &#x; &#xg; &"},
		{"space from a reference", "a&nbsp;&#10;b", "a b"},
		{"sigma", "ΟΔΟΣ ΣΑΣ ΑΣ'Α ΑΣ. Σ ΑΣ", "οδος σας ασ'α ας. σ ας"},
		{"dotted I", "İI", "i\u0307i"},
		{"not UTF-8", "a\xffb\xc3", "a\uFFFDb\uFFFD"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, clean(c.in)) })
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"it's rock'n'roll", []string{"it", "'s", "rock", "'", "n", "'", "roll"}},
		{"don't they'll 'song'", []string{"don", "'t", "they", "'ll", "'s", "ong", "'"}},
		{"a'ſx", []string{"a", "'ſ", "x"}},
		{"..'s 12x²", []string{"..'", "s", "1", "2", "x", "²"}},
		{"é\u0301 a\u0345b", []string{"é", "\u0301", "a", "b"}},
		{"<start_of_tex <ſtart_of_text>", []string{"<", "start", "_", "of", "_", "tex", "<ſtart_of_text>"}},
	} {
		t.Run(c.text, func(t *testing.T) {
			var got []string
			for rest := c.text; rest != ""; {
				var w word
				if w, rest = nextWord(rest); w.text != "" {
					got = append(got, w.text)
				}
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestDemoVocabulary(t *testing.T) {
	tok := open(t, Config{Kind: "bpe", File: "demo"})
	require.Equal(t, 3072, tok.VocabSize())
	require.Equal(t, []string{startOfText, "crying</w>", "cat</w>", ":</w>", "animal</w>", ",</w>", "face</w>", endOfText}, tok.Tokens(tok.Encode("crying cat: animal, face", nil)))
	require.Equal(t, "a photo of a red 日", tok.Decode(tok.Encode("a photo of a red 日", nil)))
}

func TestEncodeTruncates(t *testing.T) {
	tok := open(t, Config{Kind: "clip", ContextLength: 5})
	full := []int32{49406, 320, 1125, 539, 49407}
	for name, c := range map[string]struct {
		text string
		want []int32
	}{
		"shorter":       {"a photo", []int32{49406, 320, 1125, 49407}},
		"just fits":     {"a photo of", full},
		"one too many":  {"a photo of a", full},
		"within a word": {"a supercalifragilisticexpialidocious", []int32{49406, 320, 1642, 2857, 49407}},
		"empty":         {"", []int32{49406, 49407}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, tok.Encode(c.text, nil))
			require.Equal(t, append([]int32{7, 8}, c.want...), tok.Encode(c.text, []int32{7, 8}))
		})
	}
}

func TestEncodeDoesNotAllocate(t *testing.T) {
	tok := open(t, Default())
	dst := tok.Encode("a photo of a café, twice", nil)
	require.Zero(t, testing.AllocsPerRun(100, func() { dst = tok.Encode("a photo of a café, twice", dst[:0]) }))
}

// One word of many letters, as a text without spaces has it, takes no quadratic time, and its ids do not come from a
// cache that keeps it.
func TestEncodeVeryLongWord(t *testing.T) {
	tok := open(t, Config{Kind: "clip", ContextLength: 1 << 20})
	ids := tok.Encode(strings.Repeat("cat日本", 100_000), nil)
	require.Equal(t, strings.Repeat("cat日本", 100_000), tok.Decode(ids))
	require.Empty(t, tok.(*BPE).cache)
}

func TestCacheIsBounded(t *testing.T) {
	tok := open(t, Config{Kind: "bpe", File: "demo"}).(*BPE)
	var text strings.Builder
	for i := range maxCachedWords + 100 {
		text.Reset()
		for ; i > 0; i /= 26 {
			text.WriteByte('a' + byte(i%26))
		}
		tok.Encode(text.String(), nil)
	}
	require.LessOrEqual(t, len(tok.cache), maxCachedWords)
	want := open(t, Config{Kind: "bpe", File: "demo"}).Encode("an apple", nil)
	require.Equal(t, want, tok.Encode("an apple", nil))
}

func TestEncodeConcurrently(t *testing.T) {
	tok := open(t, Default())
	lines := goldenLines(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var ids []int32
			for _, l := range lines {
				ids = tok.Encode(l.Text, ids[:0])
				if !slices.Equal(ids, l.IDs) {
					t.Errorf("%q: %v, want %v", l.Text, ids, l.IDs)
				}
			}
		})
	}
	wg.Wait()
}

func TestDecode(t *testing.T) {
	tok := open(t, Default())
	for _, c := range []struct{ text, want string }{
		{"A Photo of  a cat", "a photo of a cat"},
		{"it's 42!", "it 's 4 2 !"},
		{"日本語 🐱", "日本語 🐱"},
		{"", ""},
	} {
		require.Equal(t, c.want, tok.Decode(tok.Encode(c.text, nil)))
	}
	require.Equal(t, "\uFFFDa\uFFFD", tok.Decode([]int32{-1, 320 - 256, 1 << 30}), "ids outside the vocabulary")
	require.Equal(t, "a\uFFFD", tok.Decode([]int32{320 - 256, byteID[0xE6]}), "the first byte of a character")
}

func TestNewErrors(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want []string
	}{
		"kind":       {Config{Kind: "word"}, []string{`"word"`, "bpe, clip"}},
		"no file":    {Config{Kind: "bpe"}, []string{"merges file"}},
		"file":       {Config{Kind: "clip", File: "x"}, []string{`"x"`}},
		"context":    {Config{Kind: "clip", ContextLength: 2}, []string{"contextLength 2", "below 3"}},
		"both":       {Config{Kind: "bpe", ContextLength: -1}, []string{"merges file", "contextLength -1"}},
		"no such":    {Config{Kind: "bpe", File: "testdata/none.txt"}, []string{"testdata/none.txt"}},
		"no merges":  {Config{Kind: "bpe", File: "testdata/clip.jsonl"}, []string{"testdata/clip.jsonl", "line 1", "#version"}},
		"a folder":   {Config{Kind: "bpe", File: "testdata"}, []string{"testdata"}},
		"empty kind": {Config{}, []string{`""`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c.cfg)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestConfigOpensAnEqualTokenizer(t *testing.T) {
	tok := open(t, Config{Kind: "clip"})
	require.Equal(t, Default(), tok.Config())
	require.Equal(t, tok.Encode("a cat", nil), open(t, tok.Config()).Encode("a cat", nil))
}

func TestMergesFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "merges.txt")
	clip := open(t, Default()).(*BPE)
	require.NoError(t, clip.WriteFile(path))
	read := open(t, Config{Kind: "bpe", File: path})
	require.Equal(t, clip.pairs, read.(*BPE).pairs)
	for _, l := range goldenLines(t) {
		require.Equal(t, clip.Encode(l.Text, nil), read.Encode(l.Text, nil))
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	require.NoError(t, err)
	require.Equal(t, []string{path}, names, "nothing else is left behind")
	require.ErrorContains(t, clip.WriteFile(filepath.Join(t.TempDir(), "none", "merges.txt")), "none")
}

func FuzzEncode(f *testing.F) {
	for _, l := range goldenLines(f)[:60] {
		f.Add(l.Text)
	}
	f.Add("&#1&&amp;#x;\xff\xc3'ſ<ſtart_of_text>")
	tok := open(f, Config{Kind: "clip", ContextLength: 100_000})
	short := open(f, Config{Kind: "clip", ContextLength: 9})
	f.Fuzz(func(t *testing.T, text string) {
		ids := tok.Encode(text, nil)
		require.Equal(t, tok.BOS(), ids[0])
		require.Equal(t, tok.EOS(), ids[len(ids)-1])
		cut := short.Encode(text, nil)
		n := min(len(ids), 9)
		require.Equal(t, ids[:n-1], cut[:n-1])
		require.Len(t, cut, n)
		require.Equal(t, tok.EOS(), cut[n-1])

		plain := clean(text)
		require.True(t, utf8.ValidString(plain))
		require.Equal(t, plain, lower(collapse(plain)), "cleaning is done when it is done")
		if len(ids) < 100_000 && !strings.Contains(plain, "_of_text>") {
			plain = strings.NewReplacer("\u0345", "", " ", "").Replace(plain)
			require.Equal(t, plain, strings.ReplaceAll(tok.Decode(ids), " ", ""), "no character is lost but spaces")
		}
	})
}

func FuzzDecode(f *testing.F) {
	tok := open(f, Default())
	f.Add(int32(0), int32(49407), int32(-5))
	f.Add(int32(320), int32(171), int32(1<<30))
	f.Fuzz(func(t *testing.T, a, b, c int32) {
		require.True(t, utf8.ValidString(tok.Decode([]int32{a, b, c})))
		require.Len(t, tok.Tokens([]int32{a, b, c}), 3)
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := open(b, Default())
	var dst []int32
	for b.Loop() {
		dst = tok.Encode("A black dog and a spotted dog are fighting over a stick near the water.", dst[:0])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "texts/s")
}

func BenchmarkOpen(b *testing.B) {
	for name, file := range map[string][]byte{"clip": clipFile, "demo": vocab.Merges} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := readMerges(file, name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestEncodeDropout(t *testing.T) {
	tok, err := New(Config{Kind: "bpe", File: "demo", ContextLength: 64})
	require.NoError(t, err)
	bpe := tok.(*BPE)
	const text = "smiling face with sunglasses: cool, bright!"
	whole := bpe.Encode(text, nil)
	require.Equal(t, whole, bpe.EncodeDropout(text, nil, 0, 1), "nothing is passed over")
	most := bpe.EncodeDropout(text, nil, 1, 1)
	require.Len(t, most, 2+len(strings.ReplaceAll(text, " ", "")), "every merge is passed over: bytes")
	ways := map[string]bool{}
	for key := range uint64(50) {
		ids := bpe.EncodeDropout(text, nil, 0.2, key)
		require.Equal(t, ids, bpe.EncodeDropout(text, nil, 0.2, key), "the same address, the same ids")
		require.Equal(t, bpe.Decode(whole), bpe.Decode(ids), "other entries, the same text")
		require.GreaterOrEqual(t, len(ids), len(whole))
		ways[fmt.Sprint(ids)] = true
	}
	require.Greater(t, len(ways), 40)
	require.Equal(t, whole, bpe.Encode(text, nil), "no cut of a word stays behind")
}
