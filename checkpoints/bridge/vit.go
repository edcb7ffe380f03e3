package bridge

import (
	"encoding/json"
	"fmt"
	"strings"

	"diptych/model"
)

// timm are the names of timm's VisionTransformer (spec 3.2), which are ours; with num_classes=0 it has no head.
var timm = &family{
	name: "timm", about: "timm's VisionTransformer", keys: []string{"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"},
	rows: timmRows(), config: timmConfig, files: timmFiles, weights: "model.safetensors", positions: MethodOpenCLIP,
}

// blockParts are the parts of a block with weight and bias, in our names.
var blockParts = []string{"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}

func timmRows() []row {
	rows := []row{is("cls_token", "cls_token", leading2), is("pos_embed", "pos_embed", leading1), is("attn_pool.latent", "attn_pool.latent", leading2)}
	for _, name := range []string{"patch_embed.proj", "norm_pre", "norm", "fc_norm", "pre_logits.fc", "head"} {
		rows = append(rows, both(name, name)...)
	}
	for _, part := range blockParts {
		rows = append(rows, both("blocks.*."+part, "blocks.*."+part)...)
	}
	for _, part := range []string{"q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2"} {
		rows = append(rows, both("attn_pool."+part, "attn_pool."+part)...)
	}
	return append(rows, is("blocks.*.ls1.gamma", "blocks.*.ls1.gamma"), is("blocks.*.ls2.gamma", "blocks.*.ls2.gamma"))
}

// vitHeads are the heads of the published widths (spec 1.2); others have 64 channels each.
var vitHeads = map[int]int{192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1664: 16, 1792: 16}

// vitShapes reads a classifier's sizes off its shapes.
func vitShapes(f *family, v *view) (*Description, error) {
	d := &Description{Model: model.DefaultViT()}
	c, r := &d.Model, f.rows
	vis := &c.Vision
	vis.Width, vis.PatchSize = v.axis(r, "patch_embed.proj.weight", 0), v.axis(r, "patch_embed.proj.weight", 2)
	vis.PatchBias = v.has(r, "patch_embed.proj.bias")
	vis.PreNorm = v.has(r, "norm_pre.weight")
	vis.ClassToken = v.has(r, "cls_token")
	if !vis.ClassToken {
		vis.Pool = "avg"
	}
	if v.has(r, "attn_pool.q.weight") {
		vis.Pool = "map"
	}
	if v.has(r, "fc_norm.weight") {
		vis.Pool, vis.NormAfterPool = "avg", true
	}
	if v.has(r, "blocks.0.ls1.gamma") {
		vis.LayerScale = firstLayerScale
	}
	positions := v.axis(r, "pos_embed", 0)
	grid, err := v.grid(positions, 0, vis.PatchSize)
	switch {
	case positions == 0:
		vis.Positions = "none"
		return nil, fmt.Errorf("without positions nothing says the size of the pictures")
	case vis.ClassToken && err == nil: // without a place for the class token
		vis.NoEmbedClass = true
	case vis.ClassToken:
		grid, err = v.grid(positions, 1, vis.PatchSize)
	}
	if err != nil {
		return nil, err
	}
	setGrid(vis, grid)
	vis.Depth = v.blocks(r, "blocks.%d.norm1.weight")
	if vis.Width > 0 {
		vis.MLPRatio = ratio(v.axis(r, "blocks.0.mlp.fc1.weight", 0), vis.Width)
	}
	if vis.NumHeads = vitHeads[vis.Width]; vis.NumHeads == 0 {
		vis.NumHeads = max(vis.Width/64, 1)
	}
	c.NumClasses = v.axis(r, "head.weight", 0)
	c.Representation = v.axis(r, "pre_logits.fc.weight", 0)
	return d, nil
}

// timmArgs are the arguments of VisionTransformer that shapes do not say.
type timmArgs struct {
	Heads   int    `json:"num_heads,omitempty"`
	Pool    string `json:"global_pool,omitempty"`
	NoEmbed *bool  `json:"no_embed_class,omitempty"`
	PreNorm bool   `json:"pre_norm,omitempty"`
	FCNorm  *bool  `json:"fc_norm,omitempty"`

	// What shapes say too, for who makes the model.
	ImageSize  any      `json:"img_size,omitempty"`
	PatchSize  int      `json:"patch_size,omitempty"`
	Classes    int      `json:"num_classes,omitempty"`
	Width      int      `json:"embed_dim,omitempty"`
	Depth      int      `json:"depth,omitempty"`
	MLPRatio   float64  `json:"mlp_ratio,omitempty"`
	ClassToken *bool    `json:"class_token,omitempty"`
	LayerScale *float64 `json:"init_values,omitempty"`
	ActLayer   string   `json:"act_layer,omitempty"`
}

// timmJSON is a config.json of timm's on the hub: an architecture with arguments and how its pictures are made, or the arguments alone.
type timmJSON struct {
	Architecture string        `json:"architecture,omitempty"`
	Args         *timmArgs     `json:"model_args,omitempty"`
	Pretrained   *timmPretrain `json:"pretrained_cfg,omitempty"`
	NumClasses   int           `json:"num_classes"`
	Features     int           `json:"num_features,omitempty"`
	Pool         string        `json:"global_pool,omitempty"`
	Labels       []string      `json:"label_names,omitempty"`
}

type timmPretrain struct {
	InputSize     []int     `json:"input_size,omitempty"`
	Interpolation string    `json:"interpolation,omitempty"`
	CropPct       float64   `json:"crop_pct,omitempty"`
	Mean          []float64 `json:"mean,omitempty"`
	Std           []float64 `json:"std,omitempty"`
}

func timmConfig(f *family, v *view) (*Description, error) {
	d, err := vitShapes(f, v)
	if err != nil {
		return nil, err
	}
	var args timmArgs
	var cfg timmJSON
	if err := v.json(&cfg); err != nil {
		return nil, err
	}
	if cfg.Args != nil {
		args = *cfg.Args
	} else if cfg.Architecture == "" {
		if err := v.json(&args); err != nil {
			return nil, err
		}
	}
	if args.Pool == "" {
		args.Pool = cfg.Pool
	}
	vis := &d.Model.Vision
	if args.Heads > 0 {
		vis.NumHeads = args.Heads
	} else if vitHeads[vis.Width] == 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("nothing says how many heads there are: %d is taken; give --set model.vision.numHeads=… if there are others", vis.NumHeads))
	}
	if args.NoEmbed != nil {
		vis.NoEmbedClass = *args.NoEmbed && vis.ClassToken
	}
	switch args.Pool {
	case "":
	case "token":
		vis.Pool = "cls"
	case "avg", "map":
		vis.Pool = args.Pool
	default:
		return nil, fmt.Errorf("global_pool %s is not supported", args.Pool)
	}
	if args.ActLayer != "" {
		act, ok := hfActs[strings.ToLower(args.ActLayer)]
		if !ok {
			return nil, fmt.Errorf("act_layer %s is not supported", args.ActLayer)
		}
		vis.Activation = act
	}
	if strings.Contains(cfg.Architecture, "_clip_") { // CLIP's image towers
		vis.LayerNormEps = 1e-5
		if strings.Contains(cfg.Architecture, "quickgelu") {
			vis.Activation = "quick_gelu"
		}
	}
	d.Classes = cfg.Labels
	if p := cfg.Pretrained; p != nil {
		d.Preprocess = &Preprocess{Size: vis.ImageSize, Mode: "shortest", Filter: "bicubic", Mean: half, Std: half}
		if vis.ImageWidth == 0 {
			d.Preprocess.Crop = p.CropPct
		}
		if len(p.Mean) == 3 && len(p.Std) == 3 {
			d.Preprocess.Mean, d.Preprocess.Std = [3]float64(p.Mean), [3]float64(p.Std)
		}
		if p.Interpolation != "" {
			d.Preprocess.Filter = p.Interpolation
		}
	}
	return d, nil
}

// half are the mean and standard deviation that bring levels to [-1, 1].
var half = [3]float64{0.5, 0.5, 0.5}

// timmCLIP is CLIP's image tower in timm's names (spec 3.1): its projection is the head's weight. It is only written; what was written reads as timm's.
var timmCLIP = &family{name: "timm", about: "timm's VisionTransformer", rows: timmCLIPRows(), files: timmCLIPFiles, weights: "model.safetensors"}

func timmCLIPRows() []row {
	rows := []row{
		is("visual.conv1.weight", "patch_embed.proj.weight"), is("visual.conv1.bias", "patch_embed.proj.bias"),
		is("visual.class_embedding", "cls_token", leading2), is("visual.positional_embedding", "pos_embed", leading1),
		is("visual.proj", "head.weight", transposed),
	}
	rows = append(rows, both("visual.ln_pre", "norm_pre")...)
	rows = append(rows, both("visual.ln_post", "norm")...)
	ours := "visual.transformer.resblocks.*."
	rows = append(rows, packed(ours+"attn.in_proj", "_", "blocks.*.attn.qkv")...)
	for _, p := range [][2]string{{"ln_1", "norm1"}, {"attn.out_proj", "attn.proj"}, {"ln_2", "norm2"}, {"mlp.c_fc", "mlp.fc1"}, {"mlp.c_proj", "mlp.fc2"}} {
		rows = append(rows, both(ours+p[0], "blocks.*."+p[1])...)
	}
	return append(rows, is(ours+"ls_1.gamma", "blocks.*.ls1.gamma"), is(ours+"ls_2.gamma", "blocks.*.ls2.gamma"))
}

// timmCLIPFiles describes the tower as one of timm's CLIP architectures, whose LayerNorms have CLIP's epsilon.
func timmCLIPFiles(d *Description) (map[string][]byte, error) {
	v := d.Model.Vision
	if v.LayerNormEps != 1e-5 || v.Pool != "cls" {
		return nil, fmt.Errorf("epsilon %v, pool %s: timm's CLIP towers have 1e-5 and the class token", v.LayerNormEps, v.Pool)
	}
	architecture := "vit_base_patch32_clip_224"
	if v.Activation == "quick_gelu" {
		architecture = "vit_base_patch32_clip_quickgelu_224"
	}
	return timmJSONFile(architecture, &v, d.Model.EmbedDim, nil, d.Preprocess)
}

// timmFiles writes a config.json with the arguments of timm.models.vision_transformer.VisionTransformer, which
// timm.create_model("local-dir:DIR") reads: the nearest architecture's name and what differs from it.
func timmFiles(d *Description) (map[string][]byte, error) {
	c := &d.Model
	v := &c.Vision
	if c.Representation > 0 || v.Positions != "learned" || v.LayerNormEps != 1e-6 || v.Activation != "gelu" && v.Activation != "quick_gelu" && v.Activation != "gelu_tanh" {
		return nil, fmt.Errorf("representation %d, positions %s, epsilon %v: timm's VisionTransformer has no such form", c.Representation, v.Positions, v.LayerNormEps)
	}
	return timmJSONFile("vit_base_patch16_224", v, c.NumClasses, d.Classes, d.Preprocess)
}

func timmJSONFile(architecture string, v *model.Vision, classes int, labels []string, p *Preprocess) (map[string][]byte, error) {
	pool := v.Pool
	if pool == "cls" {
		pool = "token"
	}
	height, width := v.Sides()
	args := &timmArgs{
		Heads: v.NumHeads, Pool: pool, PreNorm: v.PreNorm, ImageSize: height, PatchSize: v.PatchSize, Width: v.Width, Depth: v.Depth,
		MLPRatio: v.MLPRatio, ClassToken: &v.ClassToken,
	}
	if width != height {
		args.ImageSize = [2]int{height, width}
	}
	if v.NoEmbedClass {
		args.NoEmbed = &v.NoEmbedClass
	}
	if v.LayerScale > 0 {
		args.LayerScale = &v.LayerScale
	}
	if v.Pool == "avg" {
		args.FCNorm = &v.NormAfterPool
	}
	if v.Activation != "gelu" {
		args.ActLayer = v.Activation
	}
	cfg := timmJSON{Architecture: architecture, Args: args, NumClasses: classes, Features: v.Width, Pool: pool, Labels: labels}
	if p != nil {
		crop := p.Crop
		if crop == 0 {
			crop = 1
		}
		cfg.Pretrained = &timmPretrain{InputSize: []int{3, height, width}, Interpolation: p.Filter, CropPct: crop, Mean: p.Mean[:], Std: p.Std[:]}
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	return map[string][]byte{"config.json": append(b, '\n')}, err
}
