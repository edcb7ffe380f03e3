// Package transform turns encoded pictures into the pixels a model is fed: it decodes PNG and JPEG to Pillow's RGB, and
// runs the recipe's list of operations (resize, crops, augmentations) on them.
//
// Results follow the Python libraries to the bit where their arithmetic is integers: PNG pixels, Pillow's resize with
// every filter, torchvision's crops and grey. JPEG pixels are within 3 levels of libjpeg-turbo's, because Go's decoder
// has another inverse DCT. A picture becomes RGB before anything else (webdataset's order): for palette and transparent
// PNG that differs from open_clip's order for single files, which resizes first. EXIF orientation is not applied.
//
// Nothing here advances a random generator: every draw is a hash of (key, entry of the list, number of the draw), so a
// picture's augmentation depends on its key alone. The floating-point mean and standard deviation at the list's end are
// only read here; the model's patch embedding applies them.
//
// Start with Decode, then New and Pipeline.Apply. The table of operations is in ops.go.
package transform

import (
	"errors"
	"fmt"
	"slices"
)

// Image is a picture as 8-bit RGB, row after row without gaps: pixel (x, y) starts at Pix[3·(y·W+x)].
type Image struct {
	W, H int
	Pix  []uint8
}

// ErrBadPicture marks a picture that cannot be used, whatever the reason. ErrUnsupported, which it includes, marks one
// that may be sound but has a format or a mode that is not read here.
var (
	ErrBadPicture  = errors.New("bad picture")
	ErrUnsupported = fmt.Errorf("%w: unsupported", ErrBadPicture)
)

// resize makes im a picture of w×h pixels whose content is undefined, in the memory it has when that is enough.
func (im *Image) resize(w, h int) {
	n := 3 * w * h
	im.W, im.H, im.Pix = w, h, slices.Grow(im.Pix[:0], n)[:n]
}

func (im *Image) row(y int) []uint8 { return im.Pix[3*im.W*y : 3*im.W*(y+1)] }

func (im *Image) check() error {
	if im.W <= 0 || im.H <= 0 || len(im.Pix) != 3*im.W*im.H {
		return fmt.Errorf("%w: %d×%d pixels in %d bytes", ErrBadPicture, im.W, im.H, len(im.Pix))
	}
	return nil
}

// copyFrom makes im a copy of src.
func (im *Image) copyFrom(src *Image) {
	im.resize(src.W, src.H)
	copy(im.Pix, src.Pix)
}
