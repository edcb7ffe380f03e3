package bridge

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/model"
)

// copyBERT copies the fixture of package model to a folder of its own, with keys of its config.json changed.
func copyBERT(t *testing.T, change map[string]any) string {
	t.Helper()
	dir := t.TempDir()
	const from = "../../model/testdata/bert"
	b, err := os.ReadFile(filepath.Join(from, "model.safetensors"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), b, 0o600))
	b, err = os.ReadFile(filepath.Join(from, "config.json"))
	require.NoError(t, err)
	config := map[string]any{}
	require.NoError(t, json.Unmarshal(b, &config))
	for k, v := range change {
		config[k] = v
	}
	b, err = json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600))
	return dir
}

// load reads a folder into a model whose text tower it describes.
func load(t *testing.T, dir string, edit func(*model.Text)) (*model.CLIP, []float32, error) {
	t.Helper()
	b, err := OpenBERT(dir)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	cfg := model.Presets["ViT-B-32"]
	cfg.EmbedDim = 32
	cfg.Vision.Transformer = model.Transformer{Width: 32, Depth: 1, NumHeads: 2, MLPRatio: 1, Activation: "gelu", LayerNormEps: 1e-5}
	cfg.Text = model.Text{Kind: "bert", ContextLength: 10, Pool: "avg", Projection: "none"}
	if err := b.Describe(&cfg.Text); err != nil {
		return nil, nil, err
	}
	if edit != nil {
		edit(&cfg.Text)
	}
	m, err := model.NewCLIP(cfg, false)
	require.NoError(t, err)
	slab := make([]float32, m.Layout.Size)
	return m, slab, b.Load(&m.Layout, slab)
}

func TestLoadBERT(t *testing.T) {
	m, slab, err := load(t, "../../model/testdata/bert", nil)
	require.NoError(t, err)
	text := m.Config.Text
	require.Equal(t, []int{32, 3, 4, 60, 2}, []int{text.Width, text.Depth, text.NumHeads, text.VocabSize, text.Segments})
	require.Equal(t, []any{"gelu", 1e-12, 3.0}, []any{text.Activation, text.LayerNormEps, text.MLPRatio})
	b, err := OpenBERT("../../model/testdata/bert")
	require.NoError(t, err)
	defer b.Close()
	for _, p := range m.Layout.Params {
		name, ok := strings.CutPrefix(p.Name, "bert.")
		if !ok {
			continue
		}
		var want []float32
		for _, part := range bertParts(name) {
			v, _, err := b.file.Float32(part)
			require.NoError(t, err)
			want = append(want, v...)
		}
		require.Equal(t, want[:p.Len()], p.Slice(slab), p.Name) // of 12 positions the first 10
	}
}

func TestBERTErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]any
		edit   func(*model.Text)
		want   []string
	}{
		"type":       {map[string]any{"model_type": "gpt2"}, nil, []string{`model_type "gpt2"`}},
		"positions":  {map[string]any{"position_embedding_type": "relative_key"}, nil, []string{"relative_key"}},
		"activation": {map[string]any{"hidden_act": "relu"}, nil, []string{`"relu" is unknown`}},
		"sizes":      {map[string]any{"hidden_size": 0}, nil, []string{"hidden_size 0"}},
		"context":    {map[string]any{"max_position_embeddings": 8}, nil, []string{"10 tokens", "8"}},
		"depth":      {nil, func(t *model.Text) { t.Depth = 4 }, []string{"encoder.layer.3.attention.self.query.weight"}},
		"width": {nil, func(t *model.Text) { t.VocabSize = 61 }, []string{
			"embeddings.word_embeddings.weight has shape [60 32], the model's bert.embeddings.word_embeddings.weight wants [61 32]",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load(t, copyBERT(t, c.change), c.edit)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
	_, err := OpenBERT(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}
