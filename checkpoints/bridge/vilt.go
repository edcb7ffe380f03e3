package bridge

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"diptych/model"
)

const viltName = "vilt"

// vilt are the names of the authors' checkpoints (spec/vilt 8.1), which are ours.
var vilt = &family{
	name: viltName, about: "the authors' ViLT", keys: []string{"transformer.patch_embed.proj.weight", "text_embeddings.word_embeddings.weight", "token_type_embeddings.weight"},
	rows: ownNames(hfViLTRows("vilt.")), ignore: []string{"text_embeddings.position_ids"}, config: viltConfig, files: viltFiles,
	weights: "vilt.ckpt", within: "state_dict", positions: MethodGoogle,
}

// hfViLT are the names of Hugging Face's ViLT classes with a head (spec/vilt 8.2), hfViLTBare those of ViltModel.
var (
	hfViLT = &family{
		name: "hf-vilt", about: "Hugging Face's ViLT", keys: []string{"vilt.embeddings.patch_embeddings.projection.weight", "vilt.embeddings.text_embeddings.word_embeddings.weight"},
		rows: hfViLTRows("vilt."), ignore: []string{"vilt.embeddings.text_embeddings.position_ids"}, config: viltConfig, files: hfViLTFiles,
		weights: "model.safetensors", positions: MethodGoogle,
	}
	hfViLTBare = &family{
		name: "hf-vilt-bare", about: "Hugging Face's ViltModel", keys: []string{"embeddings.patch_embeddings.projection.weight", "embeddings.text_embeddings.word_embeddings.weight"},
		rows: hfViLTRows(""), ignore: []string{"embeddings.text_embeddings.position_ids"}, config: viltConfig, positions: MethodGoogle,
	}
)

// hfViLTRows has the names of all but the heads behind prefix.
func hfViLTRows(prefix string) []row {
	text, embed := "text_embeddings.", prefix+"embeddings."
	rows := []row{
		is(text+"word_embeddings.weight", embed+text+"word_embeddings.weight"),
		is(text+"position_embeddings.weight", embed+text+"position_embeddings.weight"),
		is(text+"token_type_embeddings.weight", embed+text+"token_type_embeddings.weight"),
		is("token_type_embeddings.weight", embed+"token_type_embeddings.weight"),
		is("transformer.cls_token", embed+"cls_token"),
		is("transformer.pos_embed", embed+"position_embeddings"),
		is("transformer.mask_token", embed+"mask_token"),
		is("mlm_score.decoder.weight", "mlm_score.decoder.weight"),
		{ours: "mlm_score.bias", theirs: []string{"mlm_score.bias"}, also: "mlm_score.decoder.bias"}, // transformers 5 reads the second alone
	}
	rows = append(rows, both(text+"LayerNorm", embed+text+"LayerNorm")...)
	rows = append(rows, both("transformer.patch_embed.proj", embed+"patch_embeddings.projection")...)
	ours, theirs := "transformer.blocks.*.", prefix+"encoder.layer.*."
	rows = append(rows, both(ours+"norm1", theirs+"layernorm_before")...)
	rows = append(rows, packed(ours+"attn.qkv", ".", theirs+"attention.attention.query", theirs+"attention.attention.key", theirs+"attention.attention.value")...)
	rows = append(rows, both(ours+"attn.proj", theirs+"attention.output.dense")...)
	rows = append(rows, both(ours+"norm2", theirs+"layernorm_after")...)
	rows = append(rows, both(ours+"mlp.fc1", theirs+"intermediate.dense")...)
	rows = append(rows, both(ours+"mlp.fc2", theirs+"output.dense")...)
	rows = append(rows, both("transformer.norm", prefix+"layernorm")...)
	rows = append(rows, both("pooler.dense", prefix+"pooler.dense")...)
	for _, head := range []string{"mlm_score.transform.dense", "mlm_score.transform.LayerNorm", "itm_score.fc", "mpp_score.transform.dense", "mpp_score.transform.LayerNorm", "mpp_score.decoder", "rank_output"} {
		rows = append(rows, both(head, head)...)
	}
	for _, layer := range []string{".0", ".1", ".3"} { // linear, norm, linear
		for _, task := range []string{vqaHead, nlvr2Head, pairHead} {
			rows = append(rows, both(task+layer, "classifier"+layer)...)
		}
	}
	return rows
}

// Our names of the classifiers; the first two are the authors', and Hugging Face has the last for all.
const (
	vqaHead   = model.AnswersOfQuestion
	nlvr2Head = "nlvr2_classifier"
	pairHead  = model.AnswersOfPair
)

// oneClass is what problem_type says of scores of which one class is right. Hugging Face has no class for those of one picture and a sentence:
// ViltForQuestionAnswering computes them, and takes each answer's score by itself.
const oneClass = "single_label_classification"

// ownNames makes a table whose public names are ours.
func ownNames(rows []row) []row {
	out := make([]row, len(rows))
	for i, r := range rows {
		out[i] = is(r.ours, r.ours)
	}
	return out
}

// viltJSON is ViltConfig (spec/vilt 8.3), and what the authors' code is called with, under its own keys.
type viltJSON struct {
	Architectures []string          `json:"architectures,omitempty"`
	Type          string            `json:"model_type,omitempty"`
	VocabSize     int               `json:"vocab_size,omitempty"`
	Segments      int               `json:"type_vocab_size,omitempty"`
	PictureTypes  int               `json:"modality_type_vocab_size,omitempty"` // with the text's
	Context       int               `json:"max_position_embeddings,omitempty"`
	Hidden        int               `json:"hidden_size,omitempty"`
	Layers        int               `json:"num_hidden_layers,omitempty"`
	Heads         int               `json:"num_attention_heads,omitempty"`
	MLP           int               `json:"intermediate_size,omitempty"`
	Act           string            `json:"hidden_act,omitempty"`
	Dropout       *float64          `json:"hidden_dropout_prob,omitempty"`
	AttnDropout   float64           `json:"attention_probs_dropout_prob"`
	Eps           *float64          `json:"layer_norm_eps,omitempty"`
	ImageSize     int               `json:"image_size,omitempty"`
	PatchSize     int               `json:"patch_size,omitempty"`
	Channels      int               `json:"num_channels,omitempty"`
	QKVBias       *bool             `json:"qkv_bias,omitempty"`
	MaxPatches    int               `json:"max_image_length,omitempty"` // below 1: all are taken
	Tied          bool              `json:"tie_word_embeddings"`
	NumImages     int               `json:"num_images,omitempty"`
	Labels        map[string]string `json:"id2label,omitempty"`
	IDs           map[string]int    `json:"label2id,omitempty"`
	Problem       string            `json:"problem_type,omitempty"`

	// The authors'.
	NumHeads    int      `json:"num_heads,omitempty"`
	MaxImageLen int      `json:"max_image_len,omitempty"`
	DropRate    *float64 `json:"drop_rate,omitempty"`
}

// viltConfig reads a model of pairs off its shapes, and off Hugging Face's or the authors' configuration where there is one: a config.json, or what
// PyTorch Lightning keeps in a checkpoint.
func viltConfig(f *family, v *view) (*Description, error) {
	d := &Description{Model: model.DefaultViLT()}
	c, r := &d.Model, f.rows
	vis := &c.Vision
	vis.Width, vis.PatchSize = v.axis(r, "transformer.patch_embed.proj.weight", 0), v.axis(r, "transformer.patch_embed.proj.weight", 2)
	grid, err := v.grid(v.axis(r, "transformer.pos_embed", 1), 1, vis.PatchSize)
	if err != nil {
		return nil, err
	}
	setGrid(vis, grid)
	vis.Depth = v.blocks(r, "transformer.blocks.%d.norm1.weight")
	if vis.Width > 0 {
		vis.MLPRatio = ratio(v.axis(r, "transformer.blocks.0.mlp.fc1.weight", 0), vis.Width)
	}
	if vis.NumHeads = vitHeads[vis.Width]; vis.NumHeads == 0 {
		vis.NumHeads = max(vis.Width/64, 1)
	}
	c.Text.VocabSize, c.Text.ContextLength = v.axis(r, "text_embeddings.word_embeddings.weight", 0), v.axis(r, "text_embeddings.position_embeddings.weight", 0)
	c.ViLT.PictureTypes = v.axis(r, "token_type_embeddings.weight", 0) - 1
	d.ViLT = model.ViLTHeads{
		Match: v.has(r, "itm_score.fc.weight"), Words: v.has(r, "mlm_score.transform.dense.weight"), Color: v.has(r, "mpp_score.decoder.weight"),
		Rank: v.has(r, "rank_output.weight"),
	}
	c.ViLT.TieWords = d.ViLT.Words && !v.has(r, "mlm_score.decoder.weight")
	var cfg viltJSON
	if err := v.json(&cfg); err != nil {
		return nil, err
	}
	tasks := []string{vqaHead, nlvr2Head, pairHead}
	if f.name != viltName { // all have one name
		switch {
		case c.ViLT.PictureTypes == 2:
			tasks = []string{nlvr2Head}
		case cfg.Problem == oneClass:
			tasks = []string{pairHead}
		default:
			tasks = []string{vqaHead}
		}
	}
	for _, task := range tasks {
		if k := v.axis(r, task+".3.weight", 0); k > 0 {
			d.ViLT.Classes, d.ViLT.ClassName = k, task
		}
	}
	c.NumClasses = d.ViLT.Classes
	if err := v.lightning(&cfg); err != nil {
		return nil, err
	}
	if cfg.Type != "" && cfg.Type != "vilt" {
		return nil, fmt.Errorf("config.json: model_type %q, want vilt", cfg.Type)
	}
	if heads := cmp.Or(cfg.Heads, cfg.NumHeads); heads > 0 {
		vis.NumHeads = heads
	} else if vitHeads[vis.Width] == 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("nothing says how many heads there are: %d is taken; give --set model.vision.numHeads=… if there are others", vis.NumHeads))
	}
	if act := cmp.Or(cfg.Act, "gelu"); act != "gelu" {
		return nil, fmt.Errorf("config.json: hidden_act %q is not supported, only gelu", act)
	}
	if f.name != viltName && cfg.Eps == nil {
		eps := 1e-12 // ViltConfig's default
		cfg.Eps = &eps
	}
	if cfg.Eps != nil { // Hugging Face has one for all norms, the authors' code has the defaults'
		vis.LayerNormEps, c.ViLT.EmbedNormEps = *cfg.Eps, *cfg.Eps
	}
	if p := cmp.Or(cfg.Dropout, cfg.DropRate); p != nil {
		vis.Dropout = *p
	}
	c.ViLT.MaxPatches = max(cmp.Or(cfg.MaxPatches, cfg.MaxImageLen), 0)
	if len(cfg.Labels) == d.ViLT.Classes {
		for i := range len(cfg.Labels) {
			d.Classes = append(d.Classes, cfg.Labels[strconv.Itoa(i)])
		}
	}
	d.Preprocess, err = readHFPreprocess(v.Dir, vis.ImageSize)
	if err == nil && d.Preprocess == nil {
		d.Preprocess = viltPreprocess(vis.ImageSize, vis.PatchSize)
	}
	return d, err
}

// lightning decodes what PyTorch Lightning kept of the arguments that the model of a checkpoint was made with.
func (v *view) lightning(cfg *viltJSON) error {
	f, ok := v.Tensors.(interface{ Values() map[string]any })
	if !ok {
		return nil
	}
	for _, prefix := range []string{"hyper_parameters.config.", "hyper_parameters."} {
		keep := map[string]any{}
		for _, key := range []string{"num_heads", "max_image_len", "drop_rate"} {
			if value, ok := f.Values()[prefix+key]; ok {
				keep[key] = value
			}
		}
		b, err := json.Marshal(keep)
		if err == nil {
			err = json.Unmarshal(b, cfg)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", prefix, err)
		}
	}
	return nil
}

// viltFiles are those of the authors' format: the checkpoint alone.
func viltFiles(d *Description) (map[string][]byte, error) {
	if eps := d.Model.Vision.LayerNormEps; eps != 1e-6 {
		d.Notes = append(d.Notes, fmt.Sprintf("the authors' code has 1e-6 in the trunk's norms, this model %g", eps))
	}
	return nil, nil
}

// hfViLTFiles writes config.json, preprocessor_config.json and the tokenizer.
func hfViLTFiles(d *Description) (map[string][]byte, error) {
	c := &d.Model
	v := &c.Vision
	if v.LayerNormEps > 1e-6 || v.Activation != "gelu" {
		return nil, fmt.Errorf("epsilon %g, activation %s: Hugging Face's ViLT has one epsilon for all norms, the text embedding's %g, and gelu", v.LayerNormEps, v.Activation, c.ViLT.EmbedNormEps)
	}
	if v.LayerNormEps != c.ViLT.EmbedNormEps {
		d.Notes = append(d.Notes, fmt.Sprintf("Hugging Face's ViLT has one epsilon for all norms: the trunk's %g becomes %g, as in its own conversions", v.LayerNormEps, c.ViLT.EmbedNormEps))
	}
	yes := true
	most := c.ViLT.MaxPatches
	if most == 0 {
		most = -1
	}
	cfg := viltJSON{
		Architectures: []string{viltClass(&d.ViLT)}, Type: "vilt", VocabSize: c.Text.VocabSize, Segments: 2, PictureTypes: 1 + c.ViLT.PictureTypes,
		Context: c.Text.ContextLength, Hidden: v.Width, Layers: v.Depth, Heads: v.NumHeads, MLP: int(v.MLPRatio * float64(v.Width)), Act: "gelu", Dropout: &v.Dropout,
		Eps: &c.ViLT.EmbedNormEps, ImageSize: v.ImageSize, PatchSize: v.PatchSize, Channels: 3, QKVBias: &yes, MaxPatches: most, Tied: c.ViLT.TieWords, NumImages: -1,
	}
	if c.ViLT.PictureTypes == 2 {
		cfg.NumImages = 2
	}
	if k := d.ViLT.Classes; k > 0 {
		cfg.Labels, cfg.IDs = labels(d.Classes, k)
	}
	if d.ViLT.ClassName == pairHead {
		cfg.Problem = oneClass
		d.Notes = append(d.Notes, "transformers opens the classes of a picture and a sentence with ViltForQuestionAnswering: their probabilities are the softmax of its logits")
	}
	files := map[string][]byte{}
	if d.Tokenizer != nil {
		var err error
		if files, err = wordPieceFiles(d.Tokenizer); err != nil {
			return nil, err
		}
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, err
	}
	files["config.json"] = append(b, '\n')
	if d.Preprocess != nil {
		processor := "ViTImageProcessor"
		if d.Preprocess.Divisor > 0 {
			processor = "ViltImageProcessor"
		}
		files["preprocessor_config.json"] = d.Preprocess.hf(processor)
	}
	return files, nil
}

// viltClass names the class of transformers that reads a model's head.
func viltClass(h *model.ViLTHeads) string {
	switch {
	case h.ClassName == nlvr2Head:
		return "ViltForImagesAndTextClassification"
	case h.Classes > 0:
		return "ViltForQuestionAnswering"
	case h.Rank:
		return "ViltForImageAndTextRetrieval"
	case h.Words:
		return "ViltForMaskedLM"
	}
	return "ViltModel"
}

// labels are the names of k classes as transformers writes them.
func labels(names []string, k int) (map[string]string, map[string]int) {
	byID, ids := map[string]string{}, map[string]int{}
	for i := range k {
		name := fmt.Sprintf("LABEL_%d", i)
		if i < len(names) && !slices.Contains(names[:i], names[i]) {
			name = names[i]
		}
		byID[strconv.Itoa(i)], ids[name] = name, i
	}
	return byID, ids
}
