package train

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/internal/golden"
	"diptych/losses"
	"diptych/model"
	"diptych/ops"
	"diptych/optim"
)

// timmModel reads a fixture's constructor arguments into our configuration.
func timmModel(t *testing.T, f *golden.Folder) *model.ViT {
	o := struct {
		ImgSize      int     `json:"img_size"`
		PatchSize    int     `json:"patch_size"`
		NumClasses   int     `json:"num_classes"`
		EmbedDim     int     `json:"embed_dim"`
		Depth        int     `json:"depth"`
		NumHeads     int     `json:"num_heads"`
		MLPRatio     float64 `json:"mlp_ratio"`
		ClassToken   bool    `json:"class_token"`
		GlobalPool   string  `json:"global_pool"`
		NoEmbedClass bool    `json:"no_embed_class"`
		InitValues   float64 `json:"init_values"`
		PreNorm      bool    `json:"pre_norm"`
	}{}
	f.JSON("config.json", &o)
	c := model.DefaultViT()
	c.NumClasses = o.NumClasses
	v := &c.Vision
	v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads, v.MLPRatio = o.ImgSize, o.PatchSize, o.EmbedDim, o.Depth, o.NumHeads, o.MLPRatio
	v.ClassToken, v.NoEmbedClass, v.LayerScale, v.PreNorm, v.PatchBias = o.ClassToken, o.NoEmbedClass, o.InitValues, o.PreNorm, !o.PreNorm
	v.Pool = map[string]string{"token": "cls", "avg": "avg", "map": "map"}[o.GlobalPool]
	v.NormAfterPool = v.Pool == "avg" // timm's default
	m, err := model.NewViT(c)
	require.NoError(t, err)
	return m
}

// timmBatch is the fixture's pictures and classes.
func timmBatch(f *golden.Folder) *batch.Batch {
	b := &batch.Batch{Normalized: f.Float32("in.image")}
	for i, l := range f.Ints("in.label") {
		b.Pairs = append(b.Pairs, batch.Pair{Row: i, Group: int32(i), Label: int32(l)})
	}
	return b
}

// Scores, loss and every parameter's gradient equal timm's, also when the batch is cut into grains whose
// activations are computed again.
func TestGoldenViT(t *testing.T) {
	for _, folder := range []string{"vit-token", "vit-avg", "vit-prenorm", "vit-map"} {
		f := golden.Load(t, "testdata/"+folder)
		b := timmBatch(f)
		n := len(b.Pairs)
		for _, c := range []struct {
			name                string
			grain, lanes, works int
			keep                bool
		}{{"one grain", n, 1, 1, true}, {"computed again", 1, 1, 1, false}} {
			t.Run(folder+"/"+c.name, func(t *testing.T) {
				m := timmModel(t, f)
				o := Options{Model: m, Losses: []losses.Config{{Name: "classify", Weight: 1}}, Optim: optim.Default(), Std: [3]float32{1, 1, 1}, Resources: Resources{Workers: c.works, Threads: 2}}
				cfg := Config{Steps: 1, GlobalBatch: n, GrainSize: c.grain, Lanes: c.lanes, KeepLast: 1}
				tr, err := New(cfg, o)
				require.NoError(t, err)
				if p := tr.Plan(); !c.keep && p.KeptGrains > c.works {
					o.Resources.Memory = p.Total - int64(p.KeptGrains-c.works)*p.Arena
					tr.Close()
					tr, err = New(cfg, o)
					require.NoError(t, err)
				}
				defer tr.Close()
				for _, p := range m.Layout.Params {
					w, shape := f.Weight(p.Name)
					require.Equal(t, p.Len(), len(w), "%s: %v, stored %v", p.Name, p.Shape, shape)
					copy(p.Slice(tr.weights), w)
				}
				res, err := tr.gradient(b)
				require.NoError(t, err)
				f.Check(t, "loss.cross_entropy", []float32{float32(res.terms[0])})
				grads := tr.workers[0].slabs[0]
				compared := 0
				for _, name := range f.Names() {
					var param string
					if k, _ := fmt.Sscanf(name, "grad.%s", &param); k == 1 {
						compared++
						f.Check(t, name, m.Layout.Find(param).Slice(grads))
					}
				}
				require.Equal(t, len(m.Layout.Params), compared)

				if c.keep {
					g := ops.NewGraph[float32]()
					in := m.NewImages(g, "image", n, o.Mean, o.Std)
					pooled := m.Features(g, in)
					logits := m.Scores(g, pooled)
					prog, err := g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{pooled, logits}, ForwardOnly: true})
					require.NoError(t, err)
					defer prog.Close()
					prog.Bind(&ops.Run[float32]{Weights: tr.weights, Arena: make([]float32, prog.ArenaSize()), Pool: tr.pool})
					in.SetFloat(prog, b.Normalized, n)
					require.NoError(t, prog.Forward())
					f.Check(t, "out.pooled", prog.Value(pooled))
					f.Check(t, "out.logits", prog.Value(logits))
				}
			})
		}
	}
}

// classTrainer trains a ViT with mixed pictures, dropout, stochastic depth and dropped patches.
func classTrainer(t *testing.T, grain, lanes int, r Resources) *Trainer {
	c := model.DefaultViT()
	c.NumClasses, c.Representation = 5, 12
	c.Vision.ImageSize, c.Vision.PatchSize, c.Vision.Width, c.Vision.Depth, c.Vision.NumHeads = 16, 4, 24, 2, 2
	c.Vision.Dropout, c.Vision.DropPath, c.Vision.PatchDropout, c.Vision.LayerScale = 0.1, 0.3, 0.4, 0.5
	m, err := model.NewViT(c)
	require.NoError(t, err)
	o := optim.Default()
	o.Schedule.WarmupSteps, o.EMA.Decay = 1, 0.9
	tr, err := New(Config{Steps: 8, GlobalBatch: 16, GrainSize: grain, Lanes: lanes, KeepLast: 1}, Options{
		Model: m, Optim: o, Std: [3]float32{0.5, 0.5, 0.5}, Mean: [3]float32{0.5, 0.5, 0.5}, Seed: 3, Resources: r,
		Losses: []losses.Config{{Name: "classify", Weight: 1, LabelSmoothing: 0.1, Mixup: 0.3, CutMix: 1}},
	})
	require.NoError(t, err)
	t.Cleanup(tr.Close)
	return tr
}

// classBatch has n pictures of five classes.
func classBatch(step, n int) *batch.Batch {
	const size = 3 * 16 * 16
	b := &batch.Batch{Step: step, Pixels: make([]uint8, n*size)}
	for i := range n {
		p := batch.Pair{Row: step*n + i, Group: int32(i), Label: int32(i * i % 5), Pixels: b.Pixels[i*size : (i+1)*size]}
		for j := range p.Pixels {
			p.Pixels[j] = uint8((i + 3) * (j + step*17) >> 3)
		}
		b.Pairs = append(b.Pairs, p)
	}
	return b
}

// A local objective that mixes pictures within a grain gives the same bits for every number of workers and threads and of
// grains that run again.
func TestSameBitsLocal(t *testing.T) {
	run := func(t *testing.T, r Resources, again bool) ([]Record, [][]float32) {
		tr := classTrainer(t, 4, 4, r)
		if again {
			p := tr.Plan()
			r.Memory = p.Total - int64(4-r.Workers)*p.Arena
			tr = classTrainer(t, 4, 4, r)
			require.Equal(t, 0, tr.Plan().KeptGrains)
		}
		var records []Record
		for s := range 3 {
			rec, err := tr.Step(classBatch(s, 16))
			require.NoError(t, err)
			rec.Seconds = 0
			records = append(records, rec)
		}
		return records, state(tr)
	}
	wantRecords, want := run(t, Resources{Workers: 1, Threads: 1}, false)
	require.Len(t, wantRecords[0].Metrics, 1)
	for _, c := range []struct {
		workers, threads int
		again            bool
	}{{1, 3, false}, {2, 2, false}, {4, 2, false}, {1, 2, true}, {2, 1, true}} {
		t.Run(fmt.Sprintf("workers=%d threads=%d again=%v", c.workers, c.threads, c.again), func(t *testing.T) {
			records, got := run(t, Resources{Workers: c.workers, Threads: c.threads}, c.again)
			require.Equal(t, wantRecords, records)
			for i := range want {
				require.True(t, slices.Equal(want[i], got[i]), "slab %d", i)
			}
		})
	}
}

// A class that the model does not have names its row.
func TestClassOutside(t *testing.T) {
	tr := classTrainer(t, 16, 1, Resources{Workers: 1, Threads: 1})
	b := classBatch(0, 16)
	b.Pairs[3].Label = 5
	_, err := tr.Step(b)
	require.ErrorContains(t, err, "row 3 has class 5, the model has 5")
}

// Objectives and models that do not fit are refused before the start.
func TestUnfit(t *testing.T) {
	vit := classTrainer(t, 16, 1, Resources{Workers: 1, Threads: 1}).model
	for want, o := range map[string]Options{
		"model with an image and a text tower": {Model: vit, Losses: losses.Default()},
		"no scores of classes":                 {Model: smallModel(t), Losses: []losses.Config{{Name: "classify", Weight: 1}}},
	} {
		o.Optim, o.Std, o.Resources = optim.Default(), [3]float32{1, 1, 1}, Resources{Workers: 1, Threads: 1}
		_, err := New(Config{Steps: 1, GlobalBatch: 4, GrainSize: 4, Lanes: 1, KeepLast: 1}, o)
		require.ErrorContains(t, err, want)
	}
}

// What is frozen in the layout gets no gradient, and the rest the same as without.
func TestFrozenTower(t *testing.T) {
	m, all := smallModel(t), smallModel(t)
	for _, p := range m.Layout.Params {
		p.Frozen = len(p.Name) > 7 && p.Name[:7] == "visual."
	}
	gradient := func(m *model.CLIP) []float32 {
		tr, err := New(Config{Steps: 1, GlobalBatch: 16, GrainSize: 4, Lanes: 2, KeepLast: 1}, Options{Model: m, Losses: losses.Default(),
			Optim: optim.Default(), Std: [3]float32{1, 1, 1}, Resources: Resources{Workers: 1, Threads: 2}})
		require.NoError(t, err)
		defer tr.Close()
		_, err = tr.gradient(groupedBatch(m, 0, 16))
		require.NoError(t, err)
		return slices.Clone(tr.workers[0].slabs[0])
	}
	got, want := gradient(m), gradient(all)
	require.Len(t, got, m.Layout.Trained)
	for i, p := range m.Layout.Params {
		if !p.Frozen {
			require.Equal(t, all.Layout.Params[i].Slice(want), p.Slice(got), p.Name)
		}
	}
}
