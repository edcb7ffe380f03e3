package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// This file imports sentences about pictures with a class each, from files of JSON lines. The class is the caption's answer.

// SNLIVE imports SNLI-VE (Xie et al. 2019; github.com/necla-ml/SNLI-VE): lines of {"Flickr30K_ID", "sentence2", "gold_label"}. A row
// is a picture of Flickr30k, ID.jpg, with its hypotheses, whose answers are entailment, neutral or contradiction.
type SNLIVE struct {
	Images string // folder of the pictures
	Files  []File // a split's name is the file's, or what its name says, as in snli_ve_train.jsonl
}

// Open is Importer's.
func (s SNLIVE) Open(ctx context.Context, o *Options) (Source, error) {
	return openClassed(ctx, o, s.Images, s.Files, func(raw []byte) (e entry, err error) {
		var line struct {
			Picture json.RawMessage `json:"Flickr30K_ID"`
			Older   json.RawMessage `json:"Flikr30kID"` // of early files
			Text    string          `json:"sentence2"`
			Label   string          `json:"gold_label"`
		}
		if err := decodeText(raw, &line); err != nil {
			return e, err
		}
		if len(line.Picture) == 0 {
			line.Picture = line.Older
		}
		id, err := scalar(line.Picture)
		if err != nil || id == "" {
			return e, fmt.Errorf("Flickr30K_ID is %q; it must be the number of a picture", clip(line.Picture))
		}
		if line.Label != "entailment" && line.Label != "neutral" && line.Label != "contradiction" {
			return e, fmt.Errorf("gold_label is %q; it must be entailment, neutral or contradiction", clip(line.Label))
		}
		e.file = strings.TrimSuffix(id, ".jpg") + ".jpg"
		e.row.ImageID = e.file
		e.row.Captions = []arrowset.Caption{{Text: line.Text, Answer: line.Label}}
		return e, nil
	})
}

var patternVariable = regexp.MustCompile(`\{[^}]*\}?`)

// checkPattern refuses a pattern of pictures' names with a variable that is not known, or without one of those that tell pictures apart.
func checkPattern(pattern string, needed []string, others ...string) error {
	known := slices.Concat(needed, others)
	for _, v := range patternVariable.FindAllString(pattern, -1) {
		if !slices.Contains(known, v) {
			return fmt.Errorf("%w: names %q: %s is unknown; known: %s", ErrInput, pattern, v, strings.Join(known, ", "))
		}
	}
	for _, v := range needed {
		if !strings.Contains(pattern, v) {
			return fmt.Errorf("%w: names %q: %s is missing, so that different pictures would have one name", ErrInput, pattern, v)
		}
	}
	return nil
}

// NLVR2 imports NLVR2 (Suhr et al. 2019; github.com/lil-lab/nlvr): lines of {"identifier", "sentence", "label", "directory"}. A row is
// a pair of pictures, named by the identifier without its last part, with the sentences about it, whose answers are True or False.
// Its group is the set of eight pictures that it comes from.
type NLVR2 struct {
	Images string // folder of the pictures
	Files  []File
	// Pattern is how the pictures of a pair are named: {split} is the first part of the identifier, {directory} that field, which
	// only train has, {pair} the name of the row, and {n} 0 for the left picture, 1 for the right.
	Pattern string
}

// Open is Importer's.
func (n NLVR2) Open(ctx context.Context, o *Options) (Source, error) {
	if err := checkPattern(n.Pattern, []string{"{pair}", "{n}"}, "{split}", "{directory}"); err != nil {
		return nil, err
	}
	o.Optional = append(o.Optional[:len(o.Optional):len(o.Optional)], arrowset.ColSecondImage)
	return openClassed(ctx, o, n.Images, n.Files, func(raw []byte) (e entry, err error) {
		line, err := parseNLVR(raw)
		if err != nil {
			return e, err
		}
		parts := strings.Split(line.Identifier, "-")
		if len(parts) != 4 {
			return e, fmt.Errorf("identifier is %q; it must be SPLIT-SET-PAIR-SENTENCE", clip(line.Identifier))
		}
		e.row.ImageID, e.row.Group = strings.Join(parts[:3], "-"), strings.Join(parts[:2], "-")
		name := func(number string) string {
			return path.Clean(strings.NewReplacer("{split}", parts[0], "{directory}", line.directory, "{pair}", e.row.ImageID, "{n}", number).Replace(n.Pattern))
		}
		e.file, e.second = name("0"), name("1")
		e.row.Captions = []arrowset.Caption{line.caption()}
		return e, nil
	})
}

// NLVR imports NLVR, the first (Suhr et al. 2017; github.com/lil-lab/nlvr): lines of {"identifier", "sentence", "label", "directory"}. Of
// every line six rows are made, its pictures with the three boxes in each of their orders. Rows whose sentence was written of the
// same four pictures make a group: the first part of the identifier says it.
type NLVR struct {
	Images string // folder of the pictures
	Files  []File
	// Pattern is how pictures are named: {split} is the file's split, {directory} and {identifier} are those fields, and {n} is the
	// number of the order, 0 to 5.
	Pattern string
}

// orders is the number of pictures of a line of NLVR.
const orders = 6

// Open is Importer's.
func (n NLVR) Open(_ context.Context, o *Options) (Source, error) {
	if err := checkPattern(n.Pattern, []string{"{identifier}", "{n}"}, "{split}", "{directory}"); err != nil {
		return nil, err
	}
	if err := pictureFolder(n.Images).open(); err != nil {
		return nil, err
	}
	if len(n.Files) == 0 {
		return nil, fmt.Errorf("%w: no file is named", ErrInput)
	}
	o.Optional = append(o.Optional[:len(o.Optional):len(o.Optional)], arrowset.ColCaptionAnswer)
	return &nlvrSource{NLVR: n}, nil
}

// nlvrSource reads the files one after the other.
type nlvrSource struct {
	NLVR
	file  int
	lines *lines // of the file, nil before it is opened
	split string
	line  *nlvrLine // whose rows are being returned
	next  int       // of its orders
	where string
}

// Next is Source's.
func (s *nlvrSource) Next() (*Record, error) {
	for s.line == nil {
		if s.lines == nil {
			if s.file == len(s.Files) {
				return nil, io.EOF
			}
			var err error
			if s.lines, err = openLines(s.Files[s.file].Path); err != nil {
				return nil, err
			}
			s.split = splitOfFile(s.Files[s.file])
		}
		s.where = s.lines.where(s.lines.line)
		raw, err := s.lines.next()
		if err == io.EOF {
			err = s.lines.Close()
			s.lines, s.file = nil, s.file+1
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		line, err := parseNLVR(raw)
		if err != nil {
			return nil, &RecordError{s.where, err}
		}
		s.line, s.next = line, 0
	}
	l, k := s.line, fmt.Sprint(s.next)
	if s.next++; s.next == orders {
		s.line = nil
	}
	name, err := localName(path.Clean(strings.NewReplacer("{split}", s.split, "{directory}", l.directory, "{identifier}", l.Identifier, "{n}", k).Replace(s.Pattern)))
	if err != nil {
		return nil, &RecordError{s.where, err}
	}
	set, _, _ := strings.Cut(l.Identifier, "-")
	return &Record{Where: s.where + ", picture " + k, Load: pictureFolder(s.Images).load(name), Row: arrowset.Row{
		RowMeta:  arrowset.RowMeta{ImageID: name, Split: s.split, Group: s.split + "-" + set},
		Captions: []arrowset.Caption{l.caption()},
	}}, nil
}

// Close is io.Closer's.
func (s *nlvrSource) Close() error {
	if s.lines == nil {
		return nil
	}
	return s.lines.Close()
}

// nlvrLine is a line of NLVR and NLVR2.
type nlvrLine struct {
	Identifier string          `json:"identifier"`
	Sentence   string          `json:"sentence"`
	Label      json.RawMessage `json:"label"`
	Directory  json.RawMessage `json:"directory"`

	answer, directory string
}

func (l *nlvrLine) caption() arrowset.Caption {
	return arrowset.Caption{Text: l.Sentence, Answer: l.answer}
}

// parseNLVR reads a line.
func parseNLVR(raw []byte) (*nlvrLine, error) {
	l := new(nlvrLine)
	if err := decodeText(raw, l); err != nil {
		return nil, err
	}
	switch label := strings.ToLower(strings.Trim(string(l.Label), `"`)); label {
	case "true":
		l.answer = "True"
	case "false":
		l.answer = "False"
	default:
		return nil, fmt.Errorf("label is %q; it must be true or false", clip(l.Label))
	}
	if l.Identifier == "" || strings.TrimSpace(l.Sentence) == "" {
		return nil, fmt.Errorf("identifier %q, sentence %q: both must be there", clip(l.Identifier), clip(l.Sentence))
	}
	var err error
	if l.directory, err = scalar(l.Directory); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	return l, nil
}

// splitOfFile is the split that is said of a file, or else what its name says.
func splitOfFile(f File) string {
	if f.Split != "" {
		return f.Split
	}
	return splitOfName(f.Path)
}

// openClassed reads files of JSON lines of which parse makes entries; it leaves the split, and the check of what all must have.
func openClassed(ctx context.Context, o *Options, images string, files []File, parse func(raw []byte) (entry, error)) (Source, error) {
	o.Optional = append(o.Optional[:len(o.Optional):len(o.Optional)], arrowset.ColCaptionAnswer)
	return openEntries(ctx, o, images, files, func(f File) (entryReader, error) {
		l, err := openLines(f.Path)
		if err != nil {
			return nil, err
		}
		return &classedReader{l, splitOfFile(f), parse}, nil
	})
}

// classedReader reads the entries of a file of JSON lines.
type classedReader struct {
	*lines
	split string
	parse func(raw []byte) (entry, error)
}

func (r *classedReader) next() (entry, error) {
	for {
		where := r.where(r.line)
		raw, err := r.lines.next()
		if err != nil {
			return entry{}, err
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		e, err := r.parse(raw)
		for _, name := range []*string{&e.file, &e.second} {
			if err == nil && *name != "" {
				*name, err = localName(*name)
			}
		}
		if err == nil && strings.TrimSpace(e.row.Captions[0].Text) == "" {
			err = errors.New("the sentence is empty")
		}
		if err != nil {
			return entry{}, &RecordError{where, err}
		}
		e.where, e.row.Split = where, r.split
		return e, nil
	}
}
