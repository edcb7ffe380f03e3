package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// ViLTParts are the keys that only the single-stream transformer of Kim et al. 2021, §3.1 (spec/vilt 1) has. Its blocks, picture
// size and patches are those of model.vision, the sentence's length and the vocabulary those of model.text.
type ViLTParts struct {
	LongestSide  int     `yaml:"longestSide,omitempty"` // pixels: the longer side at most; 0: what min_max_resize gives, ⌊1333/800·S⌋ in whole patches
	MaxPatches   int     `yaml:"maxPatches,omitempty"`  // of a picture with more, so many are drawn in training; 0: all are taken
	EmbedNormEps float64 `yaml:"embedNormEps"`          // of the text embedding's norm and that of the word and colour heads
	PictureTypes int     `yaml:"pictureTypes"`          // pictures of a sample that differ by their type row: 1, or 2 for NLVR2
	TieWords     bool    `yaml:"tieWords,omitempty"`    // the word head's table is that of the word embeddings
}

// viltConfig is all that the model's form depends on.
type viltConfig struct {
	Transformer // the trunk's
	ViLTParts
	ImageSize, PatchSize     int // S, P, pixels; positions are learned for (S/P)² patches
	ContextLength, VocabSize int // L, V
}

// vilt gathers the keys of a configuration.
func (c *Config) vilt() viltConfig {
	v := &c.Vision
	return viltConfig{v.Transformer, c.ViLT, v.ImageSize, v.PatchSize, c.Text.ContextLength, c.Text.VocabSize}
}

// ViLTHeads are the parts that only some objectives need.
type ViLTHeads struct {
	Match bool // ITM
	Words bool // MLM
	Color bool // MPP: mean colours of masked patches
	Rank  bool // retrieval
	// Classes of a classifier on the pooled rows of PictureTypes pictures; 0: none. ClassName is its prefix in files.
	Classes   int
	ClassName string
}

// DefaultViLT is the paper's form at no particular size.
func DefaultViLT() Config {
	return Config{
		Kind: "vilt", InitScheme: "timm",
		Vision: Vision{
			Transformer: Transformer{MLPRatio: 4, Activation: "gelu", LayerNormEps: 1e-6, Dropout: 0.1},
			Pool:        "cls", ClassToken: true, PatchBias: true, Positions: "learned",
		},
		Text: Text{ContextLength: 40},
		ViLT: ViLTParts{EmbedNormEps: 1e-12, PictureTypes: 1},
	}
}

// ViLTPresets are named configurations: the paper's, and small ones.
var ViLTPresets = map[string]Config{
	"vilt-b32": viltPreset(384, 32, 200, 768, 12, 12),
	"vilt-s16": viltPreset(128, 16, 0, 384, 6, 6),
	"vilt-ti8": viltPreset(48, 8, 0, 192, 4, 3),
}

func viltPreset(size, patch, most, width, depth, heads int) Config {
	c := DefaultViLT()
	v := &c.Vision
	v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads = size, patch, width, depth, heads
	c.ViLT.MaxPatches, c.Text.VocabSize = most, 30522
	return c
}

// validateViLT checks what only a single-stream transformer has.
func (c *Config) validateViLT(bad func(format string, args ...any)) {
	v, p := &c.Vision, &c.ViLT
	if l := p.LongestSide; l != 0 && (l < v.ImageSize || l > maxSide || v.PatchSize > 0 && l%v.PatchSize != 0) {
		bad("vilt.longestSide: %d, want 0 or a multiple of patchSize %d, %d to %d", l, v.PatchSize, v.ImageSize, maxSide)
	}
	if p.MaxPatches < 0 {
		bad("vilt.maxPatches: %d, want 0 (all) or more", p.MaxPatches)
	}
	within(bad, "vilt.embedNormEps", p.EmbedNormEps, p.EmbedNormEps > 0 && p.EmbedNormEps <= 1, "(0, 1]")
	if p.PictureTypes != 1 && p.PictureTypes != 2 {
		bad("vilt.pictureTypes: %d, want 1 or 2", p.PictureTypes)
	}
	if l := c.Text.ContextLength; l < 3 || l > maxLength {
		bad("text.contextLength: %d, want 3 (a token between two marks) to %d", l, maxLength)
	}
	positive(bad, "text.vocabSize", c.Text.VocabSize)
	only := Text{ContextLength: c.Text.ContextLength, VocabSize: c.Text.VocabSize}
	if c.Text != only {
		bad("text: a %s has contextLength and vocabSize alone; its blocks are those of model.vision", c.Kind)
	}
	want := DefaultViLT().Vision
	want.Transformer, want.ImageSize, want.PatchSize = v.Transformer, v.ImageSize, v.PatchSize
	if *v != want {
		bad("vision: a %s has blocks, imageSize and patchSize there, the rest is as it is", c.Kind)
	}
	absent(bad, c.Kind, "vision.dropPath", v.DropPath)
	absent(bad, c.Kind, "vision.layerScale", v.LayerScale)
	absent(bad, c.Kind, "embedDim", c.EmbedDim)
	absent(bad, c.Kind, "initLogitScale", c.InitLogitScale)
	absent(bad, c.Kind, "initLogitBias", c.InitLogitBias)
	absent(bad, c.Kind, "representation", c.Representation)
	absent(bad, c.Kind, "fusion", c.Fusion)
}

// Grid returns the patches along a side that positions are learned for.
func (c *viltConfig) Grid() int { return c.ImageSize / c.PatchSize }

// MostPatches returns how many patches a picture has in a sequence at most. A picture's shorter side is at most ImageSize.
func (c *viltConfig) MostPatches() int {
	longest := c.LongestSide
	if longest == 0 {
		longest = 1333 * c.ImageSize / 800
	}
	n := c.Grid() * (longest / c.PatchSize)
	if c.MaxPatches > 0 {
		n = min(n, c.MaxPatches)
	}
	return n
}

// ViLT is the model. Parameters have the names and shapes of the authors' checkpoints.
type ViLT struct {
	Config Config
	Heads  ViLTHeads
	Layout Layout

	cfg                       viltConfig
	words, textPos, textTypes *Param // (V, D), (L, D), (2, D); of textTypes only the first row is used
	textNorm                  norm
	types                     *Param // (1 + PictureTypes, D): of text, of pictures
	class, pos                *Param // (D), (1 + grid², D)
	patch                     linear
	maskToken                 *Param // (D), nil without the colour head
	trunk                     *transformer
	norm                      norm
	pooler                    linear

	match, rank    linear // (2, D), (1, D)
	wordTransform  transform
	wordTable      *Param // (V, D)
	wordBias       *Param // (V)
	colorTransform transform
	color          linear // (768, D): 3 channels of 256 levels
	classify       classifier
}

// transform is what stands before a decoder: linear, GELU, norm.
type transform struct {
	dense linear
	norm  norm
}

// classifier is the head of VQA and NLVR2: linear, norm, GELU, linear (spec/vilt 1.5).
type classifier struct {
	first, last linear
	norm        norm
}

// classifierEps is PyTorch's default, which the authors left in the classifier's norm.
const classifierEps = 1e-5

// NewViLT lays the model out. The configuration must be valid.
func NewViLT(c Config, heads ViLTHeads) (*ViLT, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	cfg := c.vilt()
	m := &ViLT{Config: c, Heads: heads, cfg: cfg}
	l, d, p := &m.Layout, cfg.Width, cfg.PatchSize
	dense := func(name string, in, out int) linear { return l.addLinear(name, in, out, normal(0.02), constant(0)) }
	table := func(name string, shape ...int) *Param { return l.add(name, normal(0.02), shape...) }
	m.words = table("text_embeddings.word_embeddings.weight", cfg.VocabSize, d)
	m.textPos = table("text_embeddings.position_embeddings.weight", cfg.ContextLength, d)
	m.textTypes = table("text_embeddings.token_type_embeddings.weight", 2, d)
	m.textNorm = l.addNorm("text_embeddings.LayerNorm", d, cfg.EmbedNormEps)
	m.types = table("token_type_embeddings.weight", 1+cfg.PictureTypes, d)
	m.class = table("transformer.cls_token", 1, 1, d)
	m.pos = table("transformer.pos_embed", 1, 1+cfg.Grid()*cfg.Grid(), d)
	m.pos.Grid = [2]int{cfg.Grid(), cfg.Grid()}
	m.patch = linear{l.add("transformer.patch_embed.proj.weight", fanIn(3*p*p), d, 3, p, p), l.add("transformer.patch_embed.proj.bias", fanIn(3*p*p), d)}
	if heads.Color {
		m.maskToken = table("transformer.mask_token", 1, 1, d)
	}
	l.above(0, cfg.Depth+1)
	act, err := kernel.ParseAct(cfg.Activation)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m.trunk = &transformer{cfg: cfg.Transformer, act: act}
	hidden := cfg.hidden()
	for i := range cfg.Depth {
		name, first := fmt.Sprintf("transformer.blocks.%d", i), len(l.Params)
		m.trunk.blocks = append(m.trunk.blocks, block{
			name: name,
			ln1:  l.addNorm(name+".norm1", d, cfg.LayerNormEps),
			qkv:  dense(name+".attn.qkv", d, 3*d), out: dense(name+".attn.proj", d, d),
			ln2: l.addNorm(name+".norm2", d, cfg.LayerNormEps),
			fc:  dense(name+".mlp.fc1", d, hidden), pr: dense(name+".mlp.fc2", hidden, d),
		})
		l.above(first, cfg.Depth-i)
	}
	m.norm = l.addNorm("transformer.norm", d, cfg.LayerNormEps)
	m.pooler = dense("pooler.dense", d, d)
	newTransform := func(name string) transform {
		return transform{dense(name+".transform.dense", d, d), l.addNorm(name+".transform.LayerNorm", d, cfg.EmbedNormEps)}
	}
	if heads.Match {
		m.match = dense("itm_score.fc", d, 2)
	}
	if heads.Words {
		m.wordTransform = newTransform("mlm_score")
		m.wordTable = m.words
		if !cfg.TieWords {
			m.wordTable = table("mlm_score.decoder.weight", cfg.VocabSize, d)
		}
		m.wordBias = l.add("mlm_score.bias", constant(0), cfg.VocabSize)
	}
	if heads.Color {
		m.colorTransform = newTransform("mpp_score")
		m.color = dense("mpp_score.decoder", d, 3*256)
	}
	if heads.Rank {
		m.rank = dense("rank_output", d, 1)
	}
	if heads.Classes > 0 {
		in, mid := cfg.PictureTypes*d, 2*d
		m.classify = classifier{
			first: dense(heads.ClassName+".0", in, mid), norm: l.addNorm(heads.ClassName+".1", mid, classifierEps),
			last: dense(heads.ClassName+".3", mid, heads.Classes),
		}
	}
	return m, nil
}

// addLinear adds the weight (out, in) and the bias of a linear layer.
func (l *Layout) addLinear(name string, in, out int, weight, bias initializer) linear {
	return linear{l.add(name+".weight", weight, out, in), l.add(name+".bias", bias, out)}
}

// table brings a parameter into a graph as a matrix of rows of width elements.
func (p *Param) table(g *ops.Graph, width int) *ops.Node {
	flat := Param{Name: p.Name, Shape: []int{p.Len() / width, width}, Offset: p.Offset, Frozen: p.Frozen}
	return flat.node(g)
}

// Stream is a sentence and a picture as the trunk reads them, for each pair of a grain.
type Stream struct {
	Joined *ops.Joined // sentence first, then class token and patches

	rows *ops.Node // (R, D)
	name string
}

// Embed makes the trunk's rows of sentences and pictures, one picture to a sentence. pass names the use, so that two uses in one
// graph have dropout of their own; picture is 0, or 1 for the second one of NLVR2. masked lists patches that a learned row
// replaces, by their number among all that are taken; nil: none.
func (m *ViLT) Embed(g *ops.Graph, texts *TextInput, pics *PictureInput, pass string, picture int, masked *ops.Ints) *Stream {
	d, drop := m.cfg.Width, m.cfg.Dropout
	x := g.Embed(texts.ids, m.words.node(g), m.textPos.node(g), texts.seqs) // (Rt, D)
	x = m.textNorm.forward(g, g.AddRow(x, m.textTypes.rows(g, 0, 1)))
	x = g.Dropout(x, drop, pass+".text.embed", texts.seqs)
	x = g.AddRow(x, m.types.rows(g, 0, 1))

	y := g.EmbedPatches(pics.pics, m.patch.w.node(g), m.patch.b.node(g)) // (patches, D)
	if masked != nil {
		y = g.ReplaceRows(y, m.maskToken.table(g, d), masked)
	}
	y = g.PictureTokens(pics.pics, y, m.class.table(g, d), m.pos.table(g, d), m.cfg.Grid()) // (patches + pictures, D)
	y = g.Dropout(y, drop, pass+".image.embed", pics.pics.Tokens)
	y = g.AddRow(y, m.types.rows(g, 1+picture, 2+picture))

	rows, joined := g.Concat(x, texts.seqs, y, pics.pics.Tokens) // (R, D)
	return &Stream{Joined: joined, rows: rows, name: pass}
}

// Encode runs the trunk and its last norm. With read only those rows leave the last block -> (rows read, D); nil reads all ->
// (R, D).
func (m *ViLT) Encode(g *ops.Graph, s *Stream, read *ops.Picked) *ops.Node {
	if g.Err() != nil {
		return nil
	}
	return m.norm.forward(g, m.trunk.forwardRead(g, s.rows, s.Joined.Seqs, read, s.name))
}

// forwardRead runs a stack that is not causal on packed rows; of the last block only the rows read are computed, unless read is
// nil. pass names the use for dropout.
func (t *transformer) forwardRead(g *ops.Graph, x *ops.Node, seqs *ops.Seqs, read *ops.Picked, pass string) *ops.Node {
	last := len(t.blocks) - 1
	for i := range t.blocks {
		b := t.blocks[i]
		b.name = pass + "." + b.name
		g.BeginBlock()
		h := b.ln1.forward(g, x)
		if i < last || read == nil {
			h = g.Attention(b.qkv.forward(g, h, ops.LinearOpt{}), seqs, t.cfg.NumHeads, false)
			x = t.finish(g, &b, x, h, seqs)
			g.EndBlock(x)
			continue
		}
		d := t.cfg.Width
		kv := g.Linear(h, b.qkv.w.rows(g, d, 3*d), b.qkv.b.rows(g, d, 3*d), ops.LinearOpt{})                 // (R, 2·D)
		q := g.Linear(g.Gather(h, read.Rows), b.qkv.w.rows(g, 0, d), b.qkv.b.rows(g, 0, d), ops.LinearOpt{}) // (rows read, D)
		if read.One() {
			h = g.PooledAttention(q, kv, seqs, t.cfg.NumHeads)
		} else {
			h = g.CrossAttention(q, read.Seqs, kv, seqs, nil, t.cfg.NumHeads)
		}
		x = t.finish(g, &b, g.Gather(x, read.Rows), h, read.Seqs)
		g.EndBlock(x)
	}
	return x
}

// Pool is the pooler on the first row of each sequence, that of the text's [CLS]: (B, D) -> (B, D).
func (m *ViLT) Pool(g *ops.Graph, first *ops.Node) *ops.Node {
	return m.pooler.forward(g, first, ops.LinearOpt{Act: kernel.ActTanh})
}

// MatchLogits are the scores of "the picture is another" and "it is the sentence's": pooled (B, D) -> (B, 2).
func (m *ViLT) MatchLogits(g *ops.Graph, pooled *ops.Node) *ops.Node {
	return m.match.forward(g, pooled, ops.LinearOpt{})
}

// RankScore is the score of retrieval: pooled (B, D) -> (B, 1).
func (m *ViLT) RankScore(g *ops.Graph, pooled *ops.Node) *ops.Node {
	return m.rank.forward(g, pooled, ops.LinearOpt{})
}

func (m *ViLT) transform(g *ops.Graph, t transform, x *ops.Node) *ops.Node {
	return t.norm.forward(g, t.dense.forward(g, x, ops.LinearOpt{Act: kernel.ActGELU}))
}

// WordHead is the word head at each row: (rows, D) -> hidden (rows, D), table (V, D) and bias (V) of the scores
// hidden·tableᵀ + bias.
func (m *ViLT) WordHead(g *ops.Graph, x *ops.Node) (hidden, table, bias *ops.Node) {
	return m.transform(g, m.wordTransform, x), m.wordTable.node(g), m.wordBias.node(g)
}

// WordLogits are the scores of every word at each row: (rows, D) -> (rows, V).
func (m *ViLT) WordLogits(g *ops.Graph, x *ops.Node) *ops.Node {
	hidden, table, bias := m.WordHead(g, x)
	return g.Linear(hidden, table, bias, ops.LinearOpt{})
}

// colorLogits are the scores of the 256 levels of each channel's mean at each row: (rows, D) -> (rows, 3·256).
func (m *ViLT) colorLogits(g *ops.Graph, x *ops.Node) *ops.Node {
	return m.color.forward(g, m.transform(g, m.colorTransform, x), ops.LinearOpt{})
}

// ClassLogits are the scores of a classifier on pooled rows, those of two pictures side by side: (B, PictureTypes·D) -> (B, K).
func (m *ViLT) ClassLogits(g *ops.Graph, pooled *ops.Node) *ops.Node {
	h := m.classify.norm.forward(g, m.classify.first.forward(g, pooled, ops.LinearOpt{}))
	return m.classify.last.forward(g, g.Act(h, kernel.ActGELU), ops.LinearOpt{})
}
