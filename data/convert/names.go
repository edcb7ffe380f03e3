package convert

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxNames bounds what a list of names in braces may expand to.
const maxNames = 1 << 20

// expandNames expands {a,b}, {000..123} and {000..123..step} in names as a shell does, and then *, ? and [ ] to the files that
// match, in order; a name without such marks is itself. That a file exists is left to who opens it.
func expandNames(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		if name == "-" {
			out = append(out, name)
			continue
		}
		expanded, err := expandBraces(name)
		if err != nil {
			return nil, err
		}
		for _, n := range expanded {
			if _, err := os.Stat(n); err == nil || !strings.ContainsAny(n, "*?[") {
				out = append(out, n)
				continue
			}
			found, err := filepath.Glob(n)
			if err != nil {
				return nil, fmt.Errorf("%w: %q: %v", ErrInput, n, err)
			}
			if len(found) == 0 {
				return nil, fmt.Errorf("%w: no file matches %q", ErrInput, n)
			}
			out = append(out, found...)
		}
		if len(out) > maxNames {
			return nil, fmt.Errorf("%w: %q makes more than %d names", ErrInput, name, maxNames)
		}
	}
	return out, nil
}

// expandBraces expands the first pair of braces and then what follows. Braces that hold neither a comma nor a range stay.
func expandBraces(name string) ([]string, error) {
	from := strings.IndexByte(name, '{')
	if from < 0 {
		return []string{name}, nil
	}
	depth, to := 0, -1
	var parts []string
	begin := from + 1
	for i := from; i < len(name) && to < 0; i++ {
		switch {
		case name[i] == '{':
			depth++
		case name[i] == '}':
			if depth--; depth == 0 {
				parts, to = append(parts, name[begin:i]), i
			}
		case name[i] == ',' && depth == 1:
			parts, begin = append(parts, name[begin:i]), i+1
		}
	}
	if to < 0 {
		return nil, fmt.Errorf("%w: %q has a { without its }", ErrInput, name)
	}
	tails, err := expandBraces(name[to+1:])
	if err != nil {
		return nil, err
	}
	var middles []string
	if len(parts) == 1 {
		if middles, err = expandRange(parts[0]); err != nil {
			return nil, fmt.Errorf("%w: %q: %v", ErrInput, name, err)
		}
		if middles == nil {
			middles = []string{"{" + parts[0] + "}"}
		}
	} else {
		for _, part := range parts {
			inner, err := expandBraces(part)
			if err != nil {
				return nil, err
			}
			middles = append(middles, inner...)
		}
	}
	if len(middles)*len(tails) > maxNames {
		return nil, fmt.Errorf("%w: %q makes more than %d names", ErrInput, name, maxNames)
	}
	out := make([]string, 0, len(middles)*len(tails))
	for _, m := range middles {
		for _, t := range tails {
			out = append(out, name[:from]+m+t)
		}
	}
	return out, nil
}

// expandRange expands from..to and from..to..step; a number that begins with 0 gives all of them its width. What is no range
// gives nil.
func expandRange(text string) ([]string, error) {
	parts := strings.Split(text, "..")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, nil
	}
	var n [3]int
	n[2] = 1
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil {
			return nil, nil
		}
		n[i] = v
	}
	width := 0
	for _, p := range parts[:2] {
		if len(strings.TrimPrefix(p, "-")) > 1 && strings.TrimPrefix(p, "-")[0] == '0' {
			width = max(width, len(p))
		}
	}
	step := max(n[2], -n[2])
	if step <= 0 {
		return nil, fmt.Errorf("a range with steps of %d", n[2])
	}
	count := max(n[1]-n[0], n[0]-n[1])/step + 1
	if count <= 0 || count > maxNames {
		return nil, fmt.Errorf("a range of more than %d names", maxNames)
	}
	out := make([]string, count)
	for i := range out {
		v := n[0] + i*step
		if n[1] < n[0] {
			v = n[0] - i*step
		}
		out[i] = fmt.Sprintf("%0*d", width, v)
	}
	return out, nil
}
