package ops

import (
	"fmt"
	"hash"
	"hash/fnv"
	"slices"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// phase says which steps a run of the tape machine computes.
type phase uint8

const (
	trace phase = iota // none: the steps only note their order
	forward
	backward
)

// tape is the state that the steps of one program share.
type tape[T Float] struct {
	phase phase
	salt  int // of the hashes, see step.WriteHash
	order []*step[T]
	err   error // the first of a run
}

// step is an operation as Gorgonia sees it: forward ops, their backward steps, and nodes that only order others. There is
// one for each node of the Gorgonia graph, since its value is a token whose header the tape machine writes to.
type step[T Float] struct {
	tape     *tape[T]
	id       int
	mem      *memory[T]
	name     string
	kind     string // of its operation
	phase    phase
	kernel   func() // nil if there is nothing to compute
	bufs     []*buffer
	flops    int64          // at capacity
	share    func() float64 // of them that the run's lengths need; nil: all
	children int
	token    *tensor.Dense
	again    bool // computes a second time what a forward step did

	wrt []bool
	// diff returns the gradient of each child, nil where wrt is false, given the node of the gradient of the result.
	diff func(grad *gorgonia.Node) (gorgonia.Nodes, error)
}

var _ gorgonia.SDOp = (*step[float32])(nil)

// tokenShape is not that of a scalar, nor is any length 1, to keep clear of Gorgonia's special cases.
var tokenShape = tensor.Shape{2}

func newToken() *tensor.Dense {
	return tensor.New(tensor.WithShape(tokenShape...), tensor.WithBacking(make([]float32, 2)))
}

func tokenType() hm.Type { return gorgonia.TensorType{Dims: 1, Of: tensor.Float32} }

// Arity returns the number of children.
func (s *step[T]) Arity() int { return s.children }

// Type makes a new value at each call: type inference returns it to a pool.
func (s *step[T]) Type() hm.Type {
	types := make([]hm.Type, s.children+1)
	for i := range types {
		types[i] = tokenType()
	}
	return hm.NewFnType(types...)
}

// InferShape returns the shape of a token.
func (s *step[T]) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tokenShape.Clone(), nil
}

// ReturnsPtr, CallsExtern and OverwritesInput keep Gorgonia from managing the token's memory.
func (s *step[T]) ReturnsPtr() bool { return false }

// CallsExtern is false.
func (s *step[T]) CallsExtern() bool { return false }

// OverwritesInput is -1, none.
func (s *step[T]) OverwritesInput() int { return -1 }

// WriteHash writes what no other step of the graph writes. Gorgonia merges nodes of equal 32-bit hashes, so the builder
// checks that all differ and tries another salt if not. The salt comes first: behind equal states of the hash it would
// change nothing.
func (s *step[T]) WriteHash(h hash.Hash) { fmt.Fprintf(h, "%d/%s#%d", s.tape.salt, s.name, s.id) }

// Hashcode hashes what WriteHash writes.
func (s *step[T]) Hashcode() uint32 {
	h := fnv.New32a()
	s.WriteHash(h)
	return h.Sum32()
}

func (s *step[T]) String() string { return s.name }

// DiffWRT returns which children a gradient is passed to. Gorgonia asks before SymDiff and again after it.
func (s *step[T]) DiffWRT(n int) []bool {
	if s.wrt == nil {
		return make([]bool, n)
	}
	return s.wrt
}

// SymDiff returns the nodes of the gradients of the children.
func (s *step[T]) SymDiff(_ gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if s.diff == nil {
		return nil, fmt.Errorf("%s has no gradient", s.name)
	}
	return s.diff(grad)
}

// Do runs the kernel if it is the turn of the step's phase. A panic becomes the error of the run.
func (s *step[T]) Do(...gorgonia.Value) (v gorgonia.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("ops: %s: panic: %v", s.name, r)
			s.tape.err = err
		}
	}()
	switch {
	case s.tape.phase == trace:
		s.tape.order = append(s.tape.order, s)
	case s.tape.phase == s.phase && s.kernel != nil:
		if run := s.mem.run; run.Profile != nil {
			s.profiled(run)
		} else {
			s.kernel()
		}
	}
	return s.token, nil
}

// arena returns the planned buffers that the steps use, with their lives noted; kept ones live to the end. That a backward step
// reads what was not kept is an error.
func (t *tape[T]) arena(kept []*buffer) ([]*buffer, error) {
	var bufs []*buffer
	second := map[*buffer]bool{}
	use := func(b *buffer, i int, s *step[T]) error {
		if b == nil || b.class != inArena || b.forBack && !b.readBack {
			return nil
		}
		if len(b.lives) == 0 {
			bufs = append(bufs, b)
		}
		anew := b.again && s != nil && s.phase == backward && !second[b]
		if anew {
			if second[b] = true; !s.again {
				return fmt.Errorf("%s reads %s, which was not kept", s.name, b.name)
			}
		}
		b.use(i, anew)
		return nil
	}
	for i, s := range t.order {
		for _, b := range s.bufs {
			if err := use(b, i, s); err != nil {
				return nil, err
			}
		}
	}
	for _, b := range kept {
		if err := use(b, len(t.order), nil); err != nil {
			return nil, err
		}
	}
	return slices.Clip(bufs), nil
}
