// Package experiments loads a recipe into the root Config, builds every part of a run and wires them. The recipes lie beside
// it, one file per run, each headed by its command and the numbers to expect. Start at Load and Open.
package experiments

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"diptych/data"
	"diptych/eval"
	"diptych/losses"
	"diptych/model"
	"diptych/optim"
	"diptych/train"
)

// ErrRecipe marks a recipe that cannot be run as it is written.
var ErrRecipe = errors.New("recipe")

// Config is a whole recipe. Each room owns its part; what spans rooms is checked here.
type Config struct {
	Name   string          `yaml:"name"` // of the run; its folder under runs/ unless another is given
	Seed   uint64          `yaml:"seed"`
	Data   data.Config     `yaml:"data"`
	Model  model.Config    `yaml:"model"`
	Losses []losses.Config `yaml:"losses"`
	Optim  optim.Config    `yaml:"optim"`
	Train  train.Config    `yaml:"train"`
	Engine train.Engine    `yaml:"engine"`
	Eval   Eval            `yaml:"eval"`
	Start  Start           `yaml:"start,omitempty"`
}

// Eval says how a run measures its model.
type Eval struct {
	Splits []string    `yaml:"splits"` // measured at the end; empty: all but train
	During []string    `yaml:"during"` // measured every train.evalEvery updates; empty: val, or all but train where there is none
	Tasks  []eval.Task `yaml:"tasks"`  // retrieval, zeroshot, classify, match, fill, vqa, nlvr2; empty: all that the model can do
	// Texts are the candidates of retrieval: label (one text of each group), all (every caption), or empty: labels where
	// there are any.
	Texts string `yaml:"texts"`
	// Choices is how many pictures of a split choose among 100 sentences at most, in the task match; 0: all. During the run it is 50.
	Choices int `yaml:"choices,omitempty"`
}

//go:embed *.yaml
var recipes embed.FS

// DefaultRecipe is the recipe that runs when none is named.
const DefaultRecipe = "clip-emoji"

// Default returns the values that a recipe may leave out, for its kind of model and that model's preset; either may be empty.
func Default(kind, preset string) (*Config, error) {
	m, err := model.DefaultFor(kind, preset)
	if err != nil {
		return nil, err
	}
	return &Config{
		Data: data.Default(), Model: m, Losses: losses.Default(), Optim: optim.Default(), Train: train.Default(), Engine: train.DefaultEngine(),
	}, nil
}

// Load reads a recipe: a file, or the name of an embedded one. sets are overrides such as optim.lr=3e-4.
func Load(recipe string, sets []string) (*Config, error) {
	text, file, err := readRecipe(recipe)
	if err != nil {
		return nil, err
	}
	c, err := parse(text, file, sets, true)
	if err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	}
	return c, nil
}

// Parse reads a recipe from its text.
func Parse(text string, sets []string) (*Config, error) {
	return parse([]byte(text), "recipe", sets, true)
}

// readRecipe finds a recipe's text.
func readRecipe(recipe string) (text []byte, file string, err error) {
	if text, err = os.ReadFile(recipe); err == nil {
		return text, recipe, nil
	}
	name := strings.TrimSuffix(filepath.Base(recipe), ".yaml") + ".yaml"
	if errors.Is(err, fs.ErrNotExist) && (recipe == filepath.ToSlash(filepath.Join("experiments", name)) || !strings.ContainsAny(recipe, `/\`)) {
		if text, err := recipes.ReadFile(name); err == nil {
			return text, name, nil
		}
		return nil, "", fmt.Errorf("%w %s: no such file, and none is built in; built in: %s", ErrRecipe, recipe, strings.Join(Names(), ", "))
	}
	return nil, "", fmt.Errorf("%w: %w", ErrRecipe, err)
}

// Names lists the embedded recipes.
func Names() []string {
	entries, _ := recipes.ReadDir(".") // embedded: cannot fail
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return out
}

// parse decodes a recipe strictly: every unknown key is an error that names line, column and the nearest valid key. With start
// it takes what it leaves out from the model that it starts from; a resolved recipe leaves nothing out.
func parse(text []byte, file string, sets []string, start bool) (*Config, error) {
	if err := checkKeys(text, file, reflect.TypeFor[Config]()); err != nil {
		return nil, err
	}
	tree := map[string]any{}
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("%w %s: %s", ErrRecipe, file, yaml.FormatError(err, false, true))
	}
	if tree == nil { // an empty recipe
		tree = map[string]any{}
	}
	for _, s := range sets {
		if err := set(tree, s); err != nil {
			return nil, err
		}
	}
	merged, err := yaml.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrRecipe, file, err)
	}
	var c *Config
	if from := startFrom(tree); start && from != "" {
		c, err = startDefaults(from, tree)
	} else {
		c, err = Default(modelNames(tree))
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrRecipe, file, err)
	}
	if err := yaml.NewDecoder(bytes.NewReader(merged), yaml.DisallowUnknownField()).Decode(c); err != nil {
		return nil, fmt.Errorf("%w %s: %s", ErrRecipe, file, yaml.FormatError(err, false, true))
	}
	return c, nil
}

// modelNames returns the kind and the preset of model that a recipe names.
func modelNames(tree map[string]any) (kind, preset string) {
	m, _ := tree["model"].(map[string]any)
	kind, _ = m["kind"].(string)
	preset, _ = m["preset"].(string)
	return kind, preset
}

// startFrom returns the model that a recipe starts from.
func startFrom(tree map[string]any) string {
	s, _ := tree["start"].(map[string]any)
	from, _ := s["from"].(string)
	return from
}

// set applies one override, key.path=value, whose value is YAML.
func set(tree map[string]any, s string) error {
	path, text, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%w: --set %s: want key=value, such as optim.lr=3e-4", ErrRecipe, s)
	}
	keys := strings.Split(path, ".")
	t, err := lookup(reflect.TypeFor[Config](), keys)
	if err != nil {
		return fmt.Errorf("%w: --set %s: %w", ErrRecipe, s, err)
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("%w: --set %s: the value is not YAML: %s", ErrRecipe, s, yaml.FormatError(err, false, false))
	}
	if err := checkValue(text, s, path, t); err != nil {
		return err
	}
	for _, k := range keys[:len(keys)-1] {
		next, ok := tree[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[k] = next
		}
		tree = next
	}
	tree[keys[len(keys)-1]] = value
	return nil
}

// YAML returns the resolved recipe, which is enough to repeat the run.
func (c *Config) YAML() []byte {
	b, err := yaml.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("experiments: a recipe that does not encode: %v", err)) // plain structs always do
	}
	return b
}

// ParseResolved reads what YAML wrote.
func ParseResolved(text []byte, file string) (*Config, error) { return parse(text, file, nil, false) }

// Diff names the keys in which two recipes differ, with both values.
func Diff(a, b *Config) []string {
	fa, fb := flat(a), flat(b)
	keys := map[string]bool{}
	for k := range fa {
		keys[k] = true
	}
	for k := range fb {
		keys[k] = true
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if fa[k] != fb[k] {
			out = append(out, fmt.Sprintf("%s: %s, not %s", k, or(fa[k], "absent"), or(fb[k], "absent")))
		}
	}
	return out
}

func or(s, t string) string {
	if s == "" {
		return t
	}
	return s
}

// flat maps each key path of a recipe to its value as text. Lists count as one value.
func flat(c *Config) map[string]string {
	var tree map[string]any
	if err := yaml.Unmarshal(c.YAML(), &tree); err != nil {
		panic(fmt.Sprintf("experiments: a resolved recipe that does not decode: %v", err))
	}
	out := map[string]string{}
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		if m, ok := v.(map[string]any); ok {
			for k, e := range m {
				walk(strings.TrimPrefix(prefix+"."+k, "."), e)
			}
			return
		}
		out[prefix] = fmt.Sprint(v)
	}
	walk("", tree)
	return out
}
