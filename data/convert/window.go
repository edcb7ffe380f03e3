package convert

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// window shows a buffer of a record batch, whose bytes are asked for in rising order, through a small piece in memory.
type window struct {
	file  io.ReaderAt
	place span  // in the file
	size  int64 // of the buffer, unpacked once unpack was called
	codec int   // -1 plain, 0 lz4 frame, 1 zstd

	src  io.Reader // of a packed buffer, behind piece
	at   int64     // of piece in the buffer
	data []byte    // the piece
}

const windowBytes = 64 << 10

// read returns n bytes at offset at, valid until the next call.
func (w *window) read(at, n int64) ([]byte, error) {
	if w.codec >= 0 && w.src == nil {
		if err := w.unpack(); err != nil {
			return nil, err
		}
	}
	if at < 0 || n < 0 || at > w.size || n > w.size-at {
		return nil, fmt.Errorf("%w: bytes %d to %d of a buffer of %d (at byte %d of the file)", ErrInput, at, at+n, w.size, w.place.off)
	}
	if n > maxValue {
		return nil, fmt.Errorf("%w: a value claims %d bytes; at most %d are possible", ErrInput, n, maxValue)
	}
	if at >= w.at && at+n <= w.at+int64(len(w.data)) {
		return w.data[at-w.at : at-w.at+n], nil
	}
	if w.codec < 0 {
		size := min(max(n, windowBytes), w.size-at)
		w.grow(size)
		w.at, w.data = at, w.data[:size]
		if got, err := w.file.ReadAt(w.data, w.place.off+at); got < len(w.data) {
			w.data = w.data[:0]
			if err == io.EOF {
				err = fmt.Errorf("%w: the file ends at byte %d; it has become shorter while it was read", ErrInput, w.place.off+at+int64(got))
			}
			return nil, err
		}
		return w.data[:n], nil
	}
	if at < w.at {
		return nil, fmt.Errorf("%w: byte %d of a packed buffer is wanted after byte %d", ErrInput, at, w.at)
	}
	broken := func(err error) error {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: the packed buffer at byte %d ends before byte %d of the %d that it claims", ErrInput, w.place.off, at+n, w.size)
		}
		return fmt.Errorf("%w: the packed buffer at byte %d: %v", ErrInput, w.place.off, err)
	}
	keep := w.data[min(max(at-w.at, 0), int64(len(w.data))):]
	if skip := at - (w.at + int64(len(w.data))); skip > 0 {
		if _, err := io.CopyN(io.Discard, w.src, skip); err != nil {
			return nil, broken(err)
		}
	}
	// What is claimed is only allocated as it comes.
	piece := append(make([]byte, 0, windowBytes), keep...)
	for int64(len(piece)) < n {
		step := min(n-int64(len(piece)), 1<<20)
		old := len(piece)
		piece = append(piece, make([]byte, step)...)
		if _, err := io.ReadFull(w.src, piece[old:]); err != nil {
			return nil, broken(err)
		}
	}
	// The piece is filled up as far as the buffer goes, so that small values do not cost a read each.
	if more := min(w.size-at-int64(len(piece)), windowBytes-int64(len(piece))); more > 0 {
		old := len(piece)
		piece = piece[:old+int(more)]
		if _, err := io.ReadFull(w.src, piece[old:]); err != nil {
			return nil, broken(err)
		}
	}
	w.at, w.data = at, piece
	return piece[:n], nil
}

func (w *window) grow(n int64) {
	if int64(cap(w.data)) < n {
		w.data = make([]byte, n)
	}
}

// unpack begins a packed buffer: its length as int64, then a frame; length -1 means plain bytes.
func (w *window) unpack() error {
	if w.place.len == 0 {
		w.codec = -1
		return nil
	}
	var head [8]byte
	if w.place.len < 8 {
		return fmt.Errorf("%w: the packed buffer at byte %d has %d bytes", ErrInput, w.place.off, w.place.len)
	}
	if _, err := w.file.ReadAt(head[:], w.place.off); err != nil && err != io.EOF {
		return err
	}
	n := int64(binary.LittleEndian.Uint64(head[:]))
	w.place = span{w.place.off + 8, w.place.len - 8}
	if n == -1 {
		w.codec, w.size = -1, w.place.len
		return nil
	}
	if n < 0 {
		return fmt.Errorf("%w: the packed buffer at byte %d claims %d bytes", ErrInput, w.place.off-8, n)
	}
	w.size = n
	packed := io.NewSectionReader(w.file, w.place.off, w.place.len)
	if w.codec == 0 {
		w.src = lz4.NewReader(packed)
		return nil
	}
	dec, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return err
	}
	w.src = dec
	return nil
}

// maxZstdWindow bounds what a zstd frame can make its reader hold; zstd itself reads no more unless asked to.
const maxZstdWindow = 128 << 20
