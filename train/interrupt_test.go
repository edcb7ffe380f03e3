package train

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/losses"
	"diptych/model"
	"diptych/optim"
)

// sameBatch gives one batch for every update.
type sameBatch struct{ b *batch.Batch }

func (s *sameBatch) Next(context.Context) (*batch.Batch, error) { return s.b, nil }
func (s *sameBatch) Release(*batch.Batch)                       { s.b.Step++ }

// An interruption at any moment of an evaluation leaves a checkpoint that knows what was recorded.
func TestRunInterrupted(t *testing.T) {
	c := model.Default()
	c.EmbedDim = 8
	c.Vision.ImageSize, c.Vision.PatchSize, c.Vision.Width, c.Vision.Depth, c.Vision.NumHeads = 8, 4, 16, 1, 2
	c.Text.ContextLength, c.Text.VocabSize, c.Text.Width, c.Text.Depth, c.Text.NumHeads = 16, 50, 16, 1, 2
	m, err := model.NewCLIP(c, false)
	require.NoError(t, err)

	full := errors.New("the disk is full")
	for _, x := range []struct {
		name        string
		from        int  // update at which the run begins
		evaluated   bool // before
		cancelAt    int  // evaluation of this step cancels the run
		measures    bool // and returns its metrics all the same
		saveFails   bool
		saved       []string
		interrupted bool
	}{
		{name: "while it measures", cancelAt: 2, saved: []string{"2 false"}, interrupted: true},
		{name: "when all is measured", cancelAt: 2, measures: true, saved: []string{"2 true"}, interrupted: true},
		{name: "when all is measured, at the last step", cancelAt: 4, measures: true, saved: []string{"2 true", "4 true"}},
		{name: "when it cannot save", cancelAt: 2, saveFails: true, saved: []string{"2 false"}},
		{name: "measures again what it did not finish", from: 2, saved: []string{"2 true", "4 true"}},
		{name: "does not measure again", from: 2, evaluated: true, saved: []string{"4 true"}},
		{name: "measuring again, interrupted", from: 2, cancelAt: 2, interrupted: true},
	} {
		t.Run(x.name, func(t *testing.T) {
			tr, err := New(Config{Steps: 4, GlobalBatch: 4, Lanes: 1, KeepLast: 1, EvalEvery: 2},
				Options{Model: m, Losses: losses.Default(), Optim: optim.Default(), Std: [3]float32{1, 1, 1}, Resources: Resources{Workers: 1, Threads: 1}})
			require.NoError(t, err)
			defer tr.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b := syntheticBatch(m, 4)
			b.Step = x.from
			var saved []string
			err = tr.Run(ctx, x.from, &sameBatch{b}, Hooks{
				Evaluated: func(int) bool { return x.evaluated },
				Evaluate: func(ctx context.Context, step int) (map[string]float64, error) {
					if step == x.cancelAt {
						cancel()
						if !x.measures {
							return nil, ctx.Err()
						}
					}
					return map[string]float64{"recall": 1}, nil
				},
				Save: func(ctx context.Context, step int, metrics map[string]float64) error {
					require.NoError(t, ctx.Err())
					saved = append(saved, fmt.Sprintf("%d %v", step, metrics != nil))
					if x.saveFails {
						return full
					}
					return nil
				},
			})
			require.Equal(t, x.saved, saved)
			switch {
			case x.saveFails:
				require.ErrorIs(t, err, full)
				require.NotErrorIs(t, err, ErrInterrupted, "a run that could not be saved has failed")
			case x.interrupted:
				require.Equal(t, ErrInterrupted, err)
			default:
				require.NoError(t, err)
			}
		})
	}
}
