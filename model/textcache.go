package model

import (
	"fmt"
	"slices"

	"diptych/internal/kernel"
	"diptych/ops"
)

// TextCache keeps the pooled rows that a frozen text tower makes of texts, so that each is computed once in a run. A row does
// not depend on what it is computed beside, so a text that comes from the cache has the bits that the tower gives in place.
type TextCache struct {
	tower *CLIP
	rows  map[string][]float32
	width int

	in   *TextInput
	prog *ops.Program
	out  *ops.Node
	run  ops.Run[float32]
	key  []byte
	todo [][]int32
}

// cacheChunk is how many texts are computed together.
const cacheChunk = 64

// NewTextCache makes an empty cache for a model whose text tower, but for its projection, is frozen and has nothing random; for
// another it returns nil. round makes its matrix products those of bfloat16.
func NewTextCache(m Model, round bool) (*TextCache, error) {
	tower, ok := m.(*CLIP)
	if !ok || tower.Config.Text.Dropout != 0 || tower.Config.Text.DropPath != 0 || !frozen(tower.textParams...) {
		return nil, nil
	}
	c := &TextCache{tower: tower, rows: map[string][]float32{}, width: tower.Config.Text.Width}
	g := ops.NewGraph[float32]()
	if round {
		g.RoundProducts()
	}
	c.in = tower.NewTexts(g, "text", cacheChunk)
	c.out = tower.TextFeatures(g, c.in)
	var err error
	if c.prog, err = g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{c.out}, ForwardOnly: true}); err != nil {
		return nil, fmt.Errorf("model: the frozen text tower: %w", err)
	}
	c.run.Arena = kernel.NewSlab(c.prog.ArenaSize())
	return c, nil
}

// TextFrozen tells whether what EncodeText makes of a sentence outside of training never changes.
func (m *CLIP) TextFrozen() bool {
	return frozen(m.textParams...) && (m.textProject == nil || m.textProject.Frozen)
}

func frozen(params ...*Param) bool {
	return !slices.ContainsFunc(params, func(p *Param) bool { return !p.Frozen })
}

// Close gives the memory back.
func (c *TextCache) Close() {
	c.prog.Close()
	kernel.FreeSlab(c.run.Arena)
}

// Fill computes the rows of those texts that are not known yet, on the threads of pool. It must not run while inputs are bound.
func (c *TextCache) Fill(texts [][]int32, weights []float32, pool *kernel.Pool) error {
	c.todo = c.todo[:0]
	for _, ids := range texts {
		key := string(c.keyOf(ids))
		if _, ok := c.rows[key]; !ok {
			c.rows[key] = nil
			c.todo = append(c.todo, ids)
		}
	}
	c.run.Weights, c.run.Pool = weights, pool
	for lo := 0; lo < len(c.todo); lo += cacheChunk {
		chunk := c.todo[lo:min(lo+cacheChunk, len(c.todo))]
		c.prog.Bind(&c.run)
		err := c.in.Set(c.prog, chunk)
		if err == nil {
			err = c.prog.Forward()
		}
		if err != nil {
			for _, ids := range c.todo[lo:] {
				delete(c.rows, string(c.keyOf(ids)))
			}
			return fmt.Errorf("model: the frozen text tower: %w", err)
		}
		rows := append([]float32(nil), c.prog.Value(c.out)...)
		for i, ids := range chunk {
			c.rows[string(c.keyOf(ids))] = rows[i*c.width : (i+1)*c.width : (i+1)*c.width]
		}
	}
	return nil
}

// keyOf spells ids as bytes; the result lives until the next call.
func (c *TextCache) keyOf(ids []int32) []byte {
	c.key = appendKey(c.key[:0], ids)
	return c.key
}

func appendKey(b []byte, ids []int32) []byte {
	for _, id := range ids {
		b = append(b, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	return b
}

// newInput makes an input of at most n texts whose rows come from the cache.
func (c *TextCache) newInput(g *ops.Graph, name string, n int) *TextInput {
	in := &TextInput{cache: c, rows: g.NewDim(name+".count", n)}
	in.known = g.Input(name+".known", in.rows, c.width)
	return in
}

// setKnown binds the rows of texts, which the cache must have.
func (in *TextInput) setKnown(p *ops.Program, texts [][]int32) error {
	in.data = in.data[:0]
	var key []byte // workers bind at the same time
	for i, ids := range texts {
		key = appendKey(key[:0], ids)
		row := in.cache.rows[string(key)]
		if row == nil {
			return fmt.Errorf("model: text %d of %d tokens was not given to the frozen tower", i, len(ids))
		}
		in.data = append(in.data, row...)
	}
	p.SetDim(in.rows, len(texts))
	p.SetInput(in.known, in.data)
	return nil
}
