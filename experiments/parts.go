package experiments

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"diptych/data/arrowset"
	"diptych/data/tokenizer"
	"diptych/data/transform"
	"diptych/losses"
	"diptych/model"
)

// parts are what a recipe builds, whether it is trained or only used.
type parts struct {
	tok         tokenizer.Tokenizer // nil where the model reads no texts
	train, eval *transform.Pipeline
	model       model.Model
	vocabulary  []byte           // what the tokenizer's file holds, if it is not in the program
	classes     []arrowset.Class // of the labels, where the recipe names them; or the answers that the model learns
}

// build resolves what one room takes from another (the vocabulary's size, the context's length, the number of classes), checks
// the whole recipe and reports every fault at once, then builds its parts. classes are those of a model that was trained before;
// without them the data set's manifest is read.
func (c *Config) build(classes []arrowset.Class) (*parts, error) {
	p := &parts{classes: classes}
	var errs []error
	check := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if c.Start.From == "" && c.Start.New != nil { // and the rest is wanting too
		return nil, fmt.Errorf("%w %s: start.from: empty, but start.new names what begins anew; name the model to start from (trainer finetune --from MODEL)", ErrRecipe, c.Name)
	}
	c.Data.Resolve()
	if c.Model.HasTexts() {
		check(c.buildTexts(p))
	}
	check(c.resolveClasses(p))
	check(c.Data.Validate())
	check(c.Model.Validate())
	check(losses.Validate(c.Losses))
	check(c.Optim.Validate())
	check(c.Train.Validate())
	check(c.Start.validate())
	check(c.Engine.Validate())
	if height, width := c.Model.Vision.Sides(); height > 0 {
		pipeline := func(specs []transform.Spec) (*transform.Pipeline, error) {
			if c.Model.HasShapes() {
				return transform.NewPatches(specs, height, c.Model.Vision.PatchSize)
			}
			return transform.New(specs, height, width)
		}
		var err error
		if p.train, err = pipeline(c.Data.Transforms); err != nil {
			check(fmt.Errorf("data.transforms: %w", err))
		}
		if p.eval, err = pipeline(c.Data.EvalTransforms); err != nil {
			check(fmt.Errorf("data.evalTransforms: %w", err))
		}
		if p.train != nil && p.eval != nil && (p.train.Mean != p.eval.Mean || p.train.Std != p.eval.Std) {
			check(fmt.Errorf("data: transforms normalise by %v / %v, evalTransforms by %v / %v", p.train.Mean, p.train.Std, p.eval.Mean, p.eval.Std))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w %s:\n%w", ErrRecipe, c.Name, err)
	}
	var err error
	if p.model, err = model.New(c.Model, losses.Heads(c.Losses)); err != nil {
		return nil, err
	}
	params := p.model.Parameters().Params
	for i, g := range c.Optim.Groups {
		matches := func(q *model.Param) bool { ok, _ := path.Match(g.Pattern, q.Name); return ok } // the pattern is valid
		if !slices.ContainsFunc(params, matches) {
			return nil, fmt.Errorf("%w %s: optim.groups[%d].pattern: %q matches no parameter; there are %s", ErrRecipe, c.Name, i, g.Pattern, paramNames(params))
		}
	}
	return p, nil
}

// buildTexts makes the tokenizer and gives the model its vocabulary.
func (c *Config) buildTexts(p *parts) error {
	var errs []error
	check := func(err error) { errs = append(errs, err) }
	text := &c.Model.Text
	if text.Kind == "bert" && text.Weights != "" && text.Width == 0 {
		check(describeText(text))
	}
	tc := &c.Data.Tokenizer
	if tc.ContextLength != 0 && tc.ContextLength != text.ContextLength {
		check(fmt.Errorf("data.tokenizer.contextLength: %d, model.text.contextLength has %d; leave the first out", tc.ContextLength, text.ContextLength))
	}
	tc.ContextLength = text.ContextLength
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
	var err error
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
	return errors.Join(errs...)
}

// resolveClasses finds the classes that labels are of, and gives a classifier their number.
func (c *Config) resolveClasses(p *parts) error {
	needs := losses.NeedsOf(c.Losses)
	switch {
	case needs.Answers && c.Data.Classes != "":
		return fmt.Errorf("data.classes: %s, but an objective learns the answers to captions: leave it out", c.Data.Classes)
	case c.learnsAnswers() && p.classes == nil:
		var err error
		if p.classes, err = c.readAnswers(); err != nil {
			return err
		}
	case c.learnsAnswers():
	case needs.Labels && c.Data.Classes == "":
		return errors.New("data.classes: empty, but an objective learns classes: name a class system of the data set")
	case c.Data.Classes == "":
		return nil
	case p.classes == nil:
		man, err := readManifest(c.Data.All()[0].Path)
		if err != nil {
			return fmt.Errorf("data.path: %w", err)
		}
		sys, err := classSystem(man, c.Data.Classes)
		if err != nil {
			return err
		}
		p.classes = sys.Classes
	}
	if c.Model.Kind == "vit" || losses.Heads(c.Losses).Answers != "" {
		switch k := &c.Model.NumClasses; {
		case *k == 0:
			*k = len(p.classes)
		case *k != len(p.classes):
			return fmt.Errorf("model.numClasses: %d, the data set has %d classes (%s); leave the first out", *k, len(p.classes), or(c.Data.Classes, "answers"))
		}
	}
	return nil
}

// classSystem finds a class system of a set.
func classSystem(m *arrowset.Manifest, name string) (*arrowset.ClassSystem, error) {
	var names []string
	for i := range m.Classes {
		if m.Classes[i].Name == name {
			return &m.Classes[i], nil
		}
		names = append(names, m.Classes[i].Name)
	}
	return nil, fmt.Errorf("data.classes: %s has no class system %q; it has %s", m.Name, name, or(strings.Join(names, ", "), "none"))
}

// paramNames lists parameters, of the blocks the first of each tower.
func paramNames(params []*model.Param) string {
	var names []string
	for _, p := range params {
		if !strings.Contains(p.Name, "blocks.") || strings.Contains(p.Name, "blocks.0.") {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, ", ")
}
