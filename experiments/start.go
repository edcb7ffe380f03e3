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
	From string   `yaml:"from,omitempty"` // a run directory, a checkpoint or a model's folder; empty: initial values
	New  []string `yaml:"new,omitempty"`  // patterns of parameters that begin with initial values all the same, such as head.*
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
	if preset == "" && (kind == "" || kind == t.config.Model.Kind) {
		c.Model = t.config.Model
	}
	d, _ := tree["data"].(map[string]any)
	c.Model.NumClasses = 0 // those of the new data
	if tok, _ := d["tokenizer"].(map[string]any); tok["kind"] == nil && tok["file"] == nil {
		c.Data.Tokenizer = t.config.Data.Tokenizer
		c.Data.Tokenizer.ContextLength = 0 // the model's
	}
	c.Data.Transforms, c.Data.EvalTransforms = t.config.Data.Transforms, t.config.Data.EvalTransforms
	c.Start.Positions = bridge.MethodOpenCLIP
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
		q := from.Find(p.Name)
		taken[p.Name] = true
		how := ""
		if !isNew && (q == nil || !slices.Equal(p.Shape, q.Shape)) {
			how = inherit(p)
		}
		switch {
		case isNew:
			notes = append(notes, p.Name+" begins anew")
		case how != "":
			notes = append(notes, p.Name+" begins as "+how)
		case q == nil:
			errs = append(errs, fmt.Errorf("start.from: %s has no parameter %s; name it in start.new to begin it anew", s.From, p.Name))
		case slices.Equal(p.Shape, q.Shape):
			copy(p.Slice(weights), q.Slice(source))
		case q.Frozen && p.Grid > 0: // a fixed table, of which the model has its own
		case (p.Grid > 0 || p.Context) && p.Shape[1] == q.Shape[1]:
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

// resample brings positions to another grid or length.
func (s *Start) resample(p, q *model.Param, dst, src []float32) error {
	method, skip, from, to := bridge.MethodTimmNPZ, 0, [2]int{1, q.Shape[0]}, [2]int{1, p.Shape[0]} // a text's, as open_clip does it
	if p.Grid > 0 {
		method, skip, from, to = s.Positions, q.Shape[0]-q.Grid*q.Grid, [2]int{q.Grid, q.Grid}, [2]int{p.Grid, p.Grid}
		if have := p.Shape[0] - p.Grid*p.Grid; have != skip {
			return fmt.Errorf("start.from: %s has %d rows before its grid, the recipe's model %d", q.Name, skip, have)
		}
	}
	table, err := bridge.ResizePositions(method, src, p.Shape[1], skip, from, to)
	if err != nil {
		return fmt.Errorf("start.positions: %w", err)
	}
	copy(dst, table)
	return nil
}

// validate checks the patterns.
func (s *Start) validate() error {
	var errs []error
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
