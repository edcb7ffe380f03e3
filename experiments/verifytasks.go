package experiments

import (
	"fmt"
	"math"
	"slices"

	"diptych/ops"
)

// classes computes the scores of question answering, with soft targets, or of a statement about two pictures.
func (c *pairCase) classes() error {
	image, shape := c.f.first("in.pixel_values", "in.image", "in.image_0")
	ids, _ := c.f.first("in.input_ids", "in.text_ids")
	mask, _ := c.f.first("in.attention_mask", "in.text_masks")
	texts, err := c.texts(ids, mask)
	if err != nil {
		return err
	}
	pictures := c.m.Config.ViLT.PictureTypes
	b := c.graph()
	var pooled []*ops.Node
	for i := range pictures {
		r := reading{texts: texts, picture: i}
		switch {
		case pictures == 1:
			r.pics, err = c.pictures(image, 0, 1)
		case len(shape) == 5: // Hugging Face's
			r.pics, err = c.pictures(image, i, pictures)
		default:
			r.pics, err = c.pictures(fmt.Sprintf("in.image_%d", i), 0, 1)
		}
		if err != nil {
			return err
		}
		prefix := "out."
		if pictures > 1 {
			prefix = fmt.Sprintf("out.image%d.", i)
		}
		if err := c.states(prefix, r); err != nil {
			return err
		}
		c.put(c.results[prefix+"pooled"], fmt.Sprintf("out.cls_feats.%d", i))
		pooled = append(pooled, b.pooled(fmt.Sprintf("picture%d", i), r))
	}
	if err := b.g.Err(); err != nil {
		return err
	}
	features := pooled[0]
	if pictures > 1 {
		features = b.g.SideBySide(pooled[0], pooled[1])
	}
	slope, err := c.classSlope(len(texts))
	if err != nil {
		return err
	}
	values, grads, err := b.run(slope, b.m.ClassLogits(b.g, features))
	if err != nil {
		return err
	}
	c.put(values[0], "out.logits")
	if grads == nil {
		return nil
	}
	return c.gradients(grads)
}

// classSlope returns the loss's derivatives by the scores of n samples, nil if the fixture has no targets: classes (n), or shares of them (n, K).
func (c *pairCase) classSlope(n int) (func(last []float32) []float32, error) {
	name, shape := c.f.first("in.labels", "in.answers", "in.targets")
	k := c.m.Heads.Classes
	switch {
	case name == "":
		return nil, nil
	case len(shape) == 1:
		labels, err := c.labels(name, n, k)
		return func(logits []float32) []float32 {
			loss, d := crossEntropy(logits, labels, k)
			c.put([]float32{loss}, "loss.nlvr2")
			return d
		}, err
	}
	targets, _, err := c.f.io.Float32(name)
	if err == nil && len(targets) != n*k {
		err = fmt.Errorf("%s has shape %v, want (%d, %d)", name, shape, n, k)
	}
	return func(logits []float32) []float32 {
		loss, score, d := 0.0, 0.0, make([]float32, len(logits))
		for i, y := range targets { // the mean of binary cross-entropy over all, times K
			x := float64(logits[i])
			loss += (math.Max(x, 0) - x*float64(y) + math.Log1p(math.Exp(-math.Abs(x)))) / float64(n)
			d[i] = float32((1/(1+math.Exp(-x)) - float64(y)) / float64(n))
		}
		for i := range n { // what the best answers are worth
			row := logits[i*k : (i+1)*k]
			score += float64(targets[i*k+slices.Index(row, slices.Max(row))])
		}
		c.put([]float32{float32(loss)}, "loss.vqa")
		c.put([]float32{float32(score / float64(n))}, "out.score")
		return d
	}, err
}

// ranking computes the authors' retrieval: a true and several false sentences to each picture; and the scores of every picture with every sentence, of
// which recall is counted.
func (c *pairCase) ranking() error {
	own, err := c.own()
	if err != nil {
		return err
	}
	others, err := c.texts("in.false_text_ids", "in.false_text_masks")
	if err != nil {
		return err
	}
	k := len(others)/len(own.texts) + 1
	var r reading
	for i, text := range own.texts {
		r.texts = append(append(r.texts, text), others[i*(k-1):(i+1)*(k-1)]...)
		r.pics = append(r.pics, slices.Repeat(own.pics[i:i+1], k)...)
	}
	b := c.graph()
	pooled := b.pooled("rank", r)
	if err := b.g.Err(); err != nil {
		return err
	}
	values, grads, err := b.run(func(scores []float32) []float32 {
		loss, d := crossEntropy(scores, make([]int64, len(own.texts)), k)
		c.put([]float32{loss}, "loss.irtr")
		return d
	}, pooled, b.m.RankScore(b.g, pooled))
	if err != nil {
		return err
	}
	c.put(values[0], "out.cls_feats")
	c.put(values[1], "out.scores")
	if err := c.gradients(grads); err != nil || !c.f.has("in.eval_text_ids") {
		return err
	}
	texts, err := c.texts("in.eval_text_ids", "in.eval_text_masks")
	if err != nil {
		return err
	}
	var scores []float32
	for i := 0; c.f.has(fmt.Sprintf("in.eval_image.%d", i)); i++ {
		pics, err := c.pictures(fmt.Sprintf("in.eval_image.%d", i), 0, 1)
		if err != nil {
			return err
		}
		b := c.graph()
		pooled := b.pooled("rank", reading{texts: texts, pics: slices.Repeat(pics, len(texts))})
		if err := b.g.Err(); err != nil {
			return err
		}
		values, _, err := b.run(nil, b.m.RankScore(b.g, pooled))
		if err != nil {
			return err
		}
		scores = append(scores, values[0]...)
	}
	c.put(scores, "out.eval.scores")
	of, err := c.labels("in.eval_text_image", len(texts), len(scores)/len(texts))
	if err != nil {
		return err
	}
	c.put(recalls(scores, of), "out.eval.recalls")
	return nil
}

// recalls returns the share of sentences whose picture, and then of pictures one of whose sentences, is among the best 1, 5 and 10, by scores (pictures,
// sentences). of is the picture of each sentence.
func recalls(scores []float32, of []int64) []float32 {
	texts := len(of)
	pictures := len(scores) / texts
	at := func(i, j int) float32 { return scores[i*texts+j] }
	var best [2][]int // how many are better than the right one, or than the best of the right ones
	for j, i := range of {
		n := 0
		for k := range pictures {
			if at(k, j) > at(int(i), j) {
				n++
			}
		}
		best[0] = append(best[0], n)
	}
	for i := range pictures {
		least := texts
		for j, own := range of {
			n := 0
			for k := range texts {
				if at(i, k) > at(i, j) {
					n++
				}
			}
			if int(own) == i {
				least = min(least, n)
			}
		}
		best[1] = append(best[1], least)
	}
	var out []float32
	for _, ranks := range best {
		for _, k := range []int{1, 5, 10} {
			hits := 0
			for _, r := range ranks {
				if r < k {
					hits++
				}
			}
			out = append(out, float32(hits)/float32(len(ranks)))
		}
	}
	return out
}
