package torchfile

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
)

func open(t testing.TB, name string) *File {
	f, err := Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func reference(t testing.TB, name string) *safetensors.File {
	f, err := safetensors.Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// content returns a tensor's bytes.
func content(t testing.TB, f *File, name string) []byte {
	var b []byte
	require.NoError(t, f.Stream(name, func(p []byte) error { b = append(b, p...); return nil }))
	return b
}

// Every form holds the tensors that PyTorch saved, in name, type, shape and every bit. testdata comes from PyTorch and its safetensors writer.
func TestEqualsPyTorch(t *testing.T) {
	for _, x := range []struct {
		file, form, want string
		prefix           string
		extra            []string
	}{
		{"plain.pt", Zip, "plain.safetensors", "", nil},
		{"legacy.pt", Legacy, "plain.safetensors", "", nil},
		{"views.pt", Zip, "views.expected.safetensors", "", nil},
		{"openai.pt", TorchScript, "openai.safetensors", "", []string{"attn_mask", "context_length", "input_resolution", "vocab_size"}},
	} {
		t.Run(x.file, func(t *testing.T) {
			f, want := open(t, x.file), reference(t, x.want)
			require.Equal(t, x.form, f.Form)
			require.ElementsMatch(t, append(want.Names(), x.extra...), f.Names())
			for _, name := range want.Names() {
				info, err := f.Info(name)
				require.NoError(t, err)
				wantInfo, err := want.Info(name)
				require.NoError(t, err)
				require.Equal(t, wantInfo.DType, info.DType, name)
				require.Equal(t, wantInfo.Shape, info.Shape, name)
				wantBytes, err := want.Bytes(name)
				require.NoError(t, err)
				require.True(t, bytes.Equal(wantBytes, content(t, f, name)), name)
				floats, _, err := f.Float32(name)
				require.NoError(t, err)
				wantFloats, _, err := want.Float32(name)
				require.NoError(t, err)
				require.Equal(t, wantFloats, floats, name)
			}
		})
	}
	_, err := open(t, "plain.pt").Info("absent")
	require.ErrorIs(t, err, safetensors.ErrMissing)
}

// Classes that are not known are passed over; what lies beside the tensors is found under its name.
func TestForeignClasses(t *testing.T) {
	want := reference(t, "views.expected.safetensors")
	head, _, err := want.Float32("head")
	require.NoError(t, err)
	tail, _, err := want.Float32("tail")
	require.NoError(t, err)
	for _, name := range []string{"namespace.pt", "namespace.legacy.pt"} {
		f := open(t, name)
		w, shape, err := f.Float32("model.w")
		require.NoError(t, err)
		require.Equal(t, []int{6, 5}, shape)
		transposed, _, err := want.Float32("transposed")
		require.NoError(t, err)
		for i := range 5 {
			for j := range 6 {
				require.Equal(t, transposed[i*6+j], w[j*5+i])
			}
		}
		b, _, err := f.Float32("model.b")
		require.NoError(t, err)
		require.Equal(t, append(append([]float32{}, head...), tail...), b)
		require.Equal(t, 1e-3, f.Values()["args.lr"])
	}
	f := open(t, "namespace.pt")
	require.Equal(t, map[string]any{
		"epoch": int64(7), "lr": 1e-3, "args.lr": 1e-3, "args.tags.0": "a", "args.tags.1": "b", "best.r@1": 0.25, "best.steps.0": int64(1), "best.steps.1": int64(2),
		"text": "naïve ☃", "big": int64(1 << 40), "negative": int64(-5), "flag": true,
	}, f.Values())
}

func TestNPZ(t *testing.T) {
	f, want := open(t, "odd.npz"), reference(t, "odd.expected.safetensors")
	require.Equal(t, NPZ, f.Form)
	base, _, err := want.Float32("base")
	require.NoError(t, err)
	seen := 0
	for _, name := range f.Names() {
		got, shape, err := f.Float32(name)
		require.NoError(t, err)
		switch name {
		case "scalar":
			require.Equal(t, []float32{2.5}, got)
			require.Empty(t, shape)
		case "int64":
			require.Equal(t, []float32{-2, -1, 0, 1, 2}, got)
		default:
			info, err := f.Info(name)
			require.NoError(t, err)
			require.Equal(t, []int{4, 3}, shape)
			for i := range base {
				tolerance := 0.0
				if info.DType.Size() == 2 {
					tolerance = 0.01
				}
				require.InDelta(t, base[i], got[i], tolerance, name)
			}
		}
		seen++
	}
	require.GreaterOrEqual(t, seen, 7)
	require.Empty(t, f.Skipped())
	require.Contains(t, open(t, "vit.npz").Names(), "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
}

// pickleFile is an archive with that pickle and one storage of 8 bytes.
func pickleFile(pickle string) []byte {
	return archive(map[string]string{"a/data.pkl": pickle, "a/data/0": "\x00\x00\x80\x3f\x00\x00\x00\x40"})
}

// floats is the pickle of a storage's persistent id, and tensor of a view of it.
func floats(count string) string {
	return "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK" + count + "tQ"
}

func view(count, offset, shape, stride string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n(" + floats(count) + "K" + offset + "(" + shape + "t(" + stride + "t\x89}tR"
}

// archive is a zip archive of stored records.
func archive(records map[string]string) []byte {
	var b bytes.Buffer
	w := &zipWriter{w: &b}
	for _, name := range []string{"a/data.pkl", "a/byteorder", "a/data/0", "../evil", "a/../../evil", "/abs", `a\b`, "x.npy"} {
		if content, ok := records[name]; ok {
			w.bytes(name, []byte(content))
		}
	}
	if err := w.close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestHostilePickles(t *testing.T) {
	good := func(name string) string {
		return "\x80\x02}(X\x01\x00\x00\x00" + name + view("\x02", "\x00", "K\x02", "K\x01") + "u."
	}
	f, err := New(bytes.NewReader(pickleFile(good("w"))), int64(len(pickleFile(good("w")))), "test")
	require.NoError(t, err)
	w, _, err := f.Float32("w")
	require.NoError(t, err)
	require.Equal(t, []float32{1, 2}, w)

	bomb := "\x80\x02}q\x00" // a dict of two dicts, each twice the one before: 2^30 leaves
	for i := range 30 {
		bomb += "}q" + string(rune(i+1)) + "(K\x00h" + string(rune(i)) + "K\x01h" + string(rune(i)) + "u"
	}
	item := func(v string) string { return "\x80\x02}X\x01\x00\x00\x00w" + v + "s." }
	for _, x := range []struct{ name, pickle, want string }{
		{"system call", "\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "no tensors"},
		{"eval", item("c__builtin__\neval\nX\x01\x00\x00\x001\x85R"), "no tensors"},
		{"billion laughs", bomb + ".", "more than 262144 values"},
		{"circle", "\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "in a circle"},
		{"deep", "\x80\x02" + strings.Repeat("]", 5000) + strings.Repeat("a", 4999) + ".", "deep"},
		{"endless", "\x80\x02" + strings.Repeat("N0", 2<<20), "more than 2097152 operations"},
		{"no end", "\x80\x02}", "1 bytes are wanted"},
		{"empty stack", "\x80\x02.", "the stack is empty"},
		{"no mark", "\x80\x02t.", "there is no mark"},
		{"string past the end", "\x80\x02X\xff\xff\xff\x7fabc.", "bytes are wanted"},
		{"huge string", "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes are wanted"},
		{"unknown operation", "\x80\x02\x82\x01.", "operation 0x82"},
		{"not remembered", "\x80\x02h\x07.", "nothing is remembered"},
		{"past the storage", item(view("\x02", "\x01", "K\x02", "K\x01")), "reads past its storage"},
		{"stride past the storage", item(view("\x02", "\x00", "K\x02", "K\x02")), "reads past its storage"},
		{"overflow", item(view("\x02", "\x00", "K\x02\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\x01K\x01")), "reads past its storage"},
		{"repeated too often", item(view("\x02", "\x00", "\x8a\x07\x00\x00\x00\x00\x00\x01\x00", "K\x00")), "repeats 1 stored elements too often"},
		{"negative", item(view("\x02", "\x00", "J\xff\xff\xff\xff", "K\x01")), "a tensor whose arguments"},
		{"another count", item(view("\x03", "\x00", "K\x02", "K\x01")), "has 8 bytes"},
		{"no such storage", strings.Replace(item(view("\x02", "\x00", "K\x02", "K\x01")), "X\x01\x00\x00\x000", "X\x01\x00\x00\x009", 1), "there is no record"},
		{"something follows", item(view("\x02", "\x00", "K\x02", "K\x01")) + "x", "bytes follow the pickle"},
		{"twice", "\x80\x02}(X\x01\x00\x00\x00w" + view("\x02", "\x00", "K\x02", "K\x01") + "X\x01\x00\x00\x00w" + view("\x02", "\x00", "K\x02", "K\x01") + "u.", "two tensors"},
		{"negated", item(strings.Replace(view("\x02", "\x00", "K\x02", "K\x01"), "}tR", "}}X\x03\x00\x00\x00neg\x88stR", 1)), "pending negation"},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := pickleFile(x.pickle)
			_, err := New(bytes.NewReader(b), int64(len(b)), "test")
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, x.want)
			require.ErrorContains(t, err, "test")
		})
	}
}

func TestHostileArchives(t *testing.T) {
	pickle := "\x80\x02}X\x01\x00\x00\x00w" + view("\x02", "\x00", "K\x02", "K\x01") + "s."
	for name, records := range map[string]map[string]string{
		"leads out":      {"../evil": "x", "a/data.pkl": pickle},
		"leads out deep": {"a/../../evil": "x", "a/data.pkl": pickle},
		"absolute":       {"/abs": "x", "a/data.pkl": pickle},
		"backslash":      {`a\b`: "x", "a/data.pkl": pickle},
	} {
		b := archive(records)
		_, err := New(bytes.NewReader(b), int64(len(b)), "test")
		require.ErrorContains(t, err, "leads out of the archive", name)
	}
	b := archive(map[string]string{"a/data.pkl": pickle, "a/byteorder": "big", "a/data/0": "12345678"})
	_, err := New(bytes.NewReader(b), int64(len(b)), "test")
	require.ErrorContains(t, err, `the byte order is "big"`)

	b = pickleFile(pickle)
	at := bytes.Index(b, []byte("\x00\x00\x80\x3f"))
	b[at] ^= 1 // a bit of a weight
	f, err := New(bytes.NewReader(b), int64(len(b)), "test")
	require.NoError(t, err)
	_, _, err = f.Float32("w")
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "does not have its checksum")

	// The directory's second entry points at the first one's record.
	b = pickleFile(pickle)
	first := bytes.Index(b, []byte("PK\x01\x02"))
	second := first + 4 + bytes.Index(b[first+4:], []byte("PK\x01\x02"))
	copy(b[second+42:second+46], b[first+42:first+46])
	_, err = New(bytes.NewReader(b), int64(len(b)), "test")
	require.ErrorIs(t, err, ErrCorrupt)

	for name, b := range map[string][]byte{"nothing": nil, "text": []byte("hello"), "pickle": []byte("\x80\x02}."), "zip": []byte("PK\x03\x04")} {
		_, err := New(bytes.NewReader(b), int64(len(b)), name)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	_, err = Open(filepath.Join(t.TempDir(), "absent.pt"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestHostileArrays(t *testing.T) {
	array := func(text string, data ...byte) map[string]string {
		head := "\x93NUMPY\x01\x00" + string(binary.LittleEndian.AppendUint16(nil, uint16(len(text)))) + text
		return map[string]string{"x.npy": head + string(data)}
	}
	for _, x := range []struct {
		text, want string
		data       int
	}{
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", "", 8},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", "", 4},
		{"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }\n", "", 8},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", "takes 12 bytes", 8},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n", "header", 8},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999999, 999999999999999999), }\n", "shape", 8},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }\n", "header", 8},
		{"__import__('os')", "header", 8},
	} {
		b := archive(array(x.text, make([]byte, x.data)...))
		_, err := New(bytes.NewReader(b), int64(len(b)), "test")
		if x.want == "" {
			require.NoError(t, err, x.text)
			continue
		}
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, x.want)
	}
	b := archive(array("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n", 1, 2, 3))
	f, err := New(bytes.NewReader(b), int64(len(b)), "test")
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, f.Skipped())
}

// What is written reads back to the same bits, in PyTorch's order and alignment.
func TestWrite(t *testing.T) {
	want := reference(t, "views.expected.safetensors")
	var tensors []safetensors.Tensor
	for _, name := range want.Names() {
		info, err := want.Info(name)
		require.NoError(t, err)
		tensors = append(tensors, safetensors.Streamed(name, info.DType, info.Shape, func(use func([]byte) error) error { return want.Stream(name, use) }))
	}
	var b bytes.Buffer
	require.NoError(t, Write(&b, tensors, ""))
	f, err := New(bytes.NewReader(b.Bytes()), int64(b.Len()), "test")
	require.NoError(t, err)
	require.Equal(t, Zip, f.Form)
	require.ElementsMatch(t, want.Names(), f.Names())
	for _, name := range want.Names() {
		data, err := want.Bytes(name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, content(t, f, name)), name)
	}
	records, err := openArchive(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	for name, rec := range records {
		require.Zero(t, rec.at%alignment, name)
	}
	again := new(bytes.Buffer)
	require.NoError(t, Write(again, tensors, ""))
	require.Equal(t, b.Bytes(), again.Bytes())

	again.Reset() // as PyTorch Lightning keeps it
	require.NoError(t, Write(again, tensors, "state_dict"))
	f, err = New(bytes.NewReader(again.Bytes()), int64(again.Len()), "test")
	require.NoError(t, err)
	for _, name := range want.Names() {
		data, err := want.Bytes(name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, content(t, f, "state_dict."+name)), name)
	}

	require.ErrorContains(t, Write(new(bytes.Buffer), append(tensors, tensors[0]), ""), "is taken")
	require.ErrorContains(t, Write(new(bytes.Buffer), []safetensors.Tensor{safetensors.Raw("w", safetensors.F8E5M2, nil, []byte{1})}, ""), "no storage")
	require.ErrorContains(t, Write(new(bytes.Buffer), []safetensors.Tensor{safetensors.Raw("w", safetensors.F32, nil, []byte{1})}, ""), "takes 4 bytes")
}
