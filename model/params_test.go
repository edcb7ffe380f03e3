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
