package losses

import (
	"fmt"

	"diptych/data/batch"
	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// Local is one objective's part of the graph of a grain.
type Local struct {
	// Sums is (1, 1+metrics): the sum of the loss over the objective's items of the grain (pairs, masked words) in nats, and of
	// what it reports of them. The loop divides by the items of the whole batch. The gradient that is fed to it has zeros after
	// the first.
	Sums *ops.Node
	// Bind prepares and binds what the objective reads beside the pairs' own pictures and sentences, and returns its items in the
	// grain. It is a pure function of v: a grain that runs again must be given the same.
	Bind func(p *ops.Program, v View) (items int, err error)
}

// NewLocals adds a recipe's local objectives to the graph of a grain, in the order of the recipe. A model that cannot serve one
// of them is an error.
func NewLocals(gr *model.Grain, cfgs []Config, o Options) ([]Local, error) {
	var out []Local
	o.cfgs = cfgs
	for _, c := range cfgs {
		if !c.Local() {
			continue
		}
		l, err := objectives[c.Name].local(gr, c, &o)
		if err != nil {
			return nil, fmt.Errorf("losses: %s: %w", c.Name, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// unfit is the error of a model that lacks what an objective reads.
func unfit(lacks string) error {
	return fmt.Errorf("the recipe's model has no %s; choose another model.kind, or leave the objective out", lacks)
}

// View is one grain of a global batch: pairs [Lo, Lo+N).
type View struct {
	Batch *batch.Batch
	Lo, N int
	Seed  uint64
}

// Pair returns pair i of the grain.
func (v View) Pair(i int) *batch.Pair { return &v.Batch.Pairs[v.Lo+i] }

// At returns the address of a random choice for pair i of the grain. It depends on the pair's position in the global batch, not
// on how that is cut.
func (v View) At(purpose string, i int) uint64 {
	return addr.Hash(v.Seed, addr.Name(purpose), uint64(v.Batch.Step), uint64(v.Lo+i))
}

// size returns the numbers of a picture.
func (v View) size() int {
	if v.Batch.Normalized != nil {
		return len(v.Batch.Normalized) / len(v.Batch.Pairs)
	}
	return len(v.Batch.Pixels) / len(v.Batch.Pairs)
}

// SetImages binds the pairs' own pictures.
func (v View) SetImages(p *ops.Program, in *model.ImageInput) {
	lo, hi := v.Lo*v.size(), (v.Lo+v.N)*v.size()
	if v.Batch.Normalized != nil {
		in.SetFloat(p, v.Batch.Normalized[lo:hi], v.N)
	} else {
		in.Set(p, v.Batch.Pixels[lo:hi], v.N)
	}
	in.Draw(p, v.Seed, v.Batch.Step, v.Lo)
}

// SetTexts binds the pairs' own sentences. buf is for the caller to keep from grain to grain.
func (v View) SetTexts(p *ops.Program, in *model.TextInput, buf *[][]int32) error {
	*buf = (*buf)[:0]
	for i := range v.N {
		*buf = append(*buf, v.Pair(i).Tokens)
	}
	return in.Set(p, *buf)
}
