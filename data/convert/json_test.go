package convert

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// drip is an io.ReaderAt that gives few bytes at a time.
type drip struct{ *bytes.Reader }

func (d drip) ReadAt(b []byte, at int64) (int, error) {
	r := io.NewSectionReader(d.Reader, at, d.Size()-at)
	return io.ReadFull(iotest.OneByteReader(r), b[:min(len(b), 3)])
}

// walk reads an array of values of a stream, or an object's members, as its users do.
func walk(s *jsonStream, end byte) (values []string, err error) {
	for first := true; ; first = false {
		more, err := s.more(end, first)
		if err != nil || !more {
			return values, err
		}
		if end == '}' {
			name, err := s.name()
			if err != nil {
				return values, err
			}
			values = append(values, name)
		}
		raw, err := s.value()
		if err != nil {
			return values, err
		}
		values = append(values, string(raw))
	}
}

func TestJSONStream(t *testing.T) {
	for _, c := range []struct {
		text   string
		values []string
	}{
		{`[]`, nil},
		{` [ 1 , -2.5e+3,true, null,"a\"]\\" ,[1,[2]], {"x":"}"} ] `, []string{`1`, `-2.5e+3`, `true`, `null`, `"a\"]\\"`, `[1,[2]]`, `{"x":"}"}`}},
		{`{"a" : 1,"\u0062":[{"c":"\\"}]}`, []string{"a", "1", "b", `[{"c":"\\"}]`}},
		{`["` + strings.Repeat("long ", 200000) + `", 7]`, []string{`"` + strings.Repeat("long ", 200000) + `"`, "7"}},
	} {
		whole := bytes.NewReader([]byte(c.text))
		for name, s := range map[string]*jsonStream{
			"whole": newJSONStream(whole, 0, whole.Size()),
			"drips": {r: io.NewSectionReader(drip{whole}, 0, whole.Size())},
		} {
			first, err := s.peek()
			require.NoError(t, err)
			require.NoError(t, s.expect(first))
			begin := s.offset()
			require.Equal(t, strings.IndexAny(c.text, "[{")+1, int(begin))
			values, err := walk(s, first+2)
			require.NoError(t, err, name)
			require.Equal(t, c.values, values, name)
			require.EqualValues(t, len(strings.TrimRight(c.text, " ")), s.offset(), name)
		}
		s := newJSONStream(whole, 0, whole.Size())
		require.NoError(t, s.skip())
		require.EqualValues(t, len(strings.TrimRight(c.text, " ")), s.offset())
	}
	for _, c := range []struct{ text, want string }{
		{`[1,,2]`, `near byte 3: ',' stands where a value must`},
		{`[1 2]`, `near byte 3: '2' stands where ',' must`},
		{`[{"a":1,}]`, `near byte 8: '}' stands where a name must`},
		{`[{"a" 1}]`, `near byte 6: '1' stands where ':' must`},
		{`[tru]`, `near byte 1: "tru" stands where a value must`},
		{`[nullx]`, `near byte 5: "x" stands behind the value`},
		{`[01]`, `near byte 1: "01" is no number`},
		{`["\x"]`, `"\\x" is no escape`},
		{"[\"a\nb\"]", `'\n' stands in a text`},
		{`["a`, "ends in the middle of the JSON, at byte 3"},
		{`[[1, 2`, "ends in the middle of the JSON, at byte 6"},
		{`[` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `]`, "more than 1000 values lie within one another"},
	} {
		s := newJSONStream(strings.NewReader(c.text), 0, int64(len(c.text)))
		require.NoError(t, s.expect('['))
		_, err := walk(s, ']')
		require.Error(t, err, c.text)
		require.ErrorContains(t, syntax(err, s.offset()), c.want, clip(c.text))
	}
}

// FuzzJSON holds the reader against encoding/json: both take the same texts for JSON, and see the same in them.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{`{"id":1,"file_name":"a\u00e4.png","x":[1,2,{"y":null}]}`, `[true,false,-0.5e3,"\\\""]`, ` 7 `, `"` + "\xff" + `"`, `{"a":{"b":[]}}`, `nulll`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		valid := json.Valid(b) && utf8.Valid(b)
		if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) < maxJSONDeep {
			require.Equal(t, valid, checkJSON(b) == nil, "%q", b)
		}
		s := newJSONStream(bytes.NewReader(b), 0, int64(len(b)))
		raw, err := s.value()
		require.True(t, err != nil || len(raw) > 0)
		if valid {
			require.NoError(t, err)
			require.Equal(t, bytes.Trim(b, " \n\r\t"), raw)
		}
		var object map[string]json.RawMessage
		if !valid || json.Unmarshal(b, &object) != nil || object == nil {
			return
		}
		fs, err := fields(b, nil)
		require.NoError(t, err)
		for name, want := range object {
			require.Equal(t, want, member(fs, name))
			if want[0] == '"' {
				var text string
				require.NoError(t, json.Unmarshal(want, &text))
				got, err := unquote(want)
				require.NoError(t, err)
				require.Equal(t, text, got)
			}
		}
	})
}
