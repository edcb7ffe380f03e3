package tokenizer

import (
	"html"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean does what open_clip's cleaning "lower" does after ftfy: it undoes HTML escapes twice (captions from the web are
// often escaped twice), makes every run of white space one space, trims, and lower-cases. A clean text comes back as it
// is, without a copy.
func clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return lower(collapse(unescape(unescape(text))))
}

// unescape is Python's html.unescape: HTML5's named references are those of package html, but a numeric one that names
// a code point invalid in HTML vanishes.
func unescape(s string) string {
	amp := strings.IndexByte(s, '&')
	if amp < 0 {
		return s
	}
	var b strings.Builder
	for ; amp >= 0; amp = strings.IndexByte(s, '&') {
		b.WriteString(s[:amp])
		s = s[amp:]
		if code, n := numericReference(s); n > 0 {
			writeReference(&b, code)
			s = s[n:]
			continue
		}
		n := 1
		for n < len(s) && isAlphanumeric(s[n]) {
			n++
		}
		if n < len(s) && s[n] == ';' {
			n++
		}
		switch name := s[:n]; name {
		case "&nGt;": // package html leaves out the two references whose text is longer than they are
			b.WriteString("\u226B\u20D2")
		case "&nLt;":
			b.WriteString("\u226A\u20D2")
		default:
			b.WriteString(html.UnescapeString(name))
		}
		s = s[n:]
	}
	b.WriteString(s)
	return b.String()
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// numericReference reads "&#38", "&#x26" and the like, with or without a semicolon, at the start of s and returns the
// code point and the length of the reference, which is 0 if there is none. Numbers past Unicode stay past it.
func numericReference(s string) (code rune, n int) {
	if !strings.HasPrefix(s, "&#") {
		return 0, 0
	}
	base, n := rune(10), 2
	if n < len(s) && (s[n] == 'x' || s[n] == 'X') {
		base, n = 16, 3
	}
	first := n
	for ; n < len(s); n++ {
		d := digit(s[n])
		if d >= base {
			break
		}
		code = min(code*base+d, unicode.MaxRune+1)
	}
	if n == first {
		return 0, 0
	}
	if n < len(s) && s[n] == ';' {
		n++
	}
	return code, n
}

// digit returns the value of a hexadecimal digit, and 16 for any other byte.
func digit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return 16
}

// writeReference writes the text of a numeric reference, by HTML5's table for 0 and the C1 controls.
func writeReference(b *strings.Builder, code rune) {
	switch {
	case code == 0 || 0xD800 <= code && code <= 0xDFFF || code > unicode.MaxRune:
		b.WriteRune(utf8.RuneError)
	case 0x80 <= code && code <= 0x9F:
		// Windows-1252, as package html has it.
		b.WriteString(html.UnescapeString("&#" + strconv.Itoa(int(code)) + ";"))
	case code < 0x20 && code != '\t' && code != '\n' && code != '\f' && code != '\r',
		code == 0x7F, 0xFDD0 <= code && code <= 0xFDEF, code&0xFFFE == 0xFFFE:
	default:
		b.WriteRune(code)
	}
}

// isSpace is Python's str.isspace: Go's white space and the four information separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F }

// collapse makes every run of white space one space and trims both ends.
func collapse(s string) string {
	space := true // the text's start trims as a space does
	for _, r := range s {
		if now := isSpace(r); now && (space || r != ' ') {
			return strings.Join(strings.FieldsFunc(s, isSpace), " ")
		} else {
			space = now
		}
	}
	if space {
		return strings.TrimSuffix(s, " ")
	}
	return s
}

// lower is Python's str.lower. Beyond the simple mapping of each character, İ becomes two characters and a capital
// sigma at the end of a word becomes ς (The Unicode Standard, section 3.13).
func lower(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == 'İ' || unicode.ToLower(r) != r }) < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && isFinal(s[:i], s[i+len("Σ"):]):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// isFinal is the Unicode condition Final_Sigma: a cased letter stands before, none after, case-ignorable characters
// between them aside.
func isFinal(before, after string) bool {
	before = strings.TrimRightFunc(before, isCaseIgnorable)
	if r, _ := utf8.DecodeLastRuneInString(before); !isCased(r) {
		return false
	}
	after = strings.TrimLeftFunc(after, isCaseIgnorable)
	r, _ := utf8.DecodeRuneInString(after)
	return !isCased(r)
}

func isCased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

func isCaseIgnorable(r rune) bool {
	// The listed ones have the word-break class MidLetter, MidNumLet or Single_Quote.
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) ||
		strings.ContainsRune("'.:·\u0387\u055F\u05F4‘’\u2024\u2027\uFE13\uFE52\uFE55\uFF07\uFF0E\uFF1A", r)
}
