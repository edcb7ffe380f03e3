package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// pictureBytes is the size of a picture: four make a record batch, and with it a shard.
const pictureBytes = 60 << 10

// makeSet writes a set of n rows in shards of four and opens it.
func makeSet(t *testing.T, n int) (dir string, set *arrowset.Set) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "set")
	w, err := arrowset.Create(dir, arrowset.Manifest{Name: "far"})
	require.NoError(t, err)
	defer w.Abort()
	w.ShardBytes = 1
	r := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		image := make([]byte, pictureBytes)
		for k := range image {
			image[k] = byte(r.Uint32())
		}
		require.NoError(t, w.Append(arrowset.Row{
			RowMeta: arrowset.RowMeta{ImageID: fmt.Sprint("id-", i), Split: []string{"train", "train", "train", "val"}[i*4/n], Group: fmt.Sprint(i % 7)},
			Image:   image, Captions: []arrowset.Caption{{Text: fmt.Sprint("row ", i)}},
		}))
	}
	require.NoError(t, w.Close())
	set, err = arrowset.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { set.Close() })
	return dir, set
}

// notebook keeps notes.
type notebook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notebook) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(&n.text, format+"\n", args...)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

func newCache(t *testing.T, o Options) *Cache {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := NewCache(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// requireSame reads all rows of a remote set and compares them with the local one's.
func requireSame(t *testing.T, want *arrowset.Set, got *Set) {
	t.Helper()
	for row := range want.Len() {
		image, err := got.Image(t.Context(), row)
		require.NoError(t, err)
		local, err := want.Image(t.Context(), row)
		require.NoError(t, err)
		require.True(t, bytes.Equal(local, image), "row %d", row)
		captions, err := got.Captions(t.Context(), row)
		require.NoError(t, err)
		require.Equal(t, want.Captions(row), captions)
		require.Equal(t, want.Meta()[row].ImageID, got.ID(row))
	}
	require.Equal(t, want.Index(), got.Index())
}

// held is what the cache's folder holds, in bytes; parts are refused.
func held(t *testing.T, dir string) (bytes int64) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.NotContains(t, e.Name(), partSuffix)
		bytes += info.Size()
	}
	return bytes
}

func TestHTTP(t *testing.T) {
	dir, local := makeSet(t, 24)
	var asked []string
	var mu sync.Mutex
	files := http.FileServer(http.Dir(dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		http.StripPrefix("/pairs", files).ServeHTTP(w, r)
	}))
	defer srv.Close()
	for _, address := range []string{"/pairs/manifest.json", "/pairs/", "/pairs"} {
		c := newCache(t, Options{})
		set, err := Open(t.Context(), srv.URL+address, c)
		require.NoError(t, err)
		require.Equal(t, local.Manifest(), set.Manifest())
		mu.Lock()
		require.Equal(t, []string{"/pairs/manifest.json", "/pairs/rows.idx"}, asked, "opening needs no shard")
		mu.Unlock()
		requireSame(t, local, set)
		require.Equal(t, len(local.Manifest().Shards)+2, len(asked), "each shard is fetched once")
		require.NoError(t, set.Close())
		asked = nil
	}
}

// A local S3-compatible server, gofakes3, serves a set to the client that would ask Amazon's.
func TestS3(t *testing.T) {
	dir, local := makeSet(t, 16)
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("pairs"))
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	defer srv.Close()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		_, err = backend.PutObject("pairs", "some/prefix/"+d.Name(), map[string]string{"Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}, bytes.NewReader(b), int64(len(b)), nil)
		return err
	}))
	env := map[string]string{"AWS_ENDPOINT_URL": srv.URL, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SHARED_CREDENTIALS_FILE": os.DevNull}
	c := newCache(t, Options{Getenv: func(name string) string { return env[name] }, Patience: time.Second})
	for _, address := range []string{"s3://pairs/some/prefix", "s3://pairs/some/prefix/manifest.json"} {
		set, err := Open(t.Context(), address, c)
		require.NoError(t, err)
		requireSame(t, local, set)
		require.NoError(t, set.Close())
	}
	// from the middle, as after a broken connection
	st, _, err := openStore("s3://pairs/some/prefix", &c.Options)
	require.NoError(t, err)
	body, err := st.get(t.Context(), local.Manifest().Shards[1].File, 1000)
	require.NoError(t, err)
	defer body.Close()
	got := make([]byte, 100)
	_, err = io.ReadFull(body, got)
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join(dir, local.Manifest().Shards[1].File))
	require.NoError(t, err)
	require.Equal(t, want[1000:1100], got)

	_, err = Open(t.Context(), "s3://pairs/nothing", c)
	var status *StatusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, 404, status.Status)
	require.ErrorContains(t, err, "s3://pairs/nothing/manifest.json: 404 Not Found: NoSuchKey")
	env["AWS_ENDPOINT_URL"] = "localhost"
	_, err = Open(t.Context(), "s3://pairs/some", c)
	require.ErrorIs(t, err, ErrAddress)
	require.ErrorContains(t, err, `AWS_ENDPOINT_URL: "localhost", want such as https://s3.example.com:9000`)
}

// Connections that break, servers that fail, and answers that hang cost retries, and no byte is fetched twice that was there.
func TestRetries(t *testing.T) {
	dir, local := makeSet(t, 12)
	var sent, requests atomic.Int64
	files := http.FileServer(http.Dir(dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		switch {
		case n%5 == 1:
			http.Error(w, "come back later", http.StatusServiceUnavailable)
		case n%5 == 2 && strings.HasSuffix(r.URL.Path, ".arrow"):
			<-r.Context().Done() // until the client gives up
		default:
			files.ServeHTTP(&cut{ResponseWriter: w, left: 100 << 10, sent: &sent}, r)
		}
	}))
	defer srv.Close()
	var notes notebook
	c := newCache(t, Options{Note: notes.note, Stall: 200 * time.Millisecond, Parallel: 1})
	set, err := Open(t.Context(), srv.URL, c)
	require.NoError(t, err)
	defer set.Close()
	requireSame(t, local, set)
	for _, want := range []string{": 503 Service Unavailable: come back later; trying again in ", "nothing came for 200ms", ": unexpected EOF"} {
		require.Contains(t, notes.String(), want)
	}
	var whole int64
	for _, s := range local.Manifest().Shards {
		whole += s.Bytes
	}
	require.Less(t, sent.Load(), whole+whole/4, "what was there is not fetched again")
	held(t, c.Dir)
}

// cut breaks the connection after some bytes.
type cut struct {
	http.ResponseWriter
	left int
	sent *atomic.Int64
}

func (c *cut) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b[:min(len(b), c.left)])
	c.sent.Add(int64(n))
	if c.left -= n; n < len(b) {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestErrors(t *testing.T) {
	dir, local := makeSet(t, 8)
	serve := func(change func(w http.ResponseWriter, r *http.Request) bool) *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !change(w, r) {
				http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
			}
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	shard := "/" + local.Manifest().Shards[1].File
	for _, c := range []struct {
		name   string
		change func(w http.ResponseWriter, r *http.Request) bool
		want   []string
		is     error
	}{
		{"no right to read", func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, []string{"/manifest.json: 403 Forbidden; check the credentials"}, nil},
		{"a page instead", func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, "<html>")
			return true
		}, []string{"/manifest.json: ", "is not JSON at byte 1"}, ErrCorrupt},
		{"no such shard", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != shard {
				return false
			}
			http.NotFound(w, r)
			return true
		}, []string{shard + ": 404 Not Found: 404 page not found; check the address"}, nil},
		{"another shard", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == shard {
				fmt.Fprint(w, strings.Repeat("x", int(local.Manifest().Shards[1].Bytes)))
			}
			return r.URL.Path == shard
		}, []string{shard + ": ", "the manifest says " + local.Manifest().Shards[1].SHA256}, ErrCorrupt},
		{"a server that is down", func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "no", http.StatusBadGateway)
			return true
		}, []string{"502 Bad Gateway: no; gave up after "}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(c.change)
			set, err := Open(t.Context(), srv.URL, newCache(t, Options{Patience: 300 * time.Millisecond}))
			if err == nil {
				defer set.Close()
				_, err = set.Image(t.Context(), local.Len()-1)
			}
			require.Error(t, err)
			for _, want := range append(c.want, srv.URL) {
				require.ErrorContains(t, err, want)
			}
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
	for _, address := range []string{"ftp://host/set", "https://", "s3:///prefix", "http://%zz"} {
		_, err := Open(t.Context(), address, newCache(t, Options{}))
		require.ErrorIs(t, err, ErrAddress, address)
	}
	srv := serve(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	_, err := Open(t.Context(), strings.Replace(srv.URL, "://", "://user:password@", 1)+"/manifest.json?token=hidden", newCache(t, Options{}))
	require.ErrorContains(t, err, "401")
	require.NotContains(t, err.Error(), "hidden")
	require.NotContains(t, err.Error(), "password")
}

// The cache stays within its limit, and a set that is larger is read through it; what is too large for it is refused.
func TestCacheIsBounded(t *testing.T) {
	dir, local := makeSet(t, 40)
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	shard := local.Manifest().Shards[0].Bytes
	c := newCache(t, Options{Limit: 3*shard + shard/2})
	set, err := Open(t.Context(), srv.URL, c)
	require.NoError(t, err)
	defer set.Close()
	for row := range local.Len() {
		set.Fetch([]int{row, min(row+4, local.Len()-1)})
		_, err := set.Image(t.Context(), row)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return len(c.underway()) == 0 }, 5*time.Second, 10*time.Millisecond)
	require.LessOrEqual(t, held(t, c.Dir), c.Limit)
	require.InDelta(t, 2*shard, set.Need(2), 1000)

	_, err = set.OpenSplits(t.Context(), "train", "val")
	require.ErrorContains(t, err, "make it larger (--cache-size)")
	val, err := set.OpenSplits(t.Context(), "val")
	require.NoError(t, err)
	defer val.Close()
	require.Equal(t, 10, val.Manifest().Splits["val"])
	for i, m := range val.Meta() {
		b, err := val.Image(t.Context(), i)
		require.NoError(t, err)
		var row int
		fmt.Sscanf(m.ImageID, "id-%d", &row)
		want, err := local.Image(t.Context(), row)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, b))
	}

	small := newCache(t, Options{Limit: shard / 2})
	set2, err := Open(t.Context(), srv.URL, small)
	require.NoError(t, err)
	defer set2.Close()
	_, err = set2.Image(t.Context(), 0)
	require.ErrorIs(t, err, ErrCache)
}

// underway lists what is on its way.
func (c *Cache) underway() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sums []string
	for s := range c.calls {
		sums = append(sums, s)
	}
	return sums
}

// Two processes, here two caches over one folder, fetch each file once between them; what one of them left damaged or half
// written, the next mends.
func TestCacheIsShared(t *testing.T) {
	dir, local := makeSet(t, 24)
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".arrow") {
			requests.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	}))
	defer srv.Close()
	shared := t.TempDir()
	var wg sync.WaitGroup
	for range 2 {
		c := newCache(t, Options{Dir: shared})
		set, err := Open(t.Context(), srv.URL, c)
		require.NoError(t, err)
		defer set.Close()
		wg.Go(func() {
			set.Fetch(nil)
			for row := range local.Len() {
				if _, err := set.Image(context.Background(), row); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(len(local.Manifest().Shards)), requests.Load())
	held(t, shared)

	shards := local.Manifest().Shards
	name := filepath.Join(shared, shards[0].SHA256)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[len(b)/2]++
	require.NoError(t, os.WriteFile(name, b, 0o666))
	half, err := os.ReadFile(filepath.Join(shared, shards[1].SHA256))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(shared, shards[1].SHA256)))
	require.NoError(t, os.WriteFile(filepath.Join(shared, shards[1].SHA256+partSuffix), half[:len(half)/2], 0o666))
	requests.Store(0)
	var notes notebook
	c := newCache(t, Options{Dir: shared, Note: notes.note})
	set, err := Open(t.Context(), srv.URL, c)
	require.NoError(t, err)
	defer set.Close()
	requireSame(t, local, set)
	require.Equal(t, int64(2), requests.Load())
	require.Contains(t, notes.String(), "in the cache is damaged and is fetched again")
}

// A set of an older program has no index; it is made once.
func TestSetWithoutIndex(t *testing.T) {
	dir, local := makeSet(t, 16)
	text, err := os.ReadFile(filepath.Join(dir, arrowset.ManifestName))
	require.NoError(t, err)
	from, to := bytes.Index(text, []byte(` "index": {`)), bytes.Index(text, []byte(` "shards": [`))
	require.NoError(t, os.WriteFile(filepath.Join(dir, arrowset.ManifestName), append(text[:from:from], text[to:]...), 0o666))
	require.NoError(t, os.Remove(filepath.Join(dir, "rows.idx")))
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	shared := t.TempDir()
	for i := range 2 {
		var notes notebook
		set, err := Open(t.Context(), srv.URL, newCache(t, Options{Dir: shared, Note: notes.note}))
		require.NoError(t, err)
		requireSame(t, local, set)
		require.NoError(t, set.Close())
		require.Equal(t, i == 0, strings.Contains(notes.String(), "far has no index of its rows: all its shards are read once"))
	}
}

// A server that is killed in the middle of a file and started again costs a retry.
func TestServerIsKilled(t *testing.T) {
	dir, local := makeSet(t, 24)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	begun := make(chan struct{}, 100)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".arrow") {
			begun <- struct{}{}
			time.Sleep(30 * time.Millisecond)
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	})
	srv := &http.Server{Handler: slow}
	go srv.Serve(l)
	var notes notebook
	set, err := Open(t.Context(), "http://"+address, newCache(t, Options{Note: notes.note}))
	require.NoError(t, err)
	defer set.Close()
	set.Fetch(nil)
	<-begun
	require.NoError(t, srv.Close())
	again := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	defer again.Close()
	time.AfterFunc(300*time.Millisecond, func() {
		if l, err := net.Listen("tcp", address); err == nil {
			again.Serve(l)
		}
	})
	requireSame(t, local, set)
	require.Contains(t, notes.String(), "trying again in ")
}
