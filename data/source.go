// Package data turns a set of rows into the batches of a run: the order of samples, the choice of captions, decoding,
// transforms and tokens. What the rows are stored in is arrowset's, what travels is batch's. Start at Source.
package data

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Sample is a row of the split with what training needs of it beside the picture.
type Sample struct {
	Row      int      // in the data set
	ID       string   // of its picture, for messages; may be empty
	Group    string   // empty: its own group
	Captions []string // at least one
}

func (s *Sample) String() string {
	if s.ID == "" {
		return fmt.Sprintf("row %d", s.Row)
	}
	return fmt.Sprintf("row %d (%s)", s.Row, s.ID)
}

// Source gives the batch of any update. It is safe for concurrent use.
type Source struct {
	rows    Rows
	samples map[int]*Sample
	order   *Order
	seed    uint64
	side    int
	pipe    *transform.Pipeline
	tok     tokenizer.Tokenizer
	cache   cache
	limit   int // of broken rows

	mu     sync.Mutex
	broken map[int]string // row -> why, of all that were met, also in batches that are prepared ahead
	taken  map[int]string // those of the batches that were taken, which count
}

// Options are what a Source needs beside the rows.
type Options struct {
	Seed        uint64
	Batch       int // N, pairs of an update
	Side        int // S, pixels
	Pipeline    *transform.Pipeline
	Tokenizer   tokenizer.Tokenizer
	BrokenLimit float64 // share of the samples
	CacheBytes  int
}

// NewSource returns a source over samples, in the order given.
func NewSource(rows Rows, samples []Sample, o Options) (*Source, error) {
	s := &Source{
		rows: rows, samples: make(map[int]*Sample, len(samples)), seed: o.Seed, side: o.Side, pipe: o.Pipeline, tok: o.Tokenizer,
		cache: cache{left: o.CacheBytes}, limit: int(o.BrokenLimit * float64(len(samples))), broken: map[int]string{}, taken: map[int]string{},
	}
	var groups [][]int32
	index := map[string]int{}
	for i := range samples {
		sm := &samples[i]
		if len(sm.Captions) == 0 {
			return nil, fmt.Errorf("data: %s has no caption of the chosen kinds and languages", sm)
		}
		s.samples[sm.Row] = sm
		g, ok := index[sm.Group]
		if !ok || sm.Group == "" {
			g = len(groups)
			groups = append(groups, nil)
			index[sm.Group] = g
		}
		groups[g] = append(groups[g], int32(sm.Row))
	}
	var err error
	s.order, err = NewOrder(o.Seed, o.Batch, groups)
	return s, err
}

// Order returns the order of samples.
func (s *Source) Order() *Order { return s.order }

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
	if len(b.Pairs) == 0 {
		n := s.side * s.side * 3
		b.Pairs = make([]batch.Pair, s.order.batch)
		b.Pixels = make([]uint8, n*s.order.batch)
		for i := range b.Pairs {
			b.Pairs[i].Pixels = b.Pixels[i*n : (i+1)*n]
		}
	}
}

// worker is what one goroutine reuses from slot to slot.
type worker struct {
	decoded, prepared transform.Image
	scratch           transform.Scratch
}

// slot fills pair i of b.
func (s *Source) slot(ctx context.Context, b *batch.Batch, i int, w *worker) error {
	u := b.Step
	for k := range s.order.perEp {
		group, row := s.order.substitute(u, i, k)
		reason, err := s.fill(ctx, u, i, group, row, &b.Pairs[i], w)
		if err != nil {
			return fmt.Errorf("data: update %d, slot %d: %w", u, i, err)
		}
		if reason == "" {
			return nil
		}
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
	return fmt.Errorf("data: update %d, slot %d: none of the %d pictures that could stand there decodes: %w", u, i, s.order.perEp, transform.ErrBadPicture)
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
		fmt.Fprintf(&names, "; %s: %s", s.samples[x.Row], x.Reason)
	}
	return fmt.Errorf("data: %d pictures do not decode, data.brokenLimit allows %d of %d: %s: %w",
		len(rows), s.limit, len(s.samples), names.String()[2:], transform.ErrBadPicture)
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

// fill makes the pair of row for slot i of update u. reason says why its picture is broken.
func (s *Source) fill(ctx context.Context, u, i, group, row int, p *batch.Pair, w *worker) (reason string, err error) {
	s.mu.Lock()
	reason, known := s.broken[row]
	s.mu.Unlock()
	if known {
		return reason, nil
	}
	im := s.cache.get(row)
	if im == nil {
		raw, err := s.rows.Image(ctx, row)
		if err != nil {
			return "", err
		}
		err = s.pipe.Decode(raw, &w.decoded, &w.scratch)
		if err == nil {
			err = s.pipe.Prepare(&w.decoded, &w.prepared, &w.scratch)
		}
		if errors.Is(err, transform.ErrBadPicture) {
			return err.Error(), nil
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.samples[row], err)
		}
		im = s.cache.put(row, &w.prepared)
	}
	at := func(purpose string) uint64 { return addr.Hash(s.seed, addr.Name(purpose), uint64(u), uint64(i)) }
	if err := s.pipe.Finish(im, at("transform"), p.Pixels, &w.scratch); err != nil {
		return "", fmt.Errorf("%s: %w", s.samples[row], err)
	}
	captions := s.samples[row].Captions
	p.Row, p.Group = row, int32(group)
	p.Tokens = s.tok.Encode(captions[addr.Below(at("caption"), len(captions))], p.Tokens[:0])
	return "", nil
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
