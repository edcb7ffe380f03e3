package sheet

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/image/font"
)

// plain is a picture of one colour.
func plain(w, h int, c color.Color) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(m, m.Bounds(), image.NewUniform(c), image.Point{}, draw.Src)
	return m
}

var blue = color.RGBA{0x20, 0x40, 0xc0, 0xff}

func TestWritePNG(t *testing.T) {
	cells := []Cell{
		{Picture: plain(64, 64, blue), Text: "a red fruit", Note: "1 · 0.31", Mark: Right},
		{Picture: plain(64, 20, blue), Text: strings.Repeat("a very long caption ", 30), Note: "2 · 0.29", Mark: Wrong},
		{Text: "only a text"},
	}
	for _, c := range []struct {
		name  string
		sheet Sheet
		w, h  int
	}{
		{"nothing", Sheet{}, 2*margin + defaultSide, 2 * margin},
		{"title only", Sheet{Title: "T"}, 2*margin + defaultSide, 2*margin + titleHeight + gap},
		{"grid of two columns", Sheet{Rows: Grid(cells, 2), Side: 100}, 2*margin + 2*100 + gap,
			2*margin + (100 + captionGap + 3*textHeight) + gap + 100},
		{"query and heads", Sheet{Rows: [][]Cell{cells}, Heads: []string{"query", "1", "2", "3 is not there", "4"}, Lead: true},
			2*margin + 3*defaultSide + 2*gap + leadGap,
			2*margin + textHeight + gap/2 + defaultSide + captionGap + 3*textHeight},
		{"no columns", Sheet{Rows: Grid(cells[2:], 0), Side: 50}, 2*margin + 50, 2*margin + 50},
		{"odd texts and an empty picture", Sheet{Rows: [][]Cell{{
			{Picture: image.NewRGBA(image.Rectangle{}), Text: "日本語の猫 \x00\xff\xfe قطة ребёнок 👩‍👩‍👧 ﷽"},
			{Text: strings.Repeat("界", 5000)}, {Text: " \t\n"}}}}, 2*margin + 3*defaultSide + 2*gap, 2*margin + defaultSide + captionGap + 2*textHeight},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, c.sheet.WritePNG(&b))
			m, err := png.Decode(&b)
			require.NoError(t, err)
			require.Equal(t, image.Pt(c.w, c.h), m.Bounds().Size())
		})
	}
}

// The frame's colour says what a cell is, the picture keeps its proportions.
func TestCell(t *testing.T) {
	for _, c := range []struct {
		name string
		mark Mark
		want color.RGBA
	}{{"plain", Plain, line}, {"right", Right, green}, {"wrong", Wrong, red}} {
		t.Run(c.name, func(t *testing.T) {
			s := Sheet{Rows: [][]Cell{{{Picture: plain(40, 20, blue), Mark: c.mark}}}, Side: 100}
			m, err := s.Draw()
			require.NoError(t, err)
			require.Equal(t, c.want, m.RGBAAt(margin, margin+50), "frame")
			require.Equal(t, blue, m.RGBAAt(margin+50, margin+50), "centre")
			require.Equal(t, paper, m.RGBAAt(margin+50, margin+15), "above the wide picture")
		})
	}
}

func TestRGB(t *testing.T) {
	m := RGB(2, 1, []uint8{1, 2, 3, 4, 5, 6})
	require.Equal(t, image.Rect(0, 0, 2, 1), m.Bounds())
	require.Equal(t, color.RGBA{4, 5, 6, 255}, m.At(1, 0))
}

func TestWrap(t *testing.T) {
	p, err := newPen()
	require.NoError(t, err)
	wide := func(s string) int { return font.MeasureString(p.text, s).Ceil() }
	for _, c := range []struct {
		name, text string
		w, lines   int
		want       []string
	}{
		{"empty", "", 100, 2, nil},
		{"fits", "one two", 100, 2, []string{"one two"}},
		{"two lines", "one two", wide("one tw"), 2, []string{"one", "two"}},
		{"ellipsis", "one two three four", wide("two…"), 2, []string{"one", "two…"}},
		{"line breaks are spaces", "one\r\n\ttwo", 100, 2, []string{"one two"}},
		{"no room for a rune", "abc", 1, 3, []string{"a", "b", "c"}},
		{"not UTF-8", "a\xffb", 100, 1, []string{"a\uFFFDb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, wrap(p.text, c.text, c.w, c.lines))
		})
	}
	t.Run("long words are cut and nothing is too wide", func(t *testing.T) {
		got := wrap(p.text, strings.Repeat("Donaudampfschiff", 20), 100, 3)
		require.Len(t, got, 3)
		for _, line := range got {
			require.LessOrEqual(t, wide(line), 100)
		}
		require.True(t, strings.HasSuffix(got[2], "…"))
	})
}

func FuzzWrap(f *testing.F) {
	p, err := newPen()
	require.NoError(f, err)
	f.Add("a red fruit, cut in half", 60, 2)
	f.Add("\xff\xfe日本", 1, 1)
	f.Fuzz(func(t *testing.T, s string, w, n int) {
		w, n = max(0, w%500), max(0, n%20)
		require.LessOrEqual(t, len(wrap(p.text, s, w, n)), n)
	})
}
