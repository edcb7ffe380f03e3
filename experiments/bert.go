package experiments

import (
	"fmt"

	"diptych/checkpoints/bridge"
	"diptych/model"
	"diptych/train"
)

// describeText gives a text tower the sizes of the weights that it begins with.
func describeText(t *model.Text) error {
	b, err := bridge.OpenBERT(t.Weights)
	if err != nil {
		return fmt.Errorf("model.text.weights: %w", err)
	}
	defer b.Close()
	if err := b.Describe(t); err != nil {
		return fmt.Errorf("model.text.weights: %w", err)
	}
	return nil
}

// loadText gives a new run's text tower the weights that the recipe names, if it names some.
func (c *Config) loadText(t *train.Trainer) error {
	if c.Model.Text.Weights == "" {
		return nil
	}
	b, err := bridge.OpenBERT(c.Model.Text.Weights)
	if err != nil {
		return fmt.Errorf("experiments: model.text.weights: %w", err)
	}
	defer b.Close()
	if err := b.Load(t.Model().Parameters(), t.Weights()); err != nil {
		return fmt.Errorf("experiments: model.text.weights: %s: %w", c.Model.Text.Weights, err)
	}
	return nil
}
