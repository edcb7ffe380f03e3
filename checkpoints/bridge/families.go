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
	// weights is the name of the file of weights that its library looks for; within, where not empty, the entry of the pickle that holds
	// the tensors there.
	weights, within string
	// positions is how its library brings positions to another picture size.
	positions string
}

// families are the ones that are known. The first whose keys a file has is its family.
var families = []*family{openAI, openCLIP, openCLIPCustom, hfCLIP, vilt, hfViLT, hfViLTBare, timm, hfViT, hfViTBare, google, bigVision, bigVisionScan}

// Description is what a file says about its model.
type Description struct {
	Model      model.Config
	LogitBias  bool                // it has the sigmoid loss's bias
	ViLT       model.ViLTHeads     // of a model of pairs
	Preprocess *Preprocess         // nil if nothing says how pictures are prepared
	Classes    []string            // of a classifier's scores, in order; nil if they have no names
	Tokenizer  tokenizer.Tokenizer // of the texts; for writing only
	Positions  string              // how positions are brought to another picture size: a name of methods
	Notes      []string            // what was assumed

	grid [2]int // of the positions as they are stored
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
	size := fmt.Sprint(v.ImageSize)
	if v.ImageWidth > 0 {
		size = fmt.Sprintf("%d×%d", v.ImageWidth, v.ImageSize)
	}
	s := fmt.Sprintf("pictures of %s px in patches of %d, width %d, %d blocks, %d heads, %s", size, v.PatchSize, v.Width, v.Depth, v.NumHeads, v.Activation)
	if c.Kind == "vilt" {
		s += fmt.Sprintf("; sentences of %d tokens of %d; heads: %s", t.ContextLength, t.VocabSize, strings.Join(m.heads(), ", "))
	}
	if c.Kind == "vit" {
		s += fmt.Sprintf("; %d classes", c.NumClasses)
	}
	if t.Width > 0 {
		s += fmt.Sprintf("; texts of %d tokens of %d, width %d, %d blocks, %d heads; joint space of %d", t.ContextLength, t.VocabSize, t.Width, t.Depth, t.NumHeads, c.EmbedDim)
	}
	return s
}

// heads names the heads of a model of pairs.
func (m *Model) heads() (names []string) {
	h := &m.ViLT
	for _, head := range []struct {
		there bool
		name  string
	}{{h.Match, "matching"}, {h.Words, "masked words"}, {h.Color, "masked patches"}, {h.Rank, "rank"}, {h.Classes > 0, fmt.Sprintf("%s of %d", h.ClassName, h.Classes)}} {
		if head.there {
			names = append(names, head.name)
		}
	}
	if names == nil {
		names = []string{"none"}
	}
	return names
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
	if err := checkParts(s); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	f, v, err := recognise(s)
	if err != nil {
		return nil, err
	}
	d, err := f.config(f, v)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w: %w", s.Path, f.about, ErrUnsupported, err)
	}
	d.Positions, d.grid = f.positions, d.Model.Vision.Grid()
	if adjust != nil {
		if err := adjust(d); err != nil {
			return nil, err
		}
	}
	built, err := d.Build()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w: %w", s.Path, f.about, ErrUnsupported, err)
	}
	m := &Model{Description: *d, Family: f.name, About: f.about, Prefix: v.prefix, Beside: v.beside}
	used := map[string]bool{}
	var faults []error
	for _, p := range built.Parameters().Params {
		r, block, ok := resolve(f.rows, p.Name)
		if !ok {
			faults = append(faults, fmt.Errorf("%s %v: the family %s has no name for it", p.Name, p.Shape, f.name))
			continue
		}
		for _, t := range append(r.theirs, r.also) {
			used[t] = true
		}
		r = v.there(r)
		shape := p.Shape
		stored := v.shape(f.rows, p.Name)
		rows := len(shape) - 2 // the axis of a table's rows
		resized := positionTables[p.Name] && len(stored) == len(shape) && stored[rows+1] == shape[rows+1] &&
			(stored[rows] != shape[rows] || p.Grid != [2]int{} && p.Grid != d.grid)
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
var positionTables = map[string]bool{"visual.positional_embedding": true, "pos_embed": true, "positional_embedding": true, "transformer.pos_embed": true}

// resizeTensor brings a table of positions to the shape that the model wants. A text's is resized as open_clip does.
func resizeTensor(t safetensors.Tensor, name string, want []int, d *Description) (safetensors.Tensor, error) {
	table, err := t.Float32()
	if err != nil {
		return t, err
	}
	method, skip := d.Positions, 0
	rows := len(want) - 2
	from, to := [2]int{1, t.Shape[rows]}, [2]int{1, want[rows]}
	if name != "positional_embedding" {
		v := &d.Model.Vision
		skip = want[rows] - v.NumPatches()
		from, to = d.grid, v.Grid()
	} else {
		method = MethodTimmNPZ
	}
	table, err = ResizePositions(method, table, want[rows+1], skip, from, to)
	if err != nil {
		return t, err
	}
	return safetensors.Floats(name, want, table), nil
}

// Build lays out the model that is described.
func (d *Description) Build() (model.Model, error) {
	if d.Model.Kind == "vilt" {
		return model.NewViLT(d.Model, d.ViLT)
	}
	return model.New(d.Model, model.Heads{LogitBias: d.LogitBias})
}

// Stored are our tensors on disk: a checkpoint's file.
type Stored interface {
	Names() []string
	Info(name string) (safetensors.Info, error)
	Stream(name string, use func(b []byte) error) error
}

// Published is a model in a family's names.
type Published struct {
	Tensors []safetensors.Tensor
	Files   map[string][]byte // that its library wants beside the weights, by name
	Weights string            // the name of the file of weights that its library looks for
	Within  string            // not empty: the entry of the pickle that holds the tensors
	Notes   []string          // what the library has otherwise
}

// Publish gives our tensors in the names of a family, and the files that its library wants beside them.
func Publish(familyName string, d *Description, from Stored) (*Published, error) {
	i := slices.IndexFunc(families, func(f *family) bool { return f.name == familyName && f.files != nil })
	if i < 0 {
		_, writable := FamilyNames()
		return nil, fmt.Errorf("bridge: %q is no family that can be written; there are %s", familyName, strings.Join(writable, ", "))
	}
	f := families[i]
	if v := &d.Model.Vision; f != timm && v.ImageWidth != 0 && v.ImageWidth != v.ImageSize {
		return nil, fmt.Errorf("bridge: %s: pictures of %d×%d pixels: only timm's form has pictures that are not square", f.about, v.ImageWidth, v.ImageSize)
	}
	tower := f == timm && d.Model.Kind == "clip" // of a dual encoder the image tower alone
	if tower {
		f = timmCLIP
	}
	if f == hfViT && d.Model.NumClasses == 0 {
		f = hfViTBare
	}
	plain := *d
	plain.Notes = nil
	switch {
	case d.Model.Kind == "clip" && d.Model.Vision.PatchBias:
		plain.Model.Vision.PatchBias = false
		if d.Model.Vision.Positions != "learned" {
			return nil, fmt.Errorf("bridge: %s: a patch bias needs learned positions to go into, not %s", f.about, d.Model.Vision.Positions)
		}
		from = &folded{from, d.Model.Vision.NumTokens() - d.Model.Vision.NumPatches()}
	case f == vilt && d.ViLT.Words && d.Model.ViLT.TieWords:
		from = untied{from}
	}
	out := &Published{Weights: f.weights, Within: f.within}
	for _, name := range from.Names() {
		r, block, ok := resolve(f.rows, name)
		if tower && !ok && !strings.HasPrefix(name, "visual.") {
			continue
		}
		if !ok || block >= 0 {
			return nil, fmt.Errorf("bridge: %s has no name for %s: the model is not of its form", f.about, name)
		}
		in, err := from.Info(name)
		if err != nil {
			return nil, err
		}
		tensors, err := public(r, in, func(use func(b []byte) error) error { return from.Stream(name, use) })
		if err != nil {
			return nil, fmt.Errorf("bridge: %w", err)
		}
		out.Tensors = append(out.Tensors, tensors...)
	}
	if tower { // timm's head has a bias
		out.Tensors = append(out.Tensors, safetensors.Floats("head.bias", []int{d.Model.EmbedDim}, make([]float32, d.Model.EmbedDim)))
	}
	var err error
	if out.Files, err = f.files(&plain); err != nil {
		return nil, fmt.Errorf("bridge: %s: %w", f.about, err)
	}
	out.Notes = plain.Notes
	return out, nil
}

// Named gives values that lie as our parameters do, such as gradients, under public names. The family is the first that has all of those that are
// wanted; nil if none has. What is frozen has no gradient and is left out.
func Named(wanted []string, params []*model.Param, slab []float32) (map[string][]float32, error) {
	for _, f := range families {
		out, frozen := map[string][]float32{}, map[string]bool{}
		for _, p := range params {
			r, block, ok := resolve(f.rows, p.Name)
			if !ok || block >= 0 {
				continue
			}
			if p.Frozen {
				for _, name := range r.theirs {
					frozen[name] = true
				}
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
		if !slices.ContainsFunc(wanted, func(n string) bool { return out[n] == nil && !frozen[n] }) {
			return out, nil
		}
	}
	return nil, nil
}

// pieces makes a writer of what takes bytes.
type pieces func(b []byte) error

func (p pieces) Write(b []byte) (int, error) { return len(b), p(b) }

// shape returns the shape of one of our parameters as its public tensors give it, nil if they are not there.
func (v *view) shape(rows []row, ours string) []int {
	r, block, ok := resolve(rows, ours)
	if !ok {
		return nil
	}
	r = v.there(r)
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
