package checkpoints

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/checkpoints/safetensors"
)

// ErrCorrupt is wrapped by every error about a checkpoint that is damaged or not whole.
var ErrCorrupt = errors.New("checkpoint is damaged")

// ErrVersion is wrapped by the error about a checkpoint that a newer program wrote.
var ErrVersion = errors.New("checkpoint has a newer format")

// ErrMismatch is wrapped by errors about tensors that are not those of the model at hand.
var ErrMismatch = errors.New("checkpoint is of another model")

const (
	formatVersion = 1
	stateFile     = "state.json"
	suffix        = ".safetensors"
)

// Tensor is a named piece of a slab. The data stay the caller's: they are written from where they lie, and read to there.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// Score is what a checkpoint is worth. More is better: a loss is given with a minus.
type Score struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// State is what goes into a checkpoint.
type State struct {
	Step     int                        // updates done
	Position int                        // pairs drawn from the data so far
	Recipe   string                     // the resolved recipe, as YAML
	Score    *Score                     // nil if it was not evaluated
	Extra    map[string]json.RawMessage // what else a caller wants to find again
	Files    map[string][]Tensor        // content of NAME.safetensors by NAME: model, moments, average
	// Streams are further files, whose tensors come from elsewhere in any type and are not held in memory: imported weights.
	Streams map[string][]safetensors.Tensor
}

// Checkpoint is a folder that was written by this package, opened for reading.
type Checkpoint struct {
	Dir      string
	Step     int
	Position int
	Recipe   string
	Score    *Score
	Extra    map[string]json.RawMessage
	files    []fileEntry
}

// record is the content of state.json.
type record struct {
	SHA256   string                     `json:"sha256"` // of this file, with zeros in its own place; must come first
	Version  int                        `json:"version"`
	Step     int                        `json:"step"`
	Position int                        `json:"dataPosition"`
	Score    *Score                     `json:"score,omitempty"`
	Extra    map[string]json.RawMessage `json:"extra,omitempty"`
	Files    []fileEntry                `json:"files"`
	Recipe   string                     `json:"recipe"`
}

// fileEntry is a file that belongs to a checkpoint.
type fileEntry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// ownSumAt is where state.json's own checksum begins: json.MarshalIndent puts the first field here.
const ownSumAt = len("{\n  \"sha256\": \"")

var zeroSum = strings.Repeat("0", 2*sha256.Size)

// WriteFolder writes a state to the folder dir: aside in the same parent, every file synced, then renamed. A folder of that
// name that is there already is replaced. Whenever it is stopped, dir holds the old content or the new one, whole; or, if it is
// stopped between the two renames of a replacement, the next WriteFolder, or the next [Open] of the parent, brings the old one back.
func WriteFolder(fsys FS, dir string, s *State) (err error) {
	parent, name := filepath.Split(filepath.Clean(dir))
	parent = filepath.Clean(parent)
	aside, replaced := filepath.Join(parent, prefixNew+name), filepath.Join(parent, prefixOld+name)
	if err := errors.Join(settle(fsys, dir), removeAll(fsys, aside)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			removeAll(fsys, aside) // gives the space back at once; if this fails too, the next Open tries again
		}
	}()
	if err := writeFiles(fsys, aside, s); err != nil {
		return err
	}
	again := exists(dir)
	if again {
		if err := fsys.Rename(dir, replaced); err != nil {
			return err
		}
	}
	if err := fsys.Rename(aside, dir); err != nil {
		if again {
			err = errors.Join(err, fsys.Rename(replaced, dir))
		}
		return err
	}
	if err := fsys.SyncDir(parent); err != nil {
		return err
	}
	if again {
		return removeAll(fsys, replaced)
	}
	return nil
}

// settle ends an interrupted replacement of dir: the old content comes back if the new one is not there, else it goes.
func settle(fsys FS, dir string) error {
	parent, name := filepath.Split(filepath.Clean(dir))
	replaced := filepath.Join(parent, prefixOld+name)
	if !exists(dir) && exists(replaced) {
		return fsys.Rename(replaced, dir)
	}
	return removeAll(fsys, replaced)
}

// writeFiles makes the folder dir with all of a state's files.
func writeFiles(fsys FS, dir string, s *State) error {
	if err := fsys.Mkdir(dir); err != nil {
		return err
	}
	r := record{SHA256: zeroSum, Version: formatVersion, Step: s.Step, Position: s.Position, Score: s.Score, Extra: s.Extra, Recipe: s.Recipe}
	files := maps.Clone(s.Streams)
	if files == nil {
		files = map[string][]safetensors.Tensor{}
	}
	for name, tensors := range s.Files {
		for _, t := range tensors {
			files[name] = append(files[name], safetensors.Floats(t.Name, t.Shape, t.Data))
		}
	}
	for _, name := range sortedKeys(files) {
		tensors := files[name]
		e, err := writeFile(fsys, dir, name+suffix, func(w io.Writer) error {
			return safetensors.Write(w, tensors, map[string]string{"format": "pt"}) // transformers wants this entry
		})
		if err != nil {
			return err
		}
		r.Files = append(r.Files, e)
	}
	text, err := json.MarshalIndent(&r, "", "  ")
	if err != nil {
		return err
	}
	copy(text[ownSumAt:], hex.EncodeToString(sum(text)))
	if _, err := writeFile(fsys, dir, stateFile, func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// writeFile makes a synced file and says what it holds.
func writeFile(fsys FS, dir, name string, write func(io.Writer) error) (e fileEntry, err error) {
	path := filepath.Join(dir, name)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	f, err := fsys.Create(path)
	if err != nil {
		return e, err
	}
	w := newSumming(f)
	err = write(w)
	size, sum, flushed := w.end()
	if err = errors.Join(err, flushed); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return e, err
	}
	return fileEntry{Name: name, Size: size, SHA256: hex.EncodeToString(sum)}, nil
}

// summing writes to a file in blocks, whose checksum another thread computes meanwhile.
type summing struct {
	f     io.Writer
	block []byte      // that is being filled
	full  chan []byte // to the hashing thread
	free  chan []byte // and back
	sum   chan []byte

	blocks int // that there are
	n      int64
	err    error // the first one sticks
}

// Blocks stay in a core's cache from when they are filled until they are written and hashed.
const (
	blockSize = 128 << 10
	numBlocks = 4
)

func newSumming(f io.Writer) *summing {
	s := &summing{f: f, block: make([]byte, 0, blockSize), full: make(chan []byte, numBlocks), free: make(chan []byte, numBlocks), sum: make(chan []byte, 1), blocks: 1}
	go func() {
		hash := sha256.New()
		for b := range s.full {
			hash.Write(b)
			s.free <- b
		}
		s.sum <- hash.Sum(nil)
	}()
	return s
}

// Write fills blocks.
func (s *summing) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 && s.err == nil {
		k := copy(s.block[len(s.block):cap(s.block)], b)
		s.block, b = s.block[:len(s.block)+k], b[k:]
		if len(s.block) == cap(s.block) {
			s.flush()
		}
	}
	return n - len(b), s.err
}

// flush writes the block and hands it on.
func (s *summing) flush() {
	s.full <- s.block
	if s.err == nil {
		_, s.err = s.f.Write(s.block)
	}
	s.n += int64(len(s.block))
	if s.blocks < numBlocks {
		s.block = make([]byte, 0, blockSize)
		s.blocks++
		return
	}
	s.block = (<-s.free)[:0]
}

// end writes what is left and returns the bytes in all and their SHA-256.
func (s *summing) end() (size int64, sum []byte, err error) {
	if len(s.block) > 0 {
		s.flush()
	}
	close(s.full)
	return s.n, <-s.sum, s.err
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ReadFolder opens the checkpoint in dir and verifies all of its files: their sizes and SHA-256. Damage gives an error wrapping
// [ErrCorrupt] that names the file; a folder without state.json one wrapping fs.ErrNotExist.
func ReadFolder(dir string) (*Checkpoint, error) {
	c, err := readState(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	for _, e := range c.files {
		if err := verify(filepath.Join(dir, e.Name), e); err != nil {
			return nil, fmt.Errorf("checkpoints: %s: %w", filepath.Join(dir, e.Name), err)
		}
	}
	return c, nil
}

// readState reads and checks state.json alone, and that the files are there in their sizes.
func readState(dir string) (*Checkpoint, error) {
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := parseState(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range r.Files {
		st, err := os.Stat(filepath.Join(dir, e.Name))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if st.Size() != e.Size {
			return nil, fmt.Errorf("%s: %w: %d bytes, %d were written", filepath.Join(dir, e.Name), ErrCorrupt, st.Size(), e.Size)
		}
	}
	return &Checkpoint{Dir: dir, Step: r.Step, Position: r.Position, Recipe: r.Recipe, Score: r.Score, Extra: r.Extra, files: r.Files}, nil
}

// parseState checks and decodes the bytes of state.json.
func parseState(text []byte) (*record, error) {
	// The version comes before the checksum, so that a later format may change how it is checked.
	var head struct{ Version int }
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if head.Version > formatVersion {
		return nil, fmt.Errorf("%w (%d, this program knows %d)", ErrVersion, head.Version, formatVersion)
	}
	if len(text) < ownSumAt+len(zeroSum) {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(text))
	}
	plain := bytes.Clone(text)
	copy(plain[ownSumAt:], zeroSum)
	if own := string(text[ownSumAt : ownSumAt+len(zeroSum)]); own != hex.EncodeToString(sum(plain)) {
		return nil, fmt.Errorf("%w: its content does not have its checksum", ErrCorrupt)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for _, e := range r.Files {
		if e.Name != filepath.Base(e.Name) || !strings.HasSuffix(e.Name, suffix) || e.Size < 0 {
			return nil, fmt.Errorf("%w: file entry %q", ErrCorrupt, e.Name)
		}
	}
	return &r, nil
}

// verify compares a file with its checksum.
func verify(path string, e fileEntry) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if hex.EncodeToString(hash.Sum(nil)) != e.SHA256 {
		return fmt.Errorf("%w: its content does not have its checksum", ErrCorrupt)
	}
	return nil
}

// Has reports whether the checkpoint has a file NAME.safetensors.
func (c *Checkpoint) Has(name string) bool {
	return slices.ContainsFunc(c.files, func(e fileEntry) bool { return e.Name == name+suffix })
}

// Open opens NAME.safetensors, for who wants its tensors as they are stored.
func (c *Checkpoint) Open(name string) (*safetensors.File, error) {
	if !c.Has(name) {
		return nil, fmt.Errorf("checkpoints: %s: %w: there is no such file", filepath.Join(c.Dir, name+suffix), ErrMismatch)
	}
	f, err := safetensors.Open(filepath.Join(c.Dir, name+suffix))
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	return f, nil
}

// Load reads NAME.safetensors straight into the tensors' data. Its tensors must be exactly those that are asked for, in name and
// shape; otherwise the error wraps [ErrMismatch] and names them with both shapes, and nothing is read.
func (c *Checkpoint) Load(name string, tensors []Tensor) error {
	f, err := c.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	path := filepath.Join(c.Dir, name+suffix)
	if err := compare(f, tensors); err != nil {
		return fmt.Errorf("checkpoints: %s: %w: %w", path, ErrMismatch, err)
	}
	for _, t := range tensors {
		if err := f.ReadFloat32(t.Name, t.Data); err != nil {
			return fmt.Errorf("checkpoints: %w", err)
		}
	}
	return nil
}

// compare lists how a file's tensors differ from those wanted, at most a handful of them.
func compare(f *safetensors.File, tensors []Tensor) error {
	var faults []error
	wanted := map[string]bool{}
	for _, t := range tensors {
		wanted[t.Name] = true
		info, err := f.Info(t.Name)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("%q of shape %v is missing", t.Name, t.Shape))
		case !slices.Equal(info.Shape, t.Shape):
			faults = append(faults, fmt.Errorf("%q has shape %v, the model wants %v", t.Name, info.Shape, t.Shape))
		}
	}
	for _, name := range f.Names() {
		if !wanted[name] {
			info, _ := f.Info(name)
			faults = append(faults, fmt.Errorf("%q of shape %v is not in the model", name, info.Shape))
		}
	}
	const most = 5
	if n := len(faults); n > most {
		faults = append(faults[:most], fmt.Errorf("and %d more", n-most))
	}
	return errors.Join(faults...)
}
