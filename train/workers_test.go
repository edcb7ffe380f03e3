package train

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/losses"
	"diptych/model"
	"diptych/optim"
)

// smallModel has dropout and stochastic depth in both towers.
func smallModel(t *testing.T) *model.CLIP {
	c := model.Default()
	c.EmbedDim, c.InitLogitBias = 12, -10
	c.Vision.ImageSize, c.Vision.PatchSize, c.Text.ContextLength, c.Text.VocabSize = 16, 8, 12, 50
	for _, tower := range []*model.Transformer{&c.Vision.Transformer, &c.Text.Transformer} {
		tower.Width, tower.Depth, tower.NumHeads, tower.Dropout, tower.DropPath = 24, 2, 2, 0.1, 0.3
	}
	m, err := model.NewCLIP(c, true)
	require.NoError(t, err)
	return m
}

// groupedBatch has pairs of which some share a group.
func groupedBatch(m model.Model, step, n int) *batch.Batch {
	b := syntheticBatch(m.(*model.CLIP), n)
	b.Step = step
	for i := range b.Pairs {
		p := &b.Pairs[i]
		p.Row, p.Group = step*n+i, int32(i*i%(n-3))
		for j := range p.Pixels {
			p.Pixels[j] = uint8((i + 3) * (j + step*17) >> 3)
		}
	}
	return b
}

func smallTrainer(t *testing.T, grain, lanes int, r Resources) *Trainer {
	o := optim.Default()
	o.Schedule.WarmupSteps, o.GradClipNorm, o.EMA.Decay = 1, 1, 0.9
	tr, err := New(Config{Steps: 8, GlobalBatch: 16, GrainSize: grain, Lanes: lanes, KeepLast: 1}, Options{
		Model: smallModel(t), Optim: o, Std: [3]float32{0.5, 0.5, 0.5}, Mean: [3]float32{0.5, 0.5, 0.5}, Seed: 3, Resources: r,
		Losses: []losses.Config{{Name: "itc", Weight: 1, GroupTargets: true, LabelSmoothing: 0.1}, {Name: "sigmoid", Weight: 0.1, GroupTargets: true}},
	})
	require.NoError(t, err)
	t.Cleanup(tr.Close)
	return tr
}

// state is every slab that a run goes on from.
func state(tr *Trainer) [][]float32 {
	out := [][]float32{slices.Clone(tr.weights)}
	for _, s := range tr.opt.State() {
		out = append(out, slices.Clone(s.Data))
	}
	return out
}

// sameBits trains first on the batches of so many steps and returns its records; each of others must have the same records and end
// with the same state, and so must rest, which takes over from half in the middle.
func sameBits(t *testing.T, steps int, at func(step int) *batch.Batch, first, half, rest *Trainer, others map[string]*Trainer) []Record {
	t.Helper()
	run := func(tr *Trainer, from, to int) (records []Record) {
		for s := from; s < to; s++ {
			r, err := tr.Step(at(s))
			require.NoError(t, err)
			r.Seconds = 0
			records = append(records, r)
		}
		return records
	}
	records := run(first, 0, steps)
	want := state(first)
	for name, tr := range others {
		require.Equal(t, records, run(tr, 0, steps), name)
		require.Equal(t, want, state(tr), name)
	}
	middle := steps / 2
	run(half, 0, middle)
	copy(rest.weights, half.weights)
	for i, s := range half.opt.State() {
		copy(rest.opt.State()[i].Data, s.Data)
	}
	require.Equal(t, records[middle:], run(rest, middle, steps))
	require.Equal(t, want, state(rest))
	return records
}

// Batches in which groups come several times, both objectives at once: every number of workers and threads, and every number of
// grains that are kept between forward and backward, gives the same bits.
func TestSameBits(t *testing.T) {
	const steps = 4
	run := func(t *testing.T, r Resources, kept int) ([]Record, [][]float32) {
		tr := smallTrainer(t, 2, 4, r)
		if kept < 8 {
			p := tr.Plan()
			r.Memory = p.Total - int64(8-kept-r.Workers)*p.Arena // beside those kept each worker has an arena for the rest
			tr = smallTrainer(t, 2, 4, r)
		}
		require.Equal(t, kept, tr.Plan().KeptGrains)
		var records []Record
		for s := range steps {
			rec, err := tr.Step(groupedBatch(tr.model, s, 16))
			require.NoError(t, err)
			rec.Seconds = 0
			records = append(records, rec)
		}
		return records, state(tr)
	}
	wantRecords, want := run(t, Resources{Workers: 1, Threads: 1}, 8)
	for _, c := range []struct{ workers, threads, kept int }{
		{1, 2, 8}, {1, 5, 8}, {2, 1, 8}, {2, 2, 8}, {4, 2, 8}, {4, 7, 8}, {1, 1, 0}, {1, 2, 3}, {1, 3, 6}, {2, 2, 0}, {2, 2, 4}, {4, 2, 0},
	} {
		t.Run(fmt.Sprintf("workers=%d threads=%d kept=%d", c.workers, c.threads, c.kept), func(t *testing.T) {
			records, got := run(t, Resources{Workers: c.workers, Threads: c.threads}, c.kept)
			require.Equal(t, wantRecords, records)
			for i := range want {
				require.True(t, slices.Equal(want[i], got[i]), "slab %d", i)
			}
		})
	}
}

// Cut into other grains the sums are rounded otherwise, and no more than that: dropout and stochastic depth do not move.
func TestGrains(t *testing.T) {
	features := func(grain, lanes int) (x, y []float32, loss float64) {
		tr := smallTrainer(t, grain, lanes, Resources{Workers: 1, Threads: 2})
		res, err := tr.gradient(groupedBatch(tr.model, 1, 16))
		require.NoError(t, err)
		return slices.Clone(tr.x), slices.Clone(tr.y), res.total
	}
	x, y, loss := features(16, 1)
	for _, c := range [][2]int{{8, 2}, {4, 1}, {1, 16}} {
		gx, gy, gl := features(c[0], c[1])
		require.InDeltaSlice(t, x, gx, 1e-6, "grains of %d", c[0])
		require.InDeltaSlice(t, y, gy, 1e-6, "grains of %d", c[0])
		require.InEpsilon(t, loss, gl, 1e-6)
	}
	tr := smallTrainer(t, 16, 1, Resources{Workers: 1, Threads: 2})
	_, err := tr.gradient(groupedBatch(tr.model, 1, 16))
	require.NoError(t, err)
	before := slices.Clone(tr.x)
	b := groupedBatch(tr.model, 1, 16)
	b.Step = 2
	_, err = tr.gradient(b)
	require.NoError(t, err)
	require.NotEqual(t, before, tr.x, "another step drops other things")
}

func TestResources(t *testing.T) {
	cfg := Config{Steps: 1, GlobalBatch: 16, GrainSize: 2, Lanes: 4, KeepLast: 1}
	for name, c := range map[string]struct {
		r    Resources
		want string
	}{
		"three workers": {Resources{Workers: 3, Threads: 1}, "3 workers do not divide the recipe's 4 lanes"},
		"eight workers": {Resources{Workers: 8, Threads: 1}, "8 workers do not divide the recipe's 4 lanes"},
		"no workers":    {Resources{Threads: 1}, "0 workers"},
		"no threads":    {Resources{Workers: 1}, "0 threads"},
		"no memory":     {Resources{Workers: 1, Threads: 1, Memory: 1000}, "lower train.grainSize or the model's size"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(cfg, Options{Model: smallModel(t), Losses: losses.Default(), Optim: optim.Default(), Std: [3]float32{1, 1, 1}, Resources: c.r})
			require.ErrorContains(t, err, c.want)
		})
	}
}
