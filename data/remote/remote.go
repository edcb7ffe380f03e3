// Package remote reads data sets that lie on a web server or in an S3-compatible store. A set is opened by its manifest and
// its index of rows; shards are fetched whole, ahead of their use, into a bounded cache on disk, and read from there. A server
// that fails for a while costs time and nothing else. What a shard is, arrowset says; in which order rows are needed, data.
// Start at Open.
package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"diptych/data/arrowset"
)

// ErrAddress is wrapped by errors about addresses that name no set.
var ErrAddress = errors.New("not the address of a data set")

// ErrSplit is wrapped by errors about splits that a set does not have.
var ErrSplit = errors.New("no such split")

// ErrCache is wrapped by errors about files that do not fit the cache.
var ErrCache = errors.New("the cache is too small")

// ErrCorrupt is wrapped by errors about files that are not those of the manifest.
var ErrCorrupt = arrowset.ErrCorrupt

// Options say where and how remote files are kept. None of them changes a result.
type Options struct {
	Dir      string        // of the cache
	Limit    int64         // bytes that the cache may hold; 0: without end
	Parallel int           // files that are fetched at once; 0: 4
	Patience time.Duration // how long a server may be of no use before a run fails; 0: ten minutes
	Stall    time.Duration // how long a connection may be silent before it is tried anew; 0: 30 s

	Getenv func(name string) string         // the AWS_… variables; nil: none
	Note   func(format string, args ...any) // what a person may want to know, such as that a server does not answer
}

func (o *Options) defaults() {
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Minute
	}
	if o.Stall <= 0 {
		o.Stall = 30 * time.Second
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.Note == nil {
		o.Note = func(string, ...any) {}
	}
}

// Set is a remote data set. Its methods are safe for concurrent use.
type Set struct {
	cache    *Cache
	store    store
	address  string // of the manifest, without secrets
	manifest arrowset.Manifest
	index    *arrowset.Index

	mu       sync.Mutex
	open     map[int]*shard
	want     []int // shards that are needed soon, the nearest first
	declined map[string]bool
	clock    int64 // counts uses
	closed   bool
}

// shard is one that is open, or being opened.
type shard struct {
	ready chan struct{}
	set   *arrowset.Set
	err   error
	users int
	used  int64     // Set.clock then
	touch time.Time // when the cache was told
}

// minOpen is how many shards stay open at least: as many as are wanted, when those are more.
const minOpen = 16

// openPatience is how long Open tries to reach a server: a wrong address should not cost minutes.
const openPatience = 20 * time.Second

// Open opens the set whose manifest lies at address: https://host/…/manifest.json, http://…, or s3://bucket/prefix, each with
// or without the manifest's name. A set of an older program, without an index of its rows, is read once from end to end to make
// one, which stays in the cache. Errors wrap ErrAddress, ErrCorrupt, arrowset.ErrSchema or a *StatusError.
func Open(ctx context.Context, address string, c *Cache) (*Set, error) {
	s := &Set{cache: c, open: map[int]*shard{}, declined: map[string]bool{}}
	text, err := s.fetchManifest(ctx, address, &c.Options)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.sets = append(c.sets, s)
	c.mu.Unlock()
	if err := s.openIndex(ctx, text); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// ReadManifest reads what the set at an address, as Open takes it, says of itself. It needs no cache.
func ReadManifest(ctx context.Context, address string, o Options) (*arrowset.Manifest, error) {
	o.defaults()
	var s Set
	_, err := s.fetchManifest(ctx, address, &o)
	return &s.manifest, err
}

// fetchManifest finds the store at an address and reads its manifest, whose text it returns. That there is none is the fault of
// the address.
func (s *Set) fetchManifest(ctx context.Context, address string, o *Options) (text []byte, err error) {
	st, name, err := openStore(address, o)
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	s.store, s.address = st, st.url(name)
	err = o.retry(ctx, min(openPatience, o.Patience), func(ctx context.Context, alive func()) error {
		body, err := st.get(ctx, name, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		if text, err = io.ReadAll(io.LimitReader(io.TeeReader(body, signs(alive)), arrowset.MaxManifest+1)); err != nil {
			return fmt.Errorf("%s: %w", s.address, err)
		}
		if len(text) > arrowset.MaxManifest {
			return &permanent{fmt.Errorf("%s: %w: it has more than %d bytes", s.address, ErrCorrupt, arrowset.MaxManifest)}
		}
		return nil
	})
	if status := (*StatusError)(nil); errors.As(err, &status) && status.Status == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if s.manifest, err = arrowset.ParseManifest(text); err != nil {
		return nil, fmt.Errorf("remote: %s: %w", s.address, err)
	}
	return text, nil
}

// signs calls a function whenever something is written to it.
type signs func()

// Write is io.Writer's.
func (s signs) Write(b []byte) (int, error) {
	s()
	return len(b), nil
}

// openIndex fetches the set's index, or makes it. text is the manifest's.
func (s *Set) openIndex(ctx context.Context, text []byte) error {
	if x := s.manifest.Index; x != nil {
		f, err := s.openCached(ctx, remoteFile{store: s.store, name: x.File, bytes: x.Bytes, sum: strings.ToLower(x.SHA256)})
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			return fmt.Errorf("remote: the cache: %w", err)
		}
		s.index, err = arrowset.DecodeIndex(b, &s.manifest)
		return err
	}
	sum := sha256.Sum256(text)
	kept := s.cache.path(hex.EncodeToString(sum[:])) + ".rows"
	if b, err := os.ReadFile(kept); err == nil {
		if s.index, err = arrowset.DecodeIndex(b, &s.manifest); err == nil {
			return nil
		}
	}
	s.cache.Note("%s has no index of its rows: all its shards are read once to make it", s.manifest.Name)
	var err error
	if s.index, err = arrowset.BuildIndex(s.address, &s.manifest, func(i int) (fs.File, error) {
		s.FetchShards(rangeOf(i, min(i+s.cache.Parallel, len(s.manifest.Shards))))
		return s.openFile(ctx, i)
	}); err != nil {
		return fmt.Errorf("remote: %w", err)
	}
	b, err := s.index.Encode()
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(s.cache.Dir, "rows-*"+partSuffix)
	if err != nil {
		return fmt.Errorf("remote: the cache: %w", err)
	}
	_, err = temp.Write(b)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), kept)
	}
	if err != nil {
		os.Remove(temp.Name())
		return fmt.Errorf("remote: the cache: %w", err)
	}
	return nil
}

func rangeOf(from, to int) []int {
	out := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

// Manifest is the set's manifest; it must not be written to.
func (s *Set) Manifest() *arrowset.Manifest { return &s.manifest }

// Index is the set's index of rows; it must not be written to.
func (s *Set) Index() *arrowset.Index { return s.index }

// Close closes what is open. No method may be called after it.
func (s *Set) Close() error {
	c := s.cache
	c.mu.Lock()
	c.sets = slices.DeleteFunc(c.sets, func(o *Set) bool { return o == s })
	c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for i, sh := range s.open {
		if sh.users == 0 {
			errs = append(errs, sh.set.Close())
			delete(s.open, i)
		}
	}
	return errors.Join(errs...)
}

// file describes shard i.
func (s *Set) file(i int) remoteFile {
	e := &s.manifest.Shards[i]
	return remoteFile{store: s.store, name: e.File, bytes: e.Bytes, sum: strings.ToLower(e.SHA256)}
}

// shardOf returns the shard in which a row lies.
func (s *Set) shardOf(row int) int {
	sh := s.index.Shards
	return sort.Search(len(sh), func(k int) bool { return sh[k].First > row }) - 1
}

// openFile opens shard i.
func (s *Set) openFile(ctx context.Context, i int) (fs.File, error) {
	return s.openCached(ctx, s.file(i))
}

// openCached opens a file in the cache, fetched if it must be.
func (s *Set) openCached(ctx context.Context, file remoteFile) (fs.File, error) {
	for {
		path, err := s.cache.get(ctx, file)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if !errors.Is(err, fs.ErrNotExist) { // else another process removed it just now
			return f, err
		}
	}
}

// use returns shard i, open, and what must be called when it is no longer read.
func (s *Set) use(ctx context.Context, i int) (*arrowset.Set, func(), error) {
	s.mu.Lock()
	sh := s.open[i]
	if sh != nil {
		select {
		case <-sh.ready:
			if sh.err != nil { // who asks again tries again
				sh = nil
			}
		default:
		}
	}
	if sh == nil {
		sh = &shard{ready: make(chan struct{})}
		s.open[i] = sh
		go func() { // not bound to this caller: others may wait
			sh.set, sh.err = arrowset.OpenShards(s.address, &s.manifest, []int{i}, func(i int) (fs.File, error) { return s.openFile(s.cache.ctx, i) })
			close(sh.ready)
		}()
	}
	sh.users++
	s.clock++
	sh.used = s.clock
	if now := time.Now(); now.Sub(sh.touch) > 10*time.Second {
		sh.touch = now
		s.cache.touch(s.file(i).sum)
	}
	s.mu.Unlock()
	done := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		sh.users--
		s.trim()
	}
	select {
	case <-sh.ready:
	case <-ctx.Done():
		go func() { // its place is given up when nobody opens it any more
			<-sh.ready
			done()
		}()
		return nil, nil, ctx.Err()
	}
	if sh.err != nil {
		done()
		return nil, nil, sh.err
	}
	return sh.set, done, nil
}

// trim closes the shards that were not used for longest. s.mu is held.
func (s *Set) trim() {
	for i, sh := range s.open {
		if sh.users == 0 && sh.err != nil { // a shard that nobody uses is open: who used it waited for that
			delete(s.open, i)
		}
	}
	for len(s.open) > max(minOpen, len(s.want)) || s.closed {
		oldest := -1
		for i, sh := range s.open {
			if sh.users == 0 && (oldest < 0 || sh.used < s.open[oldest].used) {
				oldest = i
			}
		}
		if oldest < 0 {
			return
		}
		s.open[oldest].set.Close() // read only: there is nothing to lose
		delete(s.open, oldest)
	}
}

// giveUp closes the shard with a sum. It is false while it is read.
func (s *Set) giveUp(sum string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, sh := range s.open {
		if s.file(i).sum != sum {
			continue
		}
		if sh.users > 0 {
			return false
		}
		if sh.err == nil {
			sh.set.Close()
		}
		delete(s.open, i)
	}
	return true
}

// Image returns the encoded picture of a row, which the caller owns.
func (s *Set) Image(ctx context.Context, row int) ([]byte, error) {
	i := s.shardOf(row)
	set, done, err := s.use(ctx, i)
	if err != nil {
		return nil, err
	}
	defer done()
	return set.Image(ctx, row-s.index.Shards[i].First)
}

// Second is Image of the second picture.
func (s *Set) Second(ctx context.Context, row int) ([]byte, error) {
	i := s.shardOf(row)
	set, done, err := s.use(ctx, i)
	if err != nil {
		return nil, err
	}
	defer done()
	return set.Second(ctx, row-s.index.Shards[i].First)
}

// Captions are the sentences of a row.
func (s *Set) Captions(ctx context.Context, row int) ([]arrowset.Caption, error) {
	i := s.shardOf(row)
	set, done, err := s.use(ctx, i)
	if err != nil {
		return nil, err
	}
	defer done()
	return set.Captions(row - s.index.Shards[i].First), nil // strings stay when the shard is closed
}

// Value returns a row's value in a text column; one that the set does not have is empty.
func (s *Set) Value(ctx context.Context, row int, column string) (string, error) {
	i := s.shardOf(row)
	set, done, err := s.use(ctx, i)
	if err != nil {
		return "", err
	}
	defer done()
	value, ok := set.Column(column)
	if !ok {
		return "", nil
	}
	return value(row - s.index.Shards[i].First), nil
}

// Fetch says which rows are needed soon, the nearest first; nil means the whole set. Their shards are fetched, as far as the
// cache can hold them all, and are the last to be removed from it.
func (s *Set) Fetch(rows []int) {
	if rows == nil {
		s.FetchShards(rangeOf(0, len(s.manifest.Shards)))
		return
	}
	shards := make([]int, len(rows))
	for k, row := range rows {
		shards[k] = s.shardOf(row)
	}
	s.FetchShards(shards)
}

// FetchShards is Fetch for shards.
func (s *Set) FetchShards(shards []int) {
	s.mu.Lock()
	s.want = shards
	clear(s.declined)
	s.mu.Unlock()
	s.cache.poke()
}

func (s *Set) wishes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

func (s *Set) refuse(sum string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.declined[sum] = true
}

func (s *Set) refused(sum string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.declined[sum]
}

// OpenSplits opens the shards that have rows of some splits as a set of their own, fetched if they must be; all if none is
// named. It does not end with s or the cache.
func (s *Set) OpenSplits(ctx context.Context, splits ...string) (*arrowset.Set, error) {
	for _, name := range splits {
		if _, ok := s.manifest.Splits[name]; !ok {
			return nil, fmt.Errorf("remote: %s: %w: %q; it has %s", s.address, ErrSplit, name, strings.Join(slices.Sorted(maps.Keys(s.manifest.Splits)), ", "))
		}
	}
	shards := s.index.SplitShards(splits...)
	if len(splits) == 0 {
		shards = rangeOf(0, len(s.manifest.Shards))
	}
	var need int64
	for _, i := range shards {
		need += s.manifest.Shards[i].Bytes
	}
	if s.cache.Limit > 0 && need > s.cache.Limit {
		return nil, fmt.Errorf("remote: %w: the files of %s that are needed have %.1f MiB, it holds %.1f; make it larger (--cache-size)", ErrCache, s.address, mib(need), mib(s.cache.Limit))
	}
	s.FetchShards(shards)
	s.cache.Note("%s: %d of its %d files, %.1f MB, are read by way of the cache in %s", s.address, len(shards), len(s.manifest.Shards), float64(need)/1e6, s.cache.Dir)
	return arrowset.OpenShards(s.address, &s.manifest, shards, func(i int) (fs.File, error) { return s.openFile(ctx, i) })
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// Need is the size of the largest w shards: what the cache must hold so that nothing is fetched twice while a window of w is
// used.
func (s *Set) Need(w int) int64 {
	sizes := make([]int64, len(s.manifest.Shards))
	for i, e := range s.manifest.Shards {
		sizes[i] = e.Bytes
	}
	slices.SortFunc(sizes, func(a, b int64) int { return int(min(max(b-a, -1), 1)) })
	var sum int64
	for _, n := range sizes[:min(w, len(sizes))] {
		sum += n
	}
	return sum
}

// ID is the image_id of a row that was read just now, or "" when its shard is no longer open: for messages.
func (s *Set) ID(row int) string {
	i := s.shardOf(row)
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.open[i]
	if sh == nil {
		return ""
	}
	select {
	case <-sh.ready:
		if sh.err == nil {
			return sh.set.Meta()[row-s.index.Shards[i].First].ImageID
		}
	default:
	}
	return ""
}
