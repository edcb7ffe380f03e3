// Package report writes what an evaluation measured as a folder that a person can read: report.md with tables, report.json
// with the same figures for programs, a CSV with every class of each class system, and contact sheets of what retrieval
// found. It measures nothing: package eval does. The curves of training are internal/runlog's. Start at Write.
package report

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"diptych/eval"
	"diptych/internal/kernel"
)

// Report is what is to be written.
type Report struct {
	Title string `json:"title"`
	// About says what was evaluated: the run, its step, its size.
	About  []Fact       `json:"about,omitempty"`
	Result *eval.Result `json:"result"`
	// Pictures are other pictures of the folder that report.md shows, such as curves.
	Pictures []Picture `json:"-"`
	// Set is read for the contact sheets; nil leaves them out.
	Set eval.Set `json:"-"`
	// Queries is the number of queries on a contact sheet, drawn at random; 0 means 8.
	Queries int          `json:"-"`
	Pool    *kernel.Pool `json:"-"`
}

// Fact is a line about what was evaluated.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Picture is a file of the folder with the words that stand above it.
type Picture struct{ Title, File string }

// Write makes the folder dir, if need be, and writes the report to it. Files of the same name are replaced, each at once.
func (r *Report) Write(ctx context.Context, dir string) error {
	if err := r.write(ctx, dir); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func (r *Report) write(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	pictures := append([]Picture(nil), r.Pictures...)
	for i := range r.Result.Splits {
		split := &r.Result.Splits[i]
		for _, sys := range split.ZeroShot {
			err := writeFile(dir, classFile(sys.System, split.Split), func(w io.Writer) error { return writeClasses(w, sys.PerClass) })
			if err != nil {
				return err
			}
		}
		for _, c := range split.Classified {
			err := writeFile(dir, fileName(c.Method, c.System, split.Split)+".csv", func(w io.Writer) error { return writeClasses(w, c.PerClass) })
			if err != nil {
				return err
			}
		}
		if r.Set == nil || split.Retrieval == nil || split.Features == nil {
			continue
		}
		for _, d := range []direction{imageToText, textToImage} {
			s, err := r.sheet(ctx, split, d)
			if err != nil {
				return err
			}
			file := fileName(d.file, split.Split) + ".png"
			if err := writeFile(dir, file, s.WritePNG); err != nil {
				return err
			}
			pictures = append(pictures, Picture{Title: d.name + ", " + split.Split, File: file})
		}
	}
	err := writeFile(dir, "report.json", func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	})
	if err != nil {
		return err
	}
	return writeFile(dir, "report.md", func(w io.Writer) error {
		_, err := io.WriteString(w, r.markdown(pictures))
		return err
	})
}

// writeFile writes a file aside and renames it, so that no reader sees half of it.
func writeFile(dir, name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// fileName joins words to a name that every file system takes.
func fileName(words ...string) string {
	var b []byte
	for i, w := range words {
		if i > 0 {
			b = append(b, '-')
		}
		for _, c := range []byte(w) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
				b = append(b, c)
			default:
				b = append(b, '_')
			}
		}
	}
	return string(b)
}

func classFile(system, split string) string { return fileName("zeroshot", system, split) + ".csv" }

func writeClasses(w io.Writer, classes []eval.ClassAccuracy) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"class", "images", "top1", "top5", "mistaken_for", "mistaken_for_share"}}
	for _, a := range classes {
		rows = append(rows, []string{a.Class, strconv.Itoa(a.Images), number(a.Top1), number(a.Top5), a.Mistaken, number(a.MistakenFor)})
	}
	return c.WriteAll(rows)
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
