// Package golden gives tests the golden fixtures: folders with the inputs, weights, outputs, losses and gradients of a public
// reference implementation. A folder holds golden.json (what each tensor is, and its tolerance), io.safetensors (in.*, out.*, loss.*,
// grad.*) and, if there is a model, its weights.
//
// A test loads a folder, computes from its inputs, and calls [Folder.Check] for every result:
//
//	f := golden.Load(t, "testdata/clip-gelu")
//	image := f.Float32("in.image")
//	…
//	f.Check(t, "out.image_features", features)
package golden

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"diptych/checkpoints/safetensors"
)

// Folder is a loaded fixture. Its methods fail the test they were loaded for, at once, when something is not there.
type Folder struct {
	t       testing.TB
	dir     string
	io      *safetensors.File
	weights *safetensors.File
	atol    map[string]float64
}

// Load opens the fixture in dir; its files are closed when the test ends.
func Load(t testing.TB, dir string) *Folder {
	t.Helper()
	f := &Folder{t: t, dir: dir, atol: map[string]float64{}}
	var head struct {
		Weights   string
		Tolerance struct {
			Tensors map[string]struct{ Atol *float64 }
		}
	}
	f.JSON("golden.json", &head)
	for name, e := range head.Tolerance.Tensors {
		if e.Atol == nil {
			t.Fatalf("golden: %s: tensor %q has a tolerance without atol", dir, name)
		}
		f.atol[name] = *e.Atol
	}
	f.io = f.open("io.safetensors")
	if head.Weights != "" {
		f.weights = f.open(head.Weights)
	}
	return f
}

func (f *Folder) open(name string) *safetensors.File {
	f.t.Helper()
	file, err := safetensors.Open(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { file.Close() })
	return file
}

// JSON decodes a JSON file of the folder into v.
func (f *Folder) JSON(file string, v any) {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, file))
	if err != nil {
		f.t.Fatalf("golden: %v", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		f.t.Fatalf("golden: %s: %v", filepath.Join(f.dir, file), err)
	}
}

// Names returns the names in io.safetensors.
func (f *Folder) Names() []string { return f.io.Names() }

// Has reports whether io.safetensors has a tensor.
func (f *Folder) Has(name string) bool {
	_, err := f.io.Info(name)
	return err == nil
}

// Float32 returns a tensor of io.safetensors.
func (f *Folder) Float32(name string) []float32 {
	f.t.Helper()
	v, _, err := f.io.Float32(name)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// Scalar returns a tensor of one element.
func (f *Folder) Scalar(name string) float32 {
	f.t.Helper()
	v := f.Float32(name)
	if len(v) != 1 {
		f.t.Fatalf("golden: %s: %q has %d elements instead of one", f.dir, name, len(v))
	}
	return v[0]
}

// Ints returns a tensor of integers or booleans of io.safetensors.
func (f *Folder) Ints(name string) []int64 {
	f.t.Helper()
	v, err := f.io.Ints(name)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// Shape returns the shape of a tensor of io.safetensors.
func (f *Folder) Shape(name string) []int {
	f.t.Helper()
	info, err := f.io.Info(name)
	if err != nil {
		f.t.Fatal(err)
	}
	return info.Shape
}

// Weights returns the file of the model's parameters under the reference's names.
func (f *Folder) Weights() *safetensors.File {
	f.t.Helper()
	if f.weights == nil {
		f.t.Fatalf("golden: %s has no weights", f.dir)
	}
	return f.weights
}

// Weight returns a parameter and its shape.
func (f *Folder) Weight(name string) ([]float32, []int) {
	f.t.Helper()
	v, shape, err := f.Weights().Float32(name)
	if err != nil {
		f.t.Fatal(err)
	}
	return v, shape
}

// Atol returns the absolute tolerance of a tensor. One without an entry must be equal bit for bit, which a test says by
// calling [Close] with 0; asking for its tolerance fails the test, so that a misspelt name is not taken for an exact one.
func (f *Folder) Atol(name string) float64 {
	f.t.Helper()
	atol, ok := f.atol[name]
	if !ok {
		f.t.Fatalf("golden: %s: golden.json has no tolerance for %q", f.dir, name)
	}
	return atol
}

// Check compares got with the stored tensor of that name within its tolerance.
func (f *Folder) Check(t testing.TB, name string, got []float32) {
	t.Helper()
	Close(t, name, got, f.Float32(name), f.Atol(name))
}

// Close fails the test, and lets it go on, unless |got - want| <= atol for every element. It reports the largest difference and
// where it is. A NaN equals only a NaN, and an infinity only itself, whatever the tolerance.
func Close[G, W float32 | float64](t testing.TB, name string, got []G, want []W, atol float64) {
	t.Helper()
	if msg := difference(got, want, atol); msg != "" {
		t.Errorf("%s: %s", name, msg)
	}
}

// difference says how got departs from want, "" if it does not.
func difference[G, W float32 | float64](got []G, want []W, atol float64) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d elements, want %d", len(got), len(want))
	}
	wrong, at, largest := 0, 0, -1.0
	for i := range got {
		g, w := float64(got[i]), float64(want[i])
		d := math.Abs(g - w)
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			d = 0
		} else if math.IsNaN(d) {
			d = math.Inf(1) // NaN against a number
		}
		if !(d <= atol) || math.IsInf(d, 1) {
			wrong++
		}
		if d > largest {
			at, largest = i, d
		}
	}
	if wrong == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d elements differ by more than %.3g; most at index %d: got %v, want %v, difference %.3g",
		wrong, len(got), atol, at, got[at], want[at], largest)
}
