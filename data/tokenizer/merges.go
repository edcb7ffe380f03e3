package tokenizer

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// The vocabulary's order is CLIP's: 256 byte symbols, the same with "</w>" (a word's last byte), the merges, bos, eos.
const (
	endOffset  = 256 // from a byte's symbol to the one that also ends a word
	firstMerge = 512
	endOfWord  = "</w>"
)

// pair is the ids of two neighbours.
type pair struct{ left, right int32 }

// merges is a vocabulary: merge i joins pairs[i] into id firstMerge+i. It never changes once read.
type merges struct {
	pairs []pair
	ids   map[pair]int32
}

// byteRune is the printable character that stands for each byte in a merges file, byteID its place in the vocabulary
// and idByte the way back: bytes 33–126, 161–172 and 174–255 stand for themselves and come first; the others follow in
// ascending order as U+0100, U+0101, … .
var byteRune, byteID, idByte = func() (runes [256]rune, ids [256]int32, back [256]byte) {
	var own, other int32 = 0, 188
	for b := range 256 {
		if b >= 33 && b <= 126 || b >= 161 && b <= 172 || b >= 174 {
			runes[b], ids[b] = rune(b), own
			own++
		} else {
			runes[b], ids[b] = 0x100+other-188, other
			other++
		}
		back[ids[b]] = byte(b)
	}
	return
}()

//go:embed clip/merges.txt.gz
var clipFile []byte

// openCLIP opens kind "clip".
func openCLIP(c Config) (Tokenizer, error) {
	m, err := clipMerges()
	if err != nil {
		return nil, err
	}
	return newBPE(m, c), nil
}

// clipMerges reads CLIP's merges from the binary.
var clipMerges = sync.OnceValues(func() (*merges, error) { return readMerges(clipFile, "CLIP's merges") })

// openBPE opens kind "bpe".
func openBPE(c Config) (Tokenizer, error) {
	b, err := c.readVerified()
	if err != nil {
		return nil, err
	}
	m, err := readMerges(b, c.File)
	if err != nil {
		return nil, err
	}
	return newBPE(m, c), nil
}

// readMerges reads merges in CLIP's text format, plain or gzip; name is for errors.
func readMerges(b []byte, name string) (*merges, error) {
	b, err := unpack(b)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", name, err)
	}
	m, err := parseMerges(string(b))
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s, %w", name, err)
	}
	return m, nil
}

// parseMerges reads the text of a merges file: a first line that contains "#version", then one merge "left right" per
// line in order of rank. Each half must be a byte symbol or the result of an earlier line, and no line may make a symbol
// that is already there. An error begins with the line.
func parseMerges(text string) (*merges, error) {
	header, text, _ := strings.Cut(text, "\n")
	if !strings.Contains(header, "#version") {
		return nil, fmt.Errorf("line 1: want a line with %q as in CLIP's merges files, have %q", "#version", shorten(header))
	}
	n := strings.Count(text, "\n") + 1
	m := &merges{pairs: make([]pair, 0, n), ids: make(map[pair]int32, n)}
	known := make(map[string]int32, firstMerge+n)
	for b := range 256 {
		known[string(byteRune[b])] = byteID[b]
		known[string(byteRune[b])+endOfWord] = byteID[b] + endOffset
	}
	for line := 2; text != ""; line++ {
		var s string
		s, text, _ = strings.Cut(text, "\n")
		s = strings.TrimSuffix(s, "\r")
		left, right, ok := strings.Cut(s, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") {
			return nil, fmt.Errorf("line %d: want two symbols with one space between, have %q", line, shorten(s))
		}
		var p pair
		if p.left, ok = known[left]; !ok {
			return nil, fmt.Errorf("line %d: %q is neither a byte symbol nor made by an earlier line", line, shorten(left))
		}
		if p.right, ok = known[right]; !ok {
			return nil, fmt.Errorf("line %d: %q is neither a byte symbol nor made by an earlier line", line, shorten(right))
		}
		if m.ends(p.left) {
			return nil, fmt.Errorf("line %d: %q ends a word, so nothing can follow it", line, shorten(left))
		}
		id := int32(firstMerge + len(m.pairs))
		symbol := left + right
		if old, ok := known[symbol]; ok {
			if old < firstMerge {
				return nil, fmt.Errorf("line %d: %q is a byte symbol already", line, shorten(symbol))
			}
			return nil, fmt.Errorf("line %d: line %d made %q already", line, old-firstMerge+2, shorten(symbol))
		}
		known[symbol] = id
		m.pairs = append(m.pairs, p)
		m.ids[p] = id
	}
	return m, nil
}

// shorten cuts what an error quotes.
func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// ends reports whether an id below BOS ends a word.
func (m *merges) ends(id int32) bool {
	for id >= firstMerge {
		id = m.pairs[id-firstMerge].right
	}
	return id >= endOffset
}

// appendBytes appends the bytes that an id below BOS stands for.
func (m *merges) appendBytes(dst []byte, id int32) []byte {
	for id >= firstMerge {
		p := m.pairs[id-firstMerge]
		dst = m.appendBytes(dst, p.left)
		id = p.right
	}
	return append(dst, idByte[id%endOffset])
}

// symbol returns an id's spelling in a merges file.
func (m *merges) symbol(id int32) string {
	var s strings.Builder
	for _, b := range m.appendBytes(nil, id) {
		s.WriteRune(byteRune[b])
	}
	if m.ends(id) {
		s.WriteString(endOfWord)
	}
	return s.String()
}

// appendText appends the text of a merges file.
func (m *merges) appendText(dst []byte) []byte {
	dst = append(dst, "#version: 0.2\n"...)
	for _, p := range m.pairs {
		dst = append(dst, m.symbol(p.left)...)
		dst = append(dst, ' ')
		dst = append(dst, m.symbol(p.right)...)
		dst = append(dst, '\n')
	}
	return dst
}
