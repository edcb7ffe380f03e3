package convert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"strconv"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const (
	maxPageHeader = 1 << 20 // bytes
	maxPage       = 1 << 30 // bytes of a page, unpacked, and of what its values unfold to
)

// Kinds of pages and encodings, as parquet.thrift numbers them.
const (
	pageData  = 0
	pageIndex = 1
	pageDict  = 2
	pageData2 = 3

	encPlain           = 0
	encPlainDictionary = 2
	encRLE             = 3
	encDelta           = 5
	encDeltaLength     = 6
	encDeltaBytes      = 7
	encDictionary      = 8
	encSplit           = 9
)

// parquetColumn reads a column of a row group from its first value to its last.
type parquetColumn struct {
	parquetLeaf
	file     *parquetFile
	at, stop int64 // of the bytes that are left
	codec    int
	left     int64 // values in the pages that are left
	dict     [][]byte

	page     int64 // where the page at hand begins
	n        int   // values left in it
	rep, def *runs // nil if the column has none
	values   valueReader
}

// valueReader reads the values of a page in their order. What it returns is the caller's.
type valueReader interface{ next() ([]byte, error) }

func (c *parquetColumn) fail(format string, args ...any) error {
	return fmt.Errorf("column %s, page at byte %d: %w: %w", c.name, c.page, ErrInput, fmt.Errorf(format, args...))
}

// row appends the values of the next row: one, none if it is null, or those of a list.
func (c *parquetColumn) row(out *[]value) error {
	for first := true; first || c.maxRep > 0; first = false {
		for c.n == 0 {
			if c.left <= 0 && !first {
				return nil
			}
			if err := c.nextPage(); err != nil {
				return err
			}
		}
		if c.rep != nil {
			level, ok := c.rep.peek()
			switch {
			case !ok:
				return c.fail("its repetition levels end early")
			case first != (level == 0):
				if first {
					return c.fail("a row begins in the middle of a list")
				}
				return nil
			}
			c.rep.next()
		}
		c.n--
		if c.def != nil {
			level, ok := c.def.next()
			if !ok {
				return c.fail("its definition levels end early")
			}
			if int(level) != c.maxDef {
				continue // null, here or above
			}
		}
		if len(*out) >= maxListed {
			return c.fail("the row has more than %d values", maxListed)
		}
		raw, err := c.values.next()
		if err != nil {
			return c.fail("%w", err)
		}
		*out = append(*out, value{b: c.text(raw)})
	}
	return nil
}

// text is a number as text, and anything else as it is.
func (c *parquetColumn) text(raw []byte) []byte {
	switch c.typ {
	case parquetBool:
		return strconv.AppendBool(nil, raw[0] != 0)
	case parquetInt32:
		if n := binary.LittleEndian.Uint32(raw); !c.unsigned {
			return strconv.AppendInt(nil, int64(int32(n)), 10)
		} else {
			return strconv.AppendUint(nil, uint64(n), 10)
		}
	case parquetInt64:
		if n := binary.LittleEndian.Uint64(raw); !c.unsigned {
			return strconv.AppendInt(nil, int64(n), 10)
		} else {
			return strconv.AppendUint(nil, n, 10)
		}
	case parquetFloat:
		return strconv.AppendFloat(nil, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))), 'g', -1, 32)
	case parquetDouble:
		return strconv.AppendFloat(nil, math.Float64frombits(binary.LittleEndian.Uint64(raw)), 'g', -1, 64)
	}
	return raw
}

// end checks that the rows of the row group have used up the column.
func (c *parquetColumn) end() error {
	if c.left != 0 || c.n != 0 {
		return c.fail("the column has %d values more than its row group has rows", c.left+int64(c.n))
	}
	return nil
}

// nextPage reads the next page; a dictionary on the way is kept.
func (c *parquetColumn) nextPage() error {
	c.page = c.at
	if c.left <= 0 {
		return c.fail("the column has fewer values than its row group has rows")
	}
	head, err := c.header()
	if err != nil {
		return err
	}
	packed, size := int32Of(head.int(3)), int32Of(head.int(2))
	if !head.has(1) || packed < 0 || int64(packed) > c.stop-c.at || size < 0 || size > maxPage {
		return c.fail("the page claims %d bytes, %d unpacked, of a column that ends at byte %d; at most %d are possible", head.int(3), head.int(2), c.stop, maxPage)
	}
	raw := make([]byte, packed)
	if n, err := c.file.file.ReadAt(raw, c.at); n < len(raw) {
		if err == io.EOF {
			return c.fail("the file ends in the middle of the page; it has become shorter while it was read")
		}
		return err
	}
	c.at += int64(packed)
	if head.has(4) && uint32(head.int(4)) != crc32.ChecksumIEEE(raw) {
		return c.fail("its checksum is %08x, it should be %08x: the file is damaged", crc32.ChecksumIEEE(raw), uint32(head.int(4)))
	}
	switch head.int(1) {
	case pageIndex:
		return nil
	case pageDict:
		return c.dictionary(head.sub(7), raw, size)
	case pageData:
		return c.dataPage(head.sub(5), raw, size)
	case pageData2:
		return c.dataPage2(head.sub(8), raw, size)
	}
	return c.fail("the page is of unknown kind %d", head.int(1))
}

// header reads a page's header, whose length only its end tells.
func (c *parquetColumn) header() (thriftStruct, error) {
	for size := int64(512); ; size *= 8 {
		b := make([]byte, min(size, c.stop-c.at))
		if n, err := c.file.file.ReadAt(b, c.at); n < len(b) && err != io.EOF {
			return nil, err
		}
		t := &thriftReader{b: b}
		head := t.structure(0)
		if !t.bad {
			c.at += int64(t.at)
			return head, nil
		}
		if int64(len(b)) < size || size >= maxPageHeader {
			return nil, c.fail("its header does not decode")
		}
	}
}

func (c *parquetColumn) dictionary(head thriftStruct, raw []byte, size int) error {
	if c.dict != nil {
		return c.fail("the column has two dictionaries")
	}
	if e := head.int(2); e != encPlain && e != encPlainDictionary {
		return c.fail("a dictionary of encoding %d", e)
	}
	data, err := c.file.unpack.unpack(c.codec, raw, size)
	if err != nil {
		return c.fail("%w", err)
	}
	values, err := c.plain(data)
	if err != nil {
		return err
	}
	c.dict = [][]byte{}
	for i := range head.int(1) {
		v, err := values.next()
		if err != nil {
			return c.fail("dictionary, value %d of %d: %w", i, head.int(1), err)
		}
		c.dict = append(c.dict, v)
	}
	return nil
}

func (c *parquetColumn) count(n int64) error {
	if n < 0 || n > c.left {
		return c.fail("it claims %d values, the column has %d more", n, c.left)
	}
	c.n, c.left = int(n), c.left-n
	return nil
}

// dataPage begins a page of version 1: levels and values packed together, levels after their length.
func (c *parquetColumn) dataPage(head thriftStruct, raw []byte, size int) error {
	data, err := c.file.unpack.unpack(c.codec, raw, size)
	if err != nil {
		return c.fail("%w", err)
	}
	if err := c.count(head.int(1)); err != nil {
		return err
	}
	levels := func(highest int, encoding int64) *runs {
		if highest == 0 || err != nil {
			return nil
		}
		if encoding != encRLE {
			err = c.fail("its levels are of encoding %d; RLE is read", encoding)
			return nil
		}
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			err = c.fail("its levels claim more bytes than the page has")
			return nil
		}
		n := binary.LittleEndian.Uint32(data)
		r := &runs{data: data[4 : 4+n], width: bits.Len(uint(highest))}
		data = data[4+n:]
		return r
	}
	c.rep = levels(c.maxRep, head.int(4))
	c.def = levels(c.maxDef, head.int(3))
	if err != nil {
		return err
	}
	return c.begin(data, head.int(2))
}

// dataPage2 begins a page of version 2: the levels come before what is packed.
func (c *parquetColumn) dataPage2(head thriftStruct, raw []byte, size int) error {
	def, rep := int32Of(head.int(5)), int32Of(head.int(6))
	if def < 0 || rep < 0 || def > len(raw) || rep > len(raw)-def || size < def+rep {
		return c.fail("its levels claim %d + %d bytes of %d", rep, def, len(raw))
	}
	if err := c.count(head.int(1)); err != nil {
		return err
	}
	c.rep, c.def = nil, nil
	if c.maxRep > 0 {
		c.rep = &runs{data: raw[:rep], width: bits.Len(uint(c.maxRep))}
	}
	if c.maxDef > 0 {
		c.def = &runs{data: raw[rep : rep+def], width: bits.Len(uint(c.maxDef))}
	}
	data := raw[rep+def:]
	if packed := !head.has(7) || head.bool(7); packed && len(data) > 0 {
		var err error
		if data, err = c.file.unpack.unpack(c.codec, data, size-def-rep); err != nil {
			return c.fail("%w", err)
		}
	}
	return c.begin(data, head.int(4))
}

// begin makes the reader of a page's values.
func (c *parquetColumn) begin(data []byte, encoding int64) (err error) {
	switch {
	case encoding == encPlain:
		c.values, err = c.plain(data)
	case encoding == encPlainDictionary || encoding == encDictionary:
		if c.dict == nil {
			return c.fail("its values are in a dictionary that is missing")
		}
		indexes := &runs{}
		if len(data) > 0 {
			if indexes.width, indexes.data = int(data[0]), data[1:]; indexes.width > 32 {
				return c.fail("its indexes have %d bits", indexes.width)
			}
		}
		c.values = &dictValues{c.dict, indexes}
	case encoding == encRLE && c.typ == parquetBool:
		if len(data) < 4 {
			return c.fail("its values are cut")
		}
		c.values = &boolRuns{runs{data: data[4:], width: 1}}
	case encoding == encDelta && (c.typ == parquetInt32 || c.typ == parquetInt64):
		d, err := newDeltas(data)
		if err != nil {
			return c.fail("%w", err)
		}
		c.values = &deltaNumbers{d, c.typ == parquetInt32}
	case encoding == encDeltaLength && c.typ == parquetBytes:
		c.values, err = newDeltaLengths(data)
	case encoding == encDeltaBytes && c.typ == parquetBytes:
		c.values, err = newDeltaBytes(data)
	case encoding == encSplit && (c.typ == parquetInt32 || c.typ == parquetFloat):
		c.values = &splitValues{data: data, width: 4}
	case encoding == encSplit && (c.typ == parquetInt64 || c.typ == parquetDouble):
		c.values = &splitValues{data: data, width: 8}
	default:
		return c.fail("values of type %s in encoding %d are not read", c.leaf.typ, encoding)
	}
	if err != nil {
		return c.fail("%w", err)
	}
	return nil
}

func (c *parquetColumn) plain(data []byte) (valueReader, error) {
	switch c.typ {
	case parquetBytes:
		return &plainBytes{data}, nil
	case parquetInt32, parquetFloat:
		return &plainFixed{data, 4}, nil
	case parquetInt64, parquetDouble:
		return &plainFixed{data, 8}, nil
	case parquetBool:
		return &boolRuns{runs{data: data, width: 1, literals: 8 * len(data)}}, nil
	}
	return nil, c.fail("values of type %s are not read", c.leaf.typ)
}

// unpacker undoes the compression of pages.
type unpacker struct{ zstd *zstd.Decoder }

// unpack returns the size bytes that raw holds, packed by the codec of a number. It allocates no more than raw can hold.
func (u *unpacker) unpack(codec int, raw []byte, size int) ([]byte, error) {
	var out []byte
	var err error
	wrong := func(n int) error { return fmt.Errorf("it holds %d bytes unpacked, its header says %d", n, size) }
	stream := func(r io.Reader) ([]byte, error) {
		buf := bytes.NewBuffer(make([]byte, 0, min(size, 16*len(raw)+bytes.MinRead)+bytes.MinRead))
		_, err := buf.ReadFrom(io.LimitReader(r, int64(size)+1))
		return buf.Bytes(), err
	}
	switch codec {
	case 0:
		out = raw
	case 1: // snappy: three bytes give 64 at most
		n, lenErr := snappy.DecodedLen(raw)
		if lenErr != nil {
			return nil, fmt.Errorf("snappy: %w", lenErr)
		}
		if n != size || n > 32*len(raw)+64 {
			return nil, wrong(n)
		}
		out, err = snappy.Decode(nil, raw)
	case 2:
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(raw)); err == nil {
			out, err = stream(z)
		}
	case 4:
		out, err = stream(brotli.NewReader(bytes.NewReader(raw)))
	case 6:
		if u.zstd == nil {
			if u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow)); err != nil {
				return nil, err
			}
		}
		if err = u.zstd.Reset(bytes.NewReader(raw)); err == nil {
			out, err = stream(u.zstd)
		}
	case 5, 7: // lz4: one byte gives 255 at most
		if size > 256*len(raw)+64 {
			return nil, wrong(256*len(raw) + 64)
		}
		out = make([]byte, size)
		if codec == 5 && hadoopLZ4(raw, out) {
			break
		}
		var n int
		if n, err = lz4.UncompressBlock(raw, out); err == nil {
			out = out[:n]
		}
	default:
		names := map[int]string{3: "LZO"}
		return nil, fmt.Errorf("it is packed by codec %d %s, which is not read; write it with zstd, snappy, gzip, brotli, lz4_raw or plain", codec, names[codec])
	}
	if err != nil {
		return nil, fmt.Errorf("it does not unpack: %w", err)
	}
	if len(out) != size {
		return nil, wrong(len(out))
	}
	return out, nil
}

// hadoopLZ4 fills out from Hadoop's frames, which codec 5 stands for: each says how many bytes it holds, and has blocks after
// their lengths, numbers being big-endian (BlockCompressorStream). It is false where raw is nothing of the kind; some writers
// put a single bare block there, as codec 7 has it.
func hadoopLZ4(raw, out []byte) bool {
	for len(raw) >= 4 {
		left := uint64(binary.BigEndian.Uint32(raw)) // of the frame
		if raw = raw[4:]; left > uint64(len(out)) {
			return false
		}
		for left > 0 {
			if len(raw) < 4 || uint64(binary.BigEndian.Uint32(raw)) > uint64(len(raw)-4) {
				return false
			}
			end := 4 + int(binary.BigEndian.Uint32(raw))
			n, err := lz4.UncompressBlock(raw[4:end], out[:left])
			if err != nil || n == 0 {
				return false
			}
			raw, out, left = raw[end:], out[n:], left-uint64(n)
		}
	}
	return len(raw) == 0 && len(out) == 0
}
