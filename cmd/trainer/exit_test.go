package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"diptych/experiments"
	"diptych/train"
)

// A failure stays one when it comes together with Ctrl-C, such as a checkpoint that could not be written.
func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"done", t.Context(), nil, 0},
		{"failure", t.Context(), errors.New("no space left"), exitFailure},
		{"failure while interrupted", cancelled, errors.New("no space left"), exitFailure},
		{"interrupted run", cancelled, errors.Join(train.ErrInterrupted), exitInterrupted},
		{"interrupted command", cancelled, fmt.Errorf("eval: %w", context.Canceled), exitInterrupted},
		{"recipe", t.Context(), fmt.Errorf("%w: no", experiments.ErrRecipe), exitUsage},
		{"usage", t.Context(), usagef("no"), exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := &cobra.Command{RunE: func(*cobra.Command, []string) error { return c.err }, SilenceErrors: true, SilenceUsage: true}
			cmd.SetErr(io.Discard)
			require.Equal(t, c.want, run(c.ctx, cmd, nil))
		})
	}
}
