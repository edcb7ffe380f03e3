// Package data turns a set of rows into the batches of a run: the order of samples, the choice of captions, decoding,
// transforms and tokens. What the rows are stored in is arrowset's, what travels is batch's. Start at Source.
package data

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"

	"diptych/data/batch"
	"diptych/data/tokenizer"
	"diptych/data/transform"
	"diptych/internal/addr"
)

// Rows is the data set as a Source reads it; *arrowset.Set is one.
type Rows interface {
	Image(ctx context.Context, row int) ([]byte, error)
}

// Seconder is Rows of which each has a second picture.
type Seconder interface {
	Second(ctx context.Context, row int) ([]byte, error)
}

// Fetcher is Rows that lie elsewhere and can be brought near before they are asked for.
type Fetcher interface {
	// Fetch is told of a row of each shard that will be needed, the nearest first; nil means all. It does not wait.
	Fetch(rows []int)
}

// Part is one of the data sets that a source takes its pairs from.
type Part struct {
	Name     string                                               // of the set, for errors
	Rows     Rows                                                 // may be a Fetcher
	Captions func(ctx context.Context, row int) ([]string, error) // those that may be drawn, at least one
	ID       func(row int) string                                 // the picture's name or "", for messages; may be nil
	Label    func(ctx context.Context, row int) (int32, error)    // class of a row; nil where the recipe names no classes
	// Answers are the right answers to each of Captions; nil where no objective learns any.
	Answers func(ctx context.Context, row int) ([][]batch.Answer, error)
	Order   *Order // of the part's share of each batch
	Len     int    // rows of the whole set: those of the next part are numbered from here on
	Samples int    // rows that the order is over
}

// part is a Part at its place among the others.
type part struct {
	Part
	base  int   // what is added to its rows and groups, so that no two parts have one in common
	slots int   // where its share of a batch begins, before slots are mixed
	ahead []int // what it was told to fetch
}

// Sample is a row of the split with what training needs of it beside the picture.
type Sample struct {
	Row      int              // in the data set
	ID       string           // of its picture, for messages; may be empty
	Group    string           // empty: its own group
	Captions []string         // at least one, unless Options have no tokenizer
	Label    int32            // class; of no meaning unless Options ask for it
	Answers  [][]batch.Answer // to each caption; of no meaning unless Options ask for them
}

// Source gives the batch of any update. It is safe for concurrent use.
//
// Of several parts, each has the same share of every batch (see Shares), in the order of its own and with its own epochs, so
// the position of each follows from the update alone. Which slots a part has is drawn for each update: slot i holds number
// μ(seed, update)[i] of the parts' shares laid end to end. No batch holds a group twice, as none of the parts' does; groups of
// different sets are different groups, whatever their names.
type Source struct {
	parts   []part
	batch   int
	samples int
	seed    uint64
	pipe    *transform.Pipeline
	tok     tokenizer.Tokenizer
	cache   cache
	limit   int     // of broken rows
	dropout float64 // of merges
	second  bool    // pictures are read

	mu     sync.Mutex
	broken map[int]string // row -> why, of all that were met, also in batches that are prepared ahead
	taken  map[int]string // those of the batches that were taken, which count
}

// Options are what a Source needs beside the rows.
type Options struct {
	Seed        uint64
	Batch       int // N, pairs of an update
	Pipeline    *transform.Pipeline
	Tokenizer   tokenizer.Tokenizer // nil: pairs have no tokens
	Labels      bool                // NewSource: pairs have the samples' labels
	Answers     bool                // NewSource: pairs have the answers to their captions
	Second      bool                // pairs have a second picture: Rows are Seconders
	BrokenLimit float64             // share of the samples
	CacheBytes  int
	// MergeDropout is the chance of each merge of byte pairs to be passed over while a caption is encoded (BPE-dropout). A
	// tokenizer without merges refuses it.
	MergeDropout float64
}

// subwords is a tokenizer that can cut words in several ways; *tokenizer.BPE is one.
type subwords interface {
	EncodeDropout(text string, dst []int32, prob float64, key uint64) []int32
}

// NewSource returns a source over samples, in the order given.
func NewSource(rows Rows, samples []Sample, o Options) (*Source, error) {
	index := make(map[int]*Sample, len(samples))
	length := 0
	var groups [][]int32
	numbers := map[string]int{}
	for i := range samples {
		sm := &samples[i]
		if len(sm.Captions) == 0 && o.Tokenizer != nil {
			return nil, fmt.Errorf("data: row %d (%s) has no caption of the chosen kinds and languages", sm.Row, sm.ID)
		}
		index[sm.Row] = sm
		length = max(length, sm.Row+1)
		g, ok := numbers[sm.Group]
		if !ok || sm.Group == "" {
			g = len(groups)
			groups = append(groups, nil)
			numbers[sm.Group] = g
		}
		groups[g] = append(groups[g], int32(sm.Row))
	}
	order, err := NewOrder(o.Seed, o.Batch, groups)
	if err != nil {
		return nil, err
	}
	part := Part{
		Rows: rows, Order: order, Len: length, Samples: len(samples),
		Captions: func(_ context.Context, row int) ([]string, error) { return index[row].Captions, nil },
		ID:       func(row int) string { return index[row].ID },
	}
	if o.Labels {
		part.Label = func(_ context.Context, row int) (int32, error) { return index[row].Label, nil }
	}
	if o.Answers {
		part.Answers = func(_ context.Context, row int) ([][]batch.Answer, error) { return index[row].Answers, nil }
	}
	return NewMixed([]Part{part}, o)
}

// NewMixed returns a source over parts, whose orders' batches must add up to o.Batch.
func NewMixed(parts []Part, o Options) (*Source, error) {
	s := &Source{
		batch: o.Batch, seed: o.Seed, pipe: o.Pipeline, tok: o.Tokenizer, dropout: o.MergeDropout,
		cache: cache{left: o.CacheBytes}, broken: map[int]string{}, taken: map[int]string{}, second: o.Second,
	}
	if _, ok := o.Tokenizer.(subwords); !ok && o.MergeDropout > 0 {
		return nil, fmt.Errorf("data: mergeDropout %v wants a byte-pair tokenizer, of kind bpe or clip", o.MergeDropout)
	}
	base, slots := 0, 0
	for _, p := range parts {
		if _, ok := p.Rows.(Seconder); o.Second && !ok {
			return nil, fmt.Errorf("data: %s has no second pictures", p.Name)
		}
		s.parts = append(s.parts, part{Part: p, base: base, slots: slots})
		base, slots, s.samples = base+p.Len, slots+p.Order.batch, s.samples+p.Samples
	}
	if slots != o.Batch {
		return nil, fmt.Errorf("data: the parts have %d pairs in a batch of %d", slots, o.Batch)
	}
	if base > math.MaxInt32 {
		return nil, fmt.Errorf("data: %d rows in all; at most 2³¹-1 are possible", base)
	}
	s.limit = int(o.BrokenLimit * float64(s.samples))
	return s, nil
}

// Shares divides a batch of n pairs by weights: ⌊n·w/Σw⌋ each, and one more for those with the largest remainders, the first
// of equals first. A weight too small for one pair is an error.
func Shares(weights []float64, n int) ([]int, error) {
	sum := 0.0
	for i, w := range weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("data: weight %d is %v, want a positive number", i+1, w)
		}
		sum += w
	}
	shares, order, left := make([]int, len(weights)), make([]int, len(weights)), n
	rest := make([]float64, len(weights))
	for i, w := range weights {
		exact := float64(n) * w / sum
		shares[i] = int(exact)
		rest[i], order[i] = exact-math.Floor(exact), i
		left -= shares[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rest[b], rest[a]) })
	for _, i := range order[:left] {
		shares[i]++
	}
	for i, k := range shares {
		if k == 0 {
			return nil, fmt.Errorf("data: weight %d, %v of %v in all, is less than a pair in a batch of %d; give it at least %.3g", i+1, weights[i], sum, n, sum/float64(n))
		}
	}
	return shares, nil
}

// at returns the part that slot i of update u belongs to, and the slot's number in the part's share.
func (s *Source) at(u, i int) (*part, int) {
	if len(s.parts) == 1 {
		return &s.parts[0], i
	}
	perm := addr.NewPerm(addr.Hash(s.seed, addr.Name("mix"), uint64(u)), uint64(s.batch))
	i = int(perm.At(uint64(i)))
	k := sort.Search(len(s.parts), func(k int) bool { return s.parts[k].slots > i }) - 1
	return &s.parts[k], i - s.parts[k].slots
}

// fetch tells the parts that lie elsewhere what the updates from u on need.
func (s *Source) fetch(u int) {
	for k := range s.parts {
		p := &s.parts[k]
		if f, ok := p.Rows.(Fetcher); ok {
			rows := p.Order.Ahead(u)
			s.mu.Lock()
			same := p.ahead != nil && slices.Equal(rows, p.ahead)
			p.ahead = append([]int{}, rows...)
			s.mu.Unlock()
			if !same {
				f.Fetch(rows)
			}
		}
	}
}

// RowName is what messages call a row of a batch.
func (s *Source) RowName(row int) string {
	k := sort.Search(len(s.parts), func(k int) bool { return s.parts[k].base > row }) - 1
	p := &s.parts[k]
	name := fmt.Sprintf("row %d", row-p.base)
	if p.ID != nil {
		if id := p.ID(row - p.base); id != "" {
			name += " (" + id + ")"
		}
	}
	if len(s.parts) > 1 {
		name = p.Name + ", " + name
	}
	return name
}

// Samples returns the number of rows that the order is over.
func (s *Source) Samples() int { return s.samples }

// Groups returns the number of groups that the samples fall into.
func (s *Source) Groups() int {
	n := 0
	for i := range s.parts {
		n += s.parts[i].Order.Groups()
	}
	return n
}

// At fills b with the batch of update u, the positions [u·N, (u+1)·N) of the run's order. It depends on nothing but the
// recipe, the data and u, so resuming is calling it with another u. A picture that does not decode is replaced by the
// substitute of its slot and listed in b.Broken; more broken rows in the batches so far than the recipe allows is an error
// that names them.
func (s *Source) At(ctx context.Context, u int, b *batch.Batch) error {
	s.prepare(u, b)
	var err error
	for i := 0; i < len(b.Pairs) && err == nil; i++ {
		err = s.slot(ctx, b, i, new(worker))
	}
	return s.take(b, err)
}

// prepare sizes b for update u.
func (s *Source) prepare(u int, b *batch.Batch) {
	b.Step, b.Broken = u, b.Broken[:0]
	if len(b.Pairs) > 0 {
		return
	}
	b.Pairs = make([]batch.Pair, s.batch)
	if w, h := s.pipe.Size(); w > 0 {
		n := w * h * 3
		b.Pixels = make([]uint8, n*s.batch)
		for i := range b.Pairs {
			b.Pairs[i].Pixels = b.Pixels[i*n : (i+1)*n : (i+1)*n]
		}
	}
}

// worker is what one goroutine reuses from slot to slot.
type worker struct {
	decoded, prepared, out transform.Image
	scratch                transform.Scratch
}

// slot fills pair i of b.
func (s *Source) slot(ctx context.Context, b *batch.Batch, i int, w *worker) error {
	u := b.Step
	p, j := s.at(u, i)
	for k := range p.Order.perEp {
		group, row := p.Order.substitute(u, j, k)
		reason, err := s.fill(ctx, u, i, p, group, row, &b.Pairs[i], w)
		if err != nil {
			return fmt.Errorf("data: update %d, slot %d: %w", u, i, err)
		}
		if reason == "" {
			return nil
		}
		row += p.base
		s.mu.Lock()
		s.broken[row] = reason
		b.Broken = append(b.Broken, batch.Broken{Row: row, Slot: i, Reason: reason})
		if len(b.Broken) > s.limit { // all of them different rows: the batch will be refused, so do not search on
			err = s.tooMany(b.Broken)
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("data: update %d, slot %d: none of the %d pictures that could stand there decodes: %w", u, i, p.Order.perEp, transform.ErrBadPicture)
}

// take counts the broken rows of a batch that is handed out, or that err refuses. They count in the order of updates, not when
// they are found, so that too many stop every run of the recipe at the same update.
func (s *Source) take(b *batch.Batch, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range b.Broken {
		s.taken[x.Row] = x.Reason
		if len(s.taken) > s.limit {
			var all []batch.Broken
			for row, reason := range s.taken {
				all = append(all, batch.Broken{Row: row, Reason: reason})
			}
			return s.tooMany(all)
		}
	}
	return err
}

// tooMany is the error of more broken rows than the recipe allows.
func (s *Source) tooMany(rows []batch.Broken) error {
	rows = slices.SortedFunc(slices.Values(rows), func(a, b batch.Broken) int { return cmp.Compare(a.Row, b.Row) })
	var names strings.Builder
	for i, x := range rows {
		if i == 5 {
			names.WriteString("; …")
			break
		}
		fmt.Fprintf(&names, "; %s: %s", s.RowName(x.Row), x.Reason)
	}
	return fmt.Errorf("data: %d pictures do not decode, data.brokenLimit allows %d of %d: %s: %w",
		len(rows), s.limit, s.samples, names.String()[2:], transform.ErrBadPicture)
}

// Broken returns the broken rows of all batches that were handed out, and why each is: what a checkpoint must hold so that the
// count goes on.
func (s *Source) Broken() map[int]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.taken)
}

// Resume puts back what Broken returned, before the first batch is asked for.
func (s *Source) Resume(broken map[int]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.taken, broken)
}

// fill makes the pair of a part's row for slot i of update u. reason says why its picture is broken.
func (s *Source) fill(ctx context.Context, u, i int, from *part, group, row int, p *batch.Pair, w *worker) (reason string, err error) {
	number := from.base + row // in all parts
	s.mu.Lock()
	reason, known := s.broken[number]
	s.mu.Unlock()
	if known {
		return reason, nil
	}
	at := func(purpose string) uint64 { return addr.Hash(s.seed, addr.Name(purpose), uint64(u), uint64(i)) }
	own := batch.Picture{Pixels: p.Pixels}
	err = s.picture(number, at("transform"), func() ([]byte, error) { return from.Rows.Image(ctx, row) }, &own, w)
	if err == nil && s.second {
		err = s.picture(^number, at("transform.second"), func() ([]byte, error) { return from.Rows.(Seconder).Second(ctx, row) }, &p.Second, w)
	}
	if errors.Is(err, transform.ErrBadPicture) {
		return err.Error(), nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.RowName(number), err)
	}
	p.Pixels, p.Height, p.Width = own.Pixels, own.Height, own.Width
	p.Row, p.Group = number, int32(from.base+group)
	if from.Label != nil {
		if p.Label, err = from.Label(ctx, row); err != nil {
			return "", fmt.Errorf("%s: %w", s.RowName(number), err)
		}
	}
	if s.tok == nil {
		return "", nil
	}
	captions, err := from.Captions(ctx, row)
	if err != nil {
		return "", err
	}
	drawn := addr.Below(at("caption"), len(captions))
	caption := captions[drawn]
	if from.Answers != nil {
		answers, err := from.Answers(ctx, row)
		if err != nil {
			return "", err
		}
		p.Answers = answers[drawn]
	}
	if s.dropout > 0 {
		p.Tokens = s.tok.(subwords).EncodeDropout(caption, p.Tokens[:0], s.dropout, at("merges"))
	} else {
		p.Tokens = s.tok.Encode(caption, p.Tokens[:0])
	}
	return "", nil
}

// picture makes a picture that read gives, by the transforms that key draws, in the memory of out. number is that of the cache.
func (s *Source) picture(number int, key uint64, read func() ([]byte, error), out *batch.Picture, w *worker) error {
	im := s.cache.get(number)
	if im == nil {
		raw, err := read()
		if err != nil {
			return err
		}
		if err := s.pipe.Decode(raw, &w.decoded, &w.scratch); err != nil {
			return err
		}
		if err := s.pipe.Prepare(&w.decoded, &w.prepared, &w.scratch); err != nil {
			return err
		}
		im = s.cache.put(number, &w.prepared)
	}
	w.out.Pix = out.Pixels
	err := s.pipe.Finish(im, key, &w.out, &w.scratch)
	out.Pixels, out.Height, out.Width = w.out.Pix, w.out.H, w.out.W
	return err
}

// cache keeps pictures as Pipeline.Prepare made them, until its memory is used up.
type cache struct {
	mu   sync.RWMutex
	m    map[int]*transform.Image
	left int // bytes
}

func (c *cache) get(row int) *transform.Image {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[row]
}

// put returns a copy of im that stays, or im itself when there is no room.
func (c *cache) put(row int, im *transform.Image) *transform.Image {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < len(im.Pix) {
		return im
	}
	if have := c.m[row]; have != nil { // another goroutine was first
		return have
	}
	if c.m == nil {
		c.m = map[int]*transform.Image{}
	}
	c.left -= len(im.Pix)
	kept := &transform.Image{W: im.W, H: im.H, Pix: slices.Clone(im.Pix)}
	c.m[row] = kept
	return kept
}
