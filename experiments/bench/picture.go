package bench

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"maps"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"diptych/internal/runlog"
	"diptych/ops"
)

// phaseColors tells the phases of an update apart.
var phaseColors = []struct {
	phase ops.Phase
	color color.Color
}{
	{ops.PhaseForward, color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff}}, {ops.PhaseBackward, color.RGBA{R: 0x00, G: 0x55, B: 0x9a, A: 0xff}},
	{ops.PhaseAgain, color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}}, {ops.PhaseUpdate, color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}},
}

// Picture draws where the time of updates goes into a PNG file: a panel for each model, a bar for each kind of operation.
func Picture(path string, steps []*StepResult) error {
	if len(steps) == 0 {
		return errors.New("bench: no updates to draw")
	}
	var plots []*plot.Plot
	for _, r := range steps {
		p, err := r.draw()
		if err != nil {
			return fmt.Errorf("bench: picture of %s: %w", r.Model, err)
		}
		plots = append(plots, p)
	}
	return runlog.SavePNG(path, plots)
}

func (r *StepResult) draw() (*plot.Plot, error) {
	const shown = 12 // kinds; the rest takes no time to speak of
	time := map[string]float64{}
	for _, o := range r.Ops {
		time[o.Kind] += o.Seconds
	}
	kinds := slices.SortedFunc(maps.Keys(time), func(a, b string) int { return cmp.Or(cmp.Compare(time[b], time[a]), cmp.Compare(a, b)) })
	kinds = kinds[:min(shown, len(kinds))]
	row := map[string]int{}
	for i, k := range kinds {
		row[k] = i
	}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s, %s, batch %d: %.0f ms, %.0f %% of peak", r.Model, r.Precision, r.Batch, 1e3*r.Seconds.Median, 100*r.Share)
	p.X.Label.Text = "ms of an update"
	var below *plotter.BarChart
	for _, ph := range phaseColors {
		values := make(plotter.Values, len(kinds))
		any := false
		for _, o := range r.Ops {
			if i, ok := row[o.Kind]; ok && o.Phase == ph.phase {
				values[len(kinds)-1-i] += 1e3 * o.Seconds // the longest on top
				any = true
			}
		}
		if !any {
			continue
		}
		bars, err := plotter.NewBarChart(values, vg.Points(11))
		if err != nil {
			return nil, err
		}
		bars.Horizontal, bars.Color, bars.LineStyle.Width = true, ph.color, 0
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add(string(ph.phase), bars)
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[len(kinds)-1-i] = k
	}
	p.NominalY(names...)
	p.X.Min = 0
	p.Legend.Padding, p.Legend.XOffs, p.Legend.YOffs = vg.Points(2), -vg.Points(6), vg.Points(6)
	return p, nil
}
