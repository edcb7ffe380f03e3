package sheet

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// The heights of a line of each type, in pixels.
const (
	titleHeight = 30
	textHeight  = 18
	queryHeight = 22
	captionGap  = 6  // between a picture and its caption
	cardPad     = 10 // inside a text's card
)

// maxRunes bounds what is measured of one text: more never fits.
const maxRunes = 400

// face is a font at a size with the height of its lines.
type face struct {
	font.Face
	height, ascent int
}

// pen draws on dst. Font faces keep buffers, so a pen serves one goroutine.
type pen struct {
	dst                      *image.RGBA
	title, query, text, bold face
}

func newPen() (*pen, error) {
	p := &pen{}
	for _, f := range []struct {
		to     *face
		ttf    []byte
		size   float64
		height int
	}{
		{&p.title, gobold.TTF, 20, titleHeight},
		{&p.query, gobold.TTF, 15, queryHeight},
		{&p.text, goregular.TTF, 12.5, textHeight},
		{&p.bold, gobold.TTF, 12.5, textHeight},
	} {
		ttf, err := opentype.Parse(f.ttf)
		if err != nil {
			return nil, fmt.Errorf("sheet: font: %w", err)
		}
		ff, err := opentype.NewFace(ttf, &opentype.FaceOptions{Size: f.size, DPI: 72, Hinting: font.HintingNone})
		if err != nil {
			return nil, fmt.Errorf("sheet: font: %w", err)
		}
		*f.to = face{ff, f.height, ff.Metrics().Ascent.Ceil()}
	}
	return p, nil
}

func (p *pen) close() {
	for _, f := range []face{p.title, p.query, p.text, p.bold} {
		_ = f.Close() // frees nothing that could fail: opentype's Close always returns nil
	}
}

// lines writes s from y down into at most n lines of width w and returns how many it took.
func (p *pen) lines(f face, c color.Color, x, y, w, n int, centre bool, s string) int {
	broken := wrap(f, s, w, n)
	d := font.Drawer{Dst: p.dst, Src: image.NewUniform(c), Face: f}
	for i, line := range broken {
		d.Dot = fixed.P(x, y+i*f.height+(f.height+f.ascent)/2-1)
		if centre {
			d.Dot.X += (fixed.I(w) - d.MeasureString(line)) / 2
		}
		d.DrawString(line)
	}
	return len(broken)
}

// below is the height of what stands below the square of c.
func (p *pen) below(c *Cell, side int) int {
	lines := 0
	if c.Picture != nil {
		lines = len(wrap(p.text, c.Text, side, captionRows))
	}
	if c.Note != "" {
		lines++
	}
	if lines == 0 {
		return 0
	}
	return captionGap + lines*textHeight
}

// cell draws c with its picture's or card's square at (x, y).
func (p *pen) cell(c *Cell, x, y, side int, lead bool) {
	square := image.Rect(x, y, x+side, y+side)
	edge, fill := line, card
	switch c.Mark {
	case Right:
		edge, fill = green, greenCard
	case Wrong:
		edge, fill = red, redCard
	}
	width := 1
	if c.Mark != Plain {
		width = frame
	}
	if c.Picture != nil {
		fill = paper
	}
	p.roundRect(square, 8, edge)
	p.roundRect(square.Inset(width), float32(max(3, 8-width)), fill)

	below := y + side + captionGap
	captions := 0 // lines
	if c.Picture != nil {
		p.picture(square.Inset(width+2), c.Picture)
		captions = p.lines(p.text, ink, x, below, side, captionRows, true, c.Text)
	} else {
		f, room := p.text, side-2*cardPad
		lines := wrap(f, c.Text, room, max(1, room/f.height))
		if large := wrap(p.query, c.Text, room, room/p.query.height+1); lead && len(large)*p.query.height <= room {
			f, lines = p.query, large // a query that is short enough is set larger
		}
		top := y + (side-len(lines)*f.height)/2
		p.lines(f, ink, x+cardPad, top, room, len(lines), true, c.Text)
	}
	if c.Mark != Plain {
		p.badge(float32(x+side-9), float32(y+9), edge, c.Mark)
	}
	if c.Note != "" {
		p.lines(p.text, faint, x, below+captions*textHeight, side, 1, true, c.Note)
	}
}

// picture scales m into r, keeping its proportions, over white.
func (p *pen) picture(r image.Rectangle, m image.Image) {
	b := m.Bounds()
	if b.Empty() {
		return
	}
	scale := min(float64(r.Dx())/float64(b.Dx()), float64(r.Dy())/float64(b.Dy()))
	w, h := max(1, int(float64(b.Dx())*scale+0.5)), max(1, int(float64(b.Dy())*scale+0.5))
	at := image.Pt(r.Min.X+(r.Dx()-w)/2, r.Min.Y+(r.Dy()-h)/2)
	draw.CatmullRom.Scale(p.dst, image.Rectangle{at, at.Add(image.Pt(w, h))}, m, b, draw.Over, nil)
}

// fillPath fills what path draws inside r, antialiased.
func (p *pen) fillPath(r image.Rectangle, c color.Color, path func(z *vector.Rasterizer)) {
	z := vector.NewRasterizer(r.Dx(), r.Dy())
	path(z)
	z.Draw(p.dst, r, image.NewUniform(c), image.Point{})
}

func (p *pen) roundRect(r image.Rectangle, radius float32, c color.Color) {
	w, h := float32(r.Dx()), float32(r.Dy())
	radius = min(radius, w/2, h/2)
	k := radius * 0.4477 // 1 - 0.5523: a quarter circle as a cubic
	p.fillPath(r, c, func(z *vector.Rasterizer) {
		z.MoveTo(radius, 0)
		z.LineTo(w-radius, 0)
		z.CubeTo(w-k, 0, w, k, w, radius)
		z.LineTo(w, h-radius)
		z.CubeTo(w, h-k, w-k, h, w-radius, h)
		z.LineTo(radius, h)
		z.CubeTo(k, h, 0, h-k, 0, h-radius)
		z.LineTo(0, radius)
		z.CubeTo(0, k, k, 0, radius, 0)
		z.ClosePath()
	})
}

// badge is a disc at (cx, cy) with a tick or a cross, so that right and wrong do not hang on colour alone.
func (p *pen) badge(cx, cy float32, c color.Color, mark Mark) {
	const r = 10
	box := image.Rect(int(cx)-r, int(cy)-r, int(cx)+r, int(cy)+r)
	p.roundRect(box.Inset(-2), r+2, paper)
	p.roundRect(box, r, c)
	strokes := [][2][2]float32{{{6, 6}, {14, 14}}, {{14, 6}, {6, 14}}}
	if mark == Right {
		strokes = [][2][2]float32{{{5, 10.5}, {8.8, 14}}, {{8.2, 14}, {15, 6.5}}}
	}
	for _, s := range strokes {
		p.fillPath(box, paper, func(z *vector.Rasterizer) { stroke(z, s[0], s[1], 1.3) })
	}
}

// stroke adds a line from a to b of the half width hw; its ends are square and reach hw beyond.
func stroke(z *vector.Rasterizer, a, b [2]float32, hw float32) {
	dx, dy := b[0]-a[0], b[1]-a[1]
	n := hw / float32(math.Hypot(float64(dx), float64(dy)))
	dx, dy = dx*n, dy*n
	z.MoveTo(a[0]-dx-dy, a[1]-dy+dx)
	z.LineTo(b[0]+dx-dy, b[1]+dy+dx)
	z.LineTo(b[0]+dx+dy, b[1]+dy-dx)
	z.LineTo(a[0]-dx+dy, a[1]-dy-dx)
	z.ClosePath()
}

// wrap breaks s into at most n lines of width w, at spaces where it can; what is left over becomes an ellipsis. Line breaks
// and control characters count as spaces, bytes that are not UTF-8 as U+FFFD.
func wrap(f font.Face, s string, w, n int) []string {
	words := clean(s)
	limit := fixed.I(w)
	var out []string
	var cur string
	for len(words) > 0 && len(out) < n {
		word := words[0]
		try := word
		if cur != "" {
			try = cur + " " + word
		}
		switch {
		case font.MeasureString(f, try) <= limit:
			cur, words = try, words[1:]
		case cur != "":
			out, cur = append(out, cur), ""
		default: // a word wider than a line
			cut := fit(f, word, limit)
			out = append(out, word[:cut])
			if words[0] = word[cut:]; words[0] == "" {
				words = words[1:]
			}
		}
	}
	if cur != "" && len(out) < n {
		out, cur = append(out, cur), ""
	}
	if cur == "" && len(words) == 0 || len(out) == 0 {
		return out
	}
	last := out[len(out)-1]
	for last != "" && font.MeasureString(f, last+"…") > limit {
		_, size := utf8.DecodeLastRuneInString(last)
		last = last[:len(last)-size]
	}
	out[len(out)-1] = strings.TrimRight(last, " ,;:.") + "…"
	return out
}

// fit is the length in bytes of the longest head of s, at least one rune, that is no wider than limit.
func fit(f font.Face, s string, limit fixed.Int26_6) int {
	end := 0
	for i, r := range s {
		next := i + utf8.RuneLen(r)
		if i > 0 && font.MeasureString(f, s[:next]) > limit {
			break
		}
		end = next
	}
	return end
}

// clean returns the words of s, of its first maxRunes runes.
func clean(s string) []string {
	runes := []rune(strings.ToValidUTF8(s[:min(len(s), 4*maxRunes)], "\uFFFD"))
	for i, r := range runes {
		if unicode.IsControl(r) {
			runes[i] = ' '
		}
	}
	if len(runes) > maxRunes {
		runes = append(runes[:maxRunes], '…')
	}
	return strings.Fields(string(runes))
}
