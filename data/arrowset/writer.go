package arrowset

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

const (
	// batchBytes bounds a record batch of more than one row, so that little is read besides what is wanted. The file's own
	// padding and headers of buffers take what is left to 256 KiB.
	batchBytes = 256<<10 - 8<<10
	shardBytes = 256 << 20
	// minSavings is the share that zstd must save of a buffer for it to stay compressed. Texts save more than half. Pictures
	// save some percent at best, which is not worth unpacking a whole batch to read one.
	minSavings = 0.25
)

// Writer writes a data set as a stream: it holds two record batches, one that is gathered and one that a goroutine packs and
// writes. The set appears under its name only when Close has
// succeeded; until then it grows beside it in a hidden folder .NAME.part-…, which only a process that was killed leaves behind.
type Writer struct {
	// ShardBytes is the size at which a shard is closed and the next begun; Create sets 256 MiB.
	ShardBytes int64
	// Mark, if not nil, is called when a record batch is gathered, before the row that begins the next is counted.
	Mark func() any
	// OnShard, if not nil, is called with every shard that is finished and synced and with what Mark returned for its last record
	// batch, before a row of the next is written. It runs beside Append.
	OnShard func(s Shard, mark any) error

	dir, temp string
	keep      bool // Abort leaves temp, for Resume
	manifest  Manifest
	schema    *arrow.Schema
	builder   *array.RecordBuilder
	pictures  []byte  // of the rows in builder
	ends      []int32 // where each of them ends
	pending   int     // bytes of these rows
	groups    map[string]bool
	err       error // sticks: after a failed write nothing more is written

	batches chan gathered         // to the goroutine that writes them; nil before the first
	ended   chan struct{}         // closed when it has ended
	failed  atomic.Pointer[error] // what stopped it
	spare   chan gathered         // whose memory is to be used again
	shard   *shardFile            // the goroutine's, and Close's after it
	splicer *splicer              // of shard
	mark    any                   // of the last batch of shard
}

// gathered is a record batch, without its pictures and they by themselves, with what Mark returned for it.
type gathered struct {
	rec      arrow.Record
	pictures []byte
	ends     []int32
	mark     any
}

// Create begins a data set in folder dir, which must not exist or be empty. m gives name, description, attributes, class
// systems and licences; the rest of it is filled in by Close. Abort or Close must follow.
func Create(dir string, m Manifest) (*Writer, error) {
	w, err := create(dir, m, func(dir string) (string, error) {
		temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".part-")
		if err == nil {
			err = os.Chmod(temp, 0o755)
		}
		return temp, err
	})
	if err != nil {
		return nil, fmt.Errorf("arrowset: create %s: %w", dir, err)
	}
	return w, nil
}

// Resume is Create for a set that may have been begun before and cut off: it grows in folder temp, on dir's file system,
// which Abort leaves as it is. Of what lies there the shards done are kept, as OnShard got them, and all else is removed.
// The caller must pass the rows of these shards to Count, and then append the rows that follow them; what comes out is
// byte for byte what an undisturbed Writer makes.
func Resume(dir, temp string, m Manifest, done []Shard) (*Writer, error) {
	w, err := create(dir, m, func(string) (string, error) { return temp, sweep(temp, done) })
	if err != nil {
		return nil, fmt.Errorf("arrowset: resume %s: %w", dir, err)
	}
	w.keep = true
	w.manifest.Shards = slices.Clone(done)
	return w, nil
}

// sweep leaves in a folder, which it makes if there is none, nothing but shards.
func sweep(temp string, shards []Shard) error {
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.ContainsFunc(shards, func(s Shard) bool { return s.File == e.Name() }) {
			if err := os.RemoveAll(filepath.Join(temp, e.Name())); err != nil {
				return err
			}
		}
	}
	for _, s := range shards {
		info, err := os.Stat(filepath.Join(temp, s.File))
		if err != nil {
			return err
		}
		if info.Size() != s.Bytes {
			return fmt.Errorf("%w: %s has %d bytes, was written with %d", ErrCorrupt, info.Name(), info.Size(), s.Bytes)
		}
	}
	return nil
}

// create begins a set that grows in the folder that place gives.
func create(dir string, m Manifest, place func(dir string) (string, error)) (*Writer, error) {
	if err := m.checkGiven(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("the folder is not empty (%s …); name another or remove it: %w", entries[0].Name(), os.ErrExist)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	temp, err := place(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{ShardBytes: shardBytes, dir: dir, temp: temp, manifest: m, groups: map[string]bool{}}
	w.manifest.Version, w.manifest.Splits, w.manifest.Shards = manifestVersion, map[string]int{}, nil
	w.manifest.Rows, w.manifest.Groups = 0, 0
	w.manifest.Schema = columns(&m)
	fields := make([]arrow.Field, len(w.manifest.Schema))
	for i, c := range w.manifest.Schema {
		fields[i] = arrow.Field{Name: c.Name, Type: map[string]arrow.DataType{
			typeBinary:  arrow.BinaryTypes.Binary,
			typeString:  arrow.BinaryTypes.String,
			typeStrings: arrow.ListOfNonNullable(arrow.BinaryTypes.String),
		}[c.Type]}
	}
	w.schema = arrow.NewSchema(fields, nil)
	w.builder = array.NewRecordBuilder(memory.DefaultAllocator, w.schema)
	return w, nil
}

// columns are the columns that Writer writes: the standard ones with the optional ones and the attributes before the pictures.
func columns(m *Manifest) []Column {
	cols := slices.Clone(standard[:len(standard)-1])
	if m.Has(ColCaptionAnswer) {
		cols = append(cols, Column{ColCaptionAnswer, typeStrings})
	}
	for _, a := range m.Attributes {
		cols = append(cols, Column{a, typeString})
	}
	if m.Has(ColSecondImage) {
		cols = append(cols, Column{ColSecondImage, typeBinary})
	}
	return append(cols, standard[len(standard)-1])
}

// Append adds a row; nothing of it is kept. A row that is not as it must be gives an error wrapping ErrSchema and leaves the
// set as it was; after any other error only Abort makes sense.
func (w *Writer) Append(r Row) error {
	if w.err != nil {
		return w.err
	}
	size, err := w.check(&r)
	if err != nil {
		return fmt.Errorf("arrowset: row %d (%s): %w", w.manifest.Rows, clip([]byte(r.ImageID)), err)
	}
	if w.pending > 0 && w.pending+size > batchBytes {
		if w.err = w.flush(); w.err != nil {
			return w.err
		}
	}
	w.add(&r)
	w.pending += size
	w.Count(r.Split, r.Group)
	return nil
}

// Count counts a row that lies in one of the shards that Resume kept.
func (w *Writer) Count(split, group string) {
	w.manifest.Rows++
	w.manifest.Splits[split]++
	if group == "" {
		w.manifest.Groups++
	} else if !w.groups[group] {
		w.groups[strings.Clone(group)] = true
		w.manifest.Groups++
	}
}

// check returns the bytes that a row takes.
func (w *Writer) check(r *Row) (int, error) {
	if len(r.Image) == 0 {
		return 0, fmt.Errorf("%w: the picture is empty", ErrSchema)
	}
	if len(r.Attributes) != len(w.manifest.Attributes) {
		return 0, fmt.Errorf("%w: %d attributes, the set has %d: %q", ErrSchema, len(r.Attributes), len(w.manifest.Attributes), w.manifest.Attributes)
	}
	if r.ImageID == "" || r.Split == "" {
		return 0, fmt.Errorf("%w: image_id %q and split %q must not be empty", ErrSchema, r.ImageID, r.Split)
	}
	if len(r.Second) > 0 && !w.manifest.Has(ColSecondImage) {
		return 0, fmt.Errorf("%w: a second picture, which the set has not", ErrSchema)
	}
	size := len(r.Image) + len(r.Second) + 8
	texts := append([]string{r.ImageID, r.Split, r.Group, r.Label, r.Source}, r.Attributes...)
	for i, t := range texts {
		if !utf8.ValidString(t) {
			name := append([]string{ColImageID, ColSplit, ColGroup, ColLabel, ColSource}, w.manifest.Attributes...)[i]
			return 0, fmt.Errorf("%w: column %s is not UTF-8: %q", ErrSchema, name, clip([]byte(t)))
		}
		size += len(t) + 4
	}
	for i, c := range r.Captions {
		if !utf8.ValidString(c.Text) || !utf8.ValidString(c.Kind) || !utf8.ValidString(c.Lang) || !utf8.ValidString(c.Answer) {
			return 0, fmt.Errorf("%w: caption %d is not UTF-8: %q", ErrSchema, i, clip([]byte(c.Text)))
		}
		if c.Answer != "" && !w.manifest.Has(ColCaptionAnswer) {
			return 0, fmt.Errorf("%w: caption %d has an answer, for which the set has no column", ErrSchema, i)
		}
		size += len(c.Text) + len(c.Kind) + len(c.Lang) + len(c.Answer) + 16
	}
	if size += 12; size > maxBuffer {
		return 0, fmt.Errorf("%w: it takes %d bytes; at most %d are possible", ErrSchema, size, maxBuffer)
	}
	return size, nil
}

func (w *Writer) add(r *Row) {
	field := 0 // in the order of columns
	next := func() array.Builder {
		field++
		return w.builder.Field(field - 1)
	}
	for _, s := range []string{r.ImageID, r.Split, r.Group, r.Label, r.Source} {
		next().(*array.StringBuilder).Append(s)
	}
	lists := []func(c Caption) string{
		func(c Caption) string { return c.Text }, func(c Caption) string { return c.Kind }, func(c Caption) string { return c.Lang },
		func(c Caption) string { return c.Answer },
	}
	if !w.manifest.Has(ColCaptionAnswer) {
		lists = lists[:3]
	}
	for _, get := range lists {
		list := next().(*array.ListBuilder)
		list.Append(true)
		for _, c := range r.Captions {
			list.ValueBuilder().(*array.StringBuilder).Append(get(c))
		}
	}
	for _, s := range r.Attributes {
		next().(*array.StringBuilder).Append(s)
	}
	if w.manifest.Has(ColSecondImage) {
		next().(*array.BinaryBuilder).Append(r.Second)
	}
	next().(*array.BinaryBuilder).Append([]byte{}) // see splicer
	w.pictures = append(w.pictures, r.Image...)
	w.ends = append(w.ends, int32(len(w.pictures)))
}

// flush hands the record batch that was gathered to the goroutine that writes, which it begins if there is none.
func (w *Writer) flush() error {
	if w.batches == nil {
		w.batches, w.ended, w.spare = make(chan gathered), make(chan struct{}), make(chan gathered, 2)
		w.spare <- gathered{}
		go w.run()
	}
	g := gathered{rec: w.builder.NewRecord(), pictures: w.pictures, ends: w.ends}
	if w.Mark != nil {
		g.mark = w.Mark()
	}
	w.batches <- g
	old := <-w.spare
	w.pictures, w.ends, w.pending = old.pictures[:0], old.ends[:0], 0
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// run writes record batches until there are no more; after an error it only takes them.
func (w *Writer) run() {
	defer close(w.ended)
	for g := range w.batches {
		if w.failed.Load() == nil {
			if err := w.write(g); err != nil {
				w.failed.Store(&err)
			}
		}
		g.rec.Release()
		w.spare <- g
	}
}

// end waits for the goroutine.
func (w *Writer) end() error {
	if w.batches == nil {
		return nil
	}
	close(w.batches)
	<-w.ended
	w.batches = nil
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// write writes a record batch, to a new shard if there is none.
func (w *Writer) write(g gathered) error {
	if w.shard == nil {
		if err := w.openShard(); err != nil {
			return fmt.Errorf("arrowset: %w", err)
		}
	}
	if err := w.splicer.write(g.rec, g.pictures, g.ends); err != nil {
		return fmt.Errorf("arrowset: write %s: %w", w.shard.file.Name(), err)
	}
	w.shard.rows += int(g.rec.NumRows())
	w.mark = g.mark
	if w.shard.size >= w.ShardBytes {
		return w.closeShard()
	}
	return nil
}

func (w *Writer) openShard() error {
	f, err := newShardFile(w.temp, fmt.Sprintf("%05d.arrow", len(w.manifest.Shards)))
	if err != nil {
		return err
	}
	w.shard = f
	w.splicer, err = newSplicer(f, w.schema)
	return err
}

func (w *Writer) closeShard() error {
	f := w.shard
	w.shard = nil
	if err := errors.Join(w.splicer.close(), f.end(true)); err != nil {
		return fmt.Errorf("arrowset: write %s: %w", f.file.Name(), err)
	}
	shard := f.shard()
	w.manifest.Shards = append(w.manifest.Shards, shard)
	if w.OnShard == nil {
		return nil
	}
	if err := syncDir(w.temp); err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	return w.OnShard(shard, w.mark)
}

// Close writes what is left and the manifest, syncs, and gives the set its name. On an error it does what Abort does.
func (w *Writer) Close() (err error) {
	defer func() {
		if err != nil {
			w.Abort()
		}
	}()
	if w.err != nil {
		return w.err
	}
	if w.pending > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if err := w.end(); err != nil {
		return err
	}
	if w.shard != nil {
		if err := w.closeShard(); err != nil {
			return err
		}
	}
	w.builder.Release()
	rows := 0
	for _, s := range w.manifest.Shards {
		rows += s.Rows
	}
	if rows != w.manifest.Rows {
		return fmt.Errorf("arrowset: the shards have %d rows, %d were counted", rows, w.manifest.Rows)
	}
	if err := writeIndex(w.temp, &w.manifest); err != nil {
		return err
	}
	text, err := json.MarshalIndent(w.manifest, "", " ")
	if err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	if err := writeSynced(filepath.Join(w.temp, ManifestName), append(text, '\n')); err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	if err := syncDir(w.temp); err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	// An empty folder of the name may stand in the way of the rename on some systems; one with files is never removed.
	if err := os.Remove(w.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("arrowset: %w", err)
	}
	if err := os.Rename(w.temp, w.dir); err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	w.temp = ""
	w.err = errors.New("arrowset: the writer is closed")
	if err := syncDir(filepath.Dir(w.dir)); err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	return nil
}

// Abort removes what was written, or leaves it for Resume if that began it. It does nothing after a Close that succeeded.
func (w *Writer) Abort() {
	w.end() // whose error the caller has, or does not ask for
	if w.shard != nil {
		w.shard.end(false)
		w.shard = nil
	}
	if w.temp != "" {
		if !w.keep {
			os.RemoveAll(w.temp)
		}
		w.temp = ""
		w.err = errors.New("arrowset: the writer was stopped")
	}
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
