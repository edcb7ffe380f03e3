package experiments

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/demo"
	"diptych/data/remote"
	"diptych/eval"
	"diptych/train"
)

// makeShards makes a data set of 64 training pictures and 8 to measure in shards of two or three: what lies behind each
// picture, and no decoder reads, makes it large.
func makeShards(t *testing.T) (dir string, shards int, largest int64) {
	t.Helper()
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	dir = filepath.Join(t.TempDir(), "data")
	w, err := arrowset.Create(dir, arrowset.Manifest{Name: "shards"})
	require.NoError(t, err)
	defer w.Abort()
	w.ShardBytes = 1
	for i := range 72 {
		image, err := set.Image(t.Context(), i)
		require.NoError(t, err)
		for k := range 45 << 10 {
			image = append(image, byte((k*k+i)>>3), byte(k*7919>>5))
		}
		split := "train"
		if i >= 64 {
			split = "val"
		}
		require.NoError(t, w.Append(arrowset.Row{
			RowMeta: arrowset.RowMeta{ImageID: fmt.Sprint("id-", i), Split: split, Group: fmt.Sprint(i * 37 % 50)}, Image: image,
			Captions: []arrowset.Caption{{Text: "one of them", Lang: "en"}, {Text: fmt.Sprint("number ", i), Lang: "en"}},
		}))
	}
	require.NoError(t, w.Close())
	near, err := arrowset.Open(dir)
	require.NoError(t, err)
	defer near.Close()
	for _, s := range near.Manifest().Shards {
		largest = max(largest, s.Bytes)
	}
	return dir, len(near.Manifest().Shards), largest
}

// server serves a folder and can be killed and started again at the same address.
type server struct {
	dir, address string
	http         *http.Server
	shards       atomic.Int64 // that were asked for
}

func (s *server) start(t *testing.T) {
	if s.address == "" {
		s.address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", s.address)
	require.NoError(t, err)
	s.address = l.Addr().String()
	files := http.FileServer(http.Dir(s.dir))
	s.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".arrow") {
			s.shards.Add(1)
		}
		files.ServeHTTP(w, r)
	})}
	go s.http.Serve(l)
}

// finished reads the finished weights of a run.
func finished(t *testing.T, run string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(run, "model", "model*.safetensors"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	b, err := os.ReadFile(files[0])
	require.NoError(t, err)
	return b
}

// A run over shards on a server that is killed and started again in the middle ends with the bits of the run over the same
// shards on this machine, though its cache holds a third of them. A server that is gone for good stops the run with an error,
// and the run goes on when it is back.
func TestRemoteRun(t *testing.T) {
	dir, shards, largest := makeShards(t)
	require.Greater(t, shards, 12)
	pocket, _ := makePocket(t, 0, "en", "val")
	sets := []string{"data.windowShards=2", "train.steps=40", "train.evalEvery=20"}
	local := filepath.Join(t.TempDir(), "local")
	require.NoError(t, trainPocket(t.Context(), &listener{}, pocket, local, append(sets, "data.path="+filepath.ToSlash(dir))...))

	s := &server{dir: dir}
	s.start(t)
	defer func() { s.http.Close() }()
	run := func(l *listener, out string, patience time.Duration) error {
		r, err := Resolve(Options{
			Recipe: pocket, Out: out, Workers: 1, Threads: 1, Sets: append(sets, "data.path=http://"+s.address+"/manifest.json"),
			Cache: remote.Options{Dir: t.TempDir(), Limit: 5 * largest, Patience: patience},
		})
		require.NoError(t, err)
		return r.Train(t.Context(), l)
	}
	l := &listener{}
	before := int64(0)
	l.step = func(r train.Record) {
		if r.Step == 7 {
			s.http.Close()
			before = s.shards.Load()
			time.AfterFunc(500*time.Millisecond, func() { s.start(t) })
		}
	}
	out := filepath.Join(t.TempDir(), "killed")
	require.NoError(t, run(l, out, time.Minute))
	require.Greater(t, s.shards.Load(), before, "the run needed the server again")
	require.Contains(t, strings.Join(l.notes, "\n"), "trying again in ")
	require.Equal(t, finished(t, local), finished(t, out))

	l = &listener{step: func(r train.Record) {
		if r.Step == 7 {
			s.http.Close()
		}
	}}
	out = filepath.Join(t.TempDir(), "gone")
	err := run(l, out, 300*time.Millisecond)
	require.ErrorContains(t, err, "http://"+s.address+"/000")
	require.ErrorContains(t, err, "gave up after ")
	s.start(t)
	require.NoError(t, run(&listener{}, out, time.Minute))
	require.Equal(t, finished(t, local), finished(t, out))

	m, err := OpenModel(out, 1)
	require.NoError(t, err)
	defer m.Close()
	val, err := m.OpenData(t.Context(), "", remote.Options{Dir: t.TempDir()}, eval.Options{})
	require.NoError(t, err)
	defer val.Close()
	require.Equal(t, 8, val.Manifest().Splits["val"])

	r, err := Resolve(Options{Recipe: pocket, Out: filepath.Join(t.TempDir(), "x"), Workers: 1, Threads: 1,
		Sets: []string{"data.path=http://" + s.address}, Cache: remote.Options{Dir: t.TempDir(), Limit: 3 * largest}})
	require.NoError(t, err)
	require.Equal(t, 16, r.Config.Data.WindowShards)
	err = r.Train(t.Context(), &listener{})
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, "data.windowShards: ")
	require.ErrorContains(t, err, "make it larger (--cache-size), or lower the number")
}

// Several sets in one run: interrupted at any update it goes on to the same bits, also where one of them is remote.
func TestMixedRun(t *testing.T) {
	dir, _, _ := makeShards(t)
	pocket, small := makePocket(t, 0, "en", "val")
	s := &server{dir: dir}
	s.start(t)
	defer func() { s.http.Close() }()
	sources := func(second string) string {
		return fmt.Sprintf("data.sources=[{path: %q, weight: 1}, {path: %q, weight: 2.5, windowShards: 3}]", filepath.ToSlash(small), second)
	}
	text, err := os.ReadFile(pocket)
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  path:") {
			lines[i] = "  split: train"
		}
	}
	require.NoError(t, os.WriteFile(pocket, []byte(strings.Join(lines, "\n")), 0o666))
	var first []byte
	for _, second := range []string{filepath.ToSlash(dir), "http://" + s.address} {
		out := filepath.Join(t.TempDir(), "mixed")
		begin := func(stop int) error {
			r, err := Resolve(Options{Recipe: pocket, Out: out, Workers: 1, Threads: 1, Sets: []string{sources(second), "train.steps=14"}, Cache: remote.Options{Dir: t.TempDir()}})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			return r.Train(ctx, &listener{step: func(rec train.Record) {
				if rec.Step == stop {
					cancel()
				}
			}})
		}
		if first != nil {
			require.ErrorIs(t, begin(9), train.ErrInterrupted)
		}
		require.NoError(t, begin(-1))
		if first == nil {
			first = finished(t, out)
		} else {
			require.Equal(t, first, finished(t, out))
		}
	}
	_, err = Resolve(Options{Recipe: pocket, Out: t.TempDir(), Workers: 1, Sets: []string{sources("x"), "data.path=y"}})
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, "data.path: y, but data.sources names the data sets")
	_, err = Resolve(Options{Recipe: pocket, Out: t.TempDir(), Workers: 1, Sets: []string{"data.sources=[{path: a}]"}})
	require.ErrorContains(t, err, "data.sources[0].weight: 0, want a positive number")
}
