package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/losses"
	"diptych/model"
	"diptych/optim"
)

// squareBatch has pictures of 16·16 pixels and sentences from no word on.
func squareBatch(step, n int) *batch.Batch {
	b := shapesBatch(step, n)
	for i := range b.Pairs {
		b.Pairs[i].Pixels, b.Pairs[i].Width, b.Pairs[i].Height = nil, 0, 0
		for j := range 3 * 16 * 16 {
			b.Pixels = append(b.Pixels, uint8((i+3)*(j+step*17)>>3))
		}
	}
	return b
}

// fusionTrainer trains contrast, matching and masked words at once, with dropout everywhere.
func fusionTrainer(t *testing.T, workers int, memory int64, recompute string, hard bool) *Trainer {
	c := model.DefaultFusion()
	v, x := &c.Vision, &c.Text
	v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, v.Dropout, v.DropPath = 24, 2, 2, 16, 8, 0.1, 0.2
	x.Width, x.Depth, x.NumHeads, x.ContextLength, x.VocabSize = 20, 2, 2, 12, 60
	c.EmbedDim, c.Fusion.Depth = 12, 2
	cfgs := []losses.Config{{Name: "itc", Weight: 1}, {Name: "itm", Weight: 1, HardNegatives: hard}, {Name: "mlm", Weight: 1, WholeWords: true, PadTo: 12}}
	m, err := model.New(c, losses.Heads(cfgs))
	require.NoError(t, err)
	o := optim.Default()
	o.GradClipNorm, o.EMA.Decay = 1, 0.9
	tr, err := New(Config{Steps: 8, GlobalBatch: 16, GrainSize: 4, Lanes: 4, KeepLast: 1, Recompute: recompute}, Options{
		Model: m, Losses: cfgs, Optim: o, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}, Seed: 3,
		Resources: Resources{Workers: workers, Threads: 2, Memory: memory}, Objectives: losses.Options{Vocabulary: fourths{}},
	})
	require.NoError(t, err)
	t.Cleanup(tr.Close)
	return tr
}

// Contrast, matching and masked words at once on two towers and a fusion: every number of workers, and activations that are
// computed again, give the same bits, draws of negatives included; a trainer that takes over in the middle goes on as if nothing had
// happened.
func TestFusionSameBits(t *testing.T) {
	const steps = 4
	for _, hard := range []bool{true, false} {
		trainer := func(workers int, memory int64, recompute string) *Trainer {
			return fusionTrainer(t, workers, memory, recompute, hard)
		}
		first := trainer(1, 0, "")
		p := first.Plan()
		require.Equal(t, 4, p.KeptGrains)
		records := sameBits(t, steps, func(step int) *batch.Batch { return squareBatch(step, 16) }, first, trainer(1, 0, ""), trainer(2, 0, ""), map[string]*Trainer{
			"two workers": trainer(2, 0, ""), "four workers": trainer(4, 0, ""),
			"recomputed grains": trainer(1, p.Total-3*p.Arena, ""), "recomputed blocks": trainer(2, 0, "block"),
		})
		for _, r := range records {
			require.Len(t, r.Terms, 3)
			require.Len(t, r.Metrics, 2)
		}
	}
}

// Objectives share what the towers make of the pairs, and a recipe that asks for hard negatives without similarities is told so.
func TestFusionNeeds(t *testing.T) {
	cfgs := []losses.Config{{Name: "itm", Weight: 1, HardNegatives: true}}
	require.ErrorContains(t, losses.Validate(cfgs), "losses[0].hardNegatives: they are drawn by the similarity of the towers")
	cfgs = append(cfgs, losses.Config{Name: "itc", Weight: 1})
	require.NoError(t, losses.Validate(cfgs))
	require.ErrorContains(t, losses.Validate([]losses.Config{{Name: "itc", Weight: 1, HardNegatives: true}}), "losses[0].hardNegatives: the objective itc has none")

	vilt := model.DefaultViLT()
	v := &vilt.Vision
	v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, vilt.Text.VocabSize = 24, 1, 2, 16, 8, 60
	m, err := model.New(vilt, losses.Heads(cfgs[:1]))
	require.NoError(t, err)
	gr := model.NewGrain(m, 4, [3]float32{}, [3]float32{1, 1, 1}, nil)
	_, err = losses.NewLocals(gr, cfgs[:1], losses.Options{})
	require.ErrorContains(t, err, "losses: itm: the recipe's model has no towers whose similarity hardNegatives are drawn by")

	tr := fusionTrainer(t, 1, 0, "", true)
	b := squareBatch(0, 16)
	for i := 4; i < 8; i++ {
		b.Pairs[i].Group = 1
	}
	_, err = tr.Step(b)
	require.ErrorContains(t, err, "train: step 1: ops: hard negatives itm: all 4 pairs are of one group")
}
