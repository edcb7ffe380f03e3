package convert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"runtime"
	"sync"

	"diptych/data/arrowset"
)

// OnBad says what becomes of a bad record.
type OnBad string

const (
	Fail OnBad = "fail" // the import stops with its error; the default
	Skip OnBad = "skip" // it is left out and listed in SkippedName
)

// SkippedName is the file of a set that lists what Skip left out, a JSON object with record, where and error a line.
const SkippedName = "skipped.jsonl"

// requestName is the file of a set that says which import made it: the format, what was said about it, and the options.
const requestName = "import.json"

// Options are what every import needs to know.
type Options struct {
	Out               string `json:"-"` // folder to make
	Name, Description string // of the set; Name "" takes the last part of Out
	Attributes        []string
	Optional          []string               // columns; see arrowset.Manifest
	Classes           []arrowset.ClassSystem // a row without label takes the name of its group's class
	Licenses          []arrowset.License

	Workers    int   `json:"-"` // goroutines that load pictures; 0 means one per core. What is written does not depend on it
	OnBad      OnBad // "" means Fail
	ShardBytes int64 // size at which a shard is closed; 0 takes arrowset's

	Total    int            `json:"-"` // records, if known, for Progress
	Progress func(Progress) `json:"-"` // called after every record; may be nil
}

// Progress is how far an import is.
type Progress struct {
	Rows    int     // written, with those that were kept
	Skipped int     // bad records
	Kept    int     // rows of an import that was cut off, which were not made again
	Total   int     // records, 0 if not known
	Part    float64 // of the work that is done, in [0, 1]; 0 if not known
}

// Result is what an import made.
type Result struct {
	Rows, Skipped int
	Kept          int  // of Rows, those of an import that was cut off, which were not made again
	Before        bool // the same import had made the set before: nothing was done
}

// Run makes a data set of what im opens. If it is cut off, even by a kill, and started again with equal im and o, it keeps
// the shards that were finished, in a folder .NAME.import beside the set; what comes out is the same. What is finished is not made
// again by equal im and o, and an error wrapping fs.ErrExist for others. An error about a
// record names it and wraps ErrInput. If no shard was finished, an error leaves nothing behind.
func Run(ctx context.Context, im Importer, o Options) (Result, error) {
	src, err := im.Open(ctx, &o)
	if err != nil {
		return Result{}, fmt.Errorf("convert: %w", err)
	}
	defer src.Close()
	return run(ctx, src, o, im)
}

// Import is Run of a source that was opened, which it does not close. Of two that go on with each other only o is compared.
func Import(ctx context.Context, src Source, o Options) error {
	_, err := run(ctx, src, o, nil)
	return err
}

// partSource is a Source that can say how much of its input is read.
type partSource interface{ Part() float64 }

func run(ctx context.Context, src Source, o Options, im Importer) (_ Result, err error) {
	fail := func(err error) (Result, error) { return Result{}, fmt.Errorf("convert: %w", err) }
	if o.OnBad != "" && o.OnBad != Fail && o.OnBad != Skip {
		return fail(fmt.Errorf("%w: bad records may %q or %q, not %q", ErrInput, Fail, Skip, o.OnBad))
	}
	if o.Name == "" {
		o.Name = filepath.Base(filepath.Clean(o.Out))
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	// What must be equal for an import to go on: the format and what was said about it, and what makes up the set.
	key, err := marshal(struct {
		Format   string   `json:"format"`
		Importer Importer `json:"importer"`
		Options  Options  `json:"options"`
	}{fmt.Sprintf("%T", im), im, o})
	if err != nil {
		return fail(err)
	}
	if rows, err := madeBefore(o.Out, key); err != nil || rows > 0 {
		if err != nil {
			return fail(err)
		}
		return Result{Rows: rows, Kept: rows, Before: true}, nil
	}
	j, finished, err := openJournal(o.Out, key)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, j.close()) }()
	if finished {
		return Result{Rows: j.rows, Skipped: len(j.skipped), Kept: j.rows}, nil
	}
	w, err := arrowset.Resume(o.Out, j.setDir(), arrowset.Manifest{Name: o.Name, Description: o.Description,
		Attributes: o.Attributes, Optional: o.Optional, Classes: o.Classes, Licenses: o.Licenses}, j.shards)
	if err != nil {
		return fail(err)
	}
	defer w.Abort()
	if o.ShardBytes > 0 {
		w.ShardBytes = o.ShardBytes
	}
	p := &importing{o: o, src: src, w: w, j: j, labels: map[string]string{}, digest: sha256.New()}
	for _, s := range o.Classes {
		if s.Column != arrowset.ColGroup {
			continue
		}
		for _, class := range s.Classes {
			p.labels[class.ID] = class.Text
		}
	}
	w.Mark = func() any { return journalMark{p.next, hex.EncodeToString(p.digest.Sum(nil))} }
	w.OnShard = func(s arrowset.Shard, mark any) error { return j.shard(s, mark.(journalMark)) }
	err = p.replay(ctx)
	if err == nil {
		err = p.records(ctx)
	}
	if err == nil && p.rows == 0 {
		if err = fmt.Errorf("%w: there is no record to import", ErrInput); p.first != nil {
			err = fmt.Errorf("every record is bad; the first: %w", p.first)
		}
	}
	if err == nil {
		err = j.finish(w)
	}
	w.Abort() // ends what it does beside us
	if err != nil && len(j.shards) > 0 {
		err = fmt.Errorf("%w (%d rows are finished; the same command goes on behind them)", err, j.rows)
	}
	if err != nil {
		return fail(err)
	}
	return Result{Rows: p.rows, Skipped: len(j.skipped), Kept: p.kept}, nil
}

// importing is the state of an import.
type importing struct {
	o      Options
	src    Source
	w      *arrowset.Writer
	j      *journal
	labels map[string]string   // names of groups
	seen   textTable[struct{}] // image ids
	digest hash.Hash           // of the texts of the rows

	next  int // record that comes next, counted from 0 with the bad ones
	rows  int
	kept  int
	first *RecordError
}

// replay passes over the records that lie in finished shards, without loading their pictures.
func (im *importing) replay(ctx context.Context) error {
	for ; im.next < im.j.mark.Records; im.next++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := im.src.Next()
		if im.j.bad(im.next) {
			continue
		}
		if err != nil {
			return fmt.Errorf("record %d is not what it was when the import was cut off; remove %s to begin anew: %w", im.next, im.j.dir, err)
		}
		im.count(&rec.Row)
		im.w.Count(rec.Row.Split, rec.Row.Group)
	}
	im.kept = im.rows
	if len(im.j.shards) > 0 && (im.rows != im.j.rows || hex.EncodeToString(im.digest.Sum(nil)) != im.j.mark.Digest) {
		return fmt.Errorf("%w: the input has changed since the import was cut off; remove %s to begin anew", ErrInput, im.j.dir)
	}
	return nil
}

// count takes note of a row that was written.
func (im *importing) count(r *arrowset.Row) {
	im.seen.put([]byte(r.ImageID))
	im.rows++
	for _, s := range []string{r.ImageID, r.Split, r.Group} {
		io.WriteString(im.digest, s)
		im.digest.Write([]byte{0})
	}
	for _, c := range r.Captions {
		io.WriteString(im.digest, c.Text)
		im.digest.Write([]byte{1})
		io.WriteString(im.digest, c.Answer)
	}
}

// job is a record on its way.
type job struct {
	rec  *Record
	err  error
	part float64
	done chan struct{} // closed when rec or err is whole
}

// inFlight bounds the records that were read and not yet written, and gateBytes the pictures of them: nothing more is read or
// loaded once they have as much, so that the last picture of the reader and of each worker may pass it.
const (
	inFlight  = 256
	gateBytes = 32 << 20
)

// records imports what is left: one goroutine reads records, workers load pictures, this one writes in order.
func (im *importing) records(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(nil)
	g := newGate(ctx, gateBytes)
	order, work := make(chan *job, inFlight), make(chan *job, inFlight)
	group.Go(func() {
		defer close(order)
		defer close(work)
		for ctx.Err() == nil {
			g.room()
			j := &job{done: make(chan struct{})}
			j.rec, j.err = im.src.Next()
			if p, ok := im.src.(partSource); ok {
				j.part = p.Part()
			}
			if j.err == io.EOF {
				return
			}
			bad := (*RecordError)(nil)
			last := j.err != nil && !errors.As(j.err, &bad) // to be asked now: a worker may write j.err later
			switch {
			case j.err != nil:
				close(j.done)
			case j.rec.Load == nil:
				g.enter(j.rec.bytes())
				close(j.done)
			default:
				work <- j // as wide as order, which is the one to wait at
			}
			select {
			case order <- j:
			case <-ctx.Done():
				return
			}
			if last {
				return
			}
		}
	})
	for range im.o.Workers {
		group.Go(func() {
			for j := range work {
				if ctx.Err() == nil {
					g.pass(j)
					j.err = j.rec.load(ctx)
					g.enter(j.rec.bytes())
				}
				close(j.done)
			}
		})
	}
	for j := range order {
		g.turn(j)
		<-j.done
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := im.record(j); err != nil {
			return err
		}
		if j.rec != nil {
			g.leave(j.rec.bytes())
		}
		im.next++
		if im.o.Progress != nil {
			im.o.Progress(im.progress(j.part))
		}
	}
	return ctx.Err()
}

func (im *importing) progress(part float64) Progress {
	p := Progress{Rows: im.rows, Skipped: len(im.j.skipped), Kept: im.kept, Total: im.o.Total, Part: part}
	if im.o.Total > 0 {
		p.Part = float64(im.next) / float64(im.o.Total)
	}
	return p
}

// record writes one record or deals with its fault.
func (im *importing) record(j *job) error {
	err := j.err
	var where string
	if j.rec != nil {
		where = j.rec.Where
		r := &j.rec.Row
		if r.Label == "" {
			r.Label = im.labels[r.Group]
		}
		if err == nil && j.rec.Load == nil {
			err = checkPicture(r.ImageID, r.Image)
		}
		if err == nil && im.seen.get([]byte(r.ImageID)) != nil {
			err = fmt.Errorf("%w: picture %s was there before", ErrInput, r.ImageID)
		}
		if err == nil {
			err = im.w.Append(*r) // should this finish a shard, that ends with the row before
		}
	}
	if err == nil {
		im.count(&j.rec.Row)
		return nil
	}
	bad := &RecordError{}
	if !errors.As(err, &bad) {
		if j.rec == nil { // the source cannot go on, and has said where
			return err
		}
		if bad = (&RecordError{where, err}); !errors.Is(err, ErrInput) && !errors.Is(err, arrowset.ErrSchema) {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	if im.o.OnBad != Skip {
		return bad
	}
	if im.first == nil {
		im.first = bad
	}
	return im.j.skip(im.next, bad)
}

// gate bounds the bytes of pictures that wait to be written. The job whose turn it is may always pass, so that those behind it
// cannot block it.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	limit   int
	bytes   int
	first   *job
	ended   bool
}

func newGate(ctx context.Context, limit int) *gate {
	g := &gate{limit: limit}
	g.changed = sync.NewCond(&g.mu)
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.ended = true
		g.changed.Broadcast()
	})
	return g
}

// pass waits until j may load.
func (g *gate) pass(j *job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.bytes >= g.limit && g.first != j && !g.ended {
		g.changed.Wait()
	}
}

// room waits until more may be read.
func (g *gate) room() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.bytes >= g.limit && !g.ended {
		g.changed.Wait()
	}
}

func (g *gate) enter(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes += n
}

// turn says whose turn it is to be written.
func (g *gate) turn(j *job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first = j; g.bytes >= g.limit {
		g.changed.Broadcast()
	}
}

func (g *gate) leave(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bytes >= g.limit && g.bytes-n < g.limit {
		g.changed.Broadcast()
	}
	g.bytes -= n
}
