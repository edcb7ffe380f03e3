package bridge

import (
	"encoding/json"
	"fmt"

	"diptych/model"
)

// hfCLIP are the names of Hugging Face's CLIPModel (spec 3.1).
var hfCLIP = &family{
	name: "hf", about: "Hugging Face's CLIPModel",
	keys: []string{"vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight"},
	rows: hfCLIPRows(), ignore: []string{"vision_model.embeddings.position_ids", "text_model.embeddings.position_ids"},
	config: hfCLIPConfig, weights: "model.safetensors", positions: MethodHF, files: hfCLIPFiles,
}

func hfCLIPRows() []row {
	rows := []row{
		is("logit_scale", "logit_scale"),
		is("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
		is("visual.class_embedding", "vision_model.embeddings.class_embedding"),
		is("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
		is("visual.proj", "visual_projection.weight", transposed),
		is("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
		is("positional_embedding", "text_model.embeddings.position_embedding.weight"),
		is("text_projection", "text_projection.weight", transposed),
	}
	rows = append(rows, both("visual.ln_pre", "vision_model.pre_layrnorm")...)
	rows = append(rows, both("visual.ln_post", "vision_model.post_layernorm")...)
	rows = append(rows, both("ln_final", "text_model.final_layer_norm")...)
	for _, tower := range [][2]string{{"visual.transformer.resblocks.*.", "vision_model.encoder.layers.*."}, {"transformer.resblocks.*.", "text_model.encoder.layers.*."}} {
		ours, theirs := tower[0], tower[1]
		rows = append(rows, both(ours+"ln_1", theirs+"layer_norm1")...)
		rows = append(rows, packed(ours+"attn.in_proj", "_", theirs+"self_attn.q_proj", theirs+"self_attn.k_proj", theirs+"self_attn.v_proj")...)
		rows = append(rows, both(ours+"attn.out_proj", theirs+"self_attn.out_proj")...)
		rows = append(rows, both(ours+"ln_2", theirs+"layer_norm2")...)
		rows = append(rows, both(ours+"mlp.c_fc", theirs+"mlp.fc1")...)
		rows = append(rows, both(ours+"mlp.c_proj", theirs+"mlp.fc2")...)
	}
	return rows
}

// hfTower is the part of CLIPTextConfig and CLIPVisionConfig (spec 3.3) that shapes do not say, and what is written.
type hfTower struct {
	Hidden     int      `json:"hidden_size,omitempty"`
	MLP        int      `json:"intermediate_size,omitempty"`
	Layers     int      `json:"num_hidden_layers,omitempty"`
	Heads      int      `json:"num_attention_heads,omitempty"`
	Act        string   `json:"hidden_act,omitempty"`
	Eps        *float64 `json:"layer_norm_eps,omitempty"`
	Projection int      `json:"projection_dim,omitempty"`
	Type       string   `json:"model_type,omitempty"`

	VocabSize int  `json:"vocab_size,omitempty"`
	Positions int  `json:"max_position_embeddings,omitempty"`
	BOS       *int `json:"bos_token_id,omitempty"`
	EOS       *int `json:"eos_token_id,omitempty"`
	Pad       *int `json:"pad_token_id,omitempty"`

	ImageSize int `json:"image_size,omitempty"`
	PatchSize int `json:"patch_size,omitempty"`
	Channels  int `json:"num_channels,omitempty"`
}

type hfCLIPJSON struct {
	Architectures []string `json:"architectures,omitempty"`
	Type          string   `json:"model_type"`
	Projection    int      `json:"projection_dim"`
	Scale         float64  `json:"logit_scale_init_value"`
	Text          *hfTower `json:"text_config"`
	Vision        *hfTower `json:"vision_config"`
	OldText       *hfTower `json:"text_config_dict,omitempty"` // in old files; win over the others
	OldVision     *hfTower `json:"vision_config_dict,omitempty"`
}

// hfActs are our activations by transformers' names.
var hfActs = map[string]string{"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}

func hfCLIPConfig(f *family, v *view) (*Description, error) {
	d, err := clipShapes(f, v)
	if err != nil {
		return nil, err
	}
	c := &d.Model
	c.Vision.Activation, c.Text.Activation = "quick_gelu", "quick_gelu" // CLIPConfig's default
	if v.Config == nil {
		d.Notes = append(d.Notes, "no config.json says which activation the weights were trained with: quick_gelu is taken, transformers' default")
	}
	var cfg hfCLIPJSON
	if err := v.json(&cfg); err != nil {
		return nil, err
	}
	for _, t := range []struct {
		of   *model.Transformer
		json []*hfTower
	}{{&c.Vision.Transformer, []*hfTower{cfg.Vision, cfg.OldVision}}, {&c.Text.Transformer, []*hfTower{cfg.Text, cfg.OldText}}} {
		for _, j := range t.json {
			if j == nil {
				continue
			}
			if j.Heads > 0 {
				t.of.NumHeads = j.Heads
			}
			if j.Eps != nil {
				t.of.LayerNormEps = *j.Eps
			}
			if j.Act != "" {
				act, ok := hfActs[j.Act]
				if !ok {
					return nil, fmt.Errorf("config.json: hidden_act %q is not supported", j.Act)
				}
				t.of.Activation = act
			}
		}
	}
	d.Preprocess, err = readHFPreprocess(v.Dir, c.Vision.ImageSize)
	return d, err
}

// hfCLIPFiles writes config.json, preprocessor_config.json and the tokenizer.
func hfCLIPFiles(d *Description) (map[string][]byte, error) {
	c := &d.Model
	switch {
	case d.LogitBias:
		return nil, fmt.Errorf("CLIPModel has no logit_bias")
	case c.Text.Pool != "eos" || !c.Text.Causal || c.Vision.Pool != "cls" || !c.Vision.ClassToken || !c.Vision.PreNorm || c.Vision.PatchBias || c.Vision.Positions != "learned":
		return nil, fmt.Errorf("CLIPModel has only CLIP's own form: class token, ln_pre, learned positions, no patch bias, causal text and its last token")
	}
	act := func(name string) string {
		if name == "gelu_tanh" {
			return "gelu_pytorch_tanh"
		}
		return name
	}
	tower := func(t *model.Transformer, kind string) *hfTower {
		return &hfTower{Hidden: t.Width, MLP: int(t.MLPRatio * float64(t.Width)), Layers: t.Depth, Heads: t.NumHeads, Act: act(t.Activation), Eps: &t.LayerNormEps,
			Projection: c.EmbedDim, Type: kind}
	}
	bos, eos := c.Text.VocabSize-2, c.Text.VocabSize-1
	files := map[string][]byte{}
	if d.Tokenizer != nil {
		var err error
		if files, err = tokenizerFiles(d.Tokenizer); err != nil {
			return nil, err
		}
		bos, eos = int(d.Tokenizer.BOS()), int(d.Tokenizer.EOS())
	}
	text := tower(&c.Text.Transformer, "clip_text_model")
	text.VocabSize, text.Positions, text.BOS, text.EOS, text.Pad = c.Text.VocabSize, c.Text.ContextLength, &bos, &eos, &eos
	vision := tower(&c.Vision.Transformer, "clip_vision_model")
	vision.ImageSize, vision.PatchSize, vision.Channels = c.Vision.ImageSize, c.Vision.PatchSize, 3
	b, err := json.MarshalIndent(hfCLIPJSON{Architectures: []string{"CLIPModel"}, Type: "clip", Projection: c.EmbedDim, Scale: 2.6592, Text: text, Vision: vision}, "", "  ")
	if err != nil {
		return nil, err
	}
	files["config.json"] = append(b, '\n')
	if d.Preprocess != nil {
		files["preprocessor_config.json"] = d.Preprocess.hf("CLIPImageProcessor")
	}
	return files, nil
}
