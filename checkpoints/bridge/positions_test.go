package bridge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
)

// Every method equals its reference on grids that grow, shrink, change their shape and stay.
func TestResizePositions(t *testing.T) {
	f := golden.Load(t, "testdata/posembed")
	var cfg struct {
		Width int
		Cases []struct {
			Name string
			Old  int
			New  [2]int
		}
		Text []struct {
			Name     string
			Old, New int
		} `json:"text_cases"`
	}
	f.JSON("config.json", &cfg)
	checked := 0
	check := func(out, method string, table []float32, skip int, from, to [2]int, width int) {
		got, err := ResizePositions(method, table, width, skip, from, to)
		require.NoError(t, err)
		f.Check(t, out, got)
		checked++
	}
	for _, c := range cfg.Cases {
		for suffix, method := range map[string]string{"open_clip": MethodOpenCLIP, "timm": MethodOpenCLIP, "timm_npz": MethodTimmNPZ, "hf_clip": MethodHF, "google": MethodGoogle} {
			if out := fmt.Sprintf("out.%s.%s", c.Name, suffix); f.Has(out) {
				check(out, method, f.Float32("in."+c.Name+".pos"), 1, [2]int{c.Old, c.Old}, c.New, cfg.Width)
			}
		}
	}
	for _, c := range cfg.Text {
		check("out."+c.Name+".open_clip_text", MethodTimmNPZ, f.Float32("in."+c.Name+".pos"), 0, [2]int{1, c.Old}, [2]int{1, c.New}, f.Shape("in." + c.Name + ".pos")[1])
	}
	want := 0
	for _, name := range f.Names() {
		if strings.HasPrefix(name, "out.") && !strings.HasPrefix(name, "out.sincos") {
			want++
		}
	}
	require.Equal(t, want, checked, "every method and grid of the fixture")
	_, err := ResizePositions("lanczos", make([]float32, 5), 1, 1, [2]int{2, 2}, [2]int{3, 3})
	require.ErrorContains(t, err, "known: google, hf, open_clip, timm_npz")
	_, err = ResizePositions(MethodHF, make([]float32, 6), 1, 1, [2]int{2, 2}, [2]int{3, 3})
	require.ErrorContains(t, err, "are not 1 rows and a grid of 2 × 2")
}
