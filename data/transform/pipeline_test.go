package transform

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"diptych/internal/addr"
)

// noise is a picture of random levels that key names.
func noise(w, h int, key uint64) *Image {
	im := &Image{W: w, H: h, Pix: make([]uint8, 3*w*h)}
	for i := range im.Pix {
		im.Pix[i] = uint8(addr.Hash(key, uint64(i)))
	}
	return im
}

// demo are the augmentations of the yardstick that the demo's figures are compared with.
const demo = `
- {op: resize, filter: bilinear, mode: squash}
- {op: flip, prob: 0.5}
- {op: affine, rotate: 10, scale: [0.8, 1.2], shift: 0.0625}
- {op: grey, prob: 0.15, weights: mean}
- {op: color_gain, gain: 0.2, offset: 0.1}
- {op: normalize, stats: half}
`

func specs(t testing.TB, text string) []Spec {
	t.Helper()
	var s []Spec
	require.NoError(t, yaml.UnmarshalWithOptions([]byte(text), &s, yaml.Strict()))
	return s
}

func pipeline(t testing.TB, text string, side int) *Pipeline {
	t.Helper()
	p, err := New(specs(t, text), side, side)
	require.NoError(t, err)
	return p
}

func TestAffineIdentity(t *testing.T) {
	for _, size := range [][2]int{{64, 64}, {1, 1}, {2, 1}, {31, 17}} {
		im := noise(size[0], size[1], 1)
		got, err := (&affine{scale: [2]float64{1, 1}}).apply(im, draws{}, new(Scratch))
		require.NoError(t, err)
		require.Equal(t, im, got)
	}
}

func TestFlipTwice(t *testing.T) {
	for _, size := range [][2]int{{64, 64}, {1, 3}, {2, 2}, {31, 17}} {
		var sc Scratch
		im := noise(size[0], size[1], 2)
		once, err := flip{}.apply(im, draws{}, &sc)
		require.NoError(t, err)
		require.Equal(t, im.row(0)[:3], once.row(0)[3*(im.W-1):])
		twice, err := flip{}.apply(once, draws{}, &sc)
		require.NoError(t, err)
		require.Equal(t, im, twice)
	}
}

// TestAffineBorder shifts the picture out by half of its side: what enters repeats the border.
func TestAffineBorder(t *testing.T) {
	im := noise(16, 16, 3)
	var got Image
	warp(&got, im, 1, 0, 8, -8, new(Scratch))
	for y := range 16 {
		for x := range 16 {
			from := im.row(max(y-8, 0))[3*min(x+8, 15):][:3]
			require.Equal(t, from, got.row(y)[3*x:][:3], "pixel %d, %d", x, y)
		}
	}
}

// TestAffineQuarterTurn turns by 90°, which moves pixel centres onto pixel centres, when s·p is (−y, x).
func TestAffineQuarterTurn(t *testing.T) {
	im := noise(9, 9, 4)
	var got Image
	warp(&got, im, 0, 1, 0, 0, new(Scratch))
	for y := range 9 {
		for x := range 9 {
			require.Equal(t, im.row(x)[3*(8-y):][:3], got.row(y)[3*x:][:3], "pixel %d, %d", x, y)
		}
	}
}

// TestAffineReference compares the fixed point with PyTorch's formulas in float64: affine_grid, then grid_sample with
// bilinear interpolation, align_corners=False and padding_mode="border".
func TestAffineReference(t *testing.T) {
	for i := range uint64(20) {
		// A smooth picture: at a noisy one's edges a 256th of a pixel is most of a level.
		im := noise(33, 33, 5)
		for x := range im.Pix {
			im.Pix[x] = uint8(128 + 100*math.Sin(float64(x%99)/20+float64(i))*math.Cos(float64(x/99)/9))
		}
		d := draws{key: i, entry: 1}
		o := affine{rotate: 30, scale: [2]float64{0.7, 1.4}, shift: 0.2}
		got, err := o.apply(im, d, new(Scratch))
		require.NoError(t, err)
		sin, cos := math.Sincos(d.between(1, -30, 30) * math.Pi / 180)
		s, tx, ty := d.between(2, 0.7, 1.4), 2*d.between(3, -0.2, 0.2), 2*d.between(4, -0.2, 0.2) // grid units are half sides
		for y := range 33 {
			for x := range 33 {
				u, v := (2*float64(x)+1)/33-1, (2*float64(y)+1)/33-1
				px := min(max(((s*(cos*u-sin*v)+tx+1)*33-1)/2, 0), 32)
				py := min(max(((s*(sin*u+cos*v)+ty+1)*33-1)/2, 0), 32)
				x0, y0 := int(px), int(py)
				fx, fy := px-float64(x0), py-float64(y0)
				at := func(x, y, c int) float64 { return float64(im.row(min(y, 32))[3*min(x, 32)+c]) }
				for c := range 3 {
					want := (1-fy)*((1-fx)*at(x0, y0, c)+fx*at(x0+1, y0, c)) + fy*((1-fx)*at(x0, y0+1, c)+fx*at(x0+1, y0+1, c))
					// Half a level of rounding, and 1/256 pixel on slopes of at most 11 levels a pixel.
					require.InDelta(t, want, float64(got.row(y)[3*x+c]), 0.6, "key %d, pixel %d, %d", i, x, y)
				}
			}
		}
	}
}

func TestColorGainReference(t *testing.T) {
	im := noise(20, 20, 6)
	d := draws{key: 7, entry: 3}
	got, err := colorGain{gain: 0.5, offset: 0.3}.apply(im, d, new(Scratch))
	require.NoError(t, err)
	for i, v := range im.Pix {
		c := uint64(i % 3)
		x := float64(v)/127.5 - 1
		want := min(max(x*(1+d.between(1+c, -0.5, 0.5))+d.between(4+c, -0.3, 0.3), -1), 1)
		require.InDelta(t, (want+1)*127.5, float64(got.Pix[i]), 0.5+1e-9)
	}
	still, err := colorGain{}.apply(im, d, new(Scratch))
	require.NoError(t, err)
	require.Equal(t, im, still, "no gain and no offset")
}

func TestGrey(t *testing.T) {
	im := &Image{W: 2, H: 1, Pix: []uint8{255, 0, 1, 10, 20, 33}}
	tests := []struct {
		name string
		op   grey
		want []uint8
	}{
		{"luma", grey{}, []uint8{76, 76, 76, 18, 18, 18}}, // 76.36, 18.49
		{"mean", grey{mean: true}, []uint8{85, 85, 85, 21, 21, 21}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.op.apply(im, draws{}, new(Scratch))
			require.NoError(t, err)
			require.Equal(t, c.want, got.Pix)
		})
	}
}

func TestRandomResizedCropParts(t *testing.T) {
	o := &randomResizedCrop{size: sides{8, 8}, scale: [2]float64{0.3, 0.9}, ratio: [2]float64{0.5, 2}}
	t.Run("drawn", func(t *testing.T) {
		sum, left := 0.0, 0
		const n = 4000
		for k := range uint64(n) {
			x, y, w, h := o.part(100, 80, draws{key: k, entry: 1})
			require.True(t, 0 <= x && x+w <= 100 && 0 <= y && y+h <= 80 && w > 0 && h > 0, "%d %d %d %d", x, y, w, h)
			area, ratio := float64(w*h)/8000, float64(w)/float64(h)
			require.True(t, 0.29 < area && area < 0.91 && 0.48 < ratio && ratio < 2.08, "%d×%d", w, h)
			sum += math.Log(ratio)
			if x == 0 {
				left++
			}
		}
		require.InDelta(t, 0.1, sum/n, 0.1, "wide shapes fit a wide picture more often")
		require.Greater(t, left, 0, "the first offset occurs")
	})
	t.Run("fallback", func(t *testing.T) {
		// Nothing of 30 % of the area fits a strip of 1:100 at a ratio of 1/2 or more.
		for _, c := range []struct{ w, h, x, y, cw, ch int }{{10, 1000, 0, 490, 10, 20}, {1000, 10, 490, 0, 20, 10}, {1, 1000, 0, 499, 1, 2}} {
			x, y, w, h := o.part(c.w, c.h, draws{key: 1, entry: 1})
			require.Equal(t, []int{c.x, c.y, c.cw, c.ch}, []int{x, y, w, h})
		}
	})
	t.Run("constant picture", func(t *testing.T) {
		im := &Image{W: 30, H: 50, Pix: bytes.Repeat([]uint8{9, 8, 7}, 1500)}
		got, err := o.apply(im, draws{key: 5, entry: 1}, new(Scratch))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]uint8{9, 8, 7}, 64), got.Pix)
	})
}

func TestDeterminism(t *testing.T) {
	p := pipeline(t, demo, 64)
	im := noise(64, 64, 8)
	saved := append([]uint8(nil), im.Pix...)
	used, fresh, got := new(Scratch), new(Image), new(Image)
	different := 0
	for key := range uint64(20) {
		require.NoError(t, p.Apply(noise(80, 91, key), key+1000, got, used)) // leaves traces in used
		require.NoError(t, p.Apply(im, key, got, used))
		require.NoError(t, p.Apply(im, key, fresh, new(Scratch)))
		require.Equal(t, fresh, got, "key %d", key)
		require.NoError(t, p.Apply(im, key+1, fresh, used))
		if !bytes.Equal(fresh.Pix, got.Pix) {
			different++
		}
	}
	require.Equal(t, 20, different, "keys that give another picture than the next one")
	require.Equal(t, saved, im.Pix, "the caller's picture is unchanged")

	// A number to hold bits across machines and versions: resuming a run depends on them.
	require.NoError(t, p.Apply(im, 12345, got, used))
	sum := uint64(0)
	for i, v := range got.Pix {
		sum += addr.Hash(uint64(i), uint64(v))
	}
	require.Equal(t, uint64(0x6f05691603cf2ac7), sum)
}

func TestProbabilities(t *testing.T) {
	p := pipeline(t, "- {op: flip, prob: 0.25}\n- {op: resize, mode: squash}\n", 2)
	im := &Image{W: 2, H: 2, Pix: []uint8{0, 0, 0, 9, 9, 9, 0, 0, 0, 9, 9, 9}}
	dst, flipped := new(Image), 0
	var sc Scratch
	const n = 4000
	for key := range uint64(n) {
		require.NoError(t, p.Apply(im, key, dst, &sc))
		if dst.Pix[0] == 9 {
			flipped++
		}
	}
	require.InDelta(t, 0.25*n, flipped, 4*math.Sqrt(n*0.25*0.75), "four standard deviations")
}

func TestPrepare(t *testing.T) {
	tests := []struct{ name, text string }{
		{"demo", demo},
		{"crop after a larger resize", "- {op: resize, size: 80}\n- {op: center_crop}\n- {op: flip, prob: 0.5}\n"},
		{"nothing fixed", "- {op: random_resized_crop, scale: [0.5, 1]}\n- {op: grey, prob: 0.5}\n"},
		{"all fixed", "- {op: resize}\n- {op: center_crop}\n"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			p := pipeline(t, c.text, 64)
			im := noise(101, 77, 9)
			var sc Scratch
			var small Image
			require.NoError(t, p.Prepare(im, &small, &sc))
			want, got := new(Image), new(Image)
			for key := range uint64(8) {
				require.NoError(t, p.Apply(im, key, want, &sc))
				require.NoError(t, p.Finish(&small, key, got, &sc))
				require.Equal(t, want, got)
			}
		})
	}
	p := pipeline(t, demo, 64)
	require.ErrorContains(t, p.Finish(noise(10, 10, 1), 0, new(Image), new(Scratch)), "10×10 pixels for 64×64: not prepared")
}

func TestApplyErrors(t *testing.T) {
	p := pipeline(t, "- {op: resize, size: 4096}\n- {op: center_crop, size: 64}\n", 64)
	tests := []struct {
		name, want string
		im         *Image
	}{
		{"no pixels", "0×0 pixels in 0 bytes", &Image{}},
		{"wrong bytes", "2×2 pixels in 11 bytes", &Image{W: 2, H: 2, Pix: make([]uint8, 11)}},
		{"too narrow to enlarge", "entry 1 (resize): bad picture: 1×100 pixels cannot become 4096×409600", noise(1, 100, 1)},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			err := p.Apply(c.im, 0, new(Image), new(Scratch))
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, ErrBadPicture)
		})
	}
}

func TestNoAllocation(t *testing.T) {
	p := pipeline(t, demo, 64)
	large, small, dst, sc := noise(100, 90, 10), noise(64, 64, 11), new(Image), new(Scratch)
	key := uint64(0)
	run := func() {
		key++
		require.NoError(t, p.Apply(large, key%16, dst, sc))
		require.NoError(t, p.Apply(small, key%16, dst, sc))
	}
	for range 16 {
		run()
	}
	require.Zero(t, testing.AllocsPerRun(32, run))
}

func TestDecodeErrors(t *testing.T) {
	// A header alone: the size is refused before anything else is read.
	chunk := binary.BigEndian.AppendUint32([]byte("IHDR"), 5100)
	chunk = append(binary.BigEndian.AppendUint32(chunk, 5000), 8, 2, 0, 0, 0)
	wide := append([]byte(pngMagic+"\x00\x00\x00\x0d"), binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk))...)
	tests := []struct {
		name, want  string
		b           []byte
		unsupported bool
	}{
		{"empty", "no bytes", nil, false},
		{"text", "no picture format that is known (begins with 68 65 6c 6c 6f)", []byte("hello"), false},
		{"cut GIF", "GIF: gif: reading header: unexpected EOF", []byte("GIF89a\x01\x00\x01\x00"), false},
		{"cut WebP", "WebP: riff: short chunk data", []byte("RIFF\x00\x00\x00\x00WEBPVP8 "), false},
		{"AVIF", "format AVIF", []byte("\x00\x00\x00\x1cftypavif"), true},
		{"cut TIFF", "TIFF: EOF", []byte("II*\x00\x08\x00\x00\x00"), false},
		{"arithmetic coding", "JPEG: unsupported JPEG: arithmetic coding (marker FFC9 at byte", bytes.Replace(file(t, "gray.jpg"), []byte("\xff\xc0"), []byte("\xff\xc9"), 1), true},
		{"cut PNG", "PNG: png: invalid format: not enough pixel data", file(t, "rgb.png")[:3000], false},
		{"cut JPEG", "JPEG: truncated JPEG: it ends at byte 2000, in the middle of the picture", file(t, "j420.jpg")[:2000], false},
		{"JPEG header only", "JPEG: ", []byte("\xff\xd8\xff\xe0"), false},
		{"damaged PNG", "PNG: png: invalid format: invalid checksum", bytes.Replace(file(t, "rgb.png"), []byte("IDAT"), []byte("IDAU"), 1), false},
		{"too many pixels", "PNG of 5100×5000 pixels, more than the limit of 25000000 pixels", wide, false},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			var im Image
			err := Decode(c.b, &im)
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, ErrBadPicture)
			require.Equal(t, c.unsupported, errors.Is(err, ErrUnsupported))
		})
	}
	var im Image
	require.ErrorContains(t, DecodeLimit(file(t, "small.png"), 47*35-1, &im), "47×35 pixels, more than the limit of 1644")
	require.NoError(t, DecodeLimit(file(t, "small.png"), 47*35, &im))
}

// TestTransparentPalette: convert("RGB") keeps the colour that a transparent entry has in the file.
func TestTransparentPalette(t *testing.T) {
	m := image.NewPaletted(image.Rect(0, 0, 2, 1), color.Palette{color.NRGBA{R: 200, G: 100, B: 50}, color.NRGBA{R: 1, G: 2, B: 3, A: 255}})
	m.Pix[1] = 1
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	var im Image
	require.NoError(t, Decode(b.Bytes(), &im))
	require.Equal(t, []uint8{200, 100, 50, 1, 2, 3}, im.Pix)
}

// pictureSeeds are files of every format that is read.
func pictureSeeds(t testing.TB) (files [][]byte) {
	for _, name := range []string{"small.png", "palette.png", "la.png", "rgb16.png", "gray16.png", "j420.jpg", "j422-restart.jpg", "progressive.jpg", "cmyk.jpg", "gray.jpg"} {
		files = append(files, file(t, name))
	}
	for _, name := range formatFiles(t) {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		files = append(files, b)
	}
	return files
}

// read decodes what may be damaged: it is a sound picture, or an error says so.
func read(t testing.TB, b []byte) {
	const limit = 1 << 16
	var im Image
	if err := DecodeLimit(b, limit, &im); err != nil {
		require.ErrorIs(t, err, ErrBadPicture)
		return
	}
	require.NoError(t, im.check())
	require.LessOrEqual(t, im.W*im.H, limit)
}

var slow = flag.Bool("slow", false, "10,000 damaged files of each format instead of 200 of each file")

// TestDamaged decodes files of every format with bytes changed, left out, doubled and cut.
func TestDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	files := pictureSeeds(t)
	perFile := map[string]int{}
	for _, b := range files {
		perFile[http.DetectContentType(b)]++
	}
	for _, whole := range files {
		n := 200
		if *slow {
			n = 10000/perFile[http.DetectContentType(whole)] + 1
		}
		for i := range n {
			b := bytes.Clone(whole)
			for range 1 + r.IntN(4) {
				at := r.IntN(len(b))
				if r.IntN(3) == 0 {
					at = r.IntN(min(len(b), 64)) // headers
				}
				b[at] = uint8(r.Uint32())
			}
			switch at, k := r.IntN(len(b)), r.IntN(16); i % 4 {
			case 1:
				b = b[:at]
			case 2:
				b = append(b[:at:at], b[min(at+k, len(b)):]...)
			case 3:
				b = append(b[:at:at], b[max(at-k, 0):]...)
			}
			begin := time.Now()
			read(t, b)
			require.Less(t, time.Since(begin), time.Minute)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range pictureSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { read(t, b) })
}

func BenchmarkApply(b *testing.B) {
	tests := []struct {
		name, text string
		w, h, side int
	}{
		{"copy 64", "- {op: resize}\n- {op: center_crop}\n", 64, 64, 64},
		{"demo 64", demo, 64, 64, 64},
		{"photo 500x375 to 224", "- {op: random_resized_crop, scale: [0.9, 1]}\n", 500, 375, 224},
		{"photo 500x375 to 64", "- {op: random_resized_crop, scale: [0.9, 1]}\n", 500, 375, 64},
	}
	for _, c := range tests {
		b.Run(c.name, func(b *testing.B) {
			p, im, dst, sc := pipeline(b, c.text, c.side), noise(c.w, c.h, 1), new(Image), new(Scratch)
			b.ReportAllocs()
			key := uint64(0)
			for b.Loop() {
				key++
				if err := p.Apply(im, key, dst, sc); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pictures/s")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"rgb.png", "j420.jpg"} {
		b.Run(name, func(b *testing.B) {
			data := file(b, name)
			var im Image
			for b.Loop() {
				if err := Decode(data, &im); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pictures/s")
			b.ReportMetric(float64(im.W*im.H*b.N)/b.Elapsed().Seconds()/1e6, "Mpixel/s")
		})
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"flip", "flip", 0}, {"flp", "flip", 1}, {"", "grey", 4}, {"kitten", "sitting", 3}} {
		require.Equal(t, c.want, distance(c.a, c.b), fmt.Sprint(c))
	}
}
