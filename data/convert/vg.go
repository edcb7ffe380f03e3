package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"diptych/data/arrowset"
	"diptych/data/transform"
)

// VG imports Visual Genome's region_descriptions.json (Krishna et al. 2017): an array of {"id", "regions": [{"region_id",
// "x", "y", "width", "height", "phrase"}]}. The picture of an id is the file ID.jpg in one of the folders.
type VG struct {
	Images []string // folders of the pictures: VG_100K and VG_100K_2
	File   string
	Split  string // of all pictures; Visual Genome has no splits of its own
	// Crop makes a row of every region, its picture cut out and stored as JPEG of quality 95, its image_id ID_REGION.jpg and
	// ID in the attribute picture. Without it a row is a picture with the phrases of all its regions.
	Crop bool
}

type vgPicture struct {
	ID      *int64     `json:"id"`
	Regions []vgRegion `json:"regions"`
}

type vgRegion struct {
	ID                  int64 `json:"region_id"`
	X, Y, Width, Height int
	Phrase              string
}

// Open is Importer's.
func (v VG) Open(_ context.Context, o *Options) (Source, error) {
	if len(v.Images) == 0 {
		return nil, fmt.Errorf("%w: no folder of pictures is named", ErrInput)
	}
	for _, dir := range v.Images {
		if err := pictureFolder(dir).open(); err != nil {
			return nil, err
		}
	}
	l, err := openJSONList(v.File, "")
	if err != nil {
		return nil, err
	}
	if v.Crop {
		o.Attributes = append(o.Attributes[:len(o.Attributes):len(o.Attributes)], "picture")
	}
	return &vgSource{jsonList: l, VG: v}, nil
}

type vgSource struct {
	*jsonList
	VG
	regions []vgRegion // of the picture, not yet returned as rows
	place   int        // of the first of them
	picture *vgCrops
	where   string
}

// Next is Source's.
func (s *vgSource) Next() (*Record, error) {
	for len(s.regions) == 0 {
		var p vgPicture
		where, err := s.next(&p)
		switch {
		case err != nil:
			return nil, err
		case p.ID == nil:
			return nil, badRecord(where, "it has no id")
		case len(p.Regions) == 0:
			return nil, badRecord(where, "picture %d has no regions", *p.ID)
		}
		if !s.Crop {
			return s.whole(where, &p)
		}
		s.regions, s.place, s.where = p.Regions, 0, where
		s.picture = &vgCrops{id: strconv.FormatInt(*p.ID, 10), folders: s.Images}
	}
	r, picture := s.regions[0], s.picture
	where := fmt.Sprintf("%s: regions[%d]", s.where, s.place)
	s.regions, s.place = s.regions[1:], s.place+1
	phrase := strings.TrimSpace(r.Phrase)
	switch {
	case phrase == "":
		return nil, badRecord(where, "the phrase is empty")
	case r.Width <= 0 || r.Height <= 0:
		return nil, badRecord(where, "the region has %d×%d pixels", r.Width, r.Height)
	}
	return &Record{Where: where, Row: arrowset.Row{
		RowMeta:  arrowset.RowMeta{ImageID: fmt.Sprintf("%s_%d.jpg", picture.id, r.ID), Split: s.Split, Attributes: []string{picture.id}},
		Captions: []arrowset.Caption{{Text: phrase}},
	}, Load: func(ctx context.Context) ([]byte, error) { return picture.crop(ctx, r) }}, nil
}

// whole makes the record of a picture with all its phrases.
func (s *vgSource) whole(where string, p *vgPicture) (*Record, error) {
	id := strconv.FormatInt(*p.ID, 10)
	row := arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: id + ".jpg", Split: s.Split}}
	for i, r := range p.Regions {
		phrase := strings.TrimSpace(r.Phrase)
		if phrase == "" {
			return nil, badRecord(where, "regions[%d]: the phrase is empty", i)
		}
		row.Captions = append(row.Captions, arrowset.Caption{Text: phrase})
	}
	return &Record{Row: row, Where: where, Load: func(ctx context.Context) ([]byte, error) { return loadVG(ctx, s.Images, id) }}, nil
}

// loadVG reads a picture from the folder that has it.
func loadVG(ctx context.Context, folders []string, id string) (b []byte, err error) {
	for _, dir := range folders {
		if b, err = pictureFolder(dir).load(id + ".jpg")(ctx); !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return nil, err
}

// vgCrops cuts the regions out of a picture, which it decodes once.
type vgCrops struct {
	id      string
	folders []string
	once    sync.Once
	picture transform.Image
	err     error
}

func (c *vgCrops) crop(ctx context.Context, r vgRegion) ([]byte, error) {
	c.once.Do(func() {
		var b []byte
		if b, c.err = loadVG(ctx, c.folders, c.id); c.err != nil {
			return
		}
		if err := transform.Decode(b, &c.picture); err != nil {
			c.err = fmt.Errorf("%w: picture %s.jpg: %w", ErrInput, c.id, err)
		}
	})
	if c.err != nil {
		return nil, c.err
	}
	whole := image.Rect(0, 0, c.picture.W, c.picture.H)
	box := image.Rect(r.X, r.Y, r.X+r.Width, r.Y+r.Height).Intersect(whole) // some reach out of their picture
	if box.Empty() {
		return nil, fmt.Errorf("%w: region %d at %d, %d of %d×%d pixels lies outside of picture %s.jpg of %d×%d", ErrInput, r.ID, r.X, r.Y, r.Width, r.Height, c.id, c.picture.W, c.picture.H)
	}
	cut := image.NewRGBA(image.Rect(0, 0, box.Dx(), box.Dy()))
	for y := range box.Dy() {
		for x := range box.Dx() {
			p := c.picture.Pix[3*((box.Min.Y+y)*c.picture.W+box.Min.X+x):]
			cut.SetRGBA(x, y, color.RGBA{p[0], p[1], p[2], 255})
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, cut, &jpeg.Options{Quality: 95}); err != nil {
		return nil, fmt.Errorf("%w: region %d of picture %s.jpg: %w", ErrInput, r.ID, c.id, err)
	}
	return out.Bytes(), nil
}
