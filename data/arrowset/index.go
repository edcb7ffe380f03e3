package arrowset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Index says of every row which split and which group it belongs to: all that the order of samples is computed from. A set
// whose shards lie elsewhere is opened from its manifest and this, some bytes for each row that has a group and nearly none
// for one that has not. Writer leaves it beside the shards, in the file that Manifest.Index names; [Set.Index] makes it anew.
type Index struct {
	Splits []string // names, in the order in which they first come
	Shards []ShardIndex
}

// ShardIndex is the part of an Index about one shard.
type ShardIndex struct {
	First int // the set's row that is the shard's first
	Rows  int
	Runs  []Run // the shard's rows, in order
	// Groups is the number of each row's group, which count from 1 in the order in which they first come in the set; 0 is a
	// row without one. It is nil when no row of the shard has a group.
	Groups []uint32
}

// Run is rows of one split that follow one another.
type Run struct {
	Split int // in Index.Splits
	Rows  int
}

const (
	indexName  = "rows.idx"
	indexMagic = "diptych rows 1\n"
	maxIndex   = 16 << 30 // bytes, unpacked: 2³¹ rows with groups of their own
)

// IndexBuilder makes an Index row by row.
type IndexBuilder struct {
	index  Index
	splits map[string]int
	groups map[string]uint32
	rows   int
}

// Begin begins the next shard.
func (b *IndexBuilder) Begin() {
	b.index.Shards = append(b.index.Shards, ShardIndex{First: b.rows})
}

// Add adds a row to the shard that was begun last.
func (b *IndexBuilder) Add(m *RowMeta) {
	if b.splits == nil {
		b.splits, b.groups = map[string]int{}, map[string]uint32{}
	}
	split, ok := b.splits[m.Split]
	if !ok {
		split = len(b.splits)
		b.splits[m.Split] = split
		b.index.Splits = append(b.index.Splits, m.Split)
	}
	s := &b.index.Shards[len(b.index.Shards)-1]
	if n := len(s.Runs); n > 0 && s.Runs[n-1].Split == split {
		s.Runs[n-1].Rows++
	} else {
		s.Runs = append(s.Runs, Run{split, 1})
	}
	if m.Group != "" && s.Groups == nil {
		s.Groups = make([]uint32, s.Rows)
	}
	if s.Groups != nil {
		var g uint32
		if m.Group != "" {
			if g = b.groups[m.Group]; g == 0 {
				g = uint32(len(b.groups)) + 1
				b.groups[m.Group] = g
			}
		}
		s.Groups = append(s.Groups, g)
	}
	s.Rows++
	b.rows++
}

// Index returns what was added.
func (b *IndexBuilder) Index() *Index { return &b.index }

// Index makes the index of an open set.
func (s *Set) Index() *Index {
	var b IndexBuilder
	row := 0
	for _, sh := range s.manifest.Shards {
		b.Begin()
		for range sh.Rows {
			b.Add(&s.meta[row])
			row++
		}
	}
	return b.Index()
}

// Encode returns the bytes of the index's file: a zstd frame of the magic line, the names of the splits, and for each shard
// its runs and groups, numbers as varints (encoding/binary). A group is written as its distance from the next new one, so that
// groups that lie together take about a byte each, and less once compressed.
func (x *Index) Encode() ([]byte, error) {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("arrowset: %w", err)
	}
	b := []byte(indexMagic)
	b = binary.AppendUvarint(b, uint64(len(x.Splits)))
	for _, name := range x.Splits {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	b = binary.AppendUvarint(b, uint64(len(x.Shards)))
	next := uint32(1)
	for i := range x.Shards {
		s := &x.Shards[i]
		b = binary.AppendUvarint(b, uint64(len(s.Runs)))
		for _, r := range s.Runs {
			b = binary.AppendUvarint(b, uint64(r.Split))
			b = binary.AppendUvarint(b, uint64(r.Rows))
		}
		grouped := byte(0)
		if s.Groups != nil {
			grouped = 1
		}
		b = append(b, grouped)
		for _, g := range s.Groups {
			switch {
			case g == 0:
				b = append(b, 0)
			default:
				b = binary.AppendUvarint(b, uint64(next-g)+1)
				next = max(next, g+1)
			}
		}
		if _, err := z.Write(b); err != nil {
			return nil, fmt.Errorf("arrowset: %w", err)
		}
		b = b[:0]
	}
	if _, err := z.Write(b); err != nil {
		return nil, fmt.Errorf("arrowset: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("arrowset: %w", err)
	}
	return out.Bytes(), nil
}

// DecodeIndex reads what Encode wrote for a set with manifest m. Errors wrap ErrCorrupt.
func DecodeIndex(file []byte, m *Manifest) (*Index, error) {
	z, err := zstd.NewReader(bytes.NewReader(file), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxIndex), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, fmt.Errorf("arrowset: %w", err)
	}
	defer z.Close()
	d := &indexReader{r: z, buf: make([]byte, 0, 1<<16)}
	x, err := d.index(m)
	if err != nil {
		return nil, fmt.Errorf("arrowset: %s of %s: %w", indexName, m.Name, err)
	}
	return x, nil
}

// indexReader reads numbers and texts; what cannot be read sets err, which is checked at the end of each structure.
type indexReader struct {
	r   io.Reader
	buf []byte // what was unpacked and not used
	err error
}

// fill sees that n bytes are at hand.
func (d *indexReader) fill(n int) bool {
	for len(d.buf) < n && d.err == nil {
		rest := d.buf
		d.buf = make([]byte, len(rest), max(1<<16, n))
		copy(d.buf, rest)
		k, err := io.ReadAtLeast(d.r, d.buf[len(rest):cap(d.buf)], n-len(rest))
		d.buf = d.buf[:len(rest)+k]
		if err != nil {
			d.err = fmt.Errorf("%w: it ends early or does not unpack: %v", ErrCorrupt, err)
		}
	}
	return len(d.buf) >= n
}

func (d *indexReader) bytes(n int) []byte {
	if !d.fill(n) {
		return nil
	}
	b := d.buf[:n]
	d.buf = d.buf[n:]
	return b
}

func (d *indexReader) number(limit uint64) int {
	var v uint64
	for shift := 0; ; shift += 7 {
		b := d.bytes(1)
		if b == nil {
			return 0
		}
		if shift > 35 {
			d.err = fmt.Errorf("%w: a number is too long", ErrCorrupt)
			return 0
		}
		if v |= uint64(b[0]&127) << shift; b[0] < 128 {
			break
		}
	}
	if v > limit {
		if d.err == nil {
			d.err = fmt.Errorf("%w: number %d where at most %d is possible", ErrCorrupt, v, limit)
		}
		return 0
	}
	return int(v)
}

func (d *indexReader) index(m *Manifest) (*Index, error) {
	if string(d.bytes(len(indexMagic))) != indexMagic {
		return nil, errors.Join(fmt.Errorf("%w: it does not begin with %q", ErrCorrupt, indexMagic), d.err)
	}
	x := &Index{}
	counts := map[string]int{}
	for range d.number(uint64(len(m.Splits))) {
		name := string(d.bytes(d.number(1 << 16)))
		if d.err != nil {
			return nil, d.err
		}
		x.Splits = append(x.Splits, name)
	}
	if n := d.number(maxRows); d.err == nil && n != len(m.Shards) {
		return nil, fmt.Errorf("%w: it is about %d shards, the manifest has %d", ErrCorrupt, n, len(m.Shards))
	}
	first, next := 0, uint32(1)
	for i, entry := range m.Shards {
		s := ShardIndex{First: first}
		for range d.number(uint64(entry.Rows)) {
			r := Run{Split: d.number(maxRows), Rows: d.number(uint64(entry.Rows - s.Rows))}
			if d.err != nil {
				break
			}
			if r.Split >= len(x.Splits) || r.Rows == 0 {
				return nil, fmt.Errorf("%w: shard %d: a run of %d rows of split %d", ErrCorrupt, i, r.Rows, r.Split)
			}
			s.Runs = append(s.Runs, r)
			s.Rows += r.Rows
			counts[x.Splits[r.Split]] += r.Rows
		}
		if d.err == nil && s.Rows != entry.Rows {
			return nil, fmt.Errorf("%w: shard %s has %d rows in it, the manifest says %d", ErrCorrupt, entry.File, s.Rows, entry.Rows)
		}
		if d.number(1) == 1 {
			for range s.Rows {
				g := uint32(0)
				if back := uint32(d.number(uint64(next))); back > 0 {
					g = next - (back - 1)
					next = max(next, g+1)
				}
				if d.err != nil {
					break
				}
				s.Groups = append(s.Groups, g)
			}
		}
		if d.err != nil {
			return nil, d.err
		}
		x.Shards = append(x.Shards, s)
		first += s.Rows
	}
	if len(d.buf) > 0 {
		return nil, fmt.Errorf("%w: it has more than the %d shards of the manifest", ErrCorrupt, len(m.Shards))
	}
	if n, err := d.r.Read(make([]byte, 1)); n != 0 || err != io.EOF { // also the frame's checksum is checked here
		return nil, fmt.Errorf("%w: it does not end where it should: %v", ErrCorrupt, err)
	}
	for name, n := range m.Splits {
		if counts[name] != n {
			return nil, fmt.Errorf("%w: split %q has %d rows in it, the manifest says %d", ErrCorrupt, name, counts[name], n)
		}
	}
	return x, nil
}

// BuildIndex makes the index of the set at path from its shards, one after the other; open gives the file of each.
func BuildIndex(path string, m *Manifest, open func(shard int) (fs.File, error)) (*Index, error) {
	var b IndexBuilder
	for i := range m.Shards {
		set, err := OpenShards(path, m, []int{i}, open)
		if err != nil {
			return nil, err
		}
		b.Begin()
		for r := range set.meta {
			b.Add(&set.meta[r])
		}
		if err := set.Close(); err != nil {
			return nil, err
		}
	}
	return b.Index(), nil
}

// writeIndex leaves the index beside the finished shards in dir and names it in m. It reads the shards back, so that it is
// right also for shards that an earlier process wrote.
func writeIndex(dir string, m *Manifest) error {
	x, err := BuildIndex(dir, m, func(i int) (fs.File, error) { return os.Open(filepath.Join(dir, m.Shards[i].File)) })
	if err != nil {
		return err
	}
	b, err := x.Encode()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	m.Index = &IndexFile{File: indexName, Bytes: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
	return writeSynced(filepath.Join(dir, indexName), b)
}

// OpenShards opens some shards of the set at path as a set of their own, with the rows of these shards only; open gives the
// file of each, whose size must be the manifest's. The set's manifest is m with only these shards, and the rows, splits and
// groups they have.
func OpenShards(path string, m *Manifest, shards []int, open func(shard int) (fs.File, error)) (_ *Set, err error) {
	s := &Set{path: path, manifest: *m}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	part := &s.manifest
	part.Shards, part.Splits, part.Rows, part.Groups, part.Index = nil, map[string]int{}, 0, 0, nil
	for _, i := range shards {
		part.Shards = append(part.Shards, m.Shards[i])
		part.Rows += m.Shards[i].Rows
	}
	if err := s.load(func(i int) (fs.File, error) { return open(shards[i]) }); err != nil {
		return nil, err
	}
	groups := map[string]bool{}
	for i := range s.meta {
		part.Splits[s.meta[i].Split]++
		if g := s.meta[i].Group; g == "" || !groups[g] {
			groups[g] = g != ""
			part.Groups++
		}
	}
	return s, nil
}

// SplitShards lists the shards that have rows of one of the splits, in order.
func (x *Index) SplitShards(splits ...string) []int {
	var out []int
	for i := range x.Shards {
		if slices.ContainsFunc(x.Shards[i].Runs, func(r Run) bool { return slices.Contains(splits, x.Splits[r.Split]) }) {
			out = append(out, i)
		}
	}
	return out
}
