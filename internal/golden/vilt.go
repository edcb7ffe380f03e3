package golden

import "strings"

// ViLTNames names the tensors of Hugging Face's ViLT that laid one after another make up the tensor of that name in the authors'
// checkpoints: three for the queries, keys and values of a block, else one.
func ViLTNames(name string) []string {
	var out []string
	leaf := name[strings.LastIndex(name, ".")+1:]
	switch {
	case strings.HasPrefix(name, "text_embeddings."), strings.HasPrefix(name, "token_type_embeddings."):
		return []string{"vilt.embeddings." + name}
	case name == "transformer.cls_token":
		return []string{"vilt.embeddings.cls_token"}
	case name == "transformer.pos_embed":
		return []string{"vilt.embeddings.position_embeddings"}
	case strings.HasPrefix(name, "transformer.patch_embed.proj."):
		return []string{"vilt.embeddings.patch_embeddings.projection." + leaf}
	case strings.Contains(name, ".attn.qkv."):
		for _, part := range []string{"query", "key", "value"} {
			layer, _, _ := strings.Cut(strings.TrimPrefix(name, "transformer.blocks."), ".")
			out = append(out, "vilt.encoder.layer."+layer+".attention.attention."+part+"."+leaf)
		}
		return out
	case strings.HasPrefix(name, "transformer.blocks."):
		name = strings.NewReplacer("transformer.blocks.", "vilt.encoder.layer.", ".norm1.", ".layernorm_before.", ".norm2.", ".layernorm_after.",
			".attn.proj.", ".attention.output.dense.", ".mlp.fc1.", ".intermediate.dense.", ".mlp.fc2.", ".output.dense.").Replace(name)
	case strings.HasPrefix(name, "transformer.norm."):
		name = "vilt.layernorm." + leaf
	case strings.HasPrefix(name, "pooler."):
		name = "vilt." + name
	}
	return []string{name}
}
