package main

import (
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"diptych/data/transform"
	"diptych/experiments"
	"diptych/internal/sheet"
)

// openPairs opens the model of a run directory, which must read pictures and sentences together; the caller closes it.
func openPairs(cmd *cobra.Command, dir string, threads int) (*experiments.Pairs, error) {
	if threads < 0 {
		return nil, usagef("--threads %d: want a number of threads, or 0 for all cores", threads)
	}
	if err := isFolder(dir); err != nil {
		return nil, usagef("run directory %s: %w; give the one that trainer pretrain wrote", dir, err)
	}
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	m, err := experiments.OpenPairs(dir, threads)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, experiments.ErrFeatures) {
		return nil, usageError{err}
	}
	if err != nil {
		return nil, err
	}
	for _, w := range m.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	return m, nil
}

// readPicture reads the file of a flag as the model takes it.
func readPicture(m *experiments.Pairs, flag, file string) (*transform.Image, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("%s: %w", flag, err)
	}
	im, err := m.Picture(raw)
	if err != nil {
		return nil, usagef("%s %s: %w", flag, file, err)
	}
	return im, nil
}

// openBeside opens the model and the picture of a command that prints the top guesses beside it; the caller closes the model. what
// says which picture that is.
func openBeside(cmd *cobra.Command, dir, file, what string, top, threads int) (*experiments.Pairs, *transform.Image, error) {
	if file == "" {
		return nil, nil, usagef("--image is missing: %s", what)
	}
	if top < 1 {
		return nil, nil, usagef("--top %d: want at least 1", top)
	}
	m, err := openPairs(cmd, dir, threads)
	if err != nil {
		return nil, nil, err
	}
	im, err := readPicture(m, "--image", file)
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return m, im, nil
}

// newScore is "trainer score": how well a picture and a sentence belong together.
func newScore() *cobra.Command {
	var file, text, sheetFile string
	var threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "score RUN --image FILE --text TEXT",
		Short: "Say how well a picture and a sentence belong together, and where each word is",
		Long: `Match a picture with a sentence by a model that reads both together, such as ViLT or a fusion.

The probability is that of the matching head. A model that was trained to rank (vilt-retrieval) gives a score instead, by which
sentences are compared for one picture. With --sheet a picture is drawn for each token of the sentence: the redder a patch,
the more of the token's mass optimal transport moves there (word-patch alignment); by a model of kind fusion, the more of the token's
attention in the last block falls there.`,
		Example: `  trainer score runs/vilt-emoji --image apple.png --text "a red apple" --sheet where.png`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" || text == "" {
				return usagef("--image and --text are needed: the picture and the sentence")
			}
			if sheetFile != "" {
				if err := isFolder(filepath.Dir(sheetFile)); err != nil {
					return usagef("--sheet %s: folder %s: %w", sheetFile, filepath.Dir(sheetFile), err)
				}
			}
			m, err := openPairs(cmd, args[0], threads)
			if err != nil {
				return err
			}
			defer m.Close()
			im, err := readPicture(m, "--image", file)
			if err != nil {
				return err
			}
			s, err := m.Score(im, text)
			if err != nil {
				return err
			}
			if sheetFile != "" {
				if err := replaceFile(sheetFile, heatSheet(im, s, text).WritePNG); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			fmt.Fprintln(cmd.OutOrStdout(), said(s))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "image", "", "picture `file`")
	f.StringVar(&text, "text", "", "the `sentence`")
	f.StringVar(&sheetFile, "sheet", "", "draw where each token is to this PNG `file`")
	addModelFlags(cmd, &threads, &asJSON)
	return cmd
}

// said is a score in words.
func said(s *experiments.Score) string {
	if s.Probability == nil {
		return fmt.Sprintf("score %.3f", s.LogOdds)
	}
	return fmt.Sprintf("%.1f %%  (log odds %.3f)", 100**s.Probability, s.LogOdds)
}

// heatSheet draws the picture once for each token, with the patches that it is moved to in red.
func heatSheet(im *transform.Image, s *experiments.Score, text string) *sheet.Sheet {
	note, _, _ := strings.Cut(said(s), "  ")
	cells := []sheet.Cell{{Picture: sheet.RGB(im.W, im.H, im.Pix), Text: text, Note: note}}
	for w, token := range s.Tokens {
		cells = append(cells, sheet.Cell{Picture: heat(im, s, w), Text: token})
	}
	return &sheet.Sheet{Title: "Where the words are", Subtitle: "The redder a patch, the more of the word is aligned with it.", Rows: sheet.Grid(cells, 6), Side: 144}
}

// heat mixes red into the patches of a token, by their share of the largest one's mass.
func heat(im *transform.Image, s *experiments.Score, token int) image.Image {
	tokens := len(s.Tokens)
	mass := make([]float64, s.Rows*s.Cols)
	for i := range mass {
		mass[i] = s.Plan[i*tokens+token]
	}
	top := max(slices.Max(mass), 1e-12)
	pix := slices.Clone(im.Pix)
	for i := range im.W * im.H {
		share := 0.8 * mass[i/im.W*s.Rows/im.H*s.Cols+i%im.W*s.Cols/im.W] / top
		for c, red := range [3]float64{230, 20, 20} {
			pix[3*i+c] = uint8((1-share)*float64(pix[3*i+c]) + share*red)
		}
	}
	return sheet.RGB(im.W, im.H, pix)
}

// newFill is "trainer fill": it guesses the hidden words of a sentence beside a picture.
func newFill() *cobra.Command {
	var file string
	var top, threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fill RUN --image FILE \"a [MASK] on a table\"",
		Short: "Guess the hidden words of a sentence beside a picture",
		Long:  `Guess every [MASK] of a sentence by a model that reads it together with a picture, such as ViLT or a fusion, with probabilities.`,
		Example: `  trainer fill runs/vilt-emoji --image apple.png "a red [MASK]"
  trainer fill runs/vilt-emoji --image apple.png "[MASK], [MASK]" --top 10 --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, im, err := openBeside(cmd, args[0], file, "the picture beside which the words are guessed", top, threads)
			if err != nil {
				return err
			}
			defer m.Close()
			words, err := m.FillText(im, args[1], top)
			if errors.Is(err, experiments.ErrNoMask) {
				return usagef("%w: write [MASK] for each word to be guessed", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), words)
			}
			for i, guesses := range words {
				if len(words) > 1 {
					fmt.Fprintf(cmd.OutOrStdout(), "[MASK] %d\n", i+1)
				}
				for _, w := range guesses {
					fmt.Fprintf(cmd.OutOrStdout(), "%6.2f %%  %s\n", 100*w.Probability, w.Text)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "image", "", "picture `file`")
	f.IntVar(&top, "top", 5, "`number` of guesses for each word")
	addModelFlags(cmd, &threads, &asJSON)
	return cmd
}
