package convert

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// WebDataset says what to import: tar files in which the members of one sample follow each other and share a name up to the
// first dot of its last part (github.com/webdataset/webdataset, "The WebDataset format"). That name is the row's image_id.
// Of a sample these members are read: the picture; .txt, a sentence; .json, an object with sentences and other fields; .cls,
// a label.
type WebDataset struct {
	// Shards are plain or packed by gzip, zstd or bzip2. Names may hold braces and wildcards; - is standard input. Without a
	// split, that of SplitKey, or what the name says, or else train.
	Shards []File

	Images   []string // suffixes of the picture, the preferred first; empty takes jpg, jpeg, png, webp, gif, bmp, tif, tiff
	Text     string   // suffix of the member that is the sentence; "" takes txt
	TextKeys []string // fields of .json with the sentences; empty takes Text's member, or else the first of caption, captions, text, sentences
	// Fields of .json; those of structures are named with dots. "" takes none, but url and source for Source.
	SplitKey, GroupKey, LabelKey, SourceKey string
	Attributes                              []string

	Stdin io.Reader `json:"-"`
}

var (
	captionKeys = []string{"caption", "captions", "text", "sentences"}
	sourceKeys  = []string{"source", "url"}
)

const (
	maxMemberText = 1 << 20  // bytes of a sentence's or label's member
	maxMemberJSON = 16 << 20 // bytes of a .json
)

// Open is Importer's. It sees that all files are there.
func (d WebDataset) Open(_ context.Context, o *Options) (Source, error) {
	if d.Images = slices.Clone(d.Images); len(d.Images) == 0 {
		d.Images = slices.Clone(pictureEndings)
	}
	for i, s := range d.Images {
		d.Images[i] = strings.ToLower(strings.TrimPrefix(s, "."))
	}
	if d.Text = strings.ToLower(strings.TrimPrefix(d.Text, ".")); d.Text == "" {
		d.Text = "txt"
	}
	s := &tarSource{WebDataset: d}
	for _, a := range d.Attributes {
		if !slices.Contains(o.Attributes, a) {
			o.Attributes = append(slices.Clip(o.Attributes), a)
		}
	}
	s.attributes = o.Attributes
	stdin := false
	for _, f := range d.Shards {
		names, err := expandNames([]string{f.Path})
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			s.files = append(s.files, File{f.Split, name})
			if name == "-" {
				if d.Stdin == nil || stdin {
					return nil, fmt.Errorf("%w: standard input can be read once", ErrInput)
				}
				stdin = true
				continue
			}
			info, err := os.Stat(name)
			if err != nil {
				return nil, err
			}
			if info.IsDir() {
				return nil, fmt.Errorf("%w: %s is a folder, not a tar file", ErrInput, name)
			}
			s.size += info.Size()
		}
	}
	if len(s.files) == 0 {
		return nil, fmt.Errorf("%w: no file is named", ErrInput)
	}
	return s, nil
}

// tarSource reads the samples of all files.
type tarSource struct {
	WebDataset
	files      []File
	attributes []string
	size       int64 // of all files

	file    int // the next one
	name    string
	in      *tarInput
	tar     *tar.Reader
	members int         // of the file, read so far
	next    *tar.Header // belongs to the sample to come
	done    int64       // bytes of the files before
}

// tarSample is what was read of a sample.
type tarSample struct {
	key      string
	at       int64 // of its first member's bytes
	suffixes []string
	rank     int // of picture in Images
	picture  func(context.Context) ([]byte, error)
	bytes    []byte // the picture, where it had to be read on the way
	text     *string
	label    string
	fields   []byte // .json
	fault    error  // the first
}

func (s *tarSample) fail(format string, args ...any) {
	if s.fault == nil {
		s.fault = fmt.Errorf("%w: %w", ErrInput, fmt.Errorf(format, args...))
	}
}

// Next is Source's.
func (s *tarSource) Next() (*Record, error) {
	for {
		if s.tar == nil {
			if s.file == len(s.files) {
				return nil, io.EOF
			}
			s.name = s.files[s.file].Path
			s.file++
			if err := s.open(); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		sample, err := s.sample()
		if err != nil {
			at, members := s.in.at, s.members
			s.closeFile()
			var system *os.PathError
			if errors.As(err, &system) {
				return nil, err
			}
			if members == 0 {
				return nil, badRecord(s.name, "%w: %v at byte %d: is it a tar file, plain or packed by gzip, zstd or bzip2?", ErrInput, err, at)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("it is truncated")
			}
			return nil, badRecord(fmt.Sprintf("%s, byte %d", s.name, at), "%w: %v; behind its %d. member nothing of the file can be read", ErrInput, err, members)
		}
		if sample == nil {
			s.closeFile()
			continue
		}
		return s.record(sample)
	}
}

// sample reads the members of the next sample, nil at the end of the file. An error means that the file cannot be read on.
func (s *tarSource) sample() (*tarSample, error) {
	var sample *tarSample
	for {
		h := s.next
		if s.next = nil; h == nil {
			var err error
			if h, err = s.tar.Next(); err == io.EOF && s.in.ended() {
				return sample, nil
			} else if err != nil {
				if err == io.EOF { // where a tar is cut between two members, only its last blocks, which are zero, are missing
					err = io.ErrUnexpectedEOF
				}
				return nil, err
			}
			s.members++
		}
		key, suffix := memberName(h)
		if key == "" {
			continue
		}
		if sample != nil && sample.key != key {
			s.next = h
			return sample, nil
		}
		if sample == nil {
			sample = &tarSample{key: key, at: s.in.at, rank: len(s.Images)}
		}
		if err := s.member(sample, h, suffix); err != nil {
			return nil, err
		}
	}
}

// memberName splits the name of a member as webdataset does: a sample's key ends at the first dot of the name's last part.
// What is no member of a sample has no key: folders, names without suffix, and what lies in __meta__.
func memberName(h *tar.Header) (key, suffix string) {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		return "", ""
	}
	if first, _, _ := strings.Cut(h.Name, "/"); strings.HasPrefix(first, "__") && strings.HasSuffix(first, "__") {
		return "", ""
	}
	dir, base := path.Split(h.Name)
	dot := strings.IndexByte(base, '.')
	if dot <= 0 {
		return "", ""
	}
	for strings.HasPrefix(dir, "./") {
		dir = dir[2:]
	}
	return dir + base[:dot], strings.ToLower(base[dot+1:])
}

// member takes in a member of a sample.
func (s *tarSource) member(sample *tarSample, h *tar.Header, suffix string) error {
	if slices.Contains(sample.suffixes, suffix) {
		sample.fail("it has two members .%s", suffix)
		return nil
	}
	sample.suffixes = append(sample.suffixes, suffix)
	read := func(limit int64) ([]byte, error) {
		if h.Size > limit {
			sample.fail("its member .%s has %d bytes; at most %d are possible", suffix, h.Size, limit)
			return nil, nil
		}
		b := make([]byte, 0, min(h.Size, 1<<20)+bytes.MinRead) // what is claimed is only allocated as it comes
		buf := bytes.NewBuffer(b)
		_, err := buf.ReadFrom(s.tar)
		return buf.Bytes(), err
	}
	if rank := slices.Index(s.Images, suffix); rank >= 0 {
		if rank > sample.rank {
			return nil // there is a better one
		}
		sample.rank, sample.picture, sample.bytes = rank, nil, nil
		if h.Size > 0 && h.Size <= maxPicture && s.in.whole(h) {
			sample.picture = loadRange(s.name, span{s.in.at, h.Size})
			return nil
		}
		var err error
		sample.bytes, err = read(maxPicture)
		return err
	}
	switch suffix {
	case s.Text:
		b, err := read(maxMemberText)
		text := strings.TrimRight(string(b), "\r\n")
		sample.text = &text
		return err
	case "cls":
		b, err := read(maxMemberText)
		sample.label = strings.TrimSpace(string(b))
		return err
	case "json":
		var err error
		sample.fields, err = read(maxMemberJSON)
		return err
	}
	return nil
}

// record makes a record of a sample.
func (s *tarSource) record(sample *tarSample) (*Record, error) {
	where := fmt.Sprintf("%s, byte %d: sample %s", s.name, sample.at, sample.key)
	rec := &Record{Where: where, Load: sample.picture}
	r := &rec.Row
	r.ImageID, r.Label, r.Image, r.Attributes = sample.key, sample.label, sample.bytes, make([]string, len(s.attributes))
	if sample.fields != nil && sample.fault == nil {
		if err := s.json(r, sample.fields); err != nil {
			sample.fail(".json: %w", err)
		}
	}
	if len(s.TextKeys) == 0 && sample.text != nil {
		r.Captions = nil
		if *sample.text != "" {
			r.Captions = []arrowset.Caption{{Text: *sample.text}}
		}
	}
	if split := s.files[s.file-1].Split; split != "" {
		r.Split = split
	} else if r.Split == "" {
		r.Split = splitOfName(s.name)
	}
	switch {
	case sample.fault != nil:
	case sample.rank == len(s.Images):
		sample.fail("it has no picture (%s), only %s", suffixList(s.Images), suffixList(sample.suffixes))
	case len(r.Captions) == 0 && r.Label == "":
		keys := s.TextKeys
		if len(keys) == 0 {
			keys = captionKeys
		}
		sample.fail("it has no sentence: neither .%s nor in .json a field %s", s.Text, strings.Join(keys, ", "))
	}
	if sample.fault != nil {
		return nil, &RecordError{where, sample.fault}
	}
	return rec, nil
}

func suffixList(suffixes []string) string { return "." + strings.Join(suffixes, " .") }

// json takes in the fields of a .json.
func (s *tarSource) json(r *arrowset.Row, raw []byte) error {
	if err := checkJSON(raw); err != nil {
		return err
	}
	top, err := fields(raw, nil)
	if err != nil {
		return err
	}
	for _, get := range []struct {
		key string
		to  *string
	}{{s.SplitKey, &r.Split}, {s.GroupKey, &r.Group}, {s.LabelKey, &r.Label}, {s.SourceKey, &r.Source}} {
		if get.key != "" {
			*get.to = jsonText(jsonMember(top, get.key))
		}
	}
	for i := 0; i < len(sourceKeys) && s.SourceKey == "" && r.Source == ""; i++ {
		r.Source = jsonText(jsonMember(top, sourceKeys[i]))
	}
	for _, a := range s.Attributes {
		r.Attributes[slices.Index(s.attributes, a)] = jsonText(jsonMember(top, a))
	}
	keys := s.TextKeys
	if len(keys) == 0 {
		keys = captionKeys
	}
	for _, key := range keys {
		texts, err := jsonTexts(jsonMember(top, key))
		if err != nil {
			return fmt.Errorf("field %s: %w", key, err)
		}
		for _, t := range texts {
			r.Captions = append(r.Captions, arrowset.Caption{Text: t})
		}
		if len(s.TextKeys) == 0 && len(texts) > 0 {
			break
		}
	}
	return nil
}

// jsonMember is the value of a name, in whose structures dots lead; nil if there is none.
func jsonMember(fs []field, name string) json.RawMessage {
	if v := member(fs, name); v != nil {
		return v
	}
	head, rest, dotted := strings.Cut(name, ".")
	if !dotted {
		return nil
	}
	inner, err := fields(member(fs, head), nil)
	if err != nil {
		return nil
	}
	return jsonMember(inner, rest)
}

// jsonText is a value as text: a string's own, nothing for null, JSON for all else.
func jsonText(raw json.RawMessage) string {
	var text *string
	if len(raw) == 0 || json.Unmarshal(raw, &text) == nil {
		if text == nil {
			return ""
		}
		return *text
	}
	return string(raw)
}

// jsonTexts is a string, or a list of strings.
func jsonTexts(raw json.RawMessage) ([]string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		if text == "" {
			return nil, nil
		}
		return []string{text}, nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("it is neither a text nor a list of texts")
	}
	return list, nil
}

// Part is the share of the input that was read, 0 if that is not known.
func (s *tarSource) Part() float64 {
	done := s.done
	if s.in != nil && s.in.file != nil {
		done += s.in.raw.Load()
	}
	return float64(done) / float64(max(s.size, 1))
}

// Close is Source's.
func (s *tarSource) Close() error {
	s.closeFile()
	return nil
}
