package model

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The numbers of parameters are those of open_clip's model profile (spec 2.4).
func TestPresetSizes(t *testing.T) {
	for name, want := range map[string]int{
		"ViT-B-32": 151_277_313, "ViT-B-16": 149_620_737, "ViT-L-14": 427_616_513, "ViT-L-14-336": 427_944_193, "ViT-S-32-alt": 43_224_449, "ViT-S-16-alt": 42_396_161,
		"ViT-S-32": 63_085_825, "ViT-S-16": 62_257_537, "ViT-M-32": 103_119_873, "ViT-M-16": 102_015_489, "ViT-B-32-quickgelu": 151_277_313,
	} {
		require.Equal(t, want, presetSize(t, name), name)
	}
	for name, millions := range map[string]float64{ // the profile gives them rounded
		"ViT-M-32-alt": 80.07, "ViT-M-16-alt": 78.98, "ViT-B-32-256": 151.29, "ViT-B-16-plus-240": 208.38, "ViT-H-14": 986.11, "ViT-g-14": 1366.68, "ViT-bigG-14": 2539.57,
	} {
		require.InDelta(t, millions, float64(presetSize(t, name))/1e6, 0.0051, name)
	}
}

func presetSize(t *testing.T, name string) int {
	c, ok := Presets[name]
	require.True(t, ok, name)
	m, err := NewCLIP(c, false)
	require.NoError(t, err, name)
	return m.Layout.Count()
}
