package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"diptych/checkpoints/safetensors"
	"diptych/data/transform"
	"diptych/eval"
)

// Names of the tensors that embed writes.
const (
	tensorImages = "image_embeds" // (pictures, E)
	tensorTexts  = "text_embeds"  // (texts, E)
)

// embedIndex is the JSON beside the features: which row is what.
type embedIndex struct {
	File     string        `json:"file"`
	Run      string        `json:"run"`
	Step     int           `json:"step"`
	EmbedDim int           `json:"embedDim"`
	Images   []string      `json:"images"` // row i of image_embeds is this file, below --images
	Texts    []string      `json:"texts"`  // row i of text_embeds is this line
	Skipped  []skippedFile `json:"skipped,omitempty"`
}

type skippedFile struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// newEmbed is "trainer embed": it writes the embeddings of pictures and texts.
func newEmbed() *cobra.Command {
	var images, texts, out string
	var threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "embed RUN [--images DIR] [--texts FILE] --out FILE.safetensors",
		Short: "Write the embeddings of pictures and texts",
		Long: `Embed all pictures of a folder, its subfolders included, and all lines of a text file. The safetensors file holds
image_embeds and text_embeds, unit rows of float32, so that a product of two rows is their cosine. A JSON file of the same
name beside it says which row is which file or line. A picture that does not decode is named and left out; a line of the
text file is always a row.`,
		Example: `  trainer embed runs/clip-emoji --images DIR --texts captions.txt --out features.safetensors
  trainer embed runs/clip-emoji --images DIR --out pictures.safetensors --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case out == "":
				return usagef("--out is missing: the safetensors file to write")
			case images == "" && texts == "":
				return usagef("nothing to embed: give --images DIR, --texts FILE or both")
			case indexFile(out) == out:
				return usagef("--out %s: the name must not end in .json, which is the index's", out)
			}
			if err := isFolder(filepath.Dir(out)); err != nil {
				return usagef("--out %s: folder %s: %w", out, filepath.Dir(out), err)
			}
			var files, lines []string
			var err error
			if images != "" {
				if files, err = pictureFiles(images); err != nil {
					return err
				}
			}
			if texts != "" {
				if lines, err = readLines(cmd.InOrStdin(), texts); err != nil {
					return err
				}
			}
			m, err := openModel(cmd, args[0], threads)
			if err != nil {
				return err
			}
			defer m.Close()
			index := embedIndex{File: out, Run: args[0], Step: m.Step, EmbedDim: m.EmbedDim(), Images: []string{}, Texts: []string{}}
			progress := stages(cmd.ErrOrStderr())
			var tensors []safetensors.Tensor
			if images != "" {
				var x []float32
				if index.Images, x, index.Skipped, err = embedFiles(cmd.Context(), cmd.ErrOrStderr(), m, images, files, progress); err != nil {
					return err
				}
				tensors = append(tensors, safetensors.Floats(tensorImages, []int{len(index.Images), m.EmbedDim()}, x))
			}
			if texts != "" {
				x, err := embedLines(cmd.Context(), m, lines, progress)
				if err != nil {
					return asUsage(err)
				}
				index.Texts = lines
				tensors = append(tensors, safetensors.Floats(tensorTexts, []int{len(lines), m.EmbedDim()}, x))
			}
			meta := map[string]string{"run": args[0], "step": fmt.Sprint(m.Step), "index": filepath.Base(indexFile(out))}
			if err := replaceFile(out, func(w io.Writer) error { return safetensors.Write(w, tensors, meta) }); err != nil {
				return err
			}
			if err := replaceFile(indexFile(out), func(w io.Writer) error { return writeJSON(w, index) }); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), index)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d pictures and %d texts, %d numbers each; %s says which row is which\n",
				out, len(index.Images), len(index.Texts), index.EmbedDim, indexFile(out))
			return nil
		},
	}
	cmd.Flags().StringVar(&images, "images", "", "`directory` of pictures (PNG, JPEG)")
	cmd.Flags().StringVar(&texts, "texts", "", "text `file` with one text on each line; - is the standard input")
	cmd.Flags().StringVar(&out, "out", "", "safetensors `file` to write; a JSON index is written beside it")
	addModelFlags(cmd, &threads, &asJSON)
	return cmd
}

func indexFile(out string) string { return strings.TrimSuffix(out, filepath.Ext(out)) + ".json" }

// pictureEndings are the files that are taken for pictures. Formats that do not decode are among them, so that they are named
// rather than passed over.
var pictureEndings = []string{".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".svg"}

// pictureFiles lists the pictures below dir, as sorted paths relative to it.
func pictureFiles(dir string) ([]string, error) {
	if err := isFolder(dir); err != nil {
		return nil, usagef("--images %s: %w", dir, err)
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && slices.Contains(pictureEndings, strings.ToLower(filepath.Ext(path))) {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			files = append(files, rel)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, usagef("--images %s: it holds no pictures (%s)", dir, strings.Join(pictureEndings, " "))
	}
	slices.Sort(files)
	return files, nil
}

// embedFiles embeds files below dir: row i of x is names[i]. Those that do not decode are named on w and returned; it is an
// error if none does.
func embedFiles(ctx context.Context, w io.Writer, m eval.Model, dir string, files []string, progress func(string, int, int)) (names []string, x []float32, skipped []skippedFile, err error) {
	read := func(i int) ([]byte, error) {
		b, err := os.ReadFile(filepath.Join(dir, files[i]))
		if err != nil { // no reason to give up the others
			return nil, fmt.Errorf("%w: %w", transform.ErrBadPicture, err)
		}
		return b, nil
	}
	x, good, bad, err := eval.Pictures(ctx, m, len(files), read, func(done int) { progress("pictures", done, len(files)) })
	if err != nil {
		return nil, nil, nil, err
	}
	for _, b := range bad {
		skipped = append(skipped, skippedFile{files[b.Index], b.Err.Error()})
		fmt.Fprintf(w, "skipped: %s: %v\n", files[b.Index], b.Err)
	}
	if len(good) == 0 {
		return nil, nil, nil, fmt.Errorf("none of the %d pictures in %s decodes", len(files), dir)
	}
	for _, i := range good {
		names = append(names, files[i])
	}
	return names, x, skipped, nil
}

// readLines reads the lines of a file, or of the standard input if its name is -.
func readLines(stdin io.Reader, name string) ([]string, error) {
	var b []byte
	var err error
	if name == "-" {
		b, err = io.ReadAll(stdin)
	} else {
		b, err = os.ReadFile(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("--texts %s: no such file", name)
	}
	if err != nil {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\uFEFF"))
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i, line := range lines {
		if !utf8.ValidString(line) {
			return nil, usagef("--texts %s, line %d: it is not UTF-8", name, i+1)
		}
		lines[i] = strings.TrimSuffix(line, "\r")
	}
	if len(lines) == 1 && lines[0] == "" {
		return nil, usagef("--texts %s: the file is empty", name)
	}
	return lines, nil
}

// embedLines embeds texts in pieces, so that progress shows.
func embedLines(ctx context.Context, m eval.Encoder, lines []string, progress func(string, int, int)) ([]float32, error) {
	const piece = 1024
	x := make([]float32, 0, len(lines)*m.EmbedDim())
	for part := range slices.Chunk(lines, piece) {
		y, err := m.Texts(ctx, part)
		if err != nil {
			return nil, err
		}
		x = append(x, y...)
		progress("texts", len(x)/m.EmbedDim(), len(lines))
	}
	return x, nil
}

// replaceFile writes a file aside and renames it when it is whole.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	buf := bufio.NewWriter(f)
	if err = errors.Join(write(buf), buf.Flush()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err = errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
