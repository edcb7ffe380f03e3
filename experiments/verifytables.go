package experiments

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"diptych/checkpoints/bridge"
	"diptych/internal/kernel"
	"diptych/model"
)

// tables computes a fixture of position tables: in.CASE.pos resampled to the grids that its config.json gives, and fixed tables.
func (f *Fixture) tables(results map[string][]float32) error {
	text, err := os.ReadFile(filepath.Join(f.Dir, "config.json"))
	if err != nil {
		return fmt.Errorf("experiments: %s has no weights: %w", f.Dir, err)
	}
	var cfg struct {
		Cases []struct {
			Name string
			Old  int
			New  [2]int
		}
		Text []struct {
			Name     string
			Old, New int
		} `json:"text_cases"`
		SinCos [][2]int
	}
	if err := json.Unmarshal(text, &cfg); err != nil || len(cfg.Cases) == 0 {
		return fmt.Errorf("experiments: %s has neither weights nor cases of position tables: give the weights", f.Dir)
	}
	resize := func(name, suffix, method string, skip int, from, to [2]int) error {
		table, shape, err := f.io.Float32("in." + name + ".pos")
		if err != nil {
			return err
		}
		if len(shape) != 2 {
			return fmt.Errorf("experiments: %s: in.%s.pos has shape %v, want (positions, D)", f.Dir, name, shape)
		}
		results["out."+name+"."+suffix], err = bridge.ResizePositions(method, table, shape[1], skip, from, to)
		return err
	}
	for _, c := range cfg.Cases {
		for suffix, method := range map[string]string{
			"open_clip": bridge.MethodOpenCLIP, "timm": bridge.MethodOpenCLIP, "timm_npz": bridge.MethodTimmNPZ, "hf_clip": bridge.MethodHF, "google": bridge.MethodGoogle,
		} {
			if err := resize(c.Name, suffix, method, 1, [2]int{c.Old, c.Old}, c.New); err != nil {
				return err
			}
		}
	}
	for _, c := range cfg.Text {
		if err := resize(c.Name, "open_clip_text", bridge.MethodTimmNPZ, 0, [2]int{1, c.Old}, [2]int{1, c.New}); err != nil {
			return err
		}
	}
	for _, c := range cfg.SinCos {
		for suffix, positions := range map[string]string{"open_clip": "sincos2d", "timm": "sincos2d_timm"} {
			m := model.DefaultViT()
			v := &m.Vision
			v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, v.Positions, m.NumClasses = c[0], 1, 1, c[1], 1, positions, 1
			if suffix == "timm" {
				v.ClassToken, v.Pool = false, "avg"
			}
			vit, err := model.NewViT(m)
			if err != nil {
				return err
			}
			pool := kernel.NewPool(1)
			slab := make([]float32, vit.Layout.Size)
			vit.Layout.Init(pool, slab, 0)
			pool.Close()
			results[fmt.Sprintf("out.sincos.%dx%d.%s", c[0], c[1], suffix)] = vit.Layout.Find("pos_embed").Slice(slab)
		}
	}
	return nil
}
