package model

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every fault of a configuration is named, NaN, infinities and sizes whose products overflow among them.
func TestValidate(t *testing.T) {
	for name, c := range Presets {
		require.NoError(t, c.Validate(), name)
	}
	const huge = math.MaxInt
	for _, x := range []struct {
		name string
		set  func(c *Config)
		want string
	}{
		{"no width", func(c *Config) { c.Vision.Width = 0 }, "model.vision.width: 0, want 1 to"},
		{"huge width", func(c *Config) { c.Text.Width = huge }, "model.text.width: 9223372036854775807, want 1 to"},
		{"huge depth", func(c *Config) { c.Text.Depth = huge }, "model.text.depth: "},
		{"huge embedding", func(c *Config) { c.EmbedDim = huge }, "model.embedDim: "},
		{"huge vocabulary", func(c *Config) { c.Text.VocabSize = huge }, "model.text.vocabSize: "},
		{"huge context", func(c *Config) { c.Text.ContextLength = huge }, "model.text.contextLength: "},
		{"huge picture", func(c *Config) { c.Vision.ImageSize = huge }, "model.vision.imageSize: "},
		{"width in no whole patches", func(c *Config) { c.Vision.ImageWidth = c.Vision.ImageSize + 1 }, "model.vision.imageWidth: "},
		{"huge width", func(c *Config) { c.Vision.ImageWidth = huge }, "model.vision.imageWidth: "},
		{"too many patches", func(c *Config) { c.Vision.ImageSize, c.Vision.PatchSize = 1<<14, 1 }, "imageSize: 16384 has 16384 patches of 1 a side"},
		{"heads", func(c *Config) { c.Text.NumHeads = 5 }, "model.text.width: 512 is not a multiple of numHeads 5"},
		{"ratio not a number", func(c *Config) { c.Vision.MLPRatio = math.NaN() }, "model.vision.mlpRatio: NaN"},
		{"infinite ratio", func(c *Config) { c.Vision.MLPRatio = math.Inf(1) }, "model.vision.mlpRatio: +Inf"},
		{"dropout not a number", func(c *Config) { c.Vision.Dropout = math.NaN() }, "model.vision.dropout: NaN, want [0, 1)"},
		{"all dropped", func(c *Config) { c.Text.DropPath = 1 }, "model.text.dropPath: 1, want [0, 1)"},
		{"stochastic depth not a number", func(c *Config) { c.Text.DropPath = math.NaN() }, "model.text.dropPath: NaN"},
		{"eps not a number", func(c *Config) { c.Text.LayerNormEps = math.NaN() }, "model.text.layerNormEps: NaN"},
		{"infinite eps", func(c *Config) { c.Text.LayerNormEps = math.Inf(1) }, "model.text.layerNormEps: +Inf"},
		{"scale not a number", func(c *Config) { c.InitLogitScale = math.NaN() }, "model.initLogitScale: NaN"},
		{"scale past its clamp", func(c *Config) { c.InitLogitScale = 5 }, "model.initLogitScale: 5, want [0, ln 100"},
		{"bias not a number", func(c *Config) { c.InitLogitBias = math.NaN() }, "model.initLogitBias: NaN"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := Presets["ViT-B-32"]
			x.set(&c)
			require.ErrorContains(t, c.Validate(), x.want)
			_, err := NewCLIP(c, true)
			require.ErrorContains(t, err, x.want)
		})
	}
	c := Presets["ViT-B-32"]
	c.Vision.Dropout, c.Text.Pool = -1, "max"
	err := c.Validate()
	require.ErrorContains(t, err, "model.vision.dropout: -1")
	require.ErrorContains(t, err, `model.text.pool: "max"`)
}

// The operations of a pair's forward pass are those that the specification counts (2.4), in GFLOP.
func TestForwardFLOPs(t *testing.T) {
	for name, want := range map[string]float64{"ViT-B-32": 14.78, "ViT-B-16": 41.09, "ViT-S-32-alt": 3.56} {
		c := Presets[name]
		require.InDelta(t, want, c.ForwardFLOPs()/1e9, 0.005, name)
	}
}
