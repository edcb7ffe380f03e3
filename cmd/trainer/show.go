package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // formats and sizes of the pictures
	_ "image/png"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/remote"
	"diptych/data/transform"
	"diptych/experiments"
	"diptych/internal/sheet"
)

const (
	sheetColumns, sheetRows = 8, 5
	looksAt                 = 1000 // pictures whose headers are read
)

// newShow is "trainer data show": what lies in a data set.
func newShow() *cobra.Command {
	var asJSON, verify bool
	var sheetFile string
	var cache remote.Options
	cmd := &cobra.Command{
		Use:   "show DIR",
		Short: "Show the columns, counts, sizes and splits of a data set, and some of its pictures",
		Long: fmt.Sprintf(`Show what lies in a data set (a folder, the embedded one, "demo", or a remote one, by its address): columns, splits, groups, captions, classes, licences and files.
%d pictures, evenly spread over its rows, are drawn on a contact sheet.`, sheetColumns*sheetRows),
		Example: "  trainer data show my-data\n  trainer data show demo --json --sheet \"\"\n  trainer data show https://example.com/pairs/manifest.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := openData(cmd, args[0], cache)
			if err != nil {
				return err
			}
			defer set.Close()
			if verify {
				if err := set.Verify(cmd.Context()); err != nil {
					return err
				}
			}
			o, err := overview(cmd.Context(), set)
			if err != nil {
				return err
			}
			if sheetFile != "" {
				if err := writeSheet(cmd.Context(), set, sheetFile); err != nil {
					return err
				}
				o.Sheet = sheetFile
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), o)
			}
			return o.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.Flags().BoolVar(&verify, "verify", false, "compare the checksums of all files")
	cmd.Flags().StringVar(&sheetFile, "sheet", "contact-sheet.png", "`file` of the contact sheet; \"\" draws none")
	addCacheFlags(cmd, &cache)
	return cmd
}

// openData opens a data set: a folder, demo, or an address, of which only the files with rows of some splits are fetched, all if
// none is named.
func openData(cmd *cobra.Command, path string, cache remote.Options, splits ...string) (*arrowset.Set, error) {
	cache.Note = notes(cmd.ErrOrStderr())
	set, err := experiments.OpenSet(cmd.Context(), path, cache, func(*arrowset.Manifest) []string { return splits })
	if misnamed(err) {
		return nil, usageError{err}
	}
	return set, err
}

// misnamed tells whether an error of opening a data set is the user's: what was named is none, lacks what was named of it, or
// does not fit where it shall go.
func misnamed(err error) bool {
	return slices.ContainsFunc([]error{fs.ErrNotExist, remote.ErrAddress, remote.ErrSplit, remote.ErrCache, arrowset.ErrSchema}, func(e error) bool { return errors.Is(err, e) })
}

// dataOverview is what "trainer data show --json" writes.
type dataOverview struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Path        string            `json:"path,omitempty"`
	Rows        int               `json:"rows"`
	Groups      int               `json:"groups"`
	Columns     []arrowset.Column `json:"columns"`
	Splits      []splitOverview   `json:"splits"`
	Pictures    pictureOverview   `json:"pictures"`
	Captions    captionOverview   `json:"captions"`
	Classes     []classOverview   `json:"classes"`
	Licenses    []licenseOverview `json:"licenses"`
	Shards      []arrowset.Shard  `json:"shards"`
	Bytes       int64             `json:"bytes"` // of all shards
	Sheet       string            `json:"sheet,omitempty"`
}

type splitOverview struct {
	Name               string  `json:"name"`
	Rows               int     `json:"rows"`
	Groups             int     `json:"groups"` // a row without a group counts as one
	Captions           int     `json:"captions"`
	MinCaptions        int     `json:"minCaptions"` // per picture
	CaptionsPerPicture float64 `json:"captionsPerPicture"`
	MaxCaptions        int     `json:"maxCaptions"` // per picture
	Bytes              int64   `json:"bytes"`       // of the pictures
}

type pictureOverview struct {
	Bytes    int64          `json:"bytes"`
	MinBytes int            `json:"minBytes"`
	MaxBytes int            `json:"maxBytes"`
	LookedAt int            `json:"lookedAt"` // pictures that the next two are about
	Formats  map[string]int `json:"formats"`
	Sizes    map[string]int `json:"sizes"`             // width×height
	Seconds  int            `json:"seconds,omitempty"` // rows with a second picture
}

type captionOverview struct {
	Count    int            `json:"count"`
	Distinct int            `json:"distinct"`
	Words    float64        `json:"wordsPerCaption"`
	Kinds    map[string]int `json:"kinds"`
	Langs    map[string]int `json:"langs"`
	Answered int            `json:"answered"` // captions with an answer
	Answers  int            `json:"answers"`  // distinct ones of all annotators, as they were given
}

type classOverview struct {
	Name    string `json:"name"`
	Column  string `json:"column"`
	Classes int    `json:"classes"`
	Prompts int    `json:"prompts"`
	Rows    int    `json:"rows"` // that have a class
}

type licenseOverview struct {
	arrowset.License
	Rows int `json:"rows"`
}

func overview(ctx context.Context, set *arrowset.Set) (*dataOverview, error) {
	m := set.Manifest()
	o := &dataOverview{Name: m.Name, Description: m.Description, Path: set.Path(), Rows: set.Len(), Groups: m.Groups, Columns: m.Schema, Shards: m.Shards}
	for _, s := range m.Shards {
		o.Bytes += s.Bytes
	}
	o.Captions.Kinds, o.Captions.Langs = map[string]int{}, map[string]int{}
	splits, groups := map[string]*splitOverview{}, map[[2]string]bool{}
	texts, answers := map[string]bool{}, map[string]bool{}
	for i := range set.Meta() {
		r := &set.Meta()[i]
		s := splits[r.Split]
		captions := set.Captions(i)
		if s == nil {
			s = &splitOverview{Name: r.Split, MinCaptions: len(captions)}
			splits[r.Split] = s
		}
		s.Rows++
		if key := [2]string{r.Split, r.Group}; r.Group == "" || !groups[key] {
			groups[key] = true
			s.Groups++
		}
		s.Captions += len(captions)
		s.MinCaptions, s.MaxCaptions = min(s.MinCaptions, len(captions)), max(s.MaxCaptions, len(captions))
		for _, c := range captions {
			texts[c.Text] = true
			o.Captions.Count++
			o.Captions.Words += float64(len(strings.Fields(c.Text)))
			o.Captions.Kinds[c.Kind]++
			o.Captions.Langs[c.Lang]++
			if c.Answer != "" {
				o.Captions.Answered++
			}
			for _, a := range arrowset.SplitAnswers(c.Answer) {
				answers[a] = true
			}
		}
		if set.HasSecond(i) {
			o.Pictures.Seconds++
		}
		n := set.ImageSize(i)
		s.Bytes += int64(n)
		if i == 0 {
			o.Pictures.MinBytes = n
		}
		o.Pictures.Bytes += int64(n)
		o.Pictures.MinBytes, o.Pictures.MaxBytes = min(o.Pictures.MinBytes, n), max(o.Pictures.MaxBytes, n)
	}
	o.Captions.Distinct, o.Captions.Answers = len(texts), len(answers)
	o.Captions.Words /= float64(max(1, o.Captions.Count))
	for _, s := range splits {
		s.CaptionsPerPicture = float64(s.Captions) / float64(s.Rows)
		o.Splits = append(o.Splits, *s)
	}
	slices.SortFunc(o.Splits, func(a, b splitOverview) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), strings.Compare(a.Name, b.Name))
	})
	o.Classes = []classOverview{}
	for _, c := range m.Classes {
		co := classOverview{Name: c.Name, Column: c.Column, Classes: len(c.Classes), Prompts: len(c.Templates)}
		ids := map[string]bool{}
		for _, class := range c.Classes {
			ids[class.ID] = true
		}
		if value, ok := set.Column(c.Column); ok {
			for i := range set.Len() {
				if ids[value(i)] {
					co.Rows++
				}
			}
		}
		o.Classes = append(o.Classes, co)
	}
	o.Licenses = []licenseOverview{}
	license, ok := set.Column("license")
	for _, l := range m.Licenses {
		lo := licenseOverview{License: l}
		for i := 0; ok && i < set.Len(); i++ {
			if license(i) == l.Name {
				lo.Rows++
			}
		}
		o.Licenses = append(o.Licenses, lo)
	}
	o.Pictures.Formats, o.Pictures.Sizes = map[string]int{}, map[string]int{}
	for _, i := range spread(set.Len(), looksAt) {
		b, err := set.Image(ctx, i)
		if err != nil {
			return nil, err
		}
		o.Pictures.LookedAt++
		c, format, err := image.DecodeConfig(bytes.NewReader(b))
		if err != nil {
			o.Pictures.Formats["not PNG or JPEG"]++
			continue
		}
		o.Pictures.Formats[format]++
		o.Pictures.Sizes[fmt.Sprintf("%d×%d", c.Width, c.Height)]++
	}
	return o, nil
}

// spread chooses at most k of n rows, evenly.
func spread(n, k int) []int {
	k = min(n, k)
	rows := make([]int, k)
	for i := range rows {
		rows[i] = i * n / k
	}
	return rows
}

func (o *dataOverview) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s\n", o.Name, o.Description)
	if o.Path != "" {
		what := "folder"
		if data.IsAddress(o.Path) {
			what = "address"
		}
		fmt.Fprintf(w, "%s\t%s\n", what, o.Path)
	}
	fmt.Fprintf(w, "pictures\t%d, %s; %d to %d bytes each\n", o.Rows, megabytes(o.Pictures.Bytes), o.Pictures.MinBytes, o.Pictures.MaxBytes)
	fmt.Fprintf(w, "  of %d looked at\t%s; %s\n", o.Pictures.LookedAt, counts(o.Pictures.Formats), counts(o.Pictures.Sizes))
	fmt.Fprintf(w, "groups\t%d\n", o.Groups)
	fmt.Fprintf(w, "captions\t%d, %d distinct, %.1f words each\n", o.Captions.Count, o.Captions.Distinct, o.Captions.Words)
	fmt.Fprintf(w, "  kinds\t%s\n", counts(o.Captions.Kinds))
	fmt.Fprintf(w, "  languages\t%s\n", counts(o.Captions.Langs))
	if o.Captions.Answered > 0 {
		fmt.Fprintf(w, "  answered\t%d, with %d distinct answers\n", o.Captions.Answered, o.Captions.Answers)
	}
	if o.Pictures.Seconds > 0 {
		fmt.Fprintf(w, "second pictures\t%d\n", o.Pictures.Seconds)
	}
	names := make([]string, len(o.Columns))
	for i, c := range o.Columns {
		names[i] = c.Name + " " + c.Type
	}
	fmt.Fprintf(w, "columns\t%s\n", strings.Join(names, ", "))
	fmt.Fprintf(w, "files\t%d, %s\n", len(o.Shards), megabytes(o.Bytes))
	for _, l := range o.Licenses {
		fmt.Fprintf(w, "licence\t%d pictures, %s, %s\n", l.Rows, l.Name, l.URL)
	}
	if o.Sheet != "" {
		fmt.Fprintf(w, "contact sheet\t%s\n", o.Sheet)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nsplit\tpictures\tgroups\tcaptions\tper picture\tsize\t")
	for _, s := range o.Splits {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d to %d, %.2f\t%s\t\n", s.Name, s.Rows, s.Groups, s.Captions, s.MinCaptions, s.MaxCaptions, s.CaptionsPerPicture, megabytes(s.Bytes))
	}
	if len(o.Classes) > 0 {
		fmt.Fprintln(w, "\nclass system\tclasses\tprompts\tpictures\tcolumn\t")
		for _, c := range o.Classes {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t\n", c.Name, c.Classes, c.Prompts, c.Rows, c.Column)
		}
	}
	return w.Flush()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// counts writes the most frequent values first, at most six.
func counts(m map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), strings.Compare(a, b)) })
	var parts []string
	for _, k := range keys[:min(6, len(keys))] {
		parts = append(parts, fmt.Sprintf("%s %d", cmp.Or(k, "not given"), m[k]))
	}
	if len(keys) > 6 {
		parts = append(parts, fmt.Sprintf("%d more", len(keys)-6))
	}
	return strings.Join(parts, ", ")
}

// writeSheet draws pictures of the set with their first captions; one that does not decode is marked.
func writeSheet(ctx context.Context, set *arrowset.Set, file string) error {
	var cells []sheet.Cell
	for _, i := range spread(set.Len(), sheetColumns*sheetRows) {
		b, err := set.Image(ctx, i)
		if err != nil {
			return err
		}
		cell := sheet.Cell{Note: set.Meta()[i].Split}
		var im transform.Image
		if err := transform.Decode(b, &im); err != nil {
			cell.Text, cell.Mark = fmt.Sprintf("row %d: %v", i, err), sheet.Wrong
		} else {
			cell.Picture = sheet.RGB(im.W, im.H, im.Pix)
			if captions := set.Captions(i); len(captions) > 0 {
				cell.Text = captions[0].Text
			}
		}
		cells = append(cells, cell)
	}
	m := set.Manifest()
	s := sheet.Sheet{Title: m.Name, Subtitle: fmt.Sprintf("%d of %d pictures. %s", len(cells), set.Len(), m.Description), Rows: sheet.Grid(cells, sheetColumns)}
	return replaceFile(file, s.WritePNG)
}
