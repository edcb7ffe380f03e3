package arrowset

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"
)

const (
	blockBytes = 1 << 20  // what is written at once
	syncBytes  = 16 << 20 // after as many the disk begins to write what the system holds
)

// shardFile is the shard being written. What it is given goes in blocks to a goroutine that sums and writes them,
// and lets the disk work on the way, so that little is left to wait for at the end.
type shardFile struct {
	name string
	file *os.File
	size int64
	rows int

	block []byte
	full  chan []byte // to the goroutine, which ends when it is closed
	free  chan []byte
	sum   [sha256.Size]byte // once it has ended

	mu  sync.Mutex
	err error // the goroutine's first
}

// newShardFile begins a file of a folder.
func newShardFile(dir, name string) (*shardFile, error) {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	f := &shardFile{name: name, file: file, block: make([]byte, 0, blockBytes), full: make(chan []byte, 1), free: make(chan []byte, 3)}
	f.free <- make([]byte, 0, blockBytes)
	go f.run()
	return f, nil
}

// run writes what comes.
func (f *shardFile) run() {
	defer close(f.free)
	sum := sha256.New()
	var syncing sync.WaitGroup
	written, synced := 0, 0
	for b := range f.full {
		sum.Write(b)
		if f.failed() == nil {
			_, err := f.file.Write(b)
			f.fail(err)
		}
		if written += len(b); written-synced >= syncBytes {
			syncing.Wait()
			synced = written
			syncing.Go(func() { f.fail(f.file.Sync()) })
		}
		f.free <- b[:0]
	}
	syncing.Wait()
	sum.Sum(f.sum[:0])
}

func (f *shardFile) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *shardFile) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Write is io.Writer's. What goes wrong may show at a later call, or at the end.
func (f *shardFile) Write(b []byte) (int, error) {
	n := len(b)
	f.size += int64(n)
	for len(b) > 0 {
		k := copy(f.block[len(f.block):cap(f.block)], b)
		f.block, b = f.block[:len(f.block)+k], b[k:]
		if len(f.block) == cap(f.block) {
			f.full <- f.block
			f.block = <-f.free
		}
	}
	return n, f.failed()
}

// end waits for what was begun, and closes the file; with sync it is on disk then.
func (f *shardFile) end(sync bool) error {
	if sync {
		f.full <- f.block
	}
	close(f.full)
	for range f.free { // until the goroutine has ended
	}
	if sync {
		f.fail(f.file.Sync())
	}
	f.fail(f.file.Close())
	return f.failed()
}

// shard describes the file once it has ended.
func (f *shardFile) shard() Shard {
	return Shard{File: f.name, Rows: f.rows, Bytes: f.size, SHA256: hex.EncodeToString(f.sum[:])}
}
