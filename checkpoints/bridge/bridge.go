// Package bridge translates weights between our names and public ones. A family (openai, open_clip, hf, timm, google, …) is one file with a
// table of names and the way a configuration is read from shapes; the list of families stands in families.go. Which family a file is
// of is recognised from its names alone; a config.json beside it says what names and shapes cannot.
//
// [Read] opens a file or folder in any form and gives our tensors, streamed: their elements are copied as they are stored, in their
// own type, so that what is imported in half precision stays as it was. [Write] is the way back. Files of tokenizers and of
// preprocessing are in preprocess.go and tokenizer.go.
package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/checkpoints/safetensors"
	"diptych/checkpoints/torchfile"
)

// ErrUnknown is wrapped by errors about weights that no family's names fit.
var ErrUnknown = errors.New("weights of no known family")

// ErrUnsupported is wrapped by errors about a configuration, in a file or asked for, of which no model can be built.
var ErrUnsupported = errors.New("not a model that this program has")

// ErrMismatch is wrapped by errors that list tensors that are missing, unknown or of another shape.
var ErrMismatch = errors.New("the tensors are not those of the model")

// Tensors are what this package needs of an open file.
type Tensors interface {
	Names() []string
	Info(name string) (safetensors.Info, error)
	Stream(name string, use func(b []byte) error) error
	ReadFloat32(name string, dst []float32) error
	io.Closer
}

// Source is an opened file of weights.
type Source struct {
	Tensors
	Path   string // the file, or the index of several
	Form   string // of the file
	Config []byte // the config.json beside it; nil without one
	Dir    string // where the files beside it lie
}

// weightFiles are the names that are looked for in a folder, the first that is there.
var weightFiles = []string{
	"model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin", "weights.safetensors",
	"weights.npz",
}

// configFiles are the names of what says more of a model, beside its weights.
var configFiles = []string{"open_clip_config.json", "config.json"}

// Open opens a file of weights, or the one in a folder.
func Open(path string) (*Source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	s := &Source{Path: path, Dir: filepath.Dir(path)}
	if st.IsDir() {
		s.Dir = path
		name, err := weightFile(path)
		if err != nil {
			return nil, fmt.Errorf("bridge: %s: %w", path, err)
		}
		s.Path = filepath.Join(path, name)
	}
	for _, name := range configFiles {
		if b, err := os.ReadFile(filepath.Join(s.Dir, name)); err == nil && s.Config == nil {
			s.Config = b
		}
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return s, nil
}

// weightFile finds the file of weights in a folder: one of the known names, or the only one that has the extension of one.
func weightFile(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var others []string
	for _, e := range entries {
		if slices.Contains([]string{".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz"}, filepath.Ext(e.Name())) && !e.IsDir() {
			others = append(others, e.Name())
		}
	}
	for _, name := range weightFiles {
		if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name }) {
			return name, nil
		}
	}
	switch len(others) {
	case 0:
		return "", fmt.Errorf("%w: it holds none of %s, nor another file of weights", fs.ErrNotExist, strings.Join(weightFiles, ", "))
	case 1:
		return others[0], nil
	}
	return "", fmt.Errorf("%w: it holds several files of weights: name one of %s", ErrUnknown, strings.Join(others, ", "))
}

// open opens the file by what it is, not by its name.
func (s *Source) open() error {
	file, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	head := make([]byte, 16)
	n, err := io.ReadFull(file, head)
	file.Close()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	head = head[:n]
	switch {
	case strings.HasSuffix(s.Path, ".index.json") || n > 0 && strings.HasPrefix(strings.TrimSpace(string(head)), "{"):
		s.Form = "safetensors, in shards"
		s.Tensors, err = safetensors.OpenIndex(s.Path)
	case n > 8 && head[8] == '{':
		s.Form = "safetensors"
		s.Tensors, err = safetensors.Open(s.Path)
	default:
		var f *torchfile.File
		if f, err = torchfile.Open(s.Path); err == nil {
			s.Form, s.Tensors = f.Form, f
		}
	}
	return err
}

// view is a source without a prefix that all names of the model have.
type view struct {
	*Source
	prefix string
	names  map[string]bool // without the prefix
	beside []string        // names of other tensors: optimizer states and the like
}

func newView(s *Source, prefix string) *view {
	v := &view{Source: s, prefix: prefix, names: map[string]bool{}}
	for _, name := range s.Names() {
		if short, ok := strings.CutPrefix(name, prefix); ok {
			v.names[short] = true
		} else {
			v.beside = append(v.beside, name)
		}
	}
	return v
}

func (v *view) info(name string) (safetensors.Info, bool) {
	info, err := v.Info(v.prefix + name)
	return info, err == nil
}

// dim returns a dimension of a tensor, 0 if there is none.
func (v *view) dim(name string, axis int) int {
	info, ok := v.info(name)
	if !ok || axis >= len(info.Shape) {
		return 0
	}
	return info.Shape[axis]
}

// depth counts blocks: names that pattern makes with 0, 1, …
func (v *view) depth(pattern string) int {
	n := 0
	for v.names[fmt.Sprintf(pattern, n)] {
		n++
	}
	return n
}

// json decodes the config beside the weights into c, if there is one.
func (v *view) json(c any) error {
	if v.Config == nil {
		return nil
	}
	if err := json.Unmarshal(v.Config, c); err != nil {
		return fmt.Errorf("the config.json in %s: %w", v.Dir, err)
	}
	return nil
}
