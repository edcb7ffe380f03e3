// Package losses holds the training objectives, one per file, each with its formula above its code. An objective is global
// when it compares all features of the batch (ITC, sigmoid): it becomes a graph of its own over (N, E) slabs of the whole
// global batch, whose exact gradients are then fed to the grains. It is local when each pair has a loss of its own or compares
// itself within its grain (classify): it joins the graph of the grain, and prepares what it needs of a batch by a pure function
// of (address, batch). Start at objectives, then NewGlobal, NewLocals and the objective's own file.
package losses

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"diptych/model"
	"diptych/ops"
)

// Config is one objective of a recipe.
type Config struct {
	Name   string  `yaml:"name"`   // itc, sigmoid, classify, itm, mlm, wpa, mpp, vqa, pairclass or rank
	Weight float64 `yaml:"weight"` // factor in the total loss
	// LabelSmoothing ε spreads that share of the target over all rows (itc) or classes (classify, pairclass).
	LabelSmoothing float64 `yaml:"labelSmoothing,omitempty"`
	// GroupTargets makes every pair of the same group a positive. The order of samples of package data puts no group twice into
	// a batch, so with it this changes nothing; it is for other sources of batches.
	GroupTargets bool `yaml:"groupTargets,omitempty"`
	// Mixup and CutMix are α of the Beta distribution that a picture's share of another is drawn from (classify); 0: none.
	Mixup  float64 `yaml:"mixup,omitempty"`
	CutMix float64 `yaml:"cutmix,omitempty"`
	// HardNegatives draws false partners by how alike the towers find them (itm).
	HardNegatives bool `yaml:"hardNegatives,omitempty"`
	// HardAfter is the number of updates before which hardNegatives are drawn evenly.
	HardAfter int `yaml:"hardAfter,omitempty"`
	// MaskProb is the share of the tokens that are hidden (mlm); 0: 0.15, as in BERT. The words of a short sentence tell one
	// another; the more are hidden the more must come from the picture.
	MaskProb float64 `yaml:"maskProb,omitempty"`
	// WholeWords hides words instead of tokens (mlm), in a budget that counts padding up to PadTo tokens.
	WholeWords bool `yaml:"wholeWords,omitempty"`
	PadTo      int  `yaml:"padTo,omitempty"`
	// Negatives is how many false sentences a picture's own is ranked with (rank); 0: 15, as the paper.
	Negatives int `yaml:"negatives,omitempty"`
}

// UnmarshalYAML gives an objective the weight 1 when its recipe names none.
func (c *Config) UnmarshalYAML(decode func(any) error) error {
	type plain Config
	p := plain{Weight: 1}
	if err := decode(&p); err != nil {
		return err
	}
	*c = Config(p)
	return nil
}

// Needs is what objectives need of a batch beside pictures and sentences.
type Needs struct {
	Labels  bool // the class of each pair
	Answers bool // the right answers to each sentence
	Classes bool // one of the two: labels where the recipe names classes, else answers
}

// objective is an entry of the table. One of global and local is not nil.
type objective struct {
	global  func(g *ops.Graph, f *features, c Config) *ops.Node
	local   func(gr *model.Grain, c Config, o *Options) (Local, error)
	heads   model.Heads // that the model must have
	needs   Needs
	metrics []string // what a local objective reports beside its loss
	keys    []string // of Config that it knows, beside name and weight
}

// objectives is the table from name to objective.
var objectives = map[string]objective{
	"itc":      {global: itc, keys: []string{"labelSmoothing", "groupTargets"}},
	"sigmoid":  {global: sigmoid, heads: model.Heads{LogitBias: true}, keys: []string{"groupTargets"}},
	"itm":      {local: itm, heads: model.Heads{Match: true}, metrics: []string{"accuracy"}, keys: []string{"hardNegatives", "hardAfter"}},
	"mlm":      {local: mlm, heads: model.Heads{Words: true}, metrics: []string{"top1"}, keys: []string{"maskProb", "wholeWords", "padTo"}},
	"wpa":      {local: wpa, heads: model.Heads{Match: true}, metrics: []string{"distance"}},
	"mpp":      {local: mpp, heads: model.Heads{Colors: true}, metrics: []string{"top1"}},
	"classify": {local: classify, needs: Needs{Labels: true}, metrics: []string{"top1"}, keys: []string{"labelSmoothing", "mixup", "cutmix"}},
	"vqa":      {local: vqa, heads: model.Heads{Answers: model.AnswersOfQuestion}, needs: Needs{Answers: true}, metrics: []string{"score"}},
	"pairclass": {local: pairClass, heads: model.Heads{Answers: model.AnswersOfPair}, needs: Needs{Classes: true}, metrics: []string{"top1"},
		keys: []string{"labelSmoothing"}},
	"rank": {local: rank, heads: model.Heads{Rank: true}, metrics: []string{"top1"}, keys: []string{"negatives"}},
}

// Default is plain ITC.
func Default() []Config { return []Config{{Name: "itc", Weight: 1}} }

// Validate reports every fault of a recipe's objectives at once.
func Validate(cfgs []Config) error {
	var errs []error
	if len(cfgs) == 0 {
		errs = append(errs, errors.New("losses: empty, want at least one objective"))
	}
	for i, c := range cfgs {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("losses[%d]."+format, append([]any{i}, args...)...))
		}
		o, ok := objectives[c.Name]
		if !ok {
			bad("name: %q is unknown; known: %s", c.Name, strings.Join(slices.Sorted(maps.Keys(objectives)), ", "))
		}
		if !(c.Weight > 0 && c.Weight <= math.MaxFloat32) {
			bad("weight: %v, want a positive number", c.Weight)
		}
		if !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1) {
			bad("labelSmoothing: %v, want [0, 1)", c.LabelSmoothing)
		}
		for key, v := range map[string]float64{"mixup": c.Mixup, "cutmix": c.CutMix} {
			if !(v >= 0 && v <= 100) {
				bad("%s: %v, want 0 (none) to 100", key, v)
			}
		}
		for key, set := range map[string]bool{
			"labelSmoothing": c.LabelSmoothing != 0, "groupTargets": c.GroupTargets, "mixup": c.Mixup != 0, "cutmix": c.CutMix != 0,
			"maskProb": c.MaskProb != 0, "wholeWords": c.WholeWords, "padTo": c.PadTo != 0, "hardNegatives": c.HardNegatives,
			"hardAfter": c.HardAfter != 0, "negatives": c.Negatives != 0,
		} {
			if ok && set && !slices.Contains(o.keys, key) {
				bad("%s: the objective %s has none", key, c.Name)
			}
		}
		if c.HardNegatives && !HasGlobal(cfgs) {
			bad("hardNegatives: they are drawn by the similarity of the towers, which no objective of the recipe trains: add itc or sigmoid")
		}
		if c.HardAfter < 0 || c.HardAfter > 0 && !c.HardNegatives {
			bad("hardAfter: %d, want 0 or more updates, with hardNegatives", c.HardAfter)
		}
		if !(c.MaskProb >= 0 && c.MaskProb <= 1) {
			bad("maskProb: %v, want 0 (0.15) to 1", c.MaskProb)
		}
		if c.PadTo < 0 || c.PadTo > 0 && !c.WholeWords {
			bad("padTo: %d, want 0 or more, with wholeWords", c.PadTo)
		}
		if c.Negatives < 0 || c.Negatives > 1000 {
			bad("negatives: %d, want 0 (15) to 1000", c.Negatives)
		}
		if h := Heads(cfgs[:i]).Answers; ok && h != "" && o.heads.Answers != "" && h != o.heads.Answers {
			bad("name: %q learns answers, as an objective before it does; a model has one kind of them", c.Name)
		}
		if slices.ContainsFunc(cfgs[:i], func(d Config) bool { return d.Name == c.Name }) {
			bad("name: %q stands twice", c.Name)
		}
	}
	return errors.Join(errs...)
}

// Heads returns the parts that a model must have for a recipe's objectives.
func Heads(cfgs []Config) model.Heads {
	var h model.Heads
	for _, c := range cfgs {
		o := objectives[c.Name].heads
		h.LogitBias, h.Match = h.LogitBias || o.LogitBias, h.Match || o.Match
		h.Words, h.Colors, h.Rank = h.Words || o.Words, h.Colors || o.Colors, h.Rank || o.Rank
		h.Answers = cmp.Or(h.Answers, o.Answers)
	}
	return h
}

// NeedsOf returns what a recipe's objectives need of a batch.
func NeedsOf(cfgs []Config) Needs {
	var n Needs
	for _, c := range cfgs {
		o := objectives[c.Name].needs
		n.Labels, n.Answers, n.Classes = n.Labels || o.Labels, n.Answers || o.Answers, n.Classes || o.Classes
	}
	return n
}

// Metrics names what a recipe's local objectives report beside their losses, such as classify.top1, in the order of the
// recipe.
func Metrics(cfgs []Config) []string {
	var names []string
	for _, c := range cfgs {
		for _, m := range objectives[c.Name].metrics {
			names = append(names, c.Name+"."+m)
		}
	}
	return names
}

// global tells whether an objective compares all features of the batch.
func (c *Config) global() bool { return objectives[c.Name].global != nil }

// Local tells whether an objective lives in the graphs of the grains.
func (c *Config) Local() bool { return objectives[c.Name].local != nil }

// HasGlobal tells whether a recipe has an objective that compares all features of the batch.
func HasGlobal(cfgs []Config) bool {
	return slices.ContainsFunc(cfgs, func(c Config) bool { return c.global() })
}
