package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"diptych/data/transform"
	"diptych/eval"
	"diptych/internal/sheet"
)

// searchResult is what "trainer search --json" writes.
type searchResult struct {
	Query   string        `json:"query,omitempty"`
	Image   string        `json:"image,omitempty"`
	Hits    []searchHit   `json:"hits"`
	Skipped []skippedFile `json:"skipped,omitempty"`
}

type searchHit struct {
	File  string  `json:"file"`
	Score float32 `json:"score"` // cosine of the two embeddings
}

// foundColumns is how many pictures stand side by side on the sheet of a search.
const foundColumns = 5

// newSearch is "trainer search": it ranks the pictures of a folder by a sentence or another picture.
func newSearch() *cobra.Command {
	var images, image, sheetFile string
	var top, threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "search RUN --images DIR [TEXT | --image FILE]",
		Short: "Find the pictures of a folder that fit a sentence, or another picture",
		Long: `Rank all pictures of a folder, its subfolders included, by the cosine of their embedding with that of a sentence or of
another picture, and print the best with their scores.`,
		Example: `  trainer search runs/clip-emoji --images DIR "a red fruit"
  trainer search runs/clip-emoji --images DIR --image apple.png --top 10 --sheet found.png`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := searchResult{Image: image}
			if len(args) == 2 {
				r.Query = args[1]
			}
			switch {
			case images == "":
				return usagef("--images is missing: the folder of pictures to search")
			case (r.Query == "") == (image == ""):
				return usagef("give what to search for: either a sentence, such as \"a red fruit\", or --image FILE")
			case top < 1:
				return usagef("--top %d: want at least 1", top)
			}
			if sheetFile != "" {
				if err := isFolder(filepath.Dir(sheetFile)); err != nil {
					return usagef("--sheet %s: folder %s: %w", sheetFile, filepath.Dir(sheetFile), err)
				}
			}
			files, err := pictureFiles(images)
			if err != nil {
				return err
			}
			var asked []byte // the query's picture
			if image != "" {
				if asked, err = os.ReadFile(image); err != nil {
					return usagef("--image: %w", err)
				}
			}
			m, err := openModel(cmd, args[0], threads)
			if err != nil {
				return err
			}
			defer m.Close()
			var query []float32 // (1, E)
			if image != "" {
				read := func(int) ([]byte, error) { return asked, nil }
				var bad []eval.BadPicture
				if query, _, bad, err = eval.Pictures(cmd.Context(), m, 1, read, nil); err == nil && len(bad) > 0 {
					return usagef("--image %s: %w", image, bad[0].Err)
				}
			} else {
				query, err = m.Texts(cmd.Context(), []string{r.Query})
			}
			if err != nil {
				return err
			}
			names, x, skipped, err := embedFiles(cmd.Context(), cmd.ErrOrStderr(), m, images, files, stages(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			r.Skipped = skipped
			hits, err := eval.Nearest(m.Pool(), query, x, m.EmbedDim(), top)
			if err != nil {
				return err
			}
			for _, h := range hits[0] {
				r.Hits = append(r.Hits, searchHit{filepath.Join(images, names[h.Index]), h.Score})
			}
			if sheetFile != "" {
				s, err := searchSheet(&r, len(names))
				if err != nil {
					return err
				}
				if err := replaceFile(sheetFile, s.WritePNG); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), r)
			}
			printHits(cmd.OutOrStdout(), &r)
			return nil
		},
	}
	cmd.Flags().StringVar(&images, "images", "", "`directory` of pictures (PNG, JPEG)")
	cmd.Flags().StringVar(&image, "image", "", "picture `file` to search for, instead of a sentence")
	cmd.Flags().IntVar(&top, "top", 5, "`number` of pictures to show")
	cmd.Flags().StringVar(&sheetFile, "sheet", "", "draw what was found to this PNG `file`")
	addModelFlags(cmd, &threads, &asJSON)
	return cmd
}

func printHits(w io.Writer, r *searchResult) {
	width := len(fmt.Sprint(len(r.Hits)))
	for i, h := range r.Hits {
		fmt.Fprintf(w, "%*d  %6.3f  %s\n", width, i+1, h.Score, h.File)
	}
}

// searchSheet draws the hits, after the query's picture if it is one.
func searchSheet(r *searchResult, searched int) (*sheet.Sheet, error) {
	s := &sheet.Sheet{Title: r.Query, Subtitle: fmt.Sprintf("the first %d of %d pictures", len(r.Hits), searched)}
	if r.Image != "" {
		s.Title = "like " + filepath.Base(r.Image)
		c, err := pictureCell(r.Image)
		if err != nil {
			return nil, err
		}
		s.Rows = [][]sheet.Cell{{c}}
	}
	var cells []sheet.Cell
	for i, h := range r.Hits {
		c, err := pictureCell(h.File)
		if err != nil {
			return nil, err
		}
		c.Note = fmt.Sprintf("%d · %.3f", i+1, h.Score)
		cells = append(cells, c)
	}
	s.Rows = append(s.Rows, sheet.Grid(cells, foundColumns)...)
	return s, nil
}

func pictureCell(file string) (sheet.Cell, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return sheet.Cell{}, err
	}
	var m transform.Image
	if err := transform.Decode(b, &m); err != nil {
		return sheet.Cell{}, fmt.Errorf("%s: %w", file, err)
	}
	return sheet.Cell{Picture: sheet.RGB(m.W, m.H, m.Pix), Text: filepath.Base(file)}, nil
}
