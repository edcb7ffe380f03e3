package transform

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"sync"

	"diptych/data/transform/jpeg"
)

// DefaultMaxPixels bounds the pictures that Decode accepts: 25 million pixels, 75 MB of RGB.
const DefaultMaxPixels = 25_000_000

const pngMagic = "\x89PNG\r\n\x1a\n"

// formats are the signatures of picture files that people keep: those that are read, and others, so that an error can
// name what it was given.
var formats = []struct {
	name, magic string
	at          int
	read        *reader // nil for those that are not read
}{
	{"PNG", pngMagic, 0, &pngReader},
	{"GIF", "GIF8", 0, &gifReader},
	{"WebP", "WEBP", 8, &webpReader},
	{"BMP", "BM", 0, &bmpReader},
	{"TIFF", "II*\x00", 0, &tiffReader},
	{"TIFF", "MM\x00*", 0, &tiffReader},
	{"AVIF", "ftypavi", 4, nil},
	{"HEIC", "ftyphe", 4, nil},
	{"HEIC", "ftypmif1", 4, nil},
	{"JPEG 2000", "\x00\x00\x00\x0cjP  ", 0, nil},
	{"JPEG XL", "\x00\x00\x00\x0cJXL ", 0, nil},
	{"JPEG XL", "\xff\x0a", 0, nil},
	{"Photoshop", "8BPS", 0, nil},
	{"icon", "\x00\x00\x01\x00", 0, nil},
	{"SVG", "<svg", 0, nil},
	{"XML (perhaps SVG)", "<?xml", 0, nil},
	{"HTML", "<!DOCTYPE", 0, nil},
	{"HTML", "<html", 0, nil},
}

// options say how a picture is decoded; the zero value is Decode's way. See the operation decode.
type options struct {
	turn  bool      // by the EXIF orientation
	side  int       // of what is made of the picture at least, for a JPEG to be decoded at a fraction of its size; 0: whole
	white bool      // what is transparent is laid on white
	late  *resizeOp // is run before the conversion to RGB
}

// Decode reads a picture file into dst, whose memory it reuses, with DefaultMaxPixels. See DecodeLimit.
func Decode(b []byte, dst *Image) error { return DecodeLimit(b, DefaultMaxPixels, dst) }

// DecodeLimit reads a JPEG, PNG, WebP, GIF, BMP or TIFF file into dst, whose memory it reuses, as Pillow's convert("RGB")
// gives it: grey is repeated, alpha is dropped, palettes are looked up, of 16-bit colour the high byte is kept, 16-bit grey
// is clipped at 255, CMYK is converted as Pillow does. Of an animation it is the first picture. A header that asks for more
// than maxPixels is refused before any pixel is read. Errors wrap ErrBadPicture; those about formats and modes that are not
// read wrap ErrUnsupported too. JPEG files are decoded without allocating.
func DecodeLimit(b []byte, maxPixels int, dst *Image) error {
	sc := scratches.Get().(*Scratch)
	defer scratches.Put(sc)
	return decode(b, maxPixels, &options{}, dst, sc)
}

var scratches = sync.Pool{New: func() any { return new(Scratch) }}

func decode(b []byte, maxPixels int, o *options, dst *Image, sc *Scratch) error {
	if sc.decoder == nil {
		sc.decoder = new(decoder)
	}
	if err := sc.decoder.decode(b, maxPixels, o, dst, sc); err != nil {
		return fmt.Errorf("transform: %w", err)
	}
	return nil
}

// decoder is what decoding reuses.
type decoder struct {
	jpeg           jpeg.Decoder
	native, turned native
	parts          [4]Image // of a picture that is resized before it is converted
}

func (d *decoder) decode(b []byte, maxPixels int, o *options, dst *Image, sc *Scratch) error {
	turn := 1
	switch {
	case len(b) == 0:
		return fmt.Errorf("%w: no bytes", ErrBadPicture)
	case hasMagic(b, "\xff\xd8\xff", 0):
		direct, t, err := d.readJPEG(b, maxPixels, o, dst)
		if err != nil || direct {
			return err
		}
		turn = t
	default:
		if err := d.readOther(b, maxPixels); err != nil {
			return err
		}
		if o.turn || hasMagic(b, "II*\x00", 0) || hasMagic(b, "MM\x00*", 0) { // Pillow turns TIFF files whatever is asked for
			turn = orientation(b)
		}
	}
	n := &d.native
	if turn > 1 {
		n.turn(&d.turned, turn)
		n = &d.turned
	}
	if o.white {
		n.onWhite()
	}
	if o.late != nil {
		return n.resize(dst, o.late, d, sc)
	}
	n.toRGB(dst)
	return nil
}

// readJPEG reads a JPEG file into d.native, or directly into dst where nothing else is to be done.
func (d *decoder) readJPEG(b []byte, maxPixels int, o *options, dst *Image) (direct bool, orientation int, err error) {
	h, err := d.jpeg.Open(b)
	if err != nil {
		return false, 0, broken("JPEG", err)
	}
	if err := checkSize("JPEG", image.Config{Width: h.W, Height: h.H}, maxPixels); err != nil {
		return false, 0, err
	}
	by := 1
	for o.side > 0 && by < 8 && min(h.W, h.H)/(2*by) >= o.side {
		by *= 2
	}
	orientation = 1
	if o.turn {
		orientation = h.Orientation
	}
	w, height := h.Size(by)
	if direct = h.Channels == 3 && orientation == 1; direct {
		dst.resize(w, height)
		err = d.jpeg.Read(dst.Pix, by) // channels of RGB are resized alike before and after
	} else {
		d.native.size(w, height, [5]kind{1: grey8, 3: rgb, 4: cmyk}[h.Channels])
		err = d.jpeg.Read(d.native.pix, by)
	}
	if err != nil {
		return false, 0, broken("JPEG", err)
	}
	return direct, orientation, nil
}

// readOther reads a file of any other format into d.native.
func (d *decoder) readOther(b []byte, maxPixels int) error {
	for _, f := range formats {
		if !hasMagic(b, f.magic, f.at) {
			continue
		}
		if f.read == nil {
			return fmt.Errorf("%w format %s; convert it to PNG or JPEG", ErrUnsupported, f.name)
		}
		c, err := f.read.config(bytes.NewReader(b))
		if err != nil {
			return broken(f.name, err)
		}
		if err := checkSize(f.name, c, maxPixels); err != nil {
			return err
		}
		return f.read.read(b, c, &d.native, f.name)
	}
	return fmt.Errorf("%w: no picture format that is known (begins with % x)", ErrBadPicture, b[:min(len(b), 8)])
}

func hasMagic(b []byte, magic string, at int) bool {
	return len(b) >= at+len(magic) && string(b[at:at+len(magic)]) == magic
}

func checkSize(format string, c image.Config, maxPixels int) error {
	if c.Width <= 0 || c.Height <= 0 {
		return fmt.Errorf("%w: %s of %d×%d pixels", ErrBadPicture, format, c.Width, c.Height)
	}
	if c.Width > maxPixels/c.Height {
		return fmt.Errorf("%w: %s of %d×%d pixels, more than the limit of %d pixels", ErrBadPicture, format, c.Width, c.Height, maxPixels)
	}
	return nil
}

// broken wraps what a decoder reports.
func broken(format string, err error) error {
	if errors.Is(err, jpeg.ErrUnsupported) || unsupported(err) {
		return fmt.Errorf("%w %s: %w", ErrUnsupported, format, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrBadPicture, format, err)
}
