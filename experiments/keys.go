package experiments

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// checkKeys walks a recipe's text beside the Go type it decodes into and reports at once every unknown key and every value of
// another kind.
func checkKeys(text []byte, file string, t reflect.Type) error {
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fmt.Errorf("%w %s: %s", ErrRecipe, file, yaml.FormatError(err, false, true))
	}
	if len(f.Docs) > 1 {
		return fmt.Errorf("%w %s: %d YAML documents, want one", ErrRecipe, file, len(f.Docs))
	}
	var errs []error
	for _, doc := range f.Docs {
		if doc.Body != nil {
			walkKeys(doc.Body, t, "", func(n ast.Node, format string, args ...any) {
				p := n.GetToken().Position
				errs = append(errs, fmt.Errorf("%w %s:%d:%d: %s", ErrRecipe, file, p.Line, p.Column, fmt.Sprintf(format, args...)))
			})
		}
	}
	return errors.Join(errs...)
}

// checkValue does the same for the value of an override s of the key that path names.
func checkValue(text, s, path string, t reflect.Type) error {
	f, err := parser.ParseBytes([]byte(text), 0)
	if err != nil {
		return fmt.Errorf("%w: --set %s: %s", ErrRecipe, s, yaml.FormatError(err, false, false))
	}
	var errs []error
	for _, doc := range f.Docs {
		if doc.Body != nil {
			walkKeys(doc.Body, t, path, func(_ ast.Node, format string, args ...any) {
				errs = append(errs, fmt.Errorf("%w: --set %s: %s", ErrRecipe, s, fmt.Sprintf(format, args...)))
			})
		}
	}
	return errors.Join(errs...)
}

// walkKeys checks the node n, which the key path names, against the type t that it decodes into.
func walkKeys(n ast.Node, t reflect.Type, path string, bad func(n ast.Node, format string, args ...any)) {
	below := path
	if path != "" {
		below += "."
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		walkKeys(n.Value, t, path, bad)
		return
	case *ast.AliasNode, *ast.NullNode: // what it stands for is checked where it lies; nothing means the default
		return
	case *ast.MappingNode:
		if t.Kind() == reflect.Struct {
			for _, v := range n.Values {
				walkKeys(v, t, path, bad)
			}
			return
		}
	case *ast.MappingValueNode:
		if t.Kind() == reflect.Struct {
			key := n.Key.String()
			fields := fieldsOf(t)
			ft, ok := fields[key]
			if !ok {
				bad(n.Key, "unknown key %s%s", below+key, suggest(key, fields))
				return
			}
			walkKeys(n.Value, ft, below+key, bad)
			return
		}
	case *ast.SequenceNode:
		if t.Kind() == reflect.Slice {
			for i, v := range n.Values {
				walkKeys(v, t.Elem(), fmt.Sprintf("%s[%d]", path, i), bad)
			}
			return
		}
	}
	var want string
	switch t.Kind() {
	case reflect.Map:
		return // of free keys
	case reflect.Struct:
		want = "keys: " + strings.Join(slices.Sorted(maps.Keys(fieldsOf(t))), ", ")
	case reflect.Slice:
		want = "a list"
	default:
		f, real := n.(*ast.FloatNode)
		cut := real && t.Kind() != reflect.Float64 && f.Value != math.Trunc(f.Value) // decoding would drop the fraction
		if !cut && yaml.NodeToValue(n, reflect.New(t).Interface()) == nil {
			return
		}
		want = kinds[t.Kind()]
	}
	if path == "" {
		path = "the recipe"
	}
	text, _, more := strings.Cut(strings.TrimSpace(n.String()), "\n")
	if more {
		text += " …"
	}
	bad(n, "%s: %s, want %s", path, text, want)
}

// kinds says in words what a value must be.
var kinds = map[reflect.Kind]string{
	reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Uint64: "a whole number of 0 or more", reflect.Float64: "a number", reflect.String: "a text",
}

// lookup finds the type that a key path names.
func lookup(t reflect.Type, path []string) (reflect.Type, error) {
	for i, key := range path {
		if t.Kind() != reflect.Struct {
			return nil, fmt.Errorf("%s has no keys below it", strings.Join(path[:i], "."))
		}
		fields := fieldsOf(t)
		ft, ok := fields[key]
		if !ok {
			return nil, fmt.Errorf("unknown key %s%s", strings.Join(path[:i+1], "."), suggest(key, fields))
		}
		t = ft
	}
	return t, nil
}

// fieldsOf returns the YAML keys of a struct and their types, pointers followed, inlined structs merged.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		ft := f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch {
		case strings.Contains(options, "inline"):
			for k, v := range fieldsOf(ft) {
				out[k] = v
			}
		case name != "" && name != "-":
			out[name] = ft
		}
	}
	return out
}

// suggest names the nearest of the known keys, or all of them when none is near.
func suggest(key string, fields map[string]reflect.Type) string {
	best, name := len(key)/2+1, ""
	var all []string
	for f := range fields {
		all = append(all, f)
		if d := distance(strings.ToLower(key), strings.ToLower(f)); d < best || d == best && f < name {
			best, name = d, f
		}
	}
	if name != "" {
		return fmt.Sprintf("; did you mean %s?", name)
	}
	slices.Sort(all)
	return "; known here: " + strings.Join(all, ", ")
}

// distance counts the letters to insert, remove, change or swap with their neighbour (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j-1]+cost, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
