package experiments

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"diptych/checkpoints"
	"diptych/checkpoints/bridge"
	"diptych/internal/kernel"
	"diptych/model"
)

// Start says where a run's first weights come from. Its recipe then takes from there what it leaves out: the model, the
// tokenizer and the transforms.
type Start struct {
	From string `yaml:"from,omitempty"` // a run directory, a checkpoint or a model's folder; empty: initial values
	// Words is a folder with a BertModel in Hugging Face's names, from which a vilt that starts from a vit takes its embeddings of words, places and
	// segments with their norm; empty: they begin anew, as in the paper.
	Words string   `yaml:"words,omitempty"`
	New   []string `yaml:"new,omitempty"` // patterns of parameters that begin with initial values all the same, such as head.*
	// Positions is how learned positions come to another number of patches: open_clip, hf, google or timm_npz (spec 1.4), as the
	// weights' source does it.
	Positions string `yaml:"positions,omitempty"`
}

// trained is a model on disk: what OpenModel and a run's start read.
type trained struct {
	*checkpoints.Checkpoint
	config   *Config
	parts    *parts
	warnings []error // damaged checkpoints that were passed over
}

// openTrained reads a model's recipe and builds its parts.
func openTrained(dir string) (*trained, error) {
	c, damaged, err := checkpoints.Find(dir)
	if err != nil {
		return nil, err
	}
	cfg, p, err := open(c)
	if err != nil {
		return nil, err
	}
	return &trained{c, cfg, p, damaged}, nil
}

// weights reads the model's weights, the averaged ones where the run kept them, into a new slab.
func (t *trained) weights() ([]float32, error) {
	slab := kernel.NewSlab(t.parts.model.Parameters().Size)
	file := fileModel
	if t.Has(fileAverage) {
		file = fileAverage
	}
	if err := t.Load(file, tensors(t.parts.model.Parameters(), "", slab)); err != nil {
		kernel.FreeSlab(slab)
		return nil, err
	}
	return slab, nil
}

// startDefaults are the values that a recipe may leave out when it starts from a trained model. tree is the recipe.
func startDefaults(from string, tree map[string]any) (*Config, error) {
	t, err := openTrained(from)
	if err != nil {
		return nil, fmt.Errorf("start.from: %w", err)
	}
	kind, preset := modelNames(tree)
	c, err := Default(kind, preset)
	if err != nil {
		return nil, err
	}
	c.Start.Positions = bridge.MethodOpenCLIP
	if kind != "" && kind != t.config.Model.Kind { // of another kind only weights can be had
		c.Start.Positions = bridge.MethodGoogle // as a vilt does it for each picture
		return c, nil
	}
	if preset == "" {
		c.Model = t.config.Model
	}
	d, _ := tree["data"].(map[string]any)
	c.Model.NumClasses = 0 // those of the new data
	if tok, _ := d["tokenizer"].(map[string]any); tok["kind"] == nil && tok["file"] == nil {
		c.Data.Tokenizer = t.config.Data.Tokenizer
		c.Data.Tokenizer.ContextLength = 0 // the model's
	}
	c.Data.Transforms, c.Data.EvalTransforms = t.config.Data.Transforms, t.config.Data.EvalTransforms
	return c, nil
}

// begin fills weights, which hold the initial values of m, from the model that the recipe starts from, and says what was not
// taken over as it is.
func (s *Start) begin(m model.Model, weights []float32) (notes []string, err error) {
	t, err := openTrained(s.From)
	if err != nil {
		return nil, fmt.Errorf("start.from: %w", err)
	}
	source, err := t.weights()
	if err != nil {
		return nil, fmt.Errorf("start.from: %w", err)
	}
	defer kernel.FreeSlab(source)
	from := t.parts.model.Parameters()
	toPairs := t.config.Model.Kind == "vit" && m.Parameters().Find(viltTrunk+"cls_token") != nil
	var errs []error
	taken := map[string]bool{}
	inherit := func(p *model.Param) string {
		if h, ok := m.(heir); ok {
			return h.Inherit(p, p.Slice(weights), from, source)
		}
		return ""
	}
	for _, p := range m.Parameters().Params {
		isNew := slices.ContainsFunc(s.New, func(pattern string) bool { ok, _ := path.Match(pattern, p.Name); return ok })
		name := p.Name
		if toPairs { // the trunk is the image tower (spec/vilt 2), and nothing else is there
			var trunk bool
			name, trunk = strings.CutPrefix(name, viltTrunk)
			isNew = isNew || !trunk
		}
		q := from.Find(name)
		taken[name] = true
		how := ""
		if !isNew && (q == nil || q.Len() != p.Len()) {
			how = inherit(p)
		}
		switch {
		case isNew:
			notes = append(notes, p.Name+" begins anew")
		case how != "":
			notes = append(notes, p.Name+" begins as "+how)
		case q == nil:
			errs = append(errs, fmt.Errorf("start.from: %s has no parameter %s; name it in start.new to begin it anew", s.From, name))
		case slices.Equal(trimmed(p), trimmed(q)) && p.Grid == q.Grid:
			copy(p.Slice(weights), q.Slice(source))
		case q.Frozen && p.Grid != [2]int{}: // a fixed table, of which the model has its own
		case (p.Grid != [2]int{} || p.Context) && width(p) == width(q):
			if err := s.resample(p, q, p.Slice(weights), q.Slice(source)); err != nil {
				errs = append(errs, err)
				continue
			}
			notes = append(notes, fmt.Sprintf("%s: %v resampled to %v", p.Name, q.Shape, p.Shape))
		default:
			errs = append(errs, fmt.Errorf("start.from: %s has parameter %s of shape %v, the recipe's model wants %v; name it in start.new to begin it anew", s.From, p.Name, q.Shape, p.Shape))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	if s.Words != "" {
		if !toPairs {
			return nil, fmt.Errorf("%w: start.words: only a vilt that starts from a vit takes words from a BERT", ErrRecipe)
		}
		more, err := s.words(m, weights)
		if err != nil {
			return nil, fmt.Errorf("%w: start.words: %w", ErrRecipe, err)
		}
		notes = slices.DeleteFunc(notes, func(n string) bool { return strings.HasPrefix(n, textEmbeddings) })
		notes = append(notes, more...)
	}
	var left []string
	for _, q := range from.Params {
		if !taken[q.Name] {
			left = append(left, q.Name)
		}
	}
	if len(left) > 0 {
		notes = append(notes, "left behind: "+strings.Join(left, ", "))
	}
	return notes, nil
}

// heir is a model of which some parameters begin as others of the model that the recipe starts from.
type heir interface {
	// Inherit fills dst, the elements of p, from the slab of a model that lacks p or has it in another shape; it says how, or
	// returns "" where there is no rule.
	Inherit(p *model.Param, dst []float32, from *model.Layout, slab []float32) string
}

// The parts of a vilt that a vit and a BERT have too.
const (
	viltTrunk      = "transformer."
	textEmbeddings = "text_embeddings."
)

// words fills the embeddings of sentences from a BertModel. Of a longer table of places the first rows are taken.
func (s *Start) words(m model.Model, weights []float32) (notes []string, err error) {
	b, err := bridge.OpenBERT(s.Words)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	for _, p := range m.Parameters().Params {
		if name, ok := strings.CutPrefix(p.Name, textEmbeddings); ok {
			if err := b.LoadParam(p, "embeddings."+name, p.Slice(weights)); err != nil {
				return nil, err
			}
			notes = append(notes, fmt.Sprintf("%s is that of %s", p.Name, s.Words))
		}
	}
	return notes, nil
}

// trimmed returns a parameter's shape without axes of length 1: tables of positions and class tokens have one more in some libraries.
func trimmed(p *model.Param) []int {
	return slices.DeleteFunc(slices.Clone(p.Shape), func(d int) bool { return d == 1 })
}

// width returns the length of the last axis.
func width(p *model.Param) int { return p.Shape[len(p.Shape)-1] }

// resample brings positions to another grid or length.
func (s *Start) resample(p, q *model.Param, dst, src []float32) error {
	have, want := q.Len()/width(q), p.Len()/width(p)                                    // rows
	method, skip, from, to := bridge.MethodTimmNPZ, 0, [2]int{1, have}, [2]int{1, want} // a text's, as open_clip does it
	if p.Grid != [2]int{} {
		method, skip, from, to = s.Positions, have-q.Grid[0]*q.Grid[1], q.Grid, p.Grid
		if before := want - p.Grid[0]*p.Grid[1]; before != skip {
			return fmt.Errorf("start.from: %s has %d rows before its grid, the recipe's model %d", q.Name, skip, before)
		}
	}
	table, err := bridge.ResizePositions(method, src, width(p), skip, from, to)
	if err != nil {
		return fmt.Errorf("start.positions: %w", err)
	}
	copy(dst, table)
	return nil
}

// validate checks the patterns.
func (s *Start) validate() error {
	var errs []error
	if s.Words != "" && s.From == "" {
		errs = append(errs, errors.New("start.words: only a vilt that starts from a vit takes words from a BERT, but start.from is empty"))
	}
	for i, p := range s.New {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			errs = append(errs, fmt.Errorf("start.new[%d]: %q, want a pattern of names such as head.*", i, p))
		}
	}
	return errors.Join(errs...)
}

// Ensemble replaces the model's weights by share times them and the rest those of the model that it was trained from, or that from
// names (WiSE-FT: Wortsman et al. 2022, §3, equation 1). share is in [0, 1].
func (m *opened) Ensemble(from string, share float64) error {
	start := m.config.Start
	if from != "" {
		start.From, start.New = from, nil
	}
	if start.From == "" {
		return errors.New("experiments: the model was not trained from another one; name that")
	}
	if start.Positions == "" {
		start.Positions = bridge.MethodOpenCLIP
	}
	slab := kernel.NewSlab(len(m.weights))
	defer kernel.FreeSlab(slab)
	copy(slab, m.weights) // what began anew has no other end
	if _, err := start.begin(m.parts.model, slab); err != nil {
		return err
	}
	for i, w := range m.weights {
		m.weights[i] = float32((1-share)*float64(slab[i]) + share*float64(w))
	}
	return nil
}
