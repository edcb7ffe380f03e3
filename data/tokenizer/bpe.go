package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"diptych/internal/addr"
)

// BPE is CLIP's byte-pair encoding (Sennrich et al. 2016, on bytes as in Radford et al. 2019): a word is its UTF-8
// bytes, of which the last also marks the word's end, and the pair of neighbours with the lowest rank is merged until no
// neighbours form a known pair.
type BPE struct {
	*merges
	cfg Config

	// mu guards cache, the ids of words met before. It takes no more words once it is full: frequent words come early.
	mu    sync.RWMutex
	cache map[string][]int32
}

const (
	maxCachedWords = 1 << 16
	maxCachedBytes = 64 // a longer word is hardly met twice
)

var _ Tokenizer = (*BPE)(nil)

func newBPE(m *merges, cfg Config) *BPE {
	return &BPE{merges: m, cfg: cfg, cache: make(map[string][]int32)}
}

// VocabSize returns the number of ids: 512 byte symbols, the merges, bos and eos.
func (t *BPE) VocabSize() int { return firstMerge + len(t.pairs) + 2 }

// ContextLength returns the longest encoding in tokens.
func (t *BPE) ContextLength() int { return t.cfg.ContextLength }

// BOS returns the id that begins every encoding.
func (t *BPE) BOS() int32 { return int32(firstMerge + len(t.pairs)) }

// EOS returns the id that ends every encoding, the largest of the vocabulary.
func (t *BPE) EOS() int32 { return t.BOS() + 1 }

// Mask returns -1: CLIP's vocabularies have no such id.
func (t *BPE) Mask() int32 { return -1 }

// Config returns the configuration that opens an equal tokenizer. That of a BPE from TrainBPE has no File yet.
func (t *BPE) Config() Config { return t.cfg }

// Encode appends bos, the ids of text and eos to dst; see Tokenizer.
func (t *BPE) Encode(text string, dst []int32) []int32 { return t.encode(text, dst, nil) }

// EncodeDropout is Encode with BPE-dropout (Provilkov et al. 2020, §4): each merge that could be next is passed over with a
// chance of prob, so that a word is now one entry of the vocabulary and now several. A tower that sees both learns what
// the parts of words mean, and the words that training never shows are made of parts. The same key gives the same ids.
func (t *BPE) EncodeDropout(text string, dst []int32, prob float64, key uint64) []int32 {
	return t.encode(text, dst, &dropout{prob: prob, key: key})
}

// dropout draws, from an address, which merges are passed over.
type dropout struct {
	prob  float64
	key   uint64
	draws uint64
}

func (d *dropout) skips() bool {
	d.draws++
	return addr.Float64(addr.Hash(d.key, d.draws)) < d.prob
}

func (t *BPE) encode(text string, dst []int32, drop *dropout) []int32 {
	start := len(dst)
	dst = append(dst, t.BOS())
	for rest := clean(text); rest != ""; {
		var w word
		w, rest = nextWord(rest)
		switch w.special {
		case specialStart:
			dst = append(dst, t.BOS())
		case specialEnd:
			dst = append(dst, t.EOS())
		default:
			dst = t.appendWord(dst, w.text, drop)
		}
		if last := start + t.cfg.ContextLength - 1; len(dst) >= last {
			dst = dst[:last]
			break
		}
	}
	return append(dst, t.EOS())
}

// appendWord appends the ids of one pre-token.
func (t *BPE) appendWord(dst []int32, w string, drop *dropout) []int32 {
	if w == "" {
		return dst
	}
	if drop != nil {
		return t.appendMerged(dst, w, drop)
	}
	t.mu.RLock()
	ids, ok := t.cache[w]
	t.mu.RUnlock()
	if ok {
		return append(dst, ids...)
	}
	start := len(dst)
	dst = t.appendMerged(dst, w, nil)
	if len(w) <= maxCachedBytes {
		t.mu.Lock()
		if len(t.cache) < maxCachedWords {
			// Both copies matter: w shares the memory of a whole caption, and dst is the caller's.
			t.cache[strings.Clone(w)] = slices.Clone(dst[start:])
		}
		t.mu.Unlock()
	}
	return dst
}

// link is one symbol of a word under merging, in a doubly linked list over the word's bytes; prev and next are -1 at the
// ends. A symbol that was merged into its left neighbour has id -1.
type link struct{ id, prev, next int32 }

// appendMerged appends the ids of w, which is not empty, by merging. Lowest rank first and left to right, it does what
// CLIP's loop over "all occurrences of the best pair" does: a pair's merge can only make pairs of higher rank, since a
// merge is listed after those that made its halves. The heap keeps a very long word from taking quadratic time. A merge
// that drop passes over may come again after the next one that is made.
func (t *BPE) appendMerged(dst []int32, w string, drop *dropout) []int32 {
	links := make([]link, len(w))
	for i := range len(w) {
		links[i] = link{id: byteID[w[i]], prev: int32(i - 1), next: int32(i + 1)}
	}
	last := &links[len(w)-1]
	last.id += endOffset
	last.next = -1

	// A candidate is rank<<32 | position of its left half. It is stale when that pair is no longer there.
	var heap minHeap
	var passed []uint64
	propose := func(left int32) {
		if right := links[left].next; right >= 0 {
			if id, ok := t.ids[pair{links[left].id, links[right].id}]; ok {
				heap.push(uint64(id)<<32 | uint64(left))
			}
		}
	}
	for i := range int32(len(w)) {
		propose(i)
	}
	for len(heap) > 0 {
		c := heap.pop()
		id, left := int32(c>>32), int32(uint32(c))
		l := &links[left]
		if l.id < 0 || l.next < 0 {
			continue
		}
		r := &links[l.next]
		if (t.pairs[id-firstMerge] != pair{l.id, r.id}) {
			continue
		}
		if drop != nil {
			if drop.skips() {
				passed = append(passed, c)
				continue
			}
			for _, c := range passed {
				heap.push(c)
			}
			passed = passed[:0]
		}
		l.id, l.next, r.id = id, r.next, -1
		if l.next >= 0 {
			links[l.next].prev = left
		}
		if l.prev >= 0 {
			propose(l.prev)
		}
		propose(left)
	}
	for i := int32(0); i >= 0; i = links[i].next {
		dst = append(dst, links[i].id)
	}
	return dst
}

// minHeap is a binary heap of numbers, the least first.
type minHeap []uint64

func (h *minHeap) push(x uint64) {
	*h = append(*h, x)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if s[parent] <= s[i] {
			break
		}
		s[parent], s[i] = s[i], s[parent]
		i = parent
	}
}

func (h *minHeap) pop() uint64 {
	s := *h
	top := s[0]
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	for i := 0; ; {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < n && s[child] < s[least] {
				least = child
			}
		}
		if least == i {
			break
		}
		s[least], s[i] = s[i], s[least]
		i = least
	}
	*h = s
	return top
}

// Decode returns the text of ids; see Tokenizer.
func (t *BPE) Decode(ids []int32) string {
	var text []byte
	for _, id := range ids {
		switch {
		case id == t.BOS() || id == t.EOS():
		case id < 0 || int(id) >= t.VocabSize():
			text = utf8.AppendRune(text, utf8.RuneError)
		default:
			text = t.appendBytes(text, id)
			if t.ends(id) {
				text = append(text, ' ')
			}
		}
	}
	return strings.ToValidUTF8(strings.TrimSuffix(string(text), " "), "\uFFFD")
}

// Words numbers the words of ids; see Tokenizer.
func (t *BPE) Words(ids, dst []int32) []int32 {
	word, inside := int32(-1), false
	for _, id := range ids {
		if id < 0 || id >= t.BOS() {
			dst = append(dst, -1)
			inside = false
			continue
		}
		if !inside {
			word++
		}
		dst = append(dst, word)
		inside = !t.ends(id)
	}
	return dst
}

// Tokens spells ids; see Tokenizer.
func (t *BPE) Tokens(ids []int32) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		switch {
		case id == t.BOS():
			names[i] = startOfText
		case id == t.EOS():
			names[i] = endOfText
		case id < 0 || int(id) >= t.VocabSize():
			names[i] = string(utf8.RuneError)
		default:
			names[i] = t.symbol(id)
		}
	}
	return names
}

// Text returns the content of a merges file, which opens an equal tokenizer.
func (t *BPE) Text() []byte { return t.appendText(nil) }

// WriteFile writes the merges in CLIP's text format, which New reads (kind "bpe"). The file appears whole or not at all.
func (t *BPE) WriteFile(path string) error { return writeFile(path, t.appendText(nil)) }
