package model

import (
	"errors"
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// ViLTConfig describes the single-stream transformer of Kim et al. 2021, §3.1 (spec/vilt 1): words and linear patch embeddings
// in one sequence.
type ViLTConfig struct {
	Transformer   `yaml:",inline"` // layerNormEps is the trunk's
	ImageSize     int              `yaml:"imageSize"`     // S, pixels: the shorter side of pictures; positions are learned for (S/P)² patches
	LongestSide   int              `yaml:"longestSide"`   // pixels: the longer side at most; 0: what min_max_resize gives, ⌊1333/800·S⌋ in whole patches
	PatchSize     int              `yaml:"patchSize"`     // P, pixels
	MaxPatches    int              `yaml:"maxPatches"`    // of a picture with more, so many are drawn in training; 0: all are taken
	ContextLength int              `yaml:"contextLength"` // L, longest text in tokens
	VocabSize     int              `yaml:"vocabSize"`     // V; 0 takes the tokenizer's
	EmbedNormEps  float64          `yaml:"embedNormEps"`  // of the text embedding's norm and that of the word and patch heads
	PictureTypes  int              `yaml:"pictureTypes"`  // pictures of a sample that differ by their type row: 1, or 2 for NLVR2
	TieWords      bool             `yaml:"tieWords"`      // the word head's table is that of the word embeddings
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
func DefaultViLT() ViLTConfig {
	return ViLTConfig{
		Transformer:   Transformer{MLPRatio: 4, Activation: "gelu", LayerNormEps: 1e-6, Dropout: 0.1},
		ContextLength: 40, EmbedNormEps: 1e-12, PictureTypes: 1,
	}
}

// ViLTPresets are named configurations.
var ViLTPresets = map[string]ViLTConfig{
	"vilt-b32": viltPreset(384, 32, 200, 768, 12, 12),
	"vilt-s16": viltPreset(128, 16, 0, 384, 6, 6),
	"vilt-ti8": viltPreset(48, 8, 0, 192, 4, 3),
}

func viltPreset(size, patch, most, width, depth, heads int) ViLTConfig {
	c := DefaultViLT()
	c.ImageSize, c.PatchSize, c.MaxPatches = size, patch, most
	c.Width, c.Depth, c.NumHeads, c.VocabSize = width, depth, heads, 30522
	return c
}

// Validate reports every fault at once.
func (c *ViLTConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("model.vilt."+format, args...)) }
	c.Transformer.validate(bad)
	if c.PatchSize < 1 || c.ImageSize < 1 || c.ImageSize > maxSide || c.PatchSize > 0 && (c.ImageSize%c.PatchSize != 0 || c.ImageSize/c.PatchSize > maxGrid) {
		bad("imageSize: %d pixels in patches of %d, want a multiple, at most %d pixels and %d patches", c.ImageSize, c.PatchSize, maxSide, maxGrid)
	} else if l := c.LongestSide; l != 0 && (l < c.ImageSize || l > maxSide || l%c.PatchSize != 0) {
		bad("longestSide: %d, want 0 or a multiple of patchSize %d, %d to %d", l, c.PatchSize, c.ImageSize, maxSide)
	}
	if c.MaxPatches < 0 {
		bad("maxPatches: %d, want 0 or more", c.MaxPatches)
	}
	if l := c.ContextLength; l < 3 || l > maxLength {
		bad("contextLength: %d, want 3 (a token between two marks) to %d", l, maxLength)
	}
	if c.VocabSize < 1 || c.VocabSize > maxSize {
		bad("vocabSize: %d, want 1 to %d", c.VocabSize, maxSize)
	}
	if !(c.EmbedNormEps > 0 && c.EmbedNormEps <= 1) {
		bad("embedNormEps: %v, want (0, 1]", c.EmbedNormEps)
	}
	if c.PictureTypes != 1 && c.PictureTypes != 2 {
		bad("pictureTypes: %d, want 1 or 2", c.PictureTypes)
	}
	if c.DropPath != 0 {
		bad("dropPath: %v, this model has none", c.DropPath)
	}
	return errors.Join(errs...)
}

// Grid returns the patches along a side that positions are learned for.
func (c *ViLTConfig) Grid() int { return c.ImageSize / c.PatchSize }

// MostPatches returns how many patches a picture has in a sequence at most. A picture's shorter side is at most ImageSize.
func (c *ViLTConfig) MostPatches() int {
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
	Config ViLTConfig
	Heads  ViLTHeads
	Layout Layout

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
func NewViLT(cfg ViLTConfig, heads ViLTHeads) (*ViLT, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &ViLT{Config: cfg, Heads: heads}
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
	m.patch = linear{l.add("transformer.patch_embed.proj.weight", fanIn(3*p*p), d, 3, p, p), l.add("transformer.patch_embed.proj.bias", fanIn(3*p*p), d)}
	if heads.Color {
		m.maskToken = table("transformer.mask_token", 1, 1, d)
	}
	act, err := kernel.ParseAct(cfg.Activation)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m.trunk = &transformer{cfg: cfg.Transformer, act: act}
	hidden := int(cfg.MLPRatio * float64(d))
	for i := range cfg.Depth {
		name := fmt.Sprintf("transformer.blocks.%d", i)
		m.trunk.blocks = append(m.trunk.blocks, block{
			name: name,
			ln1:  l.addNorm(name+".norm1", d, cfg.LayerNormEps),
			qkv:  dense(name+".attn.qkv", d, 3*d), out: dense(name+".attn.proj", d, d),
			ln2: l.addNorm(name+".norm2", d, cfg.LayerNormEps),
			fc:  dense(name+".mlp.fc1", d, hidden), pr: dense(name+".mlp.fc2", hidden, d),
		})
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
	d, drop := m.Config.Width, m.Config.Dropout
	x := g.Embed(texts.ids, m.words.node(g), m.textPos.node(g), texts.seqs) // (Rt, D)
	x = m.textNorm.forward(g, g.AddRow(x, m.textTypes.rows(g, 0, 1)))
	x = g.Dropout(x, drop, pass+".text.embed", texts.seqs)
	x = g.AddRow(x, m.types.rows(g, 0, 1))

	y := g.EmbedPatches(pics.pics, m.patch.w.node(g), m.patch.b.node(g)) // (patches, D)
	if masked != nil {
		y = g.ReplaceRows(y, m.maskToken.table(g, d), masked)
	}
	y = g.PictureTokens(pics.pics, y, m.class.table(g, d), m.pos.table(g, d), m.Config.Grid()) // (patches + pictures, D)
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
			h = g.CrossAttention(q, read.Seqs, kv, seqs, t.cfg.NumHeads)
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

// WordHidden is the word head before its vocabulary layer: (rows, D) -> (rows, D); WordTable and WordBias are that layer's.
func (m *ViLT) WordHidden(g *ops.Graph, x *ops.Node) *ops.Node {
	return m.transform(g, m.wordTransform, x)
}

// WordTable is the vocabulary layer's weight (V, D) and bias (V).
func (m *ViLT) WordTable(g *ops.Graph) (table, bias *ops.Node) {
	return m.wordTable.node(g), m.wordBias.node(g)
}

// WordLogits are the scores of every word at each row: (rows, D) -> (rows, V).
func (m *ViLT) WordLogits(g *ops.Graph, x *ops.Node) *ops.Node {
	table, bias := m.WordTable(g)
	return g.Linear(m.WordHidden(g, x), table, bias, ops.LinearOpt{})
}

// ColorLogits are the scores of the 256 levels of each channel's mean at each row: (rows, D) -> (rows, 3·256).
func (m *ViLT) ColorLogits(g *ops.Graph, x *ops.Node) *ops.Node {
	return m.color.forward(g, m.transform(g, m.colorTransform, x), ops.LinearOpt{})
}

// ClassLogits are the scores of a classifier on pooled rows, those of two pictures side by side: (B, PictureTypes·D) -> (B, K).
func (m *ViLT) ClassLogits(g *ops.Graph, pooled *ops.Node) *ops.Node {
	h := m.classify.norm.forward(g, m.classify.first.forward(g, pooled, ops.LinearOpt{}))
	return m.classify.last.forward(g, g.Act(h, kernel.ActGELU), ops.LinearOpt{})
}
