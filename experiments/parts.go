package experiments

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"diptych/data/tokenizer"
	"diptych/data/transform"
	"diptych/losses"
	"diptych/model"
)

// parts are what a recipe builds, whether it is trained or only used.
type parts struct {
	tok         tokenizer.Tokenizer
	train, eval *transform.Pipeline
	model       *model.CLIP
	vocabulary  []byte // what the tokenizer's file holds, if it is not in the program
}

// build resolves what one room takes from another (the vocabulary's size, the context's length), checks the whole recipe and
// reports every fault at once, then builds its parts.
func (c *Config) build() (*parts, error) {
	p := &parts{}
	var errs []error
	check := func(err error) { errs = append(errs, err) }
	text := &c.Model.Text
	tc := &c.Data.Tokenizer
	if tc.ContextLength != 0 && tc.ContextLength != text.ContextLength {
		check(fmt.Errorf("data.tokenizer.contextLength: %d, model.text.contextLength has %d; leave the first out", tc.ContextLength, text.ContextLength))
	}
	tc.ContextLength = text.ContextLength
	var err error
	if tc.File != "" {
		if b, err := tc.ReadFile(); err == nil { // an error comes again below
			if !tc.BuiltIn() {
				p.vocabulary = b
			}
			if tc.SHA256 == "" {
				tc.SHA256 = tokenizer.Checksum(b)
			}
		}
	}
	if p.tok, err = tokenizer.New(*tc); err != nil {
		check(fmt.Errorf("data.tokenizer: %w", err))
	} else {
		if text.VocabSize == 0 {
			text.VocabSize = p.tok.VocabSize()
		}
		if text.VocabSize < p.tok.VocabSize() {
			check(fmt.Errorf("model.text.vocabSize: %d, the tokenizer has %d entries", text.VocabSize, p.tok.VocabSize()))
		}
	}
	c.Data.Resolve()
	check(c.Data.Validate())
	check(c.Model.Validate())
	check(losses.Validate(c.Losses))
	check(c.Optim.Validate())
	check(c.Train.Validate())
	if side := c.Model.Vision.ImageSize; side > 0 {
		if p.train, err = transform.New(c.Data.Transforms, side); err != nil {
			check(fmt.Errorf("data.transforms: %w", err))
		}
		if p.eval, err = transform.New(c.Data.EvalTransforms, side); err != nil {
			check(fmt.Errorf("data.evalTransforms: %w", err))
		}
		if p.train != nil && p.eval != nil && (p.train.Mean != p.eval.Mean || p.train.Std != p.eval.Std) {
			check(fmt.Errorf("data: transforms normalise by %v / %v, evalTransforms by %v / %v", p.train.Mean, p.train.Std, p.eval.Mean, p.eval.Std))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w %s:\n%w", ErrRecipe, c.Name, err)
	}
	if p.model, err = model.NewCLIP(c.Model, losses.NeedsBias(c.Losses)); err != nil {
		return nil, err
	}
	for i, g := range c.Optim.Groups {
		matches := func(q *model.Param) bool { ok, _ := path.Match(g.Pattern, q.Name); return ok } // the pattern is valid
		if !slices.ContainsFunc(p.model.Layout.Params, matches) {
			return nil, fmt.Errorf("%w %s: optim.groups[%d].pattern: %q matches no parameter; there are %s", ErrRecipe, c.Name, i, g.Pattern, paramNames(p.model))
		}
	}
	return p, nil
}

// paramNames lists a model's parameters, of the blocks the first of each tower.
func paramNames(m *model.CLIP) string {
	var names []string
	for _, p := range m.Layout.Params {
		if !strings.Contains(p.Name, "resblocks.") || strings.Contains(p.Name, "resblocks.0.") {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, ", ")
}
