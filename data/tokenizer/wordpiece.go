package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/unicode/rangetable"
)

// WordPiece is BERT's encoding (Devlin et al. 2019, §3; Wu et al. 2016, §4.1) as Hugging Face's tokenizers have it: text is
// cleaned, split at white space, punctuation and ideographs, and each word is cut into the longest entries of the vocabulary
// from left to right, of which all but the first are written with "##". A word that cannot be cut so is one [UNK].
// bos is [CLS] and eos [SEP].
type WordPiece struct {
	*pieces
	cfg Config
}

var _ Tokenizer = (*WordPiece)(nil)

// pieces is a vocabulary with the rules that come with it. It never changes once read.
type pieces struct {
	names     []string
	begin     map[string]int32 // entries that begin a word
	goOn      map[string]int32 // entries that go on with one, without "##"
	longest   int              // bytes of the longest entry
	added     []addedToken     // found in the text as it is, before all cleaning
	normalize normalizer
	wordRunes int // characters of the longest word that is cut; a longer one is [UNK]

	addedStarts string // first characters of added

	pad, unk, cls, sep, mask int32 // pad and mask are -1 in a vocabulary without them
}

// addedToken is an entry that stands for itself wherever the text spells it.
type addedToken struct {
	text string
	id   int32
}

// normalizer is Hugging Face's BertNormalizer.
type normalizer struct {
	Clean        bool  `json:"clean_text"`
	Ideographs   bool  `json:"handle_chinese_chars"`
	StripAccents *bool `json:"strip_accents"` // nil does as Lowercase
	Lowercase    bool  `json:"lowercase"`
}

const (
	continues    = "##"
	maxWordRunes = 100 // BERT's
)

// VocabSize returns the number of ids, special ones included.
func (t *WordPiece) VocabSize() int { return len(t.names) }

// ContextLength returns the longest encoding in tokens.
func (t *WordPiece) ContextLength() int { return t.cfg.ContextLength }

// BOS returns the id of [CLS].
func (t *WordPiece) BOS() int32 { return t.cls }

// EOS returns the id of [SEP].
func (t *WordPiece) EOS() int32 { return t.sep }

// Mask returns the id of [MASK], -1 if the vocabulary has none.
func (t *WordPiece) Mask() int32 { return t.mask }

// Pad returns the id of [PAD], -1 if the vocabulary has none.
func (t *WordPiece) Pad() int32 { return t.pad }

// Lowercase reports whether text is made lower-case before it is cut.
func (t *WordPiece) Lowercase() bool { return t.normalize.Lowercase }

// Config returns the configuration that opens an equal tokenizer.
func (t *WordPiece) Config() Config { return t.cfg }

// Encode appends [CLS], the ids of text and [SEP] to dst; see Tokenizer. [MASK] and the other special tokens may stand in
// the text.
func (t *WordPiece) Encode(text string, dst []int32) []int32 {
	start := len(dst)
	full := func() bool { return len(dst)-start >= t.cfg.ContextLength-1 }
	dst = append(dst, t.cls)
	for text != "" && !full() {
		end, found := t.nextAdded(text)
		for rest := t.normalize.apply(text[:end]); rest != "" && !full(); {
			var w string
			if w, rest = nextBERTWord(rest); w != "" {
				dst = t.appendWord(dst, w)
			}
		}
		text = text[end:]
		if found != nil {
			dst = append(dst, found.id)
			text = text[len(found.text):]
		}
	}
	if full() {
		dst = dst[:start+t.cfg.ContextLength-1]
	}
	return append(dst, t.sep)
}

// nextAdded returns where the first added token stands in text and which it is; without one it returns len(text) and nil. Of
// two at one place it takes the longer.
func (t *WordPiece) nextAdded(text string) (int, *addedToken) {
	for at := 0; ; at++ {
		n := strings.IndexAny(text[at:], t.addedStarts)
		if n < 0 {
			return len(text), nil
		}
		at += n
		var found *addedToken
		for i := range t.added {
			if a := &t.added[i]; strings.HasPrefix(text[at:], a.text) && (found == nil || len(a.text) > len(found.text)) {
				found = a
			}
		}
		if found != nil {
			return at, found
		}
	}
}

// appendWord appends the ids of one word.
func (t *WordPiece) appendWord(dst []int32, w string) []int32 {
	if len(w) > t.wordRunes && utf8.RuneCountInString(w) > t.wordRunes {
		return append(dst, t.unk)
	}
	start, table := len(dst), t.begin
	for w != "" {
		end := min(len(w), t.longest)
		id, ok := table[w[:end]]
		for !ok {
			for end--; end > 0 && !utf8.RuneStart(w[end]); end-- {
			}
			if end <= 0 {
				return append(dst[:start], t.unk)
			}
			id, ok = table[w[:end]]
		}
		dst = append(dst, id)
		w, table = w[end:], t.goOn
	}
	return dst
}

// Decode returns the text of ids; see Tokenizer.
func (t *WordPiece) Decode(ids []int32) string {
	var text strings.Builder
	for _, id := range ids {
		if id == t.cls || id == t.sep || id == t.pad && t.pad >= 0 {
			continue
		}
		name := t.name(id)
		rest, ok := strings.CutPrefix(name, continues)
		if ok && rest != "" {
			name = rest
		} else if text.Len() > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(name)
	}
	return text.String()
}

func (t *WordPiece) name(id int32) string {
	if id < 0 || int(id) >= len(t.names) {
		return string(utf8.RuneError)
	}
	return t.names[id]
}

// Tokens spells ids; see Tokenizer.
func (t *WordPiece) Tokens(ids []int32) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = t.name(id)
	}
	return names
}

// Words numbers the words of ids; see Tokenizer. They are the groups of BERT's whole-word masking: a piece with "##" belongs
// to the word before it, wherever that ended, and is a word of its own if there is none.
func (t *WordPiece) Words(ids, dst []int32) []int32 {
	word := int32(-1)
	for _, id := range ids {
		switch {
		case id == t.cls, id == t.sep, id == t.pad, id < 0, int(id) >= len(t.names):
			dst = append(dst, -1)
			continue
		case word < 0 || !strings.HasPrefix(t.names[id], continues):
			word++
		}
		dst = append(dst, word)
	}
	return dst
}

// apply normalizes a text: clean text without invalid characters and with spaces for all white space, spaces around
// ideographs, then without accents, then in small letters. It differs from BERT's Python original where the tokenizers
// library does: code points without a meaning stay, and a capital sigma is σ at a word's end too.
func (n normalizer) apply(s string) string {
	strip := n.strips()
	if isPlain(s, n.Lowercase) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case n.Clean && isDropped(r):
		case n.Clean && unicode.IsSpace(r):
			b.WriteByte(' ')
		case n.Ideographs && isIdeograph(r):
			b.WriteByte(' ')
			b.WriteRune(r)
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	s = b.String()
	if strip {
		s = strings.Map(func(r rune) rune {
			if isBERTMark(r) {
				return -1
			}
			return r
		}, norm.NFD.String(s))
	}
	if n.Lowercase {
		s = strings.ReplaceAll(strings.Map(lowerRune, s), "İ", "i\u0307")
	}
	return s
}

// strips tells whether accents are taken off.
func (n normalizer) strips() bool {
	if n.StripAccents != nil {
		return *n.StripAccents
	}
	return n.Lowercase
}

// lowerRune is the small letter of r, but of İ, which has two characters.
func lowerRune(r rune) rune {
	if r == 'İ' {
		return r
	}
	return unicode.ToLower(r)
}

// isPlain reports whether normalizing would change nothing: printable ASCII, without capitals if they are lowered.
func isPlain(s string, lower bool) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7F || lower && 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// isDropped reports whether cleaning drops r: NUL, U+FFFD, and control, format and private characters that are no white
// space in BERT's sense.
func isDropped(r rune) bool {
	switch r {
	case '\t', '\n', '\r':
		return false
	case 0, utf8.RuneError:
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Co) || unicode.Is(unicode.Cf, r) && unicode.Is(unicode8, r)
}

// isIdeograph reports whether r lies in the blocks that BERT takes for CJK ideographs, of which the tokenizers library
// spells one with 2B920 for 2B820.
func isIdeograph(r rune) bool {
	return 0x4E00 <= r && r <= 0x9FFF || 0x3400 <= r && r <= 0x4DBF || 0x20000 <= r && r <= 0x2A6DF || 0x2A700 <= r && r <= 0x2B73F ||
		0x2B740 <= r && r <= 0x2B81F || 0x2B920 <= r && r <= 0x2CEAF || 0xF900 <= r && r <= 0xFAFF || 0x2F800 <= r && r <= 0x2FA1F
}

// nextBERTWord cuts the first word off a normalized text that is not empty: a punctuation mark, or what stands before the
// next one or the next white space. A word that is empty stands for white space.
func nextBERTWord(s string) (w, rest string) {
	for i, r := range s {
		space := unicode.IsSpace(r)
		if !space && !isBERTPunct(r) {
			continue
		}
		switch {
		case i > 0:
			return s[:i], s[i:]
		case space:
			return "", s[utf8.RuneLen(r):]
		}
		return s[:utf8.RuneLen(r)], s[utf8.RuneLen(r):]
	}
	return s, ""
}

// unicode8 has the characters of Unicode 8.0, whose categories the tokenizers library knows. Those whose category changed
// since are cases of their own below.
var unicode8 = rangetable.Assigned("8.0.0")

// isBERTMark reports whether r is an accent, a nonspacing mark of Unicode 8.0.
func isBERTMark(r rune) bool {
	switch r {
	case 0x1734:
		return true
	case 0x1885, 0x1886, 0xA9BD, 0x111C9:
		return false
	}
	return unicode.Is(unicode.Mn, r) && unicode.Is(unicode8, r)
}

// isBERTPunct reports whether BERT splits at r: the punctuation of Unicode 8.0 and all ASCII that is no letter, digit or
// space.
func isBERTPunct(r rune) bool {
	if r < utf8.RuneSelf {
		return '!' <= r && r <= '/' || ':' <= r && r <= '@' || '[' <= r && r <= '`' || '{' <= r && r <= '~'
	}
	return unicode.IsPunct(r) && unicode.Is(unicode8, r) || r == 0x166D || r == 0x111C9
}
