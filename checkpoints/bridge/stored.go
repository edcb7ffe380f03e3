package bridge

import (
	"slices"

	"diptych/checkpoints/safetensors"
)

// folded are tensors with the bias of a dual encoder's patches, which no public CLIP has, added to the positions of the patches: the sum that enters
// the tower is the same.
type folded struct {
	Stored
	skip int // positions before those of the patches
}

const (
	foldedBias = "visual.conv1.bias"
	foldedInto = "visual.positional_embedding"
)

// Names leaves the bias out.
func (f *folded) Names() []string {
	return slices.DeleteFunc(slices.Clone(f.Stored.Names()), func(n string) bool { return n == foldedBias })
}

// Stream gives the sum for the positions.
func (f *folded) Stream(name string, use func(b []byte) error) error {
	if name != foldedInto {
		return f.Stored.Stream(name, use)
	}
	bias, _, err := float32s(f.Stored, foldedBias)
	if err != nil {
		return err
	}
	table, dtype, err := float32s(f.Stored, foldedInto)
	if err != nil {
		return err
	}
	for k := range table[f.skip*len(bias):] {
		table[f.skip*len(bias)+k] += bias[k%len(bias)]
	}
	return use(dtype.Narrow(table))
}

// float32s reads a tensor whole.
func float32s(from Stored, name string) ([]float32, safetensors.DType, error) {
	info, err := from.Info(name)
	if err != nil {
		return nil, "", err
	}
	t := safetensors.Streamed(name, info.DType, info.Shape, func(use func(b []byte) error) error { return from.Stream(name, use) })
	v, err := t.Float32()
	return v, info.DType, err
}

// untied are the tensors of a model whose word head reads the table of the word embeddings, with the table twice.
type untied struct{ Stored }

const (
	wordTable = "text_embeddings.word_embeddings.weight"
	wordHead  = "mlm_score.decoder.weight"
)

// Names adds the head's table.
func (u untied) Names() []string { return append(slices.Clone(u.Stored.Names()), wordHead) }

// Info describes the head's table as the embeddings'.
func (u untied) Info(name string) (safetensors.Info, error) {
	if name != wordHead {
		return u.Stored.Info(name)
	}
	info, err := u.Stored.Info(wordTable)
	info.Name = wordHead
	return info, err
}

// Stream gives the embeddings for the head's table.
func (u untied) Stream(name string, use func(b []byte) error) error {
	if name == wordHead {
		name = wordTable
	}
	return u.Stored.Stream(name, use)
}
