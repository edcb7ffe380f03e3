package train

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/internal/golden"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
	"diptych/optim"
)

// viltTrainer builds a trainer of a fixture's model and reads its weights; parts names the stored tensors of each of ours.
func viltTrainer(t *testing.T, f *golden.Folder, c model.Config, cfg Config, objectives []losses.Config, o optim.Config, r Resources, draws *losses.Draws, parts func(string) []string) (*Trainer, *model.ViLT) {
	m, err := model.New(c, losses.Heads(objectives))
	require.NoError(t, err)
	tr, err := New(cfg, Options{Model: m, Losses: objectives, Optim: o, Std: [3]float32{0.5, 0.5, 0.5}, Mean: [3]float32{0.5, 0.5, 0.5}, Resources: r,
		Objectives: losses.Options{Vocabulary: words{}, Draws: draws}})
	require.NoError(t, err)
	t.Cleanup(tr.Close)
	for _, p := range m.Parameters().Params {
		at := p.Slice(tr.weights)
		for _, name := range parts(p.Name) {
			w, _ := f.Weight(name)
			at = at[copy(at, w):]
		}
		require.Empty(t, at, p.Name)
	}
	return tr, m.(*model.ViLT)
}

// words is the vocabulary of the fixtures, whose draws are given.
type words struct{}

func (words) VocabSize() int                 { return 60 }
func (words) Mask() int32                    { return 4 }
func (words) Words(ids, dst []int32) []int32 { return append(dst, ids...) }

// viltPair cuts a canvas (3, h, w) down to the picture in its top left corner.
func viltPair(canvas []float32, h, w int) batch.Pair {
	on := func(y, x int) bool { return canvas[y*w+x]+canvas[h*w+y*w+x]+canvas[2*h*w+y*w+x] != 0 }
	var p batch.Pair
	for p.Width < w && on(0, p.Width) {
		p.Width++
	}
	for p.Height < h && on(p.Height, 0) {
		p.Height++
	}
	for c := range 3 {
		for y := range p.Height {
			p.Normalized = append(p.Normalized, canvas[(c*h+y)*w:][:p.Width]...)
		}
	}
	return p
}

func picture(p *batch.Pair) ops.Picture {
	return ops.Picture{W: p.Width, H: p.Height, F32: p.Normalized}
}

// unpadded returns row i of ids (…, length) as far as mask goes.
func unpadded(ids, mask []int64, i, length int) (out []int32) {
	for j := i * length; j < (i+1)*length && mask[j] != 0; j++ {
		out = append(out, int32(ids[j]))
	}
	return out
}

// The losses, gradient norms and final weights of 20 updates with ITM and MLM equal those of Hugging Face's ViLT and torch's AdamW,
// for several workers alike.
func TestTrajectoryViLT(t *testing.T) {
	f := golden.Load(t, "testdata/trajectory-vilt")
	c := model.DefaultViLT()
	v := &c.Vision
	v.Width, v.Depth, v.NumHeads, v.MLPRatio, v.ImageSize, v.PatchSize, v.LayerNormEps, v.Dropout = 24, 1, 3, 2, 16, 4, 1e-12, 0
	c.Text.ContextLength, c.Text.VocabSize = 8, 60
	shape, ids := f.Shape("in.pixel_values"), f.Shape("in.input_ids")
	steps, n, h, w, length := shape[0], shape[1], shape[3], shape[4], ids[2]
	tokens, read, mask, labels := f.Ints("in.input_ids"), f.Ints("in.masked_ids"), f.Ints("in.attention_mask"), f.Ints("in.labels")
	which, matched := f.Ints("in.itm_image"), f.Ints("in.itm_labels")
	at := func(v losses.View, i int) int { return v.Batch.Step*n + v.Lo + i }
	draws := &losses.Draws{
		Match: func(v losses.View, i int) (ops.Picture, bool) {
			return picture(&v.Batch.Pairs[which[at(v, i)]]), matched[at(v, i)] == 1
		},
		Words: func(v losses.View, i int) (tokens []int32, hidden []int) {
			for j := range length {
				if labels[at(v, i)*length+j] >= 0 {
					hidden = append(hidden, j)
				}
			}
			return unpadded(read, mask, at(v, i), length), hidden
		},
	}
	names := func(name string) []string {
		if name == "mlm_score.bias" {
			return []string{"mlm_score.decoder.bias"}
		}
		return golden.ViLTNames(name)
	}
	o := optim.Default()
	o.LR, o.Beta1, o.Beta2, o.Eps, o.WeightDecay, o.GradClipNorm = 0.003, 0.9, 0.98, 1e-8, 0.01, 1
	o.Schedule = optim.Schedule{Name: "linear", WarmupSteps: 4, WarmupFromZero: true, Power: 1}
	tr, m := viltTrainer(t, f, c, Config{Steps: steps, GlobalBatch: n, GrainSize: n, Lanes: 1, KeepLast: 1},
		[]losses.Config{{Name: "mlm", Weight: 1}, {Name: "itm", Weight: 1}}, o, Resources{Workers: 1, Threads: 2}, draws, names)
	size := 3 * h * w
	var loss, mlm, itm, norm, lr []float32
	for step := range steps {
		b := &batch.Batch{Step: step}
		for i := range n {
			p := viltPair(f.Float32("in.pixel_values")[(step*n+i)*size:], h, w)
			p.Row, p.Group, p.Tokens = i, int32(i), unpadded(tokens, mask, step*n+i, length)
			b.Pairs = append(b.Pairs, p)
		}
		r, err := tr.Step(b)
		require.NoError(t, err)
		loss, mlm, itm = append(loss, float32(r.Loss)), append(mlm, float32(r.Terms[0])), append(itm, float32(r.Terms[1]))
		norm, lr = append(norm, float32(r.GradNorm)), append(lr, float32(r.LR))
	}
	f.Check(t, "out.loss", loss)
	f.Check(t, "out.loss_mlm", mlm)
	f.Check(t, "out.loss_itm", itm)
	f.Check(t, "out.grad_norm", norm)
	golden.Close(t, "out.lr", lr, f.Float32("out.lr"), 1e-9)
	for _, p := range m.Layout.Params {
		at := p.Slice(tr.weights)
		for _, name := range names(p.Name) {
			k := len(f.Float32("out.final." + name))
			if !strings.Contains(name, "key.bias") { // noise, which Adam makes steps of; it changes no output
				f.Check(t, "out.final."+name, at[:k])
			}
			at = at[k:]
		}
	}
}

// MLM, ITM with given swaps, word–patch alignment and masked patch prediction of the authors' code in one update: losses, the
// gradient of their sum and its parts, without and with a cap on patches.
func TestViLTPretrain(t *testing.T) {
	f := golden.Load(t, "testdata/vilt-original-pretrain")
	var order struct {
		Names []string `json:"parameter_order"`
	}
	f.JSON("golden.json", &order)
	c := model.DefaultViLT()
	v := &c.Vision
	v.Width, v.Depth, v.NumHeads, v.MLPRatio, v.ImageSize, v.PatchSize, v.Dropout = 28, 2, 4, 2, 32, 8, 0
	c.Text.ContextLength, c.Text.VocabSize, c.ViLT.LongestSide = 12, 150, 64
	shape := f.Shape("in.image")
	n, h, w, length := shape[0], shape[2], shape[3], f.Shape("in.text_ids")[1]
	cols := w / v.PatchSize
	ids, mask, read, labels := f.Ints("in.text_ids"), f.Ints("in.text_masks"), f.Ints("in.masked_ids"), f.Ints("in.masked_labels")
	own, hidden, replaced := f.Ints("out.itm.labels"), f.Ints("in.patch_masked"), f.Ints("in.patch_replaced")
	size := 3 * h * w
	b := &batch.Batch{}
	var other []batch.Pair
	for i := range n {
		p := viltPair(f.Float32("in.image")[i*size:], h, w)
		p.Row, p.Group, p.Tokens = i, int32(i), unpadded(ids, mask, i, length)
		b.Pairs = append(b.Pairs, p)
		other = append(other, viltPair(f.Float32("in.false_image")[i*size:], h, w))
	}
	for _, capped := range []string{"", "capped."} {
		draws := &losses.Draws{
			Match: func(v losses.View, i int) (ops.Picture, bool) {
				if own[i] == 1 {
					return picture(&b.Pairs[i]), true
				}
				return picture(&other[i]), false
			},
			Words: func(v losses.View, i int) (tokens []int32, chosen []int) {
				for j := range length {
					if labels[i*length+j] >= 0 {
						chosen = append(chosen, j)
					}
				}
				return unpadded(read, mask, i, length), chosen
			},
			Color: func(v losses.View, i int) (chosen, swapped []int) {
				grid := b.Pairs[i].Width / c.Vision.PatchSize
				for k := range len(hidden) / n {
					own := k/cols*grid + k%cols // its number in the picture's own grid
					if hidden[i*len(hidden)/n+k] != 0 && k%cols < grid {
						chosen = append(chosen, own)
						if replaced[i*len(hidden)/n+k] != 0 {
							swapped = append(swapped, own)
						}
					}
				}
				return chosen, swapped
			},
		}
		if capped != "" {
			draws.Taken = func(v losses.View, pass string, i int, pic *ops.Picture) (take []ops.Patch) {
				name := "in.capped_" + pass + "_select"
				most := f.Shape(name)[1]
				for _, k := range f.Ints(name)[i*most : (i+1)*most] {
					p := ops.Patch{Row: int32(int(k) / cols), Col: int32(int(k) % cols)}
					if int(p.Row)*c.Vision.PatchSize < pic.H && int(p.Col)*c.Vision.PatchSize < pic.W { // else a masked patch outside
						take = append(take, p)
					}
				}
				slices.SortFunc(take, func(a, b ops.Patch) int { return int(a.Row-b.Row)*100 + int(a.Col-b.Col) })
				return take
			}
		}
		objectives := []losses.Config{{Name: "mlm", Weight: 1}, {Name: "mpp", Weight: 1}, {Name: "itm", Weight: 1}, {Name: "wpa", Weight: 0.1}}
		all := map[string][]float32{}
		for only := range append(objectives, losses.Config{Name: "total"}) {
			cfgs := slices.Clone(objectives)
			name := "total"
			if only < len(cfgs) {
				name = cfgs[only].Name
			}
			for i := range cfgs { // nothing has a weight of 0, so the others get one that is lost in rounding
				if name != "total" && i != only {
					cfgs[i].Weight = 1e-30
				}
			}
			tr, m := viltTrainer(t, f, c, Config{Steps: 1, GlobalBatch: n, GrainSize: n, Lanes: 1, KeepLast: 1}, cfgs, optim.Default(),
				Resources{Workers: 1, Threads: 2}, draws, func(name string) []string { return []string{name} })
			res, err := tr.gradient(b)
			require.NoError(t, err)
			terms := res.terms
			grads := tr.workers[0].slabs[0]
			if name == "total" {
				f.Check(t, "loss."+capped+"mlm", []float32{float32(terms[0])})
				f.Check(t, "loss."+capped+"mpp", []float32{float32(terms[1])})
				f.Check(t, "loss."+capped+"itm", []float32{float32(terms[2])})
				f.Check(t, "loss."+capped+"wpa", []float32{float32(0.1 * terms[3])})
				f.Check(t, "loss."+capped+"total", []float32{float32(res.total)})
			}
			for _, p := range order.Names {
				sum := 0.0
				at := m.Layout.Find(p).Slice(grads)
				for _, g := range at {
					sum += float64(g) * float64(g)
				}
				all[name] = append(all[name], float32(math.Sqrt(sum)))
				if name == "total" && capped == "" {
					f.Check(t, "grad."+p, at)
				}
			}
			f.Check(t, fmt.Sprintf("out.%sgradnorm.%s", capped, name), all[name])
		}
	}
}
