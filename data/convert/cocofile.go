package convert

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"unicode/utf8"
)

// cocoFile is one captions file (cocodataset.org/#format-data): an object with the arrays images, annotations and
// licenses, in any order. scan passes over it once and keeps where its records are; each then reads them as they are needed.
type cocoFile struct {
	path        string
	file        io.ReaderAt
	size        int64
	close       func() error
	imagesAt    int64 // of the array's bracket
	images      map[string]*cocoImage
	annotations []annotationRef
	licenses    map[string]cocoLicense
	licenseIDs  []string // in the file's order

	faults []*RecordError // what scan found in single records
	bad    map[int32]bool // images that have one
}

// cocoImage is what is kept of an image or of an id that an annotation names.
type cocoImage struct {
	record      int32 // place in the array, -1 as long as it has not come
	first, last int32 // its annotations, -1 if none
}

// annotationRef is the place of an annotation in the file.
type annotationRef struct {
	off  int64
	len  int32
	next int32 // the image's next one, -1 if none
}

type cocoLicense struct {
	ID   json.RawMessage `json:"id"`
	Name string          `json:"name"`
	URL  string          `json:"url"`
}

// cocoAnnotation is one caption. Kind and Lang are ours.
type cocoAnnotation struct {
	ID      json.RawMessage `json:"id"`
	ImageID json.RawMessage `json:"image_id"`
	Caption *string         `json:"caption"`
	Kind    string          `json:"kind,omitempty"`
	Lang    string          `json:"lang,omitempty"`
}

func openCOCO(path string) (*cocoFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	c := newCOCO(f, info.Size())
	c.path, c.close = path, f.Close
	return c, nil
}

func newCOCO(r io.ReaderAt, size int64) *cocoFile {
	return &cocoFile{file: r, size: size, images: map[string]*cocoImage{}, licenses: map[string]cocoLicense{}, bad: map[int32]bool{}}
}

// scan reads the whole file once. eachImage is called with the fields of every image. What is wrong with single images and
// annotations is gathered in faults; the error is about the whole file.
func (c *cocoFile) scan(ctx context.Context, eachImage func(fs []field) error) error {
	dec := json.NewDecoder(io.NewSectionReader(c.file, 0, c.size))
	if err := expect(dec, '{'); err != nil {
		return syntax(err, dec.InputOffset())
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return syntax(err, dec.InputOffset())
		}
		name := t.(string)
		switch name {
		case "images", "annotations", "licenses":
			if seen[name] {
				return fmt.Errorf("%w: there are two arrays %q", ErrInput, name)
			}
			seen[name] = true
			if err = expect(dec, '['); err != nil {
				return syntax(fmt.Errorf("%s: %w", name, err), dec.InputOffset())
			}
			if name == "images" {
				c.imagesAt = dec.InputOffset() - 1
			}
			annotationIDs := map[string]bool{}
			err = array(dec, name, func(record int, at int64, raw []byte) error {
				var err error
				switch name {
				case "images":
					if err = c.scanImage(record, raw, eachImage); err != nil {
						c.bad[int32(record)] = true
					}
				case "annotations":
					if err = c.scanAnnotation(at, raw, annotationIDs); err != nil {
						c.annotations = append(c.annotations, annotationRef{next: -1}) // so that places are records
					}
				default:
					return c.scanLicense(raw)
				}
				if err != nil {
					c.fault(name, record, err)
				}
				return ctx.Err()
			})
		default:
			if err = skip(dec); err != nil {
				err = syntax(err, dec.InputOffset())
			}
		}
		if err != nil {
			return err
		}
	}
	if err := expect(dec, '}'); err != nil {
		return syntax(err, dec.InputOffset())
	}
	for _, name := range []string{"images", "annotations"} {
		if !seen[name] {
			return fmt.Errorf("%w: it has no array %q; is it a COCO captions file?", ErrInput, name)
		}
	}
	c.checkLinks()
	return nil
}

func (c *cocoFile) fault(array string, record int, err error) {
	c.faults = append(c.faults, &RecordError{fmt.Sprintf("%s: %s[%d]", c.path, array, record), err})
}

// array calls each with every element of the array that dec is in: its number, where in the file it ends, its text.
func array(dec *json.Decoder, name string, each func(record int, end int64, raw []byte) error) error {
	var raw json.RawMessage
	for record := 0; dec.More(); record++ {
		if err := dec.Decode(&raw); err != nil {
			return syntax(fmt.Errorf("%s[%d]: %w", name, record, err), dec.InputOffset())
		}
		if record == math.MaxInt32 {
			return fmt.Errorf("%w: %s has more than 2³¹ records", ErrInput, name)
		}
		if err := each(record, dec.InputOffset(), raw); err != nil {
			return fmt.Errorf("%s[%d]: %w", name, record, err)
		}
	}
	if err := expect(dec, ']'); err != nil {
		return syntax(fmt.Errorf("%s: %w", name, err), dec.InputOffset())
	}
	return nil
}

// image returns the entry of an id, which is kept as its JSON text: 7 and "7" are two.
func (c *cocoFile) image(id json.RawMessage) *cocoImage {
	e := c.images[string(id)]
	if e == nil {
		e = &cocoImage{record: -1, first: -1, last: -1}
		c.images[string(id)] = e
	}
	return e
}

// checkID wants an id to be a number or a string.
func checkID(name string, id json.RawMessage) error {
	if len(id) == 0 || id[0] != '"' && id[0] != '-' && (id[0] < '0' || id[0] > '9') {
		return fmt.Errorf("%w: %s is %q; it must be a number or a string", ErrInput, name, id)
	}
	return nil
}

func (c *cocoFile) scanImage(record int, raw []byte, each func([]field) error) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: %w", ErrInput, errNotUTF8)
	}
	fs, err := fields(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	id := member(fs, "id")
	if err := checkID("id", id); err != nil {
		return err
	}
	e := c.image(id)
	if e.record >= 0 {
		return fmt.Errorf("%w: id %s is also that of images[%d]", ErrInput, id, e.record)
	}
	e.record = int32(record)
	return each(fs)
}

func (c *cocoFile) scanAnnotation(end int64, raw []byte, ids map[string]bool) error {
	var a cocoAnnotation
	if err := decodeText(raw, &a); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if a.Caption == nil {
		return fmt.Errorf("%w: it has no caption", ErrInput)
	}
	if err := checkID("image_id", a.ImageID); err != nil {
		return err
	}
	if a.ID != nil {
		if ids[string(a.ID)] {
			return fmt.Errorf("%w: id %s is there twice", ErrInput, a.ID)
		}
		ids[string(a.ID)] = true
	}
	if len(c.annotations) == math.MaxInt32 {
		return fmt.Errorf("%w: more than 2³¹ annotations", ErrInput)
	}
	e, place := c.image(a.ImageID), int32(len(c.annotations))
	if e.first < 0 {
		e.first = place
	} else {
		c.annotations[e.last].next = place
	}
	e.last = place
	c.annotations = append(c.annotations, annotationRef{off: end - int64(len(raw)), len: int32(len(raw)), next: -1})
	return nil
}

func (c *cocoFile) scanLicense(raw []byte) error {
	var l cocoLicense
	if err := decodeText(raw, &l); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if err := checkID("id", l.ID); err != nil {
		return err
	}
	if _, twice := c.licenses[string(l.ID)]; twice {
		return fmt.Errorf("%w: id %s is there twice", ErrInput, l.ID)
	}
	if l.Name == "" {
		l.Name = l.URL
	}
	c.licenses[string(l.ID)] = l
	c.licenseIDs = append(c.licenseIDs, string(l.ID))
	return nil
}

// checkLinks wants an image for every annotation, and an annotation for every image. An image that is bad already excuses
// its annotations if its id was read.
func (c *cocoFile) checkLinks() {
	var lost, bare []int32 // sorted, so that messages do not depend on the map's order
	ids := map[int32]string{}
	for id, e := range c.images {
		switch {
		case e.record < 0:
			lost = append(lost, e.first)
			ids[e.first] = id
		case e.first < 0 && !c.bad[e.record]:
			bare = append(bare, e.record)
			ids[^e.record] = id
		}
	}
	slices.Sort(lost)
	slices.Sort(bare)
	for _, place := range lost {
		c.fault("annotations", int(place), fmt.Errorf("%w: image_id %s is the id of no image", ErrInput, ids[place]))
	}
	for _, record := range bare {
		c.bad[record] = true
		c.fault("images", int(record), fmt.Errorf("%w: id %s has no caption", ErrInput, ids[^record]))
	}
}

// captions reads the annotations of an image, in the file's order.
func (c *cocoFile) captions(id string, each func(a cocoAnnotation)) error {
	e := c.images[id]
	if e == nil {
		return fmt.Errorf("%w: id %s was not there before: the file changed while it was read", ErrInput, id)
	}
	for place := e.first; place >= 0; place = c.annotations[place].next {
		ref := c.annotations[place]
		raw := make([]byte, ref.len)
		if _, err := c.file.ReadAt(raw, ref.off); err != nil && err != io.EOF {
			return err
		}
		var a cocoAnnotation
		if err := decodeText(raw, &a); err != nil || a.Caption == nil {
			return fmt.Errorf("annotations[%d]: %w: it changed while it was read", place, ErrInput)
		}
		each(a)
	}
	return nil
}
