// Package dirty plants known faults into the rows of a sound data set, so that what looks for faults can be measured. It knows
// nothing of what looks for them: a fault is named by what was done to the rows. Start at Plant.
package dirty

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"golang.org/x/image/draw"
	"golang.org/x/text/encoding/charmap"

	"diptych/data/arrowset"
)

// Fault is one thing that was done.
type Fault struct {
	Name    string
	Rows    []int // that are concerned; what was done was done to the first
	Caption int   // number of the caption in the row; -1: not done to a caption
}

// planter is the state of one planting.
type planter struct {
	rng    *rand.Rand
	rows   []arrowset.Row
	free   []int // rows that nothing was done to, in a random order
	sound  int   // rows that were there before
	faults []Fault
	serial int
	class  int
}

// Plant does each of the faults each times to rows, which are PNG pictures of at least 16×16 pixels with captions, labels and
// groups, in the splits train and another whose groups train does not have. class is the place of an attribute that has the
// values of a class system. It returns the rows with what it has changed and added, and all that it has done.
func Plant(seed uint64, rows []arrowset.Row, class, times int) ([]arrowset.Row, []Fault, error) {
	p := &planter{rng: rand.New(rand.NewPCG(seed, 1)), rows: slices.Clone(rows), sound: len(rows), class: class}
	p.free = p.rng.Perm(len(rows))
	for range times {
		for _, plant := range []func() error{
			p.garbage, p.page, p.flipped, p.cutPNG, p.cutJPEG, p.bomb, p.oneColour, p.tiny, p.extension,
			p.noCaption, p.captions, p.twice, p.common,
			p.leak, p.nearLeak, p.otherGroup, p.noGroup, p.doubled, p.sameID,
			p.label, p.group, p.sharedGroup, p.unknownClass, p.split,
		} {
			if err := plant(); err != nil {
				return nil, nil, fmt.Errorf("dirty: %w", err)
			}
		}
	}
	return p.rows, p.faults, nil
}

// take takes the next free row that fits.
func (p *planter) take(fits func(r *arrowset.Row) bool) (int, error) {
	for k, i := range p.free {
		if fits == nil || fits(&p.rows[i]) {
			p.free = slices.Delete(p.free, k, k+1)
			return i, nil
		}
	}
	return 0, fmt.Errorf("no row is left for another fault; give more rows")
}

func (p *planter) done(name string, caption int, rows ...int) {
	p.faults = append(p.faults, Fault{name, rows, caption})
}

// id is a new name with an extension.
func (p *planter) id(ext string) string {
	p.serial++
	return fmt.Sprintf("planted/%d%s", p.serial, ext)
}

// add appends a row and returns its place.
func (p *planter) add(r arrowset.Row) int {
	p.rows = append(p.rows, r)
	return len(p.rows) - 1
}

// replace puts another picture into a free row.
func (p *planter) replace(name string, picture func(m image.Image, file []byte) ([]byte, error)) error {
	i, err := p.take(nil)
	if err != nil {
		return err
	}
	r := &p.rows[i]
	m, err := png.Decode(bytes.NewReader(r.Image))
	if err != nil {
		return err
	}
	b, err := picture(m, slices.Clone(r.Image))
	if err != nil {
		return err
	}
	if bytes.HasPrefix(b, []byte("\xff\xd8")) {
		r.ImageID = strings.TrimSuffix(r.ImageID, path.Ext(r.ImageID)) + ".jpg"
	}
	r.Image = b
	p.done(name, -1, i)
	return nil
}

func (p *planter) garbage() error {
	return p.replace("random bytes", func(image.Image, []byte) ([]byte, error) {
		b := make([]byte, 500)
		for i := range b {
			b[i] = byte(p.rng.Uint32())
		}
		b[0] = 0
		return b, nil
	})
}

func (p *planter) page() error {
	return p.replace("a web page", func(image.Image, []byte) ([]byte, error) {
		return []byte("<!DOCTYPE html><html><title>404 Not Found</title></html>"), nil
	})
}

func (p *planter) flipped() error {
	return p.replace("a flipped bit", func(_ image.Image, b []byte) ([]byte, error) {
		b[bytes.Index(b, []byte("IDAT"))+12] ^= 0x10
		return b, nil
	})
}

func (p *planter) cutPNG() error {
	return p.replace("half a PNG", func(_ image.Image, b []byte) ([]byte, error) { return b[:len(b)/2], nil })
}

func (p *planter) cutJPEG() error {
	return p.replace("half a JPEG", func(m image.Image, _ []byte) ([]byte, error) {
		b, err := encodeJPEG(m)
		return b[:max(0, len(b)*3/4)], err
	})
}

func (p *planter) bomb() error {
	return p.replace("a picture of 2.5 gigapixels", func(image.Image, []byte) ([]byte, error) {
		header := make([]byte, 13)
		binary.BigEndian.PutUint32(header, 50000)
		binary.BigEndian.PutUint32(header[4:], 50000)
		header[8], header[9] = 8, 2
		b := chunk([]byte("\x89PNG\r\n\x1a\n"), "IHDR", header)
		return chunk(chunk(b, "IDAT", make([]byte, 64)), "IEND", nil), nil
	})
}

// chunk appends a chunk of a PNG file.
func chunk(b []byte, name string, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	from := len(b)
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
}

func (p *planter) oneColour() error {
	return p.replace("one colour", func(m image.Image, _ []byte) ([]byte, error) {
		out := image.NewRGBA(m.Bounds())
		draw.Draw(out, out.Bounds(), image.NewUniform(color.RGBA{uint8(p.rng.Uint32()), 128, 9, 255}), image.Point{}, draw.Src)
		return encodePNG(out)
	})
}

func (p *planter) tiny() error {
	return p.replace("a thumbnail of 9×9", func(m image.Image, _ []byte) ([]byte, error) { return encodePNG(scaled(m, 9, 0)) })
}

func (p *planter) extension() error {
	i, err := p.take(nil)
	if err != nil {
		return err
	}
	p.rows[i].ImageID = strings.TrimSuffix(p.rows[i].ImageID, ".png") + ".jpeg"
	p.done("another extension", -1, i)
	return nil
}

func encodePNG(m image.Image) ([]byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, m)
	return b.Bytes(), err
}

func encodeJPEG(m image.Image) ([]byte, error) {
	var b bytes.Buffer
	err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 90})
	return b.Bytes(), err
}

// scaled is m, squashed to side×side pixels and a little darker.
func scaled(m image.Image, side, darker int) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, side, side))
	draw.BiLinear.Scale(out, out.Bounds(), m, m.Bounds(), draw.Src, nil)
	for i := range out.Pix {
		if i%4 != 3 {
			out.Pix[i] = uint8(max(0, int(out.Pix[i])-darker))
		}
	}
	return out
}

func (p *planter) noCaption() error {
	i, err := p.take(nil)
	if err != nil {
		return err
	}
	p.rows[i].Captions = nil
	p.done("no captions", -1, i)
	return nil
}

// captions adds a bad caption of each kind to a row of its own.
func (p *planter) captions() error {
	n := p.rng.IntN(1000)
	misread, err := charmap.Windows1252.NewDecoder().String(fmt.Sprintf("the crème brûlée of café %d", n))
	if err != nil {
		return err
	}
	quoted, err := charmap.Windows1252.NewDecoder().String(fmt.Sprintf("it’s number %d", n))
	if err != nil {
		return err
	}
	long := ""
	for range 120 {
		long += fmt.Sprintf("word %d ", p.rng.IntN(10000))
	}
	for _, c := range []struct{ name, text string }{
		{"an empty caption", ""},
		{"a caption of spaces", " \t\u00a0 "},
		{"UTF-8 read as Windows-1252", misread},
		{"an apostrophe read as Windows-1252", quoted},
		{"a lost character", fmt.Sprintf("caf\ufffd %d", n)},
		{"a bell", fmt.Sprintf("ring \a the bell %d", n)},
		{"a byte order mark", fmt.Sprintf("\ufeffmarked %d", n)},
		{"a character reference", fmt.Sprintf("salt &amp; pepper %d", n)},
		{"a tag", fmt.Sprintf("a <b>bold</b> thing %d", n)},
		{"an address", fmt.Sprintf("see https://example.org/%d?a=1&amp;b=2", n)},
		{"120 words and numbers", long},
	} {
		i, err := p.take(nil)
		if err != nil {
			return err
		}
		r := &p.rows[i]
		r.Captions = append(slices.Clone(r.Captions), arrowset.Caption{Text: c.text})
		p.done(c.name, len(r.Captions)-1, i)
	}
	return nil
}

func (p *planter) twice() error {
	i, err := p.take(nil)
	if err != nil {
		return err
	}
	r := &p.rows[i]
	first := r.Captions[0]
	first.Text = "  " + strings.ToUpper(first.Text)
	r.Captions = append(slices.Clone(r.Captions), first)
	p.done("a caption twice", len(r.Captions)-1, i)
	return nil
}

func (p *planter) common() error {
	text := fmt.Sprintf("image %d for illustration only", p.rng.IntN(100000))
	var rows []int
	groups := map[string]bool{}
	for range 20 {
		i, err := p.take(func(r *arrowset.Row) bool { return !groups[r.Group] })
		if err != nil {
			return err
		}
		r := &p.rows[i]
		groups[r.Group] = true
		r.Captions = append(slices.Clone(r.Captions), arrowset.Caption{Text: text})
		rows = append(rows, i)
	}
	p.done("a caption for 20 groups", -1, rows...)
	return nil
}

func inSplit(split string) func(*arrowset.Row) bool {
	return func(r *arrowset.Row) bool { return r.Split == split }
}

// copied makes a row that is a train row but for its name.
func (p *planter) copied(ext string) (int, arrowset.Row, error) {
	i, err := p.take(inSplit("train"))
	if err != nil {
		return 0, arrowset.Row{}, err
	}
	r := p.rows[i]
	r.ImageID = p.id(ext)
	return i, r, nil
}

func (p *planter) leak() error {
	i, r, err := p.copied(".png")
	r.Split = "test"
	p.done("a picture of train in test", -1, i, p.add(r))
	return err
}

func (p *planter) nearLeak() error {
	for _, c := range []struct {
		name, ext string
		encode    func(image.Image) ([]byte, error)
	}{
		{"a larger picture of train in test", ".png", func(m image.Image) ([]byte, error) { return encodePNG(scaled(m, 150, 2)) }},
		{"a JPEG of train in test", ".jpg", func(m image.Image) ([]byte, error) { return encodeJPEG(scaled(m, 150, 0)) }},
	} {
		i, r, err := p.copied(c.ext)
		if err != nil {
			return err
		}
		m, err := png.Decode(bytes.NewReader(r.Image))
		if err != nil {
			return err
		}
		if r.Image, err = c.encode(m); err != nil {
			return err
		}
		r.Split = "test"
		p.done(c.name, -1, i, p.add(r))
	}
	return nil
}

func (p *planter) otherGroup() error {
	i, r, err := p.copied(".png")
	if err != nil {
		return err
	}
	k, err := p.take(func(o *arrowset.Row) bool { return o.Split == "train" && o.Group != r.Group })
	if err != nil {
		return err
	}
	o := p.rows[k]
	o.ImageID, o.Image = r.ImageID, r.Image
	p.done("a picture in two groups", -1, p.add(o), i)
	return nil
}

func (p *planter) noGroup() error {
	i, r, err := p.copied(".png")
	r.Group, r.Captions = "", []arrowset.Caption{{Text: "quite another sentence " + r.ImageID}}
	p.done("a picture twice", -1, p.add(r), i)
	return err
}

func (p *planter) doubled() error {
	i, r, err := p.copied(".png")
	p.done("a pair twice", -1, p.add(r), i)
	return err
}

func (p *planter) sameID() error {
	a, err := p.take(nil)
	if err != nil {
		return err
	}
	b, err := p.take(nil)
	if err != nil {
		return err
	}
	a, b = min(a, b), max(a, b)
	p.rows[b].ImageID = p.rows[a].ImageID
	p.done("one name for two", -1, b, a)
	return nil
}

// often says whether at least three rows have the same value.
func (p *planter) often(value func(*arrowset.Row) string) func(*arrowset.Row) bool {
	count := map[string]int{}
	for i := range p.rows[:p.sound] {
		count[value(&p.rows[i])]++
	}
	return func(r *arrowset.Row) bool { return count[value(r)] >= 3 }
}

func (p *planter) label() error {
	i, err := p.take(p.often(func(r *arrowset.Row) string { return r.Label }))
	if err != nil {
		return err
	}
	p.rows[i].Label = strings.ToUpper(p.rows[i].Label) + " "
	p.done("a label in capitals", -1, i)
	return nil
}

func (p *planter) group() error {
	i, err := p.take(p.often(func(r *arrowset.Row) string { return r.Group }))
	if err != nil {
		return err
	}
	p.rows[i].Group = " " + strings.ToLower(p.rows[i].Group) + " "
	p.done("a group with spaces", -1, i)
	return nil
}

// sharedGroup gives a row of a split that shares no group with train, such as the unseen concepts, a group of train.
func (p *planter) sharedGroup() error {
	splits := map[string]map[string]bool{} // group: its splits
	first := map[string]int{}
	for i := range p.rows {
		r := &p.rows[i]
		if splits[r.Group] == nil {
			splits[r.Group] = map[string]bool{}
			first[r.Group] = i
		}
		splits[r.Group][r.Split] = true
	}
	trained := map[string]bool{} // splits that train shares groups with
	for _, in := range splits {
		if in["train"] && len(in) > 1 {
			for s := range in {
				trained[s] = true
			}
		}
	}
	for _, f := range p.faults { // a split does not count as sharing because of this fault
		if f.Name == "a group of train elsewhere" {
			delete(trained, p.rows[f.Rows[1]].Split)
		}
	}
	k, err := p.take(func(r *arrowset.Row) bool {
		return r.Split != "train" && !trained[r.Split] && p.aloneIn(r.Group, r.Split)
	})
	if err != nil {
		return err
	}
	i, err := p.take(func(r *arrowset.Row) bool {
		return r.Split == "train" && len(splits[r.Group]) == 1 && r.Group != ""
	})
	if err != nil {
		return err
	}
	p.rows[k].Group = p.rows[i].Group
	p.done("a group of train elsewhere", -1, first[p.rows[i].Group], k)
	return nil
}

// aloneIn says whether a group has rows in one split only.
func (p *planter) aloneIn(group, split string) bool {
	return !slices.ContainsFunc(p.rows, func(r arrowset.Row) bool { return r.Group == group && r.Split != split })
}

func (p *planter) unknownClass() error {
	i, err := p.take(nil)
	if err != nil {
		return err
	}
	a := slices.Clone(p.rows[i].Attributes)
	a[p.class] += "-2"
	p.rows[i].Attributes = a
	p.done("no such class", -1, i)
	return nil
}

func (p *planter) split() error {
	i, err := p.take(inSplit("train"))
	if err != nil {
		return err
	}
	p.rows[i].Split = "Train"
	p.done("a split in capitals", -1, i)
	return nil
}
