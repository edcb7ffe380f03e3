//go:build linux || darwin || freebsd

package safetensors

import (
	"io"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// mapping is a file in the address space. What another process cuts off while it is read gives an error, as with a plain read.
type mapping struct {
	file *os.File
	data []byte
}

// mapped maps a file of size bytes, or, where that fails, as on some network file systems, returns the file itself.
func mapped(file *os.File, size int64) (io.ReaderAt, io.Closer) {
	if size <= 0 || int64(int(size)) != size {
		return file, file
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return file, file
	}
	m := &mapping{file, data}
	return m, m
}

// Close unmaps and closes the file.
func (m *mapping) Close() error {
	err := unix.Munmap(m.data)
	m.data = nil
	if err2 := m.file.Close(); err == nil {
		err = err2
	}
	return err
}

// ReadAt copies from the mapping.
func (m *mapping) ReadAt(b []byte, off int64) (n int, err error) {
	if off > int64(len(m.data)) {
		return 0, io.EOF
	}
	if err := m.guard(func() { n = copy(b, m.data[off:]) }); err != nil {
		return 0, err
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

// residentSize is how many bytes of a mapping are used before their pages are given back: a multiple of every page size.
const residentSize = 16 << 20

// pieces gives use the bytes [begin, end) where they lie, piece by piece, and then gives their pages back, so that reading a
// large file once does not count as that much memory.
func (m *mapping) pieces(begin, end int64, use func(b []byte) error) error {
	for at := begin; at < end; {
		to := min(end, at+pieceSize)
		var failed error
		if err := m.guard(func() { failed = use(m.data[at:to:to]) }); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		if at/residentSize != to/residentSize || to == end {
			lo := at / residentSize * residentSize
			unix.Madvise(m.data[lo:min(lo+residentSize, int64(len(m.data)))], unix.MADV_DONTNEED) // advice: may fail
		}
		at = to
	}
	return nil
}

// guard runs f and turns a fault, which is how a mapped file says that its end is gone, into an error. Any other panic goes on.
func (m *mapping) guard(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = corrupt("the file was cut off while it was read")
		default:
			panic(r)
		}
	}()
	f()
	return nil
}
