package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"diptych/data/remote"
	"diptych/experiments"
	"diptych/experiments/bench"
	"diptych/internal/kernel"
	"diptych/model"
)

// newBench is "trainer bench": how fast this machine is, and how near to that the program comes.
func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure speed: the chip's limit, matrix products, attention, whole updates, reading data",
		Long: `Measure how fast this machine can multiply at most, and how near to that matrix products, attention and whole updates come.
Shares are of the peak that the same call measures, before and after: compare ratios, not machines. Nothing else should run.`,
		Example: "  trainer bench peak\n  trainer bench step ViT-B-32 clip-emoji --picture step.png",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchPeak(), newBenchGemm(), newBenchAttention(), newBenchStep(), newBenchData())
	return cmd
}

// benchFlags are those that all benchmarks have.
type benchFlags struct {
	threads   int
	json      bool
	precision string
}

func (b *benchFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&b.threads, "threads", 0, fmt.Sprintf("`number` of threads; 0 takes all cores (%d)", runtime.NumCPU()))
	cmd.Flags().BoolVar(&b.json, "json", false, "write the result as JSON")
}

// operandsHelp explains --precision.
const operandsHelp = "`format` of what products multiply: fp32 or bf16"

// addPrecision adds the flag of benchmarks that multiply.
func (b *benchFlags) addPrecision(cmd *cobra.Command, value, help string) {
	cmd.Flags().StringVar(&b.precision, "precision", value, help)
}

func (b *benchFlags) check() error {
	if b.precision != "" {
		if err := bench.CheckPrecision(b.precision); err != nil {
			return usagef("--precision: %w", err)
		}
	}
	if b.threads < 0 || b.threads > maxThreads {
		return usagef("--threads %d: want 1 to %d, or 0 for all cores", b.threads, maxThreads)
	}
	if b.threads == 0 {
		b.threads = kernel.DefaultThreads()
	}
	return nil
}

// show writes v as JSON, or as a table.
func (b *benchFlags) show(cmd *cobra.Command, v any, table func(w io.Writer)) error {
	if b.json {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', tabwriter.AlignRight)
	table(w)
	return w.Flush()
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func millis(seconds float64) string { return fmt.Sprintf("%.3g", 1e3*seconds) }

func peakLine(p bench.PeakResult) string {
	return fmt.Sprintf("peak %.1f GFLOP/s %s on %d threads, kernels %s", p.GFLOPs, p.Precision, p.Threads, p.Kernel)
}

func newBenchPeak() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "peak",
		Short:   "Measure multiply-adds in registers, which no program can exceed",
		Example: "  trainer bench peak --threads 1 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			p := kernel.NewPool(f.threads)
			defer p.Close()
			r := bench.Peak(p, f.precision)
			return f.show(cmd, r, func(w io.Writer) { fmt.Fprintln(w, peakLine(r)) })
		},
	}
	f.add(cmd)
	f.addPrecision(cmd, bench.FP32, operandsHelp)
	return cmd
}

func newBenchGemm() *cobra.Command {
	var f benchFlags
	var batch, tries int
	cmd := &cobra.Command{
		Use:   "gemm [PRESET…]",
		Short: "Measure the matrix products of a model's layers, forward and backward",
		Long: `Measure each matrix product of the layers of a preset's towers: the result (Y), the gradient of its input (dX) and of its
weight (dW), in turn, and give the median of each. The total weighs them by how often the model has them.
Presets: ` + strings.Join(model.PresetNames(), ", ") + `; without one, ViT-B-32.`,
		Example: "  trainer bench gemm ViT-B-32 ViT-S-32-alt --batch 32",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if batch < 1 || tries < 1 {
				return usagef("--batch %d, --tries %d: want at least 1", batch, tries)
			}
			if len(args) == 0 {
				args = []string{"ViT-B-32"}
			}
			p := kernel.NewPool(f.threads)
			defer p.Close()
			var all []*bench.GemmResult
			for _, name := range args {
				c, err := model.DefaultFor("clip", name)
				if err != nil {
					return usageError{err}
				}
				r, err := bench.Gemm(cmd.Context(), name, &c, batch, tries, f.precision, p)
				if err != nil {
					return err
				}
				all = append(all, r)
			}
			return f.show(cmd, all, func(w io.Writer) {
				for _, r := range all {
					fmt.Fprintf(w, "%s, batch %d; %s\n", r.Model, r.Batch, peakLine(r.Peak))
					fmt.Fprint(w, "layer\tform\tM\tN\tK\tms\tGFLOP/s\tof peak\t\n")
					for _, q := range r.Products {
						fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%.1f\t%s\t\n", q.Layer, q.Form, q.M, q.N, q.K, millis(q.Seconds.Median), q.GFLOPs, percent(q.Share))
					}
					fmt.Fprintf(w, "all\t\t\t\t\t\t%.1f\t%s\t\n", r.GFLOPs, percent(r.Share))
				}
			})
		},
	}
	f.add(cmd)
	f.addPrecision(cmd, bench.FP32, operandsHelp)
	cmd.Flags().IntVar(&batch, "batch", 32, "`pairs`")
	cmd.Flags().IntVar(&tries, "tries", 5, "`times` that each product is timed")
	return cmd
}

func newBenchAttention() *cobra.Command {
	var f benchFlags
	var tries int
	cmd := &cobra.Command{
		Use:     "attention",
		Short:   "Measure fused attention, forward and backward, at several lengths",
		Example: "  trainer bench attention --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if tries < 1 {
				return usagef("--tries %d: want at least 1", tries)
			}
			p := kernel.NewPool(f.threads)
			defer p.Close()
			r, err := bench.Attention(cmd.Context(), tries, f.precision, p)
			if err != nil {
				return err
			}
			return f.show(cmd, r, func(w io.Writer) {
				fmt.Fprintln(w, peakLine(r.Peak))
				fmt.Fprint(w, "tokens\tsequences\theads\thead dim\tcausal\tforward ms\tbackward ms\tGFLOP/s\tof peak\t\n")
				for _, s := range r.Shapes {
					fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%v\t%s\t%s\t%.1f\t%s\t\n", s.Tokens, s.Sequences, s.Heads, s.HeadDim, s.Causal,
						millis(s.Forward.Median), millis(s.Backward.Median), s.GFLOPs, percent(s.Share))
				}
			})
		},
	}
	f.add(cmd)
	f.addPrecision(cmd, bench.FP32, operandsHelp)
	cmd.Flags().IntVar(&tries, "tries", 7, "`times` that each shape is timed")
	return cmd
}

func newBenchStep() *cobra.Command {
	var f benchFlags
	var o bench.StepOptions
	var picture string
	cmd := &cobra.Command{
		Use:   "step [MODEL…]",
		Short: "Measure whole updates: time, share of the peak, memory, and where the time goes",
		Long: `Measure updates of a model: forward, losses, backward, sums and optimizer, without reading pictures. A MODEL is a preset, with
made-up pictures and texts of one length, or a recipe, file or built-in, with the first batches of its own data.

Two counts of operations are given. "done" is what an update computes: packed tokens, pooled last blocks, no padding; the share
of the peak is of it, and what is computed a second time does not count. "nominal" is three times the forward pass of the
published model with its whole context, which is what others compute; compare speeds on it, or on pairs per second.
Presets: ` + strings.Join(model.PresetNames(), ", ") + `; ` + strings.Join(slices.Sorted(maps.Keys(model.ViLTPresets)), ", ") + `. Built-in recipes: ` + strings.Join(experiments.Names(), ", ") + `. Without one, ViT-B-32.`,
		Example: `  trainer bench step ViT-B-32 --batch 32 --tokens 77
  trainer bench step vilt-b32 --batch 8 --precision bf16
  trainer bench step experiments/clip-emoji.yaml --set train.lanes=1 --picture step.png --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			switch {
			case o.Batch < 0 || o.Tokens < 0 || o.Warm < 0 || o.Steps < 1:
				return usagef("--batch %d, --tokens %d, --warm %d, --steps %d: none may be negative, and --steps at least 1", o.Batch, o.Tokens, o.Warm, o.Steps)
			case o.Workers < 0:
				return usagef("--workers %d: want at least 1, or 0 for as many as are fastest", o.Workers)
			}
			if len(args) == 0 {
				args = []string{"ViT-B-32"}
			}
			o.Threads, o.Precision, o.Cache.Note = f.threads, f.precision, notes(cmd.ErrOrStderr())
			var all []*bench.StepResult
			for _, name := range args {
				o.Model = name
				r, err := bench.Step(cmd.Context(), o)
				if err != nil {
					return err
				}
				all = append(all, r)
			}
			if picture != "" {
				if err := bench.Picture(picture, all); err != nil {
					return err
				}
			}
			return f.show(cmd, all, func(w io.Writer) {
				for _, r := range all {
					stepTable(w, r)
				}
			})
		},
	}
	f.add(cmd)
	f.addPrecision(cmd, "", operandsHelp+"; empty: the recipe's")
	cmd.Flags().StringArrayVar(&o.Sets, "set", nil, "override, such as `train.lanes=1`; may be repeated")
	cmd.Flags().IntVar(&o.Batch, "batch", 0, "`pairs` of an update; 0: the recipe's, of a preset 32")
	cmd.Flags().IntVar(&o.Tokens, "tokens", 0, "`length` of a preset's texts; 0: the whole context")
	cmd.Flags().IntVar(&o.Workers, "workers", 0, "replicas of the model that share the threads; 0: as many as are fastest")
	cmd.Flags().IntVar(&o.Warm, "warm", 2, "`updates` before those that are timed")
	cmd.Flags().IntVar(&o.Steps, "steps", 7, "`updates` that are timed")
	cmd.Flags().StringVar(&picture, "picture", "", "draw where the time goes into this PNG `file`")
	addCacheFlags(cmd, &o.Cache)
	return cmd
}

func stepTable(w io.Writer, r *bench.StepResult) {
	fmt.Fprintf(w, "%s, %s, batch %d in %d grains and %d lanes by %d workers, texts: %s; %s\n", r.Model, r.Precision, r.Batch, r.Grains, r.Lanes, r.Workers, r.Texts, peakLine(r.Peak))
	fmt.Fprintf(w, "update %s ms (%s to %s, %d updates), %.1f pairs/s; first update after %.2f s\n", millis(r.Seconds.Median), millis(r.Seconds.Min),
		millis(r.Seconds.Max), r.Seconds.Count, r.PairsPerSecond, r.FirstStep)
	fmt.Fprintf(w, "done %.1f GFLOP, %.1f GFLOP/s, %s of peak", r.Done/1e9, r.GFLOPs, percent(r.Share))
	if r.Nominal > 0 {
		fmt.Fprintf(w, "; nominal %.1f GFLOP, %.1f GFLOP/s", r.Nominal/1e9, r.Nominal/r.Seconds.Median/1e9)
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "%d parameters; memory planned %s, of it activations %s; process at most %s\n", r.Params, size(r.Planned), size(r.Activations), size(r.PeakMemory))
	fmt.Fprint(w, "operation\tphase\truns\tms\tof time\tGFLOP/s\tof peak\t\n")
	for _, o := range r.Ops {
		rate, share := "", ""
		if o.GFLOPs > 0 {
			rate, share = fmt.Sprintf("%.1f", o.GFLOPs), percent(o.Share)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t\n", o.Kind, o.Phase, o.Runs, millis(o.Seconds), percent(o.Part), rate, share)
	}
}

func newBenchData() *cobra.Command {
	var f benchFlags
	var sets []string
	var updates int
	var cache remote.Options
	cmd := &cobra.Command{
		Use:     "data [RECIPE]",
		Short:   "Measure how fast a recipe's batches are read, decoded and transformed",
		Example: "  trainer bench data experiments/clip-emoji.yaml --updates 40",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if updates < 1 {
				return usagef("--updates %d: want at least 1", updates)
			}
			recipe := experiments.DefaultRecipe
			if len(args) == 1 {
				recipe = args[0]
			}
			cache.Note = notes(cmd.ErrOrStderr())
			r, err := bench.Data(cmd.Context(), recipe, sets, updates, f.threads, cache)
			if err != nil {
				return err
			}
			return f.show(cmd, r, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d batches of %d pairs on %d threads, the first after %.2f s\n", r.Recipe, r.Updates, r.Batch, r.Threads, r.First)
				fmt.Fprintf(w, "read the first time\t%.0f pairs/s\t\nread again\t%.0f pairs/s\t\n", r.Cold, r.Warm)
				if r.Broken > 0 {
					fmt.Fprintf(w, "%d pictures do not decode; trainer data check names them\n", r.Broken)
				}
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&sets, "set", nil, "override, such as `data.cacheMiB=0`; may be repeated")
	cmd.Flags().IntVar(&updates, "updates", 20, "`batches` that are read")
	addCacheFlags(cmd, &cache)
	return cmd
}
