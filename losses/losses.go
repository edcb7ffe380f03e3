// Package losses holds the training objectives, one per file, each with its formula above its code. An objective is global
// when it compares all features of the batch (ITC, sigmoid): it becomes a graph of its own over (N, E) slabs of the whole
// global batch, whose exact gradients are then fed to the grains. Start at NewGlobal and at the objective's own file.
package losses

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"diptych/internal/kernel"
	"diptych/ops"
)

// Config is one objective of a recipe.
type Config struct {
	Name   string  `yaml:"name"`   // itc or sigmoid
	Weight float64 `yaml:"weight"` // factor in the total loss
	// LabelSmoothing ε spreads that share of the target over all rows (ITC).
	LabelSmoothing float64 `yaml:"labelSmoothing,omitempty"`
	// GroupTargets makes every pair of the same group a positive. The order of samples of package data puts no group twice into
	// a batch, so with it this changes nothing; it is for other sources of batches.
	GroupTargets bool `yaml:"groupTargets,omitempty"`
}

// UnmarshalYAML gives an objective the weight 1 when its recipe names none.
func (c *Config) UnmarshalYAML(decode func(any) error) error {
	type plain Config
	p := plain{Weight: 1}
	if err := decode(&p); err != nil {
		return err
	}
	*c = Config(p)
	return nil
}

// objectives is the table from name to constructor. needsBias tells that the model must have a learned bias.
var objectives = map[string]struct {
	build     func(g *ops.Graph, f *features, c Config) *ops.Node
	needsBias bool
}{
	"itc":     {itc, false},
	"sigmoid": {sigmoid, true},
}

// Default is plain ITC.
func Default() []Config { return []Config{{Name: "itc", Weight: 1}} }

// Validate reports every fault of a recipe's objectives at once.
func Validate(cfgs []Config) error {
	var errs []error
	if len(cfgs) == 0 {
		errs = append(errs, errors.New("losses: empty, want at least one objective"))
	}
	for i, c := range cfgs {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("losses[%d]."+format, append([]any{i}, args...)...))
		}
		if _, ok := objectives[c.Name]; !ok {
			bad("name: %q is unknown; known: %s", c.Name, strings.Join(slices.Sorted(maps.Keys(objectives)), ", "))
		}
		if !(c.Weight > 0 && c.Weight <= math.MaxFloat32) {
			bad("weight: %v, want a positive number", c.Weight)
		}
		if !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1) {
			bad("labelSmoothing: %v, want [0, 1)", c.LabelSmoothing)
		}
		if c.Name == "sigmoid" && c.LabelSmoothing != 0 {
			bad("labelSmoothing: the sigmoid objective has none")
		}
		if slices.ContainsFunc(cfgs[:i], func(d Config) bool { return d.Name == c.Name }) {
			bad("name: %q stands twice", c.Name)
		}
	}
	return errors.Join(errs...)
}

// NeedsBias tells whether an objective reads the model's learned logit bias.
func NeedsBias(cfgs []Config) bool {
	return slices.ContainsFunc(cfgs, func(c Config) bool { return objectives[c.Name].needsBias })
}

// features is what a global objective sees: x and y (N, E) unit rows of pictures and texts, the learned log scale and bias
// (1, 1), and the group of each pair.
type features struct {
	x, y, logScale, bias *ops.Node
	groups               *ops.Ints
}

// Global computes a recipe's global objectives over one global batch.
type Global struct {
	cfgs   []Config
	f      features
	losses []*ops.Node
	prog   *ops.Program
	arena  []float32
	run    ops.Run[float32]
	scalar [2]float32 // values of logScale and bias
	weight [][]float32
}

// Result is what a global batch gives. Its slices belong to the Global and live until the next call.
type Result struct {
	Terms         []float64 // nats per pair, one per objective, without its weight
	Total         float64   // Σ weight·term
	DX, DY        []float32 // (N, E): d total / d features
	DScale, DBias float32   // d total / d log scale, d total / d bias
}

// NewGlobal builds the objectives' graph for global batches of n pairs with features of width e.
func NewGlobal(cfgs []Config, n, e int, pool *kernel.Pool) (*Global, error) {
	if err := Validate(cfgs); err != nil {
		return nil, err
	}
	g := ops.NewGraph[float32]()
	gl := &Global{cfgs: cfgs}
	rows := g.NewDim("pairs", n)
	gl.f = features{
		x: g.Input("imageEmbed", rows, e), y: g.Input("textEmbed", rows, e),
		logScale: g.Scalar("logitScale"), groups: g.Ints("groups", n),
	}
	wrt := []*ops.Node{gl.f.x, gl.f.y, gl.f.logScale}
	if NeedsBias(cfgs) {
		gl.f.bias = g.Scalar("logitBias")
		wrt = append(wrt, gl.f.bias)
	}
	for _, c := range cfgs {
		gl.losses = append(gl.losses, objectives[c.Name].build(g, &gl.f, c))
		gl.weight = append(gl.weight, []float32{float32(c.Weight)})
	}
	if err := g.Err(); err != nil {
		return nil, fmt.Errorf("losses: %w", err)
	}
	prog, err := g.Compile(ops.CompileOpt[float32]{Outputs: gl.losses, Wrt: wrt})
	if err != nil {
		return nil, fmt.Errorf("losses: %w", err)
	}
	gl.prog, gl.arena = prog, kernel.NewSlab(prog.ArenaSize())
	gl.run = ops.Run[float32]{Arena: gl.arena, Pool: pool, Train: true}
	prog.SetDim(rows, n)
	return gl, nil
}

// ArenaSize returns the elements that the graph's buffers take.
func (gl *Global) ArenaSize() int { return len(gl.arena) }

// SetProfile makes the next runs add their times to p; nil ends that.
func (gl *Global) SetProfile(p *ops.Profile) { gl.run.Profile = p }

// Close gives the memory back.
func (gl *Global) Close() {
	gl.prog.Close()
	kernel.FreeSlab(gl.arena)
}

// Run computes the losses and their gradients. x and y are (N, E) unit rows, groups (N).
func (gl *Global) Run(x, y []float32, logScale, bias float32, groups []int32) (*Result, error) {
	p, f := gl.prog, &gl.f
	p.Bind(&gl.run)
	gl.scalar = [2]float32{logScale, bias}
	p.SetInput(f.x, x)
	p.SetInput(f.y, y)
	p.SetInput(f.logScale, gl.scalar[:1])
	p.SetInts(f.groups, groups)
	if f.bias != nil {
		p.SetInput(f.bias, gl.scalar[1:])
	}
	if err := p.Forward(); err != nil {
		return nil, fmt.Errorf("losses: %w", err)
	}
	r := &Result{}
	for i, n := range gl.losses {
		l := float64(p.Value(n)[0])
		r.Terms = append(r.Terms, l)
		r.Total += gl.cfgs[i].Weight * l
		p.SetOutputGrad(n, gl.weight[i])
	}
	if err := p.Backward(); err != nil {
		return nil, fmt.Errorf("losses: %w", err)
	}
	r.DX, r.DY, r.DScale = p.InputGrad(f.x), p.InputGrad(f.y), p.InputGrad(f.logScale)[0]
	if f.bias != nil {
		r.DBias = p.InputGrad(f.bias)[0]
	}
	return r, nil
}
