package eval

import (
	"context"
	"fmt"
	"strings"

	"diptych/internal/kernel"
)

// PromptSlot is what a template holds in the place of the class name.
const PromptSlot = "{}"

// BareTemplate is the template of the class name alone.
const BareTemplate = PromptSlot

// ZeroShotInput is N pictures to be sorted into C classes.
type ZeroShotInput struct {
	Images  []float32 // (N, E), unit rows
	Classes []float32 // (C, E), unit rows: one text embedding for each class
	Dim     int       // E
	Labels  []int     // (N) the right class of each picture
}

// Accuracy says how often the right class has the highest score. Equal scores rank by the index of the class.
type Accuracy struct {
	Top1         float64 `json:"top1"`
	Top5         float64 `json:"top5"`
	MeanPerClass float64 `json:"meanPerClass"` // mean of the classes' top-1, over the classes that have pictures
}

// ClassAccuracy is the part of one class.
type ClassAccuracy struct {
	Class  string  `json:"class"`
	Images int     `json:"images"`
	Top1   float64 `json:"top1"`
	Top5   float64 `json:"top5"`
	// Mistaken is the wrong class that was chosen most often, empty if none was; MistakenFor is the fraction.
	Mistaken    string  `json:"mistaken,omitempty"`
	MistakenFor float64 `json:"mistakenFor,omitempty"`
}

// ZeroShot classifies each picture by its nearest class (Radford et al. 2021, §3.1.2). perClass has one entry for each of
// names, which has C entries. The errors are those of Retrieval; a label outside [0, C) is an ErrShape.
func ZeroShot(p *kernel.Pool, in ZeroShotInput, names []string) (Accuracy, []ClassAccuracy, error) {
	acc, perClass, err := zeroShot(p, in, names)
	if err != nil {
		return acc, nil, fmt.Errorf("eval: zero-shot: %w", err)
	}
	return acc, perClass, nil
}

func zeroShot(p *kernel.Pool, in ZeroShotInput, names []string) (acc Accuracy, perClass []ClassAccuracy, err error) {
	if err := checkRows("images", in.Images, in.Dim, len(in.Labels)); err != nil {
		return acc, nil, err
	}
	if err := checkRows("classes", in.Classes, in.Dim, len(names)); err != nil {
		return acc, nil, err
	}
	for i, c := range in.Labels {
		if c < 0 || c >= len(names) {
			return acc, nil, fmt.Errorf("%w: picture %d has class %d of %d", ErrShape, i, c, len(names))
		}
	}
	answers := make([]answer, len(in.Labels))
	eachRow(p, in.Images, in.Classes, in.Dim, func(i int, scores []float32) { answers[i] = answerOf(scores, in.Labels[i]) })
	acc, perClass = tally(answers, in.Labels, names)
	return acc, perClass, nil
}

// promptEmbeds embeds each name in a template, such as "a photo of a {}.": (len(names), E), unit rows.
func promptEmbeds(ctx context.Context, enc Encoder, names []string, template string) ([]float32, error) {
	if !strings.Contains(template, PromptSlot) {
		return nil, fmt.Errorf("template %q has no %s for the class name", template, PromptSlot)
	}
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = strings.ReplaceAll(template, PromptSlot, name)
	}
	x, err := enc.Texts(ctx, texts)
	if err != nil {
		return nil, fmt.Errorf("template %q: %w", template, err)
	}
	if err := checkRows("class names", x, enc.EmbedDim(), len(names)); err != nil {
		return nil, fmt.Errorf("template %q: %w", template, err)
	}
	normalizeRows(x, enc.EmbedDim())
	return x, nil
}
