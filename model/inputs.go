package model

import (
	"fmt"

	"diptych/internal/addr"
	"diptych/ops"
)

// ImageInput is the run-time input of the image tower in one graph.
type ImageInput struct {
	// Shapes takes the place of all else where the model takes pictures of different shapes.
	Shapes *PictureInput

	image *ops.Image
	seqs  *ops.Seqs
	class *ops.Ints // rows of the class tokens, nil unless they are what is read
	// patches are the sequences of the patches alone, nil unless positions are added to those.
	patches *ops.Seqs
	keep    *kept // nil unless patches are dropped

	vision                *Vision
	offsets, patchOffsets []int32

	encoded
	tokenSeqs *ops.Seqs // of the encoded tokens
}

// encoded is what models have made of an input: one tower's result that several objectives read.
type encoded struct {
	pass  string // tells dropout on this input from that on others of the graph; empty for the pairs' own
	nodes map[string]*ops.Node
}

// encodedAs names an input's dropout. The pairs' own pictures and sentences are called image and text.
func encodedAs(name string) encoded {
	if name == "image" || name == "text" {
		return encoded{nodes: map[string]*ops.Node{}}
	}
	return encoded{name + ".", map[string]*ops.Node{}}
}

// once returns what build gave when it was first asked for under key.
func (e *encoded) once(key string, build func() *ops.Node) *ops.Node {
	n, ok := e.nodes[key]
	if !ok {
		n = build()
		e.nodes[key] = n
	}
	return n
}

// kept is the rows that patch dropout leaves: those of each picture's other tokens and of some of its patches.
type kept struct {
	rows    *ops.Ints
	seqs    *ops.Seqs
	list    []int32
	offsets []int32
	patches int // of a picture, of those that there are
}

// newImageInput makes an input of at most n pictures. name tells it from others of the graph; mean and std are those of the
// pixel levels divided by 255.
func newImageInput(g *ops.Graph, name string, v *Vision, n int, mean, std [3]float32) *ImageInput {
	in := &ImageInput{vision: v, offsets: every(v.NumTokens(), n), encoded: encodedAs(name)}
	height, width := v.Sides()
	in.image = g.Image(name, n, height, width, mean, std)
	in.seqs = g.Seqs(name+".seqs", n, n*v.NumTokens())
	if v.Pool == "cls" {
		in.class = g.Ints(name+".class", n)
	}
	if v.NoEmbedClass && v.Positions != "none" {
		in.patches, in.patchOffsets = g.Seqs(name+".patches", n, n*v.NumPatches()), every(v.NumPatches(), n)
	}
	return in
}

// every returns 0, step, 2·step, … n·step.
func every(step, n int) []int32 {
	out := make([]int32, n+1)
	for i := range out {
		out[i] = int32(i * step)
	}
	return out
}

// dropPatches makes the input one for training, which leaves patches out if the recipe says so. name is the input's.
func (in *ImageInput) dropPatches(g *ops.Graph, name string, n int) {
	v := in.vision
	if v.PatchDropout == 0 {
		return
	}
	left := max(1, int(float64(v.NumPatches())*(1-v.PatchDropout)))
	each := v.NumTokens() - v.NumPatches() + left
	in.keep = &kept{rows: g.Ints(name+".kept", n*each), seqs: g.Seqs(name+".kept.seqs", n, n*each), offsets: every(each, n), patches: left}
}

// Draw chooses the patches that stay in a training run, after Set; without patch dropout it does nothing. The choice for a
// picture is a function of seed, update and its position in the global batch, of which the first picture's is base.
func (in *ImageInput) Draw(p *ops.Program, seed uint64, step, base int) {
	k := in.keep
	if k == nil {
		return
	}
	n, tokens, patches := in.image.Count.Len(), in.vision.NumTokens(), in.vision.NumPatches()
	k.list = k.list[:0]
	for i := range n {
		perm := addr.NewPerm(addr.Hash(seed, addr.Name("patches"), uint64(step), uint64(base+i)), uint64(patches))
		first := i*tokens + tokens - patches
		for t := i * tokens; t < first; t++ {
			k.list = append(k.list, int32(t))
		}
		for j := range k.patches {
			k.list = append(k.list, int32(first+int(perm.At(uint64(j)))))
		}
	}
	p.SetInts(k.rows, k.list)
	p.SetSeqs(k.seqs, k.offsets[:n+1])
	if in.class != nil {
		p.SetInts(in.class, k.offsets[:n])
	}
}

// Set binds the pictures of the next run: pixels (n, height, width, 3), levels 0 to 255. The slice must stay until the backward pass.
func (in *ImageInput) Set(p *ops.Program, pixels []uint8, n int) {
	p.SetImageU8(in.image, pixels)
	in.setCount(p, n)
}

// SetFloat binds normalised pictures (n, 3, height, width).
func (in *ImageInput) SetFloat(p *ops.Program, pixels []float32, n int) {
	p.SetImageF32(in.image, pixels)
	in.setCount(p, n)
}

func (in *ImageInput) setCount(p *ops.Program, n int) {
	p.SetSeqs(in.seqs, in.offsets[:n+1])
	if in.patches != nil {
		p.SetSeqs(in.patches, in.patchOffsets[:n+1])
	}
	if in.class != nil {
		p.SetInts(in.class, in.offsets[:n]) // the class token comes first
	}
}

// TextInput is the run-time input of the text tower in one graph.
type TextInput struct {
	ids  *ops.Ints
	seqs *ops.Seqs
	read *ops.Ints // rows of the tokens that are read, nil if all are

	vocab, context         int
	first                  bool // of the tokens of a text the first is read, not the last
	tokens, offsets, reads []int32
	encoded

	// Of a frozen tower whose pooled rows are known.
	cache *TextCache
	rows  *ops.Dim
	known *ops.Node // (B, D)
	data  []float32
}

// Context returns the longest text in tokens.
func (in *TextInput) Context() int { return in.context }

// newTextInput makes an input of at most n texts. name tells it from others of the graph.
func newTextInput(g *ops.Graph, name string, t *Text, n int) *TextInput {
	in := &TextInput{vocab: t.VocabSize, context: t.ContextLength, first: t.Pool == "cls", encoded: encodedAs(name)}
	rows := n * t.ContextLength
	in.ids = g.Ints(name+".ids", rows)
	in.seqs = g.Seqs(name+".seqs", n, rows)
	if t.Pool != "avg" {
		in.read = g.Ints(name+".read", n)
	}
	return in
}

// Set packs the texts of the next run: each brings just its own tokens. A text that is empty, longer than the context or
// holds an id outside the vocabulary gives an error.
func (in *TextInput) Set(p *ops.Program, texts [][]int32) error {
	if in.cache != nil {
		return in.setKnown(p, texts)
	}
	in.tokens, in.offsets, in.reads = in.tokens[:0], append(in.offsets[:0], 0), in.reads[:0]
	for i, ids := range texts {
		if len(ids) == 0 || len(ids) > in.context {
			return fmt.Errorf("model: text %d has %d tokens, the context holds 1 to %d: %w", i, len(ids), in.context, ops.ErrShape)
		}
		for _, id := range ids {
			if id < 0 || int(id) >= in.vocab {
				return fmt.Errorf("model: text %d holds token %d, the vocabulary has %d: %w", i, id, in.vocab, ops.ErrShape)
			}
		}
		in.tokens = append(in.tokens, ids...)
		if in.first {
			in.reads = append(in.reads, in.offsets[i])
		}
		in.offsets = append(in.offsets, int32(len(in.tokens)))
		if !in.first {
			in.reads = append(in.reads, int32(len(in.tokens)-1))
		}
	}
	p.SetInts(in.ids, in.tokens)
	p.SetSeqs(in.seqs, in.offsets)
	if in.read != nil {
		p.SetInts(in.read, in.reads)
	}
	return nil
}
