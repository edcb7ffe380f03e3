package bridge

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// hfViT are the names of Hugging Face's ViTForImageClassification (spec 3.2), hfViTBare those of ViTModel, whose pooler is a representation
// layer; a model without classes is written in these.
var (
	hfViT = &family{
		name: "hf-vit", about: "Hugging Face's ViTForImageClassification",
		keys: []string{"vit.embeddings.patch_embeddings.projection.weight", "classifier.weight"},
		rows: hfViTRows("vit."), config: hfViTConfig, files: hfViTFiles, weights: "model.safetensors", positions: MethodHF,
	}
	hfViTBare = &family{
		name: "hf-vit-bare", about: "Hugging Face's ViTModel",
		keys: []string{"embeddings.patch_embeddings.projection.weight", "encoder.layer.0.attention.attention.query.weight", "layernorm.weight"},
		rows: hfViTRows(""), ignore: []string{"pooler.dense.*"}, config: hfViTConfig, files: hfViTFiles, weights: "model.safetensors", positions: MethodHF,
	}
)

// hfViTRows has the encoder's names behind prefix.
func hfViTRows(prefix string) []row {
	rows := []row{
		is("cls_token", prefix+"embeddings.cls_token", leading2),
		is("pos_embed", prefix+"embeddings.position_embeddings", leading1),
	}
	rows = append(rows, both("patch_embed.proj", prefix+"embeddings.patch_embeddings.projection")...)
	rows = append(rows, both("norm", prefix+"layernorm")...)
	rows = append(rows, both("pre_logits.fc", prefix+"pooler.dense")...)
	rows = append(rows, both("head", "classifier")...)
	ours, theirs := "blocks.*.", prefix+"encoder.layer.*."
	rows = append(rows, both(ours+"norm1", theirs+"layernorm_before")...)
	rows = append(rows, packed(ours+"attn.qkv", ".", theirs+"attention.attention.query", theirs+"attention.attention.key", theirs+"attention.attention.value")...)
	rows = append(rows, both(ours+"attn.proj", theirs+"attention.output.dense")...)
	rows = append(rows, both(ours+"norm2", theirs+"layernorm_after")...)
	rows = append(rows, both(ours+"mlp.fc1", theirs+"intermediate.dense")...)
	return append(rows, both(ours+"mlp.fc2", theirs+"output.dense")...)
}

// hfViTJSON is ViTConfig (spec 3.3).
type hfViTJSON struct {
	Architectures []string          `json:"architectures"`
	Type          string            `json:"model_type"`
	Hidden        int               `json:"hidden_size"`
	MLP           int               `json:"intermediate_size"`
	Layers        int               `json:"num_hidden_layers"`
	Heads         int               `json:"num_attention_heads"`
	Act           string            `json:"hidden_act"`
	Eps           *float64          `json:"layer_norm_eps"`
	PoolerAct     string            `json:"pooler_act,omitempty"`
	PoolerSize    int               `json:"pooler_output_size,omitempty"`
	ImageSize     int               `json:"image_size"`
	PatchSize     int               `json:"patch_size"`
	Channels      int               `json:"num_channels"`
	QKVBias       *bool             `json:"qkv_bias"`
	Labels        map[string]string `json:"id2label"`
	IDs           map[string]int    `json:"label2id"`
}

func hfViTConfig(f *family, v *view) (*Description, error) {
	d, err := vitShapes(f, v)
	if err != nil {
		return nil, err
	}
	vis := &d.Model.Vision
	vis.LayerNormEps = 1e-12 // ViTConfig's default
	var cfg hfViTJSON
	if err := v.json(&cfg); err != nil {
		return nil, err
	}
	if cfg.Heads > 0 {
		vis.NumHeads = cfg.Heads
	}
	if cfg.Eps != nil {
		vis.LayerNormEps = *cfg.Eps
	}
	if cfg.Act != "" {
		act, ok := hfActs[cfg.Act]
		if !ok {
			return nil, fmt.Errorf("config.json: hidden_act %q is not supported", cfg.Act)
		}
		vis.Activation = act
	}
	if d.Model.Representation > 0 && cfg.PoolerAct != "" && cfg.PoolerAct != "tanh" {
		return nil, fmt.Errorf("config.json: pooler_act %q is not supported: the pooler's is tanh; leave the pooler out by --set model.representation=0", cfg.PoolerAct)
	}
	if v.Config == nil {
		d.Notes = append(d.Notes, "no config.json: LayerNorm's epsilon is taken to be 1e-12, transformers' default")
	}
	for i := range len(cfg.Labels) {
		d.Classes = append(d.Classes, cfg.Labels[strconv.Itoa(i)])
	}
	d.Preprocess, err = readHFPreprocess(v.Dir, vis.ImageSize)
	return d, err
}

func hfViTFiles(d *Description) (map[string][]byte, error) {
	c := &d.Model
	v := &c.Vision
	bare := c.NumClasses == 0
	if v.Pool != "cls" || v.NoEmbedClass || v.PreNorm || !v.PatchBias || v.LayerScale > 0 || c.Representation > 0 && !bare || v.Positions != "learned" {
		return nil, fmt.Errorf("it has only ViT's own form: class token with a position, no norm before the blocks, no LayerScale, no representation layer before a classifier")
	}
	yes := true
	act := v.Activation
	if act == "gelu_tanh" {
		act = "gelu_pytorch_tanh"
	}
	cfg := hfViTJSON{
		Architectures: []string{"ViTForImageClassification"}, Type: "vit", Hidden: v.Width, MLP: int(v.MLPRatio * float64(v.Width)), Layers: v.Depth, Heads: v.NumHeads,
		Act: act, Eps: &v.LayerNormEps, ImageSize: v.ImageSize, PatchSize: v.PatchSize, Channels: 3, QKVBias: &yes, Labels: map[string]string{}, IDs: map[string]int{},
	}
	if bare {
		cfg.Architectures = []string{"ViTModel"}
	}
	if c.Representation > 0 {
		cfg.PoolerAct, cfg.PoolerSize = "tanh", c.Representation
	} else if bare {
		d.Notes = append(d.Notes, "the model has no pooler: open it by ViTModel.from_pretrained(DIR, add_pooling_layer=False)")
	}
	for i := range c.NumClasses {
		name := fmt.Sprintf("LABEL_%d", i)
		if i < len(d.Classes) {
			name = d.Classes[i]
		}
		cfg.Labels[strconv.Itoa(i)], cfg.IDs[name] = name, i
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	files := map[string][]byte{"config.json": append(b, '\n')}
	if d.Preprocess != nil {
		files["preprocessor_config.json"] = d.Preprocess.hf("ViTImageProcessor")
	}
	return files, err
}
