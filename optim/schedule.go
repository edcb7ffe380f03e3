package optim

import "math"

// Schedule is the learning rate's course over a run. It rises linearly for WarmupSteps updates, then follows its name:
//
//	cosine      f + (lr-f)·½(1+cos πp)
//	linear      f + (lr-f)·(1-p)
//	polynomial  f + (lr-f)·(1-p)^power
//	constant    lr; in the last CooldownSteps updates it falls like polynomial
//
// with f = FinalLR and p in [0, 1] the part done of the updates after the warm-up (of the cool-down, for constant).
// They are open_clip's cosine_lr, const_lr and const_lr_cooldown, and, with WarmupFromZero, transformers'
// get_{cosine,linear,polynomial_decay,constant}_schedule_with_warmup.
type Schedule struct {
	Name          string  `yaml:"name"`
	WarmupSteps   int     `yaml:"warmupSteps"`
	CooldownSteps int     `yaml:"cooldownSteps,omitempty"`
	FinalLR       float64 `yaml:"finalLR"`
	Power         float64 `yaml:"power"`
	// WarmupFromZero begins the warm-up at rate 0, so that the first update does nothing, as transformers does; otherwise it
	// begins at lr/warmupSteps, as open_clip does.
	WarmupFromZero bool `yaml:"warmupFromZero,omitempty"`
}

// shapes has, for each name, the factor of lr-f after the part done/all of the decay.
var shapes = map[string]func(done, all, power float64) float64{
	"cosine":     func(done, all, _ float64) float64 { return 0.5 * (1 + math.Cos(math.Pi*done/all)) },
	"linear":     func(done, all, _ float64) float64 { return (all - done) / all },
	"polynomial": func(done, all, power float64) float64 { return math.Pow(1-done/all, power) },
	"constant":   func(done, all, power float64) float64 { return math.Pow(1-done/all, power) }, // the cool-down
}

// At returns the learning rate of update step, counted from 0, in a run of total updates whose highest rate is lr.
// A run shorter than its warm-up ends while it rises.
func (s Schedule) At(lr float64, step, total int) float64 {
	if step < s.WarmupSteps {
		if !s.WarmupFromZero {
			step++
		}
		return lr * float64(step) / float64(s.WarmupSteps)
	}
	begin := s.WarmupSteps
	if s.Name == "constant" {
		begin = max(begin, total-s.CooldownSteps)
	}
	all := float64(total - begin)
	done := float64(step - begin)
	if done <= 0 || all <= 0 { // the rate is at its highest; a constant one has no decay at all
		return lr
	}
	return s.FinalLR + (lr-s.FinalLR)*shapes[s.Name](min(done, all), all, s.Power)
}
