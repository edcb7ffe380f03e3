package check

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"

	"diptych/data/arrowset"
	"diptych/data/tokenizer"
	"diptych/internal/addr"
)

// TokenStats say how a tokenizer fares with the captions that a run uses.
type TokenStats struct {
	Tokenizer     tokenizer.Config `json:"tokenizer"`
	ContextLength int              `json:"contextLength"`
	Captions      int              `json:"captions"`
	Mean          float64          `json:"mean"`    // tokens of a caption, bos and eos included, nothing cut off
	Longest       int              `json:"longest"` // the same, the most
	TooLong       int              `json:"tooLong"` // captions that lose tokens
	LostTokens    int              `json:"lostTokens"`
	Losses        []Loss           `json:"losses"` // how many captions lose how much

	Words    int      `json:"words"`    // in all captions
	Distinct int      `json:"distinct"` // words; counting ends at mostWords
	Whole    float64  `json:"whole"`    // share of words that are one token
	Unknown  float64  `json:"unknown"`  // share of words that are spelled nearly byte by byte
	Examples []string `json:"examples"` // the most frequent unknown words
}

// Loss counts the captions that lose From to To tokens.
type Loss struct {
	From     int `json:"from"`
	To       int `json:"to"`
	Captions int `json:"captions"`
}

// A byte-pair vocabulary can spell every word, so no word is unknown to it in the strict sense. Here a word is unknown when it
// costs a token for every unknownBytes bytes or fewer: the model has to learn it letter by letter.
const (
	unknownBytes  = 4.0 / 3
	unknownShare  = 0.05 // of the words, above which there is a warning
	mostWords     = 1 << 22
	wordExamples  = 10
	commonGroups  = 10    // groups that share a caption, above which it may be called common
	commonShare   = 0.001 // the same as a share of all groups
	unlimitedText = 1 << 20
)

// textWorker is what one goroutine gathers.
type textWorker struct {
	ids                       []int32
	captions, tokens, longest int
	tooLong, lost             int
	losses                    [32]int // by the bits of the number of tokens lost
}

// texts checks every caption by itself.
func (c *checker) texts(ctx context.Context) (*TokenStats, error) {
	var whole tokenizer.Tokenizer // the same without a limit
	if c.Tokenizer != nil {
		cfg := c.Tokenizer.Config()
		cfg.ContextLength = unlimitedText
		var err error
		if whole, err = tokenizer.New(cfg); err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
	}
	var mu sync.Mutex
	var workers []*textWorker
	state := func() *textWorker {
		mu.Lock()
		defer mu.Unlock()
		workers = append(workers, &textWorker{})
		return workers[len(workers)-1]
	}
	err := each(ctx, c, "checking captions", c.set.Len(), state, func(w *textWorker, row int) (fs []Finding, _ error) {
		admitted := 0
		for k, caption := range c.set.Captions(row) {
			fs = append(fs, c.caption(row, k, caption.Text)...)
			if c.Admits != nil && !c.Admits(caption) {
				continue
			}
			admitted++
			if whole == nil {
				continue
			}
			w.ids = whole.Encode(caption.Text, w.ids[:0])
			n, limit := len(w.ids), c.Tokenizer.ContextLength()
			w.captions++
			w.tokens += n
			w.longest = max(w.longest, n)
			if lost := n - limit; lost > 0 {
				w.tooLong++
				w.lost += lost
				w.losses[bits.Len(uint(lost))]++
				kept := whole.Decode(w.ids[:limit-1])
				fs = append(fs, c.found(CaptionTooLong, row, k, -1, "loses %d of %d tokens, all after …%s", lost, n-2, tail(kept, 24)))
			}
		}
		if n := len(c.set.Captions(row)); n == 0 {
			fs = append(fs, c.found(CaptionNone, row, -1, -1, "no caption"))
		} else if admitted == 0 && c.set.Meta()[row].Split == c.Split {
			fs = append(fs, c.found(CaptionNone, row, -1, -1, "none of its %d captions has a kind and language that the recipe takes", n))
		}
		return fs, nil
	})
	if err != nil || whole == nil {
		return nil, err
	}
	t := &TokenStats{Tokenizer: c.Tokenizer.Config(), ContextLength: c.Tokenizer.ContextLength(), Losses: []Loss{}}
	tokens := 0
	var losses [32]int
	for _, w := range workers {
		t.Captions += w.captions
		tokens += w.tokens
		t.Longest = max(t.Longest, w.longest)
		t.TooLong += w.tooLong
		t.LostTokens += w.lost
		for i, n := range w.losses {
			losses[i] += n
		}
	}
	t.Mean = float64(tokens) / float64(max(1, t.Captions))
	for i, n := range losses {
		if n > 0 {
			t.Losses = append(t.Losses, Loss{1 << (i - 1), 1<<i - 1, n})
		}
	}
	return t, c.words(ctx, t, whole)
}

// tail is the end of s, at most n runes.
func tail(s string, n int) string {
	r := []rune(s)
	return string(r[max(0, len(r)-n):])
}

// words measures how the tokenizer cuts the words of the captions.
func (c *checker) words(ctx context.Context, t *TokenStats, whole tokenizer.Tokenizer) error {
	count := map[string]int{}
	for row := range c.set.Len() {
		if row%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for _, caption := range c.set.Captions(row) {
			if c.Admits != nil && !c.Admits(caption) {
				continue
			}
			for word := range strings.FieldsFuncSeq(caption.Text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }) {
				word = strings.ToLower(word)
				if _, ok := count[word]; ok || len(count) < mostWords {
					count[word]++
				}
			}
		}
	}
	t.Distinct = len(count)
	whole1, unknown := 0, 0
	var strange []string
	var ids []int32
	for word, n := range count {
		ids = whole.Encode(word, ids[:0])
		t.Words += n
		switch tokens := len(ids) - 2; {
		case tokens == 1:
			whole1 += n
		case float64(len(word)) <= unknownBytes*float64(tokens):
			unknown += n
			strange = append(strange, word)
		}
	}
	t.Whole, t.Unknown = float64(whole1)/float64(max(1, t.Words)), float64(unknown)/float64(max(1, t.Words))
	slices.SortFunc(strange, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), strings.Compare(a, b)) })
	t.Examples = append([]string{}, strange[:min(len(strange), wordExamples)]...)
	if t.Unknown > unknownShare {
		c.add(WordsUnknown, -1, -1, -1, "%.1f %% of the words are spelled nearly byte by byte, such as %s", 100*t.Unknown, strings.Join(t.Examples[:min(len(t.Examples), 5)], ", "))
	}
	return nil
}

// caption checks one text.
func (c *checker) caption(row, k int, text string) (fs []Finding) {
	find := func(kind Kind, format string, args ...any) {
		fs = append(fs, c.found(kind, row, k, -1, format, args...))
	}
	switch {
	case text == "":
		find(CaptionEmpty, "no characters")
		return fs
	case blank(text):
		find(CaptionBlank, "%q", clip(text))
		return fs
	}
	if strings.ContainsRune(text, utf8.RuneError) {
		find(CaptionReplaced, "%q", clip(text))
	}
	if now := unmojibake(text); now != text {
		find(CaptionMojibake, "%q, probably %q", clip(text), clip(now))
		text = now // what it hides is not wrong by itself
	}
	if i := strings.IndexFunc(text, invisible); i >= 0 {
		r, _ := utf8.DecodeRuneInString(text[i:])
		find(CaptionControl, "%U in %q", r, clip(text))
	}
	if url := address.FindString(text); url != "" {
		find(CaptionURL, "%s", clip(url))
	}
	if m := markup(address.ReplaceAllString(text, "")); m != "" {
		find(CaptionMarkup, "%s in %q", m, clip(text))
	}
	return fs
}

// clip shortens a text for a finding.
func clip(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// blank says whether nothing of a text can be seen.
func blank(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) && !unicode.In(r, unicode.Cc, unicode.Cf) }) < 0
}

// invisible are characters that mean nothing in a caption: controls but for white space, byte order marks, zero width spaces.
// Joiners and variation selectors make up emoji and scripts.
func invisible(r rune) bool {
	return unicode.IsControl(r) && !unicode.IsSpace(r) || r == 0x85 || r == 0xfeff || r == 0x200b || 0xfff9 <= r && r <= 0xfffb
}

var (
	address   = regexp.MustCompile(`(?i)\b(?:https?://|www\.)[^\s<>"']+`)
	reference = regexp.MustCompile(`&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]{1,31});`)
	tag       = regexp.MustCompile(`(?i)</?(?:a|b|big|br|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|small|span|strong|sub|sup|table|td|tr|u|ul)(?:\s[^<>]*)?/?>`)
)

// markup returns the first HTML tag or character reference of a text.
func markup(s string) string {
	if m := tag.FindString(s); m != "" {
		return m
	}
	for _, m := range reference.FindAllString(s, -1) {
		if html.UnescapeString(m) != m {
			return m
		}
	}
	return ""
}

// plain is a text without markup. Texts of the web are often escaped twice, so it goes on while anything changes.
func plain(s string) string {
	for range 4 {
		now := tag.ReplaceAllString(reference.ReplaceAllStringFunc(s, html.UnescapeString), " ")
		if now == s {
			break
		}
		s = now
	}
	return s
}

// visible is a text without invisible characters.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if invisible(r) {
			return -1
		}
		return r
	}, s)
}

// unmojibake decodes the parts of a text that are UTF-8 read as Windows-1252, such as "cafÃ©" and "donâ€™t". A part is taken
// for that when its characters, back as bytes, are UTF-8 of two or more bytes each. Real text can look alike where an accented
// capital meets a closing mark, as in the quoted word “CAFÉ”; it is left alone.
func unmojibake(s string) string {
	runes := []rune(s)
	var out []rune
	changed := false
	for i := 0; i < len(runes); {
		end, decoded := i, []byte(nil)
		for ; end < len(runes) && runes[end] >= 0x80; end++ {
			b, ok := windows1252(runes[end])
			if !ok {
				break
			}
			decoded = append(decoded, b)
		}
		if len(decoded) < 2 || !utf8.Valid(decoded) || genuine(runes, i, end) {
			end = max(end, i+1)
			out = append(out, runes[i:end]...)
		} else {
			out = append(out, []rune(string(decoded))...)
			changed = true
		}
		i = end
	}
	if !changed {
		return s
	}
	if again := string(out); again != s && strings.ContainsFunc(again, func(r rune) bool { return r >= 0x80 }) {
		return unmojibake(again) // it may have happened twice
	}
	return string(out)
}

// genuine says whether runes[i:end] is an accented letter before a mark rather than broken UTF-8: one of two characters, the
// first a letter that ends a word in capitals, the second a closing mark.
func genuine(runes []rune, i, end int) bool {
	if end-i != 2 {
		return false
	}
	mark := strings.ContainsRune("’”…–—™®»", runes[i+1])
	capital := i > 0 && unicode.IsUpper(runes[i-1])
	common := runes[i] == 'Ã' || runes[i] == 'Â' // of nearly all double-encoded Latin text
	return mark && (capital || !common)
}

// windows1252 is the byte that Windows-1252 reads as r; bytes that it leaves open are read as Latin-1 does.
func windows1252(r rune) (byte, bool) {
	if 0x80 <= r && r <= 0x9f {
		return byte(r), true
	}
	return charmap.Windows1252.EncodeRune(r)
}

// fold makes texts equal that differ in case, white space or the form of their characters only.
func fold(s string) string {
	return strings.ToLower(strings.Join(strings.Fields(norm.NFKC.String(s)), " "))
}

// repeatedCaptions finds sentences that stand twice with a picture, and those that stand with many.
func (c *checker) repeatedCaptions() {
	type common struct {
		row, caption, last int32 // last group that had it
		groups             int32
	}
	meta := c.set.Meta()
	group, groups := make([]int32, len(meta)), int32(0)
	index := map[string]int32{}
	for i := range meta {
		g, ok := index[meta[i].Group]
		if !ok || meta[i].Group == "" {
			g = groups
			groups++
			index[meta[i].Group] = g
		}
		group[i] = g
	}
	order := make([]int32, len(meta)) // groups in one piece, so that each counts once
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(group[a], group[b]) })
	seen := map[uint64]*common{}
	for _, row := range order {
		captions := c.set.Captions(int(row))
		folded := make([]string, len(captions))
		for k, cp := range captions {
			folded[k] = fold(cp.Text)
			if folded[k] == "" {
				continue
			}
			if first := slices.Index(folded[:k], folded[k]); first >= 0 {
				if captions[first].Lang == cp.Lang { // a name may be the same in two languages
					c.add(CaptionRepeated, int(row), k, -1, "%q is caption %d too", clip(cp.Text), first)
				}
				continue
			}
			h := addr.Name(folded[k])
			e := seen[h]
			if e == nil {
				seen[h] = &common{row: row, caption: int32(k), last: group[row], groups: 1}
			} else if e.last != group[row] {
				e.last = group[row]
				e.groups++
			}
		}
	}
	for _, e := range seen { // findings are sorted later
		if float64(e.groups) > max(commonGroups, commonShare*float64(groups)) {
			text := c.set.Captions(int(e.row))[e.caption].Text
			c.add(CaptionCommon, int(e.row), int(e.caption), -1, "%q stands with pictures of %d groups", clip(text), e.groups)
		}
	}
}

// captionsKey is equal for rows with the same captions.
func captionsKey(captions []arrowset.Caption) uint64 {
	words := make([]uint64, len(captions))
	for k, cp := range captions {
		words[k] = addr.Name(fold(cp.Text))
	}
	slices.Sort(words)
	return addr.Hash(words...)
}
