package convert

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// made is a source of n records that are made from their numbers, every seventh of them bad in one of three ways.
type made struct {
	N, Size int
	at      int
	loads   *atomic.Int64
	failAt  int // this record cannot be read at all; 0 means none
}

func (m *made) Open(_ context.Context, o *Options) (Source, error) {
	m.at = 0
	o.Total = m.N
	return m, nil
}

func (m *made) Next() (*Record, error) {
	i := m.at
	if i == m.N {
		return nil, io.EOF
	}
	m.at++
	where := fmt.Sprintf("made:%d", i)
	r := &Record{Where: where, Row: arrowset.Row{
		RowMeta:  arrowset.RowMeta{ImageID: fmt.Sprintf("%06d", i), Split: []string{"train", "val"}[i%2], Group: fmt.Sprint(i / 3)},
		Captions: texts(fmt.Sprintf("caption %d", i))}}
	switch {
	case m.failAt > 0 && i == m.failAt:
		return nil, errors.New("the disk is gone")
	case i%21 == 6:
		return nil, badRecord(where, "cut")
	case i%21 == 13:
		r.Row.ImageID = "\xff"
	}
	size := m.Size
	r.Load = func(context.Context) ([]byte, error) {
		if m.loads != nil {
			m.loads.Add(1)
		}
		if i%21 == 20 {
			return nil, fmt.Errorf("%w: missing", ErrInput)
		}
		b := make([]byte, size)
		rng := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
		rng.Read(b)
		return append([]byte(pic("")), b...), nil
	}
	return r, nil
}

func (m *made) Close() error { return nil }

// files returns the contents of a folder's files, of shards their checksums.
func files(t *testing.T, dir string) map[string]string {
	all := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if all[name] = string(b); filepath.Ext(name) == ".arrow" {
			all[name] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		return err
	}))
	return all
}

// The set that the tests below make: 300 records, 42 of them bad, in shards of three record batches.
const (
	madeRecords = 300
	madeSize    = 20 << 10
	madeShard   = 512 << 10
)

func undisturbed(t *testing.T) map[string]string {
	out := filepath.Join(t.TempDir(), "out")
	r, err := Run(ctx, &made{N: madeRecords, Size: madeSize}, Options{Out: out, OnBad: Skip, ShardBytes: madeShard, Workers: 1})
	require.NoError(t, err)
	require.Equal(t, Result{Rows: madeRecords - 42, Skipped: 42}, r)
	all := files(t, out)
	require.Greater(t, len(all), 8)
	return all
}

func TestWorkers(t *testing.T) {
	want := undisturbed(t)
	var list []skippedRecord
	for _, line := range strings.Split(strings.TrimSpace(want[SkippedName]), "\n") {
		var s skippedRecord
		require.NoError(t, json.Unmarshal([]byte(line), &s))
		list = append(list, s)
	}
	require.Len(t, list, 42)
	require.Equal(t, skippedRecord{6, "made:6", "cut"}, list[0])
	require.Equal(t, 13, list[1].Record)
	require.Contains(t, list[1].Error, "column image_id is not UTF-8")
	require.Equal(t, skippedRecord{20, "made:20", "bad input: missing"}, list[2])

	for _, workers := range []int{2, 7, 64} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := Run(ctx, &made{N: madeRecords, Size: madeSize}, Options{Out: out, OnBad: Skip, ShardBytes: madeShard, Workers: workers})
		require.NoError(t, err)
		require.Equal(t, want, files(t, out), "%d workers", workers)
	}
	_, err := Run(ctx, &made{N: madeRecords, Size: madeSize}, Options{Out: filepath.Join(t.TempDir(), "out"), Workers: 3})
	require.EqualError(t, err, "convert: made:6: bad input: cut")
	_, err = Run(ctx, &made{N: 6, Size: 1}, Options{Out: filepath.Join(t.TempDir(), "out"), OnBad: "ignore"})
	require.ErrorContains(t, err, `not "ignore"`)
}

func TestLargePictures(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out") // each picture alone takes half of what the gate lets wait
	r, err := Run(ctx, &made{N: 4, Size: gateBytes/2 + 1}, Options{Out: out, Workers: 5})
	require.NoError(t, err)
	require.Equal(t, 4, r.Rows)
}

// TestReadAhead imports a tar from standard input, whose pictures are read on the way: while the writer stands still, no more
// of it is read than the gate lets wait.
func TestReadAhead(t *testing.T) {
	const n, size = 96, 1 << 20
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	member := func(name string, b []byte) {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(b)), Mode: 0o644}))
		_, err := w.Write(b)
		require.NoError(t, err)
	}
	for i := range n {
		member(fmt.Sprintf("%03d.txt", i), []byte("a text"))
		member(fmt.Sprintf("%03d.png", i), append([]byte(pic("")), make([]byte, size)...))
	}
	require.NoError(t, w.Close())
	var read atomic.Int64
	stdin := readerFunc(func(b []byte) (int, error) {
		k, err := raw.Read(b)
		read.Add(int64(k))
		return k, err
	})
	rows := 0
	_, err := Run(ctx, WebDataset{Shards: Files([]string{"train=-"}, ""), Stdin: stdin}, Options{Out: filepath.Join(t.TempDir(), "out"), Progress: func(Progress) {
		if rows++; rows > 1 {
			return
		}
		require.Eventually(t, func() bool { return read.Load() > gateBytes }, time.Minute, time.Millisecond)
		time.Sleep(100 * time.Millisecond)                    // for what should not come
		require.Less(t, read.Load(), int64(gateBytes+4*size)) // the picture that passed it, and what package bufio and tar read ahead
	}})
	require.NoError(t, err)
	require.Equal(t, n, rows)
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestGoOn stops an import in the middle, several times, and goes on.
func TestGoOn(t *testing.T) {
	want := undisturbed(t)
	parent := t.TempDir()
	out := filepath.Join(parent, "out")
	o := Options{Out: out, OnBad: Skip, ShardBytes: madeShard, Workers: 2}
	var loads atomic.Int64
	for _, stop := range []int{80, 150, 151, 299} {
		loads.Store(0)
		_, err := Run(ctx, &made{N: madeRecords, Size: madeSize, failAt: stop, loads: &loads}, o)
		require.ErrorContains(t, err, "the disk is gone (")
		require.ErrorContains(t, err, "rows are finished; the same command goes on behind them")
		require.NoDirExists(t, out)
	}
	require.Less(t, loads.Load(), int64(200), "the pictures of finished shards are not read again")

	// A shard that no journal knows and a line that is cut short are what a kill leaves.
	work := filepath.Join(parent, ".out.import")
	require.NoError(t, os.WriteFile(filepath.Join(work, "set", "00077.arrow"), []byte("x"), 0o644))
	j, err := os.OpenFile(filepath.Join(work, "journal.jsonl"), os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	_, err = j.WriteString(`{"shard":{"fi`)
	require.NoError(t, err)
	require.NoError(t, j.Close())

	other := o
	other.ShardBytes++
	_, err = Run(ctx, &made{N: madeRecords, Size: madeSize}, other)
	require.ErrorContains(t, err, "unfinished import of something else")
	_, err = Run(ctx, &made{N: madeRecords / 2, Size: madeSize}, o)
	require.ErrorContains(t, err, "unfinished import of something else")

	steps := 0
	o.Progress = func(p Progress) {
		steps++
		require.Positive(t, p.Kept)
	}
	r, err := Run(ctx, &made{N: madeRecords, Size: madeSize}, o)
	require.NoError(t, err)
	require.Positive(t, r.Kept)
	require.Less(t, steps, 100)
	require.Equal(t, want, files(t, out))
	require.NoDirExists(t, work)

	// What is finished is not made again, nor by another request.
	rows := r.Rows
	o.Progress = func(Progress) { require.Fail(t, "a record was read") }
	r, err = Run(ctx, &made{N: madeRecords, Size: madeSize}, o)
	require.NoError(t, err)
	require.Equal(t, Result{Rows: rows, Kept: rows, Before: true}, r)
	_, err = Run(ctx, &made{N: madeRecords, Size: madeSize}, other)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "with other options (import.json there says which)")
	require.Equal(t, want, files(t, out))
	require.NoError(t, os.Remove(filepath.Join(out, requestName)))
	_, err = Run(ctx, &made{N: madeRecords, Size: madeSize}, o)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "does not say that this import made it")
	require.NoDirExists(t, work)
}

// changed is a source whose texts have changed since the import was begun.
type changed struct{ made }

func (c *changed) Open(ctx context.Context, o *Options) (Source, error) {
	_, err := c.made.Open(ctx, o)
	return c, err
}

func (c *changed) Next() (*Record, error) {
	r, err := c.made.Next()
	if err == nil && c.failAt == 0 && c.at == 4 {
		r.Row.Captions[0].Text = "another"
	}
	return r, err
}

func TestInputChanged(t *testing.T) {
	o := Options{Out: filepath.Join(t.TempDir(), "out"), OnBad: Skip, ShardBytes: madeShard}
	_, err := Run(ctx, &changed{made{N: madeRecords, Size: madeSize, failAt: 200}}, o)
	require.ErrorContains(t, err, "the disk is gone")
	_, err = Run(ctx, &changed{made{N: madeRecords, Size: madeSize}}, o)
	require.ErrorIs(t, err, ErrInput)
	require.ErrorContains(t, err, "the input has changed")
}

// childEnv makes the test binary import instead of testing.
const childEnv = "DIPTYCH_TEST_IMPORT_OUT"

func TestMain(m *testing.M) {
	if out := os.Getenv(childEnv); out != "" {
		_, err := Run(ctx, &made{N: madeRecords, Size: madeSize}, Options{Out: out, OnBad: Skip, ShardBytes: madeShard, Progress: func(Progress) { time.Sleep(500 * time.Microsecond) }})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestKill kills imports at random moments until one comes to its end.
func TestKill(t *testing.T) {
	want := undisturbed(t)
	begin := time.Now()
	child := func(out string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+out)
		cmd.Stderr = os.Stderr
		return cmd
	}
	whole := filepath.Join(t.TempDir(), "out")
	require.NoError(t, child(whole).Run())
	took := time.Since(begin)
	require.Equal(t, want, files(t, whole))

	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 3 {
		out := filepath.Join(t.TempDir(), "out")
		kills := 0
		for ; ; kills++ {
			cmd := child(out)
			require.NoError(t, cmd.Start())
			timer := time.AfterFunc(time.Duration(rng.Int64N(int64(took))), func() { cmd.Process.Kill() })
			err := cmd.Wait()
			timer.Stop()
			if err == nil {
				break
			}
			if _, missing := os.Stat(filepath.Join(filepath.Dir(out), ".out.import")); missing != nil && cmd.ProcessState.ExitCode() == 1 {
				break // the kill before it came behind the end of the import, whose folder is not written over
			}
			require.Equal(t, -1, cmd.ProcessState.ExitCode(), "ended by itself: %v", err)
		}
		t.Logf("round %d: %d kills", round, kills)
		require.Equal(t, want, files(t, out))
		entries, err := os.ReadDir(filepath.Dir(out))
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing else is left")
	}
}

// TestKilledAtTheEnd is the kill between the rename of the set and the removal of the journal.
func TestKilledAtTheEnd(t *testing.T) {
	parent := t.TempDir()
	out, work := filepath.Join(parent, "out"), filepath.Join(parent, ".out.import")
	im, o := &made{N: madeRecords, Size: madeSize}, Options{Out: out, OnBad: Skip, ShardBytes: madeShard}
	src, err := im.Open(ctx, &Options{})
	require.NoError(t, err)
	key := []byte(`{"k":1}`)
	j, _, err := openJournal(out, key)
	require.NoError(t, err)
	w, err := arrowset.Resume(out, j.setDir(), arrowset.Manifest{Name: "out"}, nil)
	require.NoError(t, err)
	w.OnShard = func(s arrowset.Shard, _ any) error { return j.shard(s, journalMark{3, "x"}) }
	rec, err := src.Next()
	require.NoError(t, err)
	rec.Row.Image = []byte("x")
	require.NoError(t, w.Append(rec.Row))
	require.NoError(t, w.Close())
	require.NoError(t, j.file.Close())
	require.NoError(t, j.lock.Close())

	_, _, err = openJournal(out, []byte(`{"k":2}`))
	require.ErrorIs(t, err, ErrInput)
	require.DirExists(t, work)
	j, finished, err := openJournal(out, key)
	require.NoError(t, err)
	require.True(t, finished)
	require.NoError(t, j.close())
	require.NoDirExists(t, work)
	_, err = Run(ctx, im, o)
	require.ErrorIs(t, err, fs.ErrExist)
}

// TestMemory imports tables of one and of ten parts: what lives in the heap at the end of the larger may be more by the index
// of pictures, 16 to 32 bytes each, but not by pictures or texts. With -slow it is 10,000 and 100,000 pictures.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 11,000 pictures")
	}
	live := func(n int) (most int64) {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "pairs.csv"))
		require.NoError(t, err)
		fmt.Fprintln(f, "image,caption")
		require.NoError(t, os.Mkdir(filepath.Join(dir, "p"), 0o755))
		for i := range n {
			name := fmt.Sprintf("p/%d.png", i)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), append([]byte(pic(name)), make([]byte, 8<<10)...), 0o644))
			fmt.Fprintf(f, "%s,%s\n", name, strings.Repeat("a long caption ", 40))
		}
		require.NoError(t, f.Close())
		im := CSV{Images: dir, Files: Files([]string{f.Name()}, "s"), Columns: Columns{Image: "image", Captions: []string{"caption"}}}
		done := 0
		_, err = Run(ctx, im, Options{Out: filepath.Join(dir, "out"), Progress: func(Progress) {
			if done++; done%(n/4) == 0 {
				runtime.GC()
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				most = max(most, int64(s.HeapAlloc))
			}
		}})
		require.NoError(t, err)
		return most
	}
	live(1000) // what is allocated once
	n := 1000
	if *slow {
		n = 10000
	}
	small, large := live(n), live(10*n)
	t.Logf("live heap: %.1f MB for %d pictures, %.1f MB for %d of %d MB", float64(small)/1e6, n, float64(large)/1e6, 10*n, 86*n/1000)
	require.Less(t, large-small, int64(9*n*32+1<<20))
}
