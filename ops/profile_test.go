package ops

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A profile has every step of both phases once, and counts the operations of the lengths that were run.
func TestProfile(t *testing.T) {
	w := newTower[float32](t, len(sentences), 2).ready()
	var full, part Profile
	stats := w.prog.Stats()

	longest := packed[float32]{offsets: []int32{0}, fed: make([]float32, 6*len(sentences))}
	for i := range sentences {
		longest.ids = append(longest.ids, 1, 2, 3, 4)
		longest.offsets = append(longest.offsets, int32(4*(i+1)))
	}
	w.run.Profile = &full
	w.forwardBackward(longest)
	sums := map[Phase]int64{}
	for _, s := range full.Steps() {
		require.NotEmpty(t, s.Kind, s.Name)
		require.Equal(t, 1, s.Runs, s.Name)
		require.Positive(t, s.Time, s.Name)
		sums[s.Phase] += s.FLOPs
	}
	require.Equal(t, map[Phase]int64{PhaseForward: stats.ForwardFLOPs, PhaseBackward: stats.BackwardFLOPs, PhaseAgain: 0}, sums)

	w.run.Profile = &part
	w.forwardBackward(pack[float32](0, 2)) // 7 rows of 24; 3² + 4² of 6·4² scores
	for i, s := range part.Steps() {
		switch whole := full.Steps()[i]; s.Kind {
		case "attention":
			require.EqualValues(t, whole.FLOPs*25/96, s.FLOPs, s.Name)
		case "mlp":
			require.InDelta(t, float64(whole.FLOPs)*7/24, s.FLOPs, 1, s.Name)
		}
	}

	w.run.Again = true
	require.NoError(t, w.prog.Forward())
	steps := part.Steps()
	last := steps[len(steps)-1]
	require.Equal(t, PhaseAgain, last.Phase)
	require.Zero(t, last.FLOPs, "what is computed again does not count")

	w.run.Profile = nil
	require.NoError(t, w.prog.Forward())
	require.Len(t, part.Steps(), len(steps), "off")
}

func TestProfileMerge(t *testing.T) {
	var a, b Profile
	a.Add("linear", "linear w", PhaseForward, 10, time.Second)
	b.Add("linear", "linear w", PhaseForward, 10, time.Second)
	b.Add("linear", "linear w", PhaseForward, 10, time.Second)
	b.Add("linear", "linear w", PhaseBackward, 20, time.Second)
	a.Merge(&b)
	require.Equal(t, []StepProfile{
		{Kind: "linear", Name: "linear w", Phase: PhaseForward, Runs: 3, FLOPs: 30, Time: 3 * time.Second},
		{Kind: "linear", Name: "linear w", Phase: PhaseBackward, Runs: 1, FLOPs: 20, Time: time.Second},
	}, a.Steps())
	var none *Profile
	none.Add("linear", "linear w", PhaseForward, 10, time.Second)
}
