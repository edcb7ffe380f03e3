package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"diptych/data/tokenizer/ftfy"
)

// clean does what open_clip's cleaning "lower" does: it repairs broken encodings, undoes HTML escapes twice (captions from the
// web are often escaped twice), makes every run of white space one space, trims, and lower-cases. A clean text comes back as
// it is, without a copy.
func clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return lower(collapse(ftfy.UnescapeHTML(ftfy.UnescapeHTML(ftfy.Fix(text)))))
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
