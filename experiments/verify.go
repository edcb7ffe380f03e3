package experiments

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/checkpoints"
	"diptych/checkpoints/bridge"
	"diptych/checkpoints/safetensors"
	"diptych/data/batch"
	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
)

// Verified is a stored tensor of a reference beside what the model here makes of its inputs.
type Verified struct {
	Name     string     `json:"name"`
	Computed bool       `json:"computed"` // false: nothing here corresponds to it
	Largest  Difference `json:"largest"`
	Relative Difference `json:"relative"` // to the largest stored magnitude
	Atol     float64    `json:"atol"`
	OK       bool       `json:"ok"`
}

// Fixture is a folder of inputs and outputs of a reference: golden.json with tolerances, io.safetensors with in.*, out.*, loss.* and grad.*,
// and perhaps weights.
type Fixture struct {
	Dir     string
	Weights string // the file of its own weights; empty if it has none
	io      *safetensors.File
	atol    map[string]float64
}

// OpenFixture opens the fixture in dir.
func OpenFixture(dir string) (*Fixture, error) {
	text, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	var head struct {
		Weights   string
		Tolerance struct {
			Tensors map[string]struct{ Atol *float64 }
		}
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("experiments: %s: golden.json: %w", dir, err)
	}
	f := &Fixture{Dir: dir, atol: map[string]float64{}}
	if head.Weights != "" {
		f.Weights = filepath.Join(dir, filepath.Base(head.Weights))
	}
	for name, t := range head.Tolerance.Tensors {
		if t.Atol == nil {
			return nil, fmt.Errorf("experiments: %s: golden.json: %s has a tolerance without atol", dir, name)
		}
		f.atol[name] = *t.Atol
	}
	if f.io, err = safetensors.Open(filepath.Join(dir, "io.safetensors")); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	return f, nil
}

// Close closes its files.
func (f *Fixture) Close() error { return f.io.Close() }

// has reports whether the fixture stores a tensor.
func (f *Fixture) has(name string) bool { _, err := f.io.Info(name); return err == nil }

// first finds the first of some tensors that is there.
func (f *Fixture) first(names ...string) (name string, shape []int) {
	for _, n := range names {
		if info, err := f.io.Info(n); err == nil {
			return n, info.Shape
		}
	}
	return "", nil
}

// Verify compares a model with a fixture: weights is a public file or folder, the model of a run, or an imported folder; empty is the fixture's
// own. It runs the inputs, and the gradient where there is one, and reports every stored out.*, loss.* and grad.* in their order.
// sets are overrides of what a public file says, as for [Import].
func Verify(f *Fixture, weights string, sets []string, threads int) (_ []Verified, err error) {
	defer kernel.CatchNoMemory(&err)
	if weights == "" {
		weights = f.Weights
	}
	results := map[string][]float32{}
	if weights == "" {
		err = f.tables(results)
	} else {
		err = f.model(weights, sets, threads, results)
	}
	if err != nil {
		return nil, err
	}
	var out []Verified
	for _, name := range slices.Sorted(slices.Values(f.io.Names())) {
		if strings.HasPrefix(name, "in.") {
			continue
		}
		v := Verified{Name: name, Atol: f.atol[name]}
		if got, ok := results[name]; ok {
			v.Computed = true
			want, _, err := f.io.Float32(name)
			if err != nil {
				return nil, err
			}
			v.Largest, v.Relative = farthest(got, want)
			v.OK = float64(v.Largest) <= v.Atol
		}
		out = append(out, v)
	}
	return out, nil
}

// load opens the weights of a run or a public file as a model that runs the fixture's inputs, and fills a slab with them.
func (f *Fixture) load(path string, sets []string) (m model.Model, slab []float32, err error) {
	if c, _, err := checkpoints.Find(path); err == nil {
		root, _, err := open(c)
		if err != nil {
			return nil, nil, err
		}
		f.fit(&root.Model)
		if m, err = model.New(root.Model, losses.Heads(root.Losses)); err != nil {
			return nil, nil, err
		}
		slab = newSlab(m)
		file := fileModel
		if c.Has(fileAverage) {
			file = fileAverage
		}
		return m, slab, c.Load(file, tensors(m.Parameters(), "", slab))
	} else if errors.Is(err, checkpoints.ErrCorrupt) || errors.Is(err, checkpoints.ErrVersion) {
		return nil, nil, err
	}
	src, err := bridge.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer src.Close()
	if src.Config == nil {
		src.Config, _ = os.ReadFile(filepath.Join(f.Dir, "config.json")) // none is fine
	}
	read, err := bridge.Read(src, func(d *bridge.Description) error {
		root, err := Default("", "")
		if err != nil {
			return err
		}
		root.Model = d.Model
		if root, err = parse(root.YAML(), path, sets, false); err == nil {
			d.Model = root.Model
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	f.fit(&read.Description.Model)
	if m, err = read.Description.Build(); err != nil {
		return nil, nil, err
	}
	slab = newSlab(m)
	for _, t := range read.Tensors {
		v, err := t.Float32()
		if err != nil {
			return nil, nil, err
		}
		copy(m.Parameters().Find(t.Name).Slice(slab), v)
	}
	return m, slab, nil
}

// newSlab makes a model's slab in the layout that its trainer will have.
func newSlab(m model.Model) []float32 {
	m.Parameters().Freeze(func(string) bool { return false })
	return make([]float32, m.Parameters().Size)
}

// fit takes out of a model what training draws at random, which references were run without, and lets a model of pairs read all of the fixture's pictures,
// whatever their proportions. No parameter depends on either.
func (f *Fixture) fit(c *model.Config) {
	v := &c.Vision
	v.Dropout, v.DropPath, v.PatchDropout, c.Text.Dropout, c.Text.DropPath = 0, 0, 0, 0, 0
	if !c.HasShapes() || v.PatchSize == 0 {
		return
	}
	if _, shape := f.first("in.pixel_values", "in.image", "in.image_0"); len(shape) > 2 {
		patches := (shape[len(shape)-2] / v.PatchSize) * (shape[len(shape)-1] / v.PatchSize)
		grid := v.ImageSize / v.PatchSize
		c.ViLT.LongestSide, c.ViLT.MaxPatches = v.PatchSize*max((patches+grid-1)/grid, grid), 0
	}
}

// model runs a fixture's inputs through a model and puts what corresponds to its stored tensors into results.
func (f *Fixture) model(path string, sets []string, threads int, results map[string][]float32) error {
	m, slab, err := f.load(path, sets)
	if err != nil {
		return err
	}
	pool := kernel.NewPool(threads)
	defer pool.Close()
	switch m := m.(type) {
	case *model.CLIP:
		b, err := f.pictures(&m.Config.Vision, "in.image", "in.pixel_values")
		if err != nil {
			return err
		}
		if err := f.large(m, m.Config, slab, pool, results); err != nil {
			return err
		}
		objective, err := f.clip(m, b, slab, pool, results)
		if err != nil || objective == "" {
			return err
		}
		return f.gradient(m, objective, b, slab, threads, results)
	case *model.ViT:
		b, err := f.pictures(&m.Config.Vision, "in.image", "in.pixel_values")
		if err != nil {
			return err
		}
		if err := f.large(m, m.Config, slab, pool, results); err != nil {
			return err
		}
		objective, err := f.vit(m, b, slab, pool, results)
		if err != nil || objective == "" {
			return err
		}
		return f.gradient(m, objective, b, slab, threads, results)
	case *model.ViLT:
		c := &pairCase{f: f, m: m, slab: slab, pool: pool, threads: threads, results: results}
		if err := c.compute(); err != nil {
			return fmt.Errorf("experiments: %s: %w", f.Dir, err)
		}
		return nil
	}
	return fmt.Errorf("experiments: %s: models of this kind have no verification", path)
}

// pictures returns the fixture's pictures, which a tower takes, under the first of some names.
func (f *Fixture) pictures(v *model.Vision, names ...string) (b *batch.Batch, err error) {
	name, shape := f.first(names...)
	height, width := v.Sides()
	if len(shape) != 4 || shape[1] != 3 || shape[2] != height || shape[3] != width {
		return nil, fmt.Errorf("experiments: %s: %s has shape %v, the model takes (B, 3, %d, %d)", f.Dir, strings.Join(names, " or "), shape, height, width)
	}
	b = &batch.Batch{Pairs: make([]batch.Pair, shape[0])}
	for i := range b.Pairs {
		b.Pairs[i] = batch.Pair{Row: i, Group: int32(i), Label: -1}
	}
	b.Normalized, _, err = f.io.Float32(name)
	return b, err
}

// large computes what a fixture has of larger pictures, of any shape, by the same weights with resampled positions: as transformers does when
// a model is run, or as timm does when it reads Google's files.
func (f *Fixture) large(m model.Model, c model.Config, slab []float32, pool *kernel.Pool, results map[string][]float32) error {
	result, _ := f.first("out.logits.resized", "out.logits.interpolated", "out.image_raw.interpolated")
	_, shape := f.first("in.image_large", "in.pixel_values_large")
	if result == "" || len(shape) != 4 {
		return nil
	}
	s := &Start{Positions: bridge.MethodHF}
	if strings.HasSuffix(result, ".resized") {
		s.Positions = bridge.MethodTimmNPZ
	}
	c.Vision.ImageSize, c.Vision.ImageWidth = shape[2], shape[3]
	larger, err := model.New(c, model.Heads{LogitBias: m.Parameters().Find("logit_bias") != nil})
	if err != nil {
		return fmt.Errorf("experiments: %s: larger pictures: %w", f.Dir, err)
	}
	weights := make([]float32, larger.Parameters().Size)
	for _, p := range larger.Parameters().Params {
		q := m.Parameters().Find(p.Name)
		if slices.Equal(p.Shape, q.Shape) && p.Grid == q.Grid {
			copy(p.Slice(weights), q.Slice(slab))
		} else if err := s.resample(p, q, p.Slice(weights), q.Slice(slab)); err != nil {
			return err
		}
	}
	b, err := f.pictures(&c.Vision, "in.image_large", "in.pixel_values_large")
	if err != nil {
		return err
	}
	out, err := forward(weights, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
		in := larger.NewImages(g, "image", len(b.Pairs), [3]float32{}, [3]float32{1, 1, 1})
		set := func(p *ops.Program) error { in.SetFloat(p, b.Normalized, len(b.Pairs)); return nil }
		if vit, ok := larger.(*model.ViT); ok {
			return []*ops.Node{vit.Scores(g, vit.Features(g, in))}, set
		}
		return []*ops.Node{larger.(*model.CLIP).Features(g, in)}, set
	})
	if err != nil {
		return err
	}
	results[result] = out[0]
	if clip, ok := larger.(*model.CLIP); ok {
		matrix, _ := clip.Projections()
		results[result] = project(out[0], matrix, weights)
	}
	return nil
}

// forward computes outputs of a graph that build makes.
func forward(slab []float32, pool *kernel.Pool, build func(g *ops.Graph) (outputs []*ops.Node, set func(p *ops.Program) error)) ([][]float32, error) {
	g := ops.NewGraph[float32]()
	outputs, set := build(g)
	p, err := g.Compile(ops.CompileOpt[float32]{Outputs: outputs, ForwardOnly: true})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	arena := kernel.NewSlab(p.ArenaSize())
	defer kernel.FreeSlab(arena)
	p.Bind(&ops.Run[float32]{Weights: slab, Arena: arena, Pool: pool})
	if err := set(p); err != nil {
		return nil, err
	}
	if err := p.Forward(); err != nil {
		return nil, err
	}
	var out [][]float32
	for _, n := range outputs {
		out = append(out, slices.Clone(p.Value(n)))
	}
	return out, nil
}
