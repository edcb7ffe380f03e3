package demo

import (
	"bytes"
	"context"
	"image"
	_ "image/png"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

func open(t testing.TB) *arrowset.Set {
	t.Helper()
	set, err := Open()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, set.Close()) })
	return set
}

func TestOpen(t *testing.T) {
	set := open(t)
	require.NoError(t, set.Verify(context.Background()))
	require.Equal(t, 7762, set.Len())
	m := set.Manifest()
	require.Equal(t, map[string]int{"train": 5085, "val": 312, "test_style": 1461, "test_concept": 721, "test_both": 183}, m.Splits)
	require.Equal(t, 1644, m.Groups)

	// Every value of a class system's column is one of its classes.
	sizes := map[string]int{}
	for _, c := range m.Classes {
		sizes[c.Name] = len(c.Classes)
		require.NotEmpty(t, c.Templates)
		known := map[string]string{}
		for _, class := range c.Classes {
			known[class.ID] = class.Text
		}
		value, ok := set.Column(c.Column)
		require.True(t, ok)
		for i := range set.Len() {
			require.Contains(t, known, value(i))
			if c.Name == "concept" {
				require.Equal(t, known[value(i)], set.Meta()[i].Label)
			}
		}
	}
	require.Equal(t, map[string]int{"concept": 1644, "category": 8, "subcategory": 95}, sizes)

	// The splits are what they claim: concepts and styles of the test splits are not trained on.
	style, _ := set.Column("style")
	trained := map[string]bool{}
	for i, r := range set.Meta() {
		if r.Split == "train" {
			trained[r.Group] = true
			require.NotEqual(t, "twemoji", style(i))
		}
		require.Equal(t, arrowset.Caption{Text: r.Label, Kind: "label"}, set.Captions(i)[0])
	}
	for i, r := range set.Meta() {
		require.Equal(t, r.Split == "test_style" || r.Split == "test_both", style(i) == "twemoji")
		require.Equal(t, r.Split == "test_concept" || r.Split == "test_both", !trained[r.Group], r.ImageID)
	}
}

func TestPictures(t *testing.T) {
	set := open(t)
	for i := range set.Len() {
		b, err := set.Image(context.Background(), i)
		require.NoError(t, err)
		c, format, err := image.DecodeConfig(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, []any{"png", 64, 64}, []any{format, c.Width, c.Height})
	}
}

// TestLicenses wants each style's credit and licence text, and none that binds what it is bundled with.
func TestLicenses(t *testing.T) {
	set := open(t)
	credits, err := fs.ReadFile(Licenses(), "LICENSES.md")
	require.NoError(t, err)
	style, _ := set.Column("style")
	license, _ := set.Column("license")
	text := map[string]string{"Apache-2.0": "licenses/Apache-2.0.txt", "CC-BY-4.0": "licenses/CC-BY-4.0.txt", "MIT": "licenses/MIT-fluent-emoji.txt"}
	seen := map[string]bool{}
	for i := range set.Len() {
		name := style(i) + license(i)
		if seen[name] {
			continue
		}
		seen[name] = true
		require.Contains(t, string(credits), "`"+style(i)+"`")
		id, _, _ := strings.Cut(license(i), ":")
		require.Contains(t, text, id, style(i))
		b, err := fs.ReadFile(Licenses(), text[id])
		require.NoError(t, err)
		require.NotEmpty(t, b)
		listed := false
		for _, l := range set.Manifest().Licenses {
			listed = listed || l.Name == license(i)
		}
		require.True(t, listed, license(i))
	}
	require.Len(t, seen, 6)
	for _, name := range []string{"Unicode-3.0.txt", "MIT-emojibase.txt"} {
		_, err := fs.Stat(Licenses(), "licenses/"+name)
		require.NoError(t, err)
	}
	require.Contains(t, string(credits), "scaled")
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		set, err := Open()
		require.NoError(b, err)
		set.Close()
	}
}

func BenchmarkImage(b *testing.B) {
	set := open(b)
	for i := 0; b.Loop(); i++ {
		_, err := set.Image(context.Background(), i*2654435761%set.Len())
		require.NoError(b, err)
	}
}
