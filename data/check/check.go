// Package check says what is wrong with a data set, by name, and writes a cleaned copy: pictures that do not decode, captions
// that are no captions, the same picture in two splits, labels that differ in a capital letter. What spoils a run or a
// measurement is an error; what a person should look at is a warning.
//
// Pictures are read one by one on all cores and forgotten; what stays of each is 24 bytes (a checksum of its pixels and a
// perceptual hash). Texts are in memory anyway (see arrowset.Set). The findings depend on the set alone, not on the cores.
//
// Start reading at Run; the table of all kinds of findings is in kinds.go.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"diptych/data/arrowset"
	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// ErrOption is wrapped by errors about Options.
var ErrOption = errors.New("bad option")

// Severity is error or warning.
type Severity string

// The severities. An error stops a run or makes a measurement wrong.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind     Kind     `json:"kind"`
	Severity Severity `json:"severity"`
	Row      int      `json:"row"`     // -1: the whole set
	ImageID  string   `json:"imageID"` // of Row
	Caption  int      `json:"caption"` // number of the caption in its row, from 0; -1: not about a caption
	Other    int      `json:"other"`   // the row that Row is compared with; -1: none
	Detail   string   `json:"detail"`
}

// Options say what a set is checked against.
type Options struct {
	// Tokenizer cuts captions at its ContextLength and has words that it knows; nil checks neither.
	Tokenizer tokenizer.Tokenizer
	// Split is what will be trained on; "" if that is not known.
	Split string
	// Admits says which captions a run uses; nil means all.
	Admits func(arrowset.Caption) bool
	// Published is the set of Published to compare counts with; "" guesses it from the manifest's name.
	Published string
	// MaxPixels bounds pictures; 0 takes transform.DefaultMaxPixels.
	MaxPixels int
	// MinSide is the shorter side below which a picture is tiny; 0 takes DefaultMinSide.
	MinSide int
	// Workers is the number of goroutines; 0 takes all cores.
	Workers int
	// Progress, if not nil, hears how far a stage is, from one goroutine at a time.
	Progress func(stage string, done, total int)
}

// DefaultMinSide is the shorter side in pixels below which a picture is called tiny: less than one patch of most models.
const DefaultMinSide = 16

// Report is what Run found.
type Report struct {
	Name     string        `json:"name"`
	Path     string        `json:"path,omitempty"`
	Rows     int           `json:"rows"`
	Captions int           `json:"captions"`
	Errors   int           `json:"errors"`
	Warnings int           `json:"warnings"`
	Kinds    []KindCount   `json:"kinds"` // those that were found, errors first
	Splits   []SplitStats  `json:"splits"`
	Overlaps []Overlap     `json:"overlaps"` // groups that two splits share
	Groups   GroupStats    `json:"groups"`
	Tokens   *TokenStats   `json:"tokens,omitempty"` // nil without a tokenizer
	Counts   *PublishedSet `json:"published,omitempty"`
	Findings []Finding     `json:"findings"` // sorted by row, caption and kind
}

// KindCount is how often a kind was found.
type KindCount struct {
	Kind     Kind     `json:"kind"`
	Severity Severity `json:"severity"`
	Findings int      `json:"findings"`
	Rows     int      `json:"rows"` // distinct rows
	Advice   string   `json:"advice"`
}

// SplitStats are the counts of one split.
type SplitStats struct {
	Name     string `json:"name"`
	Pictures int    `json:"pictures"`
	Captions int    `json:"captions"`
	Groups   int    `json:"groups"` // a row without a group counts as one
	Labels   int    `json:"labels"` // distinct, not empty
}

// Overlap is how many groups two splits share. By itself it is no fault: a test of known concepts in new drawings shares all.
type Overlap struct {
	A      string  `json:"a"`
	B      string  `json:"b"`
	Groups int     `json:"groups"`
	Share  float64 `json:"share"` // of the groups of the split that has fewer
}

// GroupStats are about the rows' groups and labels.
type GroupStats struct {
	Groups  int `json:"groups"`  // distinct, not empty
	Alone   int `json:"alone"`   // rows without a group
	Largest int `json:"largest"` // rows of the largest group
	Singles int `json:"singles"` // groups of one row
	Labels  int `json:"labels"`  // distinct, not empty
	NoLabel int `json:"noLabel"` // rows without a label
}

// checker is the state of one run.
type checker struct {
	Options
	set      *arrowset.Set
	findings []Finding
	sums     []sum        // of the pixels; zero for pictures that have none to compare
	looks    []uint64     // perceptual hashes; noLook for pictures that have none
	leaks    map[int]bool // rows that have ImageLeak
}

// Run checks a set. An error is about the check itself, such as a set that cannot be read, not about what was found.
func Run(ctx context.Context, set *arrowset.Set, o Options) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxPixels <= 0 {
		o.MaxPixels = transform.DefaultMaxPixels
	}
	if o.MinSide <= 0 {
		o.MinSide = DefaultMinSide
	}
	c := &checker{Options: o, set: set, sums: make([]sum, set.Len()), looks: make([]uint64, set.Len()), leaks: map[int]bool{}}
	published, err := c.findPublished()
	if err != nil {
		return nil, err
	}
	r := &Report{Name: set.Manifest().Name, Path: set.Path(), Rows: set.Len(), Counts: published}
	if err := c.checksums(ctx); err != nil {
		return nil, err
	}
	if err := c.pictures(ctx); err != nil {
		return nil, err
	}
	if r.Tokens, err = c.texts(ctx); err != nil {
		return nil, err
	}
	c.repeatedCaptions()
	c.samePictures()
	if err := c.nearPictures(ctx); err != nil {
		return nil, err
	}
	c.names(r)
	c.comparePublished(published, r.Splits)
	for _, s := range r.Splits {
		r.Captions += s.Captions
	}
	slices.SortFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Row, b.Row), cmp.Compare(a.Caption, b.Caption), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Other, b.Other), cmp.Compare(a.Detail, b.Detail))
	})
	r.Findings = c.findings
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	r.count()
	return r, nil
}

// Unreadable is the report of a set that does not open, err saying why: the one finding there can be.
func Unreadable(path string, err error) *Report {
	r := &Report{Path: path, Splits: []SplitStats{}, Overlaps: []Overlap{}, Findings: []Finding{{Kind: SetUnreadable, Severity: Error, Row: -1, Caption: -1, Other: -1, Detail: err.Error()}}}
	r.count()
	return r
}

// count sums up the findings.
func (r *Report) count() {
	r.Kinds = []KindCount{}
	rows := map[Kind]map[int]bool{}
	number := map[Kind]int{}
	for _, f := range r.Findings {
		if rows[f.Kind] == nil {
			rows[f.Kind] = map[int]bool{}
		}
		if number[f.Kind]++; f.Row >= 0 {
			rows[f.Kind][f.Row] = true
		}
		if f.Severity == Error {
			r.Errors++
		} else {
			r.Warnings++
		}
	}
	for _, k := range kinds { // errors come first in the table
		if n := number[k.kind]; n > 0 {
			r.Kinds = append(r.Kinds, KindCount{k.kind, k.severity, n, len(rows[k.kind]), k.advice})
		}
	}
}

// found makes a finding; row, caption and other are -1 where there is none.
func (c *checker) found(k Kind, row, caption, other int, format string, args ...any) Finding {
	f := Finding{Kind: k, Severity: k.info().severity, Row: row, Caption: caption, Other: other, Detail: fmt.Sprintf(format, args...)}
	if row >= 0 {
		f.ImageID = c.set.Meta()[row].ImageID
	}
	return f
}

// add is found, kept.
func (c *checker) add(k Kind, row, caption, other int, format string, args ...any) {
	c.findings = append(c.findings, c.found(k, row, caption, other, format, args...))
}

// each calls work for all of [0, n) on all workers, in pieces; every worker has its own state. The findings that work returns
// are kept in the order of i.
func each[S any](ctx context.Context, c *checker, stage string, n int, state func() *S, work func(s *S, i int) ([]Finding, error)) error {
	const piece = 32
	var next, done atomic.Int64
	var mu sync.Mutex // guards all below, and Progress
	var firstErr error
	errAt := n
	found := map[int][]Finding{} // by the piece's first row
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for range min(c.Workers, max(1, n)) {
		wg.Go(func() {
			s := state()
			for {
				lo := int(next.Add(piece)) - piece
				if lo >= n || ctx.Err() != nil {
					return
				}
				hi := min(lo+piece, n)
				var fs []Finding
				for i := lo; i < hi; i++ {
					more, err := work(s, i)
					if err != nil {
						mu.Lock()
						if i < errAt {
							firstErr, errAt = err, i
						}
						mu.Unlock()
						stop()
						return
					}
					fs = append(fs, more...)
				}
				mu.Lock()
				if len(fs) > 0 {
					found[lo] = fs
				}
				if d := int(done.Add(int64(hi - lo))); c.Progress != nil {
					c.Progress(stage, d, n)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if firstErr != nil {
		return firstErr
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for lo := 0; lo < n; lo += piece {
		c.findings = append(c.findings, found[lo]...)
	}
	return nil
}
