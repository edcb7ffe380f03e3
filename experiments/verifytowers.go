package experiments

import (
	"fmt"
	"math"
	"strings"

	"diptych/checkpoints/bridge"
	"diptych/data/batch"
	"diptych/internal/kernel"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
	"diptych/optim"
	"diptych/train"
)

// clip computes the outputs of a dual encoder, under open_clip's and transformers' names, and says which objective the fixture differentiates.
func (f *Fixture) clip(m *model.CLIP, b *batch.Batch, slab []float32, pool *kernel.Pool, results map[string][]float32) (string, error) {
	n := len(b.Pairs)
	images, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
		in := m.NewImages(g, "image", n, [3]float32{}, [3]float32{1, 1, 1})
		return []*ops.Node{m.Features(g, in), m.EncodeImage(g, in)}, func(p *ops.Program) error { in.SetFloat(p, b.Normalized, n); return nil }
	})
	if err != nil {
		return "", err
	}
	imageProject, textProject := m.Projections()
	put := func(values []float32, names ...string) {
		for _, name := range names {
			results[name] = values
		}
	}
	raw := project(images[0], imageProject, slab)
	put(f.pooler("out.vision_pooler", images[0], raw), "out.vision_pooler")
	put(images[1], "out.image_features", "out.image_embeds")
	put(raw, "out.image_raw")
	var textEmbed []float32
	for _, key := range []string{"in.text", "in.input_ids", "in.input_ids.zero", "in.input_ids.one", "in.input_ids.eot"} { // the last is what the rest refers to
		ids, err := f.io.Ints(key)
		if err != nil {
			continue
		}
		if len(ids) < n {
			return "", fmt.Errorf("%s has %d ids for %d pictures", key, len(ids), n)
		}
		for i := range b.Pairs {
			b.Pairs[i].Tokens = upToLargest(ids[i*len(ids)/n : (i+1)*len(ids)/n])
		}
		texts, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewTexts(g, "text", n)
			return []*ops.Node{m.TextFeatures(g, in), m.EncodeText(g, in)}, func(p *ops.Program) error {
				rows := make([][]int32, n)
				for i := range rows {
					rows[i] = b.Pairs[i].Tokens
				}
				return in.Set(p, rows)
			}
		})
		if err != nil {
			return "", err
		}
		textEmbed = texts[1]
		put(texts[1], "out.text_features", "out.text_embeds")
		raw := project(texts[0], textProject, slab)
		put(f.pooler("out.text_pooler", texts[0], raw), "out.text_pooler")
		put(raw, "out.text_raw")
		if kind, ok := strings.CutPrefix(key, "in.input_ids."); ok {
			put(raw, "out.text_raw."+kind)
			if kind == "eot" { // a mask and the old way of finding the end change nothing
				put(raw, "out.text_raw.eot_mask", "out.text_raw.legacy_eos")
			}
		}
	}
	if err := f.clipMiddle(m, b, slab, pool, results); err != nil {
		return "", err
	}
	if textEmbed == nil {
		return "", nil
	}
	scale := math.Exp(float64(m.LogitScale.Slice(slab)[0]))
	logits, transposed := make([]float32, n*n), make([]float32, n*n)
	e := m.EmbedDim()
	for i := range n {
		for j := range n {
			dot := 0.0
			for k := range e {
				dot += float64(images[1][i*e+k]) * float64(textEmbed[j*e+k])
			}
			logits[i*n+j], transposed[j*n+i] = float32(scale*dot), float32(scale*dot)
		}
	}
	put([]float32{float32(scale)}, "out.logit_scale")
	put(logits, "out.logits_per_image")
	put(transposed, "out.logits_per_text")
	if name, _ := f.first("loss.contrastive", "loss.clip"); name != "" {
		return "itc", nil
	}
	return "", nil
}

// clipMiddle computes the tokens of the first sample after the norm before the blocks, after each block and after the text's last norm. A stored text row has its padding,
// which a causal tower computes after the text.
func (f *Fixture) clipMiddle(m *model.CLIP, b *batch.Batch, slab []float32, pool *kernel.Pool, results map[string][]float32) error {
	one := b.Normalized[:len(b.Normalized)/len(b.Pairs)]
	for k := range m.Config.Vision.Depth + 1 {
		out, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewImages(g, "image", 1, [3]float32{}, [3]float32{1, 1, 1})
			return []*ops.Node{m.ImageTokens(g, in, k)}, func(p *ops.Program) error { in.SetFloat(p, one, 1); return nil }
		})
		if err != nil {
			return err
		}
		if k == 0 {
			results["out.mid.visual.ln_pre"] = out[0]
		} else {
			results[fmt.Sprintf("out.mid.visual.block%d", k-1)] = out[0]
		}
	}
	ids, err := f.io.Ints("in.text")
	if err != nil {
		return nil // only open_clip's fixtures have them
	}
	row := make([]int32, len(ids)/len(b.Pairs))
	for i := range row {
		row[i] = int32(ids[i])
	}
	depth := m.Config.Text.Depth
	for k := range depth + 1 {
		out, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewTexts(g, "text", 1)
			x := m.TextTokens(g, in, min(k+1, depth))
			if k == depth {
				x = m.TextNorm(g, x)
			}
			return []*ops.Node{x}, func(p *ops.Program) error { return in.Set(p, [][]int32{row}) }
		})
		if err != nil {
			return err
		}
		if k == depth {
			results["out.mid.text.ln_final"] = out[0]
		} else {
			results[fmt.Sprintf("out.mid.text.block%d", k)] = out[0]
		}
	}
	return nil
}

// pooler returns what transformers calls a tower's pooler_output: the row before the projection, or, from version 5 on in what get_image_features and
// get_text_features return, the projected one. The stored width tells which.
func (f *Fixture) pooler(name string, pooled, projected []float32) []float32 {
	if info, err := f.io.Info(name); err == nil && info.Len() == len(projected) {
		return projected
	}
	return pooled
}

// upToLargest cuts a row of token ids after its largest, which ends the text; what follows is padding.
func upToLargest(row []int64) []int32 {
	end := 0
	for j, id := range row {
		if id > row[end] {
			end = j
		}
	}
	out := make([]int32, end+1)
	for j := range out {
		out[j] = int32(row[j])
	}
	return out
}

// project multiplies rows (B, D) with a matrix (D, E) of the slab.
func project(x []float32, p *model.Param, slab []float32) []float32 {
	d, e := p.Shape[0], p.Shape[1]
	w := p.Slice(slab)
	out := make([]float32, len(x)/d*e)
	for i := range len(x) / d {
		for j := range e {
			dot := 0.0
			for k := range d {
				dot += float64(x[i*d+k]) * float64(w[k*e+j])
			}
			out[i*e+j] = float32(dot)
		}
	}
	return out
}

// vit computes the outputs of a classifier.
func (f *Fixture) vit(m *model.ViT, b *batch.Batch, slab []float32, pool *kernel.Pool, results map[string][]float32) (string, error) {
	n := len(b.Pairs)
	out, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
		in := m.NewImages(g, "image", n, [3]float32{}, [3]float32{1, 1, 1})
		pooled := m.Features(g, in)
		outputs := []*ops.Node{pooled}
		if last := m.Scores(g, pooled); last != pooled {
			outputs = append(outputs, last)
		}
		return outputs, func(p *ops.Program) error { in.SetFloat(p, b.Normalized, n); return nil }
	})
	if err != nil {
		return "", err
	}
	last := out[len(out)-1]
	results["out.pooled"], results["out.logits"] = out[0], last
	if m.NumClasses() == 0 {
		results["out.pooler_output"] = last
	}
	depth := m.Config.Vision.Depth
	for k := range depth + 1 {
		tokens, err := forward(slab, pool, func(g *ops.Graph) ([]*ops.Node, func(p *ops.Program) error) {
			in := m.NewImages(g, "image", n, [3]float32{}, [3]float32{1, 1, 1})
			return []*ops.Node{m.Tokens(g, in, min(k+1, depth), k == depth)}, func(p *ops.Program) error { in.SetFloat(p, b.Normalized, n); return nil }
		})
		if err != nil {
			return "", err
		}
		if k == depth {
			results["out.features"], results["out.last_hidden_state"] = tokens[0], tokens[0]
		} else {
			results[fmt.Sprintf("out.mid.block%d", k)] = tokens[0][:len(tokens[0])/n]
		}
	}
	name, _ := f.first("in.label", "in.labels")
	if loss, _ := f.first("loss.cross_entropy"); name == "" || loss == "" {
		return "", nil
	}
	labels, err := f.io.Ints(name)
	if err != nil {
		return "", err
	}
	if len(labels) != n {
		return "", fmt.Errorf("experiments: %s: %s has %d classes for %d pictures", f.Dir, name, len(labels), n)
	}
	for i, l := range labels {
		b.Pairs[i].Label = int32(l)
	}
	return "classify", nil
}

// gradient computes the objective's value and every parameter's gradient.
func (f *Fixture) gradient(m model.Model, objective string, b *batch.Batch, slab []float32, threads int, results map[string][]float32) error {
	n := len(b.Pairs)
	tr, err := train.New(train.Config{Steps: 1, GlobalBatch: n, GrainSize: n, Lanes: 1, KeepLast: 1}, train.Options{
		Model: m, Losses: []losses.Config{{Name: objective, Weight: 1}}, Optim: optim.Default(), Std: [3]float32{1, 1, 1},
		Resources: train.Resources{Workers: 1, Threads: threads},
	})
	if err != nil {
		return err
	}
	defer tr.Close()
	copy(tr.Weights(), slab)
	terms, grads, err := tr.Gradient(b)
	if err != nil {
		return err
	}
	for _, name := range []string{"loss.contrastive", "loss.clip", "loss.cross_entropy"} {
		results[name] = []float32{float32(terms[0])}
	}
	var wanted []string
	for _, name := range f.io.Names() {
		if param, ok := strings.CutPrefix(name, "grad."); ok {
			wanted = append(wanted, param)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	named, err := bridge.Named(wanted, m.Parameters().Params, grads)
	if err != nil {
		return err
	}
	for _, param := range wanted {
		if v, ok := named[param]; ok {
			results["grad."+param] = v
		}
	}
	return nil
}
