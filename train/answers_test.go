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

// answersBatch is shapesBatch with answers to the sentences, labels and second pictures.
func answersBatch(step, n int) *batch.Batch {
	b, others := shapesBatch(step, n), shapesBatch(step+50, n)
	for i := range b.Pairs {
		p, o := &b.Pairs[i], &others.Pairs[(i+1)%n]
		p.Second = batch.Picture{Height: o.Height, Width: o.Width, Pixels: o.Pixels}
		p.Answers = []batch.Answer{{Class: int32((i + step) % 5), Score: 0.6}, {Class: int32((i + step + 2) % 5), Score: 1}}
	}
	return b
}

// The objectives of the downstream heads, with dropout and a cap on patches: every number of workers, and activations that are
// computed again, give the same bits; a trainer that takes over in the middle goes on as if nothing had happened.
func TestAnswersSameBits(t *testing.T) {
	const steps, n = 3, 16
	for name, c := range map[string]struct {
		objective losses.Config
		pictures  int
	}{
		"vqa":          {losses.Config{Name: "vqa", Weight: 1}, 1},
		"one picture":  {losses.Config{Name: "pairclass", Weight: 1, LabelSmoothing: 0.1}, 1},
		"two pictures": {losses.Config{Name: "pairclass", Weight: 1}, 2},
		"rank":         {losses.Config{Name: "rank", Weight: 1, Negatives: 3}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			trainer := func(workers int, recompute string) *Trainer {
				mc := model.DefaultViLT()
				v := &mc.Vision
				v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, v.Dropout = 24, 2, 2, 16, 8, 0.1
				mc.Text.ContextLength, mc.Text.VocabSize, mc.ViLT.MaxPatches, mc.ViLT.PictureTypes, mc.NumClasses = 12, 60, 4, c.pictures, 5
				cfgs := []losses.Config{c.objective}
				m, err := model.New(mc, losses.Heads(cfgs))
				require.NoError(t, err)
				tr, err := New(Config{Steps: 8, GlobalBatch: n, GrainSize: 4, Lanes: 4, KeepLast: 1, Recompute: recompute}, Options{
					Model: m, Losses: cfgs, Optim: optim.Default(), Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}, Seed: 3,
					Resources: Resources{Workers: workers, Threads: 2},
				})
				require.NoError(t, err)
				t.Cleanup(tr.Close)
				return tr
			}
			first := trainer(1, "")
			records := sameBits(t, steps, func(step int) *batch.Batch { return answersBatch(step, n) }, first, trainer(1, ""), trainer(2, ""), map[string]*Trainer{
				"two workers": trainer(2, ""), "four workers": trainer(4, ""), "recomputed blocks": trainer(1, "block"),
			})
			require.Len(t, records[0].Metrics, 1)
			require.NotZero(t, records[0].GradNorm)

			if c.objective.Name != "rank" {
				b := answersBatch(0, n)
				b.Pairs[3].Answers = []batch.Answer{{Class: 5, Score: 1}}
				_, err := first.Step(b)
				require.ErrorIs(t, err, ops.ErrShape)
				require.ErrorContains(t, err, "row 3 has class 5, the model has 5")
			}
		})
	}
}

// A model that learns the answers to sentences does so: each of two sentences has another answer for either of two pictures.
func TestAnswersAreLearnt(t *testing.T) {
	for _, objective := range []string{"vqa", "pairclass"} {
		mc := model.DefaultViLT()
		v := &mc.Vision
		v.Width, v.Depth, v.NumHeads, v.ImageSize, v.PatchSize, v.Dropout = 32, 2, 2, 8, 8, 0
		mc.Text.ContextLength, mc.Text.VocabSize, mc.NumClasses = 4, 8, 4
		cfgs := []losses.Config{{Name: objective, Weight: 1}}
		m, err := model.New(mc, losses.Heads(cfgs))
		require.NoError(t, err)
		oc := optim.Default()
		oc.LR, oc.Schedule.WarmupSteps = 3e-3, 10
		tr, err := New(Config{Steps: 500, GlobalBatch: 4, Lanes: 1, KeepLast: 1}, Options{Model: m, Losses: cfgs, Optim: oc, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5},
			Seed: 1, Resources: Resources{Workers: 1, Threads: 1}})
		require.NoError(t, err)
		b := &batch.Batch{}
		for i := range 4 {
			p := batch.Pair{Row: i, Group: int32(i), Width: 8, Height: 8, Pixels: make([]uint8, 3*64), Tokens: []int32{1, int32(4 + i/2), 2}, Answers: []batch.Answer{{Class: int32(i), Score: 1}}}
			for k := range p.Pixels {
				p.Pixels[k] = uint8(40 + 160*(i%2))
			}
			b.Pairs = append(b.Pairs, p)
		}
		var last Record
		for b.Step = range 500 {
			last, err = tr.Step(b)
			require.NoError(t, err)
		}
		require.Equal(t, 1.0, last.Metrics[0], "%s: %v", objective, last.Terms)
		tr.Close()
	}
}
