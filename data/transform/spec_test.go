package transform

import (
	"os"
	"regexp"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

func TestNewErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown op", "- {op: rezise}", `entry 1: unknown op "rezise"; did you mean "resize"?`},
		{"part of an op", "- {op: resize}\n- {op: crop}", `entry 2: unknown op "crop"; did you mean "center_crop"?`},
		{"foreign op", "- {op: mixup}", `entry 1: unknown op "mixup": one of decode, resize, min_max_resize, center_crop, random_resized_crop, flip`},
		{"no op", "- {size: 3}", "entry 1: op is missing: one of decode, resize,"},
		{"op of a wrong type", "- {op: 3}", "entry 1: op: 3 is no name"},
		{"unknown parameter", "- {op: flip, prb: 0.5}", `entry 1 (flip): unknown parameter "prb"; did you mean "prob"?`},
		{"foreign parameter", "- {op: center_crop, colour: 3}", `entry 1 (center_crop): unknown parameter "colour": one of size, fill`},
		{"missing parameter", "- {op: flip}", "entry 1 (flip): prob is missing: a number from 0 to 1"},
		{"missing pair", "- {op: random_resized_crop}", "entry 1 (random_resized_crop): scale is missing: two numbers"},
		{"out of range", "- {op: grey, prob: 1.5}", "entry 1 (grey): prob: 1.5 is not a number from 0 to 1"},
		{"not finite", "- {op: grey, prob: .nan}", "entry 1 (grey): prob: NaN is not a number from 0 to 1"},
		{"text for a number", "- {op: grey, prob: half}", "entry 1 (grey): prob: half is not a number from 0 to 1"},
		{"fraction for a size", "- {op: resize, size: 3.5}", "entry 1 (resize): size: 3.5 is not a whole number from 1 to 4096"},
		{"pair in the wrong order", "- {op: affine, scale: [1.2, 0.8]}", "entry 1 (affine): scale: [1.2 0.8] is not a pair [least, most] of numbers from 0.01 to 100"},
		{"one number for a pair", "- {op: affine, scale: 1.2}", "entry 1 (affine): scale: 1.2 is not a pair"},
		{"unknown filter", "- {op: resize, filter: cubic}", `entry 1 (resize): filter: unknown value "cubic"; did you mean "bicubic"?`},
		{"unknown mode", "- {op: resize, mode: 7}", `entry 1 (resize): mode: unknown value "7": one of shortest, longest, squash`},
		{"unknown stats", "- {op: normalize, stats: clap}", `entry 1 (normalize): stats: unknown value "clap"; did you mean "clip"?`},
		{"no stats", "- {op: normalize}", "entry 1 (normalize): stats is missing: one of clip, imagenet, half (or give mean and std)"},
		{"stats and mean", "- {op: normalize, stats: clip, mean: [0, 0, 0]}", "entry 1 (normalize): stats already says mean and std"},
		{"mean without std", "- {op: normalize, mean: [0, 0, 0]}", "entry 1 (normalize): std is missing"},
		{"std of zero", "- {op: normalize, mean: [0, 0, 0], std: [1, 0, 1]}", "entry 1 (normalize): std: [1 0 1] is not a list of three numbers from 1e-06 to 100"},
		{"normalize in the middle", "- {op: normalize, stats: half}\n- {op: resize, mode: squash}", "entry 1 (normalize): it must be the last of the 2 entries"},
		{"nothing sizes", "- {op: flip, prob: 0.5}", "must end with 32×32 pixels, but no entry resizes or crops the pictures"},
		{"empty", "[]", "must end with 32×32 pixels, but no entry resizes"},
		{"decode not first", "- {op: resize, mode: squash}\n- {op: decode}", "entry 2 (decode): it must be the first entry"},
		{"conversion last without a resize", "- {op: decode, convert: last}\n- {op: center_crop}", "entry 1 (decode): size: scaled and convert: last need a resize as entry 2"},
		{"conversion last before a random crop", "- {op: decode, convert: last}\n- {op: random_resized_crop, scale: [0.9, 1]}", "entry 1 (decode): convert: last needs {op: resize} as entry 2"},
		{"unknown augmentation", "- {op: rand_augment, ops: [rotat]}", `entry 1 (rand_augment): ops: unknown name "rotat"; did you mean "rotate"?`},
		{"no list of augmentations", "- {op: rand_augment, ops: 3}", "entry 1 (rand_augment): ops: 3 is not a list of names"},
		{"one side known", "- {op: flip, prob: 0.5}\n- {op: resize}", "must end with 32×32 pixels, but entry 2 (resize) leads to pictures of which only one side is known; add {op: center_crop}"},
		{"another size", "- {op: resize}\n- {op: center_crop, size: 48}\n- {op: flip, prob: 0.5}", "must end with 32×32 pixels, but entry 2 (center_crop) leads to 48×48 pixels"},
		{"different shapes", "- {op: min_max_resize}\n- {op: flip, prob: 0.5}", "must end with 32×32 pixels, but entry 1 (min_max_resize) leads to different shapes, whose sides are multiples of 32; add {op: center_crop}"},
		{"a multiple that is too large", "- {op: min_max_resize, multiple: 48}", "entry 1 (min_max_resize): multiple: 48 is more than size, 32, or longest, 53"},
		{"resized again", "- {op: resize, mode: squash}\n- {op: resize, size: 16}", "but entry 2 (resize) leads to 16×16 pixels"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(specs(t, c.text), 32, 32)
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("all faults", func(t *testing.T) {
		_, err := New(specs(t, "- {op: flop}\n- {op: grey, prob: 2, weight: mean}"), 32, 32)
		for _, want := range []string{"entry 1", "did you mean \"flip\"", "prob: 2", `"weight"; did you mean "weights"?`} {
			require.ErrorContains(t, err, want)
		}
	})
	for text, want := range map[string]string{
		"- {op: resize}":                                        "must end with sides that are multiples of 16 pixels, but entry 1 (resize) leads to pictures of which only one side is known; add {op: min_max_resize}",
		"- {op: min_max_resize, multiple: 8}":                   "multiples of 16 pixels, but entry 1 (min_max_resize) leads to different shapes, whose sides are multiples of 8",
		"- {op: resize, mode: squash, size: 40}":                "multiples of 16 pixels, but entry 1 (resize) leads to 40×40 pixels",
		"- {op: min_max_resize}\n- {op: resize}":                "multiples of 16 pixels, but entry 2 (resize) leads to pictures of which",
		"- {op: decode, convert: last}\n- {op: min_max_resize}": "convert: last needs {op: resize} as entry 2",
	} {
		_, err := NewPatches(specs(t, text), 32, 16)
		require.ErrorContains(t, err, want)
	}
	p, err := NewPatches(specs(t, "- {op: resize, mode: squash}"), 32, 16)
	require.NoError(t, err, "squares are multiples too")
	require.Equal(t, sides{32, 32}, p.out.sides)
	_, err = NewPatches(nil, 32, 0)
	require.ErrorContains(t, err, "patch size 0")
	_, err = New(nil, 0, 4)
	require.ErrorContains(t, err, "image size 4×0")
}

func TestNormalize(t *testing.T) {
	tests := []struct {
		name, text string
		mean, std  [3]float32
	}{
		{"absent", "", [3]float32{}, [3]float32{1, 1, 1}},
		{"clip", "- {op: normalize, stats: clip}", [3]float32{0.48145466, 0.4578275, 0.40821073}, [3]float32{0.26862954, 0.26130258, 0.27577711}},
		{"given", "- {op: normalize, mean: [0, 0.5, 1], std: [1, 2, 3]}", [3]float32{0, 0.5, 1}, [3]float32{1, 2, 3}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			p := pipeline(t, "- {op: resize, mode: squash}\n"+c.text, 32)
			require.Equal(t, c.mean, p.Mean)
			require.Equal(t, c.std, p.Std)
			require.Equal(t, sides{32, 32}, p.out.sides)
		})
	}
}

// TestSpecYAML: a recipe is saved in checkpoints as it was read.
func TestSpecYAML(t *testing.T) {
	const text = `- op: resize
  filter: bicubic
  size: 64
- op: random_resized_crop
  scale:
  - 0.9
  - 1.0
- op: flip
  prob: 0.5
- op: normalize
  stats: half
`
	first := specs(t, text)
	b, err := yaml.Marshal(first)
	require.NoError(t, err)
	require.Equal(t, text, string(b))
	require.Equal(t, first, specs(t, string(b)))
	require.Equal(t, "resize filter=bicubic size=64", first[0].String())
	_, err = New(first, 64, 64)
	require.NoError(t, err)
}

// TestSpecInGo: a list may be written in Go, with Go's types.
func TestSpecInGo(t *testing.T) {
	_, err := New([]Spec{
		{"op": "random_resized_crop", "scale": []float64{0.5, 1}, "size": 8},
		{"op": "affine", "rotate": int64(10), "shift": float32(0.5)},
	}, 8, 8)
	require.NoError(t, err)
}

// TestDocs: the page for users names every operation, filter and parameter.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/transforms.md")
	require.NoError(t, err)
	for _, o := range operations {
		line := regexp.MustCompile("(?m)^\\| `" + o.op + "` \\|.*$").Find(page)
		require.NotNil(t, line, o.op)
		p := &params{spec: Spec{}}
		o.make(p, sides{32, 32})
		for _, name := range p.known {
			require.Contains(t, string(line), "`"+name+"`", o.op)
		}
	}
	for _, name := range filterNames {
		require.Contains(t, string(page), "`"+name+"`")
	}
}

// The size of an entry without one is the model's, also where that is no square.
func TestRectangle(t *testing.T) {
	for _, text := range []string{"- {op: resize, mode: squash}", "- {op: resize}\n- {op: center_crop}", "- {op: random_resized_crop, scale: [0.5, 1]}"} {
		p, err := New(specs(t, text), 20, 40)
		require.NoError(t, err)
		w, h := p.Size()
		require.Equal(t, []int{40, 20}, []int{w, h})
		out := new(Image)
		require.NoError(t, p.Apply(noise(30, 50, 1), 7, out, new(Scratch)))
		require.Equal(t, []int{40, 20}, []int{out.W, out.H}, text)
	}
	_, err := New(specs(t, "- {op: resize, mode: squash, size: 20}"), 20, 40)
	require.ErrorContains(t, err, "must end with 40×20 pixels, but entry 1 (resize) leads to 20×20 pixels")
}
