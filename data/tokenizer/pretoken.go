package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// open_clip's special strings. OpenAI's and Hugging Face's, <|startoftext|> and <|endoftext|>, are plain text here, as
// they are there.
const (
	startOfText = "<start_of_text>"
	endOfText   = "<end_of_text>"
)

// word is one pre-token: text, or one of the special strings.
type word struct {
	text    string
	special special
}

type special uint8

const (
	notSpecial special = iota
	specialStart
	specialEnd
)

// nextWord cuts the first pre-token off a clean text that is not empty. It stands for CLIP's pattern, first match first,
//
//	<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
//
// A word whose text is empty stands for characters that it skips.
func nextWord(s string) (w word, rest string) {
	switch s[0] {
	case ' ':
		return word{}, s[1:]
	case '<':
		if rest, ok := strings.CutPrefix(s, startOfText); ok {
			return word{special: specialStart}, rest
		}
		if rest, ok := strings.CutPrefix(s, endOfText); ok {
			return word{special: specialEnd}, rest
		}
		// The pattern ignores case, so the long s matches too, but that text has no id of its own.
		const long = "<ſtart_of_text>"
		if rest, ok := strings.CutPrefix(s, long); ok {
			return word{text: long}, rest
		}
	case '\'':
		for _, end := range []string{"s", "ſ", "t", "re", "ve", "m", "ll", "d"} {
			if rest, ok := strings.CutPrefix(s[1:], end); ok {
				return word{text: s[:1+len(end)]}, rest
			}
		}
	}
	r, n := utf8.DecodeRuneInString(s)
	class := classOf(r)
	switch class {
	case classSkipped:
		return word{}, s[n:]
	case classNumber: // every digit is a pre-token
		return word{text: s[:n]}, s[n:]
	}
	end := strings.IndexFunc(s, func(r rune) bool { return classOf(r) != class })
	if end < 0 {
		end = len(s)
	}
	return word{text: s[:end]}, s[end:]
}

type class uint8

const (
	classOther class = iota
	classLetter
	classNumber
	classSkipped
)

func classOf(r rune) class {
	switch {
	case 'a' <= r && r <= 'z':
		return classLetter
	case unicode.IsLetter(r):
		return classLetter
	case unicode.IsNumber(r):
		return classNumber
	case unicode.IsSpace(r), r == '\u0345': // a mark whose capital is a letter, so that no branch of the pattern has it
		return classSkipped
	}
	return classOther
}
