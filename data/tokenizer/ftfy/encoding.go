package ftfy

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// codec is a one-byte encoding. A sloppy one reads unassigned bytes as Latin-1 does, and byte 1A stands for U+FFFD in it, a
// character whose byte is lost.
type codec struct {
	sloppy bool
	mac    bool
	bytes  map[rune]byte
}

func newCodec(m *charmap.Charmap, sloppy bool) *codec {
	c := &codec{sloppy: sloppy, mac: m == charmap.Macintosh, bytes: make(map[rune]byte, 256)}
	for i := range 256 {
		r := rune(i)
		if i >= 0x80 && m != nil {
			if d := m.DecodeByte(byte(i)); d != utf8.RuneError {
				r = d
			}
		} else if i == lost && sloppy {
			r = utf8.RuneError
		}
		c.bytes[r] = byte(i)
	}
	return c
}

// lost is the byte of U+FFFD.
const lost = 0x1A

// codecs are the encodings that text is read in by mistake, in the order in which they are tried.
var codecs = []*codec{
	newCodec(nil, false), // Latin-1
	newCodec(charmap.Windows1252, true),
	newCodec(charmap.Windows1251, true),
	newCodec(charmap.Windows1250, true),
	newCodec(charmap.Windows1253, true),
	newCodec(charmap.Windows1254, true),
	newCodec(charmap.Windows1257, true),
	newCodec(charmap.ISO8859_2, false),
	newCodec(charmap.Macintosh, false),
	newCodec(charmap.CodePage437, false),
}

// encode returns the bytes of s, false if the encoding has not all its characters.
func (c *codec) encode(s string) ([]byte, bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		x, ok := c.bytes[r]
		if !ok {
			return nil, false
		}
		b = append(b, x)
	}
	return b, true
}

// fixEncoding is ftfy.fix_encoding: it undoes one mix-up after the other.
func fixEncoding(s string) string {
	for {
		next := fixOnce(s)
		if next == s {
			return s
		}
		s = next
	}
}

// fixOnce undoes one mix-up of encodings, if s looks like one.
func fixOnce(s string) string {
	if !isBad(s) {
		return s
	}
	// UTF-8 read in a one-byte encoding.
	for _, c := range codecs {
		b, ok := c.encode(s)
		if !ok {
			continue
		}
		if !c.mac { // there it would be a dash and a space
			b = restoreA0(b)
		}
		if c.sloppy {
			b = replaceLost(b)
		}
		if fixed, ok := decode(b); ok {
			return fixed
		}
	}
	// Only parts of the text were.
	if fixed := fixParts(s); fixed != s {
		return fixed
	}
	// Windows-1252 read as Latin-1.
	return fixC1(s)
}

// altered finds UTF-8 whose byte A0 became a space, as a text of one character per byte.
var altered = regexp.MustCompile("[\u00c2\u00c3\u00c5\u00ce\u00d0\u00d9][ ]" +
	"|[\u00e2\u00e3][ ][\u0080-\u0084\u0086-\u009f\u00a1-\u00bf]" +
	"|[\u00e0-\u00e3][\u0080-\u0084\u0086-\u009f\u00a1-\u00bf][ ]" +
	"|[\u00f0][ ][\u0080-\u00bf][\u0080-\u00bf]" +
	"|[\u00f0][\u0080-\u00bf][ ][\u0080-\u00bf]" +
	"|[\u00f0][\u0080-\u00bf][\u0080-\u00bf][ ]")

// lossy finds UTF-8 and CESU-8 of which some bytes are lost, likewise.
var lossy = regexp.MustCompile("[\u00c2-\u00df][\x1a]" +
	"|[\u00c2-\u00c3][?]" +
	"|\u00ed[\u00a0-\u00af][\x1a?]\u00ed[\u00b0-\u00bf][\x1a?\u0080-\u00bf]" +
	"|\u00ed[\u00a0-\u00af][\x1a?\u0080-\u00bf]\u00ed[\u00b0-\u00bf][\x1a?]" +
	"|[\u00e0-\u00ef][\x1a?][\x1a\u0080-\u00bf]" +
	"|[\u00e0-\u00ef][\x1a\u0080-\u00bf][\x1a?]" +
	"|[\u00f0-\u00f4][\x1a?][\x1a\u0080-\u00bf][\x1a\u0080-\u00bf]" +
	"|[\u00f0-\u00f4][\x1a\u0080-\u00bf][\x1a?][\x1a\u0080-\u00bf]" +
	"|[\u00f0-\u00f4][\x1a\u0080-\u00bf][\x1a\u0080-\u00bf][\x1a?]" +
	"|\x1a")

// replaceBytes replaces what re finds in b, read as one character per byte.
func replaceBytes(re *regexp.Regexp, b []byte, by func(string) string) []byte {
	s := re.ReplaceAllStringFunc(fromLatin1(b), by)
	out := make([]byte, 0, len(s))
	for _, r := range s {
		out = append(out, byte(r))
	}
	return out
}

func fromLatin1(b []byte) string {
	var s strings.Builder
	for _, x := range b {
		s.WriteRune(rune(x))
	}
	return s.String()
}

// restoreA0 is ftfy.fixes.restore_byte_a0: it puts back byte A0 where a space stands in what would be UTF-8 with it. A lone
// "Ã " is the word "à" and keeps its space, but in the Portuguese "às", "àquele", "àquela" and "àquilo".
func restoreA0(b []byte) []byte {
	if !altered.MatchString(fromLatin1(b)) {
		return b
	}
	var out []byte
	for i := 0; i < len(b); i++ {
		out = append(out, b[i])
		if b[i] != 0xC3 || i+1 == len(b) || b[i+1] != ' ' {
			continue
		}
		word := false
		for _, end := range []string{" ", "quele", "quela", "quilo", "s "} {
			word = word || bytes.HasPrefix(b[i+2:], []byte(end))
		}
		if !word {
			out = append(out, 0xA0, ' ')
			i++
		}
	}
	return replaceBytes(altered, out, func(s string) string { return strings.ReplaceAll(s, " ", "\u00a0") })
}

// replaceLost is ftfy.fixes.replace_lossy_sequences: it makes what would be a character with the lost bytes a U+FFFD.
func replaceLost(b []byte) []byte {
	if bytes.IndexByte(b, lost) < 0 && bytes.IndexByte(b, '?') < 0 {
		return b
	}
	return replaceBytes(lossy, b, func(string) string { return "\u00ef\u00bf\u00bd" })
}

// decode reads UTF-8 and its variants: CESU-8, which writes two surrogates of three bytes each, and Java's NUL of two bytes.
// Python's "$" also matches before a line feed at the end, so ftfy takes one for the last byte of either; so does this.
func decode(b []byte) (string, bool) {
	if bytes.IndexByte(b, 0xED) < 0 && bytes.IndexByte(b, 0xC0) < 0 {
		return string(b), utf8.Valid(b)
	}
	atEnd := func(b []byte) bool { return len(b) == 1 && b[0] == '\n' }
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case len(b) > 1 && b[0] == 0xC0 && (b[1] == 0x80 || atEnd(b[1:])):
			r, n = 0, 2
		case len(b) > 5 && b[0] == 0xED && b[1]&0xF0 == 0xA0 && b[2]&0xC0 == 0x80 && b[3] == 0xED && b[4]&0xF0 == 0xB0 &&
			(b[5]&0xC0 == 0x80 || atEnd(b[5:])):
			r, n = rune(b[1]&0x0F)<<16+rune(b[2]&0x3F)<<10+rune(b[4]&0x0F)<<6+rune(b[5]&0x3F)+0x10000, 6
		case r == utf8.RuneError && n < 3: // not UTF-8
			return "", false
		}
		s.WriteRune(r)
		b = b[n:]
	}
	return s.String(), true
}

// fixParts is ftfy.fixes.decode_inconsistent_utf8: it repairs the parts of a text that look like UTF-8 read in a one-byte
// encoding.
func fixParts(s string) string {
	runes := []rune(s)
	var out strings.Builder
	for i := 0; i < len(runes); {
		n := 0
		if i == 0 || clues[runes[i-1]]&strict == 0 {
			n = sequences(runes[i:])
		}
		if n == 0 {
			out.WriteRune(runes[i])
			i++
			continue
		}
		part := string(runes[i : i+n])
		if n < len(runes) && isBad(part) {
			part = fixEncoding(part)
		}
		out.WriteString(part)
		i += n
	}
	return out.String()
}

// sequences returns how many characters at the start of s look like UTF-8 sequences, one after the other.
func sequences(s []rune) int {
	at := 0
next:
	for at < len(s) {
		first := clues[s[at]]
		for more, clue := range []clue{first2, first3, first4} {
			n := more + 2
			if first&clue == 0 || at+n > len(s) {
				continue
			}
			all := true
			for _, r := range s[at+1 : at+n] {
				all = all && clues[r]&continuation != 0
			}
			if all {
				at += n
				continue next
			}
		}
		break
	}
	return at
}

// windows1252 has what Windows-1252 puts in place of the C1 controls.
var windows1252 = func() (m [32]rune) {
	for i := range m {
		m[i] = rune(0x80 + i)
		if r := charmap.Windows1252.DecodeByte(byte(0x80 + i)); r != utf8.RuneError {
			m[i] = r
		}
	}
	return
}()

// fixC1 reads C1 controls as Windows-1252, as web browsers do.
func fixC1(s string) string {
	return strings.Map(func(r rune) rune {
		if 0x80 <= r && r <= 0x9F {
			return windows1252[r-0x80]
		}
		return r
	}, s)
}
