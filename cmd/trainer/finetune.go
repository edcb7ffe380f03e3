package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newFinetune is "trainer finetune": it trains a model further on other data.
func newFinetune() *cobra.Command {
	var t trainFlags
	var from string
	cmd := &cobra.Command{
		Use:   "finetune RECIPE --from MODEL",
		Short: "Train a model further, on data of one's own",
		Long: `Train a model further by a recipe, from the weights of MODEL: a run directory, a checkpoint or a model's folder. What the recipe
leaves out of model, data.tokenizer and the transforms is the model's. A parameter that the model does not have, or has in another
shape, is an error unless start.new names it; positions are resampled to another picture size (model.vision.imageSize).

Towers are frozen by patterns of names, optim.groups=[{pattern: "visual.*", freeze: true}]; optim.layerDecay lowers the learning
rate from layer to layer; train.keepBest with train.patience ends the run when the metric no longer grows, with the best model.
A run that was interrupted goes on as one of trainer pretrain does.`,
		Example: `  trainer finetune experiments/finetune-clip.yaml --from runs/clip-emoji --set data.path=my-data
  trainer finetune experiments/finetune-clip.yaml --from models/b32 --set data.path=my-data --set model.vision.imageSize=288
  trainer finetune --out runs/finetune-clip        # goes on with it`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1:
				t.Recipe = args[0]
			case t.Out == "" || from != "":
				return usagef("name a recipe, such as experiments/finetune-clip.yaml; without one, --out names a run to go on with")
			}
			if from != "" {
				t.Sets = append(t.Sets, fmt.Sprintf("start.from=%q", from))
			}
			return t.run(cmd)
		},
	}
	t.add(cmd)
	cmd.Flags().StringVar(&from, "from", "", "run, checkpoint or `model` to start from (start.from of the recipe)")
	return cmd
}
