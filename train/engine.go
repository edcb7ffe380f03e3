package train

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"diptych/internal/kernel"
)

// Engine is how a recipe wants its numbers computed. Both keys belong to its result.
type Engine struct {
	// Precision of the operands of layers and attention: fp32, or bf16, which rounds what they multiply to bfloat16 and keeps
	// weights, sums, gradients, moments, losses and everything between products in float32. Evaluation is in fp32.
	Precision string `yaml:"precision"`
	// Kernel is the family that computes: auto takes the machine's best; avx512, avx2, neon and portable give the same bits on
	// every machine that has them.
	Kernel string `yaml:"kernel"`
}

// DefaultEngine is fp32 on whatever the machine has.
func DefaultEngine() Engine { return Engine{Precision: "fp32", Kernel: "auto"} }

var (
	precisions = []string{"fp32", "bf16"}
	families   = []string{"auto", "avx512", "avx2", "neon", "portable"}
)

// Validate reports every fault at once.
func (e *Engine) Validate() error {
	var errs []error
	for _, c := range []struct {
		key, value string
		known      []string
	}{{"precision", e.Precision, precisions}, {"kernel", e.Kernel, families}} {
		if !slices.Contains(c.known, c.value) {
			errs = append(errs, fmt.Errorf("engine.%s: %q is unknown; known: %s", c.key, c.value, strings.Join(c.known, ", ")))
		}
	}
	return errors.Join(errs...)
}

// startFamily is what the program began with: the best, or what the environment says.
var startFamily = kernel.Family()

// Use makes this process compute with the recipe's kernel family. That the machine or the program does not have it is an error.
func (e *Engine) Use() error {
	name := e.Kernel
	if name == "auto" {
		name = startFamily
	}
	if err := kernel.SetFamily(name); err != nil {
		return fmt.Errorf("engine.kernel: %w", err)
	}
	return nil
}
