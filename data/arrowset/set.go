package arrowset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// Set is a data set opened for reading. All but the pictures is in memory; Image reads one picture. Its methods are safe
// for concurrent use.
type Set struct {
	path     string
	manifest Manifest
	shards   []shard
	meta     []RowMeta
	captions []Caption // of all rows, one after the other
	first    []uint32  // captions of row i: [first[i], first[i+1])
	pics     []picture
	seconds  []picture // of the rows' second pictures; nil where no shard has any
	packs    []span    // pictures' buffers that were compressed, by place in the shard
	zstd     *zstd.Decoder
}

type shard struct {
	Shard
	file     fs.File
	at       io.ReaderAt
	firstRow int
}

// picture is the place of a row's encoded picture: in its shard, or, if pack ≥ 0, in the unpacked bytes of packs[pack].
type picture struct {
	off  int64
	len  int32
	pack int32
}

// Open opens the data set in folder dir. It reads everything but the pictures and checks sizes, schema and texts; checksums
// are left to Verify. Errors name file and row and wrap ErrCorrupt or ErrSchema, or what the file system said.
func Open(dir string) (*Set, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("arrowset: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("arrowset: %s: %w: a data set is a folder, this is a file", dir, ErrSchema)
	}
	return openFS(os.DirFS(dir), dir)
}

// OpenFS is Open in a file system whose files can be read at an offset, such as an embed.FS.
func OpenFS(fsys fs.FS) (*Set, error) { return openFS(fsys, "") }

func openFS(fsys fs.FS, dir string) (_ *Set, err error) {
	s := &Set{path: dir}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	text, err := readManifest(fsys)
	if err != nil {
		return nil, fmt.Errorf("arrowset: %s: %w", s.name(), err)
	}
	if s.manifest, err = ParseManifest(text); err != nil {
		return nil, fmt.Errorf("arrowset: %s: %w", s.name(), err)
	}
	if err := s.load(func(i int) (fs.File, error) { return fsys.Open(s.manifest.Shards[i].File) }); err != nil {
		return nil, err
	}
	if err := s.checkSplits(); err != nil {
		return nil, fmt.Errorf("arrowset: %s: %w", s.name(), err)
	}
	return s, nil
}

// load reads the shards of the manifest.
func (s *Set) load(open func(shard int) (fs.File, error)) error {
	var err error
	s.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBuffer), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("arrowset: %w", err)
	}
	guess := min(s.manifest.Rows, 1<<16) // not more: the manifest may be wrong
	s.meta, s.pics, s.first = make([]RowMeta, 0, guess), make([]picture, 0, guess), make([]uint32, 1, guess+1)
	l := &loader{set: s, words: map[string]string{}}
	for i, sh := range s.manifest.Shards {
		f, err := open(i)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: the shard is missing; copy it here or import the data again", ErrCorrupt)
		}
		if err == nil {
			err = l.shard(f, sh)
		}
		if err != nil {
			return fmt.Errorf("arrowset: %s: %s: %w", s.name(), sh.File, err)
		}
	}
	return nil
}

func readManifest(fsys fs.FS) ([]byte, error) {
	f, err := fsys.Open(ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no %s: this is not a data set's folder; `trainer data import` makes one", ErrSchema, ManifestName)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err == nil && len(text) > MaxManifest {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrCorrupt, ManifestName, MaxManifest)
	}
	return text, err
}

// name is what error messages call the set.
func (s *Set) name() string {
	if s.path != "" {
		return s.path
	}
	return "embedded data"
}

// Close closes the shards. No method may be called after it.
func (s *Set) Close() error {
	var errs []error
	for _, sh := range s.shards {
		errs = append(errs, sh.file.Close())
	}
	if s.zstd != nil {
		s.zstd.Close()
	}
	s.shards = nil
	return errors.Join(errs...)
}

// Len is the number of rows.
func (s *Set) Len() int { return len(s.meta) }

// Manifest is the set's manifest; it must not be written to.
func (s *Set) Manifest() *Manifest { return &s.manifest }

// Path is where the set lies: the folder that was given to Open, what was given to OpenShards, "" for a set in an fs.FS.
func (s *Set) Path() string { return s.path }

// Meta is everything of all rows but pictures and captions. It must not be written to.
func (s *Set) Meta() []RowMeta { return s.meta }

// Captions are the sentences of row i, in the order in which they were written. They must not be written to.
func (s *Set) Captions(i int) []Caption {
	return s.captions[s.first[i]:s.first[i+1]:s.first[i+1]]
}

// Column returns the function that gives the value of a text column, such as group, label or an attribute, in row i, and
// false if the set has no such column. The class of a row in a class system is Column(system.Column)(i).
func (s *Set) Column(name string) (func(i int) string, bool) {
	get := map[string]func(m *RowMeta) string{
		ColImageID: func(m *RowMeta) string { return m.ImageID },
		ColSplit:   func(m *RowMeta) string { return m.Split },
		ColGroup:   func(m *RowMeta) string { return m.Group },
		ColLabel:   func(m *RowMeta) string { return m.Label },
		ColSource:  func(m *RowMeta) string { return m.Source },
	}[name]
	if get == nil {
		a := slices.Index(s.manifest.Attributes, name)
		if a < 0 {
			return nil, false
		}
		get = func(m *RowMeta) string { return m.Attributes[a] }
	}
	return func(i int) string { return get(&s.meta[i]) }, true
}

// ImageSize is the length in bytes of what Image returns for row i.
func (s *Set) ImageSize(i int) int { return int(s.pics[i].len) }

// Image returns the encoded picture of row i, which the caller owns. Only the picture is read, or, where the pictures of its
// record batch are compressed together, these.
func (s *Set) Image(ctx context.Context, i int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if i < 0 || i >= len(s.pics) {
		return nil, fmt.Errorf("arrowset: %s: no row %d; there are %d", s.name(), i, len(s.pics))
	}
	return s.image(i, s.pics[i])
}

// HasSecond tells whether row i has a second picture.
func (s *Set) HasSecond(i int) bool { return i < len(s.seconds) && s.seconds[i].len > 0 }

// Second is Image of the second picture. A row without one is an error wrapping ErrSchema.
func (s *Set) Second(ctx context.Context, i int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !s.HasSecond(i) {
		return nil, fmt.Errorf("arrowset: %s: row %d has no second picture (column %s): %w", s.name(), i, ColSecondImage, ErrSchema)
	}
	return s.image(i, s.seconds[i])
}

// image reads a picture of row i.
func (s *Set) image(i int, p picture) ([]byte, error) {
	sh := &s.shards[sort.Search(len(s.shards), func(k int) bool { return s.shards[k].firstRow > i })-1]
	var b []byte
	var err error
	if p.pack < 0 {
		b, err = readAll(sh.at, p.off, int(p.len))
	} else {
		pack := s.packs[p.pack]
		if b, err = readAll(sh.at, pack.off, int(pack.len)); err == nil {
			b, err = unpack(s.zstd, b)
		}
		if err == nil && p.off+int64(p.len) > int64(len(b)) {
			err = fmt.Errorf("%w: its bytes %d to %d are outside of the picture column", ErrCorrupt, p.off, p.off+int64(p.len))
		}
		if err == nil {
			b = slices.Clone(b[p.off : p.off+int64(p.len)])
		}
	}
	if err != nil {
		return nil, fmt.Errorf("arrowset: %s: %s: row %d (%s): %w", s.name(), sh.File, i-sh.firstRow, s.meta[i].ImageID, err)
	}
	return b, nil
}

// Verify reads all shards and compares their checksums with the manifest's. All shards that differ are named in one error
// that wraps ErrCorrupt.
func (s *Set) Verify(ctx context.Context) error {
	var errs []error
	buf := make([]byte, 1<<20)
	for _, sh := range s.shards {
		sum := sha256.New()
		r := io.NewSectionReader(sh.at, 0, sh.Bytes)
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := r.Read(buf)
			sum.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("arrowset: %s: %s: %w", s.name(), sh.File, err)
			}
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != strings.ToLower(sh.SHA256) {
			errs = append(errs, fmt.Errorf("arrowset: %s: %s: %w: its SHA-256 is %s, the manifest says %s; copy or import it again", s.name(), sh.File, ErrCorrupt, got, sh.SHA256))
		}
	}
	return errors.Join(errs...)
}

// loader fills a set from its shards.
type loader struct {
	set   *Set
	words map[string]string // one string for each value that many rows share
}

func (l *loader) word(b []byte) string {
	w, ok := l.words[string(b)]
	if !ok {
		w = string(b)
		l.words[w] = w
	}
	return w
}

func (l *loader) shard(f fs.File, entry Shard) error {
	s := l.set
	r, ok := f.(io.ReaderAt)
	if !ok {
		f.Close()
		return errors.New("this file system cannot read at an offset")
	}
	s.shards = append(s.shards, shard{Shard: entry, file: f, at: r, firstRow: len(s.meta)})
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != entry.Bytes {
		return fmt.Errorf("%w: it has %d bytes, the manifest says %d; copy or import it again", ErrCorrupt, info.Size(), entry.Bytes)
	}
	cols, blocks, err := readFooter(r, entry.Bytes)
	if err != nil {
		return err
	}
	for _, a := range s.manifest.Attributes {
		if !slices.Contains(cols, Column{a, typeString}) {
			return fmt.Errorf("%w: attribute column %q of the manifest is missing", ErrSchema, a)
		}
	}
	for k, blk := range blocks {
		b, err := readBatch(r, blk, cols, s.zstd)
		if err == nil {
			err = l.batch(b, len(s.meta)-s.shards[len(s.shards)-1].firstRow, entry.Rows)
		}
		if err != nil {
			return fmt.Errorf("record batch %d: %w", k, err)
		}
	}
	if got := len(s.meta) - s.shards[len(s.shards)-1].firstRow; got != entry.Rows {
		return fmt.Errorf("%w: it has %d rows, the manifest says %d", ErrCorrupt, got, entry.Rows)
	}
	return nil
}

// batch appends the rows of a record batch; base is its first row in the shard, which shall have total rows.
func (l *loader) batch(b *batchReader, base, total int) error {
	s := l.set
	if b.rows > total-base {
		return fmt.Errorf("%w: the shard has more rows than the %d of the manifest", ErrCorrupt, total)
	}
	from := len(s.meta)
	col := func(name string) int {
		if i := slices.IndexFunc(b.cols, func(c Column) bool { return c.Name == name }); i >= 0 {
			return b.first[i]
		}
		return -1
	}
	// each calls set with the value of every row of a text column.
	each := func(name string, set func(m *RowMeta, value []byte)) error {
		i := col(name)
		if i < 0 {
			return nil
		}
		o, data, err := b.text(i, b.rows)
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		for r := range b.rows {
			value := data[o.at(r):o.at(r+1)]
			if !utf8.Valid(value) {
				return fmt.Errorf("%w: row %d: column %s is not UTF-8: %q", ErrSchema, base+r, name, clip(value))
			}
			set(&s.meta[from+r], value)
		}
		return nil
	}
	// The bounds of the pictures come first: only once they are checked is it sure that memory for the rows is due.
	image := col(ColImage)
	bounds, err := b.offsets(image+1, b.rows, -1)
	if err != nil {
		return fmt.Errorf("column %s: %w", ColImage, err)
	}
	s.meta = append(s.meta, make([]RowMeta, b.rows)...)
	if s.pics, err = l.pictures(s.pics, b, b.image, bounds); err != nil {
		return err
	}
	if second := col(ColSecondImage); second >= 0 {
		if bounds, err = b.offsets(second+1, b.rows, -1); err != nil {
			return fmt.Errorf("column %s: %w", ColSecondImage, err)
		}
		s.seconds = append(s.seconds, make([]picture, from-len(s.seconds))...) // of shards without
		if s.seconds, err = l.pictures(s.seconds, b, b.second, bounds); err != nil {
			return err
		}
	}
	attributes := make([]string, b.rows*len(s.manifest.Attributes))
	for r := range b.rows {
		n := len(s.manifest.Attributes)
		s.meta[from+r].Attributes = attributes[r*n : (r+1)*n : (r+1)*n]
	}
	err = errors.Join(
		each(ColImageID, func(m *RowMeta, v []byte) { m.ImageID = string(v) }),
		each(ColSplit, func(m *RowMeta, v []byte) { m.Split = l.word(v) }),
		each(ColGroup, func(m *RowMeta, v []byte) { m.Group = l.word(v) }),
		each(ColLabel, func(m *RowMeta, v []byte) { m.Label = l.word(v) }),
		each(ColSource, func(m *RowMeta, v []byte) { m.Source = l.word(v) }),
	)
	for a, name := range s.manifest.Attributes {
		err = errors.Join(err, each(name, func(m *RowMeta, v []byte) { m.Attributes[a] = l.word(v) }))
	}
	if err != nil {
		return err
	}
	return l.captions(b, col, base)
}

// pictures appends the places of a record batch's pictures, whose bytes lie in column, to pics.
func (l *loader) pictures(pics []picture, b *batchReader, column span, bounds offsets) ([]picture, error) {
	s := l.set
	start, size, pack := b.body+column.off, column.len, int32(-1)
	if b.packed && column.len > 0 {
		at := s.shards[len(s.shards)-1].at
		head, err := readAll(at, start, int(min(8, size)))
		if err != nil {
			return nil, err
		}
		if string(head) == "\xff\xff\xff\xff\xff\xff\xff\xff" { // stored as it is: each picture can be read alone
			start, size = start+8, size-8
		} else {
			s.packs = append(s.packs, span{start, size})
			start, size, pack = 0, maxBuffer, int32(len(s.packs)-1)
		}
	}
	if last := int64(bounds.at(b.rows)); last > size {
		return nil, fmt.Errorf("%w: the pictures end at byte %d of a column of %d", ErrCorrupt, last, size)
	}
	for r := range b.rows {
		pics = append(pics, picture{off: start + int64(bounds.at(r)), len: int32(bounds.at(r+1) - bounds.at(r)), pack: pack})
	}
	return pics, nil
}

func (l *loader) captions(b *batchReader, col func(string) int, base int) error {
	s := l.set
	// values of one list column: the bounds of each row's values, the bounds of each value, the bytes of all
	type list struct {
		rows, values offsets
		data         []byte
	}
	var lists [4]list
	names := [4]string{ColCaption, ColCaptionKind, ColCaptionLang, ColCaptionAnswer}
	for k, name := range names {
		i := col(name)
		if i < 0 {
			continue
		}
		rows, err := b.offsets(i+1, b.rows, -1)
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		values, data, err := b.text(i+2, rows.at(b.rows))
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		lists[k] = list{rows, values, data}
		for r := range b.rows {
			if n, want := rows.at(r+1)-rows.at(r), lists[0].rows.at(r+1)-lists[0].rows.at(r); n != want {
				return fmt.Errorf("%w: row %d has %d values in %s for %d captions", ErrSchema, base+r, n, name, want)
			}
		}
	}
	if int64(len(s.captions))+int64(lists[0].rows.at(b.rows)) > 1<<32-1 {
		return fmt.Errorf("%w: more than 2³² captions", ErrSchema)
	}
	texts := string(lists[0].data) // one string for all, sliced: a caption costs no allocation
	value := func(k, r, j int) (from, to int) {
		at := lists[k].rows.at(r) + j
		return lists[k].values.at(at), lists[k].values.at(at + 1)
	}
	for r := range b.rows {
		for j := range lists[0].rows.at(r+1) - lists[0].rows.at(r) {
			from, to := value(0, r, j)
			c := Caption{Text: texts[from:to]}
			for k, to := range []*string{1: &c.Kind, 2: &c.Lang, 3: &c.Answer} {
				if k > 0 && lists[k].rows != nil {
					begin, end := value(k, r, j)
					*to = l.word(lists[k].data[begin:end])
				}
			}
			if !utf8.ValidString(c.Text) || !utf8.ValidString(c.Kind) || !utf8.ValidString(c.Lang) || !utf8.ValidString(c.Answer) {
				return fmt.Errorf("%w: row %d: caption %d is not UTF-8: %q; convert the texts and import them again", ErrSchema, base+r, j, clip([]byte(c.Text)))
			}
			s.captions = append(s.captions, c)
		}
		s.first = append(s.first, uint32(len(s.captions)))
	}
	return nil
}

// checkSplits compares the rows of each split with the manifest.
func (s *Set) checkSplits() error {
	count := map[string]int{}
	for i := range s.meta {
		count[s.meta[i].Split]++
	}
	for name, n := range s.manifest.Splits {
		if count[name] != n {
			return fmt.Errorf("%w: split %q has %d rows, the manifest says %d", ErrCorrupt, name, count[name], n)
		}
	}
	for name := range count {
		if _, ok := s.manifest.Splits[name]; !ok {
			return fmt.Errorf("%w: split %q is not in the manifest", ErrCorrupt, name)
		}
	}
	return nil
}

// clip shortens a text for an error message.
func clip(b []byte) []byte { return b[:min(len(b), 60)] }
