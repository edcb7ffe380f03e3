package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

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
		parent("import", "Make a data set from pictures and sentences in another format", newImports()...),
		parent("export", "Write a data set as picture files and COCO captions JSON", newExportDemo()),
		newShow(),
		newTokenizer(),
		newCheck(),
		newPreview(),
	)
	cmd.AddCommand(newEdits()...)
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
