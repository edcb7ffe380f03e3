// Package sheet draws contact sheets: rows of pictures and texts, such as a query and the five answers a model ranks first,
// with right answers framed in green and wrong ones in red. Its type is the Go font, which has the Latin, Greek and Cyrillic
// letters; what it lacks is drawn as boxes. Text is neither shaped nor reordered.
package sheet

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"

	"golang.org/x/image/draw"
)

// Mark says how a cell is framed.
type Mark uint8

const (
	Plain Mark = iota // a thin grey frame
	Right             // green, with a tick
	Wrong             // red, with a cross
)

// Cell is one picture or text. With a picture, Text is its caption; without one, Text fills the cell's place. What is too
// long ends in an ellipsis.
type Cell struct {
	Picture image.Image
	Text    string
	Note    string // a short grey line below, such as the score
	Mark    Mark
}

// Sheet is what is to be drawn.
type Sheet struct {
	Title, Subtitle string
	// Heads stand above the columns; nil leaves them out.
	Heads []string
	// Rows may differ in length.
	Rows [][]Cell
	// Lead sets the first cell of each row apart: it is the query of the cells that follow.
	Lead bool
	// Side of a picture's square in pixels; 0 means 128.
	Side int
}

// Grid deals cells into rows of that many columns.
func Grid(cells []Cell, columns int) [][]Cell {
	columns = max(1, columns)
	rows := make([][]Cell, 0, (len(cells)+columns-1)/columns)
	for len(cells) > 0 {
		n := min(columns, len(cells))
		rows = append(rows, cells[:n])
		cells = cells[n:]
	}
	return rows
}

// RGB makes a picture of 8-bit RGB values, row after row: pixel (x, y) is pix[3·(y·w+x):][:3].
func RGB(w, h int, pix []uint8) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		copy(m.Pix[4*i:4*i+3], pix[3*i:3*i+3])
		m.Pix[4*i+3] = 0xff
	}
	return m
}

// The measures, in pixels.
const (
	defaultSide = 128
	margin      = 24
	gap         = 16 // between cells, and between rows
	leadGap     = 28 // more between a query and its answers
	queryGap    = 28 // between the rows of queries
	frame       = 4  // around a picture, when marked
	captionRows = 2
)

var (
	paper     = color.RGBA{0xff, 0xff, 0xff, 0xff}
	ink       = color.RGBA{0x1f, 0x23, 0x28, 0xff}
	faint     = color.RGBA{0x6b, 0x73, 0x7c, 0xff}
	line      = color.RGBA{0xd5, 0xd9, 0xde, 0xff}
	card      = color.RGBA{0xf4, 0xf6, 0xf8, 0xff}
	green     = color.RGBA{0x2d, 0x9d, 0x4e, 0xff}
	red       = color.RGBA{0xd0, 0x3c, 0x37, 0xff}
	greenCard = color.RGBA{0xe8, 0xf6, 0xec, 0xff}
	redCard   = color.RGBA{0xfc, 0xec, 0xeb, 0xff}
)

// WritePNG draws the sheet and encodes it.
func (s *Sheet) WritePNG(w io.Writer) error {
	m, err := s.Draw()
	if err != nil {
		return err
	}
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(w, m); err != nil {
		return fmt.Errorf("sheet: %w", err)
	}
	return nil
}

// Draw draws the sheet.
func (s *Sheet) Draw() (*image.RGBA, error) {
	p, err := newPen()
	if err != nil {
		return nil, err
	}
	defer p.close()
	l := s.layout(p)
	p.dst = image.NewRGBA(image.Rect(0, 0, l.w, l.h))
	draw.Draw(p.dst, p.dst.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)

	y := margin
	if s.Title != "" {
		p.lines(p.title, ink, margin, y, l.w-2*margin, 1, false, s.Title)
		y += p.title.height
	}
	if s.Subtitle != "" {
		p.lines(p.text, faint, margin, y, l.w-2*margin, 1, false, s.Subtitle)
		y += p.text.height
	}
	y = l.top
	if s.Heads != nil {
		for c, head := range s.Heads {
			if c < l.columns {
				p.lines(p.bold, faint, l.x(c), y, l.cell, 1, true, head)
			}
		}
		y += p.bold.height + gap/2
	}
	for r, row := range s.Rows {
		if s.Lead && r > 0 { // a hairline between the queries
			draw.Draw(p.dst, image.Rect(margin, y-l.gap/2, l.w-margin, y-l.gap/2+1), image.NewUniform(line), image.Point{}, draw.Src)
		}
		for c := range row {
			p.cell(&row[c], l.x(c), y, l.cell, s.Lead && c == 0)
		}
		y += l.heights[r] + l.gap
	}
	return p.dst, nil
}

// layout is where things go.
type layout struct {
	w, h, top, cell, columns int
	lead, gap                int   // extra after the first column; between rows
	heights                  []int // of the rows
}

func (l *layout) x(column int) int {
	x := margin + column*(l.cell+gap)
	if column > 0 {
		x += l.lead
	}
	return x
}

func (s *Sheet) layout(p *pen) layout {
	l := layout{cell: s.Side, columns: 1, top: margin, gap: gap}
	if l.cell <= 0 {
		l.cell = defaultSide
	}
	if s.Lead {
		l.lead, l.gap = leadGap, queryGap
	}
	if s.Title != "" {
		l.top += titleHeight
	}
	if s.Subtitle != "" {
		l.top += textHeight
	}
	if l.top > margin {
		l.top += gap
	}
	l.h = l.top
	if s.Heads != nil {
		l.h += textHeight + gap/2
	}
	for _, row := range s.Rows {
		l.columns = max(l.columns, len(row))
		below := 0 // the highest caption and note of the row
		for i := range row {
			below = max(below, p.below(&row[i], l.cell))
		}
		l.heights = append(l.heights, l.cell+below)
		l.h += l.cell + below + l.gap
	}
	if len(s.Rows) > 0 {
		l.h -= l.gap
	}
	l.w = l.x(l.columns-1) + l.cell + margin
	l.h += margin
	return l
}
