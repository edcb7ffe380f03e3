package torchfile

import (
	"cmp"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/klauspost/compress/flate"
)

// record is a file in a zip archive, as its directory describes it.
type record struct {
	Name         string
	Method       uint16
	CRC32        uint32
	packed, size int64 // bytes in the archive, and unpacked
	header       int64 // where its local header lies
	at           int64 // where its content does

	r io.ReaderAt
}

// The ways a record is packed.
const (
	methodStore   = 0
	methodDeflate = 8
)

// openArchive lists the records of a zip archive (APPNOTE 6.3.10, with zip64) by name. It is stricter than the format: the
// directory must end where the end record begins, records lie beside each other before it, what is said of each in its two places
// agrees, and no name leads out of the archive.
func openArchive(r io.ReaderAt, size int64) (map[string]*record, error) {
	directory, at, count, err := readDirectory(r, size)
	if err != nil {
		return nil, err
	}
	records := map[string]*record{}
	var order []*record
	n := uint64(0)
	for b := directory; len(b) > 0; n++ {
		rec, rest, err := parseEntry(b)
		if err != nil {
			return nil, err
		}
		b = rest
		if strings.HasSuffix(rec.Name, "/") && rec.size == 0 { // a folder
			continue
		}
		if !fs.ValidPath(rec.Name) || strings.ContainsAny(rec.Name, "\\\x00") {
			return nil, corrupt("record %q: a name that leads out of the archive", rec.Name)
		}
		if records[rec.Name] != nil {
			return nil, corrupt("two records have the name %q", rec.Name)
		}
		rec.r = r
		records[rec.Name] = rec
		order = append(order, rec)
	}
	if n != count {
		return nil, corrupt("the directory has %d records and should have %d", n, count)
	}
	slices.SortFunc(order, func(a, b *record) int { return cmp.Compare(a.header, b.header) })
	end := int64(0)
	for _, rec := range order {
		if rec.header < end {
			return nil, corrupt("record %q overlaps the one before", rec.Name)
		}
		if err := rec.readLocal(at); err != nil {
			return nil, err
		}
		end = rec.at + rec.packed
	}
	return records, nil
}

// readDirectory returns the bytes of the directory, where it begins, and the number of its entries.
func readDirectory(r io.ReaderAt, size int64) (b []byte, at int64, count uint64, err error) {
	const endLen, locatorLen, end64Len = 22, 20, 56
	tail := make([]byte, min(size, endLen+locatorLen+1<<16))
	if err := readAt(r, tail, size-int64(len(tail))); err != nil {
		return nil, 0, 0, err
	}
	i := len(tail) - endLen
	for ; i >= 0; i-- {
		if string(tail[i:i+4]) == "PK\x05\x06" && i+endLen+int(le.Uint16(tail[i+20:])) == len(tail) {
			break
		}
	}
	if i < 0 {
		return nil, 0, 0, corrupt("a zip archive without its end: cut off")
	}
	e := tail[i:]
	if le.Uint32(e[4:]) != 0 || le.Uint16(e[8:]) != le.Uint16(e[10:]) {
		return nil, 0, 0, corrupt("a zip archive in several parts")
	}
	count, length, begin := uint64(le.Uint16(e[10:])), uint64(le.Uint32(e[12:])), uint64(le.Uint32(e[16:]))
	stop := size - int64(len(tail)) + int64(i)
	if i >= locatorLen && string(tail[i-locatorLen:i-locatorLen+4]) == "PK\x06\x07" {
		stop -= locatorLen + end64Len
		e := make([]byte, end64Len)
		if where := le.Uint64(tail[i-locatorLen+8:]); where != uint64(stop) {
			return nil, 0, 0, corrupt("the zip64 end record should lie at %d and is said to at %d", stop, where)
		}
		if err := readAt(r, e, stop); err != nil {
			return nil, 0, 0, err
		}
		if string(e[:4]) != "PK\x06\x06" {
			return nil, 0, 0, corrupt("no zip64 end record at %d", stop)
		}
		count, length, begin = le.Uint64(e[32:]), le.Uint64(e[40:]), le.Uint64(e[48:])
	}
	if stop < 0 || begin > uint64(stop) || length != uint64(stop)-begin {
		return nil, 0, 0, corrupt("the directory of %d bytes at %d does not end at %d", length, begin, stop)
	}
	if length > maxDirectory {
		return nil, 0, 0, corrupt("a directory of %d bytes, at most %d are allowed", length, maxDirectory)
	}
	b = make([]byte, length)
	return b, int64(begin), count, readAt(r, b, int64(begin))
}

// maxDirectory bounds an archive's directory: over 200,000 records, each of a tensor.
const maxDirectory = 16 << 20

// parseEntry reads the entry of the directory at the beginning of b, and returns what follows it.
func parseEntry(b []byte) (*record, []byte, error) {
	const entryLen = 46
	if len(b) < entryLen || string(b[:4]) != "PK\x01\x02" {
		return nil, nil, corrupt("the directory is damaged")
	}
	nameLen, extraLen := int(le.Uint16(b[28:])), int(le.Uint16(b[30:]))
	total := entryLen + nameLen + extraLen + int(le.Uint16(b[32:]))
	if total > len(b) {
		return nil, nil, corrupt("the directory is damaged")
	}
	rec := &record{Name: string(b[entryLen : entryLen+nameLen]), Method: le.Uint16(b[10:]), CRC32: le.Uint32(b[16:])}
	packed, size, header := uint64(le.Uint32(b[20:])), uint64(le.Uint32(b[24:])), uint64(le.Uint32(b[42:]))
	for extra := b[entryLen+nameLen:][:extraLen]; len(extra) >= 4; {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		if n > len(extra)-4 {
			return nil, nil, corrupt("record %q: its further fields are damaged", rec.Name)
		}
		field := extra[4:][:n]
		extra = extra[4+n:]
		if id != 1 { // zip64
			continue
		}
		for _, v := range []*uint64{&size, &packed, &header} {
			if *v != math.MaxUint32 {
				continue
			}
			if len(field) < 8 {
				return nil, nil, corrupt("record %q: its zip64 sizes are damaged", rec.Name)
			}
			*v, field = le.Uint64(field), field[8:]
		}
	}
	rec.packed, rec.size, rec.header = int64(packed), int64(size), int64(header)
	switch {
	case packed > math.MaxInt64 || size > math.MaxInt64 || header > math.MaxInt64:
		return nil, nil, corrupt("record %q: %d bytes at %d", rec.Name, size, header)
	case le.Uint16(b[8:])&1 != 0:
		return nil, nil, corrupt("record %q is encrypted", rec.Name)
	case rec.Method == methodStore && packed != size:
		return nil, nil, corrupt("record %q: %d bytes stored of %d", rec.Name, packed, size)
	case rec.Method != methodStore && rec.Method != methodDeflate:
		return nil, nil, corrupt("record %q is packed by method %d, which is not known", rec.Name, rec.Method)
	}
	return rec, b[total:], nil
}

// readLocal reads a record's local header, compares it with the directory's entry, and finds its content, which must end before
// limit. Sizes and checksum stand in it unless flag 3 says that they follow the content.
func (rec *record) readLocal(limit int64) error {
	const localLen = 30
	if rec.header > limit-localLen-int64(len(rec.Name)) {
		return corrupt("record %q lies at %d, past the end of the records", rec.Name, rec.header)
	}
	h := make([]byte, localLen+len(rec.Name))
	if err := readAt(rec.r, h, rec.header); err != nil {
		return err
	}
	if string(h[:4]) != "PK\x03\x04" || int(le.Uint16(h[26:])) != len(rec.Name) || string(h[localLen:]) != rec.Name || le.Uint16(h[8:]) != rec.Method {
		return corrupt("record %q: its header at %d is another", rec.Name, rec.header)
	}
	if le.Uint16(h[6:])&8 == 0 {
		same := func(got uint32, want int64) bool { return got == math.MaxUint32 || int64(got) == want }
		if le.Uint32(h[14:]) != rec.CRC32 || !same(le.Uint32(h[18:]), rec.packed) || !same(le.Uint32(h[22:]), rec.size) {
			return corrupt("record %q: its header at %d has another size or checksum", rec.Name, rec.header)
		}
	}
	rec.at = rec.header + int64(len(h)) + int64(le.Uint16(h[28:]))
	if rec.at > limit || rec.packed > limit-rec.at {
		return corrupt("record %q: %d bytes at %d, the records end at %d", rec.Name, rec.packed, rec.at, limit)
	}
	return nil
}

// readAt fills b from offset off; an early end is a corrupt file.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return corrupt("the file ends at byte %d", off+int64(n))
	}
	return err
}

// reader unpacks a record; its end comes with an error if size or checksum are wrong.
func (rec *record) reader() io.Reader {
	var r io.Reader = io.NewSectionReader(rec.r, rec.at, rec.packed)
	if rec.Method == methodDeflate {
		r = flate.NewReader(r)
	}
	return &checked{rec: rec, r: io.LimitReader(r, rec.size+1), sum: crc32.NewIEEE()}
}

// checked compares what is read of a record with its size and checksum.
type checked struct {
	rec *record
	r   io.Reader
	n   int64
	sum hash.Hash32
}

func (c *checked) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.sum.Write(b[:n])
	switch {
	case err == nil || err == io.EOF && c.n == c.rec.size && c.sum.Sum32() == c.rec.CRC32:
		return n, err
	case err == io.EOF && c.n == c.rec.size:
		return n, corrupt("record %q does not have its checksum", c.rec.Name)
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return n, corrupt("record %q does not have the %d bytes that it says", c.rec.Name, c.rec.size)
	}
	return n, corrupt("record %q: %w", c.rec.Name, err)
}

// all reads a record of at most limit bytes. Its memory grows with what is there, not with what the archive says.
func (rec *record) all(limit int64) ([]byte, error) {
	if rec.size > limit {
		return nil, corrupt("record %q has %d bytes, at most %d are allowed", rec.Name, rec.size, limit)
	}
	return io.ReadAll(rec.reader())
}

// stored is a record that is not compressed, as a storage whose checksum is verified when it is first read: of a part of it before its first byte is
// given out, of all of it after the last.
func (rec *record) stored() *region { return &region{r: rec.r, at: rec.at, rec: rec} }

// verify reads a record and compares it with its checksum.
func (rec *record) verify() error {
	buf, content := make([]byte, min(16*pieceSize, rec.size+1)), rec.reader()
	for {
		if _, err := content.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// openZip opens a zip archive: a pickle with its storages beside it, or NumPy arrays.
func (f *File) openZip(r io.ReaderAt) error {
	records, err := openArchive(r, f.size)
	if err != nil {
		return err
	}
	var roots []string
	arrays := 0
	for name := range records {
		if root, ok := strings.CutSuffix(name, "/data.pkl"); ok && !strings.Contains(root, "/") {
			roots = append(roots, root+"/")
		}
		if strings.HasSuffix(name, ".npy") {
			arrays++
		}
	}
	switch {
	case len(roots) == 1:
		return f.openTorch(records, roots[0])
	case len(roots) > 1:
		return corrupt("the archive has %d files data.pkl", len(roots))
	case arrays > 0 && arrays == len(records):
		f.Form = NPZ
		return f.openArrays(records)
	}
	return corrupt("a zip archive with neither PyTorch's data.pkl nor NumPy's arrays")
}

// openTorch opens what torch.save or torch.jit.save wrote under the folder root of an archive.
func (f *File) openTorch(records map[string]*record, root string) error {
	f.Form = Zip
	if records[root+"constants.pkl"] != nil || hasPrefix(records, root+"code/") {
		f.Form = TorchScript
	}
	if order := records[root+"byteorder"]; order != nil {
		b, err := order.all(16)
		if err != nil {
			return err
		}
		if string(b) != "little" {
			return corrupt("the byte order is %q; only little-endian files are read", b)
		}
	}
	text, err := records[root+"data.pkl"].all(maxPickle)
	if err != nil {
		return err
	}
	v, n, err := unpickle(text)
	if err != nil {
		return err
	}
	if n != len(text) {
		return corrupt("data.pkl: %d bytes follow the pickle", len(text)-n)
	}
	w := &walker{values: f.values}
	if err := w.visit("", v, 0); err != nil {
		return err
	}
	stores := map[string]storage{}
	size := func(s *storageRef) (int64, error) {
		rec := records[root+"data/"+s.key]
		if rec == nil {
			return 0, corrupt("there is no record %q", root+"data/"+s.key)
		}
		if rec.Method != methodStore {
			return 0, corrupt("record %q is compressed, which PyTorch's never are", rec.Name)
		}
		if stores[s.key] == nil {
			stores[s.key] = rec.stored()
		}
		width := int64(classes[s.class].Size())
		if bytes := rec.size; bytes/width != s.count || bytes%width != 0 {
			return 0, corrupt("record %q has %d bytes, a %s of %d elements takes others", rec.Name, bytes, s.class, s.count)
		}
		return rec.size, nil
	}
	if err := f.add(w.found, size, func(key string) storage { return stores[key] }); err != nil {
		return err
	}
	if len(f.tensors) == 0 {
		return corrupt("the file has no tensors")
	}
	return nil
}

func hasPrefix(records map[string]*record, prefix string) bool {
	for name := range records {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
