package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"diptych/data/arrowset"
	"diptych/data/convert"
	"diptych/data/demo"
)

// newData is "trainer data": it makes data sets, shows them and writes them out.
func newData() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "data",
		Short:   "Import, check, edit, show and export data sets, and train vocabularies on them",
		Example: "  trainer data show demo\n  trainer data export demo --out demo",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent := func(use, short string, subs ...*cobra.Command) *cobra.Command {
		p := &cobra.Command{Use: use, Short: short, Example: subs[0].Example, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
		p.AddCommand(subs...)
		return p
	}
	cmd.AddCommand(
		parent("import", "Make a data set from pictures and sentences in another format", newImportCOCO()),
		parent("export", "Write a data set as picture files and COCO captions JSON", newExportDemo()),
		newShow(),
		newTokenizer(),
		newCheck(),
		newPreview(),
	)
	cmd.AddCommand(newEdits()...)
	return cmd
}

// newImportCOCO is "trainer data import coco".
func newImportCOCO() *cobra.Command {
	var c convert.COCO
	cmd := &cobra.Command{
		Use:   "coco --images DIR --captions FILE… --out DIR",
		Short: "Import COCO captions JSON",
		Long: `Make a data set from a folder of pictures and one or more files of COCO captions JSON.

The split of a file's pictures is the SPLIT of its name captions_SPLIT.json, or what --split says. Of an image, beside id and
file_name, these fields are read if they are there: concept (pictures of one concept are never each other's negatives), label,
source, license, and every other text field, such as style or category, as an attribute. Of an annotation: kind and lang.
"trainer data export demo" writes an example of all of it.`,
		Example: `  trainer data import coco --images pictures --captions captions_train.json --captions captions_test.json --out my-data
  trainer data import coco --images pictures --captions all.json --split train --out my-data`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wanted(cmd, "images", "captions", "out"); err != nil {
				return err
			}
			start, show := time.Now(), stages(cmd.ErrOrStderr())
			c.Progress = func(done, total int) { show("importing pictures", done, total) }
			err := c.Import(cmd.Context())
			if errors.Is(err, convert.ErrInput) || errors.Is(err, arrowset.ErrSchema) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
			set, err := arrowset.Open(c.Out)
			if err != nil {
				return err
			}
			defer set.Close()
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d pictures in %.1f s; see `trainer data show %s`\n", c.Out, set.Len(), time.Since(start).Seconds(), c.Out)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Images, "images", "", "`folder` of the pictures")
	f.StringArrayVar(&c.Captions, "captions", nil, "COCO captions `file`; may be given again")
	f.StringVar(&c.Split, "split", "", "`split` of all pictures; without it, that of each file's name")
	f.StringVar(&c.Classes, "classes", "", "`file` of class systems with prompts, for zero-shot evaluation")
	f.StringVar(&c.Out, "out", "", "data set's `folder`, which must not exist")
	f.StringVar(&c.Name, "name", "", "`name` of the data set; without it, the folder's")
	f.StringVar(&c.Description, "description", "", "a `sentence` about the data set")
	f.Int64Var(&c.ShardBytes, "shard-bytes", 0, "`size` at which a file is closed and the next begun; 0 means 256 MiB")
	return cmd
}

// newExportDemo is "trainer data export demo".
func newExportDemo() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "demo --out DIR",
		Short: "Write the embedded demo set: what your own data should look like",
		Long: `Write the embedded demo set as files: its pictures, COCO captions JSON for each split, class systems with prompts, and the
licences, which must stay with the pictures. The command it prints imports the files again.`,
		Example: "  trainer data export demo --out demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wanted(cmd, "out"); err != nil {
				return err
			}
			set, err := demo.Open()
			if err != nil {
				return err
			}
			defer set.Close()
			show := stages(cmd.ErrOrStderr())
			captions, err := convert.Export(cmd.Context(), set, out, func(done, total int) { show("exporting pictures", done, total) })
			if errors.Is(err, fs.ErrExist) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
			if err := os.CopyFS(out, demo.Licenses()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d pictures. To import them again:\n  trainer data import coco --images %s --captions %s --classes %s --out DIR\n",
				out, set.Len(), filepath.Join(out, "images"), strings.Join(captions, " --captions "), filepath.Join(out, "classes.json"))
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`folder` to write, which must not exist or be empty")
	return cmd
}

// wanted says which flags of a command must be given and are not.
func wanted(cmd *cobra.Command, names ...string) error {
	var missing []string
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return usagef("%s must be given; see %s --help", strings.Join(missing, ", "), cmd.CommandPath())
	}
	return nil
}
