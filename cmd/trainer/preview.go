package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/batch"
	"diptych/data/remote"
	"diptych/data/transform"
	"diptych/experiments"
	"diptych/internal/sheet"
)

// newPreview is "trainer data preview": pictures and texts as a model will see them.
func newPreview() *cobra.Command {
	var path, out string
	var sets []string
	var n, draws int
	var cache remote.Options
	cmd := &cobra.Command{
		Use:   "preview RECIPE",
		Short: "Draw samples of a data set as a recipe's model will see them",
		Long: `Draw a sheet of samples: each row has a picture of the training split as it is stored, several of the augmented versions that
training draws, and the version that evaluation uses. Below each augmented version stand the caption drawn with it, as the
tokenizer gives it to the model, and its number of tokens. The code that trains makes them, with the recipe's seed.`,
		Example: "  trainer data preview clip-emoji --out preview.png\n  trainer data preview recipe.yaml --data my-data --n 12 --set data.transforms='[{op: random_resized_crop}]'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n < 1 || n > 100 || draws < 1 || draws > 20 {
				return usagef("--n %d, --draws %d: want 1 to 100 and 1 to 20", n, draws)
			}
			in, err := experiments.LoadInput(args[0], sets)
			if err != nil {
				return err
			}
			first := in.Config.Data.All()[0]
			if path == "" {
				path = first.Path
			}
			set, err := openData(cmd, path, cache, first.Split)
			if err != nil {
				return err
			}
			defer set.Close()
			s, err := preview(cmd.Context(), in, set, n, draws)
			if err != nil {
				return err
			}
			if err := replaceFile(out, s.WritePNG); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d samples of split %s, %d draws of each\n", out, len(s.Rows), in.Config.Data.Split, draws)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "data", "", "`folder` or address of the data set, or demo; without it, the recipe's")
	addCacheFlags(cmd, &cache)
	f.StringVar(&out, "out", "preview.png", "PNG `file` to write")
	f.IntVar(&n, "n", 8, "samples, evenly spread over the split")
	f.IntVar(&draws, "draws", 5, "augmented versions of each")
	f.StringArrayVar(&sets, "set", nil, "override, such as `data.split=val`; may be repeated")
	return cmd
}

// preview makes the sheet. The samples are an order of their own for data.Source, so that every update holds each once.
func preview(ctx context.Context, in *experiments.Input, set *arrowset.Set, n, draws int) (*sheet.Sheet, error) {
	all, err := in.Samples(set)
	if err != nil {
		return nil, err
	}
	var samples []data.Sample
	var cells [][]sheet.Cell
	place := map[int]int{} // row of the set: row of the sheet
	var im transform.Image
	var scratch transform.Scratch
	for _, k := range spread(len(all), n) {
		s := all[k]
		s.Group = "" // each its own, or an update would leave some out
		b, err := set.Image(ctx, s.Row)
		if err != nil {
			return nil, err
		}
		m := set.Meta()[s.Row]
		var eval transform.Image
		err = in.Eval.Decode(b, &im, &scratch)
		if err == nil {
			err = in.Eval.Apply(&im, 0, &eval, &scratch)
		}
		if err != nil {
			cells = append(cells, []sheet.Cell{{Text: fmt.Sprintf("row %d (%s): %v", s.Row, m.ImageID, err), Mark: sheet.Wrong}})
			continue
		}
		place[s.Row] = len(cells)
		samples = append(samples, s)
		cells = append(cells, []sheet.Cell{
			{Picture: sheet.RGB(im.W, im.H, im.Pix), Text: m.ImageID, Note: fmt.Sprintf("row %d, %d×%d", s.Row, im.W, im.H)},
			{Picture: sheet.RGB(eval.W, eval.H, eval.Pix)},
		})
	}
	if len(samples) > 0 {
		src, err := data.NewSource(set, samples, data.Options{Seed: in.Config.Seed, Batch: len(samples), Pipeline: in.Train, Tokenizer: in.Tokenizer})
		if err != nil {
			return nil, err
		}
		for u := range draws {
			var b batch.Batch
			if err := src.At(ctx, u, &b); err != nil {
				return nil, err
			}
			for _, p := range b.Pairs {
				row := &cells[place[p.Row]]
				cell := sheet.Cell{Picture: sheet.RGB(p.Width, p.Height, p.Pixels)}
				if in.Tokenizer != nil {
					cell.Text = in.Tokenizer.Decode(p.Tokens)
					cell.Note = fmt.Sprintf("%d of %d tokens", len(p.Tokens), in.Tokenizer.ContextLength())
				}
				*row = append(*row, cell)
			}
		}
	}
	heads := []string{"as stored", "evaluation"}
	for u := range draws {
		heads = append(heads, fmt.Sprintf("draw %d", u+1))
	}
	c, size := in.Config, "different shapes"
	side := in.Config.Model.Vision.ImageSize
	if w, h := in.Train.Size(); w > 0 {
		size, side = fmt.Sprintf("%d×%d pixels", w, h), max(w, h)
	}
	ops := make([]string, len(c.Data.Transforms))
	for i, spec := range c.Data.Transforms {
		ops[i] = fmt.Sprint(spec["op"])
	}
	return &sheet.Sheet{
		Title: c.Name, Subtitle: fmt.Sprintf("%s, split %s, %s: %s", set.Manifest().Name, c.Data.Split, size, strings.Join(ops, ", ")),
		Heads: heads, Rows: cells, Lead: true, Side: max(128, min(side, 224)),
	}, nil
}
