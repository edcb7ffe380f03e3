package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
	Classes  string   // file of class systems, as Export writes it; "" for none
	Out      string   // folder to make

	Name, Description string // of the set; Name "" takes the last part of Out
	ShardBytes        int64  // size at which a shard is closed; 0 takes arrowset's

	Progress func(done, total int) // called after every picture; may be nil
}

// Fields of an image that are not attributes.
var notAttributes = []string{"id", "file_name", "width", "height", "license", "concept", "label", "source", "coco_url", "flickr_url", "date_captured"}

var splitName = regexp.MustCompile(`^captions_(.+)\.json$`)

// Import makes the data set. Errors that the files are to blame for wrap ErrInput, name the file and its record, and leave
// nothing behind.
func (c COCO) Import(ctx context.Context) error {
	fail := func(name string, err error) error { return fmt.Errorf("convert: %s: %w", name, err) }
	if len(c.Captions) == 0 {
		return fmt.Errorf("convert: %w: no captions file is named", ErrInput)
	}
	if info, err := os.Stat(c.Images); err != nil {
		return fmt.Errorf("convert: pictures: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("convert: %w: pictures: %s is not a folder", ErrInput, c.Images)
	}
	m := arrowset.Manifest{Name: c.Name, Description: c.Description}
	if m.Name == "" {
		m.Name = filepath.Base(filepath.Clean(c.Out))
	}
	im := &importer{COCO: c, names: map[string]string{}, labels: map[string]string{}}
	for _, name := range c.Captions {
		split := c.Split
		if split == "" {
			match := splitName.FindStringSubmatch(filepath.Base(name))
			if match == nil {
				return fail(name, fmt.Errorf("%w: the name does not give a split, as captions_train.json does; name it with --split", ErrInput))
			}
			split = match[1]
		}
		f, err := openCOCO(name)
		if err != nil {
			return fmt.Errorf("convert: captions: %w", err)
		}
		defer f.close()
		im.files, im.splits = append(im.files, f), append(im.splits, split)
		if err := im.scan(f, &m); err != nil {
			return fail(name, err)
		}
	}
	if c.Classes != "" {
		text, err := os.ReadFile(c.Classes)
		if err != nil {
			return fmt.Errorf("convert: classes: %w", err)
		}
		if m.Classes, err = parseClasses(text); err != nil {
			return fail(c.Classes, err)
		}
		for _, s := range m.Classes {
			if s.Column != arrowset.ColGroup {
				continue
			}
			for _, class := range s.Classes {
				im.labels[class.ID] = class.Text
			}
		}
	}
	w, err := arrowset.Create(c.Out, m)
	if err != nil {
		return err
	}
	defer w.Abort()
	if c.ShardBytes > 0 {
		w.ShardBytes = c.ShardBytes
	}
	for i, f := range im.files {
		err := f.eachImage(func(_ int, fs []field) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return im.row(f, im.splits[i], m.Attributes, fs, w)
		})
		if err != nil {
			return fail(f.path, err)
		}
	}
	return w.Close()
}

// importer is the state of one import.
type importer struct {
	COCO
	files  []*cocoFile
	splits []string
	names  map[string]string // pictures so far, with the file that names them
	labels map[string]string // of concepts
	total  int
	done   int
}

// scan checks a captions file and gathers attributes and licences into m.
func (im *importer) scan(f *cocoFile, m *arrowset.Manifest) error {
	attribute := func(name string) {
		if !slices.Contains(m.Attributes, name) {
			m.Attributes = append(m.Attributes, name)
		}
	}
	err := f.scan(func(record int, fs []field) error {
		var name string
		for _, fd := range fs {
			switch {
			case fd.name == "file_name":
				if err := json.Unmarshal(fd.value, &name); err != nil {
					return fmt.Errorf("%w: file_name is %s", ErrInput, fd.value)
				}
			case fd.name == "license":
				attribute("license")
			case !slices.Contains(notAttributes, fd.name) && fd.value[0] == '"':
				attribute(fd.name)
			}
		}
		if name == "" || !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("%w: file_name %q is not the name of a file below the pictures' folder", ErrInput, name)
		}
		if before, twice := im.names[path.Clean(name)]; twice {
			return fmt.Errorf("%w: picture %s is there twice (before in %s)", ErrInput, name, before)
		}
		im.names[path.Clean(name)] = f.path
		im.total++
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range f.licenseIDs {
		l := arrowset.License{Name: f.licenses[id].Name, URL: f.licenses[id].URL}
		if !slices.Contains(m.Licenses, l) {
			m.Licenses = append(m.Licenses, l)
		}
	}
	return nil
}

// row appends the row of an image.
func (im *importer) row(f *cocoFile, split string, attributes []string, fs []field, w *arrowset.Writer) error {
	r := arrowset.Row{RowMeta: arrowset.RowMeta{Split: split, Attributes: make([]string, len(attributes))}}
	var url string
	for _, fd := range fs {
		var text string
		if fd.value[0] == '"' {
			if err := json.Unmarshal(fd.value, &text); err != nil {
				return fmt.Errorf("%w: %s: %v", ErrInput, fd.name, err)
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
				return fmt.Errorf("%w: license %s is not among the file's licenses", ErrInput, fd.value)
			}
			r.Attributes[slices.Index(attributes, "license")] = l.Name
		default:
			if a := slices.Index(attributes, fd.name); a >= 0 {
				r.Attributes[a] = text
			}
		}
	}
	if r.Label == "" {
		r.Label = im.labels[r.Group]
	}
	if r.Source == "" {
		r.Source = url
	}
	var err error
	if r.Image, err = os.ReadFile(filepath.Join(im.Images, filepath.FromSlash(r.ImageID))); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: picture %s is missing in %s: %w", ErrInput, r.ImageID, im.Images, err)
		}
		return fmt.Errorf("picture: %w", err)
	}
	err = f.captions(string(member(fs, "id")), func(a cocoAnnotation) {
		r.Captions = append(r.Captions, arrowset.Caption{Text: *a.Caption, Kind: a.Kind, Lang: a.Lang})
	})
	if err != nil {
		return err
	}
	if err := w.Append(r); err != nil {
		return err
	}
	im.done++
	if im.Progress != nil {
		im.Progress(im.done, im.total)
	}
	return nil
}
