package transform

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

func requireSame(t *testing.T, want, got *Image) {
	t.Helper()
	largest, mean := difference(t, got, want)
	require.Zero(t, largest, "levels; %.4f on average", mean)
}

func TestDecodeGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	count := 0
	for _, name := range f.Names() {
		file, ok := strings.CutPrefix(name, "out.decode.")
		if !ok {
			continue
		}
		count++
		t.Run(file, func(t *testing.T) { requireSame(t, pixels(t, f, name), decoded(t, file)) })
	}
	require.Equal(t, 17, count, "pictures that were compared")
	t.Run("exif applied", func(t *testing.T) {
		p := pipeline(t, "- {op: decode, exif: apply}\n- {op: resize, mode: squash}\n", 8)
		var im Image
		require.NoError(t, p.Decode(file(t, "exif6.jpg"), &im, new(Scratch)))
		requireSame(t, pixels(t, f, "out.oriented.exif6.jpg"), &im)
	})
}

// TestNativeGolden compares the pictures in their files' own modes.
func TestNativeGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	tests := []struct {
		tensor, file string
		channels     []int // of the native picture that the tensor holds
	}{
		{"out.native.bilevel.png", "bilevel.png", []int{0}},
		{"out.native.cmyk.jpg", "cmyk.jpg", []int{0, 1, 2, 3}},
		{"out.native.gray.jpg", "gray.jpg", []int{0}},
		{"out.native.gray.png", "gray.png", []int{0}},
		{"out.native.la.png", "la.png", []int{0, 3}},
		{"out.native.rgba.png", "rgba.png", []int{0, 1, 2, 3}},
		{"out.rgba.palette.png", "palette.png", []int{0, 1, 2, 3}},
	}
	for _, c := range tests {
		t.Run(c.tensor, func(t *testing.T) {
			n := nativeOf(t, c.file)
			require.Equal(t, f.Ints(c.tensor), n.channels(c.channels))
		})
	}
	n := nativeOf(t, "gray16.png")
	for i, v := range f.Ints("out.native.gray16.png") {
		require.Equal(t, v, int64(n.pix[2*i])<<8|int64(n.pix[2*i+1]))
	}
}

func nativeOf(t *testing.T, name string) *native {
	t.Helper()
	var d decoder
	var err error
	if strings.HasSuffix(name, ".jpg") {
		_, _, err = d.readJPEG(file(t, name), DefaultMaxPixels, new(options), new(Image))
	} else {
		err = d.readOther(file(t, name), DefaultMaxPixels)
	}
	require.NoError(t, err)
	return &d.native
}

func (n *native) channels(which []int) (out []int64) {
	size := n.kind.bytes()
	for i := range n.w * n.h {
		for _, c := range which {
			out = append(out, int64(n.pix[size*i+c]))
		}
	}
	return out
}

// TestNativeResizeGolden resizes in the files' own modes.
func TestNativeResizeGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	tests := []struct {
		file, filter string
		w, h         int
		channels     []int
	}{
		{"la.png", "bicubic", 24, 30, []int{0, 3}},
		{"rgba.png", "bicubic", 36, 28, []int{0, 1, 2, 3}},
		{"rgba.png", "bilinear", 36, 28, []int{0, 1, 2, 3}},
	}
	for _, c := range tests {
		t.Run(c.file+" "+c.filter, func(t *testing.T) {
			var d decoder
			require.NoError(t, d.readOther(file(t, c.file), DefaultMaxPixels))
			require.NoError(t, d.native.resizeTo(new(Image), c.w, c.h, Filter(slices.Index(filterNames, c.filter)), &d, new(Scratch)))
			require.Equal(t, f.Ints(fmt.Sprintf("out.resize.%s.%s.%dx%d", c.file, c.filter, c.w, c.h)), d.turned.channels(c.channels))
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

// TestTorchResize compares PyTorch's filters with the SHA-256 sums of what torchvision 0.29.2 with torch 2.15.0 makes of a
// picture: v2.functional.resize_image(image, [h, w], antialias=True) of a tensor (3, H, W) of uint8, stored as (h, w, 3).
func TestTorchResize(t *testing.T) {
	src := decoded(t, "rgb.png")
	for _, c := range []struct {
		filter Filter
		w, h   int
		sum    string // its first eight bytes
	}{
		{TorchBicubic, 48, 32, "43068754265a4bd6"},
		{TorchBicubic, 101, 40, "11b525f86c78cd1e"},
		{TorchBicubic, 33, 67, "179c3931080e15ea"},
		{TorchBicubic, 9, 5, "2dab7e97a5abfe76"},
		{TorchBicubic, 202, 134, "723262aef578d90c"},
		{TorchBicubic, 7, 67, "28f8eb8f0872a10b"},
		{TorchBicubic, 101, 3, "900bebcf4bd9bd6d"},
		{TorchBicubic, 150, 20, "98d6578fb3e04793"},
		{TorchBicubic, 20, 150, "120aa35fa690b1de"},
		{TorchBicubic, 100, 66, "fa116d970317268a"},
		{TorchBicubic, 64, 64, "82769f34223466f1"},
		{TorchBilinear, 48, 32, "62d29512b592ed9d"},
		{TorchBilinear, 101, 40, "45b943633ec2dcb9"},
		{TorchBilinear, 33, 67, "24dcf9bf6bacceea"},
		{TorchBilinear, 9, 5, "72c94acb10c93972"},
		{TorchBilinear, 202, 134, "173bb5af78656358"},
		{TorchBilinear, 7, 67, "ae9ca7bb94824ee0"},
		{TorchBilinear, 101, 3, "6f229cd78ae4ec71"},
		{TorchBilinear, 150, 20, "dab672169ba1a25e"},
		{TorchBilinear, 20, 150, "7991647f4ff5b0a7"},
		{TorchBilinear, 100, 66, "10760dc96c9c4439"},
		{TorchBilinear, 64, 64, "ea9e0ad28925c577"},
	} {
		t.Run(fmt.Sprintf("%s %dx%d", filterNames[c.filter], c.w, c.h), func(t *testing.T) {
			var got Image
			require.NoError(t, Resize(&got, src, c.w, c.h, c.filter, new(Scratch)))
			require.Equal(t, c.sum, fmt.Sprintf("%x", sha256.Sum256(got.Pix))[:16])
		})
	}
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
		{"unknown filter", "filter 8 is none of bicubic, bilinear", 2, 2, TorchBilinear + 1, whole(src)},
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

// TestOpenCLIPGolden runs recipes that say what open_clip's evaluation transforms do with single files.
func TestOpenCLIPGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	recipe := func(resize string) []Spec { return specs(t, "- {op: decode, convert: last}\n"+resize) }
	shortest := recipe("- {op: resize}\n- {op: center_crop}\n")
	sized := func(h, w int) []Spec {
		return recipe(fmt.Sprintf("- {op: resize, size: [%d, %d]}\n- {op: center_crop, size: [%d, %d]}\n", h, w, h, w))
	}
	type test struct {
		tensor, file string
		specs        []Spec
		side         int // 0: not square
	}
	tests := []test{
		{"variant0.rgb.png", "rgb.png", recipe("- {op: resize, filter: bilinear}\n- {op: center_crop}"), 48},
		{"variant1.rgb.png", "rgb.png", recipe("- {op: resize, mode: squash}"), 48},
		{"variant2.rgb.png", "rgb.png", recipe("- {op: resize, mode: longest}\n- {op: center_crop}"), 48},
		{"variant3.rgb.png", "rgb.png", recipe("- {op: resize, mode: longest}\n- {op: center_crop, fill: 128}"), 48},
		{"variant4.la.png", "la.png", recipe("- {op: resize, mode: longest}\n- {op: center_crop}"), 48},
		{"variant5.rgb.png", "rgb.png", sized(32, 56), 0},
		{"variant6.small.png", "small.png", sized(56, 40), 0},
		{"variant7.rgb.png", "rgb.png", shortest, 31},
	}
	for _, name := range f.Names() {
		if file, ok := strings.CutPrefix(name, "out.open_clip.u8."); ok {
			tests = append(tests, test{"u8." + file, file, shortest, 48})
		}
	}
	require.Len(t, tests, 8+17)
	for _, c := range tests {
		t.Run(c.tensor, func(t *testing.T) {
			requireSame(t, pixels(t, f, "out.open_clip."+c.tensor), applied(t, c.specs, c.side, c.file))
		})
	}
	shortest = shortest[1:]
	shortest = append(shortest, Spec{"op": "normalize", "stats": "clip"})
	t.Run("normalised", func(t *testing.T) {
		p, err := New(shortest, 48, 48)
		require.NoError(t, err)
		var u8 Image
		require.NoError(t, p.Apply(decoded(t, "rgb.png"), 0, &u8, new(Scratch)))
		got := make([]float32, len(u8.Pix)) // (3, S, S)
		for i, v := range u8.Pix {
			c := i % 3
			got[c*48*48+i/3] = (float32(v)/255 - p.Mean[c]) / p.Std[c]
		}
		f.Check(t, "out.open_clip.rgb.png", got)
	})
}

// applied runs a recipe that draws nothing on a file.
func applied(t *testing.T, specs []Spec, side int, name string) *Image {
	t.Helper()
	p, err := NewPatches(specs, 48, 8)
	if side > 0 {
		p, err = New(specs, side, side)
	}
	require.NoError(t, err)
	var sc Scratch
	var im Image
	require.NoError(t, p.Decode(file(t, name), &im, &sc))
	got := new(Image)
	require.NoError(t, p.Apply(&im, 0, got, &sc))
	return got
}

// TestHFGolden runs the recipes that say what transformers' CLIPImageProcessorPil and CLIPImageProcessor do.
func TestHFGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	for prefix, c := range map[string]struct {
		filter string
		files  int
	}{
		"out.hf_clip_pil.u8.":  {"bicubic", 16},
		"out.hf_clip_fast.u8.": {"torch_bicubic", 5},
	} {
		recipe := specs(t, "- {op: decode, alpha: white}\n- {op: resize, filter: "+c.filter+"}\n- {op: center_crop, rounding: down}\n- {op: normalize, stats: clip}")
		count := 0
		for _, name := range f.Names() {
			file, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			count++
			t.Run(strings.TrimPrefix(name, "out."), func(t *testing.T) { requireSame(t, pixels(t, f, name), applied(t, recipe, 48, file)) })
		}
		require.Equal(t, c.files, count)
	}
}

// TestViLTGolden runs the recipe that says what ViltImageProcessorPil does, on pictures of different shapes.
func TestViLTGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	values, mask, shape := f.Float32("out.vilt.pixel_values"), f.Ints("out.vilt.pixel_mask"), f.Shape("out.vilt.pixel_values")
	h, w := shape[2], shape[3]
	p, err := NewPatches(specs(t, "- {op: min_max_resize}\n- {op: normalize, stats: half}"), 48, 16)
	require.NoError(t, err)
	require.False(t, p.out.known())
	for i, name := range []string{"rgb.png", "la.png", "small.png", "exif6.jpg"} {
		var got Image
		require.NoError(t, p.Apply(decoded(t, name), 0, &got, new(Scratch)))
		require.LessOrEqual(t, got.W*got.H, p.MaxPixels())
		for y := range h {
			for x := range w {
				inside := y < got.H && x < got.W
				require.Equal(t, inside, mask[(i*h+y)*w+x] == 1, "%s: %d, %d", name, y, x)
				for c := 0; c < 3 && inside; c++ {
					v := (float32(got.row(y)[3*x+c])/255 - p.Mean[c]) / p.Std[c]
					require.InDelta(t, v, values[((i*3+c)*h+y)*w+x], 2e-6, "%s: %d, %d, %d", name, c, y, x)
				}
			}
		}
	}
}

// TestViLTFastGolden runs the recipe of transformers' ViltImageProcessor, which resizes tensors.
func TestViLTFastGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	levels, shape := f.Ints("out.vilt_fast.u8"), f.Shape("out.vilt_fast.u8") // (B, 3, H, W)
	h, w := shape[2], shape[3]
	p, err := NewPatches(specs(t, "- {op: min_max_resize, filter: torch_bicubic}\n- {op: normalize, stats: half}"), 48, 16)
	require.NoError(t, err)
	for i, name := range []string{"rgb.png", "la.png", "small.png", "exif6.jpg"} {
		var got Image
		require.NoError(t, p.Apply(decoded(t, name), 0, &got, new(Scratch)))
		want := &Image{W: got.W, H: got.H}
		for y := range got.H {
			for x := range got.W {
				for c := range 3 {
					want.Pix = append(want.Pix, uint8(levels[((i*3+c)*h+y)*w+x]))
				}
			}
		}
		requireSame(t, want, &got)
	}
}

// TestViLTSizes checks the sizes that the reference gives for photographs of many shapes.
func TestViLTSizes(t *testing.T) {
	f := golden.Load(t, fixture)
	p, err := NewPatches(specs(t, "- {op: min_max_resize}"), 384, 32)
	require.NoError(t, err)
	require.Equal(t, 384*608, p.MaxPixels())
	o := p.entries[0].step.(*minMaxResize)
	sizes := f.Ints("out.vilt_sizes")
	require.Len(t, sizes, 4*30)
	for i := 0; i < len(sizes); i += 4 {
		to := o.target(sides{int(sizes[i]), int(sizes[i+1])})
		require.Equal(t, sizes[i+2:i+4], []int64{int64(to.w), int64(to.h)}, "%d×%d", sizes[i], sizes[i+1])
		require.LessOrEqual(t, to.w*to.h, p.MaxPixels())
	}
	var dst Image
	err = p.Apply(noise(33, 1000, 1), 0, &dst, new(Scratch))
	require.ErrorIs(t, err, ErrBadPicture)
	require.ErrorContains(t, err, "entry 1 (min_max_resize): bad picture: 33×1000 pixels: too narrow for a longer side of 639 and sides that are multiples of 32")
}

// TestAugmentGolden compares every operation of RandAugment with Pillow, torchvision and timm.
func TestAugmentGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	src := decoded(t, "small.png")
	var names []string
	for _, a := range augments {
		names = append(names, a.name)
	}
	count := 0
	for _, tensor := range f.Names() {
		rest, ok := strings.CutPrefix(tensor, "out.op.")
		if !ok {
			continue
		}
		count++
		t.Run(rest, func(t *testing.T) {
			part := strings.SplitN(rest, ".", 3) // library, operation, value
			library, op, v := part[0], part[1], 0.0
			if len(part) == 3 {
				var err error
				v, err = strconv.ParseFloat(part[2], 64)
				require.NoError(t, err)
			}
			filter, fill := Nearest, uint8(0)
			switch {
			case library == "torchvision": // moves the other way
				v = -v
			case library == "timm" && op == "solarize_add":
				op = "solarize_add_below"
			case library == "timm_bilinear_128":
				filter, fill = Bilinear, 128
			case library == "timm_bicubic_128":
				filter, fill = Bicubic, 128
			}
			var got Image
			augment(&got, src, slices.Index(names, op), v, filter, fill, new(Scratch))
			requireSame(t, pixels(t, f, tensor), &got)
		})
	}
	require.Equal(t, 45, count)
}

func TestHueGolden(t *testing.T) {
	f := golden.Load(t, fixture)
	for _, shift := range []float64{0.5, -0.1, 0.004} {
		var got Image
		shiftHue(&got, decoded(t, "small.png"), shift, nil)
		requireSame(t, pixels(t, f, fmt.Sprintf("out.hue.%v", shift)), &got)
	}
}

// TestCropGolden checks crop, resize, flip and colour operations in a row against torchvision.
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
		t.Run(fmt.Sprintf("crop%d", i), func(t *testing.T) {
			var sc Scratch
			im, err := cropResize(decoded(t, config.Image), left, top, w, h, sides{size[0], size[1]}, Bicubic, &sc)
			require.NoError(t, err)
			if mirror {
				im, err = flip{}.apply(im, draws{}, &sc)
				require.NoError(t, err)
			}
			run := map[any]func(dst, src *Image, f float64, sc *Scratch){"brightness": brightness, "contrast": contrast, "saturation": saturation,
				"hue": shiftHue, "grayscale": func(dst, src *Image, _ float64, _ *Scratch) { grey{}.run(dst, src) }}
			for _, c := range colors {
				dst := sc.other(im)
				run[c[0]](dst, im, c[1].(float64), &sc)
				im = dst
			}
			largest, _ := difference(t, im, pixels(t, f, fmt.Sprintf("out.crop%d", i)))
			require.Zero(t, largest, "levels")
		})
	}
}
