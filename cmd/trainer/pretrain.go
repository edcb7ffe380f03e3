package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"diptych/experiments"
)

// maxThreads is more than a machine has cores; a mistyped number must not start a million threads.
const maxThreads = 4096

// newPretrain is "trainer pretrain": it opens a run from a recipe, new or interrupted, and trains to its last step.
func newPretrain() *cobra.Command {
	var o experiments.Options
	var memory float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pretrain [recipe.yaml]",
		Short: "Train a model from a recipe; without one, train the demo",
		Long: `Train a model from a recipe: a file, or the name of a built-in one. Without a recipe the demo is trained, or, with --out,
the run in that directory goes on. A run that was interrupted or killed continues from its last checkpoint to the same
bits as one that was not; one that is finished says so. The workers, threads and memory given here change its speed only.

Interrupt it (Ctrl-C) and it stops after the update at hand, with a checkpoint and exit code 130.`,
		Example: `  trainer pretrain
  trainer pretrain experiments/clip-emoji.yaml --out runs/a --set train.steps=500 --set optim.lr=3e-4
  trainer pretrain --out runs/a        # goes on with it
  trainer pretrain recipe.yaml --set data.path=https://example.com/pairs/manifest.json --cache /scratch/shards --cache-size 200
  trainer pretrain recipe.yaml --set data.path=s3://bucket/pairs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.Workers < 0:
				return usagef("--workers %d: want at least 1, or 0 for as many as are fastest", o.Workers)
			case o.Threads < 0 || o.Threads > maxThreads:
				return usagef("--threads %d: want 1 to %d, or 0 for all cores", o.Threads, maxThreads)
			case !(memory >= 0 && memory < 1<<30):
				return usagef("--memory %v: want GiB, or 0 for what is free", memory)
			}
			o.Memory = int64(memory * (1 << 30))
			if len(args) == 1 {
				o.Recipe = args[0]
			}
			run, err := experiments.Resolve(o)
			if err != nil {
				return err
			}
			con := newConsole(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON)
			con.say("run %s", run.Dir)
			if run.Finished {
				con.say("finished already, %d updates; its report is %s/report/report.md", run.Config.Train.Steps, run.Dir)
				return nil
			}
			err = run.Train(cmd.Context(), con)
			con.end()
			if err != nil {
				return err
			}
			con.say("finished: model %s/model, report %s/report/report.md", run.Dir, run.Dir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Out, "out", "", "run `directory` (default runs/ and the recipe's name)")
	f.StringArrayVar(&o.Sets, "set", nil, "override, such as `optim.lr=3e-4`; may be repeated")
	f.IntVar(&o.Workers, "workers", 0, "replicas of the model that share the threads; must divide the recipe's train.lanes; 0 takes as many as are fastest")
	f.IntVar(&o.Threads, "threads", 0, fmt.Sprintf("threads, shared by the workers; 0 takes all cores (%d)", runtime.NumCPU()))
	f.Float64Var(&memory, "memory", 0, "`GiB` that the run may use; 0 takes what is free. Activations that do not fit are computed again")
	addCacheFlags(cmd, &o.Cache)
	f.BoolVar(&asJSON, "json", false, "write plan, updates and evaluations as JSON lines to standard output")
	return cmd
}
