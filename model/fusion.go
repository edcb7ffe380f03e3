package model

import (
	"fmt"

	"diptych/internal/kernel"
	"diptych/ops"
)

// FusionParts are the keys that only a model of two towers and a fusion has (Li et al. 2021, §3.1; spec/albef-vlmo-beit3 A1). Its
// image tower is model.vision's, its text tower model.text's BERT, whose width, heads and MLP the fusion blocks share.
type FusionParts struct {
	Depth int `yaml:"depth"` // fusion blocks
}

// DefaultFusion is ALBEF's form at no particular size.
func DefaultFusion() Config {
	c := Default()
	c.Kind, c.InitScheme = "fusion", "timm"
	c.Vision = DefaultViT().Vision
	c.Text = Text{
		Kind: "bert", Pool: "cls", ContextLength: 30,
		Transformer: Transformer{MLPRatio: 4, Activation: "gelu", LayerNormEps: 1e-12, Dropout: 0.1},
	}
	return c
}

// FusionPresets are named configurations: ALBEF's, and small ones.
var FusionPresets = map[string]Config{
	"albef":      fusionPreset(256, 256, 16, 768, 12, 12, 768, 6, 12, 6),
	"fusion-s16": fusionPreset(128, 128, 16, 384, 6, 6, 384, 3, 6, 3),
	"fusion-ti8": fusionPreset(128, 48, 8, 128, 3, 4, 128, 2, 4, 2),
}

func fusionPreset(embed, size, patch, width, depth, heads, textWidth, textDepth, textHeads, fusionDepth int) Config {
	c := DefaultFusion()
	v, t := &c.Vision, &c.Text
	v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads = size, patch, width, depth, heads
	t.Width, t.Depth, t.NumHeads, t.VocabSize = textWidth, textDepth, textHeads, 30522
	c.EmbedDim, c.Fusion.Depth = embed, fusionDepth
	return c
}

// validateFusion checks what only two towers with a fusion have.
func (c *Config) validateFusion(bad func(format string, args ...any)) {
	c.validateTowers(bad)
	if d := c.Fusion.Depth; d < 1 || d > maxDepth {
		bad("fusion.depth: %d, want 1 to %d", d, maxDepth)
	}
	v, t := &c.Vision, &c.Text
	if t.Kind != "bert" || t.Pool != "cls" || t.Projection != "" {
		bad("text: a %s has kind bert, pool cls and a projection, not kind %q, pool %q, projection %q", c.Kind, t.Kind, t.Pool, t.Projection)
	}
	if v.Pool != "cls" || v.NormAfterPool {
		bad("vision: a %s has pool cls after the last norm, not pool %q, normAfterPool %v", c.Kind, v.Pool, v.NormAfterPool)
	}
	absent(bad, c.Kind, "text.weights", t.Weights)
}

// Fusion is a dual encoder whose towers' tokens meet in fusion blocks, ALBEF's form: the rows of a sentence attend to themselves
// and then to the tokens of a picture. Parameters have the authors' names but for the prefix text_encoder and the temperature,
// which is the dual encoders' logit_scale; query, key and value matrices lie one under the other.
//
// A tower's rows belong to the input that they are computed of, so that whoever asks for those of one input gets the same nodes.
type Fusion struct {
	Config Config
	Layout Layout

	logitScale, logitBias     *Param // (); the second nil unless a loss reads it
	visual                    *visionTower
	text                      *bertTower
	imageProject, textProject linear // (E, D)
	blocks                    []fusionBlock

	match         linear // (2, D)
	wordTransform transform
	wordBias      *Param // (V)
}

// fusionBlock is a block of BERT with cross-attention between its two halves.
type fusionBlock struct {
	block
	query, keyValue, crossOut linear // (D, D), (2·D, width of the picture's tokens), (D, D)
	crossNorm                 norm
}

// newFusion lays the model out. The configuration must be valid.
func newFusion(c Config, h Heads) (*Fusion, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Fusion{Config: c}
	l, s, v, t := &m.Layout, initSchemes[c.InitScheme], &m.Config.Vision, &m.Config.Text
	m.logitScale = l.add("logit_scale", constant(c.InitLogitScale))
	if h.LogitBias {
		m.logitBias = l.add("logit_bias", constant(c.InitLogitBias))
	}
	var err error
	if m.visual, err = newVisionTower(l, v, s, albefVision); err != nil {
		return nil, err
	}
	first := len(l.Params)
	tower, err := newBERT(l, t, s)
	if err != nil {
		return nil, fmt.Errorf("model: text: %w", err)
	}
	m.text = tower.(*bertTower)
	sentence := l.Params[first:]
	dense := func(name string, in, out int) linear { return l.addLinear(name, in, out, normal(0.02), constant(0)) }
	m.imageProject, m.textProject = dense("vision_proj", v.Width, c.EmbedDim), dense("text_proj", t.Width, c.EmbedDim)
	if h.Match || h.Words {
		for _, p := range sentence { // which passes through the fusion blocks as through those of one tower
			p.Above += c.Fusion.Depth
		}
		for i := range c.Fusion.Depth {
			first := len(l.Params)
			name := fmt.Sprintf("bert.encoder.layer.%d", t.Depth+i)
			b := fusionBlock{block: newBERTBlock(l, name, t)}
			b.query = dense(name+".crossattention.self.query", t.Width, t.Width)
			b.keyValue = dense(name+".crossattention.self.key_value", v.Width, 2*t.Width)
			b.crossOut = dense(name+".crossattention.output.dense", t.Width, t.Width)
			b.crossNorm = l.addNorm(name+".crossattention.output.LayerNorm", t.Width, t.LayerNormEps)
			m.blocks = append(m.blocks, b)
			l.above(first, c.Fusion.Depth-i)
		}
	}
	if h.Match {
		m.match = dense("itm_head", t.Width, 2)
	}
	if h.Words {
		const name = "cls.predictions"
		m.wordTransform = transform{dense(name+".transform.dense", t.Width, t.Width), l.addNorm(name+".transform.LayerNorm", t.Width, t.LayerNormEps)}
		m.wordBias = l.add(name+".bias", constant(0), t.VocabSize)
	}
	return m, nil
}

// Parameters returns the order of the parameters in a slab.
func (m *Fusion) Parameters() *Layout { return &m.Layout }

// Clamp keeps the scale within [0, ln 100] after an update.
func (m *Fusion) Clamp(weights []float32) { clampScale(m.logitScale, weights) }

// NewImages makes an input of pictures.
func (m *Fusion) NewImages(g *ops.Graph, name string, n int, mean, std [3]float32) *ImageInput {
	return newImageInput(g, name, &m.Config.Vision, n, mean, std)
}

// NewTexts makes an input of texts.
func (m *Fusion) NewTexts(g *ops.Graph, name string, n int) *TextInput {
	return newTextInput(g, name, &m.Config.Text, n)
}

// EmbedDim returns E, the width of the joint space.
func (m *Fusion) EmbedDim() int { return m.Config.EmbedDim }

// Scale returns the parameters of the log scale and of the sigmoid loss's bias, which is nil unless the model has one.
func (m *Fusion) Scale() (logScale, bias *Param) { return m.logitScale, m.logitBias }

// fused tells whether the model has fusion blocks, so that all rows of the towers are read.
func (m *Fusion) fused() bool { return len(m.blocks) > 0 }

// imageTokens adds the image tower to g: pictures -> all their tokens after the last norm (R, D), and how they divide.
func (m *Fusion) imageTokens(g *ops.Graph, in *ImageInput) (*ops.Node, *ops.Seqs) {
	x := in.once("tokens", func() *ops.Node {
		var x *ops.Node
		x, in.tokenSeqs = m.visual.embed(g, in)
		return m.visual.norm.forward(g, m.visual.trunk.forward(g, x, in.tokenSeqs, nil, in.pass))
	})
	return x, in.tokenSeqs
}

// textTokens adds the text tower to g: packed token ids -> all their rows (R, D).
func (m *Fusion) textTokens(g *ops.Graph, in *TextInput) *ops.Node {
	return in.once("tokens", func() *ops.Node { return m.text.rows(g, in, nil) })
}

// FeatureDim returns D, the width of Features.
func (m *Fusion) FeatureDim() int { return m.Config.Vision.Width }

// Features adds the image tower to g: pictures -> their class tokens (B, D), before the projection to the joint space.
func (m *Fusion) Features(g *ops.Graph, in *ImageInput) *ops.Node {
	return in.once("features", func() *ops.Node {
		if !m.fused() {
			return m.visual.forward(g, in)
		}
		x, _ := m.imageTokens(g, in)
		return g.Gather(x, in.class)
	})
}

// EncodeImage adds the image tower to g: pictures -> imageEmbed (B, E), unit rows.
func (m *Fusion) EncodeImage(g *ops.Graph, in *ImageInput) *ops.Node {
	return in.once("embed", func() *ops.Node {
		return g.L2Normalize(m.imageProject.forward(g, m.Features(g, in), ops.LinearOpt{}), normEps) // (B, E)
	})
}

// EncodeText adds the text tower to g: packed token ids -> textEmbed (B, E), unit rows.
func (m *Fusion) EncodeText(g *ops.Graph, in *TextInput) *ops.Node {
	return in.once("embed", func() *ops.Node {
		var x *ops.Node
		if m.fused() {
			x = g.Gather(m.textTokens(g, in), in.read)
		} else {
			x = m.text.forward(g, in)
		}
		return g.L2Normalize(m.textProject.forward(g, x, ops.LinearOpt{}), normEps) // (B, E)
	})
}

// fuse adds the fusion blocks to g: rows (R, D) of sentences, divided by seqs, each of which reads the tokens of picture reads[i]; reads nil: picture i.
// Of the last block only the rows read are computed -> (rows read, D). pass names the use for dropout.
func (m *Fusion) fuse(g *ops.Graph, x *ops.Node, seqs *ops.Seqs, images *ImageInput, reads *ops.Ints, read *ops.Picked, pass string) *ops.Node {
	x, _, _ = m.fuseAsking(g, x, seqs, images, reads, read, pass)
	return x
}

// attention adds a pass over pairs to g and returns what the last cross-attention compares: the queries of all rows (R, D), and the
// keys and values of the pictures' tokens (R', 2·D).
func (m *Fusion) attention(g *ops.Graph, texts *TextInput, images *ImageInput) []*ops.Node {
	all := &ops.Picked{Rows: g.Every(texts.seqs), Seqs: texts.seqs}
	_, query, keyValue := m.fuseAsking(g, m.textTokens(g, texts), texts.seqs, images, nil, all, "attention")
	return []*ops.Node{query, keyValue}
}

// fuseAsking is fuse, with the last block's queries, and the keys and values that they are compared with.
func (m *Fusion) fuseAsking(g *ops.Graph, x *ops.Node, seqs *ops.Seqs, images *ImageInput, reads *ops.Ints, read *ops.Picked, pass string) (_, query, keyValue *ops.Node) {
	if g.Err() != nil {
		return nil, nil, nil
	}
	t, heads := m.text, m.text.cfg.NumHeads
	d, last := t.cfg.Width, len(m.blocks)-1
	for i := range m.blocks {
		b := &m.blocks[i]
		name := pass + "." + b.name
		tokens, imageSeqs := m.imageTokens(g, images)
		g.BeginBlock()
		keyValue = images.once(b.name, func() *ops.Node { return b.keyValue.forward(g, tokens, ops.LinearOpt{}) }) // (tokens, 2·D)
		own := seqs
		var h *ops.Node
		if i < last {
			h = g.Attention(b.qkv.forward(g, x, ops.LinearOpt{}), seqs, heads, false) // (R, D)
		} else {
			kv := g.Linear(x, b.qkv.w.rows(g, d, 3*d), b.qkv.b.rows(g, d, 3*d), ops.LinearOpt{}) // (R, 2·D)
			x = g.Gather(x, read.Rows)                                                           // (rows read, D)
			q := g.Linear(x, b.qkv.w.rows(g, 0, d), b.qkv.b.rows(g, 0, d), ops.LinearOpt{})
			if read.One() {
				h, own = g.PooledAttention(q, kv, seqs, heads), g.Single(seqs.Count)
			} else {
				h, own = g.CrossAttention(q, read.Seqs, kv, seqs, nil, heads), read.Seqs
			}
		}
		x = t.branch(g, b.out, b.ln1, x, h, name+".attn", own)
		query = b.query.forward(g, x, ops.LinearOpt{})
		h = g.CrossAttention(query, own, keyValue, imageSeqs, reads, heads)
		x = t.branch(g, b.crossOut, b.crossNorm, x, h, name+".cross", own)
		h = b.fc.forward(g, x, ops.LinearOpt{Act: t.act}) // (R, hidden)
		x = t.branch(g, b.pr, b.ln2, x, h, name+".mlp", own)
		g.EndBlock(x)
	}
	return x, query, keyValue
}

// MatchRead adds a pass over sentences, each with picture reads[i], or i if reads is nil, and the scores (B, 2) of "another
// picture" and "its own".
func (m *Fusion) MatchRead(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, reads *ops.Ints) *ops.Node {
	x := m.fuse(g, m.textTokens(g, texts), texts.seqs, images, reads, g.First(texts.seqs), pass)
	return m.match.forward(g, x, ops.LinearOpt{})
}

// MatchHard adds a pass over three pairings of each pair, in this order: its own, its sentence with another picture, its picture
// with another sentence. The others are drawn from the pairs of other groups, from update `after` on by the similarity of the
// towers' embeddings; see ops.HardNegatives. It returns the scores (3·B, 2) of "another picture" and "its own".
func (m *Fusion) MatchHard(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, groups *ops.Ints, after int) *ops.Node {
	neg := g.HardNegatives(m.EncodeImage(g, images), m.EncodeText(g, texts), m.logitScale.node(g), groups, pass, after)
	x, trio := g.Trios(m.textTokens(g, texts), texts.seqs, neg)
	if g.Err() != nil {
		return nil
	}
	x = m.fuse(g, x, trio.Seqs, images, trio.Reads, g.First(trio.Seqs), pass)
	return m.match.forward(g, x, ops.LinearOpt{})
}

// FillWords adds a pass over pairs that guesses the words at the listed rows of the packed sentences, which ascend: the scores are
// hidden·tableᵀ + bias of hidden (rows, D), table (V, D) and bias (V).
func (m *Fusion) FillWords(g *ops.Graph, pass string, texts *TextInput, images *ImageInput, rows *ops.Ints) (hidden, table, bias *ops.Node) {
	x := m.fuse(g, m.textTokens(g, texts), texts.seqs, images, nil, g.PickFrom(texts.seqs, rows), pass) // (rows, D)
	hidden = m.wordTransform.norm.forward(g, m.wordTransform.dense.forward(g, x, ops.LinearOpt{Act: kernel.ActGELU}))
	return hidden, m.text.words.node(g), m.wordBias.node(g)
}
