package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"diptych/data/arrowset"
)

// In files with typed columns, a name of Columns is that of a column or, with dots, of a member of a structure, such as
// image.bytes; levels that only make a list have no name. The picture is bytes, a structure with bytes and path as Hugging Face
// writes it, or a path below the pictures' folder. A caption is a text or a list of texts, or a structure with one such member.
// usualNames are what "" stands for here: the first of them that there is, and nothing if there is none.
var usualNames = map[string][]string{
	"image":   {"image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "image_path", "file_path", "filepath", "file_name", "filename", "path"},
	"caption": {"caption", "captions", "text", "texts", "txt", "sentence", "sentences"},
	"id":      {arrowset.ColImageID, "id", "key", "__key__"},
	"split":   {arrowset.ColSplit},
	"group":   {arrowset.ColGroup},
	"label":   {arrowset.ColLabel},
	"source":  {arrowset.ColSource, "url", "coco_url"},
}

// leaf is a column of values: a column of the file, or a member of one that is a structure.
type leaf struct {
	name     string
	kind     leafKind
	typ      string // what messages call it
	repeated bool
}

type leafKind uint8

const (
	leafOther  leafKind = iota // not read
	leafBytes                  // as they are
	leafText                   // UTF-8
	leafNumber                 // an integer, a fraction or a truth value, read as text
)

// value is one value of a leaf: its bytes, which the receiver owns, or where they lie in the file as they are.
type value struct {
	b  []byte
	at span
}

// table is a file of rows and columns.
type table interface {
	leaves() []leaf
	classNames() map[string][]string // of columns that hold numbers of classes
	choose(leaves []int)             // what next shall return; called once, before it
	next() ([][]value, error)        // the values of the next row, those that are there; io.EOF at the end
	where() string                   // which row that was
}

// tableFormat opens files of one format.
type tableFormat func(f *os.File, size int64) (table, error)

// openTables makes a source of the rows of several files; pictures is the folder of paths, "" that of the file.
func openTables(files []File, pictures string, c Columns, o *Options, format tableFormat) (Source, error) {
	s := &tableSource{Columns: c, pictures: pictures, format: format}
	stems := map[string]bool{}
	for _, f := range files {
		names, err := expandNames([]string{f.Path})
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			s.files = append(s.files, File{f.Split, name})
			s.sameStem = s.sameStem || stems[fileStem(name)]
			stems[fileStem(name)] = true
		}
	}
	if len(s.files) == 0 {
		return nil, fmt.Errorf("%w: no file is named", ErrInput)
	}
	for _, a := range c.Others {
		if !slices.Contains(o.Attributes, a) {
			o.Attributes = append(slices.Clip(o.Attributes), a)
		}
	}
	s.attributes = o.Attributes
	// Every file is opened once before a row is written: a wrong column in the last one must not cost the work on the others.
	for _, f := range s.files {
		if err := s.open(f); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		s.size += s.current
		if counted, ok := s.table.(interface{ rows() int }); ok {
			o.Total += counted.rows()
		}
		s.closeFile()
	}
	return s, nil
}

// tableSource reads the files one after the other.
type tableSource struct {
	Columns
	pictures   string
	files      []File
	format     tableFormat
	attributes []string
	sameStem   bool  // two files have one name, in different folders
	size       int64 // of all files

	file    int // the next one
	table   table
	f       *os.File
	name    string
	split   string
	dir     pictureFolder
	row     int     // of the file
	done    int64   // bytes of the files before
	current int64   // bytes of this one
	ahead   *rowAnd // was read and belongs to the next record
	fault   error   // likewise

	chosen                           []int
	bytes, path                      int // places in chosen, -1 if there is none
	captions                         []int
	id, splits, group, label, source int
	others                           []int
}

// splitWord finds the split in a file's name.
var splitWord = regexp.MustCompile(`(?i)(?:^|[^a-z0-9])(train|restval|val|valid|validation|dev|test)(?:[^a-z]|$)`)

// splitOfName is the split that the name of a file says, train if it says none.
func splitOfName(name string) string {
	if m := splitWord.FindStringSubmatch(filepath.Base(name)); m != nil {
		return strings.ToLower(m[1])
	}
	return "train"
}

func (s *tableSource) open(file File) error {
	f, err := os.Open(file.Path)
	if err != nil {
		return err
	}
	s.f, s.name, s.row = f, file.Path, 0
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is not a file", ErrInput)
	}
	if err == nil {
		s.table, err = s.format(f, info.Size())
	}
	if err == nil {
		s.current = info.Size()
		err = s.columns()
	}
	if err != nil {
		s.closeFile()
		return err
	}
	s.table.choose(s.chosen)
	if s.split = file.Split; s.split == "" {
		s.split = splitOfName(s.name)
	}
	if s.dir = pictureFolder(s.pictures); s.dir == "" {
		s.dir = pictureFolder(filepath.Dir(s.name))
	}
	return nil
}

func (s *tableSource) closeFile() {
	if s.f != nil {
		s.f.Close() // opened for reading
	}
	s.f, s.table = nil, nil
}

// columns finds the columns of the file.
func (s *tableSource) columns() error {
	leaves := s.table.leaves()
	var errs []error
	var known []string
	for _, l := range leaves {
		list := ""
		if l.repeated {
			list = "list of "
		}
		if len(known) < 40 {
			known = append(known, fmt.Sprintf("%s (%s%s)", l.name, list, l.typ))
		}
	}
	s.chosen = nil
	pick := func(at int) int {
		if k := slices.Index(s.chosen, at); k >= 0 {
			return k
		}
		s.chosen = append(s.chosen, at)
		return len(s.chosen) - 1
	}
	leafOf := func(name string) int { return slices.IndexFunc(leaves, func(l leaf) bool { return l.name == name }) }
	// text is the leaf of texts or numbers that a name means: the leaf of that name, or the only text in a structure.
	text := func(name string) int {
		if at := leafOf(name); at >= 0 {
			return at
		}
		found := -1
		for i, l := range leaves {
			if strings.HasPrefix(l.name, name+".") && l.kind == leafText {
				if found >= 0 {
					return -1
				}
				found = i
			}
		}
		return found
	}
	find := func(what, name string) int {
		candidates := []string{name}
		if name == "" {
			candidates = usualNames[what]
		}
		for _, c := range candidates {
			at := text(c)
			switch {
			case at < 0 && name == "":
			case at < 0:
				errs = append(errs, fmt.Errorf("%w: no column %q for the %s; there are %s", ErrInput, c, what, strings.Join(known, ", ")))
			case leaves[at].kind == leafOther && name != "", leaves[at].kind == leafOther && what == "caption":
				errs = append(errs, fmt.Errorf("%w: column %q, for the %s, has type %s, which is not read; write it as text", ErrInput, c, what, leaves[at].typ))
			case leaves[at].kind == leafOther:
			case leaves[at].repeated && what != "caption" && name != "":
				errs = append(errs, fmt.Errorf("%w: column %q, for the %s, holds lists", ErrInput, c, what))
			case leaves[at].repeated && what != "caption":
			default:
				return pick(at)
			}
		}
		return -1
	}
	s.bytes, s.path = -1, -1
	images := []string{s.Image}
	if s.Image == "" {
		images = usualNames["image"]
	}
	for _, name := range images {
		at, b, p := leafOf(name), leafOf(name+".bytes"), leafOf(name+".path")
		switch {
		case at >= 0 && leaves[at].kind == leafBytes && !leaves[at].repeated:
			s.bytes = pick(at)
		case at >= 0 && leaves[at].kind == leafText && !leaves[at].repeated:
			s.path = pick(at)
		case at < 0 && b >= 0 && leaves[b].kind == leafBytes && !leaves[b].repeated:
			if s.bytes = pick(b); p >= 0 && leaves[p].kind == leafText {
				s.path = pick(p)
			}
		case at < 0 && p >= 0 && leaves[p].kind == leafText && !leaves[p].repeated:
			s.path = pick(p)
		default:
			continue
		}
		break
	}
	if s.bytes < 0 && s.path < 0 {
		errs = append(errs, fmt.Errorf("%w: no column of pictures (%s: bytes, {bytes, path}, or a path); there are %s", ErrInput, strings.Join(images, ", "), strings.Join(known, ", ")))
	}
	s.captions = nil
	if len(s.Columns.Captions) == 0 {
		if at := find("caption", ""); at >= 0 {
			s.captions = []int{at}
		}
	}
	for _, name := range s.Columns.Captions {
		s.captions = append(s.captions, find("caption", name))
	}
	s.id, s.splits, s.group = find("id", s.ID), find("split", s.Split), find("group", s.Group)
	s.label, s.source = find("label", s.Label), find("source", s.Source)
	s.others = nil
	for _, name := range s.Others {
		s.others = append(s.others, find("attribute", name))
	}
	if len(s.captions) == 0 && s.label < 0 {
		errs = append(errs, fmt.Errorf("%w: no column of sentences (%s) and none of labels; there are %s", ErrInput, strings.Join(usualNames["caption"], ", "), strings.Join(known, ", ")))
	}
	return errors.Join(errs...)
}

// rowAnd is a record with what says whether the next row belongs to it.
type rowAnd struct {
	*Record
	named bool // its id stands in a column for ids
	size  int64
	path  string
}

// Next is Source's. Rows that follow each other and have one id, one picture and one split, group and label make one record
// with all their captions: so files come that hold a row for every sentence.
func (s *tableSource) Next() (*Record, error) {
	first := s.ahead
	if s.ahead = nil; first == nil {
		var err error
		if first, err = s.next(); err != nil {
			return nil, err
		}
	}
	for first.named && s.table != nil {
		r, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			s.fault = err
			break
		}
		a, b := &first.Row, &r.Row
		if a.ImageID != b.ImageID || a.Split != b.Split || a.Group != b.Group || a.Label != b.Label || first.size != r.size || first.path != r.path ||
			!bytes.Equal(a.Image, b.Image) {
			s.ahead = r
			break
		}
		a.Captions = append(a.Captions, b.Captions...)
	}
	return first.Record, nil
}

// next returns the next row of any file.
func (s *tableSource) next() (*rowAnd, error) {
	if err := s.fault; err != nil {
		s.fault = nil
		return nil, err
	}
	for {
		if s.table == nil {
			if s.file == len(s.files) {
				return nil, io.EOF
			}
			if err := s.open(s.files[s.file]); err != nil {
				return nil, fmt.Errorf("%s: %w", s.files[s.file].Path, err)
			}
			s.file++
		}
		values, err := s.table.next()
		if err == io.EOF {
			s.done += s.current
			s.closeFile()
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		s.row++
		return s.record(values)
	}
}

// Part is the share of the input that was read.
func (s *tableSource) Part() float64 {
	if s.file == len(s.files) && s.table == nil {
		return 1
	}
	return float64(s.done) / float64(max(s.size, 1))
}

// Close is Source's.
func (s *tableSource) Close() error {
	s.closeFile()
	return nil
}

// record makes a record of the values of the chosen leaves.
func (s *tableSource) record(values [][]value) (*rowAnd, error) {
	where := s.name + ": " + s.table.where()
	first := func(k int) string {
		if k < 0 || len(values[k]) == 0 {
			return ""
		}
		return string(values[k][0].b)
	}
	// named is first, with the name of the class if the column holds numbers of classes.
	named := func(k int) string {
		text := first(k)
		if k >= 0 {
			if names := s.table.classNames()[s.table.leaves()[s.chosen[k]].name]; names != nil {
				if i, err := strconv.Atoi(text); err == nil && i >= 0 && i < len(names) {
					return names[i]
				}
			}
		}
		return text
	}
	rec := &rowAnd{Record: &Record{Where: where}, named: s.id >= 0}
	r := &rec.Row
	r.ImageID, r.Split, r.Group, r.Label, r.Source = first(s.id), s.split, named(s.group), named(s.label), first(s.source)
	if split := named(s.splits); split != "" && s.files[s.file-1].Split == "" {
		r.Split = split
	}
	r.Attributes = make([]string, len(s.attributes))
	for i, k := range s.others {
		r.Attributes[slices.Index(s.attributes, s.Others[i])] = named(k)
	}
	for i, k := range s.captions {
		kind := ""
		if len(s.captions) > 1 {
			kind = s.Columns.Captions[i]
		}
		for _, v := range values[k] {
			if text := string(v.b); strings.TrimSpace(text) != "" {
				r.Captions = append(r.Captions, arrowset.Caption{Text: text, Kind: kind})
			}
		}
	}
	if len(r.Captions) == 0 && r.Label == "" {
		return nil, badRecord(where, "%w: there is neither a sentence nor a label", ErrInput)
	}
	path := first(s.path)
	if r.ImageID == "" && path != "" {
		r.ImageID = filepath.ToSlash(path)
	}
	if r.ImageID == "" {
		if r.ImageID = fmt.Sprintf("%s-%08d", fileStem(s.name), s.row-1); s.sameStem {
			r.ImageID = fmt.Sprintf("%d-%s", s.file-1, r.ImageID)
		}
	}
	switch {
	case s.bytes >= 0 && len(values[s.bytes]) > 0:
		v := values[s.bytes][0]
		rec.size = v.at.len
		if v.at.len == 0 {
			r.Image = v.b
			break
		}
		if v.at.len > maxPicture {
			return nil, badRecord(where, "%w: %s: the picture has %d bytes; at most %d are possible", ErrInput, r.ImageID, v.at.len, maxPicture)
		}
		rec.Load = loadRange(s.name, v.at)
	case path != "":
		name, err := localName(filepath.ToSlash(path))
		if err != nil {
			return nil, badRecord(where, "%w", err)
		}
		rec.path, rec.Load = name, s.dir.load(name)
	default:
		return nil, badRecord(where, "%w: %s: the picture is missing: the column is null here", ErrInput, r.ImageID)
	}
	return rec, nil
}

// fileStem is the name of a file without folder and suffix.
func fileStem(name string) string {
	base := filepath.Base(name)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// classNames reads the names of the classes that a column's numbers stand for out of what Hugging Face's library writes
// beside the schema; what it does not understand, it leaves out.
func classNames(text string) map[string][]string {
	var meta struct {
		Info struct {
			Features map[string]json.RawMessage `json:"features"`
		} `json:"info"`
	}
	if json.Unmarshal([]byte(text), &meta) != nil {
		return nil
	}
	all := map[string][]string{}
	for column, raw := range meta.Info.Features {
		var f struct {
			Type  string   `json:"_type"`
			Names []string `json:"names"`
		}
		if json.Unmarshal(raw, &f) == nil && f.Type == "ClassLabel" {
			all[column] = f.Names
		}
	}
	return all
}
