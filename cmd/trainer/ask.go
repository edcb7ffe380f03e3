package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"diptych/data/transform"
)

// newAsk is "trainer ask": it answers a question about a picture.
func newAsk() *cobra.Command {
	var file, second string
	var top, threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ask RUN --image FILE \"what colour is it?\"",
		Short: "Answer a question about a picture",
		Long: `Answer a question about a picture by a model that was trained to (objective vqa), with the most probable of the answers that it
learned. Each answer's probability is its own: they need not add up to 100 %. A model of classes of pictures and sentences
(objective pairclass: entailment, classification) is given a sentence in the question's place; its probabilities add up. Where it
judges a sentence about two pictures (NLVR2), --second names the right one.`,
		Example: `  trainer ask runs/vilt-vqa --image apple.png "what colour is it?"
  trainer ask runs/vilt-nlvr2 --image left.png --second right.png "both show a dog" --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, im, err := openBeside(cmd, args[0], file, "the picture that the question is about", top, threads)
			if err != nil {
				return err
			}
			defer m.Close()
			var other *transform.Image
			if second != "" {
				if other, err = readPicture(m, "--second", second); err != nil {
					return err
				}
			}
			answers, err := m.Ask(cmd.Context(), im, other, args[1], top)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), answers)
			}
			for _, a := range answers {
				fmt.Fprintf(cmd.OutOrStdout(), "%6.2f %%  %s\n", 100*a.Probability, a.Text)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "image", "", "picture `file`")
	f.StringVar(&second, "second", "", "second picture `file`, of a model that judges two")
	f.IntVar(&top, "top", 5, "`number` of answers")
	addModelFlags(cmd, &threads, &asJSON)
	return cmd
}
