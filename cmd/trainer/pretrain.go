package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"diptych/experiments"
)

// maxThreads is more than a machine has cores; a mistyped number must not start a million threads.
const maxThreads = 4096

// trainFlags are what pretrain and finetune have in common.
type trainFlags struct {
	experiments.Options
	memory float64
	json   bool
}

// add adds the flags.
func (t *trainFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.Out, "out", "", "run `directory` (default runs/ and the recipe's name)")
	f.StringArrayVar(&t.Sets, "set", nil, "override, such as `optim.lr=3e-4`; may be repeated")
	f.IntVar(&t.Workers, "workers", 0, "replicas of the model that share the threads; must divide the recipe's train.lanes; 0 takes as many as are fastest")
	f.IntVar(&t.Threads, "threads", 0, fmt.Sprintf("threads, shared by the workers; 0 takes all cores (%d)", runtime.NumCPU()))
	f.Float64Var(&t.memory, "memory", 0, "`GiB` that the run may use; 0 takes what is free. Activations that do not fit are computed again")
	addCacheFlags(cmd, &t.Cache)
	f.BoolVar(&t.json, "json", false, "write plan, updates and evaluations as JSON lines to standard output")
}

// run trains what the flags mean.
func (t *trainFlags) run(cmd *cobra.Command) error {
	switch {
	case t.Workers < 0:
		return usagef("--workers %d: want at least 1, or 0 for as many as are fastest", t.Workers)
	case t.Threads < 0 || t.Threads > maxThreads:
		return usagef("--threads %d: want 1 to %d, or 0 for all cores", t.Threads, maxThreads)
	case !(t.memory >= 0 && t.memory < 1<<30):
		return usagef("--memory %v: want GiB, or 0 for what is free", t.memory)
	}
	t.Memory = int64(t.memory * (1 << 30))
	run, err := experiments.Resolve(t.Options)
	if err != nil {
		return err
	}
	con := newConsole(cmd.OutOrStdout(), cmd.ErrOrStderr(), t.json)
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
}

// newPretrain is "trainer pretrain": it opens a run from a recipe, new or interrupted, and trains to its last step.
func newPretrain() *cobra.Command {
	var t trainFlags
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
			if len(args) == 1 {
				t.Recipe = args[0]
			}
			return t.run(cmd)
		},
	}
	t.add(cmd)
	return cmd
}
