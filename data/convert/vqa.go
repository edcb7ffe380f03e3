package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"diptych/data/arrowset"
)

// VQA imports questions and annotations of VQA v2 (Goyal et al. 2017; visualqa.org/download.html): objects with an array
// questions of {"image_id", "question", "question_id"}, or an array annotations of {"question_id", "answer_type", "answers":
// [{"answer"}, …]}, in any order. A row is a picture with all its questions; the kind of a question is its answer_type. Which of
// the two a file is, its arrays say; annotations may be those of several files of questions. A question without an annotation has
// no answer, as in the test sets; where annotations are given, those of other sets must have one.
type VQA struct {
	Images string // folder of the pictures
	Files  []File // a split's name is that of the file, or train, val, test by its data_subtype
	// Pattern is how pictures are named: {subtype} is the file's data_subtype, {id} the image_id and {id:12} the same in twelve
	// digits.
	Pattern string
}

// vqaFile is a file of questions.
type vqaFile struct {
	*cocoFile
	split, subtype string
	images         []vqaImage
	questions      []annotationRef // places, chained by picture
}

// vqaImage is a picture with its questions.
type vqaImage struct {
	id          int64
	first, last int32
}

// vqaSource reads the pictures of all files again, each with its questions and their annotations.
type vqaSource struct {
	VQA
	files       []*vqaFile
	answers     []*cocoFile         // files of annotations
	annotations textTable[vqaPlace] // by the text of question_id
	faults      []*RecordError
	file, image int // the next one
}

// vqaPlace is where an annotation stands.
type vqaPlace struct {
	off  int64
	len  int32
	file int32
}

type vqaQuestion struct {
	ID      json.RawMessage `json:"question_id"`
	ImageID *int64          `json:"image_id"`
	Text    *string         `json:"question"`
}

type vqaAnnotation struct {
	ID      json.RawMessage `json:"question_id"`
	Type    string          `json:"answer_type"`
	Answers []struct {
		Answer *string `json:"answer"`
	} `json:"answers"`
}

// Open is Importer's. It reads every file once; what is kept of them is ids and places.
func (v VQA) Open(ctx context.Context, o *Options) (_ Source, err error) {
	if err := checkPattern(vqaDigits.ReplaceAllString(v.Pattern, "{id}"), []string{"{id}"}, "{subtype}"); err != nil {
		return nil, err
	}
	if err := pictureFolder(v.Images).open(); err != nil {
		return nil, err
	}
	s := &vqaSource{VQA: v}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	var ids textTable[struct{}] // of questions
	for _, f := range v.Files {
		if err := s.scan(ctx, f, &ids); err != nil {
			return nil, err
		}
	}
	if len(s.files) == 0 {
		return nil, fmt.Errorf("%w: none of the files has an array questions", ErrInput)
	}
	if len(s.answers) > 0 {
		for _, f := range s.files {
			if err := s.checkAnswers(ctx, f); err != nil {
				return nil, err
			}
		}
	}
	for _, f := range s.files {
		o.Total += len(f.images)
	}
	o.Total += len(s.faults)
	o.Optional = append(o.Optional[:len(o.Optional):len(o.Optional)], arrowset.ColCaptionAnswer)
	return s, nil
}

// scan reads a file once and notes where its records are.
func (s *vqaSource) scan(ctx context.Context, file File, ids *textTable[struct{}]) error {
	c, err := openCOCO(file.Path)
	if err != nil {
		return fmt.Errorf("questions and annotations: %w", err)
	}
	f := &vqaFile{cocoFile: c, split: file.Split}
	number := int32(len(s.answers))
	place := map[int64]int{}
	asks, err := scanRecords(ctx, c, &f.subtype, func(name string, record int, at int64, raw []byte) {
		var err error
		if name == "questions" {
			err = f.question(at, raw, ids, place)
		} else {
			err = s.annotation(number, at, raw)
		}
		if err != nil {
			s.faults = append(s.faults, &RecordError{fmt.Sprintf("%s: %s[%d]", file.Path, name, record), err})
		}
	})
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", file.Path, err), c.close())
	}
	if !asks {
		s.answers = append(s.answers, c)
		return nil
	}
	if f.split == "" {
		if f.split = splitOfSubtype(f.subtype); f.split == "" {
			return errors.Join(fmt.Errorf("%s: %w: its data_subtype %q does not give a split; write SPLIT=FILE", file.Path, ErrInput, f.subtype), c.close())
		}
	}
	s.files = append(s.files, f)
	return nil
}

// scanRecords walks through the object of a file and hands the elements of its array questions or annotations to each, with their
// number, place and text. It tells whether there are questions.
func scanRecords(ctx context.Context, c *cocoFile, subtype *string, each func(name string, record int, at int64, raw []byte)) (asks bool, err error) {
	s := newJSONStream(c.file.r, 0, c.size)
	if err := s.expect('{'); err != nil {
		return false, syntax(err, s.offset())
	}
	found := ""
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if err == nil && !more {
			break
		}
		name := ""
		if err == nil {
			name, err = s.name()
		}
		switch {
		case err != nil:
		case name == "data_subtype":
			var raw []byte
			if raw, err = s.value(); err == nil && raw[0] == '"' {
				*subtype, err = unquote(raw)
			}
		case name != "questions" && name != "annotations":
			err = s.skip()
		case found != "":
			return false, fmt.Errorf("%w: it has an array %s behind its array %s", ErrInput, name, found)
		default:
			found = name
			err := array(s, name, func(record int, at int64, raw []byte) error {
				each(name, record, at, raw)
				return ctx.Err()
			})
			if err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, syntax(err, s.offset())
		}
	}
	if found == "" {
		return false, fmt.Errorf("%w: it has neither an array questions nor an array annotations", ErrInput)
	}
	return found == "questions", nil
}

// splitOfSubtype is the split that a data_subtype such as train2014 or test-dev2015 means, "" if none.
func splitOfSubtype(subtype string) string {
	for _, split := range []string{"train", "val", "test"} {
		if strings.HasPrefix(subtype, split) {
			return split
		}
	}
	return ""
}

// question notes a question of a file; place says where the pictures are in images.
func (f *vqaFile) question(at int64, raw []byte, ids *textTable[struct{}], place map[int64]int) error {
	var q vqaQuestion
	if err := decodeText(raw, &q); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if err := checkID("question_id", q.ID); err != nil {
		return err
	}
	switch {
	case q.ImageID == nil || *q.ImageID < 0:
		return fmt.Errorf("%w: it has no image_id that is a number", ErrInput)
	case q.Text == nil || strings.TrimSpace(*q.Text) == "":
		return fmt.Errorf("%w: it has no question", ErrInput)
	case len(f.questions) == math.MaxInt32:
		return fmt.Errorf("%w: more than 2³¹ questions", ErrInput)
	}
	if _, added := ids.put(q.ID); !added {
		return fmt.Errorf("%w: question_id %s is there twice", ErrInput, q.ID)
	}
	here := int32(len(f.questions))
	f.questions = append(f.questions, annotationRef{off: at, len: int32(len(raw)), next: -1})
	k, ok := place[*q.ImageID]
	if !ok {
		place[*q.ImageID] = len(f.images)
		f.images = append(f.images, vqaImage{*q.ImageID, here, here})
		return nil
	}
	f.questions[f.images[k].last].next = here
	f.images[k].last = here
	return nil
}

// annotation notes an annotation of file number of answers.
func (s *vqaSource) annotation(number int32, at int64, raw []byte) error {
	a, err := parseAnnotation(raw)
	if err != nil {
		return err
	}
	to, added := s.annotations.put(a.ID)
	if !added {
		return fmt.Errorf("%w: question_id %s is there twice", ErrInput, a.ID)
	}
	*to = vqaPlace{at, int32(len(raw)), number}
	return nil
}

// parseAnnotation reads an annotation and checks it.
func parseAnnotation(raw []byte) (a vqaAnnotation, err error) {
	if err := decodeText(raw, &a); err != nil {
		return a, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if err := checkID("question_id", a.ID); err != nil {
		return a, err
	}
	if len(a.Answers) == 0 {
		return a, fmt.Errorf("%w: it has no answers", ErrInput)
	}
	for i, given := range a.Answers {
		if given.Answer == nil || strings.TrimSpace(*given.Answer) == "" {
			return a, fmt.Errorf("%w: answers[%d] has no answer", ErrInput, i)
		}
	}
	return a, nil
}

// checkAnswers wants an annotation of every question, but in test sets. A question without one is left out.
func (s *vqaSource) checkAnswers(ctx context.Context, f *vqaFile) error {
	if strings.HasPrefix(f.subtype, "test") {
		return nil
	}
	kept := f.images[:0]
	for _, im := range f.images {
		if err := ctx.Err(); err != nil {
			return err
		}
		last := int32(-1)
		first := last
		for k := im.first; k >= 0; k = f.questions[k].next {
			q, err := f.read(k)
			if err != nil {
				return err
			}
			if s.annotations.get(q.ID) == nil {
				s.faults = append(s.faults, &RecordError{fmt.Sprintf("%s: questions, image %d", f.path, im.id),
					fmt.Errorf("%w: question %s has no annotation", ErrInput, q.ID)})
				continue
			}
			if last < 0 {
				first = k
			} else {
				f.questions[last].next = k
			}
			last = k
		}
		if last >= 0 {
			f.questions[last].next = -1
			kept = append(kept, vqaImage{im.id, first, last})
		}
	}
	f.images = kept
	return nil
}

// read reads a question again.
func (f *vqaFile) read(k int32) (q vqaQuestion, err error) {
	raw, err := f.file.bytes(f.questions[k].off, int(f.questions[k].len))
	if err == nil {
		err = decodeText(raw, &q)
	}
	if err == nil && (q.Text == nil || q.ImageID == nil) {
		err = errors.New("its fields are gone")
	}
	if err != nil {
		return q, fmt.Errorf("%s: %w: it changed while it was read: %w", f.path, ErrInput, err)
	}
	return q, nil
}

// Next is Source's. What the first pass found bad comes before all records.
func (s *vqaSource) Next() (*Record, error) {
	if len(s.faults) > 0 {
		err := s.faults[0]
		s.faults = s.faults[1:]
		return nil, err
	}
	for ; s.file < len(s.files); s.file, s.image = s.file+1, 0 {
		f := s.files[s.file]
		if s.image == len(f.images) {
			continue
		}
		im := f.images[s.image]
		s.image++
		rec := &Record{Where: fmt.Sprintf("%s: image %d", f.path, im.id)}
		name, err := localName(vqaName(s.Pattern, f.subtype, im.id))
		if err != nil {
			return nil, &RecordError{rec.Where, err}
		}
		rec.Row.ImageID, rec.Row.Split, rec.Load = name, f.split, pictureFolder(s.Images).load(name)
		for k := im.first; k >= 0; k = f.questions[k].next {
			caption, err := s.caption(f, k)
			if err != nil {
				return nil, err
			}
			rec.Row.Captions = append(rec.Row.Captions, caption)
		}
		return rec, nil
	}
	return nil, io.EOF
}

// caption makes the caption of a question.
func (s *vqaSource) caption(f *vqaFile, k int32) (c arrowset.Caption, err error) {
	q, err := f.read(k)
	if err != nil {
		return c, err
	}
	c = arrowset.Caption{Text: *q.Text, Lang: "en"}
	at := s.annotations.get(q.ID)
	if at == nil {
		return c, nil
	}
	from := s.answers[at.file]
	raw, err := from.file.bytes(at.off, int(at.len))
	var a vqaAnnotation
	if err == nil {
		a, err = parseAnnotation(raw)
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w: it changed while it was read: %w", from.path, ErrInput, err)
	}
	answers := make([]string, len(a.Answers))
	for i, given := range a.Answers {
		answers[i] = *given.Answer
	}
	c.Kind, c.Answer = a.Type, arrowset.JoinAnswers(answers)
	return c, nil
}

var vqaDigits = regexp.MustCompile(`\{id(:\d{1,2})?\}`)

// vqaName is the name of a picture by a pattern. Pictures of test-dev2015 are those of test2015.
func vqaName(pattern, subtype string, id int64) string {
	name := strings.ReplaceAll(pattern, "{subtype}", strings.Replace(subtype, "test-dev", "test", 1))
	return vqaDigits.ReplaceAllStringFunc(name, func(m string) string {
		digits, _ := strconv.Atoi(strings.TrimPrefix(strings.Trim(m, "{}id"), ":")) // none is 0
		return fmt.Sprintf("%0*d", digits, id)
	})
}

// Close is io.Closer's.
func (s *vqaSource) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.close())
	}
	for _, f := range s.answers {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}
