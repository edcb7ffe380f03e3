package convert

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// jsonList yields the elements of an array in a JSON file, one at a time: of the whole file, or of one member of its object.
type jsonList struct {
	path   string
	closer io.Closer
	size   int64
	s      *jsonStream
	member string // "" for the whole file
	begin  int64  // where the array begins
	record int    // the next one
	ended  bool
}

func openJSONList(path, member string) (*jsonList, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l, err := newJSONList(path, f, info.Size(), member)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.closer = f
	return l, nil
}

func newJSONList(path string, r io.ReaderAt, size int64, member string) (*jsonList, error) {
	l := &jsonList{path: path, size: size, s: newJSONStream(r, 0, size), member: member}
	found := member == ""
	if !found {
		if err := l.s.expect('{'); err != nil {
			return nil, l.fatal(err)
		}
	}
	for first := true; !found; first = false {
		more, err := l.s.more('}', first)
		if err == nil && !more {
			return nil, fmt.Errorf("%s: %w: it has no array %q", path, ErrInput, member)
		}
		var name string
		if err == nil {
			name, err = l.s.name()
		}
		if found = name == member; err == nil && !found {
			err = l.s.skip()
		}
		if err != nil {
			return nil, l.fatal(err)
		}
	}
	if err := l.s.expect('['); err != nil {
		if member != "" {
			err = fmt.Errorf("%s: %w", member, err)
		}
		return nil, l.fatal(err)
	}
	l.begin = l.s.offset()
	return l, nil
}

func (l *jsonList) fatal(err error) error {
	return fmt.Errorf("%s: %w", l.path, syntax(err, l.s.offset()))
}

// next decodes the next element into v and says where it stands. Behind the last it reads the file to its end, so that one
// that was cut is found, and returns io.EOF.
func (l *jsonList) next(v any) (where string, err error) {
	where = fmt.Sprintf("%s: %s[%d]", l.path, l.member, l.record)
	if l.ended {
		return where, io.EOF
	}
	more, err := l.s.more(']', l.record == 0)
	if err == nil && !more {
		for l.ended = true; l.member != "" && err == nil; {
			if more, err = l.s.more('}', false); err == nil && !more {
				break
			}
			if err == nil {
				_, err = l.s.name()
			}
			if err == nil {
				err = l.s.skip()
			}
		}
		if err != nil {
			return where, l.fatal(err)
		}
		return where, io.EOF
	}
	l.record++
	var raw []byte
	if err == nil {
		raw, err = l.s.value()
	}
	if err != nil {
		return where, fmt.Errorf("%s: %w", where, syntax(err, l.s.offset()))
	}
	if err := decodeText(raw, v); err != nil {
		return where, &RecordError{where, err}
	}
	return where, nil
}

// Part is how much of the file is read, from where the array begins.
func (l *jsonList) Part() float64 {
	return float64(l.s.offset()-l.begin) / float64(max(l.size-l.begin, 1))
}

// Close is io.Closer's.
func (l *jsonList) Close() error {
	if l.closer == nil {
		return nil
	}
	return l.closer.Close()
}
