package tokenizer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
)

func pack(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// The sum is that of the first 48,895 lines of bpe_simple_vocab_16e6.txt, whose own packed sum clip/main.go checks.
func TestCLIPMergesChecksum(t *testing.T) {
	z, err := gzip.NewReader(bytes.NewReader(clipFile))
	require.NoError(t, err)
	text, err := readLimited(z)
	require.NoError(t, err)
	sum := sha256.Sum256(text)
	require.Equal(t, "685491abbdad36159d094ecdc23bebc0dd53f8d1df35c4d74ef6036db2ba7572", hex.EncodeToString(sum[:]))
	licence, err := os.ReadFile("clip/LICENSE")
	require.NoError(t, err)
	require.Contains(t, string(licence), "Copyright (c) 2021 OpenAI")
	require.Contains(t, string(licence), "Permission is hereby granted, free of charge")
}

func TestByteSymbols(t *testing.T) {
	for b, want := range map[byte]string{'!': "!", '~': "~", 0xA1: "¡", 0xAC: "¬", 0xAE: "®", 0xFF: "ÿ", 0: "Ā", ' ': "Ġ", 0x7F: "ġ", 0xAD: "Ń"} {
		require.Equal(t, want, string(byteRune[b]))
		require.Equal(t, b, idByte[byteID[b]])
	}
	require.Equal(t, []int32{0, 93, 94, 105, 106, 187, 188, 255}, []int32{byteID['!'], byteID['~'], byteID[0xA1], byteID[0xAC], byteID[0xAE], byteID[0xFF], byteID[0], byteID[0xAD]})
}

func TestParseMerges(t *testing.T) {
	const text = "\"merges.txt#version: 0.2\nc a\nca t</w>\r\nĠ Ġ</w>\n"
	for name, file := range map[string][]byte{"plain": []byte(text), "gzip": pack(t, text), "no last newline": []byte(strings.TrimSpace(text))} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "merges")
			require.NoError(t, os.WriteFile(path, file, 0o600))
			tok := open(t, Config{Kind: "bpe", File: path, ContextLength: 9})
			require.Equal(t, 512+3+2, tok.VocabSize())
			require.Equal(t, []int32{515, 513, 512, 'b' - '!' + 256, 516}, tok.Encode("Cat cab", nil))
			require.Equal(t, "cat cab", tok.Decode(tok.Encode("Cat cab", nil)))
			require.Equal(t, []string{"ca", "cat</w>", "ĠĠ</w>", startOfText, endOfText, "\uFFFD"}, tok.Tokens([]int32{512, 513, 514, 515, 516, 517}))
			require.Equal(t, Config{Kind: "bpe", File: path, ContextLength: 9}, tok.Config())
		})
	}
}

func TestMergesErrors(t *testing.T) {
	const head = "#version: 0.2\n"
	long := strings.Repeat("日", 100)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":           {nil, `x, line 1: want a line with "#version"`},
		"no version":      {[]byte("a b\n"), `line 1: want a line with "#version" as in CLIP's merges files, have "a b"`},
		"one symbol":      {[]byte(head + "a b\nab\n"), `line 3: want two symbols with one space between, have "ab"`},
		"three symbols":   {[]byte(head + "a b c\n"), `line 2: want two symbols`},
		"no left":         {[]byte(head + " b\n"), `line 2: want two symbols`},
		"no right":        {[]byte(head + "a \n"), `line 2: want two symbols`},
		"empty line":      {[]byte(head + "a b\n\nb c\n"), `line 3: want two symbols`},
		"unknown left":    {[]byte(head + "ab c\n"), `line 2: "ab" is neither a byte symbol nor made by an earlier line`},
		"unknown right":   {[]byte(head + "a b\na bc</w>\n"), `line 3: "bc</w>" is neither`},
		"not a byte":      {[]byte(head + "日 a\n"), `line 2: "日" is neither`},
		"not UTF-8":       {[]byte(head + "\xff a\n"), `line 2: "\xff" is neither`},
		"twice":           {[]byte(head + "a b\nc d\na b\n"), `line 4: line 2 made "ab" already`},
		"two ways":        {[]byte(head + "a b\nb c\na bc\nab c\n"), `line 5: line 4 made "abc" already`},
		"after an end":    {[]byte(head + "a b</w>\nab</w> c\n"), `line 3: "ab</w>" ends a word`},
		"byte symbol":     {[]byte(head + "< /\n</ w\n</w >\na </w>\n"), `line 5: "a</w>" is a byte symbol already`},
		"long":            {[]byte(head + long + "\n"), `have "` + strings.Repeat("日", 13) + `…"`},
		"cut gzip":        {pack(t, head+"a b\n")[:20], "x: gzip"},
		"too much":        {pack(t, strings.Repeat("a", maxFileBytes+1)), "more than 64 MiB"},
		"gzip, bad merge": {pack(t, head+"a\n"), "x, line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readMerges(c.file, "x")
			require.ErrorContains(t, err, "tokenizer: x")
			require.ErrorContains(t, err, c.want)
		})
	}
}

func FuzzParseMerges(f *testing.F) {
	f.Add("#version: 0.2\nc a\nca t</w>\n", "a cat")
	f.Add("#version\r\n< /\r\n</ w\r\n</w >", "</w>")
	f.Add("#version\na a\naa aa\na aa", "aaaaaaa")
	f.Add("x", "")
	f.Fuzz(func(t *testing.T, text, caption string) {
		m, err := parseMerges(text)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "line "), err.Error())
			return
		}
		again, err := parseMerges(string(m.appendText(nil)))
		require.NoError(t, err)
		require.Equal(t, m.pairs, again.pairs)
		tok := newBPE(m, Config{ContextLength: 1 << 20})
		ids := tok.Encode(caption, nil)
		require.Equal(t, slowIDs(m, caption), ids[1:len(ids)-1])
	})
}

// slowIDs encodes as CLIP's own loop does: all occurrences of the pair of lowest rank at once, left to right.
func slowIDs(m *merges, caption string) []int32 {
	all := []int32{}
	for rest := clean(caption); rest != ""; {
		var w word
		w, rest = nextWord(rest)
		switch w.special {
		case specialStart:
			all = append(all, int32(firstMerge+len(m.pairs)))
			continue
		case specialEnd:
			all = append(all, int32(firstMerge+len(m.pairs)+1))
			continue
		}
		if w.text == "" {
			continue
		}
		var ids []int32
		for _, b := range []byte(w.text) {
			ids = append(ids, byteID[b])
		}
		ids[len(ids)-1] += endOffset
		for {
			best := int32(-1)
			for j := 1; j < len(ids); j++ {
				if id, ok := m.ids[pair{ids[j-1], ids[j]}]; ok && (best < 0 || id < best) {
					best = id
				}
			}
			if best < 0 {
				break
			}
			ids = replace(ids, m.pairs[best-firstMerge], best)
		}
		all = append(all, ids...)
	}
	return all
}

func TestMergingEqualsCLIPsLoop(t *testing.T) {
	m, err := clipMerges()
	require.NoError(t, err)
	tok := newBPE(m, Config{ContextLength: 1 << 20})
	for _, l := range goldenLines(t) {
		ids := tok.Encode(l.Text, nil)
		require.Equalf(t, slowIDs(m, l.Text), ids[1:len(ids)-1], "%q", l.Text)
	}
}
