package convert

import (
	"context"
	"path"
	"strings"

	"diptych/data/arrowset"
)

// Karpathy imports the files of Karpathy and Fei-Fei 2015, dataset_coco.json, dataset_flickr30k.json and
// dataset_flickr8k.json: an object with an array images of {"filepath", "filename", "split", "sentences": [{"raw"}]}. Only
// COCO's has filepath, train2014 or val2014, and a split restval: what is left of COCO's validation pictures.
type Karpathy struct {
	Images  string // folder of the pictures; for COCO the one with train2014 and val2014
	File    string
	Restval string // split that restval becomes; "" leaves these pictures out. Papers since VSE++ train on them
}

type karpathyImage struct {
	FilePath  string `json:"filepath"`
	FileName  string `json:"filename"`
	Split     string `json:"split"`
	Sentences []struct {
		Raw    string   `json:"raw"`
		Tokens []string `json:"tokens"`
	} `json:"sentences"`
}

// Open is Importer's.
func (k Karpathy) Open(_ context.Context, _ *Options) (Source, error) {
	if err := pictureFolder(k.Images).open(); err != nil {
		return nil, err
	}
	l, err := openJSONList(k.File, "images")
	if err != nil {
		return nil, err
	}
	return &karpathySource{l, k}, nil
}

type karpathySource struct {
	*jsonList
	Karpathy
}

// Next is Source's.
func (s *karpathySource) Next() (*Record, error) {
	for {
		var im karpathyImage
		where, err := s.next(&im)
		if err != nil {
			return nil, err
		}
		name, err := localName(path.Join(im.FilePath, im.FileName))
		if err != nil || im.FileName == "" {
			return nil, badRecord(where, "filename %q is not the name of a file below the pictures' folder", im.FileName)
		}
		r := arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: name, Split: im.Split}}
		switch {
		case im.Split == "":
			return nil, badRecord(where, "%s has no split", name)
		case im.Split == "restval" && s.Restval == "":
			continue
		case im.Split == "restval":
			r.Split = s.Restval
		}
		for i, sentence := range im.Sentences {
			text := strings.TrimSpace(sentence.Raw)
			if text == "" {
				text = strings.Join(sentence.Tokens, " ")
			}
			if text == "" {
				return nil, badRecord(where, "sentence %d of %s is empty", i, name)
			}
			r.Captions = append(r.Captions, arrowset.Caption{Text: text})
		}
		if len(r.Captions) == 0 {
			return nil, badRecord(where, "%s has no sentences", name)
		}
		return &Record{Row: r, Where: where, Load: pictureFolder(s.Images).load(name)}, nil
	}
}

// Flickr imports the token files of Flickr30k and Flickr8k, IMAGE#NUMBER<TAB>CAPTION, and the tables that go round in their
// place: "image_name| comment_number| comment", "image,caption" and "image_name,comment_number,comment", told apart by the
// first line.
type Flickr struct {
	Images string // folder of the pictures
	Files  []File
	Lists  []File // lists of the pictures of a split, one a line, with or without ending; without lists, Files say the split
	Rest   string // with lists: split of the pictures that are in none; "" leaves them out
}

// Open is Importer's.
func (f Flickr) Open(ctx context.Context, o *Options) (Source, error) {
	var splits map[string]string
	for _, list := range f.Lists {
		if splits == nil {
			splits = map[string]string{}
		}
		if err := readList(list, splits); err != nil {
			return nil, err
		}
	}
	return openEntries(ctx, o, f.Images, f.Files, func(file File) (entryReader, error) {
		l, err := openLines(file.Path)
		if err != nil {
			return nil, err
		}
		r, err := newFlickrReader(l)
		if err != nil {
			l.Close()
			return nil, err
		}
		r.pictures, r.split, r.splits, r.rest = pictureFolder(f.Images), file.Split, splits, f.Rest
		return r, nil
	})
}

// readList adds the pictures of a list to splits.
func readList(list File, splits map[string]string) error {
	l, err := openLines(list.Path)
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		where := l.where(l.line)
		text, err := l.next()
		if err != nil {
			return ignoreEOF(err)
		}
		name := strings.TrimSpace(string(text))
		if name == "" {
			continue
		}
		name = stem(name)
		if before, twice := splits[name]; twice && before != list.Split {
			return badRecord(where, "picture %s is also in the list of split %s", name, before)
		}
		splits[name] = list.Split
	}
}

// stem is a picture's name without its ending.
func stem(name string) string {
	if isPicture(name) {
		return strings.TrimSuffix(name, path.Ext(name))
	}
	return name
}

// flickrReader reads the entries of a token file or of a table in its place.
type flickrReader struct {
	csvReader
	form     byte // '#' for tokens, else the delimiter of a table
	width    int  // cells of a table's header
	pictures pictureFolder
	split    string
	splits   map[string]string // nil if there are no lists
	rest     string
}

func newFlickrReader(l *lines) (*flickrReader, error) {
	r := &flickrReader{csvReader: csvReader{lines: l, delimiter: ',', quotes: true}, form: '#'}
	off, line := l.at()
	head, err := l.next()
	if err != nil && ignoreEOF(err) != nil {
		return nil, err
	}
	first := string(head)
	if strings.HasPrefix(first, "image") && !strings.Contains(first, "#") {
		switch {
		case strings.Contains(first, "|"):
			r.form, r.width = '|', 3
		case strings.Count(first, ",") == 1 || strings.Count(first, ",") == 2:
			r.form, r.width = ',', 1+strings.Count(first, ",")
		}
	}
	if r.form == '#' {
		l.seek(off, line)
	}
	return r, nil
}

func (r *flickrReader) next() (entry, error) {
	for {
		name, text, line, err := r.line()
		if err != nil {
			return entry{}, err
		}
		if name == "" && text == "" {
			continue
		}
		e := entry{where: r.where(line)}
		if e.file, err = localName(name); err != nil {
			return e, &RecordError{e.where, err}
		}
		if text == "" {
			return e, badRecord(e.where, "the caption of %s is empty", name)
		}
		e.row.ImageID, e.row.Split, e.row.Captions = e.file, r.split, []arrowset.Caption{{Text: text}}
		if r.splits != nil {
			split, ok := r.splits[stem(e.file)]
			if !ok {
				split = r.rest
			}
			if e.row.Split = split; split == "" {
				continue
			}
		}
		return e, nil
	}
}

// line returns the picture and the caption of a line, two empty texts for an empty line.
func (r *flickrReader) line() (name, text string, line int, err error) {
	line = r.lines.line
	if r.form == ',' {
		cells, line, err := r.csvReader.next()
		if err != nil {
			return "", "", line, err
		}
		if len(cells) < r.width {
			return "", "", line, badRecord(r.where(line), "%d cells stand where there are %d columns", len(cells), r.width)
		}
		// A caption with commas that was not put in quotes goes on in the cells behind it.
		return cells[0], strings.TrimSpace(strings.Join(cells[r.width-1:], ",")), line, nil
	}
	raw, err := r.lines.next()
	if err != nil {
		return "", "", line, err
	}
	whole := strings.TrimSpace(string(raw))
	if whole == "" {
		return "", "", line, nil
	}
	if r.form == '|' {
		cells := strings.SplitN(whole, "|", 3)
		if len(cells) == 2 { // one line of the published results.csv lacks its second bar: "2199200615.jpg| 4   A dog runs across the grass ."
			number, rest, ok := strings.Cut(strings.TrimSpace(cells[1]), " ")
			if ok && len(number) == 1 && number[0] >= '0' && number[0] <= '9' {
				cells = []string{cells[0], number, rest}
			}
		}
		if len(cells) != 3 {
			return "", "", line, badRecord(r.where(line), "it must be IMAGE| NUMBER| CAPTION, not %q", clip(whole))
		}
		return strings.TrimSpace(cells[0]), strings.TrimSpace(cells[2]), line, nil
	}
	token, text, ok := strings.Cut(whole, "\t")
	at := strings.LastIndexByte(token, '#')
	if !ok || at < 0 {
		return "", "", line, badRecord(r.where(line), "it must be IMAGE#NUMBER, a tab, and the caption, not %q", clip(whole))
	}
	return token[:at], strings.TrimSpace(text), line, nil
}
