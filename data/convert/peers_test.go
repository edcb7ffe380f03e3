package convert

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	arrays "github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// fixtures are the files that tests/peers/formats.py made with webdataset and pyarrow.
func fixtures(t testing.TB) []string {
	wants, err := filepath.Glob("testdata/peers/*/want.json")
	require.NoError(t, err)
	require.NotEmpty(t, wants)
	dirs := make([]string, len(wants))
	for i, name := range wants {
		dirs[i] = filepath.Dir(name)
	}
	return dirs
}

// importerOf makes the importer that a fixture's command names.
func importerOf(t testing.TB, dir string, command []string) Importer {
	flags := map[string]string{}
	var files []string
	for i := 1; i < len(command); i++ {
		if name, ok := strings.CutPrefix(command[i], "--"); ok {
			i++
			flags[name] = command[i]
			continue
		}
		files = append(files, strings.Replace(command[i], "DIR", dir, 1))
	}
	list := func(name string) []string {
		if flags[name] == "" {
			return nil
		}
		return []string{flags[name]}
	}
	columns := Columns{Captions: list("caption-column"), Others: list("attribute-column")}
	switch command[0] {
	case "webdataset":
		return WebDataset{Shards: Files(files, ""), TextKeys: list("text-key"), SplitKey: flags["split-key"], LabelKey: flags["label-key"], Attributes: list("attribute-key")}
	case "parquet":
		return Parquet{Files: Files(files, ""), Columns: columns}
	case "vilt-arrow":
		return ViltArrow{Files: Files(files, ""), Columns: columns}
	}
	t.Fatalf("command %q", command)
	return nil
}

func TestPeersFiles(t *testing.T) {
	for _, dir := range fixtures(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var want struct {
				Command []string
				Rows    []map[string]any
			}
			text, err := os.ReadFile(filepath.Join(dir, "want.json"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(text, &want))
			out := filepath.Join(t.TempDir(), "out")
			_, err = Run(ctx, importerOf(t, dir, want.Command), Options{Out: out})
			require.NoError(t, err)
			rows, m := all(t, out)
			require.Len(t, rows, len(want.Rows))
			require.NotEmpty(t, rows)
			for i, r := range rows {
				sum := sha256.Sum256(r.Image)
				captions := []any{}
				for _, c := range r.Captions {
					captions = append(captions, c.Text)
				}
				got := map[string]any{"image_id": r.ImageID, "image": hex.EncodeToString(sum[:]), "caption": captions, "split": r.Split, "group": r.Group, "label": r.Label, "source": r.Source}
				for k, name := range m.Attributes {
					got[strings.TrimPrefix(name, "meta.")] = r.Attributes[k]
				}
				for name, v := range want.Rows[i] {
					require.Equal(t, v, got[strings.TrimPrefix(name, "meta.")], "row %d, %s", i, name)
				}
			}
		})
	}
}

// tarMember is a file of a tar.
type tarMember struct{ name, text string }

func tarOf(t testing.TB, members ...tarMember) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Size: int64(len(m.text)), Mode: 0o644, Typeflag: tar.TypeReg}
		if strings.HasSuffix(m.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(m.text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func packedTar(t testing.TB, how string, raw []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		z, err := zstd.NewWriter(&b)
		require.NoError(t, err)
		w = z
	default:
		return raw
	}
	_, err := w.Write(raw)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestWebDatasetMembers(t *testing.T) {
	pic := string(pngOf(t, 2, 2))
	raw := tarOf(t, tarMember{"./a/", ""}, tarMember{"__meta__/1.json", "{}"}, tarMember{"no-suffix", "x"}, tarMember{"a/._1.png", "mac"},
		tarMember{"./a/1.seg.png", "mask"}, tarMember{"./a/1.PNG", pic}, tarMember{"./a/1.json", `{"texts":["x","y"],"caption":"z","deep":{"n":3,"b":true,"s":null},"who":"me","url":"http://u"}`},
		tarMember{"a/2.txt", "two\r\n"}, tarMember{"a/2.webp", "other"}, tarMember{"a/2.png", pic}, tarMember{"a/2.json", `{"caption":"not this"}`},
		tarMember{"a/3.png", pic}, tarMember{"a/3.cls", " 7\n"}, tarMember{"a/3.pickle", strings.Repeat("p", 5000)})
	want := []arrowset.Row{
		{RowMeta: arrowset.RowMeta{ImageID: "a/1", Split: "val", Source: "http://u", Attributes: []string{"3", "true", ""}}, Image: []byte(pic), Captions: []arrowset.Caption{{Text: "z"}}},
		{RowMeta: arrowset.RowMeta{ImageID: "a/2", Split: "val", Attributes: []string{"", "", ""}}, Image: []byte(pic), Captions: []arrowset.Caption{{Text: "two"}}},
		{RowMeta: arrowset.RowMeta{ImageID: "a/3", Split: "val", Label: "7", Attributes: []string{"", "", ""}}, Image: []byte(pic), Captions: []arrowset.Caption{}},
	}
	for _, how := range []string{"plain", "gzip", "zstd", "standard input"} {
		t.Run(how, func(t *testing.T) {
			packed := packedTar(t, how, raw)
			dir := put(t, map[string]string{"set-val-0.tar": string(packed)})
			d := WebDataset{Shards: Files([]string{filepath.Join(dir, "set-val-0.tar")}, ""), Attributes: []string{"deep.n", "deep.b", "deep.s"}}
			if how == "standard input" {
				d.Shards, d.Stdin = Files([]string{"val=-"}, ""), bytes.NewReader(packed)
			}
			_, err := Run(ctx, d, Options{Out: filepath.Join(dir, "out")})
			require.NoError(t, err)
			rows, _ := all(t, filepath.Join(dir, "out"))
			require.Equal(t, want, rows)
		})
	}
	dir := put(t, map[string]string{"a.tar": string(raw)})
	d := WebDataset{Shards: Files([]string{filepath.Join(dir, "a.tar")}, ""), TextKeys: []string{"texts", "who"}, LabelKey: "who", Images: []string{".png"}}
	_, err := Run(ctx, d, Options{Out: filepath.Join(dir, "out"), OnBad: Skip})
	require.NoError(t, err)
	rows, _ := all(t, filepath.Join(dir, "out"))
	require.Len(t, rows, 2, "the second has none of the fields")
	require.Equal(t, []arrowset.Caption{{Text: "x"}, {Text: "y"}, {Text: "me"}}, rows[0].Captions)
	require.Equal(t, "me", rows[0].Label)
}

func TestWebDatasetErrors(t *testing.T) {
	pic := string(pngOf(t, 2, 2))
	good := []tarMember{{"1.png", pic}, {"1.txt", "one"}, {"2.png", pic}, {"2.txt", "two"}}
	raw := tarOf(t, good...)
	for _, c := range []struct {
		name string
		file []byte
		want []string
	}{
		{"no tar", []byte(strings.Repeat("hello ", 200)), []string{"is it a tar file"}},
		{"empty", nil, []string{"is it a tar file"}},
		{"no samples", tarOf(t, tarMember{"dir/", ""}), []string{"there is no record"}},
		{"cut in a picture", raw[:512+len(pic)/2], []string{"byte", "truncated", "1. member"}},
		{"cut behind a member", raw[:1024+512+100], []string{"truncated", "2. member"}},
		{"cut in a header", raw[:1024+100], []string{"truncated", "1. member"}},
		{"cut gzip", packedTar(t, "gzip", raw)[:150], []string{"byte", "truncated"}},
		{"xz", []byte("\xfd7zXZ\x00 and more"), []string{"packed by xz"}},
		{"no picture", tarOf(t, tarMember{"1.txt", "one"}, tarMember{"1.left.png", pic}), []string{"sample 1", "no picture (.jpg", ".txt .left.png"}},
		{"no sentence", tarOf(t, tarMember{"1.png", pic}), []string{"sample 1", "no sentence"}},
		{"member twice", tarOf(t, tarMember{"1.png", pic}, tarMember{"1.PNG", pic}), []string{"two members .png"}},
		{"sample twice", tarOf(t, append(good, tarMember{"1.png", pic}, tarMember{"1.txt", "x"})...), []string{"picture 1 was there before", "byte"}},
		{"JSON cut", tarOf(t, tarMember{"1.png", pic}, tarMember{"1.json", `{"caption":`}), []string{"sample 1", ".json", "unexpected EOF"}},
		{"JSON list", tarOf(t, tarMember{"1.png", pic}, tarMember{"1.json", `[1]`}), []string{".json", "is no object"}},
		{"caption is a number", tarOf(t, tarMember{"1.png", pic}, tarMember{"1.json", `{"caption":1}`}), []string{"field caption", "neither a text nor a list"}},
		{"text not UTF-8", tarOf(t, tarMember{"1.png", pic}, tarMember{"1.txt", "\xff"}), []string{"not UTF-8"}},
		{"picture is a page", tarOf(t, tarMember{"1.png", "<html>"}, tarMember{"1.txt", "x"}), []string{"sample 1", "neither JPEG"}},
		{"text too long", tarOf(t, tarMember{"1.png", pic}, tarMember{"1.txt", strings.Repeat("x", maxMemberText+1)}), []string{".txt has", "at most"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := put(t, map[string]string{"s.tar": string(c.file)})
			_, err := Run(ctx, WebDataset{Shards: Files([]string{filepath.Join(dir, "s.tar")}, "")}, Options{Out: filepath.Join(dir, "out")})
			require.ErrorIs(t, err, ErrInput)
			for _, part := range c.want {
				require.ErrorContains(t, err, part)
			}
			if !strings.Contains(err.Error(), "there is no record") {
				require.ErrorContains(t, err, "s.tar")
			}
		})
	}
	t.Run("what follows a cut file is imported", func(t *testing.T) {
		dir := put(t, map[string]string{"1.tar": string(raw[:len(raw)-2048]), "2.tar": string(tarOf(t, tarMember{"9.png", pic}, tarMember{"9.txt", "nine"}))})
		r, err := Run(ctx, WebDataset{Shards: Files([]string{filepath.Join(dir, "{1..2}.tar")}, "")}, Options{Out: filepath.Join(dir, "out"), OnBad: Skip})
		require.NoError(t, err)
		require.Equal(t, Result{Rows: 2, Skipped: 1}, r)
	})
	for name, d := range map[string]WebDataset{
		"no file":        {},
		"stdin twice":    {Shards: Files([]string{"-", "-"}, ""), Stdin: strings.NewReader("")},
		"open brace":     {Shards: Files([]string{"{a"}, "")},
		"no match":       {Shards: Files([]string{"no-such-*.tar"}, "")},
		"a folder":       {Shards: Files([]string{"testdata"}, "")},
		"too many names": {Shards: Files([]string{"{0..9999999}.tar"}, "")},
	} {
		_, err := Run(ctx, d, Options{Out: filepath.Join(t.TempDir(), "out")})
		require.ErrorIs(t, err, ErrInput, name)
	}
}

func TestExpandNames(t *testing.T) {
	for name, want := range map[string][]string{
		"a.tar":              {"a.tar"},
		"-":                  {"-"},
		"s-{008..010}.tar":   {"s-008.tar", "s-009.tar", "s-010.tar"},
		"{3..1}":             {"3", "2", "1"},
		"{0..6..3}":          {"0", "3", "6"},
		"{a,b}{1,2}":         {"a1", "a2", "b1", "b2"},
		"x{a,{1..2}y}":       {"xa", "x1y", "x2y"},
		"{alone}":            {"{alone}"},
		"{-1..1}":            {"-1", "0", "1"},
		"train={a,b}/c.tar":  {"train=a/c.tar", "train=b/c.tar"},
		"{000000..000001}.t": {"000000.t", "000001.t"},
	} {
		got, err := expandNames([]string{name})
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	dir := put(t, map[string]string{"b.tar": "", "a.tar": "", "[x].tar": ""})
	got, err := expandNames([]string{filepath.Join(dir, "*.tar"), filepath.Join(dir, "[x].tar")})
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "[x].tar"), filepath.Join(dir, "a.tar"), filepath.Join(dir, "b.tar"), filepath.Join(dir, "[x].tar")}, got)
}

func TestSplitOfName(t *testing.T) {
	for name, want := range map[string]string{"train-00000-of-00004.parquet": "train", "coco_caption_karpathy_restval.arrow": "restval", "vqav2_test.arrow": "test",
		"shards/000012.tar": "train", "Validation.parquet": "validation", "latest.tar": "train", "my-test2.tar": "test", "dev.arrow": "dev"} {
		require.Equal(t, want, splitOfName(name), name)
	}
}

// arrowBytes writes an Arrow file of one record batch with the given columns.
func arrowBytes(t testing.TB, fields []arrow.Field, fill func(b *arrays.RecordBuilder)) []byte {
	schema := arrow.NewSchema(fields, nil)
	b := arrays.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	fill(b)
	rec := b.NewRecord()
	defer rec.Release()
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	require.NoError(t, w.Write(rec))
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestTableErrors(t *testing.T) {
	pic := pngOf(t, 2, 2)
	field := func(name string, typ arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: typ, Nullable: true}
	}
	image, caption := field("image", arrow.BinaryTypes.Binary), field("caption", arrow.BinaryTypes.String)
	row := func(b *arrays.RecordBuilder) {
		b.Field(0).(*arrays.BinaryBuilder).Append(pic)
		b.Field(1).(*arrays.StringBuilder).Append("a text")
	}
	good := arrowBytes(t, []arrow.Field{image, caption}, row)
	parquet, err := os.ReadFile("testdata/peers/parquet_snappy/pairs.parquet")
	require.NoError(t, err)
	file, err := os.ReadFile("testdata/peers/vilt_file/coco_caption_karpathy_val.arrow")
	require.NoError(t, err)
	for _, c := range []struct {
		name    string
		parquet bool
		file    []byte
		columns Columns
		want    []string
	}{
		{"empty", false, nil, Columns{}, []string{"0 bytes"}},
		{"text", false, []byte("image,caption\n1,2\n"), Columns{}, []string{"byte 0", "is it an Arrow IPC file"}},
		{"Parquet as Arrow", false, parquet, Columns{}, []string{"it is a Parquet file"}},
		{"Feather 1", false, []byte("FEA1xxxxxxxx"), Columns{}, []string{"Feather file of version 1"}},
		{"Arrow cut", false, file[:len(file)/2], Columns{}, []string{"truncated", fmt.Sprint(len(file) / 2)}},
		{"stream cut", false, good[:len(good)-100], Columns{}, []string{"byte", "truncated or damaged"}},
		{"no pictures", false, arrowBytes(t, []arrow.Field{field("img_0", arrow.BinaryTypes.Binary), caption}, row), Columns{}, []string{"no column of pictures", "img_0 (binary)"}},
		{"no sentences", false, arrowBytes(t, []arrow.Field{image, field("x", arrow.BinaryTypes.String)}, row), Columns{}, []string{"no column of sentences", "x (utf8)"}},
		{"column missing", false, good, Columns{Captions: []string{"titles"}, Others: []string{"what"}}, []string{`no column "titles" for the caption`, `no column "what" for the attribute`}},
		{"picture missing", false, arrowBytes(t, []arrow.Field{image, caption}, func(b *arrays.RecordBuilder) {
			row(b)
			b.Field(0).AppendNull()
			b.Field(1).(*arrays.StringBuilder).Append("x")
		}), Columns{}, []string{"record batch 0, row 1", "the picture is missing"}},
		{"path leads out", false, arrowBytes(t, []arrow.Field{field("image", arrow.BinaryTypes.String), caption}, func(b *arrays.RecordBuilder) {
			b.Field(0).(*arrays.StringBuilder).Append("../x.png")
			b.Field(1).(*arrays.StringBuilder).Append("x")
		}), Columns{}, []string{"record batch 0, row 0", `"../x.png" is not the name`}},
		{"path of no file", false, arrowBytes(t, []arrow.Field{field("path", arrow.BinaryTypes.String), caption}, func(b *arrays.RecordBuilder) {
			b.Field(0).(*arrays.StringBuilder).Append("none.png")
			b.Field(1).(*arrays.StringBuilder).Append("x")
		}), Columns{}, []string{"record batch 0, row 0", "none.png is missing"}},
		{"a type that is not read", false, arrowBytes(t, []arrow.Field{image, field("caption", arrow.FixedWidthTypes.Date32)}, func(b *arrays.RecordBuilder) {
			b.Field(0).(*arrays.BinaryBuilder).Append(pic)
			b.Field(1).(*arrays.Date32Builder).Append(1)
		}), Columns{}, []string{`"caption"`, "type date"}},
		{"Arrow as Parquet", true, file, Columns{}, []string{"is it a Parquet file"}},
		{"Parquet cut", true, parquet[:len(parquet)-20], Columns{}, []string{"truncated"}},
		{"Parquet encrypted", true, []byte("PARExxxxxxxxxxPARE"), Columns{}, []string{"encrypted"}},
		{"Parquet's footer", true, append([]byte("PAR1\x00\x00\x00\x00\xff\x00\x00\x00"), "PAR1"...), Columns{}, []string{"footer claims 255 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(put(t, map[string]string{"f.data": string(c.file)}), "f.data")
			var im Importer = ViltArrow{Files: Files([]string{name}, ""), Columns: c.columns}
			if c.parquet {
				im = Parquet{Files: Files([]string{name}, ""), Columns: c.columns}
			}
			_, err := Run(ctx, im, Options{Out: filepath.Join(t.TempDir(), "out")})
			require.ErrorIs(t, err, ErrInput)
			for _, part := range append(c.want, "f.data") {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

// openBytes opens a file of a fixture with other bytes.
func openBytes(t testing.TB, dir string, command []string, raw []byte) (Source, error) {
	im := importerOf(t, dir, command)
	o := &Options{}
	any := Files([]string{filepath.Join(dir, "want.json")}, "") // a file that is there; raw is read in its place
	switch im := im.(type) {
	case WebDataset:
		im.Shards, im.Stdin = Files([]string{"-"}, ""), bytes.NewReader(raw)
		return im.Open(ctx, o)
	case Parquet:
		return openTables(any, "", im.Columns, o, func(*os.File, int64) (table, error) { return openParquet(bytes.NewReader(raw), int64(len(raw))) })
	case ViltArrow:
		return openTables(any, "", im.Columns, o, func(*os.File, int64) (table, error) { return openArrow(bytes.NewReader(raw), int64(len(raw))) })
	}
	return nil, errors.New("no importer")
}

// drain reads all records of a source: whatever the bytes, it ends soon, without a panic, and with errors that say what is
// wrong.
func drain(t testing.TB, open func() (Source, error)) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	s, err := open()
	if err == nil {
		defer s.Close()
		for bad := 0; bad < 10000; {
			_, err = s.Next()
			if fault := (*RecordError)(nil); errors.As(err, &fault) {
				require.NotEmpty(t, fault.Where)
				bad++
				continue
			}
			if err != nil {
				break
			}
		}
	}
	if err != nil && err != io.EOF {
		require.ErrorIs(t, err, ErrInput)
		require.NotContains(t, err.Error(), "%!")
	}
	runtime.ReadMemStats(&after)
	require.Less(t, time.Since(begin), time.Minute, "it takes too long")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(600<<20), "it claims too much memory")
}

// seeds returns the files of the fixtures with their commands.
func seeds(t testing.TB, format string) (files [][]byte, dirs []string, commands [][]string) {
	for _, dir := range fixtures(t) {
		var want struct{ Command []string }
		text, err := os.ReadFile(filepath.Join(dir, "want.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &want))
		if want.Command[0] != format {
			continue
		}
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		for _, name := range names {
			if filepath.Base(name) == "want.json" {
				continue
			}
			raw, err := os.ReadFile(name)
			require.NoError(t, err)
			files, dirs, commands = append(files, raw), append(dirs, dir), append(commands, want.Command)
			break
		}
	}
	require.NotEmpty(t, files)
	return files, dirs, commands
}

// mutate changes some bytes, cuts, or doubles a piece; half of the changes are near the end, where footers are.
func mutate(rng *rand.Rand, raw []byte) []byte {
	raw = slices.Clone(raw)
	for range 1 + rng.IntN(4) {
		at := rng.IntN(len(raw))
		switch rng.IntN(8) {
		case 0, 1:
			at = max(len(raw)-1-rng.IntN(1200), 0)
		case 2:
			at = rng.IntN(min(len(raw), 1500))
		}
		switch rng.IntN(7) {
		case 0:
			raw[at] ^= 1 << rng.IntN(8)
		case 1:
			raw[at] = byte(rng.Uint32())
		case 2:
			raw[at] = []byte{0, 1, 0x7f, 0x80, 0xff}[rng.IntN(5)]
		case 3:
			for i := at; i < min(at+4, len(raw)); i++ {
				raw[i] = []byte{0, 0xff, 0x7f}[rng.IntN(3)]
			}
		case 4:
			n := rng.IntN(64)
			copy(raw[at:], raw[max(at-n, 0):at])
		case 5:
			if rng.IntN(4) == 0 && at > 0 {
				raw = raw[:at]
			}
		case 6:
			n := min(rng.IntN(16), len(raw)-at)
			raw = append(raw[:at:at], raw[at+n:]...)
		}
		if len(raw) == 0 {
			return raw
		}
	}
	return raw
}

var slow = flag.Bool("slow", false, "10,000 damaged files of each kind instead of 300, and the memory of 100,000 pictures")

// mutations is how many damaged files each format is tested with.
func mutations() int {
	if *slow {
		return 10000
	}
	return 300
}

func TestDamagedFiles(t *testing.T) {
	for _, format := range []string{"webdataset", "parquet", "vilt-arrow"} {
		t.Run(format, func(t *testing.T) {
			files, dirs, commands := seeds(t, format)
			rng := rand.New(rand.NewPCG(7, 1))
			for i := range mutations() {
				k := i % len(files)
				raw := mutate(rng, files[k])
				drain(t, func() (Source, error) { return openBytes(t, dirs[k], commands[k], raw) })
			}
		})
	}
}

func fuzz(f *testing.F, format string) {
	files, dirs, commands := seeds(f, format)
	for i, raw := range files {
		f.Add(raw, uint8(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, k uint8) {
		i := int(k) % len(files)
		drain(t, func() (Source, error) { return openBytes(t, dirs[i], commands[i], raw) })
	})
}

func FuzzWebDataset(f *testing.F) { fuzz(f, "webdataset") }
func FuzzParquet(f *testing.F)    { fuzz(f, "parquet") }
func FuzzArrow(f *testing.F)      { fuzz(f, "vilt-arrow") }

func FuzzExpandNames(f *testing.F) {
	for _, s := range []string{"a{b,c}", "{1..3}", "{{a,b},c}{0..01}", "{..}", "{1..2..0}", "{a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := expandBraces(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInput)
			return
		}
		require.NotEmpty(t, names)
		if !strings.Contains(s, "{") {
			require.Equal(t, []string{s}, names)
		}
	})
}

// TestHadoopLZ4 unpacks what codec 5 may hold: Hadoop's frames, of one block or several, and a bare block.
func TestHadoopLZ4(t *testing.T) {
	text := []byte(strings.Repeat("a picture and a sentence, ", 40))
	block := func(b []byte) []byte {
		out := make([]byte, lz4.CompressBlockBound(len(b)))
		n, err := lz4.CompressBlock(b, out, nil)
		require.NoError(t, err)
		return out[:n]
	}
	frame := func(size int, blocks ...[]byte) []byte {
		out := binary.BigEndian.AppendUint32(nil, uint32(size))
		for _, b := range blocks {
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
		}
		return out
	}
	half := len(text) / 2
	one := frame(len(text), block(text))
	for name, raw := range map[string][]byte{
		"a frame": one, "two blocks": frame(len(text), block(text[:half]), block(text[half:])),
		"two frames": append(frame(half, block(text[:half])), frame(half, block(text[half:]))...), "bare": block(text),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := new(unpacker).unpack(5, raw, len(text))
			require.NoError(t, err)
			require.Equal(t, string(text), string(got))
		})
	}
	for name, raw := range map[string][]byte{"cut": one[:len(one)-1], "too much": append(one, one...), "nothing": {}, "no end": frame(1<<30, block(text))} {
		t.Run(name, func(t *testing.T) {
			_, err := new(unpacker).unpack(5, raw, len(text))
			require.Error(t, err)
		})
	}
}

// The values of dictionaries are held in memory; a file whose dictionaries unpack to more than there is room for is refused.
func TestArrowDictionaryRoom(t *testing.T) {
	b, err := os.ReadFile("testdata/peers/vilt_stream_categories/sbu_0.arrow")
	require.NoError(t, err)
	read := func(room int) (rows int, err error) {
		a, err := openArrow(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		a.room = room
		for {
			if _, err = a.next(); err != nil {
				return rows, err
			}
			rows++
		}
	}
	rows, err := read(maxDicts)
	require.ErrorIs(t, err, io.EOF)
	require.Positive(t, rows)
	_, err = read(20)
	require.ErrorIs(t, err, ErrInput)
	require.ErrorContains(t, err, "the dictionaries take more than")
}
