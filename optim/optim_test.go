package optim

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
	"diptych/internal/kernel"
)

// reference is a run of testdata/optim/config.json.
type reference struct {
	Name, Optimizer string
	NoDecay         []string `json:"no_decay"`
	Clip            float64
	LRScale         float64 `json:"lr_scale"`
	Options         struct {
		Momentum    float64
		Nesterov    bool
		Betas       []float64
		Eps         *float64
		WeightDecay *float64 `json:"weight_decay"`
	}
}

// layout places the fixture's parameters in a slab, with gaps as a model has them.
func layout(f *golden.Folder, r *reference) (segments []Segment, size int) {
	for _, name := range []string{"table", "bias", "gain", "scalar", "conv"} {
		s := Segment{Name: name, Offset: size, Shape: f.Shape("in.param." + name), Decay: !slices.Contains(r.NoDecay, name)}
		segments = append(segments, s)
		size += (s.Len() + 15) / 16 * 16
	}
	return segments, size
}

// torch.optim.AdamW, SGD and clip_grad_norm_ over 25 steps, among them one without gradient, a spike and one below eps.
func TestEqualsTorch(t *testing.T) {
	f := golden.Load(t, "testdata/optim")
	var config struct{ Runs []reference }
	f.JSON("config.json", &config)
	rates := f.Float32("in.lr")
	tested := 0
	for _, r := range config.Runs {
		if r.Optimizer != "adamw" && r.Optimizer != "sgd" {
			continue
		}
		tested++
		t.Run(r.Name, func(t *testing.T) {
			cfg := Default()
			cfg.LR = float64(slices.Max(rates)) // warm-up of 4 steps and cosine, as the fixture's rates
			cfg.Schedule.WarmupSteps = 4
			cfg.Beta1, cfg.Beta2, cfg.Eps, cfg.WeightDecay = 0.9, 0.999, 1e-8, 0.01 // torch's defaults
			scale := 1.0
			if r.LRScale > 0 {
				scale = r.LRScale
			}
			cfg.LR *= scale
			o := r.Options
			if cfg.Name = r.Optimizer; cfg.Name == "sgd" {
				cfg.Momentum, cfg.Nesterov, cfg.WeightDecay = o.Momentum, o.Nesterov, 0
				if o.WeightDecay != nil {
					cfg.WeightDecay = *o.WeightDecay
				}
			} else if o.Betas != nil {
				cfg.Beta1, cfg.Beta2, cfg.Eps, cfg.WeightDecay = o.Betas[0], o.Betas[1], *o.Eps, *o.WeightDecay
			}
			cfg.GradClipNorm = r.Clip
			segments, size := layout(f, &r)
			opt, err := New(cfg, segments, len(rates))
			require.NoError(t, err)
			defer opt.Close()
			pool := kernel.NewPool(2)
			defer pool.Close()

			weights, grads := make([]float32, size), make([]float32, size)
			for _, s := range segments {
				copy(weights[s.Offset:], f.Float32("in.param."+s.Name))
			}
			got := map[string][]float32{}
			var norms []float32
			for step := range rates {
				for _, s := range segments {
					copy(grads[s.Offset:], f.Float32("in.gradient." + s.Name)[step*s.Len():(step+1)*s.Len()])
				}
				info, err := opt.Step(pool, step, weights, grads)
				require.NoError(t, err)
				require.InEpsilon(t, scale*float64(rates[step]), info.LR, 2e-7, "step %d: the rates are stored in float32", step)
				require.Equal(t, r.Clip > 0 && info.GradNorm > r.Clip, info.Clipped)
				norms = append(norms, float32(info.GradNorm))
				for _, s := range segments {
					got[s.Name] = append(got[s.Name], weights[s.Offset:s.Offset+s.Len()]...)
				}
			}
			moments := map[string]string{"m": "exp_avg", "v": "exp_avg_sq"}
			if cfg.Name == "sgd" {
				moments["m"] = "momentum_buffer"
			}
			for _, s := range segments {
				f.Check(t, "out."+r.Name+"."+s.Name, got[s.Name])
				for _, slab := range opt.State() {
					f.Check(t, fmt.Sprintf("out.%s.state.%s.%s", r.Name, moments[slab.Name], s.Name), slab.Data[s.Offset:s.Offset+s.Len()])
				}
			}
			if r.Clip > 0 {
				f.Check(t, "out."+r.Name+".norm", norms)
			}
		})
	}
	require.Equal(t, 5, tested)
}

// open_clip's and transformers' schedules.
func TestSchedulesEqualReferences(t *testing.T) {
	f := golden.Load(t, "testdata/optim")
	var curves []struct {
		Name, Kind    string
		LR            float64
		Warmup, Total int
		Arguments     struct {
			CooldownSteps int     `json:"cooldown_steps"`
			CooldownPower float64 `json:"cooldown_power"`
			CooldownEndLR float64 `json:"cooldown_end_lr"`
			EndLR         float64 `json:"lr_end"`
			Power         float64
			NumCycles     float64 `json:"num_cycles"`
		}
		At     []int
		Values []float64
	}
	f.JSON("curves.json", &curves)
	ours := map[string]Schedule{
		"cosine_lr":         {Name: "cosine"},
		"const_lr":          {Name: "constant"},
		"const_lr_cooldown": {Name: "constant"},
		"cosine":            {Name: "cosine", WarmupFromZero: true},
		"linear":            {Name: "linear", WarmupFromZero: true},
		"polynomial":        {Name: "polynomial", WarmupFromZero: true},
		"constant":          {Name: "constant", WarmupFromZero: true},
	}
	require.Len(t, curves, 13)
	for _, c := range curves {
		t.Run(c.Name, func(t *testing.T) {
			if c.Arguments.NumCycles != 0 {
				t.Skip("several cosine cycles are not offered")
			}
			s, ok := ours[c.Kind]
			require.True(t, ok, c.Kind)
			s.WarmupSteps, s.CooldownSteps = c.Warmup, c.Arguments.CooldownSteps
			s.Power = max(c.Arguments.Power, c.Arguments.CooldownPower)
			if s.Power == 0 {
				s.Power = 1
			}
			s.FinalLR = max(c.Arguments.EndLR, c.Arguments.CooldownEndLR)
			require.NotEmpty(t, c.Values)
			for i, want := range c.Values {
				step := i
				if c.At != nil {
					step = c.At[i]
				}
				require.InDelta(t, want, s.At(c.LR, step, c.Total), 1e-12*want+1e-24, "step %d", step)
			}
		})
	}
}

func TestScheduleEdges(t *testing.T) {
	tests := []struct {
		name        string
		s           Schedule
		step, total int
		want        float64
	}{
		{"shorter than its warm-up", Schedule{Name: "cosine", WarmupSteps: 10}, 3, 4, 0.4},
		{"ends with its warm-up", Schedule{Name: "linear", WarmupSteps: 4}, 4, 4, 1},
		{"past the end", Schedule{Name: "cosine", FinalLR: 0.1}, 12, 10, 0.1},
		{"cosine to a final rate", Schedule{Name: "cosine", FinalLR: 0.2}, 5, 10, 0.6},
		{"cool-down longer than what is left", Schedule{Name: "constant", WarmupSteps: 6, CooldownSteps: 100, Power: 1}, 8, 10, 0.5},
		{"constant without cool-down", Schedule{Name: "constant", Power: 1}, 10, 10, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.InDelta(t, tt.want, tt.s.At(1, tt.step, tt.total), 1e-15)
		})
	}
}

// small is a run of three parameters with gradient 1 everywhere.
func small(t *testing.T, change func(*Config)) (o *Optimizer, weights, grads []float32) {
	t.Helper()
	cfg := Default()
	cfg.LR, cfg.WeightDecay, cfg.Schedule = 0.1, 0.5, Schedule{Name: "constant", Power: 1}
	change(&cfg)
	require.NoError(t, cfg.Validate())
	o, err := New(cfg, []Segment{
		{Name: "text.w", Offset: 16, Shape: []int{2, 2}, Decay: true},
		{Name: "visual.w", Offset: 0, Shape: []int{2, 2}, Decay: true},
		{Name: "visual.b", Offset: 32, Shape: []int{2}},
		{Name: "positions", Offset: 48, Shape: []int{1, 2}, Decay: true, Frozen: true},
	}, 100)
	require.NoError(t, err)
	t.Cleanup(o.Close)
	weights, grads = make([]float32, 64), make([]float32, 64)
	for _, s := range o.segments {
		for i := range s.Len() {
			weights[s.Offset+i], grads[s.Offset+i] = 1, 1
		}
	}
	return o, weights, grads
}

// With a gradient that does not change, AdamW's first step is lr·(1/(1+ε)) after the decay 1 - lr·wd.
func TestGroups(t *testing.T) {
	zero := 0.0
	o, w, g := small(t, func(c *Config) {
		c.Groups = []Group{{Pattern: "visual.*", LRFactor: 0.1}, {Pattern: "text.?", WeightDecay: &zero}, {Pattern: "*", LRFactor: 7}}
	})
	info, err := o.Step(nil, 0, w, g)
	require.NoError(t, err)
	require.InDelta(t, 1*(1-0.01*0.5)-0.01, w[0], 1e-6, "visual.w: a tenth of the rate, in the decay too")
	require.InDelta(t, 1-0.1, w[16], 1e-6, "text.w: no decay")
	require.InDelta(t, 1-0.01, w[32], 1e-6, "visual.b: never decayed")
	require.Equal(t, float32(1), w[48], "positions are frozen")
	require.InDelta(t, math.Sqrt(10), info.GradNorm, 1e-12, "without the frozen ones")
	require.Equal(t, 0.1, info.LR)
	for _, i := range []int{4, 15, 20, 34, 50} {
		require.Zero(t, w[i], "the gaps stay zero")
	}
}

func TestFreezeByName(t *testing.T) {
	o, w, g := small(t, func(c *Config) { c.Groups = []Group{{Pattern: "visual.*", Freeze: true}} })
	g[0] = float32(math.NaN()) // nobody looks at a frozen gradient
	info, err := o.Step(nil, 0, w, g)
	require.NoError(t, err)
	require.InDelta(t, 2, info.GradNorm, 1e-12)
	require.Equal(t, []float32{1, 1, 1, 1}, w[:4])
	require.NotEqual(t, float32(1), w[16])
}

func TestAverage(t *testing.T) {
	o, w, g := small(t, func(c *Config) { c.EMA.Decay = 0.75 })
	want := float64(w[0])
	for step := range 4 {
		_, err := o.Step(nil, step, w, g)
		require.NoError(t, err)
		want = 0.75*want + 0.25*float64(w[0])
		require.InDelta(t, want, o.Average()[0], 1e-6)
	}
	require.Equal(t, float32(1), o.Average()[48], "frozen weights are their own average")
}

func TestNotFinite(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			o, w, g := small(t, func(c *Config) { c.EMA.Decay = 0.9; c.GradClipNorm = 1 })
			_, err := o.Step(nil, 0, w, g)
			require.NoError(t, err)
			before := slices.Clone(w)
			var state [][]float32
			for _, s := range o.State() {
				state = append(state, slices.Clone(s.Data))
			}
			g[18] = bad
			_, err = o.Step(nil, 1, w, g)
			require.ErrorIs(t, err, ErrNotFinite)
			require.ErrorContains(t, err, `parameter "text.w", element 2 of shape [2 2]`)
			require.Equal(t, before, w)
			for i, s := range o.State() {
				require.Equal(t, state[i], s.Data, s.Name)
			}
		})
	}
}

// The number of threads changes no bit.
func TestThreads(t *testing.T) {
	const n = 300_000
	segments := []Segment{{Name: "w", Shape: []int{n / 2, 2}, Decay: true}}
	var want []float32
	var wantInfo StepInfo
	for threads := 1; threads <= 3; threads++ {
		cfg := Default()
		cfg.GradClipNorm, cfg.EMA.Decay = 0.5, 0.99
		o, err := New(cfg, segments, 10)
		require.NoError(t, err)
		pool := kernel.NewPool(threads)
		w, g := make([]float32, n), make([]float32, n)
		for i := range w {
			w[i], g[i] = float32(math.Sin(float64(i))), float32(math.Cos(float64(3*i)))
		}
		var info StepInfo
		for step := range 3 {
			info, err = o.Step(pool, step, w, g)
			require.NoError(t, err)
		}
		got := append(slices.Clone(w), o.Average()...)
		if threads == 1 {
			want, wantInfo = got, info
		}
		require.True(t, slices.Equal(want, got))
		require.Equal(t, wantInfo, info)
		pool.Close()
		o.Close()
	}
}

func TestRefuses(t *testing.T) {
	segments := []Segment{{Name: "w", Shape: []int{4}}}
	cfg := Default()
	cfg.Groups = []Group{{Pattern: "w", LRFactor: 2}, {Pattern: "visul.*"}}
	_, err := New(cfg, segments, 10)
	require.ErrorContains(t, err, `groups[1].pattern "visul.*" matches no parameter`)

	_, err = New(Default(), append(segments, Segment{Name: "b", Offset: 3, Shape: []int{1}}), 10)
	require.ErrorContains(t, err, `"b" begins at element 3, the one before ends at 4`)

	o, err := New(Default(), segments, 10)
	require.NoError(t, err)
	defer o.Close()
	_, err = o.Step(nil, 0, make([]float32, 4), make([]float32, 3))
	require.ErrorContains(t, err, "gradients 3; the parameters need 4")
}

func TestValidateReportsAll(t *testing.T) {
	good := Default()
	require.NoError(t, good.Validate())
	negative := -1.0
	bad := Config{Name: "lamb", LR: math.NaN(), Beta1: 1, Beta2: -1, WeightDecay: -1, GradClipNorm: math.Inf(1),
		Schedule: Schedule{Name: "step", WarmupSteps: -1, CooldownSteps: 3, FinalLR: -1},
		Groups:   []Group{{Pattern: "[", LRFactor: -1, WeightDecay: &negative}}, EMA: EMA{Decay: 1}}
	err := bad.Validate()
	for _, key := range []string{`name is "lamb"`, "lr is NaN", "beta1 is 1", "beta2 is -1", "eps is 0", "weightDecay is -1", "gradClipNorm is +Inf",
		`schedule.name is "step"`, "warmupSteps is -1", "cooldownSteps is 3", "finalLR is -1", "power is 0", `groups[0].pattern is "["`,
		"groups[0].lrFactor is -1", "groups[0].weightDecay is -1", "ema.decay is 1"} {
		require.ErrorContains(t, err, key)
	}
}

// With layerDecay d the learning rate of a parameter with n layers above it has the factor d^n, beside that of its group.
func TestLayerDecay(t *testing.T) {
	cfg := Default()
	cfg.LayerDecay, cfg.Groups = 0.5, []Group{{Pattern: "head", LRFactor: 10}}
	o, err := New(cfg, []Segment{{Name: "embed", Shape: []int{4}, Above: 3}, {Name: "block", Offset: 16, Shape: []int{4}, Above: 1}, {Name: "head", Offset: 32, Shape: []int{4}}}, 10)
	require.NoError(t, err)
	defer o.Close()
	var factors []float64
	for _, r := range o.runs {
		factors = append(factors, r.lrFactor)
	}
	require.Equal(t, []float64{0.125, 0.5, 10}, factors)
}
