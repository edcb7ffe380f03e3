package experiments

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"slices"

	"diptych/checkpoints"
	"diptych/checkpoints/bridge"
	"diptych/checkpoints/safetensors"
	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// OpenWeights opens a public file, or the model of a run or an imported folder, whose names are ours.
func OpenWeights(path string) (*bridge.Source, error) {
	c, _, err := checkpoints.Find(path)
	if err == nil {
		name := fileModel
		if c.Has(fileAverage) {
			name = fileAverage
		}
		f, err := c.Open(name)
		if err != nil {
			return nil, err
		}
		return &bridge.Source{Tensors: f, Path: c.Dir, Form: "a model of this program", Dir: c.Dir}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return bridge.Open(path)
}

// KnownWeights is what is known of weights beyond their tensors.
type KnownWeights struct {
	*bridge.Model
	Transforms []transform.Spec  // that a picture goes through when the model is used; nil if nothing says so
	Vocabulary *tokenizer.Config // of a model of this program, with the number of its entries; nil if it reads no sentences
	Entries    int
	Objectives []string // that a model of this program was trained by
}

// DescribeWeights says which model an opened source is: one of this program as its recipe has it, a public file as its names, its shapes and
// the files beside it do.
func DescribeWeights(src *bridge.Source) (*KnownWeights, error) {
	c, _, err := checkpoints.Find(src.Path)
	if err != nil {
		m, err := bridge.Read(src, nil)
		if err != nil {
			return nil, err
		}
		k := &KnownWeights{Model: m}
		if m.Preprocess != nil {
			k.Transforms = m.Preprocess.Specs()
		}
		return k, nil
	}
	cfg, p, err := open(c)
	if err != nil {
		return nil, err
	}
	k := &KnownWeights{Model: &bridge.Model{Description: *describe(cfg, p), About: "a " + cfg.Model.Kind + " of this program"}, Transforms: cfg.Data.EvalTransforms}
	for _, l := range cfg.Losses {
		k.Objectives = append(k.Objectives, l.Name)
	}
	if p.tok != nil {
		t := p.tok.Config()
		k.Vocabulary, k.Entries = &t, p.tok.VocabSize()
	}
	return k, nil
}

// TensorDiff is how a tensor of two models differs.
type TensorDiff struct {
	Name     string     `json:"name"`
	Only     string     `json:"only,omitempty"` // the file that has it
	Shapes   [2][]int   `json:"shapes"`
	Largest  Difference `json:"largest"`
	Relative Difference `json:"relative"` // to the largest magnitude in the first
}

// Differ reports whether the two are not equal.
func (d *TensorDiff) Differ() bool {
	return d.Only != "" || d.Largest != 0 || !slices.Equal(d.Shapes[0], d.Shapes[1])
}

// Difference is a distance of two numbers, infinite between tensors of different shapes and where one is NaN. JSON has no infinity: it is null there.
type Difference float64

// MarshalJSON writes the number.
func (d Difference) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(d), 0) || d != d {
		return []byte("null"), nil
	}
	return json.Marshal(float64(d))
}

// namedTensors are tensors by name, read as float32.
type namedTensors struct {
	shapes map[string][]int
	read   func(name string) ([]float32, error)
}

// ours gives a source's tensors under our names if it is a model that is known.
func ours(src *bridge.Source) (namedTensors, bool) {
	m, err := bridge.Read(src, nil)
	if err != nil {
		return namedTensors{}, false
	}
	n := namedTensors{shapes: map[string][]int{}}
	byName := map[string]safetensors.Tensor{}
	for _, t := range m.Tensors {
		n.shapes[t.Name], byName[t.Name] = t.Shape, t
	}
	n.read = func(name string) ([]float32, error) {
		t := byName[name]
		return t.Float32()
	}
	return n, true
}

// plain gives a source's tensors under their own names.
func plain(src *bridge.Source) (namedTensors, error) {
	n := namedTensors{shapes: map[string][]int{}}
	for _, name := range src.Names() {
		info, err := src.Info(name)
		if err != nil {
			return n, err
		}
		n.shapes[name] = info.Shape
	}
	n.read = func(name string) ([]float32, error) {
		v := make([]float32, safetensors.Info{Shape: n.shapes[name]}.Len())
		return v, src.ReadFloat32(name, v)
	}
	return n, nil
}

// DiffWeights compares two files, folders or runs: under our names if both are models that are known, else under their own. Each tensor's largest
// difference is given, in the order of the names.
func DiffWeights(a, b string) ([]TensorDiff, error) {
	var srcs [2]*bridge.Source
	for i, path := range []string{a, b} {
		src, err := OpenWeights(path)
		if err != nil {
			return nil, err
		}
		defer src.Close()
		srcs[i] = src
	}
	x, ok1 := ours(srcs[0])
	y, ok2 := ours(srcs[1])
	if !ok1 || !ok2 {
		var err1, err2 error
		x, err1 = plain(srcs[0])
		y, err2 = plain(srcs[1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
	}
	names := maps.Clone(x.shapes)
	maps.Copy(names, y.shapes)
	var out []TensorDiff
	for _, name := range slices.Sorted(maps.Keys(names)) {
		sx, inX := x.shapes[name]
		sy, inY := y.shapes[name]
		d := TensorDiff{Name: name, Shapes: [2][]int{sx, sy}}
		switch {
		case !inX:
			d.Only = b
		case !inY:
			d.Only = a
		case slices.Equal(sx, sy):
			v, err := x.read(name)
			if err != nil {
				return nil, err
			}
			w, err := y.read(name)
			if err != nil {
				return nil, err
			}
			d.Largest, d.Relative = farthest(w, v)
		}
		out = append(out, d)
	}
	return out, nil
}

// farthest returns the largest difference, and its ratio to the largest magnitude in want. NaN equals only NaN.
func farthest(got, want []float32) (abs, rel Difference) {
	if len(got) != len(want) {
		return Difference(math.Inf(1)), Difference(math.Inf(1))
	}
	largest, most := 0.0, 0.0
	for i := range got {
		g, w := float64(got[i]), float64(want[i])
		d := math.Abs(g - w)
		if g == w || g != g && w != w {
			d = 0
		} else if d != d {
			d = math.Inf(1)
		}
		largest = max(largest, d)
		if !math.IsNaN(w) {
			most = max(most, math.Abs(w))
		}
	}
	if largest == 0 {
		return 0, 0
	}
	return Difference(largest), Difference(largest / most)
}
