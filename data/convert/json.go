package convert

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// This file reads JSON files that may be larger than memory (RFC 8259). jsonStream walks through their outer structure and
// hands out the values in it, each as its bytes; scanJSON checks these; fields takes an object apart.

const (
	jsonChunk   = 256 << 10 // bytes that are read at once
	maxJSON     = 256 << 20 // bytes of one value of a file, so that one without an end cannot claim all memory
	maxJSONDeep = 1000      // values within values
)

// jsonStream is a JSON file at the place that was read up to.
type jsonStream struct {
	r    io.Reader
	buf  []byte // buf[at:] is read and not yet taken
	at   int
	base int64 // of buf[0] in the file
}

func newJSONStream(r io.ReaderAt, from, size int64) *jsonStream {
	return &jsonStream{r: io.NewSectionReader(r, from, size-from), base: from}
}

// offset is the place in the file of what comes next.
func (s *jsonStream) offset() int64 { return s.base + int64(s.at) }

// fill reads on. Behind the end it gives io.ErrUnexpectedEOF.
func (s *jsonStream) fill() error {
	if s.at > 0 {
		s.base += int64(s.at)
		s.buf = s.buf[:copy(s.buf, s.buf[s.at:])]
		s.at = 0
	}
	n := len(s.buf)
	if n > maxJSON {
		return fmt.Errorf("a value has more than %d bytes", maxJSON)
	}
	if cap(s.buf)-n < jsonChunk/2 {
		s.buf = append(make([]byte, 0, max(jsonChunk, 2*cap(s.buf))), s.buf...)
	}
	for {
		k, err := s.r.Read(s.buf[n:cap(s.buf)])
		s.buf = s.buf[:n+k]
		switch {
		case k > 0:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

// peek passes over white space and returns the byte that follows.
func (s *jsonStream) peek() (byte, error) {
	for {
		for ; s.at < len(s.buf); s.at++ {
			if c := s.buf[s.at]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// expect takes the byte c.
func (s *jsonStream) expect(c byte) error {
	got, err := s.peek()
	if err != nil {
		return err
	}
	if got != c {
		return fmt.Errorf("%q stands where %q must", got, c)
	}
	s.at++
	return nil
}

// more tells whether another element follows in an array or an object, and takes the comma before it, or else the bracket
// that ends it.
func (s *jsonStream) more(end byte, first bool) (bool, error) {
	c, err := s.peek()
	if err != nil {
		return false, err
	}
	if c == end {
		s.at++
		return false, nil
	}
	if !first {
		if err := s.expect(','); err != nil {
			return false, err
		}
	}
	return true, nil
}

// name takes the name of an object's member, with the colon.
func (s *jsonStream) name() (string, error) {
	raw, err := s.value()
	if err != nil {
		return "", err
	}
	if raw[0] != '"' {
		return "", fmt.Errorf("%s stands where a name must", clip(raw))
	}
	name, err := unquote(raw)
	if err != nil {
		return "", err
	}
	return name, s.expect(':')
}

// value takes the next value and checks it. Its bytes are valid until the next call.
func (s *jsonStream) value() ([]byte, error) {
	n, err := s.pass(true)
	if err != nil {
		return nil, err
	}
	raw := s.buf[s.at : s.at+n]
	end, err := scanJSON(raw, 0, 0)
	if err == nil && end != n {
		err = fmt.Errorf("%q stands behind the value", clip(raw[end:]))
	}
	if err != nil {
		s.at += end // where the fault is
		return nil, err
	}
	s.at += n
	return raw, nil
}

// skip passes over the next value, of which it looks at nothing but where it ends.
func (s *jsonStream) skip() error {
	n, err := s.pass(false)
	s.at += n
	return err
}

// pass finds the end of the next value: the bytes that it has from s.at on, or those that are left of it where it is not held.
func (s *jsonStream) pass(hold bool) (n int, err error) {
	c, err := s.peek()
	if err != nil {
		return 0, err
	}
	depth, quoted := 0, false
	plain := c != '{' && c != '[' && c != '"' // a number or a word, which ends before what cannot belong to it
	for i := 0; ; {
		b := s.buf[s.at:]
		for ; i < len(b); i++ {
			switch c := b[i]; {
			case plain:
				switch c {
				case ' ', '\n', '\r', '\t', ',', ']', '}', ':', '"', '[', '{':
					if i == 0 {
						return 0, fmt.Errorf("%q stands where a value must", c)
					}
					return i, nil
				}
				continue
			case quoted:
				if c == '\\' {
					i++ // what it escapes, which may not be read yet
				} else if c == '"' {
					quoted = false
				}
			case c == '"':
				quoted = true
			case c == '{' || c == '[':
				depth++
			case c == '}' || c == ']':
				depth--
			}
			if depth == 0 && !quoted && i < len(b) {
				return i + 1, nil
			}
		}
		if !hold {
			i -= len(b)
			s.at = len(s.buf)
		}
		if err := s.fill(); err != nil {
			if plain && errors.Is(err, io.ErrUnexpectedEOF) { // the file is this value
				return i, nil
			}
			s.at = len(s.buf)
			return 0, err
		}
	}
}

// scanJSON returns where the value that begins at b[at] ends; with an error, where that is.
func scanJSON(b []byte, at, depth int) (end int, err error) {
	if at == len(b) {
		return at, io.ErrUnexpectedEOF
	}
	switch c := b[at]; {
	case c == '"':
		return scanString(b, at)
	case c == '{' || c == '[':
		if depth == maxJSONDeep {
			return at, fmt.Errorf("more than %d values lie within one another", maxJSONDeep)
		}
		return scanMembers(b, at, depth+1, func(_, _, _ int) {})
	case c == '-' || c >= '0' && c <= '9':
		return scanNumber(b, at)
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(b[at:], []byte(word)) {
			return at + len(word), nil
		}
	}
	return at, fmt.Errorf("%q stands where a value must", clip(b[at:]))
}

// scanMembers is scanJSON of an array or an object. each gets the place of a member's name, and where its value begins and
// ends; of an array only the latter count.
func scanMembers(b []byte, at, depth int, each func(name, begin, end int)) (end int, err error) {
	object, closing := b[at] == '{', b[at]+2 // of { } and of [ ] in ASCII
	space := func() {
		for at < len(b) && (b[at] == ' ' || b[at] == '\n' || b[at] == '\r' || b[at] == '\t') {
			at++
		}
	}
	take := func(c byte) error {
		space()
		if at == len(b) {
			return io.ErrUnexpectedEOF
		}
		if b[at] != c {
			return fmt.Errorf("%q stands where %q must", b[at], c)
		}
		at++
		return nil
	}
	at++
	for first := true; ; first = false {
		if space(); at < len(b) && b[at] == closing {
			return at + 1, nil
		}
		if !first {
			if err := take(','); err != nil {
				return at, err
			}
			space()
		}
		name := at
		if object {
			if at < len(b) && b[at] != '"' {
				return at, fmt.Errorf("%q stands where a name must", b[at])
			}
			if at, err = scanJSON(b, at, depth); err != nil {
				return at, err
			}
			if err := take(':'); err != nil {
				return at, err
			}
			space()
		}
		begin := at
		if at, err = scanJSON(b, at, depth); err != nil {
			return at, err
		}
		each(name, begin, at)
	}
}

func scanString(b []byte, at int) (end int, err error) {
	for i := at + 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return i, fmt.Errorf("%q stands in a text", c)
		case c == '\\':
			i++
			if i == len(b) {
				break
			}
			if b[i] == 'u' {
				for k := 1; k <= 4; k++ {
					if i+k < len(b) && !isHex(b[i+k]) {
						return i, fmt.Errorf("%q is no escape", clip(b[i-1:i+k+1]))
					}
				}
				i += 4
			} else if bytes.IndexByte([]byte(`"\/bfnrt`), b[i]) < 0 {
				return i, fmt.Errorf("%q is no escape", clip(b[i-1:i+1]))
			}
		}
	}
	return len(b), io.ErrUnexpectedEOF
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

func scanNumber(b []byte, at int) (end int, err error) {
	digits := func() bool {
		begin := at
		for at < len(b) && b[at] >= '0' && b[at] <= '9' {
			at++
		}
		return at > begin
	}
	begin := at
	if b[at] == '-' {
		at++
	}
	whole := at
	ok := digits()
	ok = ok && (b[whole] != '0' || at == whole+1)
	if ok && at < len(b) && b[at] == '.' {
		at++
		ok = digits()
	}
	if ok && at < len(b) && (b[at] == 'e' || b[at] == 'E') {
		if at++; at < len(b) && (b[at] == '+' || b[at] == '-') {
			at++
		}
		ok = digits()
	}
	if !ok {
		return begin, fmt.Errorf("%q is no number", clip(b[begin:]))
	}
	return at, nil
}

// checkJSON wants b to be one value, of UTF-8.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errNotUTF8
	}
	b = bytes.TrimRight(b, " \n\r\t")
	b = bytes.TrimLeft(b, " \n\r\t")
	end, err := scanJSON(b, 0, 0)
	if err == nil && end != len(b) {
		err = fmt.Errorf("%q stands behind the value", clip(b[end:]))
	}
	return err
}

// field is one member of a JSON object.
type field struct {
	name  string
	value json.RawMessage
}

// fields appends the members of a JSON object to fs, in their order. Their values are parts of raw. What fs held before may be
// another record's members.
func fields(raw []byte, fs []field) ([]field, error) {
	at := len(raw) - len(bytes.TrimLeft(raw, " \n\r\t"))
	if at == len(raw) || raw[at] != '{' {
		return fs, fmt.Errorf("%q is no object", clip(raw))
	}
	var wrong error
	_, err := scanMembers(raw, at, 0, func(name, begin, end int) {
		last := begin - 1
		for raw[last] != '"' {
			last--
		}
		f := field{value: raw[begin:end:end]}
		if n := len(fs); n < cap(fs) {
			f.name = fs[:n+1][n].name // most records have the names of the one before, so that these need not be made anew
		}
		if f.name == "" || string(raw[name+1:last]) != f.name {
			var err error
			if f.name, err = unquote(raw[name : last+1]); err != nil && wrong == nil {
				wrong = err
			}
		}
		fs = append(fs, f)
	})
	return fs, errors.Join(err, wrong)
}

// member returns the value of a name, nil if there is none; the last one counts.
func member(fs []field, name string) (value json.RawMessage) {
	for i := range fs {
		if fs[i].name == name {
			value = fs[i].value
		}
	}
	return value
}

// unquote returns what a JSON text says.
func unquote(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", fmt.Errorf("%s is no text", clip(raw))
	}
	if n := len(raw); bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : n-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// decodeText is json.Unmarshal that refuses bytes that are no UTF-8, which the standard library would replace, and says of a
// value of the wrong type which field it is in.
func decodeText(raw []byte, v any) error {
	if !utf8.Valid(raw) {
		return errNotUTF8
	}
	err := json.Unmarshal(raw, v)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s is a JSON %s, it must be %s", cmp.Or(strings.ToLower(wrong.Field), "the value"), wrong.Value, jsonKind(wrong.Type.Kind()))
	}
	return err
}

// jsonKind is what is written in JSON for a Go type.
func jsonKind(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Bool:
		return "true or false"
	}
	return "a number"
}

// syntax makes an error about JSON say where in the file it is.
func syntax(err error, at int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file ends in the middle of the JSON, at byte %d", ErrInput, at)
	}
	return fmt.Errorf("%w: near byte %d: %v", ErrInput, at, err)
}
