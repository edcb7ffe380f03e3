package experiments

import (
	"fmt"
	"math"
	"slices"

	"diptych/data/batch"
	"diptych/losses"
	"diptych/ops"
	"diptych/optim"
	"diptych/train"
)

// pretraining is a fixture of the authors' objectives with what they drew: masked words, swapped pictures, masked patches, and, under a cap, the patches
// that were taken.
type pretraining struct {
	*pairCase
	batch  *batch.Batch
	texts  [][]int32
	masked [][]int32     // the sentences with words hidden
	hidden [][]int       // which
	false_ []ops.Picture // for the sentences that are shown another picture
	own    []int64       // 1: a sentence is shown its own
	cols   int           // patches along a canvas
}

// pretrain computes matching, masked words, masked patches and word-patch alignment in one update, as the loop trains them: their values, the gradient of
// their sum and its norms, without and with a cap on patches.
func (c *pairCase) pretrain() error {
	t := &pretraining{pairCase: c, batch: &batch.Batch{}}
	if err := t.read(); err != nil {
		return err
	}
	r := reading{texts: t.texts}
	for i := range t.texts {
		r.pics = append(r.pics, t.shown(i))
	}
	if err := c.states("out.itm.", r); err != nil {
		return err
	}
	b := c.graph()
	values, _, err := b.run(nil, b.m.MatchLogits(b.g, b.pooled("itm", r)))
	if err != nil {
		return err
	}
	c.put(values[0], "out.itm.logits")
	if err := t.words(); err != nil {
		return err
	}
	for _, capped := range []string{"", "capped."} {
		if capped != "" && !c.f.has("in.capped_itm_select") {
			return nil
		}
		if err := t.update(capped); err != nil {
			return err
		}
	}
	return nil
}

// read reads the inputs.
func (t *pretraining) read() (err error) {
	if t.texts, err = t.pairCase.texts("in.text_ids", "in.text_masks"); err != nil {
		return err
	}
	if t.masked, err = t.pairCase.texts("in.masked_ids", "in.text_masks"); err != nil {
		return err
	}
	pics, err := t.pictures("in.image", 0, 1)
	if err != nil {
		return err
	}
	if t.false_, err = t.pictures("in.false_image", 0, 1); err != nil {
		return err
	}
	n := len(t.texts)
	if len(t.masked) != n || len(pics) != n || len(t.false_) != n {
		return fmt.Errorf("%d sentences, %d with hidden words, %d pictures, %d false ones", n, len(t.masked), len(pics), len(t.false_))
	}
	if t.own, err = t.labels("out.itm.labels", n, 2); err != nil {
		return err
	}
	_, shape := t.f.first("in.masked_labels")
	if len(shape) != 2 || shape[1] < longest(t.texts) {
		return fmt.Errorf("in.masked_labels has shape %v, want (B, L) for sentences of up to %d tokens", shape, longest(t.texts))
	}
	labels, err := t.labels("in.masked_labels", n*shape[1], t.m.Config.Text.VocabSize)
	if err != nil {
		return err
	}
	for i, ids := range t.texts {
		p := batch.Pair{Row: i, Group: int32(i), Label: -1, Tokens: ids, Width: pics[i].W, Height: pics[i].H, Normalized: pics[i].F32}
		t.batch.Pairs = append(t.batch.Pairs, p)
		var hidden []int
		for j := range ids {
			if labels[i*shape[1]+j] >= 0 {
				hidden = append(hidden, j)
			}
		}
		t.hidden = append(t.hidden, hidden)
	}
	if _, shape = t.f.first("in.image"); len(shape) != 4 {
		return fmt.Errorf("in.image has shape %v, want (B, 3, H, W)", shape)
	}
	t.cols = shape[3] / t.m.Config.Vision.PatchSize
	return nil
}

// picture returns a pair's own picture, shown the one beside which its sentence is matched.
func (t *pretraining) picture(i int) ops.Picture {
	p := &t.batch.Pairs[i]
	return ops.Picture{W: p.Width, H: p.Height, F32: p.Normalized}
}

func (t *pretraining) shown(i int) ops.Picture {
	if t.own[i] == 1 {
		return t.picture(i)
	}
	return t.false_[i]
}

// words computes the scores of the vocabulary at the masked words.
func (t *pretraining) words() error {
	r := reading{texts: t.masked}
	var rows []int32
	at := 0
	for i, ids := range t.masked {
		r.pics = append(r.pics, t.picture(i))
		for _, j := range t.hidden[i] {
			rows = append(rows, int32(at+j))
		}
		at += len(ids)
	}
	if err := t.states("out.mlm.", r); err != nil || len(rows) == 0 {
		return err
	}
	b := t.graph()
	s := b.embed("mlm", r)
	list := b.g.Ints("rows", len(rows))
	b.binds = append(b.binds, func(p *ops.Program) error { p.SetInts(list, rows); return nil })
	if err := b.g.Err(); err != nil {
		return err
	}
	values, _, err := b.run(nil, b.m.WordLogits(b.g, b.m.Encode(b.g, s, b.g.Pick(s.Joined, list))))
	if err == nil {
		t.put(values[0], "out.mlm.logits")
	}
	return err
}

// canvas reads which patches of the canvases (B, h·w) a tensor marks, as numbers in raster order of the pictures' own grids.
func (t *pretraining) canvas(name string) ([][]int, error) {
	v, err := t.f.io.Ints(name)
	if err != nil {
		return nil, err
	}
	out := make([][]int, len(t.texts))
	each := len(v) / len(out)
	for i := range out {
		pic, p := t.picture(i), t.m.Config.Vision.PatchSize
		for k := range each {
			if row, col := k/t.cols, k%t.cols; v[i*each+k] != 0 && row < pic.H/p && col < pic.W/p {
				out[i] = append(out[i], row*(pic.W/p)+col)
			}
		}
	}
	return out, nil
}

// draws are what the authors' code drew.
func (t *pretraining) draws(capped bool) (*losses.Draws, error) {
	chosen, err := t.canvas("in.patch_masked")
	if err != nil {
		return nil, err
	}
	replaced, err := t.canvas("in.patch_replaced")
	if err != nil {
		return nil, err
	}
	d := &losses.Draws{
		Match: func(_ losses.View, i int) (ops.Picture, bool) { return t.shown(i), t.own[i] == 1 },
		Words: func(_ losses.View, i int) ([]int32, []int) { return t.masked[i], t.hidden[i] },
		Color: func(_ losses.View, i int) (masked, swapped []int) {
			for _, k := range replaced[i] {
				if slices.Contains(chosen[i], k) {
					swapped = append(swapped, k)
				}
			}
			return chosen[i], swapped
		},
	}
	if !capped {
		return d, nil
	}
	selected := map[string][]int64{}
	for _, pass := range []string{"mlm", "mpp", "itm"} {
		if selected[pass], err = t.f.io.Ints("in.capped_" + pass + "_select"); err != nil {
			return nil, err
		}
	}
	d.Taken = func(_ losses.View, pass string, i int, pic *ops.Picture) (take []ops.Patch) {
		v, p := selected[pass], int32(t.m.Config.Vision.PatchSize)
		for _, k := range v[i*len(v)/len(t.texts) : (i+1)*len(v)/len(t.texts)] {
			at := ops.Patch{Row: int32(int(k) / t.cols), Col: int32(int(k) % t.cols)}
			if at.Row < int32(pic.H)/p && at.Col < int32(pic.W)/p { // else one that fills up the sequence
				take = append(take, at)
			}
		}
		slices.SortFunc(take, func(a, b ops.Patch) int { return int(a.Row-b.Row)*t.cols + int(a.Col-b.Col) })
		return take
	}
	return d, nil
}

// given stands for the vocabulary of objectives whose draws are given.
type given struct{ size int }

func (g given) VocabSize() int               { return g.size }
func (given) Mask() int32                    { return 0 }
func (given) Words(ids, dst []int32) []int32 { return append(dst, ids...) }

// update computes the objectives and their gradients: that of the sum, and the norm of each parameter's share of each objective.
func (t *pretraining) update(capped string) error {
	draws, err := t.draws(capped != "")
	if err != nil {
		return err
	}
	all := []losses.Config{{Name: "mlm", Weight: 1}, {Name: "mpp", Weight: 1}, {Name: "itm", Weight: 1}, {Name: "wpa", Weight: 0.1}} // the authors' weights
	for only := -1; only < len(all); only++ {
		cfgs, name := slices.Clone(all), "total"
		for i := range cfgs {
			if only >= 0 && i != only { // nothing has a weight of 0: the others get one that is lost in rounding
				cfgs[i].Weight = 1e-30
			}
		}
		if only >= 0 {
			name = all[only].Name
		}
		n := len(t.texts)
		tr, err := train.New(train.Config{Steps: 1, GlobalBatch: n, GrainSize: n, Lanes: 1, KeepLast: 1}, train.Options{
			Model: t.m, Losses: cfgs, Optim: optim.Default(), Mean: half, Std: half,
			Objectives: losses.Options{Vocabulary: given{t.m.Config.Text.VocabSize}, Draws: draws}, Resources: train.Resources{Workers: 1, Threads: t.threads},
		})
		if err != nil {
			return err
		}
		copy(tr.Weights(), t.slab)
		terms, grads, err := tr.Gradient(t.batch)
		if err == nil {
			err = t.keep(capped, name, cfgs, terms, grads)
		}
		tr.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// half is the mean and the deviation of pixel levels as the authors normalise them, by which the mean colours of patches are found again.
var half = [3]float32{0.5, 0.5, 0.5}

// keep puts what came of an update under the fixture's names.
func (t *pretraining) keep(capped, name string, cfgs []losses.Config, terms []float64, grads []float32) error {
	if name == "total" {
		total := 0.0
		for i, c := range cfgs {
			t.put([]float32{float32(c.Weight * terms[i])}, "loss."+capped+c.Name)
			total += c.Weight * terms[i]
		}
		t.put([]float32{float32(total)}, "loss."+capped+name)
		if capped == "" {
			if err := t.gradients(grads); err != nil {
				return err
			}
		}
	}
	var norms []float32
	for _, p := range slices.Sorted(slices.Values(t.f.gradients())) {
		q := t.m.Layout.Find(p)
		if q == nil {
			return nil
		}
		sum := 0.0
		for _, v := range q.Slice(grads) {
			sum += float64(v) * float64(v)
		}
		norms = append(norms, float32(math.Sqrt(sum)))
	}
	t.put(norms, "out."+capped+"gradnorm."+name)
	return nil
}
