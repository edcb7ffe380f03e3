package experiments

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/addr"
)

// An empty recipe is one that leaves everything out: overrides have a place in it.
func TestOverridesOfAnEmptyRecipe(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		c, err := parse([]byte(text), "empty.yaml", []string{"train.steps=5", "optim.schedule.warmupSteps=2"}, true)
		require.NoError(t, err)
		require.Equal(t, 5, c.Train.Steps)
		require.Equal(t, 2, c.Optim.Schedule.WarmupSteps)
	}
	_, err := parse([]byte("name: a\n---\nname: b\n"), "two.yaml", nil, true)
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, "two.yaml: 2 YAML documents, want one")
}

// The resolved recipe holds every number to its last bit, and every name.
func TestResolvedRecipeIsExact(t *testing.T) {
	c, err := Load(DefaultRecipe, nil)
	require.NoError(t, err)
	for i := range uint64(50) {
		h := addr.Hash(i)
		c.Seed = h
		c.Optim.LR, c.Optim.Eps = math.Exp(20*addr.Norm(h)), math.Exp(40*addr.Norm(h+1))
		c.Optim.WeightDecay = float64(h%5) * math.Pow(10, float64(h%30))
		again, err := ParseResolved(c.YAML(), "recipe.yaml")
		require.NoError(t, err)
		require.Equal(t, c.Seed, again.Seed)
		require.Equal(t, c.Optim, again.Optim)
	}
	for _, name := range []string{"on", "123", "1e3", "null", "~", "a: b", "# x", "'q", "\"q", "é\n", "*x", "{a}", "1_000"} {
		c.Name, c.Data.CaptionKinds = name, []string{name}
		again, err := ParseResolved(c.YAML(), "recipe.yaml")
		require.NoError(t, err)
		require.Equal(t, c.Name, again.Name)
		require.Equal(t, c.Data, again.Data)
	}
}

// A pattern that matches no parameter is the user's mistake, found before anything is begun.
func TestPatternOfNoParameter(t *testing.T) {
	_, err := Resolve(Options{Recipe: DefaultRecipe, Out: t.TempDir(), Sets: []string{"optim.groups=[{pattern: visuell.*}]"}})
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, `optim.groups[0].pattern: "visuell.*" matches no parameter; there are logit_scale, visual.conv1.weight,`)
}
