package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/data/arrowset"
	"diptych/internal/addr"
)

// File is a file to import, with the split of what is in it.
type File struct{ Split, Path string }

// Files reads arguments of the form SPLIT=FILE, or FILE alone, which means the split given.
func Files(args []string, split string) []File {
	var files []File
	for _, arg := range args {
		f := File{split, arg}
		if name, path, ok := strings.Cut(arg, "="); ok && !strings.ContainsAny(name, `/\`) && name != "" {
			if _, err := os.Stat(arg); err != nil { // else it is a file with = in its name
				f = File{name, path}
			}
		}
		files = append(files, f)
	}
	return files
}

// entry is one line of a table of pictures and sentences. Lines with one ImageID make one row.
type entry struct {
	row    arrowset.Row
	file   string // name of the picture below the folder
	second string // of the second one; "" if there is none
	where  string
}

// place is where an entry stands.
type place struct {
	file, line int
	off        int64
}

func (p place) compare(q place) int { return cmp.Or(p.file-q.file, cmp.Compare(p.off, q.off)) }

// entryReader reads the entries of a file. next returns io.EOF, a *RecordError, or an error that ends it all.
type entryReader interface {
	next() (entry, error)
	seek(off int64, line int) // where an entry begins
	at() (off int64, line int)
	Close() error
}

// at is where the next line is.
func (l *lines) at() (off int64, line int) { return l.off, l.line }

// entrySource makes records of the entries of files. It reads the files twice: the first pass finds the pictures whose lines do
// not lie together. It holds 16 to 32 bytes for each picture, and the places of the lines that lie apart.
type entrySource struct {
	pictures pictureFolder
	files    []File
	open     func(File) (entryReader, error)
	apart    map[uint64][]place // by hash of the image id: lines that lie behind others of other pictures

	readers []entryReader // for the second pass, nil behind it
	aside   []entryReader // for the lines that lie apart, opened when they are needed
	ahead   *entry        // was read and belongs to the next record
	faults  []error       // to be returned before anything else is read
	file    int
}

// openEntries makes the first pass.
func openEntries(ctx context.Context, o *Options, images string, files []File, open func(File) (entryReader, error)) (_ Source, err error) {
	s := &entrySource{pictures: pictureFolder(images), files: files, open: open, apart: map[uint64][]place{}}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: no file is named", ErrInput)
	}
	if err := s.pictures.open(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	before := o.Total
	var known textTable[struct{}]
	var last string
	var repeats bool
	for i, f := range files {
		r, err := open(f)
		if err != nil {
			return nil, err
		}
		s.readers = append(s.readers, r)
		begin, line := r.at()
		for ctx.Err() == nil {
			p := place{file: i}
			p.off, p.line = r.at()
			e, err := r.next()
			if err == io.EOF {
				break
			}
			if bad := (*RecordError)(nil); errors.As(err, &bad) {
				o.Total++
				continue
			}
			if err != nil {
				return nil, err
			}
			id := e.row.ImageID
			if id != last {
				_, added := known.put([]byte(id))
				if repeats = !added; added {
					o.Total++
				}
				last = strings.Clone(id)
			}
			if repeats {
				h := addr.Name(id)
				s.apart[h] = append(s.apart[h], p)
			}
		}
		r.seek(begin, line)
	}
	if o.Total == before && ctx.Err() == nil {
		return nil, fmt.Errorf("%s: %w: there is no record in it", files[0].Path, ErrInput)
	}
	s.aside = make([]entryReader, len(files))
	return s, ctx.Err()
}

// Next is Source's.
func (s *entrySource) Next() (*Record, error) {
	if len(s.faults) > 0 {
		err := s.faults[0]
		s.faults = s.faults[1:]
		return nil, err
	}
	first, err := s.entry()
	if err != nil {
		return nil, err
	}
	for {
		p, err := s.entry()
		if err != nil {
			if err != io.EOF {
				s.faults = append(s.faults, err)
			}
			break
		}
		if p.row.ImageID != first.row.ImageID {
			s.ahead = &p
			break
		}
		s.join(&first, p)
	}
	for _, at := range s.apart[addr.Name(first.row.ImageID)] {
		p, err := s.readAside(at)
		if err != nil {
			return nil, err
		}
		if p.row.ImageID != first.row.ImageID {
			return nil, fmt.Errorf("%s: %w: the file changed while it was read", p.where, ErrInput)
		}
		s.join(&first, p)
	}
	r := &Record{Row: first.row, Where: first.where, Load: s.pictures.load(first.file)}
	if first.second != "" {
		r.LoadSecond = s.pictures.load(first.second)
	}
	return r, nil
}

// entry returns the next entry that is not among those that lie apart.
func (s *entrySource) entry() (entry, error) {
	if s.ahead != nil {
		p := *s.ahead
		s.ahead = nil
		return p, nil
	}
	for ; s.file < len(s.files); s.file++ {
		for {
			r := s.readers[s.file]
			here := place{file: s.file}
			here.off, here.line = r.at()
			p, err := r.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return entry{}, err
			}
			if _, later := slices.BinarySearchFunc(s.apart[addr.Name(p.row.ImageID)], here, place.compare); !later {
				return p, nil
			}
		}
	}
	return entry{}, io.EOF
}

// readAside reads an entry that lies apart.
func (s *entrySource) readAside(at place) (entry, error) {
	r := s.aside[at.file]
	if r == nil {
		var err error
		if r, err = s.open(s.files[at.file]); err != nil {
			return entry{}, err
		}
		s.aside[at.file] = r
	}
	r.seek(at.off, at.line)
	p, err := r.next()
	if err != nil {
		return p, fmt.Errorf("%s: %w: the file changed while it was read (%w)", s.files[at.file].Path, ErrInput, err)
	}
	return p, nil
}

// join adds the captions of another entry of the same picture.
func (s *entrySource) join(to *entry, p entry) {
	differs := func(what, a, b string) bool {
		if a == b {
			return false
		}
		s.faults = append(s.faults, badRecord(p.where, "picture %s has %s %q here and %q at %s", p.row.ImageID, what, b, a, to.where))
		return true
	}
	if differs("file", to.file, p.file) || differs("second file", to.second, p.second) || differs("split", to.row.Split, p.row.Split) || differs("group", to.row.Group, p.row.Group) ||
		differs("label", to.row.Label, p.row.Label) || differs("source", to.row.Source, p.row.Source) ||
		differs("attributes", strings.Join(to.row.Attributes, ", "), strings.Join(p.row.Attributes, ", ")) {
		return
	}
	to.row.Captions = append(to.row.Captions, p.row.Captions...)
}

// Close is Source's.
func (s *entrySource) Close() error {
	var errs []error
	for _, r := range append(s.readers, s.aside...) {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	return errors.Join(errs...)
}

// below makes a name that a file gives relative to the pictures' folder: an absolute one must lie in it.
func (dir pictureFolder) below(name string) (string, error) {
	if filepath.IsAbs(name) {
		root, err := filepath.Abs(string(dir))
		if err != nil {
			return "", err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil || !filepath.IsLocal(rel) {
			return "", fmt.Errorf("%w: %q does not lie in the pictures' folder %s", ErrInput, name, root)
		}
		name = filepath.ToSlash(rel)
	}
	return localName(name)
}
