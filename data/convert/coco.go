package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"

	"diptych/data/arrowset"
)

// COCO says what to import: pictures in a folder and their sentences in COCO captions JSON.
//
// Of an image, beside id and file_name, these fields are read: concept (becomes the row's group), label, source (or
// coco_url), license (an id of the file's licenses; becomes the attribute license, the licence's name), and every other
// field that holds a string, which becomes an attribute, such as style, category, subcategory. Of an annotation, beside
// image_id and caption: kind and lang. The row's image_id is the file name.
type COCO struct {
	Images   string   // folder of the pictures
	Captions []string // files; the rows come in their order
	Split    string   // split of all rows; "" takes that of each file's name, captions_SPLIT.json
}

// Fields of an image that are not attributes.
var notAttributes = []string{"id", "file_name", "width", "height", "license", "concept", "label", "source", "coco_url", "flickr_url", "date_captured"}

var splitName = regexp.MustCompile(`^captions_(.+)\.json$`)

// Open is Importer's. It reads the captions files once; what is kept of them is ids and places in the file.
func (c COCO) Open(ctx context.Context, o *Options) (_ Source, err error) {
	if len(c.Captions) == 0 {
		return nil, fmt.Errorf("%w: no captions file is named", ErrInput)
	}
	if err := pictureFolder(c.Images).open(); err != nil {
		return nil, err
	}
	s := &cocoSource{COCO: c}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, name := range c.Captions {
		split := c.Split
		if split == "" {
			match := splitName.FindStringSubmatch(filepath.Base(name))
			if match == nil {
				return nil, fmt.Errorf("%s: %w: the name does not give a split, as captions_train.json does; name it with --split", name, ErrInput)
			}
			split = match[1]
		}
		f, err := openCOCO(name)
		if err != nil {
			return nil, fmt.Errorf("captions: %w", err)
		}
		s.files, s.splits = append(s.files, f), append(s.splits, split)
		if err := s.scan(ctx, f, o); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	s.attributes = o.Attributes
	return s, nil
}

// cocoSource reads the images of all files again, each with its annotations.
type cocoSource struct {
	COCO
	files      []*cocoFile
	splits     []string
	names      textTable[int32] // pictures so far, with the number of the file that names them
	attributes []string

	file   int         // that is being read
	fault  int         // of the file's faults, the next one
	images *jsonStream // of the file; nil before its first image
	record int         // the next one
	fields []field     // of the image at hand
}

// scan checks a captions file and adds its attributes and licences to o.
func (s *cocoSource) scan(ctx context.Context, f *cocoFile, o *Options) error {
	attribute := func(name string) {
		if !slices.Contains(o.Attributes, name) {
			o.Attributes = append(slices.Clip(o.Attributes), name)
		}
	}
	err := f.scan(ctx, func(fs []field) error {
		var name string
		var err error
		for _, fd := range fs {
			switch {
			case fd.name == "file_name":
				if name, err = unquote(fd.value); err != nil {
					return fmt.Errorf("%w: file_name is %s", ErrInput, clip(fd.value))
				}
			case fd.name == "license":
				attribute("license")
			case !slices.Contains(notAttributes, fd.name) && fd.value[0] == '"':
				attribute(fd.name)
			}
		}
		clean, err := localName(name)
		if err != nil {
			return fmt.Errorf("file_name: %w", err)
		}
		before, added := s.names.put([]byte(clean))
		if !added {
			return fmt.Errorf("%w: picture %s is there twice (before in %s)", ErrInput, name, s.files[*before].path)
		}
		*before = int32(len(s.files) - 1)
		o.Total++
		return nil
	})
	if err != nil {
		return err
	}
	o.Total += len(f.faults) - f.bare // which were counted as images
	for _, id := range f.licenseIDs {
		l := arrowset.License{Name: f.licenses[id].Name, URL: f.licenses[id].URL}
		if !slices.Contains(o.Licenses, l) {
			o.Licenses = append(slices.Clip(o.Licenses), l)
		}
	}
	return nil
}

// Next is Source's. What the first pass found bad comes before a file's records.
func (s *cocoSource) Next() (*Record, error) {
	for ; s.file < len(s.files); s.file, s.fault, s.images = s.file+1, 0, nil {
		f := s.files[s.file]
		if s.fault < len(f.faults) {
			s.fault++
			return nil, f.faults[s.fault-1]
		}
		if s.images == nil {
			s.images, s.record = newJSONStream(f.file.r, f.imagesAt, f.size), 0
			if err := s.images.expect('['); err != nil {
				return nil, fmt.Errorf("%s: %w", f.path, syntax(err, f.imagesAt))
			}
		}
		for {
			record := s.record
			more, err := s.images.more(']', record == 0)
			if err == nil && !more {
				break
			}
			s.record++
			var raw []byte
			if err == nil {
				raw, err = s.images.value()
			}
			if err == nil && f.bad[int32(record)] {
				continue
			}
			if err == nil {
				s.fields, err = fields(raw, s.fields[:0])
			}
			if err != nil {
				return nil, fmt.Errorf("%s: images[%d]: %w", f.path, record, syntax(err, s.images.offset()))
			}
			rec := &Record{Where: fmt.Sprintf("%s: images[%d]", f.path, record)}
			if rec.Row, err = s.row(f, s.splits[s.file], s.fields); err != nil {
				return nil, &RecordError{rec.Where, err}
			}
			rec.Load = pictureFolder(s.Images).load(rec.Row.ImageID)
			return rec, nil
		}
	}
	return nil, io.EOF
}

// row makes the row of an image.
func (s *cocoSource) row(f *cocoFile, split string, fs []field) (arrowset.Row, error) {
	r := arrowset.Row{RowMeta: arrowset.RowMeta{Split: split, Attributes: make([]string, len(s.attributes))}}
	var url string
	for _, fd := range fs {
		var text string
		if fd.value[0] == '"' {
			var err error
			if text, err = unquote(fd.value); err != nil {
				return r, fmt.Errorf("%w: %s: %v", ErrInput, fd.name, err)
			}
		}
		switch fd.name {
		case "file_name":
			r.ImageID = path.Clean(text)
		case "concept":
			r.Group = text
		case "label":
			r.Label = text
		case "source":
			r.Source = text
		case "coco_url":
			url = text
		case "license":
			if string(fd.value) == "null" {
				continue
			}
			l, ok := f.licenses[string(fd.value)]
			if !ok {
				return r, fmt.Errorf("%w: license %s is not among the file's licenses", ErrInput, fd.value)
			}
			r.Attributes[slices.Index(s.attributes, "license")] = l.Name
		default:
			if a := slices.Index(s.attributes, fd.name); a >= 0 {
				r.Attributes[a] = text
			}
		}
	}
	if r.Source == "" {
		r.Source = url
	}
	var err error
	r.Captions, err = f.captions(member(fs, "id"))
	return r, err
}

// Close is io.Closer's.
func (s *cocoSource) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}
