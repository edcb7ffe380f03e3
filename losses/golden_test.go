package losses

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
	"diptych/internal/kernel"
	"diptych/ops"
)

// Values and gradients equal open_clip's and torch's on the stored rows (golden/losses).
func TestGolden(t *testing.T) {
	f := golden.Load(t, "testdata/losses")
	var cfg struct {
		Cases []struct {
			Key, Kind, From string
			LogScale        float64 `json:"log_scale"`
			Bias, Eps       float64
		}
	}
	f.JSON("config.json", &cfg)
	pool := kernel.NewPool(2)
	defer pool.Close()
	done := 0
	for _, c := range cfg.Cases {
		var obj Config
		switch c.Kind {
		case "infonce":
			obj = Config{Name: "itc", Weight: 1}
		case "smoothed":
			obj = Config{Name: "itc", Weight: 1, LabelSmoothing: c.Eps}
		case "multipositive":
			obj = Config{Name: "itc", Weight: 1, GroupTargets: true}
		case "siglip":
			obj = Config{Name: "sigmoid", Weight: 1}
		default:
			continue // soft targets, distillation and the heads' losses are other objectives
		}
		done++
		t.Run(c.Key, func(t *testing.T) {
			in := "in." + c.From
			x, y, shape := f.Float32(in+".image"), f.Float32(in+".text"), f.Shape(in+".image")
			n, e := shape[0], shape[1]
			groups := make([]int32, n)
			for i := range groups {
				groups[i] = int32(i)
			}
			if c.Kind == "multipositive" {
				for i, g := range f.Ints(in + ".group") {
					groups[i] = int32(g)
				}
			}
			gl, err := NewGlobal([]Config{obj}, n, e, pool)
			require.NoError(t, err)
			defer gl.Close()
			r, err := gl.Run(x, y, float32(c.LogScale), float32(c.Bias), groups)
			require.NoError(t, err)
			f.Check(t, "loss."+c.Key, []float32{float32(r.Total)})
			for _, name := range f.Names() {
				leaf, ok := strings.CutPrefix(name, "grad."+c.Key+".")
				if !ok {
					continue
				}
				switch leaf {
				case "image":
					f.Check(t, name, r.DX)
				case "text":
					f.Check(t, name, r.DY)
				case "logit_scale":
					f.Check(t, name, []float32{r.DScale})
				case "logit_bias":
					f.Check(t, name, []float32{r.DBias})
				default:
					t.Errorf("%s: a leaf that no one compares", name)
				}
			}
		})
	}
	require.Greater(t, done, 25)
}

// The loss of question answering equals torch's on the stored scores and soft targets (golden/losses).
func TestGoldenAnswers(t *testing.T) {
	f := golden.Load(t, "testdata/losses")
	shape := f.Shape("in.vqa.logits")
	g := ops.NewGraph[float32]()
	x := g.Input("logits", g.NewDim("rows", shape[0]), shape[1])
	q := g.Input("targets", x.Rows(), shape[1])
	sums := g.BinaryCrossEntropy(x, q)
	p, err := g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{sums}, Wrt: []*ops.Node{x}})
	require.NoError(t, err)
	defer p.Close()
	p.Bind(&ops.Run[float32]{Arena: kernel.NewSlab(p.ArenaSize()), Train: true})
	p.SetInput(x, f.Float32("in.vqa.logits"))
	p.SetInput(q, f.Float32("in.vqa.targets"))
	require.NoError(t, p.Forward())
	n := float32(shape[0])
	f.Check(t, "loss.vqa", []float32{p.Value(sums)[0] / n})
	p.SetOutputGrad(sums, []float32{1 / n, 0})
	require.NoError(t, p.Backward())
	f.Check(t, "grad.vqa.logits", p.InputGrad(x))
}
