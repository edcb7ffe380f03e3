package optim

import (
	"errors"
	"fmt"
	"math"
	"path"
)

// Config is the recipe's part about updates.
type Config struct {
	Name         string  `yaml:"name"` // adamw or sgd
	LR           float64 `yaml:"lr"`   // the highest learning rate, which the schedule multiplies
	Beta1        float64 `yaml:"beta1"`
	Beta2        float64 `yaml:"beta2"`
	Eps          float64 `yaml:"eps"`
	WeightDecay  float64 `yaml:"weightDecay"`        // decoupled, times the learning rate; not on gains, biases and the scale
	GradClipNorm float64 `yaml:"gradClipNorm"`       // largest global norm of a gradient; 0 does not clip
	Momentum     float64 `yaml:"momentum,omitempty"` // of sgd, as in PyTorch, with weightDecay added to the gradient
	Nesterov     bool    `yaml:"nesterov,omitempty"` // of sgd
	// LayerDecay multiplies the learning rate once for each layer above a parameter in its tower (Clark et al. 2020, §A; Bao et
	// al. 2022, §B); 0 or 1: none. Embeddings count as the layer below the first block.
	LayerDecay float64  `yaml:"layerDecay,omitempty"`
	Schedule   Schedule `yaml:"schedule"`
	Groups     []Group  `yaml:"groups,omitempty"` // of a parameter's groups the first one holds
	EMA        EMA      `yaml:"ema"`
}

// Group treats the parameters whose names match a pattern differently.
type Group struct {
	Pattern     string   `yaml:"pattern"`               // * stands for any letters, dots too: visual.*
	LRFactor    float64  `yaml:"lrFactor,omitempty"`    // multiplies the learning rate; 0 or left out is 1
	WeightDecay *float64 `yaml:"weightDecay,omitempty"` // instead of the general one, where a parameter is decayed at all
	Freeze      bool     `yaml:"freeze,omitempty"`      // neither updated nor counted in the gradient's norm
}

// Freezes tells whether the configuration freezes a parameter: its first group that matches decides.
func (c *Config) Freezes(name string) bool {
	for _, g := range c.Groups {
		if ok, _ := path.Match(g.Pattern, name); ok { // Validate has checked the pattern
			return g.Freeze
		}
	}
	return false
}

// EMA is the exponential moving average of the weights: avg ← decay·avg + (1-decay)·weights after every update, begun at
// the first weights.
type EMA struct {
	Decay float64 `yaml:"decay"` // 0 keeps no average
}

// Default is CLIP's AdamW for vision transformers (Radford et al. 2021, Tables 19 and 20), cosine after a short warm-up.
func Default() Config {
	return Config{Name: "adamw", LR: 5e-4, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, WeightDecay: 0.2,
		Schedule: Schedule{Name: "cosine", WarmupSteps: 100, Power: 1}}
}

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, key string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("optim: %s is %v, must be %s", key, value, want))
		}
	}
	check(c.Name == "adamw" || c.Name == "sgd", "name", fmt.Sprintf("%q", c.Name), "adamw or sgd")
	check(c.Momentum >= 0 && c.Momentum < 1, "momentum", c.Momentum, "in [0, 1)")
	check(c.Name == "sgd" || c.Momentum == 0 && !c.Nesterov, "momentum", c.Momentum, "left out, as nesterov, unless name is sgd")
	check(!c.Nesterov || c.Momentum > 0, "nesterov", c.Nesterov, "false without momentum")
	check(c.LayerDecay >= 0 && c.LayerDecay <= 1, "layerDecay", c.LayerDecay, "in [0, 1]")
	check(c.LR > 0 && finite(c.LR), "lr", c.LR, "positive")
	check(c.Beta1 >= 0 && c.Beta1 < 1, "beta1", c.Beta1, "in [0, 1)")
	check(c.Beta2 >= 0 && c.Beta2 < 1, "beta2", c.Beta2, "in [0, 1)")
	check(c.Eps > 0 && finite(c.Eps), "eps", c.Eps, "positive")
	check(c.WeightDecay >= 0 && finite(c.WeightDecay), "weightDecay", c.WeightDecay, "zero or more")
	check(c.GradClipNorm >= 0 && finite(c.GradClipNorm), "gradClipNorm", c.GradClipNorm, "zero (no clipping) or more")
	check(c.EMA.Decay >= 0 && c.EMA.Decay < 1, "ema.decay", c.EMA.Decay, "in [0, 1)")
	s := &c.Schedule
	_, known := shapes[s.Name]
	check(known, "schedule.name", fmt.Sprintf("%q", s.Name), "cosine, linear, polynomial or constant")
	check(s.WarmupSteps >= 0, "schedule.warmupSteps", s.WarmupSteps, "zero or more")
	check(s.CooldownSteps >= 0, "schedule.cooldownSteps", s.CooldownSteps, "zero or more")
	check(s.CooldownSteps <= 0 || s.Name == "constant", "schedule.cooldownSteps", s.CooldownSteps, "zero unless schedule.name is constant")
	check(s.FinalLR >= 0 && finite(s.FinalLR), "schedule.finalLR", s.FinalLR, "zero or more")
	check(s.Power > 0 && finite(s.Power), "schedule.power", s.Power, "positive")
	for i, g := range c.Groups {
		key := func(k string) string { return fmt.Sprintf("groups[%d].%s", i, k) }
		_, err := path.Match(g.Pattern, "")
		check(err == nil && g.Pattern != "", key("pattern"), fmt.Sprintf("%q", g.Pattern), "a pattern of names such as visual.*")
		check(g.LRFactor >= 0 && finite(g.LRFactor), key("lrFactor"), g.LRFactor, "zero or more")
		if g.WeightDecay != nil {
			check(*g.WeightDecay >= 0 && finite(*g.WeightDecay), key("weightDecay"), *g.WeightDecay, "zero or more")
		}
	}
	return errors.Join(errs...)
}

func finite(x float64) bool { return !math.IsInf(x, 0) && !math.IsNaN(x) }
