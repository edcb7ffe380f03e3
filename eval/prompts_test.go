package eval

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The 80 templates of ImageNet are those that CLIP's notebook has, listed by their parts.
func TestPromptsImageNet(t *testing.T) {
	var want []string
	add := func(form string, words ...string) {
		for _, w := range words {
			for _, art := range []string{"a", "the"} {
				want = append(want, strings.NewReplacer("ART", art, "W", w).Replace(form))
			}
		}
	}
	add("a W photo of ART {}.", "bad", "cropped", "bright", "dark", "close-up", "black and white", "pixelated", "jpeg corrupted", "blurry", "good", "low resolution")
	add("a photo of ART {}.", "")
	add("a photo of ART W {}.", "hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
	add("a W of ART {}.", "sculpture", "rendering", "painting", "drawing", "tattoo", "doodle", "sketch", "rendition")
	add("W of ART {}.", "graffiti", "art", "itap")
	add("ART {} in a video game.", "")
	add("ART W {}.", "embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
	want = append(want, "a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}.")
	got, err := Prompts("imagenet")
	require.NoError(t, err)
	require.Len(t, got, 80)
	require.ElementsMatch(t, want, got)
	short, err := Prompts("imagenet7")
	require.NoError(t, err)
	require.Len(t, short, 7)
	require.Subset(t, got, short)
}

func TestPrompts(t *testing.T) {
	count := map[string]int{"cifar100": 18, "caltech101": 34, "kinetics700": 28, "ucf101": 48, "resisc45": 18, "cars": 8, "food101": 1, "fer2013": 6}
	require.Len(t, PromptNames(), 28)
	for _, name := range PromptNames() {
		templates, err := Prompts(name)
		require.NoError(t, err)
		seen := map[string]bool{}
		for _, p := range templates {
			require.False(t, seen[p], "%s: %s twice", name, p)
			seen[p] = true
			require.Equal(t, 1, strings.Count(p, PromptSlot), p)
		}
		if n, ok := count[name]; ok {
			require.Len(t, templates, n, name)
		}
	}
	file := filepath.Join(t.TempDir(), "own.txt")
	require.NoError(t, os.WriteFile(file, []byte("\ufeff# mine\r\n a picture of {} \r\n\r\n{}"), 0o666))
	own, err := Prompts(file)
	require.NoError(t, err)
	require.Equal(t, []string{"a picture of {}", "{}"}, own)
	for _, c := range []struct{ text, want string }{{"a photo\n", `line 1: the template "a photo" has no {}`}, {"# none\n", "has no templates"}} {
		require.NoError(t, os.WriteFile(file, []byte(c.text), 0o666))
		_, err := Prompts(file)
		require.ErrorIs(t, err, ErrRequest)
		require.ErrorContains(t, err, c.want)
	}
	for _, name := range []string{"imagenot", "../prompts", ""} {
		_, err = Prompts(name)
		require.Error(t, err)
	}
	_, err = Prompts("imagenot")
	require.ErrorIs(t, err, ErrRequest)
	require.ErrorContains(t, err, "there are aircraft, birdsnap")
}

func TestClassNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names.txt")
	require.NoError(t, os.WriteFile(file, []byte("tench\ngreat white shark\n"), 0o666))
	names, err := ClassNames(file)
	require.NoError(t, err)
	require.Equal(t, []string{"tench", "great white shark"}, names)
	require.NoError(t, os.WriteFile(file, []byte("tench\n\nhen\n"), 0o666))
	_, err = ClassNames(file)
	require.ErrorContains(t, err, "line 2: a class without a name")
	_, err = ClassNames(file + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}
