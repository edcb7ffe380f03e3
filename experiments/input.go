package experiments

import (
	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// Input is what a recipe makes of a data set's rows before a model sees them.
type Input struct {
	Config      *Config
	Tokenizer   tokenizer.Tokenizer // nil where the model reads no texts
	Train, Eval *transform.Pipeline
}

// LoadInput reads a recipe as Load does, checks it whole and builds its input. Of the recipe's data set only the
// manifest is read, and that only for the number of its classes.
func LoadInput(recipe string, sets []string) (*Input, error) {
	c, err := Load(recipe, sets)
	if err != nil {
		return nil, err
	}
	p, err := c.build(nil)
	if err != nil {
		return nil, err
	}
	return &Input{Config: c, Tokenizer: p.tok, Train: p.train, Eval: p.eval}, nil
}

// Admits says whether the recipe uses captions of this kind and language; of several sources the first decides.
func (in *Input) Admits(c arrowset.Caption) bool {
	first := in.Config.Data.All()[0]
	return admits(first.CaptionKinds, c.Kind) && admits(first.CaptionLangs, c.Lang)
}

// Samples lists the rows of a set that the recipe trains on, with the captions it admits; of several sources as the first does.
func (in *Input) Samples(set *arrowset.Set) ([]data.Sample, error) {
	d := dataset{config: in.Config.Data.All()[0], near: set}
	if err := d.checkSplit(); err != nil {
		return nil, err
	}
	return samples(set, &d.config, in.Tokenizer != nil)
}
