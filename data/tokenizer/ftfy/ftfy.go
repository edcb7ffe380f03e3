// Package ftfy repairs text that went through wrong encodings: "schÃ¶n" becomes "schön". It is a port of the Python package
// ftfy 6.3.1 (Copyright 2023 Robyn Speer, Apache License 2.0), whose fix_text with its defaults is what open_clip does to every
// caption before tokenizing it. Its results are equal, oddities included.
//
// Start at Fix; encoding.go undoes the mix-ups, badness.go knows what they look like.
package ftfy

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxSegment is how many characters are looked at together, in a line that has more.
const maxSegment = 1_000_000

// Fix is ftfy.fix_text: each line is repaired by itself. The text must be UTF-8.
func Fix(text string) string {
	if isPlain(text) {
		return text
	}
	html := true
	var out strings.Builder
	for {
		segment := text[:segmentEnd(text)]
		// A "<" tells that this is HTML itself, whose references mean something, in what follows too.
		html = html && strings.IndexByte(segment, '<') < 0
		fixed := fixSegment(segment, html)
		if out.Len() == 0 && len(segment) == len(text) {
			return fixed // most texts are one segment
		}
		out.WriteString(fixed)
		text = text[len(segment):]
		if text == "" {
			return out.String()
		}
	}
}

// segmentEnd returns the length of the first line of s with its line feed, or of as much of it as is looked at together.
func segmentEnd(s string) int {
	end := strings.IndexByte(s, '\n') + 1
	if end == 0 {
		end = len(s)
	}
	if end > maxSegment { // characters are one byte at least
		n := 0
		for i := range s[:end] {
			if n == maxSegment {
				return i
			}
			n++
		}
	}
	return end
}

// isPlain reports whether nothing can be wrong with s: printable ASCII and line feeds, no references.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '&' || c >= 0x7F || c < ' ' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// fixSegment is ftfy.fix_and_explain: it repeats all repairs until none changes anything.
func fixSegment(text string, html bool) string {
	for {
		before := text
		if html {
			text = unescape(text)
		}
		text = fixEncoding(text)
		text = fixC1(text)
		text = fixCharacters(text)
		if strings.ContainsAny(text, "\r\u2028\u2029\u0085") {
			text = lineBreaks.Replace(text)
		}
		if strings.IndexByte(text, 0x1B) >= 0 {
			text = terminalEscape.ReplaceAllLiteralString(text, "")
		}
		text = strings.Map(dropControl, text)
		text = compose(text)
		if text == before {
			return text
		}
	}
}

var terminalEscape = regexp.MustCompile("\x1b\\[[\\p{Nd};]*[a-zA-Z]")

var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n", "\u0085", "\n")

// ligatures are those of Latin letters, and digraphs that are one character for the sake of old encodings.
var ligatures = map[rune]string{
	'Ĳ': "IJ", 'ĳ': "ij", 'ŉ': "ʼn", 'Ǳ': "DZ", 'ǲ': "Dz", 'ǳ': "dz", 'Ǆ': "DŽ", 'ǅ': "Dž", 'ǆ': "dž", 'Ǉ': "LJ", 'ǈ': "Lj",
	'ǉ': "lj", 'Ǌ': "NJ", 'ǋ': "Nj", 'ǌ': "nj", 'ﬀ': "ff", 'ﬁ': "fi", 'ﬂ': "fl", 'ﬃ': "ffi", 'ﬄ': "ffl", 'ﬅ': "ſt", 'ﬆ': "st",
}

// fixCharacters takes ligatures apart, replaces half- and full-width forms by the usual ones, and makes curly quotes
// straight. What one of the three makes, the next ones see.
func fixCharacters(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= 0x132 }) < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range s {
		if l, ok := ligatures[r]; ok {
			for _, r := range l {
				b.WriteRune(straight(r))
			}
			continue
		}
		if r == '\u3000' {
			r = ' '
		} else if 0xFF01 <= r && r <= 0xFFEF {
			b.WriteString(norm.NFKC.String(string(r)))
			continue
		}
		b.WriteRune(straight(r))
	}
	return b.String()
}

// straight makes a curly quote straight.
func straight(r rune) rune {
	switch {
	case r == 0x2BC || 0x2018 <= r && r <= 0x201B:
		return '\''
	case 0x201C <= r && r <= 0x201F:
		return '"'
	}
	return r
}

// dropControl drops control characters that no one means to write, and keeps what shapes white space or glyphs.
func dropControl(r rune) rune {
	if r < 9 || r == 0xB || 0xE <= r && r < ' ' || r == 0x7F || 0x206A <= r && r <= 0x206F || r == 0xFEFF || 0xFFF9 <= r && r <= 0xFFFC {
		return -1
	}
	return r
}

// compose is Unicode's NFC. Package norm breaks runs of more than 30 marks, against hostile texts; where it would, the marks
// are put in order and joined here.
func compose(s string) string {
	const joiner = '\u034F' // what norm puts between
	c := norm.NFC.String(s)
	if strings.Count(c, string(joiner)) == strings.Count(s, string(joiner)) {
		return c
	}
	var chars []classed
	for _, r := range s {
		full := string(r)
		if d := norm.NFD.PropertiesString(full).Decomposition(); d != nil {
			full = string(d)
		} else if 0xAC00 <= r && r <= 0xD7A3 { // Hangul is taken apart by arithmetic, not by a table
			full = norm.NFD.String(full)
		}
		for _, r := range full {
			chars = append(chars, classed{r, norm.NFD.PropertiesString(string(r)).CCC()})
		}
	}
	for from := 0; from < len(chars); {
		to := from
		for to < len(chars) && chars[to].class > 0 {
			to++
		}
		slices.SortStableFunc(chars[from:to], func(a, b classed) int { return int(a.class) - int(b.class) })
		from = to + 1
	}
	// Unicode Standard Annex 15: a mark joins the last starter unless one of its class or a higher one stands between.
	var out []rune
	starter, last := -1, uint8(0)
	for _, c := range chars {
		if starter >= 0 && (last < c.class || len(out) == starter+1) {
			if joined := norm.NFC.String(string(out[starter]) + string(c.r)); utf8.RuneCountInString(joined) == 1 {
				out[starter], _ = utf8.DecodeRuneInString(joined)
				continue
			}
		}
		if c.class == 0 {
			starter = len(out)
		}
		last = c.class
		out = append(out, c.r)
	}
	return string(out)
}

// classed is a character and its canonical combining class, 0 for starters.
type classed struct {
	r     rune
	class uint8
}
