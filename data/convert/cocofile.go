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

	"diptych/data/arrowset"
)

// cocoFile is one captions file (cocodataset.org/#format-data): an object with the arrays images, annotations and
// licenses, in any order. scan passes over it once and keeps where its records are; each then reads them as they are needed.
// Of an image it keeps some 50 bytes, of an annotation 16.
type cocoFile struct {
	path        string
	file        *pageReader
	size        int64
	close       func() error
	imagesAt    int64                // of the array's bracket
	images      textTable[cocoImage] // by their ids
	annotations []annotationRef
	licenses    map[string]cocoLicense
	licenseIDs  []string // in the file's order

	faults []*RecordError // what scan found in single records
	bad    map[int32]bool // images that have one
	bare   int            // faults of images without a caption

	fields []field // of the record at hand
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

// cocoAnnotation is one caption as it is written. Kind and Lang are ours.
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
	return &cocoFile{file: &pageReader{r: r}, size: size, licenses: map[string]cocoLicense{}, bad: map[int32]bool{}}
}

// scan reads the whole file once. eachImage is called with the fields of every image. What is wrong with single images and
// annotations is gathered in faults; the error is about the whole file.
func (c *cocoFile) scan(ctx context.Context, eachImage func(fs []field) error) error {
	s := newJSONStream(c.file.r, 0, c.size)
	if err := s.expect('{'); err != nil {
		return syntax(err, s.offset())
	}
	seen := map[string]bool{}
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if err == nil && !more {
			break
		}
		name := ""
		if err == nil {
			name, err = s.name()
		}
		if err == nil && name != "images" && name != "annotations" && name != "licenses" {
			if err = s.skip(); err == nil {
				continue
			}
		}
		if err != nil {
			return syntax(err, s.offset())
		}
		if seen[name] {
			return fmt.Errorf("%w: there are two arrays %q", ErrInput, name)
		}
		seen[name] = true
		if name == "images" {
			if _, err := s.peek(); err != nil {
				return syntax(err, s.offset())
			}
			c.imagesAt = s.offset()
		}
		var annotationIDs textTable[struct{}]
		err = array(s, name, func(record int, at int64, raw []byte) error {
			var err error
			switch name {
			case "images":
				if err = c.scanImage(record, raw, eachImage); err != nil {
					c.bad[int32(record)] = true
				}
			case "annotations":
				if err = c.scanAnnotation(at, raw, &annotationIDs); err != nil {
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
		if err != nil {
			return err
		}
	}
	for _, name := range []string{"images", "annotations"} {
		if !seen[name] {
			return fmt.Errorf("%w: it has no array %q; is it a COCO captions file?", ErrInput, name)
		}
	}
	return c.checkLinks()
}

func (c *cocoFile) fault(array string, record int, err error) {
	c.faults = append(c.faults, &RecordError{fmt.Sprintf("%s: %s[%d]", c.path, array, record), err})
}

// array calls each with every element of the array that comes next: its number, where in the file it begins, its text.
func array(s *jsonStream, name string, each func(record int, at int64, raw []byte) error) error {
	if err := s.expect('['); err != nil {
		return syntax(fmt.Errorf("%s: %w", name, err), s.offset())
	}
	for record := 0; ; record++ {
		more, err := s.more(']', record == 0)
		if err == nil && !more {
			return nil
		}
		var raw []byte
		if err == nil {
			raw, err = s.value()
		}
		if err != nil {
			return syntax(fmt.Errorf("%s[%d]: %w", name, record, err), s.offset())
		}
		if record == math.MaxInt32 {
			return fmt.Errorf("%w: %s has more than 2³¹ records", ErrInput, name)
		}
		if err := each(record, s.offset()-int64(len(raw)), raw); err != nil {
			return fmt.Errorf("%s[%d]: %w", name, record, err)
		}
	}
}

// image returns the entry of an id, which is taken as its JSON text: 7 and "7" are two.
func (c *cocoFile) image(id json.RawMessage) *cocoImage {
	e, added := c.images.put(id)
	if added {
		*e = cocoImage{record: -1, first: -1, last: -1}
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

func (c *cocoFile) scanImage(record int, raw []byte, each func([]field) error) (err error) {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: %w", ErrInput, errNotUTF8)
	}
	if c.fields, err = fields(raw, c.fields[:0]); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	id := member(c.fields, "id")
	if err := checkID("id", id); err != nil {
		return err
	}
	e := c.image(id)
	if e.record >= 0 {
		return fmt.Errorf("%w: id %s is also that of images[%d]", ErrInput, id, e.record)
	}
	e.record = int32(record)
	return each(c.fields)
}

func (c *cocoFile) scanAnnotation(at int64, raw []byte, ids *textTable[struct{}]) (err error) {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: %w", ErrInput, errNotUTF8)
	}
	if c.fields, err = fields(raw, c.fields[:0]); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if _, err := captionOf(c.fields); err != nil {
		return err
	}
	image := member(c.fields, "image_id")
	if err := checkID("image_id", image); err != nil {
		return err
	}
	if id := member(c.fields, "id"); id != nil {
		if _, added := ids.put(id); !added {
			return fmt.Errorf("%w: id %s is there twice", ErrInput, id)
		}
	}
	if len(c.annotations) == math.MaxInt32 {
		return fmt.Errorf("%w: more than 2³¹ annotations", ErrInput)
	}
	e, place := c.image(image), int32(len(c.annotations))
	if e.first < 0 {
		e.first = place
	} else {
		c.annotations[e.last].next = place
	}
	e.last = place
	c.annotations = append(c.annotations, annotationRef{off: at, len: int32(len(raw)), next: -1})
	return nil
}

// captionOf reads an annotation.
func captionOf(fs []field) (c arrowset.Caption, err error) {
	for _, f := range []struct {
		name string
		to   *string
	}{{"caption", &c.Text}, {"kind", &c.Kind}, {"lang", &c.Lang}} {
		raw := member(fs, f.name)
		switch {
		case raw == nil || string(raw) == "null":
			if f.name == "caption" {
				return c, fmt.Errorf("%w: it has no caption", ErrInput)
			}
		case raw[0] != '"':
			return c, fmt.Errorf("%w: %s is %s; it must be a text", ErrInput, f.name, clip(raw))
		default:
			if *f.to, err = unquote(raw); err != nil {
				return c, fmt.Errorf("%w: %s: %w", ErrInput, f.name, err)
			}
		}
	}
	return c, nil
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
func (c *cocoFile) checkLinks() error {
	var lost, bare []int32 // sorted, so that messages do not depend on the table's order
	for _, e := range c.images.all() {
		switch {
		case e.record < 0:
			lost = append(lost, e.first)
		case e.first < 0 && !c.bad[e.record]:
			bare = append(bare, e.record)
		}
	}
	slices.Sort(lost)
	slices.Sort(bare)
	for _, place := range lost {
		fs, err := c.annotation(place)
		if err != nil {
			return err
		}
		c.fault("annotations", int(place), fmt.Errorf("%w: image_id %s is the id of no image", ErrInput, clip(member(fs, "image_id"))))
	}
	c.bare = len(bare)
	for _, record := range bare {
		c.bad[record] = true
		c.fault("images", int(record), fmt.Errorf("%w: it has no caption: no annotation has its id", ErrInput))
	}
	return nil
}

// annotation reads an annotation again.
func (c *cocoFile) annotation(place int32) ([]field, error) {
	ref := c.annotations[place]
	raw, err := c.file.bytes(ref.off, int(ref.len))
	if err == nil {
		c.fields, err = fields(raw, c.fields[:0])
	}
	if err != nil {
		return nil, fmt.Errorf("annotations[%d]: %w: it changed while it was read: %w", place, ErrInput, err)
	}
	return c.fields, nil
}

// captions reads the annotations of an image, in the file's order.
func (c *cocoFile) captions(id []byte) ([]arrowset.Caption, error) {
	e := c.images.get(id)
	if e == nil {
		return nil, fmt.Errorf("%w: id %s was not there before: the file changed while it was read", ErrInput, id)
	}
	var out []arrowset.Caption
	for place := e.first; place >= 0; place = c.annotations[place].next {
		fs, err := c.annotation(place)
		if err != nil {
			return nil, err
		}
		caption, err := captionOf(fs)
		if err != nil {
			return nil, fmt.Errorf("annotations[%d]: it changed while it was read: %w", place, err)
		}
		out = append(out, caption)
	}
	return out, nil
}

// pageReader reads small pieces of a file that mostly lie near one another: it keeps the pages that were read last.
type pageReader struct {
	r     io.ReaderAt
	pages [128]struct {
		number int64 // of the page in the file, from 1
		data   []byte
	}
	piece []byte
}

const pageBytes = 64 << 10

// bytes returns n bytes at an offset, valid until the next call.
func (p *pageReader) bytes(at int64, n int) ([]byte, error) {
	p.piece = p.piece[:0]
	for len(p.piece) < n {
		number := at / pageBytes
		page := &p.pages[number%int64(len(p.pages))]
		if page.number != number+1 {
			if page.data == nil {
				page.data = make([]byte, pageBytes)
			}
			got, err := p.r.ReadAt(page.data[:pageBytes], number*pageBytes)
			if err != nil && err != io.EOF {
				return nil, err
			}
			page.number, page.data = number+1, page.data[:got]
		}
		from := int(at - number*pageBytes)
		if from >= len(page.data) {
			return nil, io.ErrUnexpectedEOF
		}
		part := page.data[from:min(from+n-len(p.piece), len(page.data))]
		if len(part) == n { // all of it lies in one page
			return part, nil
		}
		p.piece = append(p.piece, part...)
		at += int64(len(part))
	}
	return p.piece, nil
}
