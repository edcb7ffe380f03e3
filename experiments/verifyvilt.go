package experiments

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"diptych/checkpoints/bridge"
	"diptych/checkpoints/safetensors"
	"diptych/internal/kernel"
	"diptych/model"
	"diptych/ops"
)

// pairCase computes a fixture of a model of pairs, Hugging Face's or the authors'.
type pairCase struct {
	f       *Fixture
	m       *model.ViLT
	slab    []float32 // weights
	pool    *kernel.Pool
	threads int
	results map[string][]float32
}

// compute finds out from the names of the fixture's inputs and the model's heads what was computed, and computes it.
func (c *pairCase) compute() error {
	switch h := c.m.Heads; {
	case c.f.has("in.masked_labels"):
		return c.pretrain()
	case c.f.has("in.false_text_ids"):
		return c.ranking()
	case h.Classes > 0:
		return c.classes()
	case h.Words && c.f.has("in.masked_ids"):
		return c.words()
	}
	return c.match()
}

// reading is a pass of the trunk: sentences, each with a picture.
type reading struct {
	texts   [][]int32
	pics    []ops.Picture
	picture int           // 0, or 1 for the second of a sentence
	take    [][]ops.Patch // nil: all patches
}

// texts returns the rows of a tensor of ids (…, L) without what its mask hides.
func (c *pairCase) texts(ids, mask string) ([][]int32, error) {
	v, err := c.f.io.Ints(ids)
	if err != nil {
		return nil, err
	}
	keep, err := c.f.io.Ints(mask)
	if err != nil {
		return nil, err
	}
	_, shape := c.f.first(ids)
	if len(keep) != len(v) || len(v) == 0 || len(shape) == 0 {
		return nil, fmt.Errorf("%s %v has no rows, or other elements than %s", ids, shape, mask)
	}
	length := shape[len(shape)-1]
	var out [][]int32
	for row := range slices.Chunk(v, length) {
		var text []int32
		for j, id := range row {
			if keep[len(out)*length+j] != 0 {
				text = append(text, int32(id))
			}
		}
		out = append(out, text)
	}
	return out, nil
}

// longest is how many tokens the longest sentence has.
func longest(texts [][]int32) int {
	n := 0
	for _, ids := range texts {
		n = max(n, len(ids))
	}
	return n
}

// pictures returns picture j of n of each sample of a tensor (B, [n,] 3, H, W), cut out of its top left corner: as far as pixels are not zero.
func (c *pairCase) pictures(name string, j, n int) ([]ops.Picture, error) {
	v, shape, err := c.f.io.Float32(name)
	if err != nil {
		return nil, err
	}
	if len(shape) < 3 || shape[len(shape)-3] != 3 || len(v) == 0 {
		return nil, fmt.Errorf("%s has shape %v, want (…, 3, H, W)", name, shape)
	}
	h, w := shape[len(shape)-2], shape[len(shape)-1]
	var out []ops.Picture
	for i := j; i < len(v)/(3*h*w); i += n {
		out = append(out, cutOut(v[i*3*h*w:(i+1)*3*h*w], h, w))
	}
	return out, nil
}

// cutOut returns the picture in the top left corner of a canvas (3, h, w): the authors' code too finds its sides by the pixels of the first row and column
// whose channels do not sum to zero.
func cutOut(canvas []float32, h, w int) ops.Picture {
	on := func(y, x int) bool { return canvas[y*w+x]+canvas[h*w+y*w+x]+canvas[2*h*w+y*w+x] != 0 }
	p := ops.Picture{}
	for p.W < w && on(0, p.W) {
		p.W++
	}
	for p.H < h && on(p.H, 0) {
		p.H++
	}
	for ch := range 3 {
		for y := range p.H {
			p.F32 = append(p.F32, canvas[(ch*h+y)*w:][:p.W]...)
		}
	}
	return p
}

// pairGraph is a program over pairs while it is built.
type pairGraph struct {
	*pairCase
	g     *ops.Graph
	binds []func(p *ops.Program) error
}

func (c *pairCase) graph() *pairGraph { return &pairGraph{pairCase: c, g: ops.NewGraph[float32]()} }

// embed adds the rows that the trunk reads.
func (b *pairGraph) embed(pass string, r reading) *model.Stream {
	texts := b.m.NewTexts(b.g, pass+".text", len(r.texts))
	images := b.m.NewImages(b.g, pass+".image", len(r.pics), [3]float32{}, [3]float32{1, 1, 1})
	b.binds = append(b.binds, func(p *ops.Program) error {
		if r.take != nil {
			images.Shapes.SetTaken(p, r.pics, r.take)
		} else if err := images.Shapes.Set(p, r.pics, nil); err != nil {
			return err
		}
		return texts.Set(p, r.texts)
	})
	return b.m.Embed(b.g, texts, images.Shapes, pass, r.picture, nil)
}

// pooled adds a whole pass -> the pooler's rows (B, D).
func (b *pairGraph) pooled(pass string, r reading) *ops.Node {
	s := b.embed(pass, r)
	if b.g.Err() != nil {
		return nil
	}
	return b.m.Pool(b.g, b.m.Encode(b.g, s, b.g.First(s.Joined.Seqs)))
}

// run computes outputs. slope, where not nil, gives the derivatives of a loss by the last of them, and then grads are those by the parameters.
func (b *pairGraph) run(slope func(last []float32) []float32, outputs ...*ops.Node) (values [][]float32, grads []float32, err error) {
	if err := b.g.Err(); err != nil {
		return nil, nil, err
	}
	p, err := b.g.Compile(ops.CompileOpt[float32]{Outputs: outputs, ForwardOnly: slope == nil})
	if err != nil {
		return nil, nil, err
	}
	defer p.Close()
	arena := kernel.NewSlab(p.ArenaSize())
	defer kernel.FreeSlab(arena)
	if slope != nil {
		grads = make([]float32, len(b.slab))
	}
	p.Bind(&ops.Run[float32]{Weights: b.slab, Grads: grads, Arena: arena, Pool: b.pool, Train: slope != nil})
	for _, bind := range b.binds {
		if err := bind(p); err != nil {
			return nil, nil, err
		}
	}
	if err := p.Forward(); err != nil {
		return nil, nil, err
	}
	for _, n := range outputs {
		values = append(values, slices.Clone(p.Value(n)))
	}
	if slope == nil {
		return values, nil, nil
	}
	last := len(outputs) - 1
	for i, n := range outputs {
		d := make([]float32, len(values[i]))
		if i == last {
			d = slope(values[i])
		}
		p.SetOutputGrad(n, d)
	}
	return values, grads, p.Backward()
}

// put sets a result under each of several names.
func (c *pairCase) put(values []float32, names ...string) {
	for _, n := range names {
		c.results[n] = values
	}
}

// place puts rows of values at those rows of the stored tensor of that name, if there is one. Its other rows are padding, which nothing depends on
// and which is not computed here: they stay as they are stored.
func (c *pairCase) place(name string, values []float32, rows ...int) error {
	want, shape, err := c.f.io.Float32(name)
	if errors.Is(err, safetensors.ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(shape) == 0 {
		return fmt.Errorf("%s is one number, want rows", name)
	}
	width := shape[len(shape)-1]
	if len(rows)*width != len(values) || slices.Max(rows) >= len(want)/max(width, 1) {
		c.results[name] = values // of another shape
		return nil
	}
	for i, row := range rows {
		copy(want[row*width:(row+1)*width], values[i*width:])
	}
	c.results[name] = want
	return nil
}

// after returns n numbers from first on.
func after(first, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = first + i
	}
	return out
}

// states computes the rows after the last norm, of words, of the class slot and of patches, and the pooled ones, under the names of both libraries.
func (c *pairCase) states(prefix string, r reading) error {
	b := c.graph()
	s := b.embed("states", r)
	if err := b.g.Err(); err != nil {
		return err
	}
	all := b.m.Encode(b.g, s, nil)
	pooled := b.m.Pool(b.g, b.g.Gather(all, b.g.First(s.Joined.Seqs).Rows))
	values, _, err := b.run(nil, all, pooled)
	if err != nil {
		return err
	}
	c.put(values[1], prefix+"pooled", prefix+"cls_feats")
	var text, class, feats []float32
	var textRows, featRows []int
	_, textShape := c.f.first(prefix+"text_hidden", prefix+"text_feats")
	_, featShape := c.f.first(prefix + "image_feats")
	d, rows := c.m.Config.Vision.Width, values[0]
	for i, ids := range r.texts {
		pic, p := r.pics[i], c.m.Config.Vision.PatchSize
		n := len(ids)
		patches := pic.W / p * (pic.H / p)
		text, class = append(text, rows[:n*d]...), append(class, rows[n*d:(n+1)*d]...)
		feats = append(feats, rows[n*d:(n+1+patches)*d]...)
		c.put(rows[(n+1)*d:(n+1+patches)*d], fmt.Sprintf("%simage_hidden.%d", prefix, i))
		if len(textShape) == 3 {
			textRows = append(textRows, after(i*textShape[1], n)...)
		}
		if len(featShape) == 3 {
			featRows = append(featRows, after(i*featShape[1], 1+patches)...)
		}
		rows = rows[(n+1+patches)*d:]
	}
	c.put(class, prefix+"image_cls")
	for _, x := range []struct {
		name   string
		values []float32
		rows   []int
	}{{"text_hidden", text, textRows}, {"text_feats", text, textRows}, {"image_feats", feats, featRows}} {
		if len(x.rows) > 0 {
			if err := c.place(prefix+x.name, x.values, x.rows...); err != nil {
				return err
			}
		}
	}
	return nil
}

// gradients puts gradients under the names that the fixture has them by.
func (c *pairCase) gradients(grads []float32) error {
	named, err := bridge.Named(c.f.gradients(), c.m.Layout.Params, grads)
	for name, v := range named {
		c.put(v, "grad."+name)
	}
	return err
}

// gradients lists the parameters whose gradients the fixture stores.
func (f *Fixture) gradients() (names []string) {
	for _, name := range f.io.Names() {
		if p, ok := strings.CutPrefix(name, "grad."); ok && !strings.HasPrefix(p, "tied.") {
			names = append(names, p)
		}
	}
	return names
}

// own reads the pairs of a fixture with one picture for each sentence.
func (c *pairCase) own() (r reading, err error) {
	ids, _ := c.f.first("in.masked_ids", "in.input_ids", "in.text_ids")
	mask, _ := c.f.first("in.attention_mask", "in.text_masks")
	image, _ := c.f.first("in.pixel_values", "in.image")
	if r.texts, err = c.texts(ids, mask); err == nil {
		r.pics, err = c.pictures(image, 0, 1)
	}
	if err == nil && len(r.texts) != len(r.pics) {
		err = fmt.Errorf("%d sentences and %d pictures", len(r.texts), len(r.pics))
	}
	return r, err
}

// labels reads n classes of k; below 0 is none.
func (c *pairCase) labels(name string, n, k int) ([]int64, error) {
	v, err := c.f.io.Ints(name)
	if err == nil && len(v) != n {
		err = fmt.Errorf("%s has %d elements, want %d", name, len(v), n)
	}
	for _, label := range v {
		if err == nil && label >= int64(k) {
			err = fmt.Errorf("%s: %d is none of %d classes", name, label, k)
		}
	}
	return v, err
}

// match computes the matching scores, or the rank's, or, of a model without such a head, the states alone.
func (c *pairCase) match() error {
	r, err := c.own()
	if err != nil {
		return err
	}
	if err := c.states("out.", r); err != nil {
		return err
	}
	h := c.m.Heads
	if !h.Match && !h.Rank {
		return nil
	}
	scores := func(b *pairGraph, pooled *ops.Node) *ops.Node {
		if h.Match {
			return b.m.MatchLogits(b.g, pooled)
		}
		return b.m.RankScore(b.g, pooled)
	}
	var slope func(last []float32) []float32
	if h.Match && c.f.has("in.labels") {
		labels, err := c.labels("in.labels", len(r.texts), 2)
		if err != nil {
			return err
		}
		slope = func(logits []float32) []float32 {
			loss, d := crossEntropy(logits, labels, 2)
			c.put([]float32{loss}, "loss.itm")
			return d
		}
	}
	b := c.graph()
	values, grads, err := b.run(slope, scores(b, b.pooled("match", r)))
	if err != nil {
		return err
	}
	c.put(values[0], "out.logits")
	if slope != nil {
		if err := c.gradients(grads); err != nil {
			return err
		}
	}
	if !c.f.has("in.select") {
		return nil
	}
	if r.take, err = c.taken("in.select", r.pics); err != nil {
		return err
	}
	b = c.graph()
	values, _, err = b.run(nil, scores(b, b.pooled("match", r)))
	if err == nil {
		c.put(values[0], "out.selected.logits")
	}
	return err
}

// taken reads which of a picture's own patches, by their number in raster order, are taken.
func (c *pairCase) taken(name string, pics []ops.Picture) (take [][]ops.Patch, err error) {
	v, err := c.f.io.Ints(name)
	if err != nil {
		return nil, err
	}
	for i, pic := range pics {
		cols := int64(pic.W / c.m.Config.Vision.PatchSize)
		var list []ops.Patch
		for _, k := range v[i*len(v)/len(pics) : (i+1)*len(v)/len(pics)] {
			list = append(list, ops.Patch{Row: int32(k / max(cols, 1)), Col: int32(k % max(cols, 1))})
		}
		take = append(take, list)
	}
	return take, nil
}

// words computes the scores of the vocabulary at every word, and the loss over the masked ones; where the fixture has that, also with the head's table
// tied to the word embeddings.
func (c *pairCase) words() error {
	r, err := c.own()
	if err != nil {
		return err
	}
	if err := c.states("out.", r); err != nil {
		return err
	}
	if err := c.wordScores(r, "out.", "loss.mlm"); err != nil {
		return err
	}
	if !c.f.has("out.tied.logits") || c.m.Config.ViLT.TieWords {
		return nil
	}
	config := c.m.Config
	config.ViLT.TieWords = true
	tied := *c
	if tied.m, err = model.NewViLT(config, c.m.Heads); err != nil {
		return err
	}
	tied.slab = make([]float32, tied.m.Layout.Size)
	for _, p := range tied.m.Layout.Params {
		copy(p.Slice(tied.slab), c.m.Layout.Find(p.Name).Slice(c.slab))
	}
	return tied.wordScores(r, "out.tied.", "loss.tied.mlm")
}

func (c *pairCase) wordScores(r reading, prefix, loss string) error {
	_, shape := c.f.first("in.labels")
	if len(shape) != 2 || shape[1] < longest(r.texts) {
		return fmt.Errorf("in.labels has shape %v, want (B, L) for sentences of up to %d tokens", shape, longest(r.texts))
	}
	length := shape[1]
	labels, err := c.labels("in.labels", len(r.texts)*length, c.m.Config.Text.VocabSize)
	if err != nil {
		return err
	}
	var every, masked []int32 // rows of the packed sentences
	var stored []int          // where they lie in the padded ones
	var classes []int64
	for i, ids := range r.texts {
		for j := range ids {
			if label := labels[i*length+j]; label >= 0 {
				masked, classes = append(masked, int32(len(every))), append(classes, label)
			}
			stored = append(stored, i*length+j)
			every = append(every, int32(len(every)))
		}
	}
	scores := func(rows []int32, slope func([]float32) []float32) ([]float32, []float32, error) {
		b := c.graph()
		s := b.embed("words", r)
		list := b.g.Ints("rows", len(rows))
		b.binds = append(b.binds, func(p *ops.Program) error { p.SetInts(list, rows); return nil })
		if err := b.g.Err(); err != nil {
			return nil, nil, err
		}
		values, grads, err := b.run(slope, b.m.WordLogits(b.g, b.m.Encode(b.g, s, b.g.Pick(s.Joined, list))))
		if err != nil {
			return nil, nil, err
		}
		return values[0], grads, nil
	}
	logits, _, err := scores(every, nil)
	if err == nil {
		err = c.place(prefix+"logits", logits, stored...)
	}
	if err != nil || len(masked) == 0 {
		return err
	}
	_, grads, err := scores(masked, func(logits []float32) []float32 {
		value, d := crossEntropy(logits, classes, c.m.Config.Text.VocabSize)
		c.put([]float32{value}, loss)
		return d
	})
	if err != nil {
		return err
	}
	if c.m.Config.ViLT.TieWords {
		c.put(c.m.Layout.Find("text_embeddings.word_embeddings.weight").Slice(grads), "grad.tied.word_embeddings")
		if prefix != "out." {
			return nil
		}
	}
	return c.gradients(grads)
}

// crossEntropy returns the mean of -log softmax(row)[label] over rows of k logits, in nats, and its derivatives.
func crossEntropy(logits []float32, labels []int64, k int) (loss float32, d []float32) {
	sum := 0.0
	d = make([]float32, len(logits))
	for i, label := range labels {
		row := logits[i*k : (i+1)*k]
		nll, _ := softmaxNLL(row, int(label))
		sum += nll
		all := nll + float64(row[label]) // log Σ exp
		for j, x := range row {
			p := math.Exp(float64(x) - all)
			if j == int(label) {
				p--
			}
			d[i*k+j] = float32(p / float64(len(labels)))
		}
	}
	return float32(sum / float64(len(labels))), d
}
