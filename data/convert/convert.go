// Package convert turns captioned pictures in other formats into data sets (package arrowset), and data sets into picture
// files with COCO captions JSON. A conversion streams: it holds one picture at a time and, of the texts, only ids and places
// in the file. What it reads is checked record by record; errors name file and record. Start reading at COCO.Import.
package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// ErrInput is wrapped by errors about the files that are to be imported.
var ErrInput = errors.New("bad input")

var errNotUTF8 = errors.New("not UTF-8; convert the file to UTF-8")

// field is one member of a JSON object.
type field struct {
	name  string
	value json.RawMessage
}

// fields returns the members of a JSON object in their order.
func fields(raw []byte) ([]field, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := expect(dec, '{'); err != nil {
		return nil, err
	}
	var out []field
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		f := field{name: name.(string)} // encoding/json lets nothing but a string stand here
		if err := dec.Decode(&f.value); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, expect(dec, '}')
}

// member returns the value of a name, nil if there is none; the last one counts.
func member(fs []field, name string) (value json.RawMessage) {
	for _, f := range fs {
		if f.name == name {
			value = f.value
		}
	}
	return value
}

// expect takes the next token, which must be the delimiter d.
func expect(dec *json.Decoder, d json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != d {
		return fmt.Errorf("%v stands where %v must", t, d)
	}
	return nil
}

// skip passes over the next value without holding it.
func skip(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// decodeText is json.Unmarshal that refuses bytes that are no UTF-8, which the standard library would replace.
func decodeText(raw []byte, v any) error {
	if !utf8.Valid(raw) {
		return errNotUTF8
	}
	return json.Unmarshal(raw, v)
}

// syntax makes an error of encoding/json say where in the file it is.
func syntax(err error, at int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file ends in the middle of the JSON, at byte %d", ErrInput, at)
	}
	return fmt.Errorf("%w: near byte %d: %v", ErrInput, at, err)
}
