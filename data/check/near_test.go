package check

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/image/draw"

	"diptych/data/transform"
)

// TestNear changes pictures of the demo as the web does and measures how many are still known: the hash within NearBits and the
// thumbnails alike. Drawings of 64 pixels with hard edges are the hard case: the thumbnail has half their resolution, so that what
// JPEG and a smaller size do to edges is seen in it. The shares that are demanded lie below those measured.
func TestNear(t *testing.T) {
	rows, _ := some(t, 30)
	scaled := func(side int) func(m image.Image) image.Image {
		return func(m image.Image) image.Image {
			out := image.NewRGBA(image.Rect(0, 0, side, side))
			draw.CatmullRom.Scale(out, out.Bounds(), m, m.Bounds(), draw.Src, nil)
			return out
		}
	}
	same := func(m image.Image) image.Image { return m }
	for _, c := range []struct {
		name    string
		change  func(image.Image) image.Image
		quality int // of JPEG; 0 is PNG
		least   float64
	}{
		{"JPEG 95", same, 95, 0.9}, {"JPEG 90", same, 90, 0.75}, {"JPEG 75", same, 75, 0.3},
		{"150 pixels", scaled(150), 0, 0.95}, {"150 pixels, JPEG 90", scaled(150), 90, 0.9}, {"48 pixels", scaled(48), 0, 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w [2]pictureWorker
			known, far, other, all := 0, 0, 0, 0
			for _, r := range rows {
				m, err := png.Decode(bytes.NewReader(r.Image))
				require.NoError(t, err)
				var b bytes.Buffer
				if c.quality > 0 {
					err = jpeg.Encode(&b, c.change(m), &jpeg.Options{Quality: c.quality})
				} else {
					err = png.Encode(&b, c.change(m))
				}
				require.NoError(t, err)
				require.NoError(t, transform.Decode(r.Image, &w[0].image))
				require.NoError(t, transform.Decode(b.Bytes(), &w[1].image))
				if lo, hi := levels(&w[0].image); hi[1]-lo[1] <= oneColour {
					continue
				}
				x, err := lookOf(&w[0])
				require.NoError(t, err)
				y, err := lookOf(&w[1])
				require.NoError(t, err)
				_, near := alike(w[0].small.Pix, w[1].small.Pix)
				all++
				switch d := bits.OnesCount64(x ^ y); {
				case d > NearBits:
					far++
				case !near:
					other++
				default:
					known++
				}
			}
			t.Logf("%d of %d known; %d with another hash, %d with another thumbnail", known, all, far, other)
			require.GreaterOrEqual(t, float64(known), c.least*float64(all))
		})
	}
}
