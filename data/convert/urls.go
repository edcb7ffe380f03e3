package convert

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"diptych/data/arrowset"
	"diptych/internal/addr"
)

// Names say under which names a downloader has put the pictures of a list of addresses.
type Names struct {
	// Pattern is a name below the pictures' folder in which these stand for something: {row} the place in the list from 0,
	// {row:9} the same in nine digits, {crc32} (in decimals), {md5}, {sha1}, {sha256} the hash of the address, {base} its last
	// part, {name} a name that the list itself gives, {name:4} the first four letters of that. An ending .* stands for any
	// picture's.
	Pattern string
	// Mapping is a file of lines ADDRESS<TAB>NAME, which goes before Pattern; an address that it does not have is a bad record.
	Mapping string
}

// namer makes names.
type namer struct {
	parts []namePart
	// mapping has, for the hash of an address, where its line begins in file.
	mapping map[uint64]int64
	file    *lines
}

// namePart is a piece of text, or something that stands for another.
type namePart struct {
	text, variable string
	digits         int
}

func (n Names) open(variables ...string) (*namer, error) {
	m := &namer{}
	for rest := n.Pattern; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		m.parts = append(m.parts, namePart{text: text})
		if !found {
			break
		}
		variable, behind, closed := strings.Cut(after, "}")
		name, digits, sized := strings.Cut(variable, ":")
		p := namePart{variable: name}
		ok := closed
		for i := 0; ok && i <= len(variables); i++ {
			if i == len(variables) {
				ok = false
			} else if variables[i] == name {
				break
			}
		}
		if ok && sized {
			var err error
			p.digits, err = strconv.Atoi(digits)
			ok = err == nil && p.digits > 0 && p.digits <= 64 && (name == "row" || name == "name")
		}
		if !ok {
			return nil, fmt.Errorf("%w: names %q: {%s is none of {%s}, and only row and name take a number", ErrInput, n.Pattern, clip(after), strings.Join(variables, "}, {"))
		}
		m.parts = append(m.parts, p)
		rest = behind
	}
	if n.Mapping == "" {
		return m, nil
	}
	var err error
	if m.file, err = openLines(n.Mapping); err != nil {
		return nil, err
	}
	m.mapping = map[uint64]int64{}
	for {
		off, line := m.file.at()
		text, err := m.file.next()
		if err == io.EOF {
			return m, nil
		}
		url, name, ok := strings.Cut(string(text), "\t")
		if err == nil && len(text) > 0 && (!ok || name == "") {
			err = badRecord(m.file.where(line), "it must be ADDRESS, a tab, and the name of a file, not %q", clip(text))
		}
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		if len(text) > 0 {
			m.mapping[addr.Name(strings.TrimSpace(url))] = off
		}
	}
}

func (m *namer) close() error {
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// name returns the name of the picture of an address, or of the name that the list gives.
func (m *namer) name(row int, url, given string) (string, error) {
	if m.mapping != nil {
		off, ok := m.mapping[addr.Name(url)]
		if !ok {
			return "", fmt.Errorf("%w: %s is not in %s", ErrInput, clip(url), m.file.name)
		}
		m.file.seek(off, 0)
		text, err := m.file.next()
		if err != nil {
			return "", err
		}
		_, name, _ := strings.Cut(string(text), "\t")
		return localName(strings.TrimSpace(name))
	}
	var b strings.Builder
	for _, p := range m.parts {
		switch p.variable {
		case "":
			b.WriteString(p.text)
		case "row":
			fmt.Fprintf(&b, "%0*d", p.digits, row)
		case "crc32":
			fmt.Fprintf(&b, "%d", crc32.ChecksumIEEE([]byte(url)))
		case "md5":
			sum := md5.Sum([]byte(url))
			b.WriteString(hex.EncodeToString(sum[:]))
		case "sha1":
			sum := sha1.Sum([]byte(url))
			b.WriteString(hex.EncodeToString(sum[:]))
		case "sha256":
			sum := sha256.Sum256([]byte(url))
			b.WriteString(hex.EncodeToString(sum[:]))
		case "base":
			base, _, _ := strings.Cut(path.Base(url), "?")
			b.WriteString(base)
		case "name":
			letters := len(given)
			if p.digits > 0 {
				letters = min(p.digits, letters)
			}
			b.WriteString(given[:letters])
		}
	}
	return localName(b.String())
}

// urlVariables are what a Pattern may use where the list gives addresses.
var urlVariables = []string{"row", "crc32", "md5", "sha1", "sha256", "base"}

// CC imports Conceptual Captions: lines CAPTION<TAB>ADDRESS, and those of Conceptual 12M, ADDRESS<TAB>CAPTION. Further cells,
// as the labels of the files with labels, are left. The pictures lie in a folder, where a downloader has put them.
type CC struct {
	Images string
	Files  []File
	Names  Names
}

// Open is Importer's.
func (c CC) Open(ctx context.Context, o *Options) (Source, error) {
	names, err := c.Names.open(urlVariables...)
	if err != nil {
		return nil, err
	}
	src, err := openEntries(ctx, o, c.Images, c.Files, func(f File) (entryReader, error) {
		l, err := openLines(f.Path)
		if err != nil {
			return nil, err
		}
		return &ccReader{l, f.Split, names}, nil
	})
	if err != nil {
		return nil, errors.Join(err, names.close())
	}
	return closeBoth{src, names}, nil
}

// closeBoth closes the names with the source.
type closeBoth struct {
	Source
	names *namer
}

// Close is Source's.
func (c closeBoth) Close() error { return errors.Join(c.Source.Close(), c.names.close()) }

type ccReader struct {
	*lines
	split string
	names *namer
}

func (r *ccReader) next() (entry, error) {
	line := r.line
	raw, err := r.lines.next()
	if err != nil {
		return entry{}, err
	}
	e := entry{where: r.where(line)}
	cells := strings.Split(string(raw), "\t")
	if len(cells) < 2 {
		return e, badRecord(e.where, "it must be a caption, a tab, and an address, not %q", clip(raw))
	}
	text, url := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1])
	if isURL(text) && !isURL(url) {
		text, url = url, text
	}
	return urlEntry(e.where, line-1, r.split, text, url, r.names)
}

// urlEntry makes the entry of a caption and an address.
func urlEntry(where string, row int, split, text, url string, names *namer) (e entry, err error) {
	e.where = where
	switch {
	case !isURL(url):
		return e, badRecord(where, "%q is not an address", clip(url))
	case text == "":
		return e, badRecord(where, "the caption is empty")
	case !utf8.ValidString(text) || !utf8.ValidString(url):
		return e, &RecordError{where, errNotUTF8}
	}
	if e.file, err = names.name(row, url, ""); err != nil {
		return e, &RecordError{where, err}
	}
	e.row = arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: e.file, Split: split, Source: url}, Captions: []arrowset.Caption{{Text: text}}}
	return e, nil
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// SBU imports the SBU Captioned Photo Dataset in its three forms: an object with the arrays image_urls and captions
// (sbu-captions-all.json); two lists of lines, of addresses and of captions (SBU_captioned_photo_dataset_urls.txt and
// …_captions.txt); and an array of [NAME, CAPTION], as ViLT wants it, where {name} in Names.Pattern is NAME.
type SBU struct {
	Images         string
	File           string // JSON; or
	URLs, Captions string // lists of lines
	Split          string
	Names          Names // Pattern "" means {row}.*, and {name} for an array of names
}

// Open is Importer's.
func (s SBU) Open(_ context.Context, _ *Options) (_ Source, err error) {
	if (s.File == "") == (s.URLs == "") || (s.URLs == "") != (s.Captions == "") {
		return nil, fmt.Errorf("%w: either a JSON file or the two lists of addresses and of captions must be named", ErrInput)
	}
	if err := pictureFolder(s.Images).open(); err != nil {
		return nil, err
	}
	src := &sbuSource{SBU: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, src.Close())
		}
	}()
	variables, pattern := urlVariables, "{row}.*"
	switch {
	case s.File == "":
		urls, err := openLines(s.URLs)
		if err != nil {
			return nil, err
		}
		src.closers = append(src.closers, urls)
		captions, err := openLines(s.Captions)
		if err != nil {
			return nil, err
		}
		src.closers = append(src.closers, captions)
		src.each, src.part = twoLists(lineOf(urls), lineOf(captions)), captions
	default:
		// An array, or else an object.
		pairs, err := openJSONList(s.File, "")
		if err == nil {
			src.closers, src.named = append(src.closers, pairs), true
			src.each, src.part = pairOf(pairs), pairs
			variables, pattern = []string{"row", "name"}, "{name}"
			break
		}
		urls, err := openJSONList(s.File, "image_urls")
		if err != nil {
			return nil, err
		}
		src.closers = append(src.closers, urls)
		captions, err := openJSONList(s.File, "captions")
		if err != nil {
			return nil, err
		}
		src.closers = append(src.closers, captions)
		src.each, src.part = twoLists(textOf(urls), textOf(captions)), captions
		if urls.begin > captions.begin {
			src.part = urls
		}
	}
	if s.Names.Pattern == "" {
		s.Names.Pattern = pattern
	}
	if src.names, err = s.Names.open(variables...); err != nil {
		return nil, err
	}
	return src, nil
}

type sbuSource struct {
	SBU
	each    func() (url, caption, where string, err error)
	named   bool // url is a name
	names   *namer
	row     int
	closers []io.Closer
	part    partSource // the list that comes last in its file
}

// Part is Progress's.
func (s *sbuSource) Part() float64 { return s.part.Part() }

// Next is Source's.
func (s *sbuSource) Next() (*Record, error) {
	url, text, where, err := s.each()
	row := s.row
	s.row++
	if err != nil {
		return nil, err
	}
	text = strings.TrimSpace(text)
	var e entry
	switch {
	case !s.named:
		e, err = urlEntry(where, row, s.Split, text, strings.TrimSpace(url), s.names)
	case text == "":
		err = badRecord(where, "the caption is empty")
	default:
		if e.file, err = s.names.name(row, url, url); err != nil {
			return nil, &RecordError{where, err}
		}
		e.row = arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: e.file, Split: s.Split}, Captions: []arrowset.Caption{{Text: text}}}
	}
	if err != nil {
		return nil, err
	}
	return &Record{Row: e.row, Where: where, Load: pictureFolder(s.Images).load(e.file)}, nil
}

// Close is Source's.
func (s *sbuSource) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	if s.names != nil {
		errs = append(errs, s.names.close())
	}
	return errors.Join(errs...)
}

func lineOf(l *lines) func() (string, string, error) {
	return func() (string, string, error) {
		where := l.where(l.line)
		text, err := l.next()
		return string(text), where, err
	}
}

func textOf(l *jsonList) func() (string, string, error) {
	return func() (string, string, error) {
		var text string
		where, err := l.next(&text)
		return text, where, err
	}
}

func pairOf(l *jsonList) func() (string, string, string, error) {
	return func() (name, text, where string, err error) {
		var p []string
		if where, err = l.next(&p); err == nil && len(p) != 2 {
			err = badRecord(where, "it must be [NAME, CAPTION], not %d texts", len(p))
		}
		if err != nil {
			return "", "", where, err
		}
		return p[0], p[1], where, nil
	}
}

// twoLists reads two lists side by side, which must be equally long.
func twoLists(a, b func() (string, string, error)) func() (string, string, string, error) {
	return func() (string, string, string, error) {
		url, where, err := a()
		text, other, err2 := b()
		if (err == io.EOF) != (err2 == io.EOF) {
			return "", "", where, fmt.Errorf("%w: one list ends at %s, the other goes on at %s", ErrInput, where, other)
		}
		if err == nil {
			err = err2
		}
		return url, text, where, err
	}
}
