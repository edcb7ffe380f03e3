package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"diptych/data/arrowset"
	"diptych/data/check"
	"diptych/data/remote"
	"diptych/data/tokenizer"
	"diptych/data/transform"
	"diptych/experiments"
	"diptych/internal/sheet"
)

// errFindings is the error of a set with faults, which have been told already.
var errFindings = errors.New("the data set has errors")

const (
	shownFindings = 3 // of each kind, on the terminal
	sheetFindings = 6 // of each kind, on the contact sheet
)

// newCheck is "trainer data check": what is wrong with a data set.
func newCheck() *cobra.Command {
	var recipe, sheetFile, out, published string
	var also []string
	var asJSON, fix bool
	var threads int
	var cache remote.Options
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Say what is wrong with a data set, by name, and write a cleaned copy",
		Long: fmt.Sprintf(`Check the pictures, captions, splits, groups, labels and classes of a data set (or of the embedded one, "demo").

Errors stop a run or make a measurement wrong; the exit code is 1 if there are any. Warnings are for a person to look at.
Captions are counted in the tokens of --recipe, or of CLIP's tokenizer with 77 tokens. Near-duplicates are pictures of two
splits whose perceptual hashes differ in at most %d of 63 bits and whose thumbnails agree.

--fix writes a copy without the rows and captions that have errors, and %s in it, which says for each what was done and
why. --also names kinds of warnings to act on as well, or all.

Errors: %s.

Warnings: %s.`, check.NearBits, check.FixesName, kindLines(check.Error), kindLines(check.Warning)),
		Example: `  trainer data check my-data --sheet worst.png
  trainer data check my-data --recipe recipe.yaml --json > report.json
  trainer data check my-data --fix --also pair-repeated,image-tiny --out my-clean-data`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if fix != (out != "") {
				return usagef("--fix and --out go together: the cleaned copy and its folder")
			}
			if threads < 0 {
				return usagef("--threads %d: want a number of threads, or 0 for all cores", threads)
			}
			kinds, err := fixKinds(also)
			if err != nil {
				return err
			}
			show := stages(cmd.ErrOrStderr())
			o := check.Options{Published: published, Workers: threads, Progress: show}
			if recipe != "" {
				in, err := experiments.LoadInput(recipe, nil)
				if err != nil {
					return err
				}
				o.Tokenizer, o.Split, o.Admits = in.Tokenizer, in.Config.Data.Split, in.Admits
			}
			if o.Tokenizer == nil { // no recipe, or one of a model that reads no texts
				var err error
				if o.Tokenizer, err = tokenizer.New(tokenizer.Default()); err != nil {
					return err
				}
			}
			set, err := openData(cmd, args[0], cache)
			var r *check.Report
			if errors.Is(err, arrowset.ErrSchema) || errors.Is(err, arrowset.ErrCorrupt) {
				r, fix, sheetFile = check.Unreadable(args[0], err), false, ""
			} else if err != nil {
				return err
			} else {
				defer set.Close()
				r, err = check.Run(cmd.Context(), set, o)
				if errors.Is(err, check.ErrOption) {
					return usageError{err}
				}
				if err != nil {
					return err
				}
			}
			if sheetFile != "" {
				if err := writeCheckSheet(cmd.Context(), set, r, sheetFile); err != nil {
					return err
				}
			}
			var changes []check.Change
			if fix {
				changes, err = check.Fix(cmd.Context(), set, r, out, check.FixOptions{Also: kinds, Progress: show})
				if errors.Is(err, fs.ErrExist) {
					return usageError{err}
				}
				if err != nil {
					return err
				}
			}
			w := cmd.OutOrStdout()
			if asJSON {
				err = writeJSON(w, r)
			} else {
				err = printReport(w, r, sheetFile)
			}
			if err != nil {
				return err
			}
			if fix {
				return cleaned(cmd, r, changes, out, asJSON)
			}
			if r.Errors > 0 {
				return fmt.Errorf("%s: %w: %d", args[0], errFindings, r.Errors)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&recipe, "recipe", "", "`recipe` whose tokenizer, split and captions count")
	f.StringVar(&published, "published", "", "published `set` to compare the counts with; without it, the set's name decides")
	f.StringVar(&sheetFile, "sheet", "", "PNG `file` of a contact sheet of the worst")
	f.BoolVar(&asJSON, "json", false, "write the report as JSON")
	f.BoolVar(&fix, "fix", false, "write a cleaned copy to --out")
	f.StringSliceVar(&also, "also", nil, "`kinds` of warnings that --fix acts on as well, or all")
	f.StringVar(&out, "out", "", "`folder` of the cleaned copy, which must not exist or be empty")
	f.IntVar(&threads, "threads", 0, "threads; 0 takes all cores")
	addCacheFlags(cmd, &cache)
	return cmd
}

// kindLines lists the kinds of a severity in lines for the help.
func kindLines(s check.Severity) string {
	var b strings.Builder
	line := 0
	for _, k := range check.Kinds() {
		if k.Severity() != s {
			continue
		}
		switch {
		case b.Len() == 0:
		case line+len(k) > 110:
			b.WriteString(",\n  ")
			line = 0
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(k))
		line += len(k) + 2
	}
	return b.String()
}

func kindNames(kinds []check.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// fixKinds reads --also.
func fixKinds(also []string) ([]check.Kind, error) {
	var fixable, out []check.Kind
	for _, k := range check.Kinds() {
		if k.Fixable() {
			fixable = append(fixable, k)
		}
	}
	for _, name := range also {
		switch k := check.Kind(name); {
		case name == "all":
			return fixable, nil
		case !slices.Contains(fixable, k):
			return nil, usagef("--also %s: want some of %s, or all", name, kindNames(fixable))
		default:
			out = append(out, k)
		}
	}
	return out, nil
}

// cleaned tells what --fix has done; errors that it leaves to a person fail.
func cleaned(cmd *cobra.Command, r *check.Report, changes []check.Change, out string, asJSON bool) error {
	rows, captions, rewritten := 0, 0, 0
	last := -1
	for _, c := range changes {
		switch {
		case c.Action == "rewritten":
			rewritten++
		case c.Caption >= 0:
			captions++
		case c.Row != last: // several reasons for one row
			rows++
			last = c.Row
		}
	}
	w := cmd.OutOrStdout()
	if asJSON {
		w = cmd.ErrOrStderr()
	}
	fmt.Fprintf(w, "\n%s: %d of %d rows; %d rows and %d captions left out, %d captions rewritten; see %s/%s\n", out, r.Rows-rows, r.Rows, rows, captions, rewritten, out, check.FixesName)
	return nil
}

// printReport writes the report for a person.
func printReport(out io.Writer, r *check.Report, sheetFile string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%d pictures, %d captions; %d errors, %d warnings\n", cmp.Or(r.Name, r.Path), r.Rows, r.Captions, r.Errors, r.Warnings)
	if g := r.Groups; g.Groups > 0 || g.Labels > 0 {
		fmt.Fprintf(w, "groups\t%d, of at most %d rows, %d of one; %d rows without\n", g.Groups, g.Largest, g.Singles, g.Alone)
		fmt.Fprintf(w, "labels\t%d; %d rows without\n", g.Labels, g.NoLabel)
	}
	if t := r.Tokens; t != nil {
		fmt.Fprintf(w, "tokens\t%.1f a caption, at most %d; the tokenizer (%s) takes %d\n", t.Mean, t.Longest, t.Tokenizer.Kind, t.ContextLength)
		if t.TooLong > 0 {
			fmt.Fprintf(w, "  cut off\t%d captions (%.2f %%) lose %d tokens: %s\n", t.TooLong, 100*float64(t.TooLong)/float64(t.Captions), t.LostTokens, losses(t.Losses))
		}
		fmt.Fprintf(w, "words\t%d, %d distinct; %.1f %% are one token, %.2f %% unknown (spelled nearly byte by byte)", t.Words, t.Distinct, 100*t.Whole, 100*t.Unknown)
		if len(t.Examples) > 0 {
			fmt.Fprintf(w, ": %s", strings.Join(t.Examples[:min(5, len(t.Examples))], ", "))
		}
		fmt.Fprintln(w)
	}
	if r.Counts != nil {
		fmt.Fprintf(w, "published\t%s: %s\n", r.Counts.Name, r.Counts.Source)
	}
	if sheetFile != "" {
		fmt.Fprintf(w, "contact sheet\t%s\n", sheetFile)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Splits) > 0 {
		w = tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "\nsplit\tpictures\tcaptions\tgroups\tlabels\t")
		for _, s := range r.Splits {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", s.Name, s.Pictures, s.Captions, s.Groups, s.Labels)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, o := range r.Overlaps {
			fmt.Fprintf(out, "%s and %s share %d groups, %.0f %% of the smaller\n", o.A, o.B, o.Groups, 100*o.Share)
		}
	}
	if len(r.Kinds) == 0 {
		_, err := fmt.Fprintln(out, "\nnothing is wrong")
		return err
	}
	w = tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nseverity\tkind\tfound\trows\twhat to do")
	for _, k := range r.Kinds {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", k.Severity, k.Kind, k.Findings, k.Rows, k.Advice)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, k := range r.Kinds {
		fmt.Fprintf(out, "\n%s %s\n", k.Severity, k.Kind)
		shown := 0
		for _, f := range r.Findings {
			if f.Kind != k.Kind {
				continue
			}
			if shown++; shown > shownFindings {
				fmt.Fprintf(out, "  … %d more; --json lists all\n", k.Findings-shownFindings)
				break
			}
			fmt.Fprintf(out, "  %s\n", describe(f))
		}
	}
	return nil
}

// describe is a finding in one line.
func describe(f check.Finding) string {
	switch {
	case f.Row < 0:
		return f.Detail
	case f.Caption < 0:
		return fmt.Sprintf("row %d (%s): %s", f.Row, f.ImageID, f.Detail)
	}
	return fmt.Sprintf("row %d (%s), caption %d: %s", f.Row, f.ImageID, f.Caption, f.Detail)
}

func losses(ls []check.Loss) string {
	parts := make([]string, len(ls))
	for i, l := range ls {
		if l.From == l.To {
			parts[i] = fmt.Sprintf("%d lose %d", l.Captions, l.From)
		} else {
			parts[i] = fmt.Sprintf("%d lose %d to %d", l.Captions, l.From, l.To)
		}
	}
	return strings.Join(parts, ", ")
}

// writeCheckSheet draws findings of each kind that is about rows, errors first: the kind, then pictures, each with the one that
// it is compared with.
func writeCheckSheet(ctx context.Context, set *arrowset.Set, r *check.Report, file string) error {
	var rows [][]sheet.Cell
	for _, k := range r.Kinds {
		row := []sheet.Cell{{Text: strings.ReplaceAll(string(k.Kind), "-", " "), Note: fmt.Sprintf("%s, %d found", k.Severity, k.Findings)}}
		for _, f := range r.Findings {
			if f.Kind != k.Kind || f.Row < 0 || len(row) > sheetFindings {
				continue
			}
			cell, err := findingCell(ctx, set, f)
			if err != nil {
				return err
			}
			row = append(row, cell)
			if f.Other >= 0 && len(row) <= sheetFindings {
				cell, err := rowCell(ctx, set, f.Other)
				if err != nil {
					return err
				}
				cell.Text = fmt.Sprintf("compared with row %d: %s", f.Other, cell.Text)
				row = append(row, cell)
			}
		}
		if len(row) > 1 {
			rows = append(rows, row)
		}
	}
	s := sheet.Sheet{Title: "The worst of " + cmp.Or(r.Name, r.Path), Subtitle: fmt.Sprintf("%d pictures, %d errors, %d warnings", r.Rows, r.Errors, r.Warnings), Rows: rows, Lead: true, Side: 150}
	return replaceFile(file, s.WritePNG)
}

func findingCell(ctx context.Context, set *arrowset.Set, f check.Finding) (sheet.Cell, error) {
	cell, err := rowCell(ctx, set, f.Row)
	if f.Caption >= 0 {
		cell.Text = visibleText(set.Captions(f.Row)[f.Caption].Text)
	} else if f.Other < 0 || cell.Picture == nil {
		cell.Text = f.Detail
	}
	if f.Severity == check.Error {
		cell.Mark = sheet.Wrong
	}
	return cell, err
}

// visibleText shows what a text without visible characters consists of.
func visibleText(s string) string {
	if strings.TrimSpace(s) == "" {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// rowCell is the picture of a row with its first caption; one that does not decode has no picture.
func rowCell(ctx context.Context, set *arrowset.Set, row int) (sheet.Cell, error) {
	m := &set.Meta()[row]
	cell := sheet.Cell{Note: fmt.Sprintf("row %d, %s", row, m.Split)}
	if captions := set.Captions(row); len(captions) > 0 {
		cell.Text = captions[0].Text
	}
	b, err := set.Image(ctx, row)
	if errors.Is(err, arrowset.ErrCorrupt) {
		return cell, nil
	}
	if err != nil {
		return cell, err
	}
	var im transform.Image
	if transform.Decode(b, &im) == nil {
		cell.Picture = sheet.RGB(im.W, im.H, im.Pix)
	}
	return cell, nil
}
