package runlog

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// Panel is one of the pictures that [Curves] draws: a column of the metrics against the step, or, with Suffix, a curve for each
// evaluation metric whose name ends so.
type Panel struct {
	Title   string
	Column  string
	Suffix  string
	Log     bool // logarithmic axis, if all values are positive
	Percent bool // fractions are drawn as percent
}

// DefaultPanels are the curves of a pre-training run.
func DefaultPanels() []Panel {
	return []Panel{
		{Title: "loss, nats", Column: "loss"},
		{Title: "recall at 1, %", Suffix: ".recallAt1", Percent: true},
		{Title: "zero-shot top-1, %", Suffix: ".top1", Percent: true},
		{Title: "learning rate", Column: "lr"},
		{Title: "gradient norm", Column: "gradNorm", Log: true},
		{Title: "logit scale", Column: "scale"},
		{Title: "pairs per second", Column: "pairsPerSecond"},
	}
}

// curve is one line of a panel.
type curve struct {
	name   string
	points plotter.XYs
}

// The picture's measures in pixels, at 96 to the inch.
const (
	panelWidth, panelHeight = 620, 340
	dpi                     = 96
	perRow                  = 2
)

var (
	paleBlue = color.RGBA{R: 0xa8, G: 0xc4, B: 0xe0, A: 0xff}
	// Okabe and Ito's colours, which people with colour-blindness tell apart.
	lineColors = []color.Color{
		color.RGBA{R: 0x00, G: 0x55, B: 0x9a, A: 0xff}, color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff}, color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
		color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff}, color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
	}
)

// Curves draws the records in dir into its CurvesFile, a PNG with a panel for each of panels that has data, two to a row. A
// long column is drawn pale, with its mean over windows of a hundredth of the run on top. Without any data it is an error.
func Curves(dir string, panels []Panel) error {
	metrics, err := Read(dir, MetricsFile)
	if err != nil {
		return err
	}
	evals, err := Read(dir, EvalFile)
	if err != nil {
		return err
	}
	var plots []*plot.Plot
	for _, p := range panels {
		curves := p.curves(metrics, evals)
		if len(curves) == 0 {
			continue
		}
		pl, err := p.draw(curves)
		if err != nil {
			return fmt.Errorf("runlog: curve %q: %w", p.Title, err)
		}
		plots = append(plots, pl)
	}
	if len(plots) == 0 {
		return fmt.Errorf("runlog: %s has no records to draw", dir)
	}
	return SavePNG(filepath.Join(dir, CurvesFile), plots)
}

// curves takes a panel's points out of the records.
func (p *Panel) curves(metrics, evals []Record) []curve {
	records, names := metrics, []string{p.Column}
	if p.Suffix != "" {
		records, names = evals, nil
		for _, r := range evals {
			for name := range r {
				if strings.HasSuffix(name, p.Suffix) && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
		slices.Sort(names)
	}
	unit := 1.0
	if p.Percent {
		unit = 100
	}
	var out []curve
	for _, name := range names {
		c := curve{name: strings.TrimSuffix(name, p.Suffix)}
		for _, r := range records {
			if v, ok := r[name]; ok {
				c.points = append(c.points, plotter.XY{X: r["step"], Y: unit * v})
			}
		}
		if len(c.points) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// draw makes a panel's plot.
func (p *Panel) draw(curves []curve) (*plot.Plot, error) {
	pl := plot.New()
	pl.Title.Text = p.Title
	pl.X.Label.Text = "step"
	pl.X.Tick.Marker, pl.Y.Tick.Marker = plot.TickerFunc(niceTicks), plot.TickerFunc(niceTicks)
	pl.Add(plotter.NewGrid())
	positive := true
	for i, c := range curves {
		if p.Suffix != "" {
			if err := addCurve(pl, c, lineColors[i%len(lineColors)], true); err != nil {
				return nil, err
			}
		} else if err := addColumn(pl, c); err != nil {
			return nil, err
		}
		for _, xy := range c.points {
			positive = positive && xy.Y > 0
			pl.X.Max = max(pl.X.Max, xy.X)
		}
	}
	pl.X.Min = 0
	widen(&pl.X)
	if p.Percent {
		pl.Y.Min = 0
	}
	switch {
	case p.Log && positive:
		if pl.Y.Max < 2*pl.Y.Min {
			pl.Y.Min, pl.Y.Max = pl.Y.Min/1.5, pl.Y.Max*1.5
		}
		pl.Y.Scale, pl.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(logTicks)
	default:
		widen(&pl.Y)
	}
	if p.Suffix != "" {
		pl.Legend.Top, pl.Legend.Left, pl.Legend.Padding, pl.Legend.XOffs = true, true, vg.Points(2), vg.Points(6)
		pl.Legend.TextStyle.Font.Size = vg.Points(9)
		pl.Y.Max += 0.08 * float64(len(curves)) * (pl.Y.Max - pl.Y.Min) // room for the legend
	}
	return pl, nil
}

// widen gives an axis on which all values are equal some length.
func widen(a *plot.Axis) {
	if a.Max-a.Min <= 1e-9*math.Abs(a.Max) {
		d := max(math.Abs(a.Max)*0.05, 1e-9)
		a.Min, a.Max = a.Min-d, a.Max+d
	}
}

// addColumn adds a column's values, and their means if there are many.
func addColumn(pl *plot.Plot, c curve) error {
	const manyPoints, windows = 300, 100
	if len(c.points) <= manyPoints {
		return addCurve(pl, c, lineColors[0], len(c.points) == 1)
	}
	// In short pieces: the rasteriser's time grows with the square of how often one line crosses a row of pixels.
	const piece = 24
	points := thin(c.points, 4*windows)
	for at := 0; at+1 < len(points); at += piece {
		if err := addCurve(pl, curve{points: points[at:min(at+piece+1, len(points))]}, paleBlue, false); err != nil {
			return err
		}
	}
	return addCurve(pl, curve{points: means(c.points, windows)}, lineColors[0], false)
}

// addCurve adds one line, with dots where the points are few.
func addCurve(pl *plot.Plot, c curve, col color.Color, dots bool) error {
	line, err := plotter.NewLine(c.points)
	if err != nil {
		return err
	}
	line.Color, line.Width = col, vg.Points(1.3)
	pl.Add(line)
	if dots {
		s, err := plotter.NewScatter(c.points)
		if err != nil {
			return err
		}
		s.Color, s.Shape, s.Radius = col, draw.CircleGlyph{}, vg.Points(2)
		pl.Add(s)
	}
	if c.name != "" && dots && len(c.points) > 0 {
		pl.Legend.Add(c.name, line)
	}
	return nil
}

// windowsOf calls use for n windows of nearly equal length.
func windowsOf(points plotter.XYs, n int, use func(w plotter.XYs)) {
	n = min(n, len(points))
	for i := range n {
		use(points[i*len(points)/n : (i+1)*len(points)/n])
	}
}

// means returns n points: each window's middle and mean.
func means(points plotter.XYs, n int) plotter.XYs {
	var out plotter.XYs
	windowsOf(points, n, func(w plotter.XYs) {
		sum := 0.0
		for _, p := range w {
			sum += p.Y
		}
		out = append(out, plotter.XY{X: (w[0].X + w[len(w)-1].X) / 2, Y: sum / float64(len(w))})
	})
	return out
}

// thin returns at most 2·n points: each window's lowest and highest, so that no peak is lost.
func thin(points plotter.XYs, n int) plotter.XYs {
	if len(points) <= 2*n {
		return points
	}
	var out plotter.XYs
	windowsOf(points, n, func(w plotter.XYs) {
		lo, hi := 0, 0
		for i, p := range w {
			if p.Y < w[lo].Y {
				lo = i
			}
			if p.Y > w[hi].Y {
				hi = i
			}
		}
		out = append(out, w[min(lo, hi)])
		if lo != hi {
			out = append(out, w[max(lo, hi)])
		}
	})
	return out
}

// niceTicks puts four to ten labelled marks at multiples of 1, 2 or 5 times a power of ten. Adding 0 turns -0 into 0.
func niceTicks(lo, hi float64) []plot.Tick {
	unit := math.Pow(10, math.Floor(math.Log10((hi-lo)/4)))
	for _, m := range []float64{5, 2} {
		if (hi-lo)/(m*unit) >= 4 {
			unit *= m
			break
		}
	}
	var ticks []plot.Tick
	for i := math.Ceil(lo/unit-1e-9) + 0; i <= hi/unit+1e-9; i++ {
		ticks = append(ticks, plot.Tick{Value: i * unit, Label: fmt.Sprintf("%.6g", i*unit)})
	}
	return ticks
}

// logTicks labels 1, 2 and 5 of each power of ten.
func logTicks(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, e)
			if v < lo || v > hi {
				continue
			}
			t := plot.Tick{Value: v}
			if m == 1 || m == 2 || m == 5 {
				t.Label = fmt.Sprintf("%.3g", v)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// SavePNG draws the plots in rows into a file, written aside and renamed.
func SavePNG(path string, plots []*plot.Plot) (err error) {
	perRow := min(perRow, len(plots))
	rows := (len(plots) + perRow - 1) / perRow
	px := func(n int) vg.Length { return vg.Length(n) * vg.Inch / dpi }
	img := vgimg.NewWith(vgimg.UseWH(px(perRow*panelWidth), px(rows*panelHeight)), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(color.White))
	grid := make([][]*plot.Plot, rows)
	for i := range grid {
		grid[i] = make([]*plot.Plot, perRow)
		copy(grid[i], plots[i*perRow:])
	}
	tiles := draw.Tiles{Rows: rows, Cols: perRow, PadX: px(18), PadY: px(14), PadLeft: px(10), PadRight: px(18), PadTop: px(10), PadBottom: px(10)}
	canvases := plot.Align(grid, tiles, draw.New(img))
	for i, row := range grid {
		for j, p := range row {
			if p != nil {
				p.Draw(canvases[i][j])
			}
		}
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	_, err = vgimg.PngCanvas{Canvas: img}.WriteTo(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("runlog: %s: %w", path, err), os.Remove(path+".new"))
	}
	return nil
}
