package experiments

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/tokenizer"
)

// Every built-in recipe can be run, and its resolved form says the same.
func TestBuiltIn(t *testing.T) {
	require.Contains(t, Names(), DefaultRecipe)
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			c, err := Load(name, nil)
			require.NoError(t, err)
			require.Equal(t, name, c.Name)
			byPath, err := Load("experiments/"+name+".yaml", nil)
			require.NoError(t, err)
			require.Empty(t, Diff(c, byPath))
			if c.Data.Tokenizer.File != "" && !c.Data.Tokenizer.BuiltIn() {
				c.Data.Tokenizer = tokenizer.Config{Kind: "clip"} // instead of a vocabulary that the user makes first
			}
			p, err := c.build(nil)
			if c.Model.Text.Weights != "" { // fetched, not in the repository
				require.ErrorContains(t, err, c.Model.Text.Weights+"/config.json")
				return
			}
			if c.Start.New != nil {
				require.ErrorContains(t, err, "trainer finetune --from MODEL")
				return
			}
			require.NoError(t, err)
			if c.Model.HasTexts() {
				require.Equal(t, c.Model.Text.VocabSize, p.tok.VocabSize())
			} else {
				require.Nil(t, p.tok)
			}
			again, err := ParseResolved(c.YAML(), "recipe.yaml")
			require.NoError(t, err)
			require.Empty(t, Diff(c, again))
			require.Equal(t, string(c.YAML()), string(again.YAML()))
		})
	}
}

// A file of the same name comes before the built-in recipe; without a name of its own a recipe is called after its file.
func TestLoadFile(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("mine.yaml", []byte("seed: 5\n"), 0o666))
	c, err := Load("mine.yaml", []string{"optim.lr=3e-4", "model.vision.pool=avg", "data.captionKinds=[label, tags]", "losses=[{name: sigmoid}]"})
	require.NoError(t, err)
	require.Equal(t, "mine", c.Name)
	require.EqualValues(t, 5, c.Seed)
	require.Equal(t, 3e-4, c.Optim.LR)
	require.Equal(t, "avg", c.Model.Vision.Pool)
	require.Equal(t, []string{"label", "tags"}, c.Data.CaptionKinds)
	require.Equal(t, 1.0, c.Losses[0].Weight, "what an objective leaves out has its default")

	require.NoError(t, os.Mkdir("experiments", 0o777))
	require.NoError(t, os.WriteFile(filepath.Join("experiments", DefaultRecipe+".yaml"), []byte("seed: 6\n"), 0o666))
	c, err = Load("experiments/"+DefaultRecipe+".yaml", nil)
	require.NoError(t, err)
	require.EqualValues(t, 6, c.Seed)
}

// A preset gives what the recipe leaves out, and nothing else.
func TestPreset(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	require.NoError(t, os.WriteFile(file, []byte("model: {preset: ViT-B-32, vision: {depth: 3}}\n"), 0o666))
	c, err := Load(file, nil)
	require.NoError(t, err)
	require.Equal(t, 3, c.Model.Vision.Depth)
	require.Equal(t, 768, c.Model.Vision.Width)
	require.Equal(t, 12, c.Model.Text.Depth)
	again, err := ParseResolved(c.YAML(), file)
	require.NoError(t, err)
	require.Empty(t, Diff(c, again), "the resolved recipe does not fall back to the preset")
	c, err = Load(file, []string{"model.preset=ViT-B-16"})
	require.NoError(t, err)
	require.Equal(t, 16, c.Model.Vision.PatchSize)
}

func TestDiff(t *testing.T) {
	a, err := Load(DefaultRecipe, nil)
	require.NoError(t, err)
	b, err := Load(DefaultRecipe, []string{"seed=2", "optim.schedule.warmupSteps=7", "train.keepBest=val.concept.top1", "losses=[{name: itc, labelSmoothing: 0.1}]"})
	require.NoError(t, err)
	diff := Diff(a, b)
	require.Len(t, diff, 4)
	for i, prefix := range []string{"losses: ", "optim.schedule.warmupSteps: 100, not 7", "seed: 1, not 2", "train.keepBest: absent, not val.concept.top1"} {
		require.True(t, strings.HasPrefix(diff[i], prefix), diff[i])
	}
}

func TestSuggest(t *testing.T) {
	fields := fieldsOf(reflect.TypeFor[Config]())
	for key, want := range map[string]string{
		"modle": "; did you mean model?", "Losses": "; did you mean losses?", "optimizer": "; did you mean optim?", "tarin": "; did you mean train?",
		"quux": "; known here: data, engine, eval, losses, model, name, optim, seed, start, train",
	} {
		require.Equal(t, want, suggest(key, fields), key)
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"lr", "rl", 1}, {"kitten", "sitting", 3}, {"steps", "step", 1}, {"ca", "abc", 3}} {
		require.Equal(t, c.want, distance(c.a, c.b), "%s %s", c.a, c.b)
	}
}

// Whatever a recipe's text is, it gives a recipe or an error; and a recipe says in its resolved form what it is.
func FuzzParse(f *testing.F) {
	text, err := recipes.ReadFile(DefaultRecipe + ".yaml")
	require.NoError(f, err)
	f.Add(text, "optim.lr=1")
	f.Add([]byte("losses: [{name: itc}]\noptim: &a {lr: 1}\ntrain: *a\n"), "a=")
	f.Add([]byte("<<: {seed: 3}\n"), "data.transforms=[{op: flip}]")
	f.Add([]byte("? [a]\n: b\n---\n- 1\n"), "losses=null")
	f.Add([]byte("model: {vision: {width: .inf, dropout: .nan}}\n"), "model.vision={width: !!str 3}")
	f.Fuzz(func(t *testing.T, text []byte, set string) {
		c, err := parse(text, "recipe.yaml", []string{set}, true)
		if err != nil {
			require.ErrorIs(t, err, ErrRecipe)
			return
		}
		again, err := ParseResolved(c.YAML(), "resolved.yaml")
		require.NoError(t, err)
		require.Empty(t, Diff(c, again))
	})
}
