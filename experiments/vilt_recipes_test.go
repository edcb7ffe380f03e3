package experiments

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/model"
)

// The built-in recipes of ViLT build; the demo's stays within 10 million parameters.
func TestViLTRecipes(t *testing.T) {
	for _, name := range []string{"vilt-emoji", "vilt-flickr8k", "vilt-pretrain"} {
		c, err := Load(name, nil)
		require.NoError(t, err)
		p, err := c.build(nil)
		require.NoError(t, err, name)
		require.IsType(t, &model.ViLT{}, p.model)
		if name == "vilt-emoji" {
			require.LessOrEqual(t, p.model.Parameters().Count(), 10_000_000)
		}
	}
}

// The recipe of two towers and a fusion builds, and stays within 10 million parameters.
func TestFusionRecipe(t *testing.T) {
	c, err := Load("fusion-emoji", nil)
	require.NoError(t, err)
	p, err := c.build(nil)
	require.NoError(t, err)
	require.IsType(t, &model.Fusion{}, p.model)
	require.LessOrEqual(t, p.model.Parameters().Count(), 10_000_000)
}
