package ftfy

import (
	"html"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

var reference = regexp.MustCompile(`&#?[0-9A-Za-z]{1,24};`)

// unescape replaces HTML references that end in a semicolon, and names in capitals where that makes sense: "P&EACUTE;REZ".
func unescape(s string) string {
	if strings.IndexByte(s, '&') < 0 {
		return s
	}
	return reference.ReplaceAllStringFunc(s, func(ref string) string {
		if strings.HasPrefix(ref, "&#") {
			if text := UnescapeHTML(ref); !strings.Contains(text, ";") {
				return text
			}
			return ref
		}
		if text, ok := named(ref); ok {
			return text
		}
		small := strings.ToLower(ref)
		if strings.ToUpper(small) != ref || UnescapeHTML(ref) != ref {
			return ref
		}
		if text, ok := named(small); ok {
			return cases.Upper(language.Und).String(text)
		}
		return ref
	})
}

// named returns the text of "&name;". A shorter name at its start does not count.
func named(ref string) (string, bool) {
	text := UnescapeHTML(ref)
	return text, ref == "&semi;" || !strings.HasSuffix(text, ";")
}

// UnescapeHTML is Python's html.unescape: HTML5's named references are those of package html, but a numeric one that names
// a code point invalid in HTML vanishes.
func UnescapeHTML(s string) string {
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
