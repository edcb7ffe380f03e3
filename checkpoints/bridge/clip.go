package bridge

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"diptych/model"
)

const openAIName = "openai"

// openAI are the names of OpenAI's releases of CLIP, which are ours. Their TorchScript archives have three scalars and the mask too.
var openAI = &family{
	name: openAIName, about: "OpenAI's CLIP", keys: []string{"visual.conv1.weight", "token_embedding.weight", "input_resolution"},
	rows: clipRows(""), ignore: clipIgnore, config: openCLIPConfig, weights: "model.pt", positions: MethodOpenCLIP,
	files: func(d *Description) (map[string][]byte, error) {
		return openCLIPMerges(d, `clip.simple_tokenizer.SimpleTokenizer("DIR/`+mergesFile+`")`)
	},
}

// openCLIP are the same names in open_clip's files.
var openCLIP = &family{
	name: "open_clip", about: "open_clip's CLIP", keys: []string{"visual.conv1.weight", "token_embedding.weight"},
	rows: clipRows(""), ignore: clipIgnore, config: openCLIPConfig, weights: "open_clip_model.safetensors", positions: MethodOpenCLIP,
	files: func(d *Description) (map[string][]byte, error) { return openCLIPFiles(d, false) },
}

// openCLIPCustom are the names of open_clip's CustomTextCLIP, whose text tower is a part of its own.
var openCLIPCustom = &family{
	name: "open_clip-custom", about: "open_clip's CustomTextCLIP", keys: []string{"visual.conv1.weight", "text.token_embedding.weight"},
	rows: clipRows("text."), ignore: clipIgnore, config: openCLIPConfig, weights: "open_clip_model.safetensors", positions: MethodOpenCLIP,
	files: func(d *Description) (map[string][]byte, error) { return openCLIPFiles(d, true) },
}

var clipIgnore = []string{"attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size"}

// clipRows is spec 3.1, first column: our names, with those of the text tower behind text.
func clipRows(text string) []row {
	rows := []row{is("logit_scale", "logit_scale"), is("logit_bias", "logit_bias")}
	for _, name := range []string{"visual.conv1.weight", "visual.conv1.bias", "visual.class_embedding", "visual.positional_embedding", "visual.proj"} {
		rows = append(rows, is(name, name))
	}
	for _, name := range []string{"token_embedding.weight", "positional_embedding", "text_projection"} {
		rows = append(rows, is(name, text+name))
	}
	rows = append(rows, both("visual.ln_pre", "visual.ln_pre")...)
	rows = append(rows, both("visual.ln_post", "visual.ln_post")...)
	rows = append(rows, both("ln_final", text+"ln_final")...)
	for _, tower := range [][2]string{{"visual.transformer", "visual.transformer"}, {"transformer", text + "transformer"}} {
		for _, part := range []string{
			"ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias", "ls_1.gamma",
			"ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias", "ls_2.gamma",
		} {
			rows = append(rows, is(tower[0]+".resblocks.*."+part, tower[1]+".resblocks.*."+part))
		}
	}
	return rows
}

// ratio returns the least quotient of two widths whose product with the second, cut to a whole number, is the first again.
func ratio(hidden, width int) float64 {
	r := float64(hidden) / float64(width)
	for int(r*float64(width)) < hidden {
		r = math.Nextafter(r, math.Inf(1))
	}
	return r
}

// firstLayerScale stands where weights have LayerScale: a first value, which theirs replace.
const firstLayerScale = 1e-5

// clipShapes reads the sizes of a dual encoder off its shapes. What they do not say keeps CLIP's values: heads of 64 channels.
func clipShapes(f *family, v *view) (*Description, error) {
	d := &Description{Model: model.Default(), LogitBias: v.has(f.rows, "logit_bias")}
	c, r := &d.Model, f.rows
	vis, txt := &c.Vision, &c.Text
	vis.Width, vis.PatchSize = v.axis(r, "visual.conv1.weight", 0), v.axis(r, "visual.conv1.weight", 2)
	vis.PatchBias = v.has(r, "visual.conv1.bias")
	vis.ClassToken = v.has(r, "visual.class_embedding")
	vis.PreNorm = v.has(r, "visual.ln_pre.weight")
	classes := 0
	if vis.ClassToken {
		classes = 1
	}
	grid, err := v.grid(v.axis(r, "visual.positional_embedding", 0), classes, vis.PatchSize)
	if err != nil {
		return nil, err
	}
	setGrid(vis, grid)
	vis.Depth = v.blocks(r, "visual.transformer.resblocks.%d.ln_1.weight")
	c.EmbedDim = v.axis(r, "visual.proj", 1)
	txt.VocabSize, txt.Width = v.axis(r, "token_embedding.weight", 0), v.axis(r, "token_embedding.weight", 1)
	txt.ContextLength = v.axis(r, "positional_embedding", 0)
	txt.Depth = v.blocks(r, "transformer.resblocks.%d.ln_1.weight")
	for _, t := range []struct {
		*model.Transformer
		first string // block
	}{{&vis.Transformer, "visual.transformer.resblocks.0."}, {&txt.Transformer, "transformer.resblocks.0."}} {
		t.NumHeads = max(t.Width/64, 1)
		if t.Width > 0 {
			t.MLPRatio = ratio(v.axis(r, t.first+"mlp.c_fc.weight", 0), t.Width)
		}
		if v.has(r, t.first+"ls_1.gamma") {
			t.LayerScale = firstLayerScale
		}
	}
	return d, nil
}

// openCLIPModel is the part of open_clip's model configuration (spec 2.4) that this program has towers for.
type openCLIPModel struct {
	EmbedDim  int              `json:"embed_dim"`
	QuickGELU bool             `json:"quick_gelu"`
	Custom    bool             `json:"custom_text,omitempty"`
	InitScale *float64         `json:"init_logit_scale,omitempty"`
	InitBias  *float64         `json:"init_logit_bias,omitempty"`
	Vision    *openCLIPVision  `json:"vision_cfg"`
	Text      *openCLIPText    `json:"text_cfg"`
	Inner     *openCLIPModel   `json:"model_cfg,omitempty"` // the form of open_clip_config.json
	Prepare   *openCLIPPrepare `json:"preprocess_cfg,omitempty"`
}

type openCLIPVision struct {
	ImageSize  json.RawMessage `json:"image_size"` // a number, or height and width
	Layers     json.RawMessage `json:"layers"`     // a number; a list means ResNet
	Width      int             `json:"width"`
	HeadWidth  int             `json:"head_width,omitempty"`
	MLPRatio   float64         `json:"mlp_ratio,omitempty"`
	PatchSize  int             `json:"patch_size"`
	LayerScale *float64        `json:"ls_init_value,omitempty"`
	NoPreNorm  bool            `json:"no_ln_pre,omitempty"`
	Positions  string          `json:"pos_embed_type,omitempty"`
	Pool       string          `json:"pool_type,omitempty"`
	NormAfter  bool            `json:"final_ln_after_pool,omitempty"`
	Trunk      string          `json:"timm_model_name,omitempty"` // of another image tower
	Act        *actKwargs      `json:"act_kwargs,omitempty"`
	Norm       *normKwargs     `json:"norm_kwargs,omitempty"`
}

type openCLIPText struct {
	ContextLength int         `json:"context_length"`
	VocabSize     int         `json:"vocab_size"`
	Width         int         `json:"width"`
	Heads         int         `json:"heads"`
	Layers        int         `json:"layers"`
	MLPRatio      float64     `json:"mlp_ratio,omitempty"`
	NoCausal      bool        `json:"no_causal_mask,omitempty"`
	Pool          string      `json:"pool_type,omitempty"`
	HFModel       string      `json:"hf_model_name,omitempty"` // of another text tower
	Act           *actKwargs  `json:"act_kwargs,omitempty"`
	Norm          *normKwargs `json:"norm_kwargs,omitempty"`
	LayerScale    *float64    `json:"ls_init_value,omitempty"`
}

type actKwargs struct {
	Approximate string `json:"approximate,omitempty"`
}

type normKwargs struct {
	Eps float64 `json:"eps,omitempty"`
}

// foreignParts are the parts of CLIPs in open_clip's and OpenAI's files that this program does not build, by what the names of their tensors
// begin with.
var foreignParts = []struct {
	what     string
	prefixes []string
	model    func(c *openCLIPModel) string // its name in the configuration, where it has one
}{
	{"an image tower of timm", []string{"visual.trunk."}, func(c *openCLIPModel) string { return c.Vision.Trunk }},
	{"a ResNet image tower", []string{"visual.layer1."}, nil},
	{"attentional pooling of the image tower", []string{"visual.attn_pool"}, nil},
	{"a text tower of transformers", []string{"text.transformer.embeddings.", "text.transformer.encoder."}, func(c *openCLIPModel) string { return c.Text.HFModel }},
	{"CoCa's text decoder", []string{"text_decoder."}, nil},
}

// checkParts refuses a CLIP, which is known by the scale of its logits, with such parts.
func checkParts(s *Source) error {
	names := s.Names()
	at := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, "logit_scale") })
	if at < 0 {
		return nil
	}
	var cfg openCLIPModel
	if s.Config != nil && json.Unmarshal(s.Config, &cfg) == nil && cfg.Inner != nil {
		cfg = *cfg.Inner
	}
	before := strings.TrimSuffix(names[at], "logit_scale")
	var has []string
	for _, part := range foreignParts {
		i := slices.IndexFunc(part.prefixes, func(p string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, before+p) })
		})
		if i < 0 {
			continue
		}
		text := fmt.Sprintf("%s (%s*)", part.what, part.prefixes[i])
		if part.model != nil && cfg.Vision != nil && cfg.Text != nil && part.model(&cfg) != "" {
			text = fmt.Sprintf("%s (%s, %s*)", part.what, part.model(&cfg), part.prefixes[i])
		}
		has = append(has, text)
	}
	if has == nil {
		return nil
	}
	return fmt.Errorf("%w: this CLIP has %s; what is read has a ViT and a transformer of CLIP's own", ErrUnsupported, strings.Join(has, " and "))
}

// openCLIPConfig reads a model off shapes and, where there is one, open_clip's configuration.
func openCLIPConfig(f *family, v *view) (*Description, error) {
	d, err := clipShapes(f, v)
	if err != nil {
		return nil, err
	}
	c := &d.Model
	var cfg openCLIPModel
	if err := v.json(&cfg); err != nil {
		return nil, err
	}
	prepare := cfg.Prepare
	if cfg.Inner != nil {
		cfg = *cfg.Inner
	}
	if cfg.Vision == nil || cfg.Text == nil { // none, or another library's
		if f.name == openAIName {
			c.Vision.Activation, c.Text.Activation = "quick_gelu", "quick_gelu"
			d.Preprocess = clipPreprocess(c.Vision.ImageSize)
		} else {
			d.Notes = append(d.Notes, "no open_clip_config.json says which activation the weights were trained with: gelu is taken; "+
				"for OpenAI's, and models named quickgelu, give --set model.vision.activation=quick_gelu --set model.text.activation=quick_gelu")
		}
		if c.Vision.Width%64 != 0 || c.Text.Width%64 != 0 {
			d.Notes = append(d.Notes, "nothing says how many heads there are: width/64 is taken; give --set model.vision.numHeads=… if there are others")
		}
		return d, nil
	}
	vc, tc := cfg.Vision, cfg.Text
	act := "gelu"
	if cfg.QuickGELU {
		act = "quick_gelu"
	}
	c.Vision.Activation, c.Text.Activation = act, act
	if vc.Act != nil && vc.Act.Approximate == "tanh" {
		c.Vision.Activation = "gelu_tanh"
	}
	if tc.Act != nil && tc.Act.Approximate == "tanh" {
		c.Text.Activation = "gelu_tanh"
	}
	headWidth := 64
	if vc.HeadWidth > 0 {
		headWidth = vc.HeadWidth
	}
	c.Vision.NumHeads = c.Vision.Width / headWidth
	c.Text.NumHeads = 8
	if tc.Heads > 0 {
		c.Text.NumHeads = tc.Heads
	}
	if vc.Norm != nil && vc.Norm.Eps > 0 {
		c.Vision.LayerNormEps = vc.Norm.Eps
	}
	if tc.Norm != nil && tc.Norm.Eps > 0 {
		c.Text.LayerNormEps = tc.Norm.Eps
	}
	if vc.Positions == "sin_cos_2d" {
		c.Vision.Positions = "sincos2d"
	}
	switch vc.Pool {
	case "", "tok":
	case "avg":
		c.Vision.Pool = "avg"
	default:
		return nil, fmt.Errorf("vision_cfg.pool_type %s is not supported", vc.Pool)
	}
	c.Vision.NormAfterPool = vc.NormAfter
	switch tc.Pool {
	case "", "argmax", "eos":
	default:
		return nil, fmt.Errorf("text_cfg.pool_type %s is not supported", tc.Pool)
	}
	c.Text.Causal = !tc.NoCausal
	if cfg.InitBias != nil {
		c.InitLogitBias = *cfg.InitBias
	}
	d.Preprocess = prepare.read(c.Vision.ImageSize)
	return d, nil
}

// openCLIPFiles writes open_clip_config.json, with the preprocessing.
func openCLIPFiles(d *Description, custom bool) (map[string][]byte, error) {
	c := &d.Model
	if c.Text.Pool != "eos" || c.Vision.PatchBias || c.Vision.Positions == "none" {
		return nil, fmt.Errorf("text pool %s, patch bias %v, positions %s: open_clip has no such tower", c.Text.Pool, c.Vision.PatchBias, c.Vision.Positions)
	}
	quick := c.Vision.Activation == "quick_gelu"
	if quick != (c.Text.Activation == "quick_gelu") {
		return nil, fmt.Errorf("activations %s and %s: open_clip has QuickGELU in both towers or in none", c.Vision.Activation, c.Text.Activation)
	}
	act := func(name string) *actKwargs {
		if name == "gelu_tanh" {
			return &actKwargs{"tanh"}
		}
		return nil
	}
	eps := func(e float64) *normKwargs {
		if e != 1e-5 {
			return &normKwargs{e}
		}
		return nil
	}
	scale := func(first float64) *float64 {
		if first > 0 {
			return &first
		}
		return nil
	}
	number := func(n int) json.RawMessage { return json.RawMessage(fmt.Sprint(n)) }
	v := &openCLIPVision{
		ImageSize: number(c.Vision.ImageSize), Layers: number(c.Vision.Depth), Width: c.Vision.Width, HeadWidth: c.Vision.Width / c.Vision.NumHeads,
		MLPRatio: c.Vision.MLPRatio, PatchSize: c.Vision.PatchSize, NoPreNorm: !c.Vision.PreNorm, Act: act(c.Vision.Activation), Norm: eps(c.Vision.LayerNormEps),
		LayerScale: scale(c.Vision.LayerScale),
	}
	if c.Vision.Positions == "sincos2d" {
		v.Positions = "sin_cos_2d"
	}
	if c.Vision.Pool == "avg" {
		v.Pool = "avg"
	}
	v.NormAfter = c.Vision.NormAfterPool
	t := &openCLIPText{
		ContextLength: c.Text.ContextLength, VocabSize: c.Text.VocabSize, Width: c.Text.Width, Heads: c.Text.NumHeads, Layers: c.Text.Depth,
		MLPRatio: c.Text.MLPRatio, NoCausal: !c.Text.Causal, Act: act(c.Text.Activation), Norm: eps(c.Text.LayerNormEps),
		LayerScale: scale(c.Text.LayerScale),
	}
	inner := &openCLIPModel{EmbedDim: c.EmbedDim, QuickGELU: quick, Custom: custom, Vision: v, Text: t}
	if d.LogitBias {
		inner.InitBias = &c.InitLogitBias
	}
	text, err := json.MarshalIndent(struct {
		Model   *openCLIPModel   `json:"model_cfg"`
		Prepare *openCLIPPrepare `json:"preprocess_cfg,omitempty"`
	}{inner, d.Preprocess.openCLIP()}, "", "  ")
	if err != nil {
		return nil, err
	}
	files, err := openCLIPMerges(d, `open_clip.get_tokenizer("local-dir:DIR", bpe_path="DIR/`+mergesFile+`")`)
	if err != nil {
		return nil, err
	}
	files["open_clip_config.json"] = append(text, '\n')
	return files, nil
}
