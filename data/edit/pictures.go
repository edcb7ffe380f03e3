package edit

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"path"
	"slices"
	"strings"

	"diptych/data/arrowset"
	"diptych/data/transform"
)

// Modes of Resize: which side of the picture gets the size.
var Modes = []string{"shortest", "longest", "squash"}

// Formats that pictures are written in.
var Formats = []string{"jpeg", "png"}

// PictureOptions say how pictures are written again.
type PictureOptions struct {
	Options
	Size   int    // pixels; 0 leaves the size (ReEncode)
	Mode   string // of Modes
	Filter transform.Filter
	// Enlarge lets pictures grow; without it those that are small enough stay as they are, but for squash.
	Enlarge bool
	// Format of Formats; "" keeps PNG as PNG and writes all else as JPEG.
	Format  string
	Quality int // of JPEG, 1 to 100
	// MaxPixels bounds what is decoded; 0 takes transform.DefaultMaxPixels.
	MaxPixels int
}

const pngMagic = "\x89PNG\r\n\x1a\n"

// Resize writes the pictures in another size. A picture whose size and format stay keeps its bytes. A picture that does not
// decode is an error that names its row.
func Resize(ctx context.Context, set *arrowset.Set, o PictureOptions) error {
	switch {
	case o.Size < 1 || o.Size > 1<<14:
		return refuse("a size of %d pixels", o.Size)
	case !slices.Contains(Modes, o.Mode):
		return refuse("no mode %q; there are %s", o.Mode, strings.Join(Modes, ", "))
	}
	return rewrite(ctx, set, &o)
}

// ReEncode writes the pictures in another format or quality, all of them anew.
func ReEncode(ctx context.Context, set *arrowset.Set, o PictureOptions) error {
	if o.Format == "" {
		return refuse("no format is named; there are %s", strings.Join(Formats, ", "))
	}
	o.Size = 0
	return rewrite(ctx, set, &o)
}

func rewrite(ctx context.Context, set *arrowset.Set, o *PictureOptions) error {
	if o.Format != "" && !slices.Contains(Formats, o.Format) {
		return refuse("no format %q; there are %s", o.Format, strings.Join(Formats, ", "))
	}
	if o.Quality < 1 || o.Quality > 100 {
		return refuse("a JPEG quality of %d; want 1 to 100", o.Quality)
	}
	if o.MaxPixels <= 0 {
		o.MaxPixels = transform.DefaultMaxPixels
	}
	p := copyOf(set, nil)
	p.picture = func(w *worker, _ ref, b []byte) ([]byte, error) { return o.picture(w, b) }
	if o.Format != "" { // the names follow the format
		names := renamed(set, o.Format)
		p.meta = func(r ref, m *arrowset.RowMeta) { m.ImageID = names[r.row] }
	}
	return p.write(ctx, o.Options)
}

// picture writes one picture anew.
func (o *PictureOptions) picture(w *worker, b []byte) ([]byte, error) {
	if err := transform.DecodeLimit(b, o.MaxPixels, &w.decoded); err != nil {
		return nil, err
	}
	im := &w.decoded
	format := o.Format
	if format == "" {
		format = "jpeg"
		if bytes.HasPrefix(b, []byte(pngMagic)) {
			format = "png"
		}
	}
	if o.Size > 0 {
		width, height := o.target(im.W, im.H)
		if width == im.W && height == im.H && (o.Format == "" || bytes.HasPrefix(b, magics[format])) {
			return b, nil
		}
		if width != im.W || height != im.H {
			if err := transform.Resize(&w.resized, im, width, height, o.Filter, &w.scratch); err != nil {
				return nil, err
			}
			im = &w.resized
		}
	}
	return encode(im, format, o.Quality)
}

var magics = map[string][]byte{"png": []byte(pngMagic), "jpeg": {0xff, 0xd8, 0xff}}

// target is the size that a picture of w×h pixels gets; proportions stay but for squash.
func (o *PictureOptions) target(w, h int) (int, int) {
	if o.Mode == "squash" {
		return o.Size, o.Size
	}
	side := min(w, h)
	if o.Mode == "longest" {
		side = max(w, h)
	}
	if side == o.Size || side < o.Size && !o.Enlarge {
		return w, h
	}
	scaled := func(n int) int { return max(1, (2*n*o.Size+side)/(2*side)) } // to the nearest
	return scaled(w), scaled(h)
}

func encode(im *transform.Image, format string, quality int) ([]byte, error) {
	m := image.NewRGBA(image.Rect(0, 0, im.W, im.H))
	for i := range im.W * im.H {
		copy(m.Pix[4*i:4*i+3], im.Pix[3*i:3*i+3])
		m.Pix[4*i+3] = 0xff
	}
	var buf bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&buf, m)
	} else {
		err = jpeg.Encode(&buf, m, &jpeg.Options{Quality: quality})
	}
	if err != nil {
		return nil, fmt.Errorf("%d×%d pixels as %s: %w", im.W, im.H, strings.ToUpper(format), err)
	}
	return buf.Bytes(), nil
}

// pictureExtensions are those that renamed replaces.
var pictureExtensions = []string{".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}

// renamed are the image ids with the extension of a format. One without a picture's extension stays; one that would equal
// another gets an underscore.
func renamed(set *arrowset.Set, format string) []string {
	right, ext := []string{".jpg", ".jpeg", ".jpe", ".jfif"}, ".jpg"
	if format == "png" {
		right, ext = []string{".png"}, ".png"
	}
	taken := map[string]bool{}
	for _, m := range set.Meta() {
		taken[m.ImageID] = true
	}
	names := make([]string, set.Len())
	for i, m := range set.Meta() {
		names[i] = m.ImageID
		have := path.Ext(m.ImageID)
		if !slices.Contains(pictureExtensions, strings.ToLower(have)) || slices.Contains(right, strings.ToLower(have)) {
			continue
		}
		stem := strings.TrimSuffix(m.ImageID, have)
		for taken[stem+ext] {
			stem += "_"
		}
		name := stem + ext
		taken[name] = true
		names[i] = name
	}
	return names
}
