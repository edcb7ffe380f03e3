package bridge

import "fmt"

// Google's ViT as flax writes it to .npz (spec 3.2): vision_transformer's names, big_vision's, and big_vision's with all blocks in one array.
// Kernels are (in, out), attention's (D, H, Dh) and (H, Dh, D), patches (P, P, 3, D). They are only read.
var (
	google = &family{
		name: "google", about: "Google's vision_transformer", keys: []string{"embedding/kernel", "Transformer/encoderblock_0/LayerNorm_2/scale"},
		rows:   googleRows("Transformer/posembed_input/pos_embedding", "Transformer/encoderblock_*/", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
		config: googleConfig, ignore: []string{"pre_logits/*"}, positions: MethodGoogle,
	}
	bigVision = &family{
		name: "big_vision", about: "Google's big_vision", keys: []string{"embedding/kernel", "Transformer/encoderblock_0/LayerNorm_1/scale"},
		rows:   googleRows("pos_embedding", "Transformer/encoderblock_*/", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
		config: googleConfig, ignore: []string{"pre_logits/*"}, positions: MethodGoogle,
	}
	bigVisionScan = &family{
		name: "big_vision-scan", about: "Google's big_vision, blocks in one array", keys: []string{"embedding/kernel", "Transformer/encoderblock/LayerNorm_1/scale"},
		rows:   googleRows("pos_embedding", "Transformer/encoderblock/", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
		config: googleConfig, ignore: []string{"pre_logits/*"}, positions: MethodGoogle,
	}
)

// The forms of flax's kernels.
var (
	conv     = shaping{axes: []int{3, 2, 0, 1}} // (P, P, 3, D) -> (D, 3, P, P)
	intoHead = shaping{axes: []int{1, 2, 0}}    // (D, H, Dh) -> (H·Dh, D)
	fromHead = shaping{axes: []int{2, 0, 1}}    // (H, Dh, D) -> (D, H·Dh)
	perHead  = shaping{axes: []int{0, 1}}       // (H, Dh) -> (H·Dh)
)

// googleRows has the names of one layout: of positions, of a block, and of its attention, second norm and MLP.
func googleRows(positions, block, attention, norm2, mlp string) []row {
	rows := []row{
		is("cls_token", "cls", leading2), is("pos_embed", positions, leading1),
		is("patch_embed.proj.weight", "embedding/kernel", conv), is("patch_embed.proj.bias", "embedding/bias"),
	}
	norm := func(ours, theirs string) {
		rows = append(rows, is(ours+".weight", theirs+"/scale"), is(ours+".bias", theirs+"/bias"))
	}
	dense := func(ours, theirs string) {
		rows = append(rows, is(ours+".weight", theirs+"/kernel", transposed), is(ours+".bias", theirs+"/bias"))
	}
	heads := func(ours string, theirs ...string) { // of several projections, one after the other
		w, b := row{ours: ours + ".weight", how: intoHead}, row{ours: ours + ".bias", how: perHead}
		for _, t := range theirs {
			w.theirs, b.theirs = append(w.theirs, t+"/kernel"), append(b.theirs, t+"/bias")
		}
		rows = append(rows, w, b)
	}
	out := func(ours, theirs string) {
		rows = append(rows, is(ours+".weight", theirs+"/kernel", fromHead), is(ours+".bias", theirs+"/bias"))
	}
	norm("norm", "Transformer/encoder_norm")
	dense("pre_logits.fc", "pre_logits")
	dense("head", "head")
	norm("blocks.*.norm1", block+"LayerNorm_0")
	heads("blocks.*.attn.qkv", block+attention+"/query", block+attention+"/key", block+attention+"/value")
	out("blocks.*.attn.proj", block+attention+"/out")
	norm("blocks.*.norm2", block+norm2)
	dense("blocks.*.mlp.fc1", block+mlp+"/Dense_0")
	dense("blocks.*.mlp.fc2", block+mlp+"/Dense_1")
	const pool = "MAPHead_0/"
	rows = append(rows, is("attn_pool.latent", pool+"probe", leading2))
	heads("attn_pool.q", pool+"MultiHeadDotProductAttention_0/query")
	heads("attn_pool.kv", pool+"MultiHeadDotProductAttention_0/key", pool+"MultiHeadDotProductAttention_0/value")
	out("attn_pool.proj", pool+"MultiHeadDotProductAttention_0/out")
	norm("attn_pool.norm", pool+"LayerNorm_0")
	dense("attn_pool.mlp.fc1", pool+"MlpBlock_0/Dense_0")
	dense("attn_pool.mlp.fc2", pool+"MlpBlock_0/Dense_1")
	return rows
}

// googleConfig reads everything off shapes: the attention's kernels say the heads. Google's GELU is the tanh form, its pictures are in [-1, 1].
func googleConfig(f *family, v *view) (*Description, error) {
	d, err := vitShapes(f, v)
	if err != nil {
		return nil, err
	}
	r, block, ok := resolve(f.rows, "blocks.0.attn.qkv.bias")
	if !ok {
		return nil, fmt.Errorf("no attention in the table")
	}
	axis := 0
	if block >= 0 {
		axis = 1
	}
	vis := &d.Model.Vision
	vis.NumHeads = v.dim(r.theirs[0], axis)
	vis.Activation = "gelu_tanh"
	if d.Model.Representation > 0 {
		d.Notes = append(d.Notes, "the representation layer of pre-training (pre_logits) is kept; timm leaves it out: --set model.representation=0")
	}
	d.Preprocess = &Preprocess{Size: vis.ImageSize, Mode: "squash", Filter: "bilinear", Mean: half, Std: half}
	return d, nil
}
