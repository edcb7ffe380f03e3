package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"diptych/internal/runlog"
)

// Cache is a folder with whole files of remote sets, each under its SHA-256 sum, so that sets, runs and processes share what
// they have in common. What was not used for longest is removed when a new file would not fit. A file grows under another
// name, which one process at a time locks, and gets its own only when size and sum are right, so one that is half written is
// never seen; a file that an earlier process left is summed again before its first use.
type Cache struct {
	Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	known    map[string]bool  // sums of files that this process has checked
	calls    map[string]*call // files that are being fetched
	reserved map[string]int64 // bytes that these will have
	sets     []*Set           // that are open
	work     chan struct{}    // tells the fetchers of new wishes
	evicting sync.Mutex
}

// call is one file on its way, for all who wait for it.
type call struct {
	done chan struct{}
	err  error
}

// remoteFile is a file of a set as its manifest describes it.
type remoteFile struct {
	store store
	name  string
	bytes int64
	sum   string
}

const (
	partSuffix = ".part"
	sumLen     = 2 * sha256.Size // of a sum as text
)

// NewCache opens a cache, which is made when it is not there. Close must follow, after that of the sets.
func NewCache(o Options) (*Cache, error) {
	o.defaults()
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return nil, fmt.Errorf("remote: the cache: %w", err)
	}
	c := &Cache{Options: o, known: map[string]bool{}, calls: map[string]*call{}, reserved: map[string]int64{}, work: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for range o.Parallel {
		c.wg.Go(c.fetchAhead)
	}
	return c, nil
}

// Close stops what is being fetched.
func (c *Cache) Close() {
	c.mu.Lock() // nothing begins after it
	c.cancel()
	c.mu.Unlock()
	c.wg.Wait()
}

// path is where a file lies once it is whole.
func (c *Cache) path(sum string) string { return filepath.Join(c.Dir, sum) }

// get sees that a file is in the cache and returns its path. Another process may remove it at any time.
func (c *Cache) get(ctx context.Context, f remoteFile) (string, error) {
	c.mu.Lock()
	if err := c.ctx.Err(); err != nil {
		c.mu.Unlock()
		return "", err
	}
	if c.known[f.sum] && c.has(f) {
		c.mu.Unlock()
		return c.path(f.sum), nil
	}
	k := c.calls[f.sum]
	if k == nil {
		k = &call{done: make(chan struct{})}
		c.calls[f.sum] = k
		c.wg.Go(func() {
			k.err = c.bring(f)
			c.mu.Lock()
			c.known[f.sum] = k.err == nil
			delete(c.calls, f.sum)
			delete(c.reserved, f.sum)
			c.mu.Unlock()
			close(k.done)
		})
	}
	c.mu.Unlock()
	select {
	case <-k.done:
		return c.path(f.sum), k.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// has tells whether the cache holds a file of the right size.
func (c *Cache) has(f remoteFile) bool {
	info, err := os.Stat(c.path(f.sum))
	return err == nil && info.Size() == f.bytes
}

// bring finds a file in the cache or fetches it.
func (c *Cache) bring(f remoteFile) error {
	if c.right(f) {
		return nil
	}
	part, err := c.lockPart(f)
	if err != nil {
		return fmt.Errorf("remote: the cache: %w", err)
	}
	defer part.Close()
	if c.right(f) { // another process was first
		os.Remove(part.Name())
		return nil
	}
	if err := c.makeRoom(f); err != nil {
		os.Remove(part.Name())
		return err
	}
	if err := c.download(f, part); err != nil {
		return err
	}
	if err := os.Rename(part.Name(), c.path(f.sum)); err != nil {
		return fmt.Errorf("remote: the cache: %w", err)
	}
	return nil
}

// right tells whether the cache has a file whose size and sum are right, and removes one that has not.
func (c *Cache) right(f remoteFile) bool {
	file, err := os.Open(c.path(f.sum))
	if err != nil {
		return false
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err == nil && n == f.bytes && hex.EncodeToString(sum.Sum(nil)) == f.sum {
		c.touch(f.sum)
		return true
	}
	if err == nil {
		c.Note("%s in the cache is damaged and is fetched again", c.path(f.sum))
		os.Remove(c.path(f.sum))
	}
	return false
}

// touch says that a file is in use.
func (c *Cache) touch(sum string) {
	now := time.Now()
	os.Chtimes(c.path(sum), now, now) // only the order of removal depends on it
}

// lockPart opens the file that grows into f, when no other process has it.
func (c *Cache) lockPart(f remoteFile) (*os.File, error) {
	name := filepath.Join(c.Dir, f.sum+partSuffix)
	for {
		part, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		err = runlog.LockFile(part)
		if err != nil && !errors.Is(err, runlog.ErrBusy) {
			return nil, errors.Join(err, part.Close())
		}
		if err == nil {
			mine, err := part.Stat()
			if there, errThere := os.Stat(name); err == nil && errThere == nil && os.SameFile(mine, there) {
				return part, nil
			}
			part.Close() // it became the whole file, or was removed, between opening and locking
			continue
		}
		part.Close()
		select {
		case <-time.After(50 * time.Millisecond):
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		}
	}
}

// download brings a file into part, which may hold its beginning. A wrong sum is given one more chance, from the start.
func (c *Cache) download(f remoteFile, part *os.File) error {
	for again := false; ; again = true {
		sum := sha256.New()
		have, err := io.Copy(sum, part)
		if err == nil && have > f.bytes {
			have, err = 0, errors.Join(part.Truncate(0), rewind(part))
			sum.Reset()
		}
		if err != nil {
			return fmt.Errorf("remote: the cache: %w", err)
		}
		err = c.retry(c.ctx, c.Patience, func(ctx context.Context, alive func()) error {
			if have == f.bytes {
				return nil
			}
			body, err := f.store.get(ctx, f.name, have)
			if err != nil {
				return err
			}
			defer body.Close()
			n, err := io.Copy(&tee{part, sum, alive}, io.LimitReader(body, f.bytes-have+1))
			have += n
			switch {
			case errors.As(err, new(*fs.PathError)): // of part
				return &permanent{fmt.Errorf("the cache: %w", err)}
			case err != nil:
				return fmt.Errorf("%s, byte %d: %w", f.store.url(f.name), have, err)
			case have < f.bytes:
				return fmt.Errorf("%s: it ends after %d of %d bytes", f.store.url(f.name), have, f.bytes)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remote: %w", err)
		}
		got := hex.EncodeToString(sum.Sum(nil))
		if have == f.bytes && got == f.sum {
			return nil
		}
		if err := errors.Join(part.Truncate(0), rewind(part)); err != nil {
			return fmt.Errorf("remote: the cache: %w", err)
		}
		if again {
			return fmt.Errorf("remote: %s: %w: SHA-256 %s of %d bytes, the manifest says %s of %d; write shards and manifest anew",
				f.store.url(f.name), ErrCorrupt, got, have, f.sum, f.bytes)
		}
	}
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// tee writes to a file and a sum, and says that something came.
type tee struct {
	file  *os.File
	sum   io.Writer
	alive func()
}

func (t *tee) Write(b []byte) (int, error) {
	t.alive()
	n, err := t.file.Write(b)
	t.sum.Write(b[:n])
	return n, err
}

// makeRoom removes files until f fits: first those that no open set of this process wants, what was not used for longest
// before the rest; then those that are wanted last.
func (c *Cache) makeRoom(f remoteFile) error {
	if c.Limit <= 0 {
		return nil
	}
	if f.bytes > c.Limit {
		return fmt.Errorf("remote: %w: %s has %.1f MiB, it holds %.1f; make it larger (--cache-size)", ErrCache, f.store.url(f.name), mib(f.bytes), mib(c.Limit))
	}
	c.evicting.Lock()
	defer c.evicting.Unlock()
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("remote: the cache: %w", err)
	}
	type entry struct {
		name string
		size int64
		used time.Time
		rank int
	}
	var files []entry
	rank := c.ranks()
	c.mu.Lock()
	c.reserved[f.sum] = f.bytes
	reserved := maps.Clone(c.reserved)
	c.mu.Unlock()
	var total int64
	for _, n := range reserved {
		total += n
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.Type().IsRegular() || !ours(e.Name()) { // it was removed meanwhile, or is not the cache's
			continue
		}
		if _, ok := reserved[e.Name()[:sumLen]]; ok {
			continue
		}
		if strings.HasSuffix(e.Name(), partSuffix) && !c.abandoned(e.Name(), info) { // another process is at it
			total += info.Size()
			continue
		}
		total += info.Size()
		files = append(files, entry{e.Name(), info.Size(), info.ModTime(), rank[e.Name()]})
	}
	slices.SortFunc(files, func(a, b entry) int { return cmp.Or(cmp.Compare(a.rank, b.rank), a.used.Compare(b.used)) })
	for _, e := range files {
		if total <= c.Limit {
			break
		}
		if c.giveUp(e.name) && os.Remove(filepath.Join(c.Dir, e.name)) == nil {
			total -= e.size
		}
	}
	return nil // when all the rest is in use, the limit is passed until it is not
}

// ours tells whether a file of the folder is one that the cache made.
func ours(name string) bool {
	if len(name) < sumLen {
		return false
	}
	_, err := hex.DecodeString(name[:sumLen])
	return err == nil
}

// abandoned tells whether a part was left by a process that is gone.
func (c *Cache) abandoned(name string, info fs.FileInfo) bool {
	if time.Since(info.ModTime()) < time.Hour {
		return false
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, name), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return runlog.LockFile(f) == nil
}

// ranks orders the files that are wanted: 0 is not at all, the highest first.
func (c *Cache) ranks() map[string]int {
	out := map[string]int{}
	for _, s := range c.openSets() {
		want := s.wishes()
		for i, shard := range want {
			sum := s.file(shard).sum
			out[sum] = max(out[sum], len(want)-i)
		}
	}
	return out
}

// giveUp closes a file where sets have it open. It is false while one reads from it.
func (c *Cache) giveUp(sum string) bool {
	for _, s := range c.openSets() {
		if !s.giveUp(sum) {
			return false
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, sum)
	return c.calls[sum] == nil
}

func (c *Cache) openSets() []*Set {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sets)
}

// fetchAhead fetches what sets wish for, the nearest first, until the cache is closed.
func (c *Cache) fetchAhead() {
	for {
		f, ok := c.wanted()
		if !ok {
			select {
			case <-c.work:
				continue
			case <-c.ctx.Done():
				return
			}
		}
		c.poke() // there may be more for the other fetchers
		if _, err := c.get(c.ctx, f); err != nil {
			c.refuse(f) // who needs it meets the error
		}
	}
}

// poke wakes a fetcher.
func (c *Cache) poke() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// wanted returns a file that is wished for, not there and not on its way.
func (c *Cache) wanted() (remoteFile, bool) {
	if c.ctx.Err() != nil {
		return remoteFile{}, false
	}
	sets := c.openSets()
	for _, s := range sets {
		left := c.Limit / int64(len(sets))
		for _, shard := range s.wishes() {
			f := s.file(shard)
			if left -= f.bytes; left < 0 && c.Limit > 0 {
				break // fetching more would push out what is needed sooner
			}
			c.mu.Lock()
			idle := c.calls[f.sum] == nil && !(c.known[f.sum] && c.has(f))
			c.mu.Unlock()
			if idle && !s.refused(f.sum) {
				return f, true
			}
		}
	}
	return remoteFile{}, false
}

// refuse keeps a file that could not be fetched from being tried until wishes change.
func (c *Cache) refuse(f remoteFile) {
	for _, s := range c.openSets() {
		s.refuse(f.sum)
	}
}
