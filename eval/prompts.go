package eval

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// prompts holds CLIP's templates, a file for each data set of its paper's Table 9, one template a line: those of ImageNet are from
// notebooks/Prompt_Engineering_for_ImageNet.ipynb of the repository openai/CLIP (imagenet7 is its selection, the better one), all
// others from its data/prompts.md.
//
//go:embed prompts/*.txt
var prompts embed.FS

// PromptNames lists the sets of templates that are built in.
func PromptNames() []string {
	entries, err := prompts.ReadDir("prompts")
	if err != nil {
		panic(err) // it is part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".txt"))
	}
	return names
}

// Prompts returns the templates that are built in under a name or stand in a file, one a line, each with {} where the class name
// goes. Empty lines and those that begin with # are left out. What is no such set is an ErrRequest.
func Prompts(nameOrFile string) ([]string, error) {
	text, err := prompts.ReadFile(path.Join("prompts", nameOrFile+".txt"))
	if err != nil {
		text, err = os.ReadFile(nameOrFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("eval: %w: there is neither a file %q nor a built-in set of prompts of that name; there are %s", ErrRequest, nameOrFile, strings.Join(PromptNames(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("eval: prompts: %w", err)
	}
	var out []string
	for i, line := range lines(text) {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !strings.Contains(line, PromptSlot) {
			return nil, fmt.Errorf("eval: %w: %s, line %d: the template %q has no %s for the class name", ErrRequest, nameOrFile, i+1, line, PromptSlot)
		}
		out = append(out, line)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("eval: %w: %s has no templates", ErrRequest, nameOrFile)
	}
	return out, nil
}

// ClassNames reads the names of classes from a file, one a line, in the order of the classes.
func ClassNames(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("eval: class names: %w", err)
	}
	names := lines(text)
	for i, name := range names {
		if name == "" {
			return nil, fmt.Errorf("eval: %w: %s, line %d: a class without a name", ErrRequest, file, i+1)
		}
	}
	return names, nil
}

// lines cuts a text into lines without the space around them; the last one may lack its end.
func lines(text []byte) []string {
	s := strings.TrimRight(strings.TrimPrefix(string(text), "\ufeff"), "\r\n")
	if s == "" {
		return nil
	}
	out := strings.Split(s, "\n")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}
