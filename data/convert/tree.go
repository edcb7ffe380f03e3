package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// walker yields the files below a folder in the order of their names, a folder's files and folders mixed. It holds the names
// of the folders it is in. Hidden files and folders are passed over.
type walker struct {
	root  string
	stack []openFolder
}

type openFolder struct {
	name  string   // below the root, with slashes
	names []string // that are left; those of folders end in a slash
}

func newWalker(root string) (*walker, error) {
	w := &walker{root: root}
	return w, w.enter("")
}

// maxDepth is how deep folders may nest; more is a symbolic link that leads back.
const maxDepth = 64

func (w *walker) enter(name string) error {
	if len(w.stack) == maxDepth {
		return fmt.Errorf("%w: the folders of %s nest more than %d deep, as in %s; does a symbolic link lead back?", ErrInput, w.root, maxDepth, name)
	}
	f, err := os.Open(filepath.Join(w.root, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer f.Close()
	var names []string
	for {
		entries, err := f.ReadDir(1024) // in pieces, since an entry takes more than its name
		for _, e := range entries {
			switch {
			case strings.HasPrefix(e.Name(), "."):
			case isFolder(f.Name(), e):
				names = append(names, e.Name()+"/")
			default:
				names = append(names, strings.Clone(e.Name()))
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(names)
	w.stack = append(w.stack, openFolder{name, names})
	return nil
}

// next returns the name of a file below the root, or io.EOF.
func (w *walker) next() (string, error) {
	for len(w.stack) > 0 {
		top := &w.stack[len(w.stack)-1]
		if len(top.names) == 0 {
			w.stack = w.stack[:len(w.stack)-1]
			continue
		}
		name := path.Join(top.name, top.names[0])
		folder := strings.HasSuffix(top.names[0], "/")
		top.names = top.names[1:]
		if !folder {
			return name, nil
		}
		if err := w.enter(name); err != nil {
			return "", err
		}
	}
	return "", io.EOF
}

// isFolder says whether an entry of a folder is one, or a symbolic link to one.
func isFolder(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// countPictures counts the pictures below folders.
func countPictures(ctx context.Context, roots []File) (n int, err error) {
	for _, root := range roots {
		w, err := newWalker(root.Path)
		if err != nil {
			return 0, fmt.Errorf("pictures: %w", err)
		}
		for {
			name, err := w.next()
			if err == io.EOF {
				break
			}
			if err = errors.Join(err, ctx.Err()); err != nil {
				return 0, err
			}
			if isPicture(name) {
				n++
			}
		}
	}
	return n, nil
}

// treeFile is a file below a folder that is imported.
type treeFile struct {
	root  File
	name  string // below the root, with slashes
	where string // in the file system
}

// treeSource makes records of the files below folders, one folder after the other.
type treeSource struct {
	roots  []File
	record func(f treeFile) (*Record, error) // nil, nil for a file that is passed over
	at     int
	walk   *walker
	found  bool // a file that is not passed over
}

// openTree counts the pictures below the roots.
func openTree(ctx context.Context, o *Options, roots []File, record func(f treeFile) (*Record, error)) (Source, error) {
	n, err := countPictures(ctx, roots)
	o.Total += n
	return &treeSource{roots: roots, record: record}, err
}

// picture is the record of a picture, without captions. Its image_id is the name below its root, behind the split where there
// are several roots.
func (f treeFile) picture(several bool) *Record {
	row := arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: f.name, Split: f.root.Split}}
	if several {
		row.ImageID = f.root.Split + "/" + f.name
	}
	return &Record{Row: row, Where: f.where, Load: pictureFolder(f.root.Path).load(f.name)}
}

// Next is Source's.
func (s *treeSource) Next() (*Record, error) {
	for ; s.at < len(s.roots); s.at, s.walk = s.at+1, nil {
		root := s.roots[s.at]
		if s.walk == nil {
			var err error
			if s.walk, err = newWalker(root.Path); err != nil {
				return nil, fmt.Errorf("pictures: %w", err)
			}
		}
		for {
			name, err := s.walk.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, err
			}
			rec, err := s.record(treeFile{root, name, filepath.Join(root.Path, filepath.FromSlash(name))})
			if rec != nil || err != nil {
				s.found = true
				return rec, err
			}
		}
	}
	if !s.found {
		return nil, fmt.Errorf("%w: there is no picture (%s) below %s", ErrInput, strings.Join(pictureEndings, " "), s.roots[0].Path)
	}
	return nil, io.EOF
}

// Close is Source's.
func (s *treeSource) Close() error { return nil }
