package experiments

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	"diptych/optim"
	"diptych/train"
)

// Verified is a stored tensor of a reference beside what the model here makes of its inputs.
type Verified struct {
	Name     string  `json:"name"`
	Computed bool    `json:"computed"` // false: nothing here corresponds to it
	Largest  float64 `json:"largest"`  // difference; infinite where the shapes differ
	Relative float64 `json:"relative"` // to the largest stored magnitude
	Atol     float64 `json:"atol"`
	OK       bool    `json:"ok"`
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

// first reads the first of some tensors that is there.
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
			v.OK = v.Largest <= v.Atol
		}
		out = append(out, v)
	}
	return out, nil
}

// farthest returns the largest difference, and its ratio to the largest magnitude in want. NaN equals only NaN.
func farthest(got, want []float32) (abs, rel float64) {
	if len(got) != len(want) {
		return math.Inf(1), math.Inf(1)
	}
	most := 0.0
	for i := range got {
		g, w := float64(got[i]), float64(want[i])
		d := math.Abs(g - w)
		if g == w || g != g && w != w {
			d = 0
		} else if d != d {
			d = math.Inf(1)
		}
		abs = max(abs, d)
		if !math.IsNaN(w) {
			most = max(most, math.Abs(w))
		}
	}
	if abs == 0 {
		return 0, 0
	}
	return abs, abs / most
}

// tables computes a fixture of position tables: in.CASE.pos resampled to the grids that its config.json gives, and fixed tables.
func (f *Fixture) tables(results map[string][]float32) error {
	text, err := os.ReadFile(filepath.Join(f.Dir, "config.json"))
	if err != nil {
		return fmt.Errorf("experiments: %s has no weights: %w", f.Dir, err)
	}
	var cfg struct {
		Cases []struct {
			Name string
			Old  int
			New  [2]int
		}
		Text []struct {
			Name     string
			Old, New int
		} `json:"text_cases"`
		SinCos [][2]int
	}
	if err := json.Unmarshal(text, &cfg); err != nil || len(cfg.Cases) == 0 {
		return fmt.Errorf("experiments: %s has neither weights nor cases of position tables: give the weights", f.Dir)
	}
	resize := func(name, suffix, method string, skip int, from, to [2]int) error {
		table, shape, err := f.io.Float32("in." + name + ".pos")
		if err != nil {
			return err
		}
		results["out."+name+"."+suffix], err = bridge.ResizePositions(method, table, shape[1], skip, from, to)
		return err
	}
	for _, c := range cfg.Cases {
		for suffix, method := range map[string]string{
			"open_clip": bridge.MethodOpenCLIP, "timm": bridge.MethodOpenCLIP, "timm_npz": bridge.MethodTimmNPZ, "hf_clip": bridge.MethodHF, "google": bridge.MethodGoogle,
		} {
			if err := resize(c.Name, suffix, method, 1, [2]int{c.Old, c.Old}, c.New); err != nil {
				return err
			}
		}
	}
	for _, c := range cfg.Text {
		if err := resize(c.Name, "open_clip_text", bridge.MethodTimmNPZ, 0, [2]int{1, c.Old}, [2]int{1, c.New}); err != nil {
			return err
		}
	}
	for _, c := range cfg.SinCos {
		for suffix, positions := range map[string]string{"open_clip": "sincos2d", "timm": "sincos2d_timm"} {
			m := model.DefaultViT()
			v := &m.Vision
			v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, v.Positions, m.NumClasses = c[0], 1, 1, c[1], 1, positions, 1
			if suffix == "timm" {
				v.ClassToken, v.Pool = false, "avg"
			}
			vit, err := model.NewViT(m)
			if err != nil {
				return err
			}
			pool := kernel.NewPool(1)
			slab := make([]float32, vit.Layout.Size)
			vit.Layout.Init(pool, slab, 0)
			pool.Close()
			results[fmt.Sprintf("out.sincos.%dx%d.%s", c[0], c[1], suffix)] = vit.Layout.Find("pos_embed").Slice(slab)
		}
	}
	return nil
}

// load fills a slab with the weights of a run or a public file.
func (f *Fixture) load(path string, sets []string) (m model.Model, cfg model.Config, slab []float32, err error) {
	if c, _, err := checkpoints.Find(path); err == nil {
		root, p, err := open(c)
		if err != nil {
			return nil, cfg, nil, err
		}
		l := p.model.Parameters()
		slab = make([]float32, l.Size)
		file := fileModel
		if c.Has(fileAverage) {
			file = fileAverage
		}
		return p.model, root.Model, slab, c.Load(file, tensors(l, "", slab))
	} else if errors.Is(err, checkpoints.ErrCorrupt) || errors.Is(err, checkpoints.ErrVersion) {
		return nil, cfg, nil, err
	}
	src, err := bridge.Open(path)
	if err != nil {
		return nil, cfg, nil, err
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
		return nil, cfg, nil, err
	}
	cfg = read.Description.Model
	if m, err = model.New(cfg, model.Heads{LogitBias: read.LogitBias}); err != nil {
		return nil, cfg, nil, err
	}
	slab = make([]float32, m.Parameters().Size)
	for _, t := range read.Tensors {
		v, err := t.Float32()
		if err != nil {
			return nil, cfg, nil, err
		}
		copy(m.Parameters().Find(t.Name).Slice(slab), v)
	}
	return m, cfg, slab, nil
}

// model runs a fixture's inputs through a model and puts what corresponds to its stored tensors into results.
func (f *Fixture) model(path string, sets []string, threads int, results map[string][]float32) error {
	m, cfg, slab, err := f.load(path, sets)
	if err != nil {
		return err
	}
	name, shape := f.first("in.image", "in.pixel_values")
	side := cfg.Vision.ImageSize
	if len(shape) != 4 || shape[1] != 3 || shape[2] != side || shape[3] != side {
		return fmt.Errorf("experiments: %s: in.image or in.pixel_values has shape %v, the model takes (B, 3, %d, %d)", f.Dir, shape, side, side)
	}
	b := &batch.Batch{Pairs: make([]batch.Pair, shape[0])}
	if b.Normalized, _, err = f.io.Float32(name); err != nil {
		return err
	}
	for i := range b.Pairs {
		b.Pairs[i] = batch.Pair{Row: i, Group: int32(i), Label: -1}
	}
	pool := kernel.NewPool(threads)
	defer pool.Close()
	objective := ""
	switch m := m.(type) {
	case *model.CLIP:
		objective, err = f.clip(m, b, slab, pool, results)
	case *model.ViT:
		objective, err = f.vit(m, b, slab, pool, results)
	default:
		err = fmt.Errorf("experiments: %s: models of kind %s have no verification", path, cfg.Kind)
	}
	if err != nil || objective == "" {
		return err
	}
	return f.gradient(m, objective, b, slab, threads, results)
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

// clip computes the outputs of a dual encoder, under open_clip's and transformers' names, and says which objective the fixture differentiates.
func (f *Fixture) clip(m *model.CLIP, b *batch.Batch, slab []float32, pool *kernel.Pool, results map[string][]float32) (string, error) {
	n := len(b.Pairs)
	images, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
		in := m.NewImages(g, "image", n, [3]float32{}, [3]float32{1, 1, 1})
		return []*ops.Node{m.Features(g, in), m.EncodeImage(g, in)}, func(p *ops.Program) error { in.SetFloat(p, b.Normalized, n); return nil }
	})
	if err != nil {
		return "", err
	}
	imageProject, textProject := m.Projections()
	put := func(values []float32, names ...string) {
		for _, name := range names {
			results[name] = values
		}
	}
	raw := project(images[0], imageProject, slab)
	put(f.pooler("out.vision_pooler", images[0], raw), "out.vision_pooler")
	put(images[1], "out.image_features", "out.image_embeds")
	put(raw, "out.image_raw")
	var textEmbed []float32
	for _, key := range []string{"in.text", "in.input_ids", "in.input_ids.zero", "in.input_ids.one", "in.input_ids.eot"} { // the last is what the rest refers to
		ids, err := f.io.Ints(key)
		if err != nil {
			continue
		}
		for i := range b.Pairs {
			b.Pairs[i].Tokens = upToLargest(ids[i*len(ids)/n : (i+1)*len(ids)/n])
		}
		texts, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewTexts(g, "text", n)
			return []*ops.Node{m.TextFeatures(g, in), m.EncodeText(g, in)}, func(p *ops.Program) error {
				rows := make([][]int32, n)
				for i := range rows {
					rows[i] = b.Pairs[i].Tokens
				}
				return in.Set(p, rows)
			}
		})
		if err != nil {
			return "", err
		}
		textEmbed = texts[1]
		put(texts[1], "out.text_features", "out.text_embeds")
		raw := project(texts[0], textProject, slab)
		put(f.pooler("out.text_pooler", texts[0], raw), "out.text_pooler")
		put(raw, "out.text_raw")
		if kind, ok := strings.CutPrefix(key, "in.input_ids."); ok {
			put(raw, "out.text_raw."+kind)
			if kind == "eot" { // a mask and the old way of finding the end change nothing
				put(raw, "out.text_raw.eot_mask", "out.text_raw.legacy_eos")
			}
		}
	}
	if err := f.clipMiddle(m, b, slab, pool, results); err != nil {
		return "", err
	}
	if textEmbed == nil {
		return "", nil
	}
	scale := math.Exp(float64(m.LogitScale.Slice(slab)[0]))
	logits, transposed := make([]float32, n*n), make([]float32, n*n)
	e := m.EmbedDim()
	for i := range n {
		for j := range n {
			dot := 0.0
			for k := range e {
				dot += float64(images[1][i*e+k]) * float64(textEmbed[j*e+k])
			}
			logits[i*n+j], transposed[j*n+i] = float32(scale*dot), float32(scale*dot)
		}
	}
	put([]float32{float32(scale)}, "out.logit_scale")
	put(logits, "out.logits_per_image")
	put(transposed, "out.logits_per_text")
	if name, _ := f.first("loss.contrastive", "loss.clip"); name != "" {
		return "itc", nil
	}
	return "", nil
}

// clipMiddle computes the tokens of the first sample after the norm before the blocks, after each block and after the text's last norm. A stored text row has its padding,
// which a causal tower computes after the text.
func (f *Fixture) clipMiddle(m *model.CLIP, b *batch.Batch, slab []float32, pool *kernel.Pool, results map[string][]float32) error {
	one := b.Normalized[:len(b.Normalized)/len(b.Pairs)]
	for k := range m.Config.Vision.Depth + 1 {
		out, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewImages(g, "image", 1, [3]float32{}, [3]float32{1, 1, 1})
			return []*ops.Node{m.ImageTokens(g, in, k)}, func(p *ops.Program) error { in.SetFloat(p, one, 1); return nil }
		})
		if err != nil {
			return err
		}
		if k == 0 {
			results["out.mid.visual.ln_pre"] = out[0]
		} else {
			results[fmt.Sprintf("out.mid.visual.block%d", k-1)] = out[0]
		}
	}
	ids, err := f.io.Ints("in.text")
	if err != nil {
		return nil // only open_clip's fixtures have them
	}
	row := make([]int32, len(ids)/len(b.Pairs))
	for i := range row {
		row[i] = int32(ids[i])
	}
	depth := m.Config.Text.Depth
	for k := range depth + 1 {
		out, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewTexts(g, "text", 1)
			x := m.TextTokens(g, in, min(k+1, depth))
			if k == depth {
				x = m.TextNorm(g, x)
			}
			return []*ops.Node{x}, func(p *ops.Program) error { return in.Set(p, [][]int32{row}) }
		})
		if err != nil {
			return err
		}
		if k == depth {
			results["out.mid.text.ln_final"] = out[0]
		} else {
			results[fmt.Sprintf("out.mid.text.block%d", k)] = out[0]
		}
	}
	return nil
}

// pooler returns what transformers calls a tower's pooler_output: the row before the projection, or, from version 5 on in what get_image_features and
// get_text_features return, the projected one. The stored width tells which.
func (f *Fixture) pooler(name string, pooled, projected []float32) []float32 {
	if info, err := f.io.Info(name); err == nil && info.Len() == len(projected) {
		return projected
	}
	return pooled
}

// upToLargest cuts a row of token ids after its largest, which ends the text; what follows is padding.
func upToLargest(row []int64) []int32 {
	end := 0
	for j, id := range row {
		if id > row[end] {
			end = j
		}
	}
	out := make([]int32, end+1)
	for j := range out {
		out[j] = int32(row[j])
	}
	return out
}

// project multiplies rows (B, D) with a matrix (D, E) of the slab.
func project(x []float32, p *model.Param, slab []float32) []float32 {
	d, e := p.Shape[0], p.Shape[1]
	w := p.Slice(slab)
	out := make([]float32, len(x)/d*e)
	for i := range len(x) / d {
		for j := range e {
			dot := 0.0
			for k := range d {
				dot += float64(x[i*d+k]) * float64(w[k*e+j])
			}
			out[i*e+j] = float32(dot)
		}
	}
	return out
}

// vit computes the outputs of a classifier.
func (f *Fixture) vit(m *model.ViT, b *batch.Batch, slab []float32, pool *kernel.Pool, results map[string][]float32) (string, error) {
	n := len(b.Pairs)
	out, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
		in := m.NewImages(g, "image", n, [3]float32{}, [3]float32{1, 1, 1})
		pooled := m.Features(g, in)
		return []*ops.Node{pooled, m.Scores(g, pooled)}, func(p *ops.Program) error { in.SetFloat(p, b.Normalized, n); return nil }
	})
	if err != nil {
		return "", err
	}
	results["out.pooled"], results["out.logits"] = out[0], out[1]
	depth := m.Config.Vision.Depth
	for k := range depth + 1 {
		tokens, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewImages(g, "image", n, [3]float32{}, [3]float32{1, 1, 1})
			return []*ops.Node{m.Tokens(g, in, min(k+1, depth), k == depth)}, func(p *ops.Program) error { in.SetFloat(p, b.Normalized, n); return nil }
		})
		if err != nil {
			return "", err
		}
		if k == depth {
			results["out.features"], results["out.last_hidden_state"] = tokens[0], tokens[0]
		} else {
			results[fmt.Sprintf("out.mid.block%d", k)] = tokens[0][:len(tokens[0])/n]
		}
	}
	name, _ := f.first("in.label", "in.labels")
	if loss, _ := f.first("loss.cross_entropy"); name == "" || loss == "" {
		return "", nil
	}
	labels, err := f.io.Ints(name)
	if err != nil {
		return "", err
	}
	if len(labels) != n {
		return "", fmt.Errorf("experiments: %s: %s has %d classes for %d pictures", f.Dir, name, len(labels), n)
	}
	for i, l := range labels {
		b.Pairs[i].Label = int32(l)
	}
	return "classify", nil
}

// gradient computes the objective's value and every parameter's gradient.
func (f *Fixture) gradient(m model.Model, objective string, b *batch.Batch, slab []float32, threads int, results map[string][]float32) error {
	n := len(b.Pairs)
	tr, err := train.New(train.Config{Steps: 1, GlobalBatch: n, GrainSize: n, Lanes: 1, KeepLast: 1}, train.Options{
		Model: m, Losses: []losses.Config{{Name: objective, Weight: 1}}, Optim: optim.Default(), Std: [3]float32{1, 1, 1},
		Resources: train.Resources{Workers: 1, Threads: threads},
	})
	if err != nil {
		return err
	}
	defer tr.Close()
	copy(tr.Weights(), slab)
	terms, grads, err := tr.Gradient(b)
	if err != nil {
		return err
	}
	for _, name := range []string{"loss.contrastive", "loss.clip", "loss.cross_entropy"} {
		results[name] = []float32{float32(terms[0])}
	}
	var wanted []string
	for _, name := range f.io.Names() {
		if param, ok := strings.CutPrefix(name, "grad."); ok {
			wanted = append(wanted, param)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	named, err := bridge.Named(wanted, m.Parameters().Params, grads)
	if err != nil {
		return err
	}
	for _, param := range wanted {
		if v, ok := named[param]; ok {
			results["grad."+param] = v
		}
	}
	return nil
}
