package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// Columns say which columns of a table, or fields of its objects, mean what. "" means that there is none.
type Columns struct {
	Image    string   // name of the picture's file; required
	Captions []string // sentences; at least one. If there are several, each sentence's kind is its column's name
	ID       string   // becomes the image_id; else that is the picture's name. Lines with one id make one row
	Split    string
	Group    string
	Label    string
	Source   string
	Others   []string // become attributes
}

// all are the names, each with what it is for.
func (c *Columns) all() (names, uses []string) {
	add := func(name, use string) {
		if name != "" {
			names, uses = append(names, name), append(uses, use)
		}
	}
	add(c.Image, "picture")
	for _, name := range c.Captions {
		add(name, "caption")
	}
	add(c.ID, "id")
	add(c.Split, "split")
	add(c.Group, "group")
	add(c.Label, "label")
	add(c.Source, "source")
	for _, name := range c.Others {
		add(name, "attribute")
	}
	return names, uses
}

func (c *Columns) check() error {
	if c.Image == "" || len(c.Captions) == 0 {
		return fmt.Errorf("%w: the columns of the picture and of the caption must be named", ErrInput)
	}
	return nil
}

// picturesOf is the folder of a table's pictures: the one that is named, or else that in which the files lie.
func picturesOf(images string, files []File) (string, error) {
	if images != "" || len(files) == 0 {
		return images, nil
	}
	dir := filepath.Dir(files[0].Path)
	for _, f := range files {
		if filepath.Dir(f.Path) != dir {
			return "", fmt.Errorf("%w: the files lie in several folders, such as %s and %s: the pictures' folder must be named", ErrInput, dir, filepath.Dir(f.Path))
		}
	}
	return dir, nil
}

// entry makes an entry of the values of columns.
func (c *Columns) entry(pictures pictureFolder, split string, value func(name string) string, captions func(name string) []string) (entry, error) {
	var p entry
	var err error
	if p.file, err = pictures.below(value(c.Image)); err != nil {
		return p, fmt.Errorf("column %s: %w", c.Image, err)
	}
	optional := func(name, otherwise string) string {
		if name == "" {
			return otherwise
		}
		return value(name)
	}
	p.row.ImageID = optional(c.ID, p.file)
	p.row.Split = optional(c.Split, split)
	p.row.Group, p.row.Label, p.row.Source = optional(c.Group, ""), optional(c.Label, ""), optional(c.Source, "")
	for _, name := range c.Others {
		p.row.Attributes = append(p.row.Attributes, value(name))
	}
	for _, name := range c.Captions {
		kind := ""
		if len(c.Captions) > 1 {
			kind = name
		}
		for _, text := range captions(name) {
			if strings.TrimSpace(text) != "" {
				p.row.Captions = append(p.row.Captions, arrowset.Caption{Text: text, Kind: kind})
			}
		}
	}
	switch {
	case p.row.ImageID == "":
		return p, fmt.Errorf("%w: column %s is empty", ErrInput, c.ID)
	case p.row.Split == "":
		return p, fmt.Errorf("%w: column %s is empty", ErrInput, c.Split)
	case len(p.row.Captions) == 0:
		return p, fmt.Errorf("%w: column %s: the caption is empty", ErrInput, strings.Join(c.Captions, ", "))
	}
	return p, nil
}

// CSV imports tables of cells: comma- or tab-separated values, or what else Delimiter parts. The first line names the
// columns, unless Header does. Several lines of one picture, wherever they stand, make one row with their captions in
// order.
type CSV struct {
	Images    string // folder of the pictures, "" for that of the files; absolute names must lie in it
	Files     []File
	Delimiter string   // one byte; "" means a comma
	NoQuotes  bool     // quotation marks are text, as in most files of tab-separated values
	Header    []string // names of the columns, if the first line does not give them
	Columns   Columns
}

// Open is Importer's.
func (c CSV) Open(ctx context.Context, o *Options) (Source, error) {
	if err := c.Columns.check(); err != nil {
		return nil, err
	}
	var err error
	if c.Images, err = picturesOf(c.Images, c.Files); err != nil {
		return nil, err
	}
	o.Attributes = slices.Concat(o.Attributes, c.Columns.Others)
	return openEntries(ctx, o, c.Images, c.Files, func(f File) (entryReader, error) {
		l, err := openLines(f.Path)
		if err != nil {
			return nil, err
		}
		t, err := c.table(f, l)
		if err != nil {
			l.Close()
		}
		return t, err
	})
}

// table begins to read a file: its header.
func (c *CSV) table(f File, l *lines) (*tableReader, error) {
	r := &csvReader{lines: l, delimiter: ',', quotes: !c.NoQuotes}
	if len(c.Delimiter) > 1 {
		return nil, fmt.Errorf("%w: the delimiter %q is more than one byte", ErrInput, c.Delimiter)
	}
	if c.Delimiter != "" {
		r.delimiter = c.Delimiter[0]
	}
	header := c.Header
	if len(header) == 0 {
		cells, _, err := r.next()
		if err != nil {
			return nil, fmt.Errorf("%s: %w: the first line must name the columns (%w)", f.Path, ErrInput, err)
		}
		for _, name := range cells {
			header = append(header, strings.TrimSpace(strings.Clone(name)))
		}
	}
	t := &tableReader{csvReader: r, split: f.Split, columns: &c.Columns, pictures: pictureFolder(c.Images), index: map[string]int{}, width: len(header)}
	for i, name := range header {
		if _, twice := t.index[name]; !twice {
			t.index[name] = i
		}
	}
	names, uses := c.Columns.all()
	for i, name := range names {
		if _, ok := t.index[name]; !ok {
			return nil, fmt.Errorf("%s: %w: there is no column %q for the %s; the columns are %q", f.Path, ErrInput, name, uses[i], header)
		}
		if at := slices.Index(header, name); slices.Contains(header[at+1:], name) {
			return nil, fmt.Errorf("%s: %w: there are two columns %q", f.Path, ErrInput, name)
		}
	}
	return t, nil
}

// tableReader reads the entries of a table.
type tableReader struct {
	*csvReader
	split    string
	columns  *Columns
	pictures pictureFolder
	index    map[string]int
	width    int
}

func (t *tableReader) next() (entry, error) {
	cells, line, err := t.csvReader.next()
	if err != nil {
		return entry{}, err
	}
	where := t.where(line)
	if len(cells) != t.width {
		return entry{}, badRecord(where, "%d cells stand where there are %d columns", len(cells), t.width)
	}
	value := func(name string) string { return cells[t.index[name]] }
	p, err := t.columns.entry(t.pictures, t.split, value, func(name string) []string { return []string{value(name)} })
	if err != nil {
		return entry{}, &RecordError{where, err}
	}
	p.where = where
	return p, nil
}

// JSONL imports files with a JSON object on each line. A caption is a text or a list of texts; other values are texts or
// numbers.
type JSONL struct {
	Images  string // as of CSV
	Files   []File
	Columns Columns
}

// Open is Importer's.
func (j JSONL) Open(ctx context.Context, o *Options) (Source, error) {
	if err := j.Columns.check(); err != nil {
		return nil, err
	}
	var err error
	if j.Images, err = picturesOf(j.Images, j.Files); err != nil {
		return nil, err
	}
	o.Attributes = slices.Concat(o.Attributes, j.Columns.Others)
	return openEntries(ctx, o, j.Images, j.Files, func(f File) (entryReader, error) {
		l, err := openLines(f.Path)
		if err != nil {
			return nil, err
		}
		return &objectReader{l, f.Split, &j.Columns, pictureFolder(j.Images)}, nil
	})
}

// objectReader reads the entries of a file of JSON lines.
type objectReader struct {
	*lines
	split    string
	columns  *Columns
	pictures pictureFolder
}

func (r *objectReader) next() (entry, error) {
	for {
		where := r.where(r.line)
		text, err := r.lines.next()
		if err != nil {
			return entry{}, err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var object map[string]json.RawMessage
		if err := decodeText(text, &object); err != nil {
			return entry{}, badRecord(where, "it is not a JSON object: %v", err)
		}
		var fault error
		value := func(name string) string {
			v, err := scalar(object[name])
			if err != nil && fault == nil {
				fault = fmt.Errorf("%w: %s: %w", ErrInput, name, err)
			}
			return v
		}
		p, err := r.columns.entry(r.pictures, r.split, value, func(name string) []string {
			var texts []string
			if json.Unmarshal(object[name], &texts) == nil {
				return texts
			}
			return []string{value(name)}
		})
		if fault != nil {
			err = fault
		}
		if err != nil {
			return entry{}, &RecordError{where, err}
		}
		p.where = where
		return p, nil
	}
}

// scalar is the text of a JSON text or number; a number keeps the digits it was written with. Nothing and null are "".
func scalar(raw json.RawMessage) (string, error) {
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return "", nil
	case raw[0] == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		return string(raw), nil
	}
	return "", fmt.Errorf("%s is neither a text nor a number", clip(raw))
}
