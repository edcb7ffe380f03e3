package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"diptych/data/transform"
)

// Preprocess is how a model's pictures are made: resized to Size, cut out of the middle, divided by 255 and normalised.
type Preprocess struct {
	Size      int    // pixels
	Mode      string // shortest, longest or squash, as the resize operation has them
	Filter    string // bicubic, bilinear, lanczos, …
	Mean, Std [3]float64
	Crop      float64 // the share of the resized side that is cut out, where less than all of it; else 0
	Down      bool    // the crop's offset is rounded down, as Hugging Face does
	// Divisor, where above 0, makes it ViLT's way: the shorter side gets Size pixels, nothing is cut out, and both sides are cut down to multiples of it.
	Divisor int
}

// DefaultPreprocess is what models of CLIP's form are given when nothing else is said.
func DefaultPreprocess(size int) *Preprocess { return clipPreprocess(size) }

// PreprocessOf reads the preparation off a recipe's operations, nil if they are of another form than public libraries know. size and patch are the
// model's, in pixels.
func PreprocessOf(specs []transform.Spec, size, patch int, mean, std [3]float32) *Preprocess {
	p := &Preprocess{Size: size, Filter: "bicubic"}
	for _, s := range specs {
		switch s["op"] {
		case "decode", "normalize":
		case "resize":
			p.Mode = "shortest"
			if m, ok := s["mode"].(string); ok {
				p.Mode = m
			}
			if f, ok := s["filter"].(string); ok {
				p.Filter = f
			}
			if n, err := strconv.ParseFloat(fmt.Sprint(s["size"]), 64); err == nil && n > float64(size) {
				p.Crop = float64(size) / n
			}
		case "min_max_resize":
			p.Mode, p.Divisor = "shortest", patch
			if f, ok := s["filter"].(string); ok {
				p.Filter = f
			}
			if n, err := strconv.Atoi(fmt.Sprint(s["multiple"])); err == nil {
				p.Divisor = n
			}
			if s["size"] != nil && fmt.Sprint(s["size"]) != strconv.Itoa(size) || s["longest"] != nil {
				return nil // the libraries have ViLT's own proportion alone
			}
		case "center_crop":
			p.Down = s["rounding"] == "down"
		default:
			return nil
		}
	}
	if p.Mode == "" {
		return nil
	}
	for i := range 3 { // as decimals: float32's nearest, not its digits in float64
		p.Mean[i], _ = strconv.ParseFloat(strconv.FormatFloat(float64(mean[i]), 'g', -1, 32), 64)
		p.Std[i], _ = strconv.ParseFloat(strconv.FormatFloat(float64(std[i]), 'g', -1, 32), 64)
	}
	return p
}

// viltPreprocess is ViLT's (spec/vilt 4): bicubic, levels in [-1, 1].
func viltPreprocess(size, patch int) *Preprocess {
	return &Preprocess{Size: size, Mode: "shortest", Filter: "bicubic", Mean: half, Std: half, Divisor: patch}
}

// clipPreprocess is OpenAI's (spec 2.13).
func clipPreprocess(size int) *Preprocess {
	return &Preprocess{Size: size, Mode: "shortest", Filter: "bicubic",
		Mean: [3]float64{0.48145466, 0.4578275, 0.40821073}, Std: [3]float64{0.26862954, 0.26130258, 0.27577711}}
}

// Specs are the operations of a recipe's evalTransforms.
func (p *Preprocess) Specs() []transform.Spec {
	list := func(v [3]float64) []any { return []any{v[0], v[1], v[2]} }
	normalize := transform.Spec{"op": "normalize", "mean": list(p.Mean), "std": list(p.Std)}
	if p.Divisor > 0 {
		return []transform.Spec{{"op": "min_max_resize", "multiple": p.Divisor, "filter": p.Filter}, normalize}
	}
	resize := transform.Spec{"op": "resize", "mode": p.Mode, "filter": p.Filter}
	if p.Crop > 0 && p.Crop < 1 {
		resize["size"] = int(float64(p.Size) / p.Crop)
	}
	out := []transform.Spec{resize}
	if p.Mode != "squash" {
		crop := transform.Spec{"op": "center_crop"}
		if p.Down {
			crop["rounding"] = "down"
		}
		out = append(out, crop)
	}
	return append(out, normalize)
}

// openCLIPPrepare is open_clip's preprocess_cfg.
type openCLIPPrepare struct {
	Size          json.RawMessage `json:"size,omitempty"`
	Mode          string          `json:"mode,omitempty"`
	Mean          []float64       `json:"mean,omitempty"`
	Std           []float64       `json:"std,omitempty"`
	Interpolation string          `json:"interpolation,omitempty"`
	ResizeMode    string          `json:"resize_mode,omitempty"`
	FillColor     int             `json:"fill_color"`
}

// read fills what is not said with open_clip's defaults, which are OpenAI's.
func (o *openCLIPPrepare) read(size int) *Preprocess {
	p := clipPreprocess(size)
	if o == nil {
		return p
	}
	if len(o.Mean) == 3 && len(o.Std) == 3 {
		p.Mean, p.Std = [3]float64(o.Mean), [3]float64(o.Std)
	}
	if o.Interpolation != "" && o.Interpolation != "random" {
		p.Filter = o.Interpolation
	}
	if o.ResizeMode != "" {
		p.Mode = o.ResizeMode
	}
	return p
}

// openCLIP is the way back.
func (p *Preprocess) openCLIP() *openCLIPPrepare {
	if p == nil {
		return nil
	}
	return &openCLIPPrepare{Size: json.RawMessage(fmt.Sprint(p.Size)), Mode: "RGB", Mean: p.Mean[:], Std: p.Std[:], Interpolation: p.Filter, ResizeMode: p.Mode}
}

// hfPreprocess is a preprocessor_config.json (spec 3.3).
type hfPreprocess struct {
	Type      string          `json:"image_processor_type,omitempty"`
	DoResize  *bool           `json:"do_resize,omitempty"`
	Size      json.RawMessage `json:"size,omitempty"` // {shortest_edge}, {height, width} or a number
	Resample  *int            `json:"resample,omitempty"`
	Divisor   int             `json:"size_divisor,omitempty"` // of ViLT's
	DoCrop    *bool           `json:"do_center_crop,omitempty"`
	CropSize  json.RawMessage `json:"crop_size,omitempty"`
	DoPad     *bool           `json:"do_pad,omitempty"`
	DoRescale *bool           `json:"do_rescale,omitempty"`
	Factor    float64         `json:"rescale_factor,omitempty"`
	DoNorm    *bool           `json:"do_normalize,omitempty"`
	Mean      []float64       `json:"image_mean,omitempty"`
	Std       []float64       `json:"image_std,omitempty"`
	DoRGB     *bool           `json:"do_convert_rgb,omitempty"`
}

// filters are Pillow's numbers of resampling filters.
var filters = []string{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"}

// readHFPreprocess reads the preprocessor_config.json in dir, nil if there is none.
func readHFPreprocess(dir string, size int) (*Preprocess, error) {
	path := filepath.Join(dir, "preprocessor_config.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var j hfPreprocess
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p := clipPreprocess(size)
	p.Down = true
	var edges struct {
		Shortest *int `json:"shortest_edge"`
		Height   *int `json:"height"`
	}
	if len(j.Size) > 0 && j.Size[0] == '{' {
		if err := json.Unmarshal(j.Size, &edges); err != nil {
			return nil, fmt.Errorf("%s: size: %w", path, err)
		}
	}
	if edges.Height != nil || j.DoCrop != nil && !*j.DoCrop {
		p.Mode = "squash"
	}
	if j.Divisor > 0 {
		p.Mode, p.Down, p.Divisor = "shortest", false, j.Divisor
	}
	if j.Resample != nil {
		if *j.Resample < 0 || *j.Resample >= len(filters) {
			return nil, fmt.Errorf("%s: resample %d is no filter of Pillow", path, *j.Resample)
		}
		p.Filter = filters[*j.Resample]
	}
	if len(j.Mean) == 3 && len(j.Std) == 3 {
		p.Mean, p.Std = [3]float64(j.Mean), [3]float64(j.Std)
	}
	return p, nil
}

// hf writes a preprocessor_config.json.
func (p *Preprocess) hf(processor string) []byte {
	yes, crop, resample := true, p.Mode != "squash", 3
	for i, f := range filters {
		if f == p.Filter {
			resample = i
		}
	}
	edge := fmt.Sprintf(`{"shortest_edge": %d}`, p.Size)
	if !crop {
		edge = fmt.Sprintf(`{"height": %d, "width": %[1]d}`, p.Size)
	}
	j := hfPreprocess{
		Type: processor, DoResize: &yes, Size: json.RawMessage(edge), Resample: &resample, DoRescale: &yes, Factor: 1.0 / 255, DoNorm: &yes,
		Mean: p.Mean[:], Std: p.Std[:], DoRGB: &yes,
	}
	if p.Divisor > 0 {
		j.Divisor, j.DoPad = p.Divisor, &yes
	} else {
		j.DoCrop, j.CropSize = &crop, json.RawMessage(fmt.Sprintf(`{"height": %d, "width": %[1]d}`, p.Size))
	}
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		panic(err) // plain values always encode
	}
	return append(b, '\n')
}
