package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"diptych/data/arrowset"
	"diptych/data/edit"
	"diptych/data/remote"
	"diptych/data/transform"
)

// newEdits are the commands that make data sets out of data sets.
func newEdits() []*cobra.Command {
	return []*cobra.Command{newMix(), newFilter(), newSample(), newSplit(), newReshard(), newResize(), newReEncode(), newQuestions()}
}

// editFlags are common to these commands.
type editFlags struct {
	edit.Options
	shardMiB int64
	cache    remote.Options
}

func (e *editFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.Out, "out", "", "new data set's `folder`, which must not exist or be empty")
	f.StringVar(&e.Name, "name", "", "`name` of the new data set; without it, the old one's")
	f.Int64Var(&e.shardMiB, "shard-mib", 256, "`MiB` at which a file is closed and the next begun")
	f.IntVar(&e.Workers, "threads", 0, "threads; 0 takes all cores. They change nothing but the time")
	addCacheFlags(cmd, &e.cache)
}

// run opens the data sets, calls do and tells what has come of it. what is what the progress says.
func (e *editFlags) run(cmd *cobra.Command, paths []string, what string, do func(sets []*arrowset.Set) error) error {
	if err := wanted(cmd, "out"); err != nil {
		return err
	}
	if e.shardMiB < 1 {
		return usagef("--shard-mib %d: want at least 1", e.shardMiB)
	}
	if e.Workers < 0 {
		return usagef("--threads %d: want a number of threads, or 0 for all cores", e.Workers)
	}
	e.ShardBytes = e.shardMiB << 20
	var sets []*arrowset.Set
	for _, path := range paths {
		set, err := openData(cmd, path, e.cache)
		if err != nil {
			return err
		}
		defer set.Close()
		sets = append(sets, set)
	}
	start, show := time.Now(), stages(cmd.ErrOrStderr())
	e.Progress = func(done, total int) { show(what, done, total) }
	err := do(sets)
	if errors.Is(err, edit.ErrArgument) || errors.Is(err, arrowset.ErrSchema) || errors.Is(err, fs.ErrExist) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	set, err := arrowset.Open(e.Out)
	if err != nil {
		return err
	}
	defer set.Close()
	bytes := int64(0)
	for _, s := range set.Manifest().Shards {
		bytes += s.Bytes
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %d pictures (%s), %s in %d files, %.1f s\n", e.Out, set.Len(), counts(set.Manifest().Splits), megabytes(bytes), len(set.Manifest().Shards), time.Since(start).Seconds())
	return nil
}

// newQuestions is "trainer data questions".
func newQuestions() *cobra.Command {
	var e editFlags
	var seed uint64
	cmd := &cobra.Command{
		Use:   "questions DIR --out DIR",
		Short: "Make questions and answers of what a set says of its pictures",
		Long: `Make a set of the same pictures whose captions are questions with their answers, to train and measure a model that answers
(objective vqa). Of every picture is asked its class in each class system of at most 200 classes; its dominant colour, computed
from the pixels but for a white background; a colour and a class by yes or no, half of the time its own and else those of another
picture; and the number of capital letters it shows where its label says it ("SOS button": 3), with as many pictures that show
none. Splits, groups and pictures stay; the same seed gives the same questions.`,
		Example: "  trainer data questions demo --out demo-questions",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.run(cmd, args, "asking", func(sets []*arrowset.Set) error {
				return edit.Questions(cmd.Context(), sets[0], seed, e.Options)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().Uint64Var(&seed, "seed", 1, "`seed` of what is drawn")
	return cmd
}

// newMix is "trainer data mix".
func newMix() *cobra.Command {
	var e editFlags
	var o edit.MixOptions
	var groups string
	cmd := &cobra.Command{
		Use:   "mix DIR DIR… --out DIR",
		Short: "Put several data sets into one, in given proportions",
		Long: `Put several data sets into one. It has the attributes, classes and licences of all; their rows are evenly interleaved.

With --weights the rows of --split come in these proportions: as many of each set as there can be without any row twice,
chosen by a hash of seed and image_id. Other splits are taken whole. Where rows of two sets have the same image_id, all get
the name of their set in front. Groups of one name are one group, unless --groups apart.`,
		Example: "  trainer data mix coco vg sbu --out all\n  trainer data mix coco vg --weights 2,1 --out mixed",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if groups != "keep" && groups != "apart" {
				return usagef("--groups %s: want keep or apart", groups)
			}
			o.ApartGroups = groups == "apart"
			return e.run(cmd, args, "mixing", func(sets []*arrowset.Set) error {
				o.Options = e.Options
				return edit.Mix(cmd.Context(), sets, o)
			})
		},
	}
	e.add(cmd)
	f := cmd.Flags()
	f.Float64SliceVar(&o.Weights, "weights", nil, "proportions of the sets, such as `2,1`; without them all is taken")
	f.StringSliceVar(&o.Splits, "split", []string{"train"}, "`splits` that the weights apply to")
	f.StringVar(&groups, "groups", "keep", "keep or `apart`: whether groups of one name in two sets are one")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the choice")
	return cmd
}

// newFilter is "trainer data filter".
func newFilter() *cobra.Command {
	var e editFlags
	var conditions, splits []string
	cmd := &cobra.Command{
		Use:   "filter DIR --out DIR",
		Short: "Keep the rows that fulfil conditions",
		Long: `Keep the rows that fulfil all conditions. A condition is COLUMN=TEXT, COLUMN!=TEXT, COLUMN~EXPRESSION (a regular expression
matches a part of the text; (?i) in front ignores case) or COLUMN!~EXPRESSION. COLUMN is image_id, split, group, label, source
or an attribute; or caption, where = and ~ hold if any of the row's captions fulfils them, != and !~ if none fulfils = or ~.`,
		Example: "  trainer data filter demo --where style=noto --out noto\n  trainer data filter demo --split train --split val --where 'caption~(?i)\\bcat\\b' --out cats",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(conditions)+len(splits) == 0 {
				return usagef("--where or --split must be given; see %s --help", cmd.CommandPath())
			}
			var where []edit.Where
			for _, text := range conditions {
				w, err := edit.ParseWhere(text)
				if err != nil {
					return usageError{err}
				}
				where = append(where, w)
			}
			return e.run(cmd, args, "filtering", func(sets []*arrowset.Set) error {
				return edit.Filter(cmd.Context(), sets[0], splits, where, e.Options)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().StringArrayVar(&conditions, "where", nil, "`condition`, such as style=noto; may be repeated")
	cmd.Flags().StringSliceVar(&splits, "split", nil, "`split` to keep; may be repeated")
	return cmd
}

// newSample is "trainer data sample".
func newSample() *cobra.Command {
	var e editFlags
	var n int
	var fraction float64
	var seed uint64
	cmd := &cobra.Command{
		Use:   "sample DIR --n N --out DIR",
		Short: "Keep a random part of the rows",
		Long: `Keep N rows, or a fraction of them, chosen by a hash of seed and image_id: the same rows whatever else is in the set, and a
smaller sample is part of a larger one. Use filter first to sample one split.`,
		Example: "  trainer data sample demo --n 500 --out small\n  trainer data sample my-data --fraction 0.1 --seed 7 --out tenth",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("n") == cmd.Flags().Changed("fraction") {
				return usagef("either --n or --fraction must be given")
			}
			if cmd.Flags().Changed("n") && n < 1 {
				return usagef("--n %d: want at least 1", n)
			}
			return e.run(cmd, args, "sampling", func(sets []*arrowset.Set) error {
				return edit.Sample(cmd.Context(), sets[0], n, fraction, seed, e.Options)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().IntVar(&n, "n", 0, "rows to keep")
	cmd.Flags().Float64Var(&fraction, "fraction", 0, "share of the rows to keep, about")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "seed of the choice")
	return cmd
}

// newSplit is "trainer data split".
func newSplit() *cobra.Command {
	var e editFlags
	var fractions, by string
	var seed uint64
	cmd := &cobra.Command{
		Use:   "split DIR --fractions train=.8,val=.1,test=.1 --out DIR",
		Short: "Deal the rows anew into splits",
		Long: `Deal the rows anew into splits. Rows with the same value in the column of --by stay together, a row with an empty one goes by
its image_id; which split they fall into depends on that value and the seed only, so it stays when the set grows.`,
		Example: "  trainer data split my-data --fractions train=.8,val=.1,test=.1 --by group --out split",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			parts, err := edit.ParseParts(fractions)
			if err != nil {
				return usageError{err}
			}
			return e.run(cmd, args, "splitting", func(sets []*arrowset.Set) error {
				return edit.Split(cmd.Context(), sets[0], parts, by, seed, e.Options)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().StringVar(&fractions, "fractions", "train=.8,val=.1,test=.1", "`shares` of the new splits, which add up to 1")
	cmd.Flags().StringVar(&by, "by", "group", "`column` whose equal values stay together: group, image_id, label, source or an attribute")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "seed of the choice")
	return cmd
}

// newReshard is "trainer data reshard".
func newReshard() *cobra.Command {
	var e editFlags
	cmd := &cobra.Command{
		Use:     "reshard DIR --shard-mib N --out DIR",
		Short:   "Write a data set in files of another size",
		Long:    "Write a data set as it is, in files of another size. With --name it gets another name.",
		Example: "  trainer data reshard my-data --shard-mib 64 --out my-data-64",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.run(cmd, args, "writing", func(sets []*arrowset.Set) error {
				return edit.Reshard(cmd.Context(), sets[0], e.Options)
			})
		},
	}
	e.add(cmd)
	return cmd
}

// newResize is "trainer data resize".
func newResize() *cobra.Command {
	var e editFlags
	var o edit.PictureOptions
	var filter string
	cmd := &cobra.Command{
		Use:   "resize DIR --size N --out DIR",
		Short: "Make the pictures smaller",
		Long: `Write the pictures in another size with Pillow's resampling. Pictures that are small enough keep their bytes, unless --enlarge
or mode squash. PNG stays PNG, all else becomes JPEG, unless --format.`,
		Example: "  trainer data resize my-data --size 256 --out my-data-256\n  trainer data resize my-data --size 224 --mode squash --format jpeg --quality 90 --out squares",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wanted(cmd, "size"); err != nil {
				return err
			}
			var ok bool
			if o.Filter, ok = filters[filter]; !ok {
				return usagef("--filter %s: want bicubic, bilinear, box or lanczos", filter)
			}
			return e.run(cmd, args, "resizing", func(sets []*arrowset.Set) error {
				o.Options = e.Options
				return edit.Resize(cmd.Context(), sets[0], o)
			})
		},
	}
	e.add(cmd)
	f := cmd.Flags()
	f.IntVar(&o.Size, "size", 0, "`pixels` of the side that --mode names")
	f.StringVar(&o.Mode, "mode", "shortest", strings.Join(edit.Modes, ", ")+": the side that gets the size, or both")
	f.StringVar(&filter, "filter", "bicubic", "bicubic, bilinear, box or lanczos")
	f.BoolVar(&o.Enlarge, "enlarge", false, "make small pictures larger")
	f.StringVar(&o.Format, "format", "", "`format` to write: "+strings.Join(edit.Formats, " or "))
	f.IntVar(&o.Quality, "quality", 95, "quality of JPEG, 1 to 100")
	return cmd
}

var filters = map[string]transform.Filter{"bicubic": transform.Bicubic, "bilinear": transform.Bilinear, "box": transform.Box, "lanczos": transform.Lanczos}

// newReEncode is "trainer data re-encode".
func newReEncode() *cobra.Command {
	var e editFlags
	var o edit.PictureOptions
	cmd := &cobra.Command{
		Use:   "re-encode DIR --format jpeg --out DIR",
		Short: "Write the pictures in another format or quality",
		Long: `Write all pictures anew as JPEG or PNG, in RGB. The extensions in image_id follow. PNG keeps every pixel; JPEG does not, the
less so the lower the quality.`,
		Example: "  trainer data re-encode my-data --format jpeg --quality 90 --out my-data-jpeg",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wanted(cmd, "format"); err != nil {
				return err
			}
			if !slices.Contains(edit.Formats, o.Format) {
				return usagef("--format %s: want %s", o.Format, strings.Join(edit.Formats, " or "))
			}
			return e.run(cmd, args, "encoding", func(sets []*arrowset.Set) error {
				o.Options = e.Options
				return edit.ReEncode(cmd.Context(), sets[0], o)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().StringVar(&o.Format, "format", "", "`format` to write: "+strings.Join(edit.Formats, " or "))
	cmd.Flags().IntVar(&o.Quality, "quality", 95, "quality of JPEG, 1 to 100")
	return cmd
}
