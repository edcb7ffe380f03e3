package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"diptych/experiments"
	"diptych/internal/kernel"
)

// verifyReport is what "weights verify" prints with --json.
type verifyReport struct {
	Fixture     string                 `json:"fixture"`
	Weights     string                 `json:"weights"`
	OK          bool                   `json:"ok"`
	Compared    int                    `json:"compared"`
	NotComputed int                    `json:"notComputed"`
	Tensors     []experiments.Verified `json:"tensors"`
}

func newWeightsVerify() *cobra.Command {
	var dir string
	var sets []string
	var threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [WEIGHTS] --golden DIR",
		Short: "Compare a model with stored inputs and outputs of its reference",
		Long: `Run a model on the in.* of a fixture's io.safetensors and print, for each stored out.*, loss.* and grad.*, the largest absolute and relative difference
beside the tolerance in its golden.json. WEIGHTS is a public file or folder, an imported folder or a run; without it the fixture's own weights are taken, or, if it has none, its
tables of positions are computed. What nothing here corresponds to is listed as not computed. Exit code 1 beyond a tolerance, or if nothing can be compared.`,
		Example: `  trainer weights verify models/b32 --golden fixtures/clip-b32
  trainer weights verify --golden fixtures/vit-token --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return usagef("--golden is missing: the folder with io.safetensors and golden.json")
			}
			f, err := experiments.OpenFixture(dir)
			if err != nil {
				return weightsError(err)
			}
			defer f.Close()
			weights := f.Weights
			if len(args) > 0 {
				weights = args[0]
			}
			res, err := experiments.Verify(f, weights, sets, threads)
			if err != nil {
				return weightsError(err)
			}
			rep := verifyReport{Fixture: dir, Weights: weights, Tensors: res}
			bad := 0
			for _, v := range res {
				switch {
				case !v.Computed:
					rep.NotComputed++
				case !v.OK:
					bad++
					fallthrough
				default:
					rep.Compared++
				}
			}
			rep.OK = bad == 0 && rep.Compared > 0
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				if err := enc.Encode(rep); err != nil {
					return err
				}
			} else {
				for _, v := range res {
					switch {
					case !v.Computed:
						fmt.Fprintf(out, "not computed%46s%s\n", "", v.Name)
					default:
						word := "ok"
						if !v.OK {
							word = "BEYOND"
						}
						fmt.Fprintf(out, "%-6s  %-10.3g relative %-10.3g tolerance %-8.1g %s\n", word, v.Largest, v.Relative, v.Atol, v.Name)
					}
				}
				fmt.Fprintf(out, "%d compared, %d beyond their tolerance, %d not computed\n", rep.Compared, bad, rep.NotComputed)
			}
			switch {
			case rep.Compared == 0:
				return fmt.Errorf("%s: nothing of the fixture can be compared", dir)
			case bad > 0:
				return fmt.Errorf("%s: %d of %d tensors are beyond their tolerance", dir, bad, rep.Compared)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "golden", "", "`folder` of the fixture")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "override of what a public file says, such as `model.vision.activation=gelu`")
	cmd.Flags().IntVar(&threads, "threads", kernel.DefaultThreads(), "threads that share the work")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
