package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// file puts a header and data together.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func parse(b []byte) (*File, error) { return New(bytes.NewReader(b), int64(len(b)), "test") }

// testdata/views.safetensors was written by the reference (safetensors 0.8.0) with ten element types, a scalar and an empty tensor.
func TestWriteEqualsReference(t *testing.T) {
	want, err := os.ReadFile("testdata/views.safetensors")
	require.NoError(t, err)
	f, err := Open("testdata/views.safetensors")
	require.NoError(t, err)
	defer f.Close()
	var tensors []Tensor
	for _, name := range f.Names() {
		info, err := f.Info(name)
		require.NoError(t, err)
		data, err := f.Bytes(name)
		require.NoError(t, err)
		tensors = append([]Tensor{Raw(name, info.DType, info.Shape, data)}, tensors...) // in the wrong order
	}
	var got bytes.Buffer
	require.NoError(t, Write(&got, tensors, f.meta))
	require.Equal(t, want, got.Bytes())
}

func TestReadTypes(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	tests := []struct {
		dtype DType
		bytes []byte
		want  []float32
		ints  []int64
	}{
		{F64, le.AppendUint64(nil, math.Float64bits(-1.5)), []float32{-1.5}, nil},
		{F32, le.AppendUint32(nil, math.Float32bits(0.1)), []float32{0.1}, nil},
		{F16, []byte{0, 0x3c, 0, 0xc0, 1, 0, 0xff, 0x7b, 0xff, 0x03, 0, 0x80, 0, 0x7c, 1, 0x7e},
			[]float32{1, -2, 0x1p-24, 65504, 1023 * 0x1p-24, float32(math.Copysign(0, -1)), inf, nan}, nil},
		{BF16, []byte{0x80, 0x3f, 0x49, 0xc0, 0x80, 0x7f, 0xc0, 0x7f}, []float32{1, -3.140625, inf, nan}, nil},
		{I64, le.AppendUint64(nil, math.MaxUint64), []float32{-1}, []int64{-1}},
		{I32, []byte{0xfe, 0xff, 0xff, 0xff}, []float32{-2}, []int64{-2}},
		{I16, []byte{0, 0x80}, []float32{-32768}, []int64{-32768}},
		{I8, []byte{0x80, 0x7f}, []float32{-128, 127}, []int64{-128, 127}},
		{U64, []byte{1, 2, 0, 0, 0, 0, 0, 0}, []float32{513}, []int64{513}},
		{U32, []byte{0xff, 0xff, 0xff, 0xff}, []float32{4294967296}, []int64{4294967295}},
		{U16, []byte{0xff, 0xff}, []float32{65535}, []int64{65535}},
		{U8, []byte{0, 255}, []float32{0, 255}, []int64{0, 255}},
		{Bool, []byte{0, 1}, []float32{0, 1}, []int64{0, 1}},
	}
	for _, tt := range tests {
		t.Run(string(tt.dtype), func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, Write(&b, []Tensor{Raw("x", tt.dtype, []int{len(tt.want)}, tt.bytes)}, nil))
			f, err := parse(b.Bytes())
			require.NoError(t, err)
			got, shape, err := f.Float32("x")
			require.NoError(t, err)
			require.Equal(t, []int{len(tt.want)}, shape)
			for i := range tt.want {
				if tt.want[i] != tt.want[i] {
					require.True(t, got[i] != got[i], "index %d", i)
					continue
				}
				require.Equal(t, math.Float32bits(tt.want[i]), math.Float32bits(got[i]), "index %d", i)
			}
			ints, err := f.Ints("x")
			if tt.ints == nil {
				require.ErrorContains(t, err, "not an integer")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.ints, ints)
		})
	}
}

// Every half-precision number, by the definition of the format.
func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		exp, frac := h>>10&31, float64(h&1023)
		want := math.Ldexp(1024+frac, exp-25)
		if exp == 0 {
			want = math.Ldexp(frac, -24)
		}
		if exp == 31 {
			want = math.Inf(1)
			if frac != 0 {
				want = math.NaN()
			}
		}
		if h>>15 == 1 {
			want = -want
		}
		got := float64(halfToFloat32(uint16(h)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Fatalf("%#04x: got %v, want %v", h, got, want)
		}
	}
}

// More than one piece, and no data twice in memory.
func TestLargeTensor(t *testing.T) {
	data := make([]float32, 3*pieceSize/4+5)
	for i := range data {
		data[i] = float32(i) * 0.5
	}
	path := filepath.Join(t.TempDir(), "large.safetensors")
	out, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, Write(out, []Tensor{Floats("w", []int{len(data)}, data), Int64s("n", nil, []int64{-7}), Floats("empty", []int{0, 3}, nil)},
		map[string]string{"format": "pt", "<&>": "é"}))
	require.NoError(t, out.Close())
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, map[string]string{"format": "pt", "<&>": "é"}, f.meta)
	require.Equal(t, []string{"n", "empty", "w"}, f.Names())
	got := make([]float32, len(data))
	require.NoError(t, f.ReadFloat32("w", got))
	require.Equal(t, data, got)
	n, err := f.Ints("n")
	require.NoError(t, err)
	require.Equal(t, []int64{-7}, n)

	require.ErrorContains(t, f.ReadFloat32("w", got[:7]), "7 are wanted")
	require.ErrorIs(t, f.ReadFloat32("v", got), ErrMissing)
}

func TestCorrupt(t *testing.T) {
	tests := []struct {
		name, header string
		data         int
		want         string
	}{
		{"empty object", "{}", 0, ""},
		{"unpadded odd header", `{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`, 3, ""},
		{"padded", `{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}   `, 3, ""},
		{"any order", `{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`, 2, ""},
		{"empty tensor in the middle", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e":{"dtype":"F32","shape":[0],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, ""},
		{"array", `[1,2]`, 0, "does not begin"},
		{"leading space", ` {}`, 0, "does not begin"},
		{"not JSON", `{"a":`, 0, `tensor "a"`},
		{"not UTF-8", "{\"\xff\":1}", 0, "UTF-8"},
		{"trailing bytes", `{}{}`, 0, "follow"},
		{"NUL padding", "{}\x00", 0, "follow"},
		{"duplicate", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, `"a" occurs twice`},
		{"duplicate metadata", `{"__metadata__":{},"__metadata__":{}}`, 0, "occurs twice"},
		{"metadata of numbers", `{"__metadata__":{"a":1}}`, 0, "__metadata__"},
		{"overlap", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3, `"b" begins at byte 1`},
		{"gap", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3, `"b" begins at byte 2`},
		{"gap at the start", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, "begins at byte 1"},
		{"gap at the end", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2, "end at byte 1"},
		{"cut off", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 7, "cut off"},
		{"wrong size", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4, "takes 8 bytes"},
		{"backwards", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1, "bytes [1, 0)"},
		{"unknown type", `{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}`, 1, `unknown dtype "F4"`},
		{"unknown key", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1, "unknown field"},
		{"no shape", `{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1, "no shape"},
		{"no offsets", `{"a":{"dtype":"U8","shape":[1]}}`, 1, "instead of 2"},
		{"null", `{"a":null}`, 0, "unknown dtype"},
		{"negative", `{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1, `tensor "a"`},
		{"fraction", `{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}`, 1, `tensor "a"`},
		{"overflow", `{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0, "too large"},
		{"overflow hidden by zero", `{"a":{"dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0]}}`, 0, "too large"},
		{"huge but consistent", `{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}`, 8, "cut off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(file(tt.header, make([]byte, tt.data)...))
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "test")
		})
	}
	for name, b := range map[string][]byte{
		"nothing":             nil,
		"seven bytes":         make([]byte, 7),
		"header beyond file":  binary.LittleEndian.AppendUint64(nil, 50_000_000),
		"header beyond limit": binary.LittleEndian.AppendUint64(nil, math.MaxUint64),
		"header of zero":      make([]byte, 8),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := parse(b)
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, ErrCorrupt)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "a length in the file is not trusted")
		})
	}
	_, err := Open(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The file shrinks after its header was read.
func TestTruncatedLater(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Write(&b, []Tensor{Floats("w", []int{4}, make([]float32, 4))}, nil))
	f, err := New(bytes.NewReader(b.Bytes()[:b.Len()-3]), int64(b.Len()), "test")
	require.NoError(t, err)
	_, _, err = f.Float32("w")
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestWriteRefuses(t *testing.T) {
	tests := []struct {
		name    string
		tensors []Tensor
		want    string
	}{
		{"shape", []Tensor{Floats("w", []int{2, 3}, make([]float32, 5))}, "takes 24 bytes, the data have 20"},
		{"negative shape", []Tensor{Floats("w", []int{-2, -3}, make([]float32, 6))}, "takes 0 bytes"},
		{"twice", []Tensor{Floats("w", nil, []float32{1}), Floats("w", nil, []float32{2})}, `"w" is taken`},
		{"reserved", []Tensor{Floats("__metadata__", nil, []float32{1})}, "is taken"},
		{"type", []Tensor{Raw("w", "Q8", []int{1}, []byte{1})}, `unknown dtype "Q8"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			require.ErrorContains(t, Write(&b, tt.tensors, nil), tt.want)
			require.Zero(t, b.Len())
		})
	}
}

type fullDisk struct{ left int }

var errFull = errors.New("disk full")

func (d *fullDisk) Write(b []byte) (int, error) {
	n := min(d.left, len(b))
	d.left -= n
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

func TestWriteError(t *testing.T) {
	for _, left := range []int{0, 100, pieceSize + 200} {
		err := Write(&fullDisk{left}, []Tensor{Floats("w", []int{pieceSize}, make([]float32, pieceSize))}, nil)
		require.ErrorIs(t, err, errFull)
	}
}

func FuzzRead(f *testing.F) {
	seed, err := os.ReadFile("testdata/views.safetensors")
	require.NoError(f, err)
	f.Add(seed)
	f.Add(file(`{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}`, 255, 255, 255, 255, 255, 255, 255, 255))
	f.Add(file(`{"__metadata__":{"format":"pt"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parse(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		var tensors []Tensor
		for _, name := range file.Names() {
			info, err := file.Info(name)
			require.NoError(t, err)
			data, err := file.Bytes(name)
			require.NoError(t, err)
			tensors = append(tensors, Raw(name, info.DType, info.Shape, data))
			if v, _, err := file.Float32(name); err == nil {
				require.Len(t, v, info.Len())
			}
			file.Ints(name) // must not panic
		}
		var again bytes.Buffer
		require.NoError(t, Write(&again, tensors, file.meta))
		second, err := parse(again.Bytes())
		require.NoError(t, err)
		require.Len(t, second.Names(), len(tensors))
		for _, name := range file.Names() {
			want, err := file.Bytes(name)
			require.NoError(t, err)
			got, err := second.Bytes(name)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
}

// 10,000 mutations of a header: no panic, no memory beyond the file's size, and what is read without an error has the size that its shape says. The format has no
// checksum, so that a changed name, type or element cannot be told.
func TestMutations(t *testing.T) {
	original, err := os.ReadFile("testdata/views.safetensors")
	require.NoError(t, err)
	head := 8 + int(binary.LittleEndian.Uint64(original))
	errs := 0
	for i := range 10_000 {
		r := rand.New(rand.NewPCG(uint64(i), 3))
		b := slices.Clone(original)
		for range 1 + r.IntN(3) {
			at := r.IntN(max(min(head, len(b)-8), 1))
			if len(b) < 32 {
				break
			}
			switch r.IntN(6) {
			case 0:
				b[at] ^= 1 << r.IntN(8)
			case 1:
				b[at] = `0123456789{}[]",:-`[r.IntN(18)]
			case 2:
				b = slices.Delete(b, at, min(at+1+r.IntN(30), len(b)))
			case 3:
				b = slices.Insert(b, at, slices.Clone(b[at:min(at+30, len(b))])...)
			case 4:
				binary.LittleEndian.PutUint64(b, []uint64{0, 1, uint64(head - 8 + r.IntN(3)), uint64(len(b)), 1 << 40, 1<<64 - 1}[r.IntN(6)])
			case 5:
				b = b[:max(at, 16)]
			}
		}
		var before, after runtime.MemStats
		if i%100 == 0 {
			runtime.ReadMemStats(&before)
		}
		f, err := parse(b)
		if i%100 == 0 {
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		}
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			errs++
			continue
		}
		for _, name := range f.Names() {
			info, err := f.Info(name)
			require.NoError(t, err)
			data, err := f.Bytes(name)
			require.NoError(t, err)
			require.Len(t, data, info.Len()*info.DType.Size())
		}
	}
	require.Greater(t, errs, 2500, "the mutations hardly hurt")
}

// shards writes two files and the index that the text says.
func shards(t *testing.T, index string) string {
	dir := t.TempDir()
	for name, tensor := range map[string]Tensor{"one.safetensors": Floats("a", []int{2}, []float32{1, 2}), "two.safetensors": Floats("b", nil, []float32{3})} {
		var b bytes.Buffer
		require.NoError(t, Write(&b, []Tensor{tensor}, nil))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o666))
	}
	path := filepath.Join(dir, "model.safetensors.index.json")
	require.NoError(t, os.WriteFile(path, []byte(index), 0o666))
	return path
}

func TestIndex(t *testing.T) {
	f, err := OpenIndex(shards(t, string(Index(map[string]string{"a": "one.safetensors", "b": "two.safetensors"}, 12))))
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, []string{"a", "b"}, f.Names())
	for name, want := range map[string][]float32{"a": {1, 2}, "b": {3}} {
		got, _, err := f.Float32(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, x := range []struct{ index, want string }{
		{`{"weight_map":{"a":"one.safetensors"}}`, ""},
		{`{"weight_map":{"a":"one.safetensors","b":"one.safetensors"}}`, `"b" should be in one.safetensors`},
		{`{"weight_map":{"a":"two.safetensors","b":"two.safetensors"}}`, `"a" should be in two.safetensors`},
		{`{"weight_map":{"a":"one.safetensors","b":"three.safetensors"}}`, "the shard three.safetensors is missing"},
		{`{"weight_map":{"a":"../one.safetensors"}}`, "which is not beside it"},
		{`{"weight_map":{"a":".."}}`, "which is not beside it"},
		{`{"weight_map":{"b":"one.safetensors"}}`, `tensor "a" lies in one.safetensors`},
		{`{"weight_map":{}}`, "no weight_map"},
		{`[`, "index"},
	} {
		f, err := OpenIndex(shards(t, x.index))
		if x.want == "" {
			require.NoError(t, err)
			require.NoError(t, f.Close())
			continue
		}
		require.ErrorContains(t, err, x.want, x.index)
	}
}

var slow = flag.Bool("slow", false, "10,000 mutations of an index instead of 1,000")

// Mutations of an index beside its shards: an error, or every tensor under its own name with its own elements; no panic, no memory, and no file
// elsewhere is opened.
func TestIndexMutations(t *testing.T) {
	whole := Index(map[string]string{"a": "one.safetensors", "b": "two.safetensors"}, 12)
	path := shards(t, string(whole))
	elsewhere := filepath.Join(filepath.Dir(filepath.Dir(path)), "one.safetensors") // opened by a path that leads up
	var b bytes.Buffer
	require.NoError(t, Write(&b, []Tensor{Floats("a", []int{1}, []float32{9})}, nil))
	require.NoError(t, os.WriteFile(elsewhere, b.Bytes(), 0o666))
	pieces := []string{`"`, `{`, `}`, `:`, `,`, `../`, `/`, `\\`, `\u0000`, `one`, `two`, `a`, `b`, `weight_map`, `null`, `[]`, `1e999`, `"a":"one.safetensors"`, `.safetensors`}
	n, errs := 1_000, 0
	if *slow {
		n = 10_000
	}
	for i := range n {
		r := rand.New(rand.NewPCG(uint64(i), 5))
		text := slices.Clone(whole)
		for range 1 + r.IntN(3) {
			if len(text) < 16 {
				break
			}
			at := r.IntN(len(text))
			switch r.IntN(4) {
			case 0:
				text = slices.Insert(text, at, []byte(pieces[r.IntN(len(pieces))])...)
			case 1:
				text = slices.Delete(text, at, min(at+1+r.IntN(12), len(text)))
			case 2:
				text[at] = byte(r.Uint32())
			case 3:
				text = text[:max(at, 8)]
			}
		}
		require.NoError(t, os.WriteFile(path, text, 0o666))
		var before, after runtime.MemStats
		if i%100 == 0 {
			runtime.ReadMemStats(&before)
		}
		f, err := OpenIndex(path)
		if i%100 == 0 {
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		}
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrNotExist), "mutation %d: %v", i, err)
			errs++
			continue
		}
		want := map[string][]float32{"a": {1, 2}, "b": {3}}
		for _, name := range f.Names() {
			v, _, err := f.Float32(name)
			require.NoError(t, err)
			require.Equal(t, want[name], v, "mutation %d: %s", i, text)
		}
		require.NoError(t, f.Close())
	}
	require.Greater(t, errs, n/2, "the mutations hardly hurt")
}

// A mapped file that another process cuts off gives an error, as a plain read does.
func TestCutOffWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	out, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, Write(out, []Tensor{Floats("w", []int{1 << 20}, make([]float32, 1<<20))}, nil))
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, out.Truncate(5000))
	require.NoError(t, out.Close())
	_, _, err = f.Float32("w")
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = f.Bytes("w")
	require.ErrorIs(t, err, ErrCorrupt)
}

// A tensor can be written again: PyTorch's form needs its checksum first.
func TestWriteAgain(t *testing.T) {
	tensors := []Tensor{Floats("f", []int{2}, []float32{1, 2}), Int64s("i", []int{1}, []int64{3}), Raw("r", U8, []int{1}, []byte{4})}
	var first, second bytes.Buffer
	require.NoError(t, Write(&first, tensors, nil))
	require.NoError(t, Write(&second, tensors, nil))
	require.Equal(t, first.Bytes(), second.Bytes())
	v, err := tensors[0].Float32()
	require.NoError(t, err)
	require.Equal(t, []float32{1, 2}, v)
}

// Rounding to half precision and back gives every half-precision number, and rounds to the nearest, ties to even.
func TestNarrow(t *testing.T) {
	for h := range 1 << 16 {
		v := halfToFloat32(uint16(h))
		if v != v {
			require.Equal(t, uint16(0x7c00), float32ToHalf(v)&0x7c00)
			require.NotZero(t, float32ToHalf(v)&0x3ff)
			continue
		}
		require.Equal(t, uint16(h), float32ToHalf(v), "%#04x", h)
	}
	for _, x := range []struct {
		v    float32
		want uint16
	}{{1 + 0x1p-11, 0x3c00}, {1 + 3*0x1p-11, 0x3c02}, {1 + 0x1p-11 + 0x1p-20, 0x3c01}, {65519, 0x7bff}, {65520, 0x7c00}, {-1e9, 0xfc00}, {0x1p-25, 0}, {0x1.8p-25, 1}, {3 * 0x1p-25, 2}, {0x1.ff8p-15, 0x03ff}, {0x1.ffcp-15, 0x0400}} {
		require.Equal(t, x.want, float32ToHalf(x.v), "%v", x.v)
	}
	require.Equal(t, []byte{0x80, 0x3f, 0x82, 0x3f, 0x80, 0x7f}, BF16.Narrow([]float32{1 + 0x1p-8, 1 + 3*0x1p-8, float32(math.Inf(1))}))
	require.Equal(t, byte(0x7f), BF16.Narrow([]float32{float32(math.NaN())})[1]&0x7f)
	require.Nil(t, I64.Narrow([]float32{1}))
}
