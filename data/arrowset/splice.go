package arrowset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/klauspost/compress/zstd"

	"diptych/data/arrowset/flatbuf"
)

// splicer writes an Arrow file whose pictures the Arrow library does not see. The library packs every buffer of a record batch
// before it finds which of them that shrinks, and with pictures, which are packed already, this would be most of the time that
// an import takes. So it is given record batches whose pictures are empty. What it makes of them goes through a splicer, which
// puts the pictures, the last column, into each message (Columnar.html, "Encapsulated message format"; Message.fbs) and the
// true places of the messages into the footer (File.fbs).
type splicer struct {
	out  *shardFile
	arr  *ipc.FileWriter
	zstd *zstd.Encoder

	held   []byte // what the library has written and was not passed on
	passed int64  // what it has written before
	blocks []block
}

// sampleBytes are tried to find whether a batch's pictures shrink, as BMP does.
const sampleBytes = 16 << 10

func newSplicer(out *shardFile, schema *arrow.Schema) (s *splicer, err error) {
	s = &splicer{out: out}
	if s.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)); err != nil {
		return nil, err
	}
	s.arr, err = ipc.NewFileWriter((*held)(s), ipc.WithSchema(schema), ipc.WithZstd(), ipc.WithMinSpaceSavings(minSavings), ipc.WithCompressConcurrency(1))
	return s, err
}

// held is a splicer as the Arrow library sees it.
type held splicer

// Write is io.Writer's.
func (s *held) Write(b []byte) (int, error) {
	s.held = append(s.held, b...)
	return len(b), nil
}

// Seek answers the library's only question, where it is.
func (s *held) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("a shard is written as a stream")
	}
	return s.passed + int64(len(s.held)), nil
}

// pass writes the first n bytes of what is held.
func (s *splicer) pass(n int) error {
	_, err := s.out.Write(s.held[:n])
	s.passed += int64(n)
	s.held = s.held[:copy(s.held, s.held[n:])]
	return err
}

// write writes a record batch whose pictures are empty with those that lie in pictures one after another, each ending where
// ends says.
func (s *splicer) write(rec arrow.Record, pictures []byte, ends []int32) error {
	if err := s.arr.Write(rec); err != nil {
		return err
	}
	if len(s.blocks) == 0 { // the magic and the schema come first
		if err := s.pass(8 + metaBytes(s.held[8:])); err != nil {
			return err
		}
	}
	data := s.pack(pictures)
	offsets := binary.LittleEndian.AppendUint64(nil, ^uint64(0)) // -1: not packed
	offsets = binary.LittleEndian.AppendUint32(offsets, 0)
	for _, end := range ends {
		offsets = binary.LittleEndian.AppendUint32(offsets, uint32(end))
	}
	meta := metaBytes(s.held)
	f := &flatbuf.Reader{B: s.held[8:meta]}
	message := f.Root()
	bodyLength := f.Field(message, 3)
	buffers, n := f.Vector(f.Table(message, 2), 2, 16)
	if f.Bad || bodyLength == 0 || n < 2 {
		return fmt.Errorf("%w: the Arrow library writes record batches that are not understood", ErrCorrupt)
	}
	begin := f.I64(buffers + 16*(n-2)) // of the picture column's offsets, behind which comes nothing but its empty data
	place := begin
	for i, size := range []int{len(offsets), 8 + len(data.bytes)} {
		at := buffers + 16*(n-2+i)
		binary.LittleEndian.PutUint64(f.B[at:], uint64(place))
		binary.LittleEndian.PutUint64(f.B[at+8:], uint64(size))
		place += int64(size+7) &^ 7
	}
	binary.LittleEndian.PutUint64(f.B[bodyLength:], uint64(place))
	s.blocks = append(s.blocks, block{offset: s.out.size, header: meta, body: place})
	rest := len(s.held) - meta - int(begin)
	if err := s.pass(meta + int(begin)); err != nil {
		return err
	}
	s.passed += int64(rest)
	s.held = s.held[:0]
	for _, b := range [][]byte{offsets, binary.LittleEndian.AppendUint64(nil, uint64(data.length)), data.bytes} {
		if _, err := s.out.Write(b); err != nil {
			return err
		}
		if _, err := s.out.Write(make([]byte, -len(b)&7)); err != nil {
			return err
		}
	}
	return nil
}

// packed is a buffer: its length when it is unpacked, or -1 if it is not packed.
type packed struct {
	length int64
	bytes  []byte
}

// pack packs pictures that shrink.
func (s *splicer) pack(pictures []byte) packed {
	shrinks := func(b []byte) ([]byte, bool) {
		out := s.zstd.EncodeAll(b, nil)
		return out, float64(len(out)) <= (1-minSavings)*float64(len(b))
	}
	if _, ok := shrinks(pictures[:min(len(pictures), sampleBytes)]); ok {
		if out, ok := shrinks(pictures); ok {
			return packed{int64(len(pictures)), out}
		}
	}
	return packed{-1, pictures}
}

// close writes the footer.
func (s *splicer) close() error {
	defer s.zstd.Close()
	if err := s.arr.Close(); err != nil {
		return err
	}
	end := len(s.held) - 4 - len(magic)
	f := &flatbuf.Reader{B: s.held[end-int(binary.LittleEndian.Uint32(s.held[end:])) : end]}
	at, n := f.Vector(f.Root(), 3, 24)
	if f.Bad || n != len(s.blocks) {
		return fmt.Errorf("%w: the Arrow library writes a footer that is not understood", ErrCorrupt)
	}
	for i, b := range s.blocks {
		binary.LittleEndian.PutUint64(f.B[at+24*i:], uint64(b.offset))
		binary.LittleEndian.PutUint32(f.B[at+24*i+8:], uint32(b.header))
		binary.LittleEndian.PutUint64(f.B[at+24*i+16:], uint64(b.body))
	}
	return s.pass(len(s.held))
}

// metaBytes is the length of a message's metadata with what stands before: the continuation mark and its length.
func metaBytes(message []byte) int { return 8 + int(binary.LittleEndian.Uint32(message[4:])) }
