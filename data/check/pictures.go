package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // formats whose headers are read
	_ "image/jpeg"
	_ "image/png"
	"io"
	"path"
	"strings"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"

	"diptych/data/arrowset"
	"diptych/data/transform"
)

// sum is a checksum of a picture's pixels: equal sums are equal pictures, in whatever file they lie. It is zero for a picture
// that does not decode or has one colour: two placeholders are no leak.
type sum [16]byte

// oneColour is the range of levels, in each channel, that still counts as one colour: JPEG does not keep one exactly.
const oneColour = 3

// pictureWorker is what one goroutine reuses from picture to picture.
type pictureWorker struct {
	image, small transform.Image
	scratch      transform.Scratch
}

// checksums compares the shards with the manifest. An embedded set is what the program was built with.
func (c *checker) checksums(ctx context.Context) error {
	err := c.set.Verify(ctx)
	if !errors.Is(err, arrowset.ErrCorrupt) {
		return err
	}
	c.add(ShardChecksum, -1, -1, -1, "%v", err)
	return nil
}

// pictures reads all of them.
func (c *checker) pictures(ctx context.Context) error {
	return each(ctx, c, "checking pictures", c.set.Len(), func() *pictureWorker { return &pictureWorker{} }, func(w *pictureWorker, i int) ([]Finding, error) {
		b, err := c.set.Image(ctx, i)
		if errors.Is(err, arrowset.ErrCorrupt) {
			c.looks[i] = noLook
			return []Finding{c.found(ImageUnreadable, i, -1, -1, "%v", err)}, nil
		}
		if err != nil {
			return nil, err
		}
		found := c.picture(w, i, b)
		if !c.set.HasSecond(i) {
			return found, nil
		}
		b, err = c.set.Second(ctx, i)
		switch {
		case errors.Is(err, arrowset.ErrCorrupt):
			found = append(found, c.found(ImageUnreadable, i, -1, -1, "second picture: %v", err))
		case err != nil:
			return nil, err
		default:
			if kind, what := c.decode(w, b); kind != "" {
				found = append(found, c.found(kind, i, -1, -1, "second picture: %s", what))
			}
		}
		return found, nil
	})
}

// decode decodes the picture whose file is b into w.image, or says what is wrong with it.
func (c *checker) decode(w *pictureWorker, b []byte) (fault Kind, what string) {
	header, _, headerErr := image.DecodeConfig(bytes.NewReader(b))
	if headerErr == nil && header.Height > 0 && header.Width > c.MaxPixels/header.Height {
		return ImageBomb, fmt.Sprintf("%d×%d pixels in %d bytes; at most %d pixels are decoded", header.Width, header.Height, len(b), c.MaxPixels)
	}
	format, err := formatOf(b), transform.DecodeLimit(b, c.MaxPixels, &w.image)
	switch {
	case format != "" && !complete(format, b), errors.Is(err, io.ErrUnexpectedEOF):
		return ImageTruncated, fmt.Sprintf("the %s file of %d bytes ends before the picture does", strings.ToUpper(format), len(b))
	case err != nil:
		return ImageUnreadable, err.Error()
	}
	return "", ""
}

// picture checks the picture of row i, whose file is b, and notes what it looks like.
func (c *checker) picture(w *pictureWorker, i int, b []byte) (fs []Finding) {
	find := func(k Kind, format string, args ...any) { fs = append(fs, c.found(k, i, -1, -1, format, args...)) }
	c.looks[i] = noLook
	format := formatOf(b)
	if named := extensions[strings.ToLower(path.Ext(c.set.Meta()[i].ImageID))]; named != "" && format != "" && named != format {
		find(ImageExtension, "the name says %s, the bytes are %s", strings.ToUpper(named), strings.ToUpper(format))
	}
	if kind, what := c.decode(w, b); kind != "" {
		find(kind, "%s", what)
		return fs
	}
	im := &w.image
	if min(im.W, im.H) < c.MinSide {
		find(ImageTiny, "%d×%d pixels", im.W, im.H)
	}
	if lo, hi := levels(im); hi[0]-lo[0] <= oneColour && hi[1]-lo[1] <= oneColour && hi[2]-lo[2] <= oneColour {
		find(ImageOneColour, "all %d×%d pixels are #%02x%02x%02x", im.W, im.H, im.Pix[0], im.Pix[1], im.Pix[2])
		return fs
	}
	c.sums[i] = pixelSum(im)
	if look, err := lookOf(w); err == nil {
		c.looks[i] = look
	}
	return fs
}

func pixelSum(im *transform.Image) (s sum) {
	h := sha256.New()
	var size [16]byte
	binary.LittleEndian.PutUint64(size[:], uint64(im.W))
	binary.LittleEndian.PutUint64(size[8:], uint64(im.H))
	h.Write(size[:])
	h.Write(im.Pix)
	return sum(h.Sum(nil)[:len(s)])
}

// levels is the least and the greatest level of each channel; it stops when they are clearly not one colour.
func levels(im *transform.Image) (lo, hi [3]uint8) {
	lo, hi = [3]uint8{255, 255, 255}, [3]uint8{}
	for y := range im.H {
		for p := im.Pix[3*y*im.W : 3*(y+1)*im.W]; len(p) >= 3; p = p[3:] {
			for k := range 3 {
				lo[k], hi[k] = min(lo[k], p[k]), max(hi[k], p[k])
			}
		}
		if hi[0]-lo[0] > oneColour || hi[1]-lo[1] > oneColour || hi[2]-lo[2] > oneColour {
			break
		}
	}
	return lo, hi
}

// extensions are the formats that file names promise.
var extensions = map[string]string{
	".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".png": "png", ".gif": "gif", ".webp": "webp", ".bmp": "bmp", ".tif": "tiff", ".tiff": "tiff",
}

// formatOf is the format that the first bytes give away, "" if it is none of extensions.
func formatOf(b []byte) string {
	for _, f := range []struct {
		name, magic string
		at          int
	}{
		{"jpeg", "\xff\xd8\xff", 0}, {"png", "\x89PNG\r\n\x1a\n", 0}, {"gif", "GIF8", 0}, {"webp", "WEBP", 8}, {"tiff", "II*\x00", 0}, {"tiff", "MM\x00*", 0}, {"bmp", "BM", 0},
	} {
		if len(b) >= f.at+len(f.magic) && string(b[f.at:f.at+len(f.magic)]) == f.magic {
			return f.name
		}
	}
	return ""
}

// complete says whether a file has the end that its format demands. Formats without one are always complete.
func complete(format string, b []byte) bool {
	switch format {
	case "png":
		for b = b[8:]; len(b) >= 12; {
			n := binary.BigEndian.Uint32(b)
			if string(b[4:8]) == "IEND" {
				return true
			}
			if uint64(n) > uint64(len(b)-12) {
				return false
			}
			b = b[12+n:]
		}
		return false
	case "jpeg":
		return completeJPEG(b)
	case "webp":
		return uint64(binary.LittleEndian.Uint32(b[4:])) <= uint64(len(b)-8)
	case "gif":
		return bytes.IndexByte(b[max(0, len(b)-16):], 0x3b) >= 0 // some writers pad behind the trailer
	}
	return true
}

// completeJPEG follows the segments to the marker EOI (ITU-T T.81, B.1): the thumbnail in a segment may have one of its own.
func completeJPEG(b []byte) bool {
	for i := 2; i+1 < len(b); {
		if b[i] != 0xff {
			i++ // entropy-coded bytes, or padding
			continue
		}
		switch m := b[i+1]; {
		case m == 0xd9:
			return true
		case m == 0xff:
			i++
		case m == 0 || m == 1 || 0xd0 <= m && m <= 0xd8: // a stuffed byte, or a marker without a segment
			i += 2
		case i+3 < len(b):
			i += 2 + max(2, int(b[i+2])<<8|int(b[i+3]))
		default:
			return false
		}
	}
	return false
}
