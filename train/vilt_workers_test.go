package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
	"diptych/optim"
)

// fourths is a vocabulary of 60 ids in which every fourth goes on with the word before; 1 and 2 are marks, 3 hides.
type fourths struct{}

func (fourths) VocabSize() int { return 60 }
func (fourths) Mask() int32    { return 3 }
func (fourths) Words(ids, dst []int32) []int32 {
	word := int32(-1)
	for _, id := range ids {
		if id == 1 || id == 2 {
			dst = append(dst, -1)
			continue
		}
		if id%4 != 0 || word < 0 {
			word++
		}
		dst = append(dst, word)
	}
	return dst
}

// shapesBatch has pictures of different shapes, some with more patches than the cap, and sentences from no word on.
func shapesBatch(step, n int) *batch.Batch {
	b := &batch.Batch{Step: step}
	for i := range n {
		p := batch.Pair{Row: step*n + i, Group: int32(i), Width: 8 * (1 + (i+step)%3), Height: 8 * (1 + i%2)}
		for j := range 3 * p.Width * p.Height {
			p.Pixels = append(p.Pixels, uint8((i+3)*(j+step*17)>>3))
		}
		p.Tokens = append(p.Tokens, 1)
		for j := range (i + step) % 8 {
			p.Tokens = append(p.Tokens, int32(4+(i*7+j*5+step)%56))
		}
		p.Tokens = append(p.Tokens, 2)
		b.Pairs = append(b.Pairs, p)
	}
	return b
}

// All objectives on pairs at once, with dropout and a cap on patches: every number of workers, and activations that are computed
// again, give the same bits; a trainer that takes over in the middle goes on as if nothing had happened.
func TestViLTSameBits(t *testing.T) {
	const steps, n = 4, 16
	trainer := func(workers int, memory int64, recompute string) *Trainer {
		c := model.DefaultViLT()
		v := &c.Vision
		v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, v.Dropout = 24, 2, 2, 16, 8, 0.1
		c.Text.ContextLength, c.Text.VocabSize, c.ViLT.MaxPatches = 12, 60, 4
		cfgs := []losses.Config{{Name: "itm", Weight: 1}, {Name: "mlm", Weight: 1, WholeWords: true, PadTo: 12}, {Name: "wpa", Weight: 0.1}, {Name: "mpp", Weight: 0.5}}
		m, err := model.New(c, losses.Heads(cfgs))
		require.NoError(t, err)
		tr, err := New(Config{Steps: 8, GlobalBatch: n, GrainSize: 2, Lanes: 4, KeepLast: 1, Recompute: recompute}, Options{
			Model: m, Losses: cfgs, Optim: optim.Default(), Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}, Seed: 3,
			Resources: Resources{Workers: workers, Threads: 2, Memory: memory}, Objectives: losses.Options{Vocabulary: fourths{}},
		})
		require.NoError(t, err)
		t.Cleanup(tr.Close)
		return tr
	}
	first := trainer(1, 0, "")
	p := first.Plan()
	records := sameBits(t, steps, func(step int) *batch.Batch { return shapesBatch(step, n) }, first, trainer(1, 0, ""), trainer(2, 0, ""), map[string]*Trainer{
		"two workers": trainer(2, 0, ""), "four workers": trainer(4, 0, ""), "recomputed grains": trainer(1, p.Total-6*p.Arena, ""), "recomputed blocks": trainer(1, 0, "block"),
	})
	for _, r := range records {
		require.Len(t, r.Terms, 4)
		require.Len(t, r.Metrics, 4)
	}
}

// What an objective lacks is told before the start.
func TestViLTNeeds(t *testing.T) {
	c := model.DefaultViLT()
	v := &c.Vision
	v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize = 24, 1, 2, 16, 8
	c.Text.VocabSize = 60
	build := func(m model.Config, grain int, o losses.Options, cfgs ...losses.Config) error {
		md, err := model.New(m, losses.Heads(cfgs))
		require.NoError(t, err)
		tr, err := New(Config{Steps: 1, GlobalBatch: 4, GrainSize: grain, Lanes: 1, KeepLast: 1}, Options{Model: md, Losses: cfgs, Optim: optim.Default(),
			Std: [3]float32{1, 1, 1}, Resources: Resources{Workers: 1, Threads: 1}, Objectives: o})
		if err == nil {
			tr.Close()
		}
		return err
	}
	itm, mlm, wpa := losses.Config{Name: "itm", Weight: 1}, losses.Config{Name: "mlm", Weight: 1}, losses.Config{Name: "wpa", Weight: 1}
	words := losses.Options{Vocabulary: fourths{}}
	require.NoError(t, build(c, 2, words, itm, mlm, wpa))
	require.ErrorContains(t, build(c, 1, words, itm), "a false picture is that of another pair of the grain, but grains have 1 (train.grainSize)")
	require.ErrorContains(t, build(c, 2, losses.Options{}, mlm), "data.tokenizer.kind wordpiece")
	require.ErrorContains(t, build(c, 2, words, wpa, itm), "put itm before it in the recipe")
	require.ErrorContains(t, build(smallModel(t).Config, 2, words, itm), "the recipe's model has no matching of a picture with a sentence")
	require.ErrorContains(t, build(c, 2, words, losses.Config{Name: "itc", Weight: 1}), "needs a model with an image and a text tower")

	tr, err := func() (*Trainer, error) {
		md, err := model.New(c, losses.Heads([]losses.Config{itm}))
		require.NoError(t, err)
		return New(Config{Steps: 1, GlobalBatch: 4, Lanes: 1, KeepLast: 1}, Options{Model: md, Losses: []losses.Config{itm}, Optim: optim.Default(),
			Std: [3]float32{1, 1, 1}, Resources: Resources{Workers: 1, Threads: 1}})
	}()
	require.NoError(t, err)
	defer tr.Close()
	b := shapesBatch(0, 4)
	b.Pairs[2].Width = 12
	b.Pairs[2].Pixels = b.Pairs[2].Pixels[:3*12*b.Pairs[2].Height]
	_, err = tr.Step(b)
	require.ErrorIs(t, err, ops.ErrShape)
	require.ErrorContains(t, err, "is not made of patches of 8")
}
