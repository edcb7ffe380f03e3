package ops

import (
	"errors"
	"fmt"
	"slices"

	"diptych/internal/kernel"

	"gorgonia.org/gorgonia"
)

// CompileOpt says what a program computes.
type CompileOpt[T Float] struct {
	Outputs     []*Node // what Value returns; gradients are fed to them by SetOutputGrad
	Wrt         []*Node // inputs whose gradient InputGrad returns
	ForwardOnly bool    // no gradients
}

// Run is the memory and the circumstances of a program's runs. The program reads it at each run, so its owner may change it
// in between; several programs that do not run at once may share one.
type Run[T Float] struct {
	Weights []T // of every parameter, by offset
	Grads   []T // in the layout of Weights, up to the last parameter that is not frozen; backward adds to it
	Arena   []T // at least ArenaSize elements, best aligned to 64 bytes; holds all activations between Forward and Backward
	Pool    *kernel.Pool

	Train bool // dropout and stochastic depth are on
	Seed  uint64
	Step  int // update
	Base  int // position of the first pair in the global batch

	Profile *Profile // if not nil, the steps' times are added to it
	Again   bool     // this forward pass repeats an earlier one, for the profile
}

// ProgramOf is a compiled graph. It is used by one goroutine at a time; different programs may run at once.
type ProgramOf[T Float] struct {
	g       *GraphOf[T]
	machine gorgonia.VM
	tape    *tape[T]
	seeds   map[*Node]*buffer
	grads   map[*Node]*buffer
	outputs []*Node
	weights int // elements of the weight slab that parameters reach
	trained int // and those that are not frozen
	stats   Stats
	err     error // of a Set method, reported by the next run
	ran     bool
}

// Stats describes a program. Elements and operations are at capacity; an operation is one multiplication or addition of a
// matrix product or an attention.
type Stats struct {
	Nodes         int // of the Gorgonia graph
	Arena         int // elements
	SumOfBuffers  int // elements if nothing shared memory
	PeakLive      int // elements alive at once, the least an arena can have
	ForwardFLOPs  int64
	BackwardFLOPs int64
}

// maxSalts is how often Compile starts again because two hashes are equal, which happens once in ten thousand graphs.
const maxSalts = 8

// Compile differentiates the graph, plans its memory and returns the program. It reports the first error met while the
// graph was built, and fails if it cannot be differentiated.
func (g *GraphOf[T]) Compile(opt CompileOpt[T]) (p *ProgramOf[T], err error) {
	if err := g.compilable(opt); err != nil {
		return nil, err
	}
	building.Lock()
	defer building.Unlock()
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("ops: compile: panic: %v", r)
		}
	}()
	g.compiled = true
	b, err := g.build(opt, 0)
	for salt := 1; errors.Is(err, errHash) && salt < maxSalts; salt++ {
		b, err = g.build(opt, salt)
	}
	if err != nil {
		return nil, fmt.Errorf("ops: compile: %w", err)
	}
	p = &ProgramOf[T]{g: g, tape: b.tape, seeds: b.seeds, grads: b.grads, outputs: opt.Outputs, machine: gorgonia.NewTapeMachine(b.graph)}
	if err := p.plan(b); err != nil {
		return nil, fmt.Errorf("ops: compile: %w", err)
	}
	for _, n := range g.params {
		p.weights = max(p.weights, n.buf.off+n.len())
		if n.trainable() {
			p.trained = max(p.trained, n.buf.off+n.len())
		}
	}
	return p, nil
}

func (g *GraphOf[T]) compilable(opt CompileOpt[T]) error {
	if !g.operands("compile: outputs", opt.Outputs...) || !g.operands("compile: inputs with gradient", opt.Wrt...) {
		return g.err
	}
	if len(opt.Outputs) == 0 {
		return errors.New("ops: compile: no outputs")
	}
	for i, n := range opt.Outputs {
		if n.buf.class == inWeights {
			return fmt.Errorf("ops: compile: output %s is a parameter", n)
		}
		if slices.Contains(opt.Outputs[:i], n) {
			return fmt.Errorf("ops: compile: %s is an output twice", n)
		}
	}
	for i, n := range opt.Wrt {
		if n.buf.class != inInput || slices.Contains(opt.Wrt[:i], n) {
			return fmt.Errorf("ops: compile: a gradient is asked for by %s, which is not an input or is named twice", n)
		}
	}
	return nil
}

// plan finds the order of the steps from the tape machine itself, checks it, and lays out the arena.
func (p *ProgramOf[T]) plan(b *builder[T]) error {
	if err := p.runAll(trace); err != nil {
		return err
	}
	turned := ""
	for _, s := range p.tape.order {
		switch {
		case s.phase == backward:
			turned = s.name
			p.stats.BackwardFLOPs += s.flops
		case turned != "":
			return fmt.Errorf("forward step %s comes after backward step %s", s.name, turned)
		default:
			p.stats.ForwardFLOPs += s.flops
		}
	}
	bufs, err := p.tape.arena(b.keep)
	if err != nil {
		return err
	}
	p.stats.Nodes = len(b.graph.AllNodes())
	p.stats.Arena = plan(bufs)
	p.stats.PeakLive = peak(bufs, len(p.tape.order))
	for _, x := range bufs {
		p.stats.SumOfBuffers += aligned(x.max())
	}
	p.tape.order = nil
	return nil
}

// ArenaSize returns the elements a run's Arena must have.
func (p *ProgramOf[T]) ArenaSize() int { return p.stats.Arena }

// Stats returns the program's measures.
func (p *ProgramOf[T]) Stats() Stats { return p.stats }

// Bind makes the next runs work in run's memory. Activations that a Forward left in another arena stay there: after that
// arena and the same inputs are bound again, Backward goes on from them.
func (p *ProgramOf[T]) Bind(run *Run[T]) { p.g.mem.run = run }

// Close releases the tape machine.
func (p *ProgramOf[T]) Close() error { return p.machine.Close() }

// Forward computes the outputs. Errors of run-time inputs name them and wrap ErrShape or ErrUnbound.
func (p *ProgramOf[T]) Forward() error {
	if err := p.ready(false); err != nil {
		return err
	}
	p.ran = true
	return p.runAll(forward)
}

// Backward computes the gradients from the fed gradients of the outputs, after Forward with the same arena, inputs, seed,
// step and base: those of parameters are added to Run.Grads, those of inputs overwrite what InputGrad returns. It uses up the
// activations: another Backward needs another Forward.
func (p *ProgramOf[T]) Backward() error {
	if !p.ran {
		return errors.New("ops: backward before forward")
	}
	if len(p.seeds) == 0 {
		return errors.New("ops: backward of a program that only runs forward")
	}
	if err := p.ready(true); err != nil {
		return err
	}
	return p.runAll(backward)
}

// Value returns the rows of an output that the last Forward in the bound arena computed. They are in the arena, and stay
// there until the next Forward in it. Of a node that is no output it returns nil.
func (p *ProgramOf[T]) Value(n *Node) []T {
	if !slices.Contains(p.outputs, n) || p.g.mem.run == nil {
		return nil
	}
	return p.g.mem.at(n.buf)
}

// InputGrad returns the gradient by an input that Compile was asked for, as the last Backward in the bound arena left it; of
// other nodes nil.
func (p *ProgramOf[T]) InputGrad(n *Node) []T {
	if p.g.mem.run == nil {
		return nil
	}
	return p.g.mem.at(p.grads[n])
}

// runAll runs the tape machine for one phase.
func (p *ProgramOf[T]) runAll(ph phase) error {
	p.tape.phase, p.tape.err = ph, nil
	err := p.machine.RunAll()
	p.machine.Reset()
	if p.tape.err != nil {
		return p.tape.err // the machine's error hides what it wraps
	}
	return err
}

// ready checks all that only a run knows, and computes what follows from it.
func (p *ProgramOf[T]) ready(back bool) error {
	err := p.err
	p.err = nil
	if err != nil {
		return err
	}
	run := p.g.mem.run
	if run == nil {
		return fmt.Errorf("ops: memory: %w", ErrUnbound)
	}
	switch {
	case len(run.Arena) < p.stats.Arena:
		return fmt.Errorf("ops: the arena has %d elements, %d are needed: %w", len(run.Arena), p.stats.Arena, ErrShape)
	case len(run.Weights) < p.weights:
		return fmt.Errorf("ops: there are %d weights, parameters reach to %d: %w", len(run.Weights), p.weights, ErrShape)
	case back && len(run.Grads) < p.trained:
		return fmt.Errorf("ops: there are %d gradients, trained parameters reach to %d: %w", len(run.Grads), p.trained, ErrShape)
	}
	for _, check := range p.g.checks {
		if err := check(); err != nil {
			return err
		}
	}
	if back {
		for _, n := range p.outputs {
			seed := p.seeds[n]
			if seed == nil {
				continue
			}
			if err := p.g.mem.fits("gradient of output "+n.name, seed); err != nil {
				return err
			}
		}
	}
	if back {
		for _, l := range p.g.late {
			if err := l.again(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fits checks a bound slice against the run's rows.
func (m *memory[T]) fits(name string, b *buffer) error {
	d := m.inputs[b.off]
	switch want := b.rows.Len() * b.cols; {
	case d == nil:
		return fmt.Errorf("ops: %s: %w", name, ErrUnbound)
	case len(d) != want:
		return fmt.Errorf("ops: %s has %d elements, must have %d·%d = %d: %w", name, len(d), b.rows.Len(), b.cols, want, ErrShape)
	}
	return nil
}
