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
	return openTree(ctx, o, f.Folders, f.record)
}

// record makes a record of a picture and the text beside it.
func (f *Folder) record(at treeFile) (*Record, error) {
	if !isPicture(at.name) {
		if path.Ext(at.name) == f.TextExt && !f.pictureOf(at.where) {
			return nil, badRecord(at.where, "there is no picture of this name beside the text")
		}
		return nil, nil
	}
	text := strings.TrimSuffix(at.where, filepath.Ext(at.where)) + f.TextExt
	captions, err := readCaptions(text)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, badRecord(at.where, "its text %s is missing: %w", text, err)
	}
	if errors.Is(err, ErrInput) {
		return nil, &RecordError{at.where, err}
	}
	if err != nil {
		return nil, err
	}
	rec := at.picture(len(f.Folders) > 1)
	rec.Row.Captions = captions
	return rec, nil
}

// pictureOf says whether the picture of a text is there.
func (f *Folder) pictureOf(text string) bool {
	base := strings.TrimSuffix(text, f.TextExt)
	for _, ending := range pictureEndings {
		for _, e := range []string{ending, strings.ToUpper(ending)} {
			if _, err := os.Stat(base + e); err == nil {
				return true
			}
		}
	}
	return false
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
	named := c.Folders
	c.Folders = nil
	for _, f := range named {
		if err := pictureFolder(f.Path).open(); err != nil {
			return nil, err
		}
		if f.Split != "" {
			c.Folders = append(c.Folders, f)
			continue
		}
		splits, err := folders(f.Path)
		if err != nil {
			return nil, err
		}
		for _, split := range splits {
			c.Folders = append(c.Folders, File{split, filepath.Join(f.Path, split)})
		}
	}
	names, err := c.readNames()
	if err != nil {
		return nil, err
	}
	system := arrowset.ClassSystem{Name: "class", Column: arrowset.ColGroup, Templates: c.Templates}
	known := map[string]bool{}
	for _, f := range c.Folders {
		classes, err := folders(f.Path)
		if err != nil {
			return nil, err
		}
		for _, class := range classes {
			if !known[class] {
				known[class] = true
				system.Classes = append(system.Classes, arrowset.Class{ID: class, Text: names.of(class)})
			}
		}
	}
	if len(system.Classes) == 0 {
		return nil, fmt.Errorf("%w: %s holds no folders of classes; without SPLIT= before it, it must hold a folder for each split, and these the classes; if its own folders are the classes, give train=%[2]s", ErrInput, named[0].Path)
	}
	slices.SortFunc(system.Classes, func(a, b arrowset.Class) int { return strings.Compare(a.ID, b.ID) })
	o.Classes = append(o.Classes[:len(o.Classes):len(o.Classes)], system)
	return openTree(ctx, o, c.Folders, func(f treeFile) (*Record, error) { return c.record(f, names) })
}

// record makes a record of a picture in the folder of its class.
func (c *ClassFolders) record(f treeFile, names classTexts) (*Record, error) {
	if !isPicture(f.name) {
		return nil, nil
	}
	class, _, ok := strings.Cut(f.name, "/")
	if !ok {
		return nil, badRecord(f.where, "the picture lies in no folder of a class")
	}
	rec := f.picture(len(c.Folders) > 1)
	rec.Row.Group, rec.Row.Label = class, names.of(class)
	for _, t := range c.Templates {
		rec.Row.Captions = append(rec.Row.Captions, arrowset.Caption{Text: strings.ReplaceAll(t, "{}", rec.Row.Label)})
	}
	return rec, nil
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

// classTexts are the names of classes by their folders.
type classTexts map[string]string

func (c *ClassFolders) readNames() (classTexts, error) {
	names := classTexts{}
	if c.Names == "" {
		return names, nil
	}
	f, err := os.Open(c.Names)
	if err != nil {
		return nil, err
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
			return nil, badRecord(fmt.Sprintf("%s:%d", c.Names, line), "it must be a folder and the name of its class, not %q", clip(text))
		}
		name, _, _ := strings.Cut(text[i+1:], ",")
		names[text[:i]] = strings.TrimSpace(name)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", c.Names, ErrInput, err)
	}
	return names, nil
}

// of is the name of a folder's class.
func (n classTexts) of(class string) string {
	if name := n[class]; name != "" {
		return name
	}
	return strings.ReplaceAll(class, "_", " ")
}
