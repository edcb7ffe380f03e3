package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"diptych/data/arrowset"
	"diptych/data/convert"
)

// importFormat is a format that "trainer data import" reads: a subcommand with flags and arguments of its own.
type importFormat struct {
	use, short, long, example string

	args   cobra.PositionalArgs // nil means none
	wanted []string             // flags that must be given, besides --out
	// bind declares the flags of the format on cmd, and returns what makes its importer of them and of the arguments.
	bind func(cmd *cobra.Command) func(args []string) (convert.Importer, error)
}

// importFormats are all formats, in the order of the help.
var importFormats = []importFormat{
	importCOCO,
	importKarpathy,
	importFlickr30k,
	importCC,
	importSBU,
	importVG,
	importVQA,
	importNLVR2,
	importNLVR,
	importSNLIVE,
	importCSV,
	importTSV,
	importJSONL,
	importFolder,
	importClasses,
	importWebDataset,
	importParquet,
	importViltArrow,
}

func newImports() []*cobra.Command {
	var cmds []*cobra.Command
	for _, format := range importFormats {
		cmds = append(cmds, newImport(format))
	}
	return cmds
}

const importHelp = `

A bad record, such as a picture that is missing or a line that is cut, stops the import with the file and the record; with
--on-bad skip it is left out and listed in skipped.jsonl in the data set's folder. An import that was stopped or killed goes
on where it was when the same command is given again, and makes the same files as if nothing had happened. What is finished is
not made again: the same command says so and ends well, also where its input has changed since; another one is an error.

--classes is a JSON object that names the classes of the pictures, for zero-shot evaluation, probes and classifiers:

  {"templates": ["a photo of a {}."], "concept": [{"id": "n01440764", "text": "tench"}, …], "style": [{"id": "oil", "text": "an oil painting"}]}

Each member but "templates" (prompts, {} where the name goes) is a class system: "concept" lies in the rows' group, any other in the
attribute of its name.`

// newImport is "trainer data import FORMAT".
func newImport(format importFormat) *cobra.Command {
	var o convert.Options
	var classes, onBad string
	var importer func(args []string) (convert.Importer, error)
	cmd := &cobra.Command{
		Use: format.use, Short: format.short, Long: format.long + importHelp, Example: format.example, Args: format.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wanted(cmd, append(format.wanted, "out")...); err != nil {
				return err
			}
			if o.Workers < 0 || o.ShardBytes < 0 {
				return usagef("--workers %d, --shard-bytes %d: want 0 or more", o.Workers, o.ShardBytes)
			}
			if o.OnBad = convert.OnBad(onBad); o.OnBad != convert.Fail && o.OnBad != convert.Skip {
				return usagef("--on-bad %s: want %s or %s", onBad, convert.Fail, convert.Skip)
			}
			im, err := importer(args)
			if err != nil {
				return err
			}
			return runImport(cmd, im, o, classes)
		},
	}
	if cmd.Args == nil {
		cmd.Args = cobra.NoArgs
	}
	f := cmd.Flags()
	importer = format.bind(cmd)
	f.StringVar(&classes, "classes", "", "`file` of class systems with prompts, for zero-shot evaluation")
	f.StringVar(&o.Out, "out", "", "data set's `folder`, which must not exist")
	f.StringVar(&o.Name, "name", "", "`name` of the data set; without it, the folder's")
	f.StringVar(&o.Description, "description", "", "a `sentence` about the data set")
	f.StringVar(&onBad, "on-bad", string(convert.Fail), "what becomes of a bad record: `fail` or skip")
	f.IntVar(&o.Workers, "workers", 0, "`number` of pictures that are read at once; 0 means one per core. The output does not depend on it")
	f.Int64Var(&o.ShardBytes, "shard-bytes", 0, "`size` at which a file is closed and the next begun; 0 means 256 MiB")
	f.SortFlags = false
	return cmd
}

func runImport(cmd *cobra.Command, im convert.Importer, o convert.Options, classes string) (err error) {
	if classes != "" {
		if o.Classes, err = convert.ReadClasses(classes); err != nil {
			return usageError{err}
		}
	}
	start := time.Now()
	shown := newImportProgress(cmd.ErrOrStderr())
	o.Progress = shown.show
	r, err := convert.Run(cmd.Context(), im, o)
	shown.end()
	if errors.Is(err, convert.ErrInput) || errors.Is(err, arrowset.ErrSchema) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if r.Before {
		fmt.Fprintf(cmd.OutOrStdout(), "%s holds the whole data set of %d rows that this import made; to import anew, remove the folder\n", o.Out, r.Rows)
		return nil
	}
	w, seconds := cmd.OutOrStdout(), time.Since(start).Seconds()
	fmt.Fprintf(w, "%s: %d pictures in %.1f s (%.0f/s)", o.Out, r.Rows, seconds, float64(r.Rows-r.Kept)/seconds)
	if r.Kept > 0 {
		fmt.Fprintf(w, ", %d of them by an earlier start", r.Kept)
	}
	fmt.Fprintf(w, "; see `trainer data show %s`\n", o.Out)
	if r.Skipped > 0 {
		fmt.Fprintf(w, "%d bad records were left out; see %s\n", r.Skipped, filepath.Join(o.Out, convert.SkippedName))
	}
	return nil
}

// importProgress shows an import: a bar with the time that is left on a terminal, lines elsewhere.
type importProgress struct {
	w       io.Writer
	bar     *progressbar.ProgressBar
	begun   time.Time
	first   convert.Progress
	printed time.Time
}

// barSteps are the steps of a bar, since the number of records may not be known.
const barSteps = 10000

func newImportProgress(w io.Writer) *importProgress {
	p := &importProgress{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(barSteps, progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(24), progressbar.OptionFullWidth(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())
	}
	return p
}

func (p *importProgress) show(now convert.Progress) {
	t := time.Now()
	if p.begun.IsZero() {
		p.begun, p.first, p.printed = t, now, t
		return
	}
	every := lineEvery
	if p.bar != nil {
		every = 500 * time.Millisecond
	}
	if t.Sub(p.printed) < every {
		return
	}
	p.printed = t
	seconds := t.Sub(p.begun).Seconds()
	status := fmt.Sprintf("importing: %d pictures  %.0f/s", now.Rows, float64(now.Rows-p.first.Rows)/seconds)
	if now.Skipped > 0 {
		status += fmt.Sprintf("  %d bad", now.Skipped)
	}
	if now.Part > p.first.Part {
		left := seconds / (now.Part - p.first.Part) * (1 - now.Part)
		status += fmt.Sprintf("  %.0f %%  ETA %s", 100*now.Part, (time.Duration(left) * time.Second).Round(time.Second))
	}
	if p.bar == nil {
		fmt.Fprintln(p.w, status)
		return
	}
	p.bar.Describe(status)
	_ = p.bar.Set(int(now.Part * barSteps)) // a bar that cannot be drawn must not stop the work
}

func (p *importProgress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
