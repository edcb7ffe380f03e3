package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/checkpoints/safetensors"
	"diptych/model"
)

// BERT is a folder with a BertModel in Hugging Face's names: model.safetensors and config.json.
type BERT struct {
	file   *safetensors.File
	prefix string // before all names: "bert." where the file holds a larger model
	config bertConfig
}

// bertConfig is what is read of a config.json.
type bertConfig struct {
	Type      string  `json:"model_type"`
	Width     int     `json:"hidden_size"`
	Depth     int     `json:"num_hidden_layers"`
	Heads     int     `json:"num_attention_heads"`
	MLP       int     `json:"intermediate_size"`
	Act       string  `json:"hidden_act"`
	Eps       float64 `json:"layer_norm_eps"`
	Vocab     int     `json:"vocab_size"`
	Context   int     `json:"max_position_embeddings"`
	Segments  int     `json:"type_vocab_size"`
	Positions string  `json:"position_embedding_type"`
}

// OpenBERT opens a folder.
func OpenBERT(dir string) (_ *BERT, err error) {
	b := &BERT{}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil {
		if err = json.Unmarshal(text, &b.config); err != nil {
			err = fmt.Errorf("config.json: %w", err)
		}
	}
	if err == nil {
		err = b.config.check()
	}
	if err == nil {
		b.file, err = safetensors.Open(filepath.Join(dir, "model.safetensors"))
	}
	if err != nil {
		return nil, fmt.Errorf("bridge: BERT in %s: %w", dir, err)
	}
	if names := b.file.Names(); slices.Contains(names, "bert."+bertKey) {
		b.prefix = "bert."
	} else if !slices.Contains(names, bertKey) {
		err := fmt.Errorf("bridge: %s has no %s: it is no BertModel: %w", dir, bertKey, fs.ErrNotExist)
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

const bertKey = "embeddings.word_embeddings.weight"

// bertActs are Hugging Face's names of activations.
var bertActs = map[string]string{"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}

func (c *bertConfig) check() error {
	switch {
	case c.Type != "bert":
		return fmt.Errorf("config.json: model_type %q, want bert", c.Type)
	case c.Positions != "" && c.Positions != "absolute":
		return fmt.Errorf("config.json: position_embedding_type %q, want absolute", c.Positions)
	case bertActs[c.Act] == "":
		return fmt.Errorf("config.json: hidden_act %q is unknown; known: gelu, gelu_new, gelu_pytorch_tanh", c.Act)
	case c.Width < 1 || c.MLP < 1:
		return fmt.Errorf("config.json: hidden_size %d, intermediate_size %d", c.Width, c.MLP)
	}
	return nil
}

// Close closes the file.
func (b *BERT) Close() error { return b.file.Close() }

// Describe gives a text tower the folder's sizes. A context longer than the folder's is an error.
func (b *BERT) Describe(t *model.Text) error {
	c := &b.config
	if t.ContextLength > c.Context {
		return fmt.Errorf("bridge: BERT: the context of %d tokens is longer than the folder's %d", t.ContextLength, c.Context)
	}
	t.Width, t.Depth, t.NumHeads, t.MLPRatio = c.Width, c.Depth, c.Heads, float64(c.MLP)/float64(c.Width)
	t.Activation, t.LayerNormEps, t.VocabSize, t.Segments, t.Causal = bertActs[c.Act], c.Eps, c.Vocab, c.Segments, false
	return nil
}

// Load reads the tower's parameters of a layout into a slab. Of a longer table of positions the first rows are taken. What is
// missing or has another shape is listed in one error, with both shapes.
func (b *BERT) Load(l *model.Layout, slab []float32) error {
	var faults []error
	for _, p := range l.Params {
		name, ok := strings.CutPrefix(p.Name, "bert.")
		if !ok {
			continue
		}
		parts := bertParts(name)
		size := p.Len() / len(parts)
		for i, part := range parts {
			faults = append(faults, b.load(p, len(parts), part, p.Slice(slab)[i*size:(i+1)*size]))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("bridge: BERT: %w", err)
	}
	return nil
}

// LoadParam reads a tensor by its name in a BertModel into a parameter of the same shape; of a longer table of positions its first rows.
func (b *BERT) LoadParam(p *model.Param, name string, dst []float32) error {
	if err := b.load(p, 1, name, dst); err != nil {
		return fmt.Errorf("bridge: BERT: %w", err)
	}
	return nil
}

// load reads a tensor into one of several parts of a parameter.
func (b *BERT) load(p *model.Param, parts int, name string, dst []float32) error {
	shape := slices.Clone(p.Shape)
	shape[0] /= parts
	v, got, err := b.file.Float32(b.prefix + name)
	if err != nil {
		return err
	}
	longer := name == "embeddings.position_embeddings.weight" && len(got) == 2 && got[0] > shape[0] && got[1] == shape[1]
	if !slices.Equal(got, shape) && !longer {
		return fmt.Errorf("%s has shape %v, the model's %s wants %v", name, got, p.Name, shape)
	}
	copy(dst, v)
	return nil
}

// bertParts names the tensors that make up one of our parameters, one under the other.
func bertParts(name string) []string {
	layer, leaf, ok := strings.Cut(name, ".self.in_proj.")
	if !ok {
		return []string{name}
	}
	return []string{layer + ".self.query." + leaf, layer + ".self.key." + leaf, layer + ".self.value." + leaf}
}
