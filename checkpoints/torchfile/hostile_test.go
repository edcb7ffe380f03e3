package torchfile

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
)

var slow = flag.Bool("slow", false, "10,000 mutations of each file instead of 500")

// everything is what a reader makes of a file.
type everything struct {
	infos  map[string]safetensors.Info
	data   map[string][]byte
	values map[string]any
}

func readAll(b []byte) (*everything, error) {
	f, err := New(bytes.NewReader(b), int64(len(b)), "test")
	if err != nil {
		return nil, err
	}
	e := &everything{map[string]safetensors.Info{}, map[string][]byte{}, f.Values()}
	for _, name := range f.Names() {
		info, err := f.Info(name)
		if err != nil {
			return nil, err
		}
		e.infos[name] = info
		if err := f.Stream(name, func(p []byte) error { e.data[name] = append(e.data[name], p...); return nil }); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// part is a range of a file whose bytes are structure, not elements.
type part struct{ at, end int }

// structure returns the parts of an archive that are not the content of storages, or all of another file.
func structure(b []byte) []part {
	records, err := openArchive(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return []part{{0, len(b)}}
	}
	var content []part
	for _, rec := range records {
		if rec.packed > 512 { // short ones stay, so that elements are hit too
			content = append(content, part{int(rec.at), int(rec.at + rec.packed)})
		}
	}
	slices.SortFunc(content, func(a, b part) int { return a.at - b.at })
	var out []part
	at := 0
	for _, c := range content {
		out = append(out, part{at, c.at})
		at = c.end
	}
	return append(out, part{at, len(b)})
}

// mutate changes one to three things: bits, bytes, numbers of two, four or eight bytes to ones that hurt, runs that are cut out, doubled or swapped,
// and the end of the file.
func mutate(b []byte, parts []part, r *rand.Rand) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(3) {
		if len(b) < 16 {
			break
		}
		p := parts[r.IntN(len(parts))]
		at := min(p.at+r.IntN(max(p.end-p.at, 1)), len(b)-9)
		hurt := []uint64{0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff, 1<<63 - 1, 1 << 63, 1<<64 - 1, uint64(len(b)), uint64(r.IntN(len(b)))}
		v := hurt[r.IntN(len(hurt))]
		switch r.IntN(9) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.Uint32())
		case 2:
			binary.LittleEndian.PutUint16(b[at:], uint16(v))
		case 3:
			binary.LittleEndian.PutUint32(b[at:], uint32(v))
		case 4:
			binary.LittleEndian.PutUint64(b[at:], v)
		case 5:
			b = slices.Delete(b, at, min(at+1+r.IntN(40), len(b)))
		case 6:
			b = slices.Insert(b, at, slices.Clone(b[at:min(at+1+r.IntN(40), len(b))])...)
		case 7:
			to := r.IntN(len(b) - 8)
			copy(b[at:at+8], slices.Clone(b[to:to+8]))
		case 8:
			b = b[:at]
		}
	}
	return b
}

// allocated returns the bytes that the program has allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// bounded is readAll within a second and limit bytes. What took longer is tried again: another process may have had the machine.
func bounded(t *testing.T, b []byte, limit uint64, i int) (e *everything, err error) {
	for range 3 {
		before, start := allocated(), time.Now()
		e, err = readAll(b)
		if used := allocated() - before; used > limit {
			t.Errorf("mutation %d: %d MiB allocated", i, used>>20)
		}
		if time.Since(start) < time.Second {
			return e, err
		}
	}
	t.Errorf("mutation %d takes more than a second", i)
	return e, err
}

// A file whose structure is damaged gives an error or the tensors as they were, never others where a checksum tells (zip), in little time and memory,
// and never a panic. The legacy form has no checksum: there a changed name, shape or element cannot be told.
func TestMutations(t *testing.T) {
	n := 500
	if *slow {
		n = 10_000
	}
	for _, x := range []struct {
		file   string
		checks bool
	}{{"views.pt", true}, {"namespace.pt", true}, {"openai.pt", true}, {"vit.npz", true}, {"odd.npz", true}, {"legacy.pt", false}, {"namespace.legacy.pt", false}} {
		t.Run(x.file, func(t *testing.T) {
			original, err := os.ReadFile(filepath.Join("testdata", x.file))
			require.NoError(t, err)
			parts := structure(original)
			if !x.checks {
				parts = []part{{0, min(len(original), 12_000)}} // the pickles
			}
			want, err := readAll(original)
			require.NoError(t, err)
			limit := uint64(64<<20 + 64*len(original))
			errs, same := 0, 0
			for i := range n {
				r := rand.New(rand.NewPCG(uint64(i), 7))
				b := mutate(original, parts, r)
				got, err := bounded(t, b, limit, i)
				if err != nil {
					require.ErrorIs(t, err, ErrCorrupt, "mutation %d", i)
					errs++
					continue
				}
				if x.checks {
					if msg := difference(want, got); msg != "" {
						t.Errorf("mutation %d: %s, and no error", i, msg)
					}
				}
				same++
			}
			t.Logf("%d mutations: %d errors, %d read", n, errs, same)
			require.Greater(t, errs, n/4, "the mutations hardly hurt")
		})
	}
}

func difference(want, got *everything) string {
	if len(want.infos) != len(got.infos) {
		return fmt.Sprintf("%d tensors, not %d", len(got.infos), len(want.infos))
	}
	for name, w := range want.infos {
		g, ok := got.infos[name]
		switch {
		case !ok:
			return name + " is missing"
		case g.DType != w.DType || !slices.Equal(g.Shape, w.Shape):
			return fmt.Sprintf("%s is %s %v, not %s %v", name, g.DType, g.Shape, w.DType, w.Shape)
		case !bytes.Equal(want.data[name], got.data[name]):
			return name + " has other elements"
		}
	}
	return ""
}

// A pickle whose operations are damaged, in an archive whose checksums are right: the machine alone must hold.
func TestPickleMutations(t *testing.T) {
	n := 2000
	if *slow {
		n = 10_000
	}
	for _, file := range []string{"views.pt", "openai.pt"} {
		original, err := os.ReadFile(filepath.Join("testdata", file))
		require.NoError(t, err)
		records, err := openArchive(bytes.NewReader(original), int64(len(original)))
		require.NoError(t, err)
		contents := map[string][]byte{}
		for name, rec := range records {
			contents[name], err = rec.all(1 << 20)
			require.NoError(t, err)
		}
		errs := 0
		for i := range n {
			r := rand.New(rand.NewPCG(uint64(i), 11))
			var b bytes.Buffer
			z := &zipWriter{w: &b}
			for name, c := range contents {
				if name[len(name)-len("data.pkl"):] == "data.pkl" {
					c = mutate(c, []part{{0, len(c)}}, r)
				}
				z.bytes(name, c)
			}
			require.NoError(t, z.close())
			if _, err := bounded(t, b.Bytes(), 256<<20, i); err != nil {
				require.ErrorIs(t, err, ErrCorrupt, "mutation %d", i)
				errs++
			}
		}
		t.Logf("%s: %d mutations of the pickle: %d errors", file, n, errs)
		require.Greater(t, errs, n/4)
	}
}

func FuzzOpen(f *testing.F) {
	for _, name := range []string{"views.pt", "namespace.pt", "namespace.legacy.pt", "odd.npz"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readAll(b); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	})
}

func FuzzPickle(f *testing.F) {
	for _, name := range []string{"views.pt", "namespace.pt", "openai.pt"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		records, err := openArchive(bytes.NewReader(b), int64(len(b)))
		require.NoError(f, err)
		for path, rec := range records {
			if filepath.Base(path) == "data.pkl" {
				text, err := rec.all(1 << 20)
				require.NoError(f, err)
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n, err := unpickle(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.LessOrEqual(t, n, len(b))
		w := &walker{values: map[string]any{}}
		if err := w.visit("", v, 0); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	})
}
