package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"diptych/checkpoints/bridge"
	"diptych/checkpoints/safetensors"
	"diptych/experiments"
)

// newWeights is "trainer weights": public weights in and out.
func newWeights() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "weights",
		Short: "Bring public weights in and out, and compare them",
		Long: `Weights are read from safetensors (one file, or shards with their index), from PyTorch's .pt, .pth, .bin and .ckpt in both forms, from TorchScript
archives and from NumPy's .npz. Whose names they have is recognised from the names alone. A pickle is parsed, never executed.`,
		Example: "  trainer weights show ViT-B-32.pt\n  trainer weights import ViT-B-32.pt --out models/b32",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newWeightsShow(), newWeightsImport(), newWeightsExport(), newWeightsVerify(), newWeightsDiff())
	return cmd
}

// weightsError makes what is wrong with a file that a person named their mistake.
func weightsError(err error) error {
	for _, theirs := range []error{fs.ErrNotExist, bridge.ErrUnknown, bridge.ErrUnsupported, bridge.ErrMismatch, experiments.ErrExists} {
		if errors.Is(err, theirs) {
			return usageError{err}
		}
	}
	return err
}

// shownTensor is a line of "weights show".
type shownTensor struct {
	Name  string            `json:"name"`
	DType safetensors.DType `json:"dtype"`
	Shape []int             `json:"shape"`
}

// shownFile is what "weights show" prints with --json.
type shownFile struct {
	File       string        `json:"file"`
	Form       string        `json:"form"`
	Family     string        `json:"family,omitempty"`
	Prefix     string        `json:"prefix,omitempty"`
	Model      any           `json:"model,omitempty"`
	Objectives []string      `json:"objectives,omitempty"`
	Classes    []string      `json:"classes,omitempty"`
	Transforms any           `json:"transforms,omitempty"`
	Vocabulary any           `json:"vocabulary,omitempty"`
	Parameters int           `json:"parameters"`
	Notes      []string      `json:"notes,omitempty"`
	Problem    string        `json:"problem,omitempty"`
	Tensors    []shownTensor `json:"tensors"`
}

func newWeightsShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show FILE|DIR",
		Short:   "List tensors, and say which model this is and whose names it has",
		Example: "  trainer weights show ViT-B-32.pt\n  trainer weights show models/b32 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := experiments.OpenWeights(args[0])
			if err != nil {
				return weightsError(err)
			}
			defer src.Close()
			res := shownFile{File: src.Path, Form: src.Form, Tensors: []shownTensor{}}
			for _, name := range src.Names() {
				info, err := src.Info(name)
				if err != nil {
					return err
				}
				res.Tensors = append(res.Tensors, shownTensor{name, info.DType, info.Shape})
				res.Parameters += info.Len()
			}
			about := []string{"not a model that is known"}
			if m, err := experiments.DescribeWeights(src); err == nil {
				res.Family, res.Prefix, res.Model, res.Notes = m.Family, m.Prefix, m.Description.Model, m.Notes
				res.Objectives, res.Classes = m.Objectives, m.Classes
				if m.Tensors != nil { // of a public file: what else there is in it is not the model's
					res.Parameters = 0
				}
				for _, t := range m.Tensors {
					res.Parameters += safetensors.Info{Shape: t.Shape}.Len()
				}
				about[0] = m.About + ": " + m.Summary()
				if m.Objectives != nil {
					about = append(about, "objectives: "+strings.Join(m.Objectives, ", "))
				}
				if m.Transforms != nil {
					res.Transforms = m.Transforms
					var ops []string
					for _, op := range m.Transforms {
						ops = append(ops, op.String())
					}
					about = append(about, "pictures: "+strings.Join(ops, ", "))
				}
				if v := m.Vocabulary; v != nil {
					res.Vocabulary = v
					about = append(about, fmt.Sprintf("vocabulary: %s of %s entries, sentences of up to %d", strings.TrimSpace(v.Kind+" "+v.File), thousands(m.Entries), v.ContextLength))
				}
			} else {
				res.Problem = err.Error()
			}
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				return enc.Encode(res)
			}
			for _, t := range res.Tensors {
				fmt.Fprintf(out, "%-5s %-22s %s\n", t.DType, fmt.Sprint(t.Shape), t.Name)
			}
			fmt.Fprintf(out, "\n%s (%s)\n%d tensors, %s parameters\n%s\n", res.File, res.Form, len(res.Tensors), thousands(res.Parameters), strings.Join(about, "\n"))
			for _, n := range res.Notes {
				fmt.Fprintln(out, "note:", n)
			}
			if res.Problem != "" {
				fmt.Fprintln(out, res.Problem)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func newWeightsImport() *cobra.Command {
	var out string
	var size int
	var o experiments.ImportOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import FILE|DIR --out DIR",
		Short: "Make a model's folder from public weights",
		Long: `Make a folder that eval, embed, search and finetune accept like a run. Elements are copied in the type they are stored in. What names and shapes do not
say (heads, activation, epsilon, preprocessing, vocabulary) is taken from the config.json, open_clip_config.json, preprocessor_config.json and merges.txt beside
the weights; --set changes it. Missing, unknown and mis-shaped tensors are listed and nothing is written.`,
		Example: `  trainer weights import ViT-B-32.pt --out models/b32
  trainer weights import clip-vit-base-patch16/ --out models/b16-384 --image-size 384 --positions open_clip`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("--out is missing: the folder to make")
			}
			if size != 0 {
				o.Sets = append(o.Sets, fmt.Sprintf("model.vision.imageSize=%d", size))
			}
			m, err := experiments.Import(args[0], out, o)
			if err != nil {
				return weightsError(err)
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(map[string]any{"out": m.Out, "family": m.Family, "tensors": len(m.Tensors), "notes": m.Notes, "beside": m.Beside, "model": m.Config.Model})
			}
			fmt.Fprintf(w, "%s: %s\n%d tensors -> %s\n", m.About, m.Summary(), len(m.Tensors), m.Out)
			if n := len(m.Beside); n > 0 {
				fmt.Fprintf(w, "%d other tensors in the file, such as %s, are left out\n", n, m.Beside[0])
			}
			for _, n := range m.Notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", n)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`folder` to make")
	cmd.Flags().IntVar(&size, "image-size", 0, "pixels of a side, if another than the weights'; positions are resampled")
	cmd.Flags().StringVar(&o.Positions, "positions", "", "how positions are resampled: "+strings.Join(bridge.Methods(), ", ")+" (default: as the weights' library does)")
	cmd.Flags().StringVar(&o.Tokenizer, "tokenizer", "", "merges `file` of the vocabulary, if it is neither CLIP's nor beside the weights")
	cmd.Flags().StringArrayVar(&o.Sets, "set", nil, "override, such as `model.vision.activation=quick_gelu`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newWeightsExport() *cobra.Command {
	var out string
	var o experiments.ExportOptions
	var asJSON bool
	_, writable := bridge.FamilyNames()
	cmd := &cobra.Command{
		Use:   "export RUN --format FORMAT --out DIR",
		Short: "Write a model in the names and with the files of a public library",
		Long: `Write a run's model, its average where there is one, so that the library opens the folder: CLIPModel.from_pretrained(DIR),
open_clip.create_model_and_transforms("local-dir:DIR"). Formats: ` + strings.Join(writable, ", ") + `.`,
		Example: "  trainer weights export runs/clip-emoji --format hf --out exports/clip-emoji\n  trainer weights export models/b32 --format open_clip --dtype fp16 --out exports/b32",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case out == "":
				return usagef("--out is missing: the folder to make")
			case !slices.Contains(writable, o.Family):
				return usagef("--format %q is unknown; known: %s", o.Family, strings.Join(writable, ", "))
			}
			res, err := experiments.Export(args[0], out, o)
			if err != nil {
				return weightsError(err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d tensors, %.1f MB -> %s: %s\n", res.Tensors, float64(res.Bytes)/1e6, res.Out, strings.Join(res.Files, ", "))
			for _, n := range res.Notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", n)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`folder` to make")
	cmd.Flags().StringVar(&o.Family, "format", "", "whose `names`: "+strings.Join(writable, ", "))
	cmd.Flags().StringVar(&o.DType, "dtype", "", "fp32, fp16 or bf16 (default: as the weights are stored)")
	cmd.Flags().BoolVar(&o.Pickle, "pickle", false, "PyTorch's .bin in place of safetensors")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newWeightsDiff() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Print the largest difference of each tensor of two files or models",
		Long: `Compare two files, folders or runs. If both are models that are known, tensors are compared under our names, so that whose names they have does not
matter; else under their own. Exit code 1 if anything differs.`,
		Example: "  trainer weights diff ViT-B-32.pt clip-vit-base-patch32/\n  trainer weights diff runs/a runs/b --json",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			diffs, err := experiments.DiffWeights(args[0], args[1])
			if err != nil {
				return weightsError(err)
			}
			out := cmd.OutOrStdout()
			different := 0
			for _, d := range diffs {
				if d.Differ() {
					different++
				}
			}
			switch {
			case asJSON:
				if err := json.NewEncoder(out).Encode(diffs); err != nil {
					return err
				}
			default:
				for _, d := range diffs {
					switch {
					case d.Only != "":
						fmt.Fprintf(out, "%-10s only in %s\n", d.Name, d.Only)
					case !slices.Equal(d.Shapes[0], d.Shapes[1]):
						fmt.Fprintf(out, "%-10s shapes %v and %v\n", d.Name, d.Shapes[0], d.Shapes[1])
					case d.Largest != 0 || all:
						fmt.Fprintf(out, "%-10.3g relative %-10.3g %s\n", d.Largest, d.Relative, d.Name)
					}
				}
				fmt.Fprintf(out, "%d of %d tensors differ\n", different, len(diffs))
			}
			if different > 0 {
				return fmt.Errorf("%s and %s differ in %d of %d tensors", args[0], args[1], different, len(diffs))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "print equal tensors too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
