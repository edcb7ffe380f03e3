package train

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/losses"
	"diptych/model"
	"diptych/optim"
)

// demoModel is a model of the demo's form.
func demoModel(tb testing.TB, width, patch, depth int) *model.CLIP {
	c := model.Default()
	c.EmbedDim = width
	c.Vision.ImageSize, c.Vision.PatchSize, c.Vision.Width, c.Vision.Depth, c.Vision.NumHeads = 64, patch, width, depth, width/32
	c.Text.ContextLength, c.Text.VocabSize, c.Text.Width, c.Text.Depth, c.Text.NumHeads = 32, 3000, width, 2, width/32
	m, err := model.NewCLIP(c, false)
	require.NoError(tb, err)
	return m
}

// syntheticBatch has n pairs with texts of 4 to 11 tokens.
func syntheticBatch(m *model.CLIP, n int) *batch.Batch {
	size := 3 * m.Config.Vision.ImageSize * m.Config.Vision.ImageSize
	b := &batch.Batch{Pixels: make([]uint8, n*size)}
	for i := range b.Pixels {
		b.Pixels[i] = uint8(i * i >> 5)
	}
	for i := range n {
		p := batch.Pair{Row: i, Group: int32(i), Pixels: b.Pixels[i*size : (i+1)*size]}
		for j := range 4 + i%8 {
			p.Tokens = append(p.Tokens, int32((i*31+j*7)%m.Config.Text.VocabSize))
		}
		b.Pairs = append(b.Pairs, p)
	}
	return b
}

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct{ width, patch, depth, grain, lanes, workers, threads int }{
		{128, 16, 3, 0, 1, 1, 2}, {128, 16, 3, 0, 4, 1, 2}, {128, 16, 3, 0, 2, 2, 2}, {128, 16, 3, 0, 4, 2, 2}, {192, 8, 4, 0, 4, 1, 2},
	} {
		b.Run(fmt.Sprintf("width=%d/patch=%d/depth=%d/lanes=%d/workers=%d/threads=%d", c.width, c.patch, c.depth, c.lanes, c.workers, c.threads), func(b *testing.B) {
			m := demoModel(b, c.width, c.patch, c.depth)
			tr, err := New(Config{Steps: 1 << 30, GlobalBatch: 128, GrainSize: c.grain, Lanes: c.lanes, KeepLast: 1},
				Options{Model: m, Losses: losses.Default(), Optim: optim.Default(), Std: [3]float32{1, 1, 1}, Resources: Resources{Workers: c.workers, Threads: c.threads}})
			require.NoError(b, err)
			defer tr.Close()
			bt := syntheticBatch(m, 128)
			for b.Loop() {
				_, err := tr.Step(bt)
				require.NoError(b, err)
				bt.Step++
			}
			b.ReportMetric(128*float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
			b.ReportMetric(tr.Plan().StepFLOPs*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
