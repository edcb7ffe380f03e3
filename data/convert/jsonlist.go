package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// jsonList yields the elements of an array in a JSON file, one at a time: of the whole file, or of one member of its object.
type jsonList struct {
	path   string
	closer io.Closer
	size   int64
	dec    *json.Decoder
	member string // "" for the whole file
	begin  int64  // where the array begins
	record int    // the next one
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
	l := &jsonList{path: path, size: size, dec: json.NewDecoder(io.NewSectionReader(r, 0, size)), member: member}
	if member == "" {
		if err := expect(l.dec, '['); err != nil {
			return nil, l.fatal(err)
		}
		l.begin = l.dec.InputOffset()
		return l, nil
	}
	if err := expect(l.dec, '{'); err != nil {
		return nil, l.fatal(err)
	}
	for l.dec.More() {
		name, err := l.dec.Token()
		if err == nil && name == member {
			if err = expect(l.dec, '['); err != nil {
				return nil, l.fatal(fmt.Errorf("%s: %w", member, err))
			}
			l.begin = l.dec.InputOffset()
			return l, nil
		}
		if err == nil {
			err = skip(l.dec)
		}
		if err != nil {
			return nil, l.fatal(err)
		}
	}
	if err := expect(l.dec, '}'); err != nil {
		return nil, l.fatal(err)
	}
	return nil, fmt.Errorf("%s: %w: it has no array %q", path, ErrInput, member)
}

func (l *jsonList) fatal(err error) error {
	return fmt.Errorf("%s: %w", l.path, syntax(err, l.dec.InputOffset()))
}

// next decodes the next element into v and says where it stands. Behind the last it reads the file to its end, so that one
// that was cut is found, and returns io.EOF.
func (l *jsonList) next(v any) (where string, err error) {
	where = fmt.Sprintf("%s: %s[%d]", l.path, l.member, l.record)
	if !l.dec.More() {
		if err := expect(l.dec, ']'); err != nil {
			return where, l.fatal(err)
		}
		for l.member != "" && l.dec.More() {
			if _, err := l.dec.Token(); err != nil {
				return where, l.fatal(err)
			}
			if err := skip(l.dec); err != nil {
				return where, l.fatal(err)
			}
		}
		if l.member != "" {
			if err := expect(l.dec, '}'); err != nil {
				return where, l.fatal(err)
			}
		}
		return where, io.EOF
	}
	l.record++
	var raw json.RawMessage
	if err := l.dec.Decode(&raw); err != nil {
		return where, fmt.Errorf("%s: %w", where, syntax(err, l.dec.InputOffset()))
	}
	if !utf8.Valid(raw) {
		return where, &RecordError{where, errNotUTF8}
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return where, &RecordError{where, err}
	}
	return where, nil
}

// Part is how much of the file is read, from where the array begins.
func (l *jsonList) Part() float64 {
	return float64(l.dec.InputOffset()-l.begin) / float64(max(l.size-l.begin, 1))
}

// Close is io.Closer's.
func (l *jsonList) Close() error {
	if l.closer == nil {
		return nil
	}
	return l.closer.Close()
}
