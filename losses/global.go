package losses

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/model"
	"diptych/ops"
)

// TwoTower is a model that global objectives can train: pictures and sentences meet in one space.
type TwoTower interface {
	model.Model
	EmbedDim() int                                            // E
	EncodeImage(g *ops.Graph, in *model.ImageInput) *ops.Node // (B, E), unit rows
	EncodeText(g *ops.Graph, in *model.TextInput) *ops.Node   // (B, E), unit rows
	// Scale returns the parameters of log t and of the learned bias, which may be nil.
	Scale() (logScale, bias *model.Param)
}

// Features adds a two-tower model's features of the pairs' own pictures and sentences to a grain: (B, E) unit rows each.
func Features(gr *model.Grain, m TwoTower) (image, text *ops.Node) {
	image = gr.Once("imageEmbed", func() *ops.Node { return m.EncodeImage(gr.G, gr.Images()) })
	text = gr.Once("textEmbed", func() *ops.Node { return m.EncodeText(gr.G, gr.Texts()) })
	return image, text
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
	Terms         []float64 // nats per pair, one per global objective, without its weight
	Total         float64   // Σ weight·term
	DX, DY        []float32 // (N, E): d total / d features
	DScale, DBias float32   // d total / d log scale, d total / d bias
}

// NewGlobal builds the graph of a recipe's global objectives, of which there must be one, for global batches of n pairs with
// features of width e.
func NewGlobal(cfgs []Config, n, e int, pool *kernel.Pool) (*Global, error) {
	if err := Validate(cfgs); err != nil {
		return nil, err
	}
	g := ops.NewGraph[float32]()
	gl := &Global{}
	for _, c := range cfgs {
		if c.global() {
			gl.cfgs = append(gl.cfgs, c)
		}
	}
	rows := g.NewDim("pairs", n)
	gl.f = features{
		x: g.Input("imageEmbed", rows, e), y: g.Input("textEmbed", rows, e),
		logScale: g.Scalar("logitScale"), groups: g.Ints("groups", n),
	}
	wrt := []*ops.Node{gl.f.x, gl.f.y, gl.f.logScale}
	if Heads(gl.cfgs).LogitBias {
		gl.f.bias = g.Scalar("logitBias")
		wrt = append(wrt, gl.f.bias)
	}
	for _, c := range gl.cfgs {
		gl.losses = append(gl.losses, objectives[c.Name].global(g, &gl.f, c))
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
