package convert

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxLine is the length in bytes above which a line, or a record of several, is refused, so that a file of another kind or a
// quotation mark that is never closed does not fill the memory.
const maxLine = 4 << 20

// lines reads a file line by line. It knows where it is, and can go elsewhere.
type lines struct {
	name   string
	file   io.ReaderAt
	size   int64
	closer io.Closer
	r      *bufio.Reader
	off    int64 // of the next line
	line   int   // its number, from 1
	long   []byte
}

func openLines(name string) (*lines, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: it is not a file", name, ErrInput)
	}
	var l *lines
	if err == nil {
		l, err = newLines(name, f, info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.closer = f
	return l, nil
}

// newLines begins behind the byte order mark of UTF-8, if there is one.
func newLines(name string, file io.ReaderAt, size int64) (*lines, error) {
	l := &lines{name: name, file: file, size: size, r: bufio.NewReaderSize(nil, 64<<10)}
	var head [3]byte
	n, err := file.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if n >= 2 && (head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff) {
		return nil, fmt.Errorf("%s: %w: it is UTF-16; convert it to UTF-8", name, ErrInput)
	}
	if string(head[:n]) == "\ufeff" {
		l.seek(3, 1)
	} else {
		l.seek(0, 1)
	}
	return l, nil
}

// seek makes the line of a number, which begins at off, the next one.
func (l *lines) seek(off int64, line int) {
	l.off, l.line = off, line
	l.r.Reset(io.NewSectionReader(l.file, off, l.size-off))
}

// next returns a line without its end, \n or \r\n, valid until the next call.
func (l *lines) next() ([]byte, error) {
	text, err := l.raw()
	if err != nil {
		return nil, err
	}
	return trimEnd(text), nil
}

// raw is next with the line's end.
func (l *lines) raw() ([]byte, error) {
	number := l.line
	text, err := l.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		size := 0
		for l.long = l.long[:0]; ; text, err = l.r.ReadSlice('\n') {
			if size += len(text); size <= maxLine {
				l.long = append(l.long, text...)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if text = l.long; size > maxLine {
			l.off, l.line, l.long = l.off+int64(size), l.line+1, nil
			if err != nil && err != io.EOF {
				return nil, fmt.Errorf("%s: %w", l.where(number), err)
			}
			return nil, badRecord(l.where(number), "the line has more than %d bytes", maxLine)
		}
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", l.where(number), err)
	}
	if len(text) == 0 {
		return nil, io.EOF
	}
	l.off += int64(len(text))
	l.line++
	return text, nil
}

// where names a line.
func (l *lines) where(line int) string { return fmt.Sprintf("%s:%d", l.name, line) }

// Part is how much of the file is read.
func (l *lines) Part() float64 { return float64(l.off) / float64(max(l.size, 1)) }

// Close is io.Closer's.
func (l *lines) Close() error {
	if l.closer == nil {
		return nil
	}
	return l.closer.Close()
}

// csvReader splits lines into cells, as RFC 4180 does if quotes is set: a cell in double quotes may hold the delimiter, line
// ends, and quotes as two. A quote inside of a cell that does not begin with one stands for itself. Without quotes, every
// line is a record and every delimiter parts two cells.
type csvReader struct {
	*lines
	delimiter byte
	quotes    bool

	size  int      // bytes of the record so far
	text  []byte   // its cells, one after the other
	ends  []int    // where each ends in text
	cells []string // of the last record
}

// next returns the cells of a record, which are valid until the next call, and the line it begins at. Empty lines are
// passed over. After a *RecordError it goes on at the line behind the record's first.
func (c *csvReader) next() (cells []string, line int, err error) {
	for {
		line = c.line
		text, err := c.lines.raw()
		if err != nil {
			return nil, line, err
		}
		if len(bytes.TrimRight(text, "\r\n")) == 0 {
			continue
		}
		off, follow := c.off, c.line
		c.text, c.ends, c.size = c.text[:0], c.ends[:0], len(text)
		open, fault := c.split(text, false)
		for open && fault == "" {
			text, err := c.lines.raw()
			if bad := (*RecordError)(nil); err != nil && err != io.EOF && !errors.As(err, &bad) {
				return nil, line, err
			}
			if c.size += len(text); err != nil || c.size > maxLine {
				fault = "a quotation mark is opened and never closed"
				break
			}
			open, fault = c.split(text, true)
		}
		if fault != "" {
			c.seek(off, follow)
			return nil, line, badRecord(c.where(line), "%s", fault)
		}
		c.cells = c.cells[:0]
		all, start := string(c.text), 0
		for _, end := range c.ends {
			c.cells = append(c.cells, all[start:end])
			start = end
		}
		return c.cells, line, nil
	}
}

// split takes the cells of a line; open says whether the line begins, and then whether it ends, inside of quotes.
func (c *csvReader) split(b []byte, open bool) (stillOpen bool, fault string) {
	for {
		if c.quotes && (open || len(b) > 0 && b[0] == '"') {
			if !open {
				b = b[1:]
			}
			for open = true; open; {
				i := bytes.IndexByte(b, '"')
				if i < 0 {
					c.text = append(c.text, b...)
					return true, ""
				}
				c.text, b = append(c.text, b[:i]...), b[i+1:]
				if open = len(b) > 0 && b[0] == '"'; open {
					c.text, b = append(c.text, '"'), b[1:]
				}
			}
			if b = trimEnd(b); len(b) > 0 && b[0] != c.delimiter {
				return false, fmt.Sprintf("%q stands behind the closing quotation mark of cell %d", clip(b), len(c.ends)+1)
			}
		} else {
			i := bytes.IndexByte(b, c.delimiter)
			if i < 0 {
				b = trimEnd(b)
				i = len(b)
			}
			c.text, b = append(c.text, b[:i]...), b[i:]
		}
		c.ends = append(c.ends, len(c.text))
		if len(b) == 0 {
			return false, ""
		}
		b = b[1:] // the delimiter
	}
}

// trimEnd takes away a line's end.
func trimEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// clip shortens a text for a message.
func clip[T ~string | ~[]byte](s T) string {
	const most = 40
	if len(s) <= most {
		return string(s)
	}
	return strings.ToValidUTF8(string(s[:most]), "") + " …"
}
