package bridge

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"diptych/checkpoints/safetensors"
	"diptych/data/tokenizer"
	"diptych/model"
)

// family is a public naming of the weights of one kind of model.
type family struct {
	name   string   // as the command takes and prints it
	about  string   // whose names they are
	keys   []string // names that tell it from the others; all are there
	rows   []row
	ignore []string // patterns of names that carry no weights: buffers
	// config reads the model's configuration off shapes, and off the config.json where there is one.
	config func(f *family, v *view) (*Description, error)
	// files returns the files that its library wants beside the weights, by name; nil for a family that is only read.
	files func(d *Description) (map[string][]byte, error)
	// weights is the name of the file of weights that its library looks for.
	weights string
	// positions is how its library brings positions to another picture size.
	positions string
}

// families are the ones that are known. The first whose keys a file has is its family.
var families = []*family{openAI, openCLIP, openCLIPCustom, hfCLIP, timm, hfViT, google, bigVision, bigVisionScan}

// Description is what a file says about its model.
type Description struct {
	Model      model.Config
	LogitBias  bool                // it has the sigmoid loss's bias
	Preprocess *Preprocess         // nil if nothing says how pictures are prepared
	Classes    []string            // of a classifier's scores, in order; nil if they have no names
	Tokenizer  tokenizer.Tokenizer // of the texts; for writing only
	Positions  string              // how positions are brought to another picture size: a name of methods
	Notes      []string            // what was assumed
}

// Model is a model in a public file, in our names.
type Model struct {
	Description
	Family  string
	About   string
	Prefix  string   // before all names in the file
	Beside  []string // tensors in the file that are not the model's: optimizer states
	Unknown []string // tensors among the model's that no row names
	Tensors []safetensors.Tensor
}

// Summary says the sizes of a model in a line.
func (m *Model) Summary() string {
	c := &m.Description.Model
	v, t := &c.Vision, &c.Text
	s := fmt.Sprintf("pictures of %d px in patches of %d, width %d, %d blocks, %d heads, %s", v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads, v.Activation)
	if t.Width > 0 {
		s += fmt.Sprintf("; texts of %d tokens of %d, width %d, %d blocks, %d heads; joint space of %d", t.ContextLength, t.VocabSize, t.Width, t.Depth, t.NumHeads, c.EmbedDim)
	}
	return s
}

// FamilyNames lists the families, and those that can be written.
func FamilyNames() (all, writable []string) {
	for _, f := range families {
		all = append(all, f.name)
		if f.files != nil {
			writable = append(writable, f.name)
		}
	}
	return all, writable
}

// recognise finds the family of a file's names and the prefix before them.
func recognise(s *Source) (*family, *view, error) {
	names := s.Names()
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	for _, f := range families {
		var prefixes []string
		for _, n := range names {
			if prefix, ok := strings.CutSuffix(n, f.keys[0]); ok && (prefix == "" || strings.HasSuffix(prefix, ".") || strings.HasSuffix(prefix, "/")) {
				prefixes = append(prefixes, prefix)
			}
		}
		slices.SortFunc(prefixes, func(a, b string) int { return len(a) - len(b) }) // of several, averages have the longer ones
		for _, p := range prefixes {
			if !slices.ContainsFunc(f.keys, func(k string) bool { return !have[p+k] }) {
				return f, newView(s, p), nil
			}
		}
	}
	all, _ := FamilyNames()
	few := names[:min(4, len(names))]
	return nil, nil, fmt.Errorf("%s: %w: %d tensors, such as %s; known: %s", s.Path, ErrUnknown, len(names), strings.Join(few, ", "), strings.Join(all, ", "))
}

// Read recognises a file and gives its model in our names. adjust, if not nil, may change the configuration that was read off before the
// tensors are compared with it. Missing and mis-shaped tensors, and those that no row of the family's table names, are listed in one error.
func Read(s *Source, adjust func(*Description) error) (*Model, error) {
	m, err := read(s, adjust)
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return m, nil
}

func read(s *Source, adjust func(*Description) error) (*Model, error) {
	f, v, err := recognise(s)
	if err != nil {
		return nil, err
	}
	d, err := f.config(f, v)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.Path, f.about, err)
	}
	d.Positions = f.positions
	if adjust != nil {
		if err := adjust(d); err != nil {
			return nil, err
		}
	}
	layout, err := d.layout()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.Path, f.about, err)
	}
	m := &Model{Description: *d, Family: f.name, About: f.about, Prefix: v.prefix, Beside: v.beside}
	used := map[string]bool{}
	var faults []error
	for _, p := range layout.Params {
		r, block, ok := resolve(f.rows, p.Name)
		if !ok {
			faults = append(faults, fmt.Errorf("%s %v: the family %s has no name for it", p.Name, p.Shape, f.name))
			continue
		}
		for _, t := range r.theirs {
			used[t] = true
		}
		shape := p.Shape
		stored := v.shape(f.rows, p.Name)
		resized := positionTables[p.Name] && len(stored) == 2 && stored[0] != shape[0] && stored[1] == shape[1]
		if resized {
			shape = stored
		}
		t, err := v.ours(r, block, shape)
		if err == nil && resized {
			t, err = resizeTensor(t, p.Name, p.Shape, d)
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		m.Tensors = append(m.Tensors, t)
	}
	for _, name := range slices.Sorted(maps.Keys(v.names)) {
		if !used[name] && !ignored(f.ignore, name) {
			m.Unknown = append(m.Unknown, name)
			info, _ := v.info(name)
			faults = append(faults, fmt.Errorf("%s %v is not known", name, info.Shape))
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s: %s: %w:\n%w", s.Path, f.about, ErrMismatch, errors.Join(faults...))
	}
	return m, nil
}

// positionTables are our parameters that are brought to another number of positions.
var positionTables = map[string]bool{"visual.positional_embedding": true, "pos_embed": true, "positional_embedding": true}

// resizeTensor brings a table of positions to the shape that the model wants. A text's is resized as open_clip does.
func resizeTensor(t safetensors.Tensor, name string, want []int, d *Description) (safetensors.Tensor, error) {
	table, err := t.Float32()
	if err != nil {
		return t, err
	}
	method, skip := d.Positions, 0
	from, to := [2]int{1, t.Shape[0]}, [2]int{1, want[0]}
	if name != "positional_embedding" {
		v := &d.Model.Vision
		skip = want[0] - v.NumPatches()
		old, err := side(t.Shape[0], skip)
		if err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		from, to = [2]int{old, old}, [2]int{v.ImageSize / v.PatchSize, v.ImageSize / v.PatchSize}
	} else {
		method = MethodTimmNPZ
	}
	table, err = ResizePositions(method, table, want[1], skip, from, to)
	if err != nil {
		return t, err
	}
	return safetensors.Floats(name, want, table), nil
}

// layout returns the parameters of the model that is described.
func (d *Description) layout() (*model.Layout, error) {
	m, err := model.New(d.Model, model.Heads{LogitBias: d.LogitBias})
	if err != nil {
		return nil, err
	}
	return m.Parameters(), nil
}

// Public gives our tensors in the names of a family, and the files that its library wants beside them. info and stream read our tensors.
func Public(familyName string, d *Description, names []string, info func(name string) (safetensors.Info, error),
	stream func(name string, use func(b []byte) error) error) (tensors []safetensors.Tensor, files map[string][]byte, weights string, err error) {
	i := slices.IndexFunc(families, func(f *family) bool { return f.name == familyName && f.files != nil })
	if i < 0 {
		_, writable := FamilyNames()
		return nil, nil, "", fmt.Errorf("bridge: %q is no family that can be written; there are %s", familyName, strings.Join(writable, ", "))
	}
	f := families[i]
	tower := f == timm && d.Model.Kind == "clip" // of a dual encoder the image tower alone
	if tower {
		f = timmCLIP
	}
	plain := *d
	if d.Model.Kind == "clip" && d.Model.Vision.PatchBias {
		if names, info, stream, err = foldBias(&plain, names, info, stream); err != nil {
			return nil, nil, "", fmt.Errorf("bridge: %s: %w", f.about, err)
		}
		d = &plain
	}
	for _, name := range names {
		r, block, ok := resolve(f.rows, name)
		if tower && !ok && !strings.HasPrefix(name, "visual.") {
			continue
		}
		if !ok || block >= 0 {
			return nil, nil, "", fmt.Errorf("bridge: %s has no name for %s: the model is not of its form", f.about, name)
		}
		in, err := info(name)
		if err != nil {
			return nil, nil, "", err
		}
		out, err := public(r, in, func(use func(b []byte) error) error { return stream(name, use) })
		if err != nil {
			return nil, nil, "", fmt.Errorf("bridge: %w", err)
		}
		tensors = append(tensors, out...)
	}
	if tower { // timm's head has a bias
		tensors = append(tensors, safetensors.Floats("head.bias", []int{d.Model.EmbedDim}, make([]float32, d.Model.EmbedDim)))
	}
	if files, err = f.files(d); err != nil {
		return nil, nil, "", fmt.Errorf("bridge: %s: %w", f.about, err)
	}
	return tensors, files, f.weights, nil
}

// Named gives values that lie as our parameters do, such as gradients, under public names. The family is the first that has all of those that are
// wanted; nil if none has.
func Named(wanted []string, params []*model.Param, slab []float32) (map[string][]float32, error) {
	for _, f := range families {
		out := map[string][]float32{}
		for _, p := range params {
			r, block, ok := resolve(f.rows, p.Name)
			if !ok || block >= 0 {
				continue
			}
			values := safetensors.Floats(p.Name, p.Shape, p.Slice(slab))
			info := safetensors.Info{Name: p.Name, DType: safetensors.F32, Shape: p.Shape}
			tensors, err := public(r, info, func(use func(b []byte) error) error { return values.Write(pieces(use)) })
			if err != nil {
				continue // a form that is only read
			}
			for _, t := range tensors {
				if out[t.Name], err = t.Float32(); err != nil {
					return nil, fmt.Errorf("bridge: %w", err)
				}
			}
		}
		if !slices.ContainsFunc(wanted, func(n string) bool { return out[n] == nil }) {
			return out, nil
		}
	}
	return nil, nil
}

// pieces makes a writer of what takes bytes.
type pieces func(b []byte) error

func (p pieces) Write(b []byte) (int, error) { return len(b), p(b) }

// foldBias adds the bias of a dual encoder's patches, which no public CLIP has, to the positions of the patches: the sum that enters the tower is the same.
func foldBias(d *Description, names []string, info func(name string) (safetensors.Info, error), stream func(name string, use func(b []byte) error) error,
) ([]string, func(name string) (safetensors.Info, error), func(name string, use func(b []byte) error) error, error) {
	const bias, positions = "visual.conv1.bias", "visual.positional_embedding"
	if d.Model.Vision.Positions != "learned" {
		return nil, nil, nil, fmt.Errorf("a patch bias needs learned positions to go into, not %s", d.Model.Vision.Positions)
	}
	d.Model.Vision.PatchBias = false
	folded := func(name string, use func(b []byte) error) error {
		if name != positions {
			return stream(name, use)
		}
		read := func(name string) ([]float32, safetensors.Info, error) {
			i, err := info(name)
			if err != nil {
				return nil, i, err
			}
			t := safetensors.Streamed(name, i.DType, i.Shape, func(use func(b []byte) error) error { return stream(name, use) })
			v, err := t.Float32()
			return v, i, err
		}
		b, _, err := read(bias)
		if err != nil {
			return err
		}
		table, i, err := read(positions)
		if err != nil {
			return err
		}
		skip := (d.Model.Vision.NumTokens() - d.Model.Vision.NumPatches()) * len(b)
		for k := range table[skip:] {
			table[skip+k] += b[k%len(b)]
		}
		return use(i.DType.Narrow(table))
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == bias })
	return names, info, folded, nil
}

// shape returns the shape of one of our parameters as its public tensors give it, nil if they are not there.
func (v *view) shape(rows []row, ours string) []int {
	r, block, ok := resolve(rows, ours)
	if !ok {
		return nil
	}
	info, ok := v.info(r.theirs[0])
	if !ok {
		return nil
	}
	shape := slices.Clone(info.Shape)
	if block >= 0 && len(shape) > 0 {
		shape = shape[1:]
	}
	if len(r.how.axes) == len(shape) && r.how.axes != nil {
		for i, a := range r.how.axes {
			shape[i] = info.Shape[len(info.Shape)-len(shape)+a]
		}
	}
	for range r.how.lead {
		if len(shape) > 0 && shape[0] == 1 {
			shape = shape[1:]
		}
	}
	if len(shape) > 0 {
		shape[0] *= len(r.theirs)
	}
	return shape
}

// axis returns a dimension of one of our parameters as its public tensors give it, 0 if they have none.
func (v *view) axis(rows []row, ours string, axis int) int {
	if s := v.shape(rows, ours); axis < len(s) {
		return s[axis]
	}
	return 0
}

// blocks counts the blocks whose first norm's name pattern makes with 0, 1, …
func (v *view) blocks(rows []row, pattern string) int {
	for n := 0; ; n++ {
		s := v.shape(rows, fmt.Sprintf(pattern, n))
		if s == nil {
			return n
		}
		if r, block, _ := resolve(rows, fmt.Sprintf(pattern, n)); block >= 0 { // numbered by a leading axis
			return v.dim(r.theirs[0], 0)
		}
	}
}

// has reports whether the public tensors of one of our parameters are there.
func (v *view) has(rows []row, ours string) bool { return v.shape(rows, ours) != nil }
