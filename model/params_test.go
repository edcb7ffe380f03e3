package model

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is frozen lies behind all else, whatever the order in which it was added and however often it is frozen.
func TestFreeze(t *testing.T) {
	cfg := Default()
	cfg.EmbedDim = 6
	cfg.Vision.ImageSize, cfg.Vision.PatchSize, cfg.Vision.Width, cfg.Vision.Depth, cfg.Vision.NumHeads = 8, 4, 8, 1, 2
	cfg.Text.ContextLength, cfg.Text.VocabSize, cfg.Text.Width, cfg.Text.Depth, cfg.Text.NumHeads = 5, 11, 6, 1, 2
	m, err := NewCLIP(cfg, false)
	require.NoError(t, err)
	l := &m.Layout
	size := l.Size
	for range 2 {
		l.Freeze(func(name string) bool { return strings.HasPrefix(name, "visual.") })
		require.Equal(t, size, l.Size)
		taken := make([]bool, l.Size)
		for _, p := range l.Params {
			require.Equal(t, strings.HasPrefix(p.Name, "visual."), p.Frozen, p.Name)
			require.Equal(t, p.Frozen, p.Offset >= l.Trained, p.Name)
			require.Zero(t, p.Offset%16, p.Name)
			for i := range p.Len() {
				require.False(t, taken[p.Offset+i], p.Name)
				taken[p.Offset+i] = true
			}
		}
	}
	l.Freeze(func(string) bool { return false })
	require.Less(t, l.Trained, l.Size, "what is frozen once stays so")
}

// Every model counts the layers above a parameter: from the heads and last norms, 0, down to the embeddings.
func TestAbove(t *testing.T) {
	heads := Heads{Match: true, Words: true}
	for _, c := range []struct {
		cfg  Config
		want map[string]int // by prefix; the longest counts
	}{
		{DefaultFusion(), map[string]int{
			"": 0, "visual_encoder.": 3, "visual_encoder.norm.": 0, "visual_encoder.blocks.0.": 2, "visual_encoder.blocks.1.": 1,
			"bert.embeddings.": 6, "bert.encoder.layer.0.": 5, "bert.encoder.layer.1.": 4, "bert.encoder.layer.2.": 3, "bert.encoder.layer.3.": 2,
			"bert.encoder.layer.4.": 1,
		}},
		{DefaultViLT(), map[string]int{
			"": 0, "text_embeddings.": 3, "token_type_embeddings.": 3, "transformer.": 3, "transformer.norm.": 0,
			"transformer.blocks.0.": 2, "transformer.blocks.1.": 1,
		}},
	} {
		t.Run(c.cfg.Kind, func(t *testing.T) {
			cfg := c.cfg
			v := &cfg.Vision
			v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads = 8, 4, 8, 2, 2
			cfg.Text.VocabSize, cfg.Text.ContextLength = 11, 5
			if cfg.Kind == "fusion" {
				cfg.Text.Width, cfg.Text.Depth, cfg.Text.NumHeads = 8, 2, 2
				cfg.EmbedDim, cfg.Fusion.Depth = 6, 3
			}
			m, err := New(cfg, heads)
			require.NoError(t, err)
			for _, p := range m.Parameters().Params {
				longest := ""
				for prefix := range c.want {
					if strings.HasPrefix(p.Name, prefix) && len(prefix) > len(longest) {
						longest = prefix
					}
				}
				require.Equal(t, c.want[longest], p.Above, p.Name)
			}
		})
	}
}
