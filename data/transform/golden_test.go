package transform

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
)

// testdata/preprocess holds pictures and what Pillow, torchvision and open_clip make of them (versions in golden.json).
const fixture = "testdata/preprocess"

// pixels returns a stored picture of levels (H, W, C) or (H, W) as RGB.
func pixels(t *testing.T, f *golden.Folder, name string) *Image {
	t.Helper()
	shape, v := f.Shape(name), f.Ints(name)
	im := &Image{W: shape[1], H: shape[0]}
	for i, x := range v {
		im.Pix = append(im.Pix, uint8(x))
		if len(shape) == 2 {
			im.Pix = append(im.Pix, uint8(v[i]), uint8(v[i]))
		}
	}
	require.NoError(t, im.check())
	return im
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(fixture, "images", name))
	require.NoError(t, err)
	return b
}

func decoded(t testing.TB, name string) *Image {
	t.Helper()
	var im Image
	require.NoError(t, Decode(file(t, name), &im))
	return &im
}

// difference returns the largest and the mean distance of two pictures of one size, in levels.
func difference(t *testing.T, got, want *Image) (largest int, mean float64) {
	t.Helper()
	require.Equal(t, [2]int{want.W, want.H}, [2]int{got.W, got.H}, "width, height")
	for i, w := range want.Pix {
		d := int(got.Pix[i]) - int(w)
		d = max(d, -d)
		largest, mean = max(largest, d), mean+float64(d)
	}
	return largest, mean / float64(len(want.Pix))
}

func TestDecodeGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	for _, name := range f.Names() {
		file, ok := strings.CutPrefix(name, "out.decode.")
		if !ok || file == "cmyk.jpg" {
			continue
		}
		t.Run(file, func(t *testing.T) {
			largest, mean := difference(t, decoded(t, file), pixels(t, f, name))
			if strings.HasSuffix(file, ".png") {
				require.Zero(t, largest, "levels")
				return
			}
			// Go's inverse DCT rounds elsewhere than libjpeg's: one level in a plane, which the colour matrix can make three.
			t.Logf("largest %d, mean %.4f levels", largest, mean)
			require.LessOrEqual(t, largest, 3, "levels")
			require.Less(t, mean, 0.1, "levels on average")
		})
	}
}

func TestResizeGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	var sc Scratch
	count := 0
	for _, name := range f.Names() {
		rest, ok := strings.CutPrefix(name, "out.resize.")
		// Resized in their own mode: transparent pictures with premultiplied alpha, bilevel ones as one bit.
		if !ok || strings.HasPrefix(rest, "la.") || strings.HasPrefix(rest, "rgba.") {
			continue
		}
		count++
		t.Run(rest, func(t *testing.T) {
			part := strings.Split(rest, ".") // rgb png bicubic 48x32
			src, want := decoded(t, part[0]+"."+part[1]), pixels(t, f, name)
			var got Image
			require.NoError(t, Resize(&got, src, want.W, want.H, Filter(slices.Index(filterNames, part[2])), &sc))
			largest, _ := difference(t, &got, want)
			require.Zero(t, largest, "levels")
		})
	}
	require.Equal(t, 43, count, "pictures that were compared")
}

func TestResizeBoxGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	var config struct{ Boxes [][]json.RawMessage }
	f.JSON("config.json", &config)
	require.Len(t, config.Boxes, 2)
	for _, c := range config.Boxes {
		var file, filter string
		var size [2]int
		var box [4]float32
		for i, v := range []any{&file, &filter, &size, &box} {
			require.NoError(t, json.Unmarshal(c[i], v))
		}
		name := fmt.Sprintf("out.resize_box.%s.%s.%dx%d", file, filter, size[0], size[1])
		t.Run(name, func(t *testing.T) {
			var got Image
			require.NoError(t, resample(&got, decoded(t, file), size[0], size[1], Filter(slices.Index(filterNames, filter)), box, new(Scratch)))
			largest, _ := difference(t, &got, pixels(t, f, name))
			require.Zero(t, largest, "levels")
		})
	}
}

func TestResizeErrors(t *testing.T) {
	src := noise(4, 3, 1)
	tests := []struct {
		name, want string
		w, h       int
		filter     Filter
		box        [4]float32
	}{
		{"no pixels", "4×3 pixels cannot become 0×5", 0, 5, Bicubic, whole(src)},
		{"too many pixels", "cannot become 100000×100000", 100000, 100000, Box, whole(src)},
		{"unknown filter", "filter 6 is none of bicubic, bilinear", 2, 2, Hamming + 1, whole(src)},
		{"box outside", "box [0 0 4.5 3] of a picture of 4×3 pixels", 2, 2, Bicubic, [4]float32{0, 0, 4.5, 3}},
		{"empty box", "box [1 1 1 3]", 2, 2, Bicubic, [4]float32{1, 1, 1, 3}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorContains(t, resample(new(Image), src, c.w, c.h, c.filter, c.box, new(Scratch)), c.want)
		})
	}
	require.ErrorContains(t, Resize(new(Image), &Image{W: 2, H: 2}, 2, 2, Box, new(Scratch)), "transform: resize: bad picture: 2×2 pixels in 0 bytes")
}

// TestOpenCLIPGolden runs recipes that say what open_clip's evaluation transforms do.
func TestOpenCLIPGolden(t *testing.T) {
	shortest := []Spec{{"op": "resize"}, {"op": "center_crop"}, {"op": "normalize", "stats": "clip"}}
	tests := []struct {
		tensor, file string
		specs        []Spec
		side, levels int
	}{
		{"u8.rgb.png", "rgb.png", shortest, 48, 0},
		{"u8.small.png", "small.png", shortest, 48, 0},
		{"u8.gray.png", "gray.png", shortest, 48, 0},
		{"u8.rgb16.png", "rgb16.png", shortest, 48, 0},
		{"u8.j420.jpg", "j420.jpg", shortest, 48, 3},
		{"u8.j422-restart.jpg", "j422-restart.jpg", shortest, 48, 3},
		{"u8.gray.jpg", "gray.jpg", shortest, 48, 3},
		{"u8.exif6.jpg", "exif6.jpg", shortest, 48, 3}, // not turned
		{"variant0.rgb.png", "rgb.png", []Spec{{"op": "resize", "filter": "bilinear"}, {"op": "center_crop"}}, 48, 0},
		{"variant1.rgb.png", "rgb.png", []Spec{{"op": "resize", "mode": "squash"}}, 48, 0},
		{"variant2.rgb.png", "rgb.png", []Spec{{"op": "resize", "mode": "longest"}, {"op": "center_crop"}}, 48, 0},
		{"variant3.rgb.png", "rgb.png", []Spec{{"op": "resize", "mode": "longest"}, {"op": "center_crop", "fill": 128}}, 48, 0},
		{"variant7.rgb.png", "rgb.png", shortest, 31, 0},
	}
	f := golden.Load(t, fixture)
	for _, c := range tests {
		t.Run(c.tensor, func(t *testing.T) {
			p, err := New(c.specs, c.side)
			require.NoError(t, err)
			got := &Image{W: c.side, H: c.side, Pix: make([]uint8, 3*c.side*c.side)}
			require.NoError(t, p.Apply(decoded(t, c.file), 0, got.Pix, new(Scratch)))
			largest, _ := difference(t, got, pixels(t, f, "out.open_clip."+c.tensor))
			require.LessOrEqual(t, largest, c.levels, "levels")
		})
	}
	t.Run("normalised", func(t *testing.T) {
		p, err := New(shortest, 48)
		require.NoError(t, err)
		u8 := make([]uint8, 3*48*48)
		require.NoError(t, p.Apply(decoded(t, "rgb.png"), 0, u8, new(Scratch)))
		got := make([]float32, len(u8)) // (3, S, S)
		for i, v := range u8 {
			c := i % 3
			got[c*48*48+i/3] = (float32(v)/255 - p.Mean[c]) / p.Std[c]
		}
		f.Check(t, "out.open_clip.rgb.png", got)
	})
}

// TestCropGolden checks crop, resize, flip and grey against torchvision, on the cases that need no other operation.
func TestCropGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	var config struct {
		Image string `json:"augment_image"`
		Crops [][]json.RawMessage
	}
	f.JSON("config.json", &config)
	for i, c := range config.Crops {
		var top, left, h, w int
		var mirror bool
		var size [2]int
		var colors [][2]any
		for k, v := range []any{&top, &left, &h, &w, &mirror, &size, &colors} {
			require.NoError(t, json.Unmarshal(c[k], v))
		}
		if len(colors) > 0 && colors[0][0] != "grayscale" {
			continue
		}
		t.Run(fmt.Sprintf("crop%d", i), func(t *testing.T) {
			var sc Scratch
			im, err := cropResize(decoded(t, config.Image), left, top, w, h, size[0], Bicubic, &sc)
			require.NoError(t, err)
			if mirror {
				im, err = flip{}.apply(im, draws{}, &sc)
				require.NoError(t, err)
			}
			if len(colors) > 0 {
				im, err = grey{}.apply(im, draws{}, &sc)
				require.NoError(t, err)
			}
			largest, _ := difference(t, im, pixels(t, f, fmt.Sprintf("out.crop%d", i)))
			require.Zero(t, largest, "levels")
		})
	}
}
