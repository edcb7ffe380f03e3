package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/losses"
	"diptych/model"
	"diptych/optim"
)

// What the backward pass computes again has the same bits, with and without dropout; it takes less memory.
func TestRecompute(t *testing.T) {
	random, plain := smallModel(t), demoModel(t, 32, 16, 6)
	for _, m := range []struct {
		name  string
		model *model.CLIP
		most  float64 // of the activations' memory
	}{{"with dropout", random, 1}, {"without", plain, 0.6}} {
		t.Run(m.name, func(t *testing.T) {
			run := func(recompute string) ([][]float32, Plan) {
				tr, err := New(Config{Steps: 8, GlobalBatch: 16, Lanes: 2, Recompute: recompute, KeepLast: 1}, Options{
					Model: m.model, Losses: losses.Default(), Optim: optim.Default(), Std: [3]float32{0.5, 0.5, 0.5}, Seed: 3,
					Resources: Resources{Workers: 1, Threads: 2},
				})
				require.NoError(t, err)
				defer tr.Close()
				for s := range 3 {
					_, err := tr.Step(groupedBatch(m.model, s, 16))
					require.NoError(t, err)
				}
				return state(tr), tr.Plan()
			}
			want, kept := run("")
			got, again := run("block")
			require.Equal(t, want, got)
			require.Less(t, float64(again.Arena), m.most*float64(kept.Arena))
			require.Equal(t, kept.StepFLOPs, again.StepFLOPs, "what is computed again does not count")
		})
	}
}
