package convert

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// tarInput is a tar file being read, unpacked on the way if it is packed.
type tarInput struct {
	at    int64        // bytes of the tar that were read
	zeros int          // how many of the last of them are 0, as far as they were read in small pieces
	raw   atomic.Int64 // bytes of the file that were read, by zstd's goroutine where it unpacks
	file  *os.File
	plain bool // the file is the tar, so that members can be read at their places
	from  io.Reader
	close func()
}

// open begins the file named s.name.
func (s *tarSource) open() error {
	in := &tarInput{close: func() {}}
	var raw io.Reader = s.Stdin
	if s.name != "-" {
		f, err := os.Open(s.name)
		if err != nil {
			return err
		}
		in.file, raw = f, f
		in.close = func() { f.Close() } // opened for reading
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			head := make([]byte, 6)
			n, err := f.ReadAt(head, 0)
			if err != nil && err != io.EOF {
				in.close()
				return err
			}
			if packing(head[:n]) == "" {
				in.plain = true
			}
		}
	}
	s.in, s.members, s.next = in, 0, nil
	if in.plain {
		in.from = raw
		s.tar = tar.NewReader(seekingInput{in})
		return nil
	}
	buffered := bufio.NewReaderSize(&rawCounter{raw, in}, 1<<20)
	head, err := buffered.Peek(6)
	if err != nil && err != io.EOF {
		s.closeFile()
		return err
	}
	in.from = buffered
	switch packing(head) {
	case "gzip":
		in.from, err = gzip.NewReader(buffered)
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxZstdWindow)); err == nil {
			closeRaw := in.close
			in.close = func() { z.Close(); closeRaw() }
			in.from = z
		}
	case "bzip2":
		in.from = bzip2.NewReader(buffered)
	case "xz":
		err = errors.New("it is packed by xz, which is not read; pack it by zstd or gzip")
	default:
		err = nil
	}
	if err != nil {
		s.closeFile()
		return fmt.Errorf("%w: %v", ErrInput, err)
	}
	s.tar = tar.NewReader(in)
	return nil
}

// packing is how a file is packed that begins with head, "" if it is not.
func packing(head []byte) string {
	for magic, name := range map[string]string{"\x1f\x8b": "gzip", "\x28\xb5\x2f\xfd": "zstd", "BZh": "bzip2", "\xfd7zXZ": "xz"} {
		if strings.HasPrefix(string(head), magic) {
			return name
		}
	}
	return ""
}

func (s *tarSource) closeFile() {
	if s.in != nil {
		if s.in.file != nil {
			if info, err := s.in.file.Stat(); err == nil {
				s.done += info.Size()
			}
		}
		s.in.close()
	}
	s.in, s.tar, s.next = nil, nil, nil
}

const tarBlock = 512

// ended says whether an empty block was read last, with which a tar ends.
func (in *tarInput) ended() bool { return in.zeros >= tarBlock && in.at%tarBlock == 0 }

// Read is io.Reader's.
func (in *tarInput) Read(b []byte) (int, error) {
	n, err := in.from.Read(b)
	in.at += int64(n)
	if n > tarBlock || bytes.Count(b[:n], []byte{0}) != n {
		in.zeros = 0
	} else {
		in.zeros += n
	}
	if in.plain {
		in.raw.Store(in.at)
	}
	return n, err
}

// whole says whether the bytes of a member lie in the file as they are, from in.at on.
func (in *tarInput) whole(h *tar.Header) bool {
	if !in.plain || h.Typeflag != tar.TypeReg {
		return false
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return false
		}
	}
	return true
}

// seekingInput lets package tar seek over what is not read.
type seekingInput struct{ *tarInput }

// Seek is io.Seeker's.
func (in seekingInput) Seek(offset int64, whence int) (int64, error) {
	at, err := in.file.Seek(offset, whence)
	if err == nil {
		if at != in.at {
			in.zeros = 0
		}
		in.at = at
		in.raw.Store(at)
	}
	return at, err
}

// rawCounter counts the bytes of a packed file.
type rawCounter struct {
	r  io.Reader
	in *tarInput
}

// Read is io.Reader's.
func (c *rawCounter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.in.raw.Add(int64(n))
	return n, err
}
