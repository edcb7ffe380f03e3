package model

// preset builds one of open_clip's configurations (spec 2.4), with heads of 64 channels.
func preset(embed, size, patch, vWidth, vDepth, tWidth, tDepth int) Config {
	c := Default()
	c.EmbedDim = embed
	c.Vision.ImageSize, c.Vision.PatchSize, c.Vision.Width, c.Vision.Depth, c.Vision.NumHeads = size, patch, vWidth, vDepth, vWidth/64
	c.Text.VocabSize, c.Text.Width, c.Text.Depth, c.Text.NumHeads = 49408, tWidth, tDepth, tWidth/64
	return c
}

// with16Heads gives the largest image towers their 16 heads and the MLP's ratio, which is not 4 in all.
func with16Heads(c Config, mlpRatio float64) Config {
	c.Vision.NumHeads, c.Vision.MLPRatio = 16, mlpRatio
	return c
}

// layerScaled gives the image tower learned factors that begin at first.
func layerScaled(c Config, first float64) Config {
	c.Vision.LayerScale = first
	return c
}

// Presets are the dual encoders that open_clip has towers and CLIP's vocabulary for, under its names. Those whose names end in quickgelu
// have QuickGELU, as OpenAI's weights want.
var Presets = withQuickGELU(map[string]Config{
	"ViT-S-32-alt":      preset(256, 224, 32, 384, 12, 256, 10),
	"ViT-S-16-alt":      preset(256, 224, 16, 384, 12, 256, 10),
	"ViT-S-32":          preset(384, 224, 32, 384, 12, 384, 12),
	"ViT-S-16":          preset(384, 224, 16, 384, 12, 384, 12),
	"ViT-M-32-alt":      preset(384, 224, 32, 512, 12, 384, 12),
	"ViT-M-16-alt":      layerScaled(preset(384, 224, 16, 512, 12, 384, 12), 1e-4),
	"ViT-M-32":          preset(512, 224, 32, 512, 12, 512, 12),
	"ViT-M-16":          preset(512, 224, 16, 512, 12, 512, 12),
	"ViT-B-32":          preset(512, 224, 32, 768, 12, 512, 12),
	"ViT-B-32-256":      preset(512, 256, 32, 768, 12, 512, 12),
	"ViT-B-16":          preset(512, 224, 16, 768, 12, 512, 12),
	"ViT-B-32-plus-256": preset(640, 256, 32, 896, 12, 640, 12),
	"ViT-B-16-plus":     preset(640, 224, 16, 896, 12, 640, 12),
	"ViT-B-16-plus-240": preset(640, 240, 16, 896, 12, 640, 12),
	"ViT-L-16":          preset(768, 224, 16, 1024, 24, 768, 12),
	"ViT-L-16-320":      preset(768, 320, 16, 1024, 24, 768, 12),
	"ViT-L-14":          preset(768, 224, 14, 1024, 24, 768, 12),
	"ViT-L-14-280":      preset(768, 280, 14, 1024, 24, 768, 12),
	"ViT-L-14-336":      preset(768, 336, 14, 1024, 24, 768, 12),
	"ViT-H-16":          with16Heads(preset(1024, 224, 16, 1280, 32, 1024, 24), 4),
	"ViT-H-14":          with16Heads(preset(1024, 224, 14, 1280, 32, 1024, 24), 4),
	"ViT-H-14-378":      with16Heads(preset(1024, 378, 14, 1280, 32, 1024, 24), 4),
	"ViT-g-14":          with16Heads(preset(1024, 224, 14, 1408, 40, 1024, 24), 4.3637),
	"ViT-bigG-14":       with16Heads(preset(1280, 224, 14, 1664, 48, 1280, 32), 4.9231),
}, "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-378", "ViT-bigG-14")

// withQuickGELU adds a variant of each of some presets.
func withQuickGELU(presets map[string]Config, names ...string) map[string]Config {
	for _, name := range names {
		c := presets[name]
		c.Vision.Activation, c.Text.Activation = "quick_gelu", "quick_gelu"
		presets[name+"-quickgelu"] = c
	}
	return presets
}
