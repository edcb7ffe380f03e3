package convert

import (
	"bufio"
	"bytes"
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

// Folder imports pictures with a text file beside each: a.jpg and a.txt, a caption a line. Empty lines are passed over, and
// so are files that are neither pictures nor texts. The image_id is the name below its folder; with more than one folder the
// split stands before it.
type Folder struct {
	Folders []File // with the split of each
	TextExt string // ending of the text files; "" means txt
}

// Open is Importer's.
func (f Folder) Open(ctx context.Context, o *Options) (Source, error) {
	if len(f.Folders) == 0 {
		return nil, fmt.Errorf("%w: no folder is named", ErrInput)
	}
	if f.TextExt = "." + strings.TrimPrefix(f.TextExt, "."); f.TextExt == "." {
		f.TextExt = ".txt"
	}
	for _, root := range f.Folders {
		if err := pictureFolder(root.Path).open(); err != nil {
			return nil, err
		}
	}
	n, err := countPictures(ctx, f.Folders)
	o.Total += n
	return &folderSource{Folder: f}, err
}

type folderSource struct {
	Folder
	at   int
	walk *walker
}

// Next is Source's.
func (s *folderSource) Next() (*Record, error) {
	for ; s.at < len(s.Folders); s.at, s.walk = s.at+1, nil {
		root := s.Folders[s.at]
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
			where := filepath.Join(root.Path, filepath.FromSlash(name))
			switch {
			case isPicture(name):
				return s.record(root, name, where)
			case path.Ext(name) == s.TextExt && !s.pictureOf(where):
				return nil, badRecord(where, "there is no picture of this name beside the text")
			}
		}
	}
	return nil, io.EOF
}

// pictureOf says whether the picture of a text is there.
func (s *folderSource) pictureOf(text string) bool {
	base := strings.TrimSuffix(text, s.TextExt)
	for _, ending := range pictureEndings {
		for _, e := range []string{ending, strings.ToUpper(ending)} {
			if _, err := os.Stat(base + e); err == nil {
				return true
			}
		}
	}
	return false
}

func (s *folderSource) record(root File, name, where string) (*Record, error) {
	text := strings.TrimSuffix(where, filepath.Ext(where)) + s.TextExt
	captions, err := readCaptions(text)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, badRecord(where, "its text %s is missing: %w", text, err)
	}
	if errors.Is(err, ErrInput) {
		return nil, &RecordError{where, err}
	}
	if err != nil {
		return nil, err
	}
	row := arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: name, Split: root.Split}, Captions: captions}
	if len(s.Folders) > 1 {
		row.ImageID = root.Split + "/" + name
	}
	return &Record{Row: row, Where: where, Load: pictureFolder(root.Path).load(name)}, nil
}

// readCaptions reads a caption a line.
func readCaptions(name string) (captions []arrowset.Caption, err error) {
	l, err := openLines(name)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for {
		text, err := l.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			captions = append(captions, arrowset.Caption{Text: string(text)})
		}
	}
	if len(captions) == 0 {
		return nil, badRecord(name, "it holds no caption")
	}
	return captions, nil
}

// Close is Source's.
func (s *folderSource) Close() error { return nil }

// ClassFolders imports folders of classes, as torchvision's ImageFolder reads them: FOLDER/CLASS/….jpg. A row's group is its
// class, its label the class's name, its captions the templates with the name in them; the set gets the class system
// "class". The image_id is the name below FOLDER, behind the split if there are several.
type ClassFolders struct {
	Folders   []File   // with the split of each; one without a split holds a folder for each split
	Templates []string // with {} where the name goes; none means "a photo of a {}."
	// Names is a file that names classes, FOLDER and NAME on a line, parted by a tab or a blank: up to the first comma, as in
	// ImageNet's LOC_synset_mapping.txt. A class that it does not have, and every one without the file, is named by its folder,
	// with blanks for underscores.
	Names string
}

// Open is Importer's.
func (c ClassFolders) Open(ctx context.Context, o *Options) (Source, error) {
	if len(c.Templates) == 0 {
		c.Templates = []string{"a photo of a {}."}
	}
	for _, t := range c.Templates {
		if !strings.Contains(t, "{}") {
			return nil, fmt.Errorf("%w: template %q has no {} for the name of the class", ErrInput, t)
		}
	}
	if len(c.Folders) == 0 {
		return nil, fmt.Errorf("%w: no folder is named", ErrInput)
	}
	s := &classSource{ClassFolders: c, names: map[string]string{}}
	s.Folders = nil
	for _, f := range c.Folders {
		if err := pictureFolder(f.Path).open(); err != nil {
			return nil, err
		}
		if f.Split != "" {
			s.Folders = append(s.Folders, f)
			continue
		}
		splits, err := folders(f.Path)
		if err != nil {
			return nil, err
		}
		for _, split := range splits {
			s.Folders = append(s.Folders, File{split, filepath.Join(f.Path, split)})
		}
	}
	if c.Names != "" {
		if err := s.readNames(); err != nil {
			return nil, err
		}
	}
	system := arrowset.ClassSystem{Name: "class", Column: arrowset.ColGroup, Templates: c.Templates}
	for _, f := range s.Folders {
		classes, err := folders(f.Path)
		if err != nil {
			return nil, err
		}
		for _, class := range classes {
			if !slices.ContainsFunc(system.Classes, func(k arrowset.Class) bool { return k.ID == class }) {
				system.Classes = append(system.Classes, arrowset.Class{ID: class, Text: s.name(class)})
			}
		}
	}
	if len(system.Classes) == 0 {
		return nil, fmt.Errorf("%w: %s holds no folders of classes; without SPLIT= before it, it must hold a folder for each split, and these the classes", ErrInput, c.Folders[0].Path)
	}
	slices.SortFunc(system.Classes, func(a, b arrowset.Class) int { return strings.Compare(a.ID, b.ID) })
	o.Classes = append(o.Classes[:len(o.Classes):len(o.Classes)], system)
	n, err := countPictures(ctx, s.Folders)
	o.Total += n
	return s, err
}

// folders lists the folders in a folder.
func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if isFolder(dir, e) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

type classSource struct {
	ClassFolders
	names map[string]string
	at    int
	walk  *walker
}

func (s *classSource) readNames() error {
	f, err := os.Open(s.Names)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimSpace(strings.TrimPrefix(sc.Text(), "\ufeff"))
		if text == "" {
			continue
		}
		i := strings.IndexAny(text, "\t ")
		if i < 0 {
			return badRecord(fmt.Sprintf("%s:%d", s.Names, line), "it must be a folder and the name of its class, not %q", clip(text))
		}
		name, _, _ := strings.Cut(text[i+1:], ",")
		s.names[text[:i]] = strings.TrimSpace(name)
	}
	return sc.Err()
}

func (s *classSource) name(class string) string {
	if name := s.names[class]; name != "" {
		return name
	}
	return strings.ReplaceAll(class, "_", " ")
}

// Next is Source's.
func (s *classSource) Next() (*Record, error) {
	for ; s.at < len(s.Folders); s.at, s.walk = s.at+1, nil {
		root := s.Folders[s.at]
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
			if !isPicture(name) {
				continue
			}
			where := filepath.Join(root.Path, filepath.FromSlash(name))
			class, _, ok := strings.Cut(name, "/")
			if !ok {
				return nil, badRecord(where, "the picture lies in no folder of a class")
			}
			row := arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: name, Split: root.Split, Group: class, Label: s.name(class)}}
			if len(s.Folders) > 1 {
				row.ImageID = root.Split + "/" + name
			}
			for _, t := range s.Templates {
				row.Captions = append(row.Captions, arrowset.Caption{Text: strings.ReplaceAll(t, "{}", row.Label)})
			}
			return &Record{Row: row, Where: where, Load: pictureFolder(root.Path).load(name)}, nil
		}
	}
	return nil, io.EOF
}

// Close is Source's.
func (s *classSource) Close() error { return nil }
