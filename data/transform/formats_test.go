package transform

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// formatFiles are pictures that Pillow 13 wrote, each beside what it reads back: width, height and convert("RGB").
func formatFiles(t testing.TB) (names []string) {
	t.Helper()
	all, err := filepath.Glob("testdata/formats/*")
	require.NoError(t, err)
	for _, name := range all {
		if !strings.HasSuffix(name, ".rgb") {
			names = append(names, name)
		}
	}
	require.Len(t, names, 26)
	return names
}

func TestFormats(t *testing.T) {
	for _, name := range formatFiles(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			raw, err := os.ReadFile(name + ".rgb")
			require.NoError(t, err)
			var im Image
			require.NoError(t, Decode(b, &im))
			requireSame(t, &Image{W: int(raw[0]), H: int(raw[1]), Pix: raw[2:]}, &im)
		})
	}
}

// TestOrientation: the same picture lies in three formats, with the same orientation. Pillow turns that of TIFF unasked.
func TestOrientation(t *testing.T) {
	p := pipeline(t, "- {op: decode, exif: apply}\n- {op: resize, mode: squash}\n", 32)
	raw, err := os.ReadFile("testdata/formats/exif6.tif.rgb")
	require.NoError(t, err)
	for _, name := range []string{"exif6.png", "exif6.webp", "exif6.tif"} {
		b, err := os.ReadFile(filepath.Join("testdata/formats", name))
		require.NoError(t, err)
		var im Image
		require.NoError(t, p.Decode(b, &im, new(Scratch)))
		requireSame(t, &Image{W: int(raw[0]), H: int(raw[1]), Pix: raw[2:]}, &im)
	}
}

// TestDecodeScaled: a side of 101×67 pixels is halved while it stays as long as what is made of it.
func TestDecodeScaled(t *testing.T) {
	for side, want := range map[int][2]int{40: {101, 67}, 33: {51, 34}, 16: {26, 17}, 4: {13, 9}} {
		p := pipeline(t, "- {op: decode, size: scaled}\n- {op: resize, mode: squash}\n", side)
		var im Image
		require.NoError(t, p.Decode(file(t, "j420.jpg"), &im, new(Scratch)))
		require.Equal(t, want, [2]int{im.W, im.H}, "side %d", side)
	}
}

func TestDecodeNoAllocation(t *testing.T) {
	p := pipeline(t, "- {op: decode, exif: apply}\n- {op: resize}\n- {op: center_crop}\n- {op: normalize, stats: clip}\n", 32)
	var im Image
	var sc Scratch
	var dst Image
	files := [][]byte{file(t, "j420.jpg"), file(t, "progressive.jpg"), file(t, "exif6.jpg"), file(t, "gray.jpg"), file(t, "cmyk.jpg")}
	run := func() {
		for _, b := range files {
			require.NoError(t, p.Decode(b, &im, &sc))
			require.NoError(t, p.Apply(&im, 0, &dst, &sc))
		}
	}
	run()
	require.Zero(t, testing.AllocsPerRun(8, run))
}

// TestVectorResize: the vector code and its portable twin give the same bits, at sizes that leave rests of every kind.
func TestVectorResize(t *testing.T) {
	var a, b Image
	for i, c := range [][4]int{{50, 61, 48, 48}, {640, 48, 298, 22}, {7, 9, 5, 4}, {6, 4, 11, 10}, {33, 35, 12, 31}, {101, 13, 13, 101}, {64, 64, 128, 3}} {
		src := noise(c[0], c[1], uint64(i))
		for f := range Filter(len(filterNames)) {
			require.NoError(t, Resize(&a, src, c[2], c[3], f, new(Scratch)))
			portable(t, func() { require.NoError(t, Resize(&b, src, c[2], c[3], f, new(Scratch))) })
			require.Equal(t, b.Pix, a.Pix, "%v, %s", c, filterNames[f])
		}
	}
}

// TestAugmentations: every operation runs at every magnitude, on pictures of any shape, and depends on the key alone.
func TestAugmentations(t *testing.T) {
	p := pipeline(t, `
- {op: rand_augment, n: 3, magnitude: 30}
- {op: resize, mode: squash}
- {op: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}
- {op: hue, shift: 0.5}
- {op: random_erasing, prob: 0.5}
- {op: random_erasing, prob: 0.5, with: noise}
`, 16)
	a, b, sc := new(Image), new(Image), new(Scratch)
	for key := range uint64(200) {
		im := noise(1+int(key%7), 1+int(key%11), key)
		require.NoError(t, p.Apply(im, key, a, sc))
		require.NoError(t, p.Apply(im, key, b, new(Scratch)))
		require.Equal(t, a, b, "key %d", key)
	}
}

// BenchmarkPhoto reads the JPEG files of a folder as a batch is made: every core decodes, resizes, crops and normalises. It is
// what tests/peers/loader.py measures in Python, which also draws files to measure with.
func BenchmarkPhoto(b *testing.B) {
	dir := os.Getenv("DIPTYCH_PHOTOS")
	if dir == "" {
		b.Skip("DIPTYCH_PHOTOS names no folder of JPEG files")
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.jpg"))
	require.NoError(b, err)
	require.NotEmpty(b, names)
	const side = 224
	for _, c := range []struct{ name, text string }{
		{"evaluation", "- {op: resize}\n- {op: center_crop}\n- {op: normalize, stats: clip}\n"},
		{"training", "- {op: random_resized_crop, scale: [0.9, 1]}\n- {op: flip, prob: 0.5}\n- {op: normalize, stats: clip}\n"},
		{"scaled", "- {op: decode, size: scaled}\n- {op: resize}\n- {op: center_crop}\n- {op: normalize, stats: clip}\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := pipeline(b, c.text, side)
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				var im, out Image
				var sc Scratch
				x := make([]float32, 3*side*side)
				for pb.Next() {
					i := next.Add(1)
					file, err := os.ReadFile(names[int(i)%len(names)])
					if err == nil {
						err = p.Decode(file, &im, &sc)
					}
					if err == nil {
						err = p.Apply(&im, uint64(i), &out, &sc)
					}
					if err != nil {
						b.Error(err)
						return
					}
					for c := range 3 {
						scale, shift := 1/(255*p.Std[c]), p.Mean[c]/p.Std[c]
						for k := range side * side {
							x[c*side*side+k] = float32(out.Pix[3*k+c])*scale - shift
						}
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pictures/s")
		})
	}
}
