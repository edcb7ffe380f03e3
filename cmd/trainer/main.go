// Command trainer trains, evaluates and uses models that look at a picture and read a sentence together.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"diptych/data/arrowset"
	"diptych/experiments"
	"diptych/train"
)

// Exit codes, for scripts.
const (
	exitFailure     = 1
	exitUsage       = 2   // the user's mistake: arguments, recipe, or a run or data set that it does not fit
	exitInterrupted = 130 // stopped by a signal, after a checkpoint
)

// errUsage marks the user's mistakes.
var errUsage = errors.New("usage")

// usageError is a mistake of the user, told without the word usage in front.
type usageError struct{ err error }

func (e usageError) Error() string   { return e.err.Error() }
func (e usageError) Unwrap() []error { return []error{e.err, errUsage} }

// usagef makes an error that exits with 2.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills at once
	os.Exit(run(ctx, newRoot(), os.Args[1:]))
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitFailure
	switch {
	case errors.Is(err, train.ErrInterrupted) || errors.Is(err, context.Canceled):
		code = exitInterrupted
	default:
		for _, theirs := range []error{errUsage, experiments.ErrRecipe, experiments.ErrDiffers, experiments.ErrQuestion, arrowset.ErrSchema} {
			if errors.Is(err, theirs) {
				code = exitUsage
			}
		}
	}
	fmt.Fprintln(root.ErrOrStderr(), "trainer:", err)
	return code
}

// newRoot is the command with all its subcommands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "trainer",
		Short:         "Train models that look at a picture and read a sentence together",
		Example:       "  trainer pretrain                      # the demo, embedded in this program\n  trainer search runs/clip-emoji --images DIR \"a red fruit\"",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 { // a misspelt one's flags are not known here
			return usagef("unknown command %q for %q; see %s --help", words[0], cmd.CommandPath(), cmd.CommandPath())
		}
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newPretrain(), newFinetune(), newData(), newEval(), newScore(), newFill(), newAsk(), newEmbed(), newSearch(), newBench(), newWeights())
	markArgErrors(root)
	return root
}

// markArgErrors makes wrong numbers of arguments and unknown subcommands the user's mistakes.
func markArgErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usagef("%w; see %s --help", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markArgErrors(sub)
	}
}
