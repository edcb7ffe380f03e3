package train

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/losses"
	"diptych/ops"
	"diptych/optim"
)

// A frozen tower gets no backward pass: none of its operations is counted or run, none of its activations kept. What is
// trained gets the bits that it gets beside a tower that learns.
func TestFrozenTowerHasNoBackwardPass(t *testing.T) {
	run := func(patterns ...string) (forward, backward int64, p Plan, weights []float32, tr *Trainer) {
		m, o := demoModel(t, 32, 16, 4), optim.Default()
		locked := slices.Contains(patterns, "visual.*")
		o.GradClipNorm = 0 // the norm has no part of what is frozen
		for _, pattern := range patterns {
			o.Groups = append(o.Groups, optim.Group{Pattern: pattern, Freeze: true})
		}
		tr, err := New(Config{Steps: 8, GlobalBatch: 16, Lanes: 2, KeepLast: 1}, Options{
			Model: m, Losses: losses.Default(), Optim: o, Std: [3]float32{0.5, 0.5, 0.5}, Seed: 3, Resources: Resources{Workers: 1, Threads: 2},
		})
		require.NoError(t, err)
		t.Cleanup(tr.Close)
		tr.StartProfile()
		_, err = tr.Step(groupedBatch(m, 0, 16))
		require.NoError(t, err)
		for _, s := range tr.StopProfile() {
			require.False(t, locked && s.Phase == ops.PhaseBackward && strings.Contains(s.Name, "visual."), s.Name)
		}
		stats := tr.workers[0].prog.Stats()
		return stats.ForwardFLOPs, stats.BackwardFLOPs, tr.Plan(), tr.Weights(), tr
	}
	forward, backward, whole, weights, tr := run()
	lockedForward, lockedBackward, locked, lockedWeights, lockedTr := run("visual.*")
	_, textBackward, _, _, _ := run("token_embedding.*", "positional_embedding", "transformer.*", "ln_final.*", "text_projection")
	require.Equal(t, forward, lockedForward)
	require.Equal(t, backward, lockedBackward+textBackward, "each tower has its own backward pass")
	require.Positive(t, lockedBackward)
	require.Less(t, locked.Arena, whole.Arena)
	l, trained := tr.Model().Parameters(), int64(lockedTr.Model().Parameters().Trained)
	require.Less(t, trained, int64(l.Size))
	require.EqualValues(t, 4*l.Size, whole.Gradients/2, "a lane of its own, and one that is being added")
	require.Equal(t, 4*trained, locked.Gradients/2, "what is frozen has no gradient")
	require.Equal(t, 4*(int64(l.Size)+2*trained), locked.Weights, "and no moments")
	for _, p := range tr.Model().Parameters().Params {
		q := lockedTr.Model().Parameters().Find(p.Name)
		if strings.HasPrefix(p.Name, "visual.") {
			require.NotEqual(t, p.Slice(weights), q.Slice(lockedWeights), p.Name)
		} else {
			require.Equal(t, p.Slice(weights), q.Slice(lockedWeights), p.Name)
		}
	}
}
