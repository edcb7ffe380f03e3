package arrowset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/stretchr/testify/require"
)

var ctx = context.Background()

// noise is n bytes that no method compresses.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// rows makes n rows with pictures of about size bytes: noise, or, if flat, bytes that compress well.
func rows(n, size int, flat bool) []Row {
	out := make([]Row, n)
	for i := range out {
		image := noise(uint64(i), size+i%7)
		if flat {
			image = bytes.Repeat([]byte{byte(i), 1}, size)
		}
		group := fmt.Sprintf("g%d", i/3)
		if i%5 == 0 {
			group = ""
		}
		captions := []Caption{{Text: fmt.Sprintf("a picture of %d", i), Kind: "label", Lang: "en"}, {Text: "ein Bild, größer", Lang: "de"}, {}}
		out[i] = Row{
			RowMeta:  RowMeta{ImageID: fmt.Sprintf("%d.png", i), Split: []string{"train", "test"}[i%2], Group: group, Label: "l" + group, Source: "s", Attributes: []string{"flat", fmt.Sprint(i)}},
			Image:    image,
			Captions: captions[:i%4],
		}
	}
	return out
}

var given = Manifest{Name: "n", Description: "d", Attributes: []string{"style", "number"},
	Classes:  []ClassSystem{{Name: "c", Column: ColGroup, Templates: []string{"a {}"}, Classes: []Class{{"g1", "one"}}}},
	Licenses: []License{{Name: "MIT", URL: "u"}}}

func write(t testing.TB, dir string, rows []Row, shardBytes int64) {
	t.Helper()
	w, err := Create(dir, given)
	require.NoError(t, err)
	defer w.Abort()
	w.ShardBytes = shardBytes
	for _, r := range rows {
		require.NoError(t, w.Append(r))
	}
	require.NoError(t, w.Close())
}

func requireRows(t *testing.T, want []Row, set *Set) {
	t.Helper()
	require.Equal(t, len(want), set.Len())
	for i, r := range want {
		require.Equal(t, r.RowMeta, set.Meta()[i])
		require.Equal(t, r.Captions, append([]Caption{}, set.Captions(i)...))
		got, err := set.Image(ctx, i)
		require.NoError(t, err)
		require.True(t, bytes.Equal(r.Image, got), "picture of row %d", i)
		require.Equal(t, len(r.Image), set.ImageSize(i))
	}
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name       string
		rows       []Row
		shardBytes int64
		shards     int
	}{
		{"no row", nil, shardBytes, 0},
		{"one row", rows(1, 10, false), shardBytes, 1},
		{"rows of many batches and shards", rows(300, 9000, false), 1 << 20, 3},
		{"pictures that compress", rows(40, 20000, true), shardBytes, 1},
		{"pictures larger than a batch", rows(5, 300<<10, false), shardBytes, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "set")
			write(t, dir, c.rows, c.shardBytes)
			set, err := Open(dir)
			require.NoError(t, err)
			defer set.Close()
			requireRows(t, c.rows, set)
			require.NoError(t, set.Verify(ctx))

			m := set.Manifest()
			require.Len(t, m.Shards, c.shards)
			require.Equal(t, given.Classes, m.Classes)
			require.Equal(t, given.Licenses, m.Licenses)
			groups, alone := map[string]bool{}, 0
			for _, r := range c.rows {
				if r.Group == "" {
					alone++
				} else {
					groups[r.Group] = true
				}
			}
			require.Equal(t, len(groups)+alone, m.Groups)
			number, ok := set.Column("number")
			require.True(t, ok)
			label, ok := set.Column(ColLabel)
			require.True(t, ok)
			for i, r := range c.rows {
				require.Equal(t, r.Attributes[1], number(i))
				require.Equal(t, r.Label, label(i))
			}
			_, ok = set.Column(ColImage)
			require.False(t, ok)
			_, err = set.Image(ctx, len(c.rows))
			require.ErrorContains(t, err, fmt.Sprintf("no row %d", len(c.rows)))
		})
	}
}

// TestArrowReads opens shards with the Arrow library: the same values, and record batches of at most 256 KiB.
func TestArrowReads(t *testing.T) {
	want := rows(120, 9000, false)
	want[7].Image = noise(1, 600<<10)
	dir := filepath.Join(t.TempDir(), "set")
	write(t, dir, want, 512<<10)
	set, err := Open(dir)
	require.NoError(t, err)
	defer set.Close()
	i := 0
	for _, s := range set.Manifest().Shards {
		b, err := os.ReadFile(filepath.Join(dir, s.File))
		require.NoError(t, err)
		_, blocks, err := readFooter(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		r, err := ipc.NewFileReader(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, len(blocks), r.NumRecords())
		for k := range r.NumRecords() {
			rec, err := r.Record(k)
			require.NoError(t, err)
			require.Positive(t, rec.NumRows())
			if rec.NumRows() > 1 {
				require.LessOrEqual(t, blocks[k].body+int64(blocks[k].header), int64(256<<10))
			}
			column := func(name string) arrow.Array { return rec.Column(r.Schema().FieldIndices(name)[0]) }
			for j := range int(rec.NumRows()) {
				require.Equal(t, want[i].Image, column(ColImage).(*array.Binary).Value(j))
				require.Equal(t, want[i].ImageID, column(ColImageID).(*array.String).Value(j))
				require.Equal(t, want[i].Attributes[1], column("number").(*array.String).Value(j))
				list := column(ColCaption).(*array.List)
				from, to := list.ValueOffsets(j)
				require.Equal(t, len(want[i].Captions), int(to-from))
				for n, c := range want[i].Captions {
					require.Equal(t, c.Text, list.ListValues().(*array.String).Value(int(from)+n))
				}
				i++
			}
		}
	}
	require.Equal(t, len(want), i)
}

func TestConcurrentReads(t *testing.T) {
	want := append(rows(100, 5000, false), rows(100, 5000, true)...)
	dir := filepath.Join(t.TempDir(), "set")
	write(t, dir, want, 256<<10)
	set, err := Open(dir)
	require.NoError(t, err)
	defer set.Close()
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for g := range errs {
		wg.Go(func() {
			for i := range want {
				at := (i*7 + g*31) % len(want)
				got, err := set.Image(ctx, at)
				if err == nil && !bytes.Equal(want[at].Image, got) {
					err = fmt.Errorf("row %d differs", at)
				}
				errs[g] = errors.Join(errs[g], err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, err = set.Image(stopped, 0)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, set.Verify(stopped), context.Canceled)
}

// TestWriterMemory writes 64 MB: what is held at any time must be about a record batch, not the set.
func TestWriterMemory(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "set"), Manifest{})
	require.NoError(t, err)
	defer w.Abort()
	w.ShardBytes = 16 << 20
	image := noise(1, 32<<10)
	live := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	var first, most uint64
	for i := range 2000 {
		require.NoError(t, w.Append(Row{RowMeta: RowMeta{ImageID: "a", Split: "train", Group: "g"}, Image: image, Captions: []Caption{{Text: "t"}}}))
		if i == 100 {
			first = live()
		} else if i > 100 && i%100 == 0 {
			most = max(most, live())
		}
	}
	require.NoError(t, w.Close())
	require.Less(t, most, first+4<<20, "the live heap grew with what was written")
}

func TestCreateIsAside(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "set")
	names := func() (out []string) {
		entries, err := os.ReadDir(parent)
		require.NoError(t, err)
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	w, err := Create(dir, given)
	require.NoError(t, err)
	require.NoError(t, w.Append(rows(1, 10, false)[0]))
	require.NoDirExists(t, dir)
	w.Abort()
	require.Empty(t, names())
	require.Error(t, w.Append(rows(1, 10, false)[0]))
	require.Error(t, w.Close())

	write(t, dir, rows(3, 10, false), shardBytes)
	require.Equal(t, []string{"set"}, names())
	_, err = Create(dir, given)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "not empty")

	require.NoError(t, os.MkdirAll(filepath.Join(parent, "empty"), 0o755))
	write(t, filepath.Join(parent, "empty"), rows(3, 10, false), shardBytes)
}

func TestAppendErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *Row)
		want   string
	}{
		{"empty picture", func(r *Row) { r.Image = nil }, "picture is empty"},
		{"attribute missing", func(r *Row) { r.Attributes = nil }, "0 attributes"},
		{"no split", func(r *Row) { r.Split = "" }, "split"},
		{"caption not UTF-8", func(r *Row) { r.Captions = []Caption{{Text: "ok"}, {Text: "a\xff"}} }, `caption 1 is not UTF-8: "a\xff"`},
		{"attribute not UTF-8", func(r *Row) { r.Attributes = []string{"", "\xc3"} }, "column number is not UTF-8"},
		{"too large", func(r *Row) { r.Image = make([]byte, maxBuffer) }, "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "set")
			w, err := Create(dir, given)
			require.NoError(t, err)
			defer w.Abort()
			good := rows(2, 10, false)
			require.NoError(t, w.Append(good[0]))
			bad := good[1]
			c.change(&bad)
			err = w.Append(bad)
			require.ErrorIs(t, err, ErrSchema)
			require.ErrorContains(t, err, "row 1 (1.png)")
			require.ErrorContains(t, err, c.want)
			require.NoError(t, w.Append(good[1])) // nothing of the bad row stayed
			require.NoError(t, w.Close())
			set, err := Open(dir)
			require.NoError(t, err)
			defer set.Close()
			requireRows(t, good, set)
		})
	}
}

func TestManifestErrors(t *testing.T) {
	shard := func(file string, rows int) Shard {
		return Shard{File: file, Rows: rows, SHA256: strings.Repeat("0", 64)}
	}
	for _, c := range []struct {
		name string
		m    Manifest
		is   error
		want string
	}{
		{"version", Manifest{Version: 2}, ErrSchema, "version 2"},
		{"rows", Manifest{Version: 1, Rows: 3, Shards: []Shard{shard("a", 2)}}, ErrCorrupt, "says 3 rows, its shards have 2"},
		{"file above the folder", Manifest{Version: 1, Shards: []Shard{shard("../a", 0)}}, ErrSchema, "not a file of the folder"},
		{"file twice", Manifest{Version: 1, Shards: []Shard{shard("a", 0), shard("a", 0)}}, ErrSchema, "listed twice"},
		{"sum", Manifest{Version: 1, Shards: []Shard{{File: "a", SHA256: "xyz"}}}, ErrCorrupt, "not a SHA-256"},
		{"attribute named as a column", Manifest{Version: 1, Attributes: []string{"caption"}}, ErrSchema, `attribute "caption"`},
		{"attribute twice", Manifest{Version: 1, Attributes: []string{"a", "a"}}, ErrSchema, "named twice"},
		{"class column", Manifest{Version: 1, Classes: []ClassSystem{{Name: "c", Column: "colour"}}}, ErrSchema, `column "colour"`},
		{"class column of the wrong type", Manifest{Version: 1, Classes: []ClassSystem{{Name: "c", Column: "caption"}}}, ErrSchema, `column "caption"`},
		{"class twice", Manifest{Version: 1, Classes: []ClassSystem{{Name: "c", Column: "group", Classes: []Class{{"a", "x"}, {"a", "y"}}}}}, ErrSchema, `class "a" twice`},
		{"template without a place", Manifest{Version: 1, Classes: []ClassSystem{{Name: "c", Column: "group", Templates: []string{"a"}}}}, ErrSchema, "has no {}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := json.Marshal(c.m)
			require.NoError(t, err)
			_, err = OpenFS(fstest.MapFS{ManifestName: {Data: text}})
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := OpenFS(fstest.MapFS{ManifestName: {Data: []byte(`{"version": 1,}`)}})
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "byte 15")
	_, err = OpenFS(fstest.MapFS{})
	require.ErrorIs(t, err, ErrSchema)
	require.ErrorContains(t, err, "trainer data import")
	_, err = Open(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// table is an Arrow file made by the library, so that it can be what Writer never writes.
type table struct {
	fields  []arrow.Field
	columns []any // []string, [][]byte, [][]string; "\x00" stands for null
	options []ipc.Option
}

func plainTable() table {
	text := func(name string) arrow.Field {
		return arrow.Field{Name: name, Type: arrow.BinaryTypes.String, Nullable: true}
	}
	list := arrow.Field{Name: ColCaption, Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}
	return table{ // ViLT's order of columns
		fields:  []arrow.Field{{Name: ColImage, Type: arrow.BinaryTypes.Binary}, list, text(ColImageID), text(ColSplit)},
		columns: []any{[][]byte{{1}, {2, 2}}, [][]string{{"a", "b"}, {}}, []string{"x", "y"}, []string{"train", "test"}},
	}
}

func (tb table) file(t testing.TB) []byte {
	schema := arrow.NewSchema(tb.fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	text := func(to *array.StringBuilder, s string) {
		if s == "\x00" {
			to.AppendNull()
		} else {
			to.Append(s)
		}
	}
	for i, col := range tb.columns {
		switch col := col.(type) {
		case []string:
			for _, s := range col {
				if dict, ok := b.Field(i).(*array.BinaryDictionaryBuilder); ok {
					require.NoError(t, dict.AppendString(s))
				} else {
					text(b.Field(i).(*array.StringBuilder), s)
				}
			}
		case [][]byte:
			for _, s := range col {
				b.Field(i).(*array.BinaryBuilder).Append(s)
			}
		case [][]string:
			for _, row := range col {
				b.Field(i).(*array.ListBuilder).Append(true)
				for _, s := range row {
					text(b.Field(i).(*array.ListBuilder).ValueBuilder().(*array.StringBuilder), s)
				}
			}
		case []int64:
			b.Field(i).(*array.Int64Builder).AppendValues(col, nil)
		}
	}
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	require.NoError(t, err)
	w, err := ipc.NewFileWriter(f, append([]ipc.Option{ipc.WithSchema(schema)}, tb.options...)...)
	require.NoError(t, err)
	require.NoError(t, w.Write(b.NewRecord()))
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	out, err := os.ReadFile(path)
	require.NoError(t, err)
	return out
}

// folder is a data set of one shard and two rows, one of each split.
func folder(t testing.TB, shard []byte, attributes ...string) fstest.MapFS {
	sum := sha256.Sum256(shard)
	text, err := json.Marshal(Manifest{Version: 1, Attributes: attributes, Rows: 2, Splits: map[string]int{"train": 1, "test": 1},
		Shards: []Shard{{File: "0.arrow", Rows: 2, Bytes: int64(len(shard)), SHA256: hex.EncodeToString(sum[:])}}})
	require.NoError(t, err)
	return fstest.MapFS{ManifestName: {Data: text}, "0.arrow": {Data: shard}}
}

func TestPlainArrow(t *testing.T) {
	for name, options := range map[string][]ipc.Option{"plain": nil, "zstd": {ipc.WithZstd()}} {
		t.Run(name, func(t *testing.T) {
			tb := plainTable()
			tb.options = options
			set, err := OpenFS(folder(t, tb.file(t)))
			require.NoError(t, err)
			defer set.Close()
			requireRows(t, []Row{
				{RowMeta: RowMeta{ImageID: "x", Split: "train", Attributes: []string{}}, Image: []byte{1}, Captions: []Caption{{Text: "a"}, {Text: "b"}}},
				{RowMeta: RowMeta{ImageID: "y", Split: "test", Attributes: []string{}}, Image: []byte{2, 2}, Captions: []Caption{}},
			}, set)
		})
	}
}

func TestShardErrors(t *testing.T) {
	drop := func(tb *table, i int) {
		tb.fields = append(tb.fields[:i:i], tb.fields[i+1:]...)
		tb.columns = append(tb.columns[:i:i], tb.columns[i+1:]...)
	}
	add := func(tb *table, f arrow.Field, col any) {
		tb.fields, tb.columns = append(tb.fields, f), append(tb.columns, col)
	}
	for _, c := range []struct {
		name   string
		change func(tb *table)
		file   func(b []byte) []byte
		is     error
		want   []string
	}{
		{"column missing", func(tb *table) { drop(tb, 1) }, nil, ErrSchema, []string{"0.arrow", `column "caption" is missing`}},
		{"column of another type", func(tb *table) { tb.fields[2].Type, tb.columns[2] = arrow.PrimitiveTypes.Int64, []int64{1, 2} }, nil, ErrSchema, []string{`column "image_id"`}},
		{"picture as text", func(tb *table) { tb.fields[0].Type, tb.columns[0] = arrow.BinaryTypes.String, []string{"a", "b"} }, nil, ErrSchema, []string{"must be binary"}},
		{"column twice", func(tb *table) { add(tb, tb.fields[2], tb.columns[2]) }, nil, ErrSchema, []string{"two columns"}},
		{"dictionary", func(tb *table) {
			tb.fields[3].Type = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
		}, nil, ErrSchema, []string{"dictionary"}},
		{"null", func(tb *table) { tb.columns[2] = []string{"x", "\x00"} }, nil, ErrSchema, []string{`"image_id" has missing values`}},
		{"null caption", func(tb *table) { tb.columns[1] = [][]string{{"a"}, {"\x00"}} }, nil, ErrSchema, []string{`"caption" has missing values`}},
		{"caption not UTF-8", func(tb *table) { tb.columns[1] = [][]string{{"a"}, {"b", "c\xffd"}} }, nil, ErrSchema, []string{"0.arrow", "row 1", "caption 1", `"c\xffd"`}},
		{"image_id not UTF-8", func(tb *table) { tb.columns[2] = []string{"\xff", "y"} }, nil, ErrSchema, []string{"row 0", "image_id"}},
		{"kinds for other captions", func(tb *table) {
			add(tb, arrow.Field{Name: ColCaptionKind, Type: tb.fields[1].Type}, [][]string{{"k", "k"}, {"k"}})
		}, nil, ErrSchema, []string{"row 1", "1 values in caption_kind for 0"}},
		{"LZ4", func(tb *table) { tb.options = []ipc.Option{ipc.WithLZ4()} }, nil, ErrSchema, []string{"zstd"}},
		{"splits", func(tb *table) { tb.columns[3] = []string{"train", "train"} }, nil, ErrCorrupt, []string{"split"}},
		{"rows", func(tb *table) {
			for i, col := range []any{[][]byte{{1}}, [][]string{{}}, []string{"x"}, []string{"train"}} {
				tb.columns[i] = col
			}
		}, nil, ErrCorrupt, []string{"1 rows, the manifest says 2"}},
		{"more rows", func(tb *table) {
			for i, col := range []any{[][]byte{{1}, {1}, {1}}, [][]string{{}, {}, {}}, []string{"x", "y", "z"}, []string{"train", "test", "test"}} {
				tb.columns[i] = col
			}
		}, nil, ErrCorrupt, []string{"more rows"}},
		{"another format", nil, func([]byte) []byte { return []byte("PAR1 and so on, a Parquet file PAR1") }, ErrCorrupt, []string{"0.arrow", `"PAR1 a"`, "magic number"}},
		{"truncated", nil, func(b []byte) []byte { return b[:len(b)-100] }, ErrCorrupt, []string{"0.arrow", "truncated"}},
		{"empty", nil, func([]byte) []byte { return nil }, ErrCorrupt, []string{"too few"}},
		{"footer's length", nil, func(b []byte) []byte { b[len(b)-7] = 0xff; return b }, ErrCorrupt, []string{"footer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := plainTable()
			if c.change != nil {
				c.change(&tb)
			}
			b := tb.file(t)
			if c.file != nil {
				b = c.file(b)
			}
			_, err := OpenFS(folder(t, b))
			require.ErrorIs(t, err, c.is)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
	t.Run("attribute missing", func(t *testing.T) {
		_, err := OpenFS(folder(t, plainTable().file(t), "style"))
		require.ErrorIs(t, err, ErrSchema)
		require.ErrorContains(t, err, `"style"`)
	})
	t.Run("shard missing", func(t *testing.T) {
		f := folder(t, plainTable().file(t))
		delete(f, "0.arrow")
		_, err := OpenFS(f)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "0.arrow: the data set is damaged: the shard is missing")
	})
	t.Run("size differs", func(t *testing.T) {
		f := folder(t, plainTable().file(t))
		f["0.arrow"].Data = f["0.arrow"].Data[:500]
		_, err := OpenFS(f)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "it has 500 bytes, the manifest says")
	})
	t.Run("checksum differs", func(t *testing.T) {
		f := folder(t, plainTable().file(t))
		at := bytes.Index(f["0.arrow"].Data, []byte{1, 2, 2})
		require.Positive(t, at)
		f["0.arrow"].Data[at] ^= 1
		set, err := OpenFS(f)
		require.NoError(t, err)
		defer set.Close()
		err = set.Verify(ctx)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "0.arrow")
	})
	t.Run("shard cut after it was opened", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "set")
		write(t, dir, rows(2, 5000, false), shardBytes)
		set, err := Open(dir)
		require.NoError(t, err)
		defer set.Close()
		require.NoError(t, os.Truncate(filepath.Join(dir, "00000.arrow"), 4000))
		_, err = set.Image(ctx, 1)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "00000.arrow: row 1 (1.png)")
	})
}

// TestDamage changes every byte of a shard in turn: an error or other values, never a panic.
func TestDamage(t *testing.T) {
	for name, options := range map[string][]ipc.Option{"plain": nil, "zstd": {ipc.WithZstd()}} {
		t.Run(name, func(t *testing.T) {
			tb := plainTable()
			tb.options = options
			good := tb.file(t)
			for i := range good {
				bad := bytes.Clone(good)
				bad[i] ^= []byte{0x01, 0x80, 0xff}[i%3]
				readAllOf(t, folder(t, bad))
			}
		})
	}
}

// readAllOf reads whatever can be read.
func readAllOf(t testing.TB, f fs.FS) {
	set, err := OpenFS(f)
	if err != nil {
		require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrSchema), "%v", err)
		return
	}
	defer set.Close()
	for i := range set.Len() {
		set.Captions(i)
		if _, err := set.Image(ctx, i); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
	if err := set.Verify(ctx); err != nil {
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

func FuzzShard(f *testing.F) {
	tb := plainTable()
	f.Add(tb.file(f))
	tb.options = []ipc.Option{ipc.WithZstd()}
	f.Add(tb.file(f))
	f.Fuzz(func(t *testing.T, b []byte) { readAllOf(t, folder(t, b)) })
}

func FuzzManifest(f *testing.F) {
	shard := plainTable().file(f)
	f.Add(folder(f, shard)[ManifestName].Data)
	f.Add([]byte(`{"version":1,"classes":[{"name":"c","column":"group","templates":["{}"],"classes":[{"id":"a","text":"b"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		readAllOf(t, fstest.MapFS{ManifestName: {Data: b}, "0.arrow": {Data: shard}})
	})
}
