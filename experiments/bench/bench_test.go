package bench

import (
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/remote"
	"diptych/internal/kernel"
	"diptych/model"
	"diptych/ops"
)

// tiny makes the demo's recipe small.
var tiny = []string{"train.globalBatch=32", "train.lanes=2", "model.embedDim=16", "model.vision.width=32", "model.vision.depth=1", "model.text.width=32",
	"model.text.depth=1", "data.cacheMiB=16"}

func TestStep(t *testing.T) {
	r, err := Step(t.Context(), StepOptions{Model: "clip-emoji", Sets: tiny, Threads: 2, Warm: 1, Steps: 3, Cache: remote.Options{Note: t.Logf}})
	require.NoError(t, err)
	require.Equal(t, 32, r.Batch)
	require.Equal(t, 2, r.Grains)
	require.Equal(t, 3, r.Seconds.Count)
	require.LessOrEqual(t, r.Seconds.Min, r.Seconds.Median)
	require.Less(t, r.Done, r.Nominal, "short texts and pooled last blocks are less work")
	require.Greater(t, r.FirstStep, r.Seconds.Min)
	parts, phases := 0.0, map[ops.Phase]bool{}
	for _, o := range r.Ops {
		parts += o.Part
		phases[o.Phase] = true
		if o.Kind == "optimizer" {
			require.Equal(t, 1.0, o.Runs)
		}
	}
	require.InDelta(t, 1, parts, 1e-9)
	require.Equal(t, map[ops.Phase]bool{ops.PhaseForward: true, ops.PhaseBackward: true, ops.PhaseAgain: true, ops.PhaseUpdate: true}, phases)
	require.GreaterOrEqual(t, r.Ops[0].Seconds, r.Ops[1].Seconds, "longest first")

	file := filepath.Join(t.TempDir(), "step.png")
	require.NoError(t, Picture(file, []*StepResult{r, r}))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	_, err = png.Decode(f)
	require.NoError(t, err)
	require.Error(t, Picture(file, nil))

	_, err = Step(t.Context(), StepOptions{Model: "ViT-S-32-alt", Batch: 2, Tokens: 78, Threads: 1, Steps: 1})
	require.ErrorContains(t, err, "bench: texts of 78 tokens, the model's context holds 1 to 77")
}

func TestGemm(t *testing.T) {
	c, err := model.DefaultFor("clip", "ViT-S-32-alt")
	require.NoError(t, err)
	r, err := Gemm(t.Context(), "ViT-S-32-alt", &c, 1, 1, FP32, nil)
	require.NoError(t, err)
	require.Len(t, r.Products, 2*4*3)
	for _, p := range r.Products {
		require.Positive(t, p.GFLOPs, p.Layer)
		require.GreaterOrEqual(t, p.Share, r.Worst)
	}
	require.Positive(t, r.Share)
}

// A preset of a vilt is measured on made-up photographs, with matching and masked words.
func TestStepOfViLT(t *testing.T) {
	r, err := Step(t.Context(), StepOptions{Model: "vilt-ti8", Batch: 4, Tokens: 12, Threads: 2, Workers: 1, Steps: 1, Precision: BF16})
	require.NoError(t, err)
	require.Equal(t, "12 tokens each", r.Texts)
	require.Positive(t, r.Done)
	require.Zero(t, r.Nominal, "not counted")
}

func TestAttention(t *testing.T) {
	all := attentionShapes
	attentionShapes = all[:3]
	defer func() { attentionShapes = all }()
	p := kernel.NewPool(2)
	defer p.Close()
	r, err := Attention(t.Context(), 1, BF16, p)
	require.NoError(t, err)
	require.Len(t, r.Shapes, len(attentionShapes))
	for _, s := range r.Shapes {
		require.Positive(t, s.GFLOPs)
		require.Positive(t, s.Backward.Median)
	}
}

func TestData(t *testing.T) {
	r, err := Data(t.Context(), "clip-emoji", tiny, 2, 2, remote.Options{Note: t.Logf})
	require.NoError(t, err)
	require.Positive(t, r.Cold)
	require.Positive(t, r.Warm)
	require.Zero(t, r.Broken)
	_, err = Data(t.Context(), "clip-emoji", tiny, 1<<20, 2, remote.Options{Note: t.Logf})
	require.ErrorContains(t, err, "the recipe has 1 to")
}
