package tokenizer

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"iter"
	"slices"
)

const (
	// MinVocabSize is the size of a vocabulary without merges: 512 byte symbols, bos, eos.
	MinVocabSize = firstMerge + 2
	// MaxVocabSize is the largest vocabulary that TrainBPE makes.
	MaxVocabSize = 1 << 20
	// minPairCount is how often a pair must stand in the texts to become a merge. Once is no evidence, and would spend an
	// embedding on one text.
	minPairCount = 2
	// checkEvery is how many texts or merges go by between two looks at the context.
	checkEvery = 1024
)

// TrainBPE learns merges from texts, cleaned and cut into words as Encode does: it merges the most frequent pair of
// neighbours again and again until the vocabulary has vocabSize entries, MinVocabSize of them without merges (Sennrich
// et al. 2016, Algorithm 1). Of pairs of equal counts the one first in byte order of its left half, then of its right
// half, is taken, so the result depends on nothing but the words' counts. It stops early, with fewer entries, when no
// pair is left that stands twice. It holds each distinct word once.
func TrainBPE(ctx context.Context, texts iter.Seq[string], vocabSize int) (*BPE, error) {
	if vocabSize < MinVocabSize || vocabSize > MaxVocabSize {
		return nil, fmt.Errorf("tokenizer: train: vocabulary size %d is outside %d (512 byte symbols, bos, eos) to %d",
			vocabSize, MinVocabSize, MaxVocabSize)
	}
	counts, err := countWords(ctx, texts)
	if err != nil {
		return nil, err
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("tokenizer: train: the texts have no words")
	}
	tr := newTrainer(counts)
	for n := 0; len(tr.merges.pairs) < vocabSize-MinVocabSize; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("tokenizer: train: %w", err)
			}
		}
		p, ok := tr.best()
		if !ok {
			break
		}
		tr.merge(p)
	}
	return newBPE(tr.merges, Config{Kind: "bpe", ContextLength: Default().ContextLength}), nil
}

// countWords counts the pre-tokens of texts.
func countWords(ctx context.Context, texts iter.Seq[string]) (map[string]int, error) {
	counts := make(map[string]int)
	n := 0
	for text := range texts {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("tokenizer: train: %w", err)
			}
		}
		n++
		for rest := clean(text); rest != ""; {
			var w word
			if w, rest = nextWord(rest); w.text != "" {
				counts[w.text]++
			}
		}
	}
	return counts, nil
}

// trainWord is one distinct word: its symbols so far and how often it stands in the texts.
type trainWord struct {
	ids   []int32
	count int
}

// trainer keeps the counts of pairs up to date merge by merge.
type trainer struct {
	merges  *merges
	names   []string         // spelling of each id
	known   map[string]bool  // the same as a set
	words   []trainWord      // in byte order of the words
	counts  map[pair]int     // occurrences in the texts
	holders map[pair][]int32 // words that hold a pair, or held it once, in ascending order
	queue   candidates
	fresh   map[pair]bool // pairs that are not queued yet
}

func newTrainer(counts map[string]int) *trainer {
	tr := &trainer{
		merges:  &merges{ids: make(map[pair]int32)},
		known:   make(map[string]bool),
		counts:  make(map[pair]int),
		holders: make(map[pair][]int32),
		fresh:   make(map[pair]bool),
	}
	for id := range int32(firstMerge) {
		tr.name(id)
	}
	tr.queue.names = func(id int32) string { return tr.names[id] }

	texts := make([]string, 0, len(counts))
	for text := range counts {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	for i, text := range texts {
		w := trainWord{ids: make([]int32, len(text)), count: counts[text]}
		for j := range len(text) {
			w.ids[j] = byteID[text[j]]
		}
		w.ids[len(text)-1] += endOffset
		tr.words = append(tr.words, w)
		tr.add(int32(i), 0)
	}
	tr.enqueue()
	return tr
}

// name notes the spelling of a new id.
func (tr *trainer) name(id int32) {
	s := tr.merges.symbol(id)
	tr.names = append(tr.names, s)
	tr.known[s] = true
}

// add counts the pairs of word i. Those that hold an id of at least born are new, of this word at any rate: only their
// counts can rise, and only now, so they become candidates once the words at hand are done.
func (tr *trainer) add(i, born int32) {
	w := &tr.words[i]
	for j := 1; j < len(w.ids); j++ {
		p := pair{w.ids[j-1], w.ids[j]}
		tr.counts[p] += w.count
		if p.left < born && p.right < born {
			continue
		}
		tr.fresh[p] = true
		if h := tr.holders[p]; len(h) == 0 || h[len(h)-1] != i {
			tr.holders[p] = append(h, i)
		}
	}
}

// drop takes the pairs of word i off the counts.
func (tr *trainer) drop(i int32) {
	w := &tr.words[i]
	for j := 1; j < len(w.ids); j++ {
		tr.counts[pair{w.ids[j-1], w.ids[j]}] -= w.count
	}
}

// enqueue makes the fresh pairs candidates.
func (tr *trainer) enqueue() {
	for p := range tr.fresh {
		heap.Push(&tr.queue, candidate{p, tr.counts[p]})
	}
	clear(tr.fresh)
}

// best returns the pair to merge next. The count of a queued pair may have fallen since, so it goes back to its place
// with what counts says until the two agree.
func (tr *trainer) best() (pair, bool) {
	for tr.queue.Len() > 0 {
		c := heap.Pop(&tr.queue).(candidate)
		now := tr.counts[c.pair]
		switch {
		case now < minPairCount:
		case now < c.count:
			heap.Push(&tr.queue, candidate{c.pair, now})
		case tr.known[tr.names[c.left]+tr.names[c.right]]:
			// Two ways to one spelling would be two ids of one name, which no reader of the file could tell apart.
		default:
			return c.pair, true
		}
	}
	return pair{}, false
}

// merge makes p a merge and rewrites the words that hold it.
func (tr *trainer) merge(p pair) {
	id := int32(firstMerge + len(tr.merges.pairs))
	tr.merges.pairs = append(tr.merges.pairs, p)
	tr.merges.ids[p] = id
	tr.name(id)

	holders := tr.holders[p]
	delete(tr.holders, p)
	for _, i := range holders {
		w := &tr.words[i]
		if !holds(w.ids, p) {
			continue
		}
		tr.drop(i)
		w.ids = replace(w.ids, p, id)
		tr.add(i, id)
	}
	delete(tr.counts, p)
	tr.enqueue()
}

func holds(ids []int32, p pair) bool {
	for j := 1; j < len(ids); j++ {
		if ids[j-1] == p.left && ids[j] == p.right {
			return true
		}
	}
	return false
}

// replace puts id for every p in ids, left to right, in place.
func replace(ids []int32, p pair, id int32) []int32 {
	out := ids[:0]
	for j := 0; j < len(ids); j++ {
		if j+1 < len(ids) && ids[j] == p.left && ids[j+1] == p.right {
			out = append(out, id)
			j++
		} else {
			out = append(out, ids[j])
		}
	}
	return out
}

// candidate is a pair and its count when it was queued.
type candidate struct {
	pair
	count int
}

// candidates is a heap of pairs, the most frequent first, then in byte order of their spellings.
type candidates struct {
	items []candidate
	names func(int32) string
}

func (c *candidates) Len() int      { return len(c.items) }
func (c *candidates) Swap(i, j int) { c.items[i], c.items[j] = c.items[j], c.items[i] }
func (c *candidates) Push(x any)    { c.items = append(c.items, x.(candidate)) }
func (c *candidates) Pop() any {
	last := c.items[len(c.items)-1]
	c.items = c.items[:len(c.items)-1]
	return last
}

func (c *candidates) Less(i, j int) bool {
	a, b := c.items[i], c.items[j]
	return cmp.Or(
		cmp.Compare(b.count, a.count),
		cmp.Compare(c.names(a.left), c.names(b.left)),
		cmp.Compare(c.names(a.right), c.names(b.right)),
	) < 0
}
