package transform

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Spec is one entry of a recipe's list of operations as it stands there: op, the operation's name, and its parameters.
// See operations in ops.go. It is written back as it was read, op first.
type Spec map[string]any

// MarshalYAML writes op first and the parameters by name.
func (s Spec) MarshalYAML() (any, error) {
	var out yaml.MapSlice
	if op, ok := s["op"]; ok {
		out = append(out, yaml.MapItem{Key: "op", Value: op})
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if key != "op" {
			out = append(out, yaml.MapItem{Key: key, Value: s[key]})
		}
	}
	return out, nil
}

// String writes the operation and its parameters by name, as in "resize filter=bicubic size=224".
func (s Spec) String() string {
	parts := []string{fmt.Sprint(s["op"])}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if key != "op" {
			parts = append(parts, fmt.Sprintf("%s=%v", key, s[key]))
		}
	}
	return strings.Join(parts, " ")
}

// params reads the parameters of one entry. Faults are collected, so that a recipe's author sees all of them.
type params struct {
	spec  Spec
	where string
	patch int      // the model's, in pixels, if it takes pictures of different shapes
	known []string // parameters that were asked for
	prob  float64
	errs  []error
}

func (p *params) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(p.where+": "+format, args...))
}

// err returns the faults, among them the parameters that the operation has not asked for.
func (p *params) err() error {
	for _, key := range slices.Sorted(maps.Keys(p.spec)) {
		if key != "op" && !slices.Contains(p.known, key) {
			p.fail("unknown parameter %q%s", key, meant(key, p.known))
		}
	}
	return errors.Join(p.errs...)
}

func (p *params) has(key string) bool {
	if !slices.Contains(p.known, key) {
		p.known = append(p.known, key)
	}
	_, ok := p.spec[key]
	return ok
}

// float reads a number in [lo, hi]. Without def it must be given.
func (p *params) float(key string, lo, hi float64, def *float64) float64 {
	if !p.has(key) {
		if def == nil {
			p.fail("%s is missing: a number from %v to %v", key, lo, hi)
			return 0
		}
		return *def
	}
	x, ok := number(p.spec[key])
	if !ok || !(lo <= x && x <= hi) {
		p.fail("%s: %v is not a number from %v to %v", key, p.spec[key], lo, hi)
	}
	return x
}

// int reads a whole number in [lo, hi].
func (p *params) int(key string, lo, hi, def int) int {
	if !p.has(key) {
		return def
	}
	x, ok := number(p.spec[key])
	if !ok || x != math.Trunc(x) || x < float64(lo) || x > float64(hi) {
		p.fail("%s: %v is not a whole number from %d to %d", key, p.spec[key], lo, hi)
		return def
	}
	return int(x)
}

// sides reads the size of a picture: a number for a square, or its height and width.
func (p *params) sides(key string, def sides) sides {
	if !p.has(key) {
		return def
	}
	v, ok := numbers(p.spec[key])
	if x, one := number(p.spec[key]); one {
		v, ok = []float64{x, x}, true
	}
	if !ok || len(v) != 2 || slices.ContainsFunc(v, func(x float64) bool { return x != math.Trunc(x) || x < 1 || x > maxSize }) {
		p.fail("%s: %v is not a whole number from 1 to %d, or two of them, [height, width]", key, p.spec[key], maxSize)
		return def
	}
	return sides{w: int(v[1]), h: int(v[0])}
}

// span reads two numbers in [lo, hi], the lesser first.
func (p *params) span(key string, lo, hi float64, def *[2]float64) [2]float64 {
	if !p.has(key) {
		if def == nil {
			p.fail("%s is missing: two numbers from %v to %v, such as [0.9, 1]", key, lo, hi)
			return [2]float64{}
		}
		return *def
	}
	v, ok := numbers(p.spec[key])
	if !ok || len(v) != 2 || !(lo <= v[0] && v[0] <= v[1] && v[1] <= hi) {
		p.fail("%s: %v is not a pair [least, most] of numbers from %v to %v", key, p.spec[key], lo, hi)
		return [2]float64{}
	}
	return [2]float64{v[0], v[1]}
}

// triple reads one number for each channel.
func (p *params) triple(key string, lo, hi float64) (c [3]float32) {
	if !p.has(key) {
		p.fail("%s is missing: three numbers, for red, green and blue", key)
		return c
	}
	v, ok := numbers(p.spec[key])
	if !ok || len(v) != 3 || !(lo <= slices.Min(v) && slices.Max(v) <= hi) {
		p.fail("%s: %v is not a list of three numbers from %v to %v", key, p.spec[key], lo, hi)
		return c
	}
	for i, x := range v {
		c[i] = float32(x)
	}
	return c
}

// choice reads one of names, of which the first is the default.
func (p *params) choice(key string, names []string) string {
	if !p.has(key) {
		return names[0]
	}
	name, ok := p.spec[key].(string)
	if !ok || !slices.Contains(names, name) {
		p.fail("%s: unknown value %q%s", key, fmt.Sprint(p.spec[key]), meant(name, names))
		return names[0]
	}
	return name
}

// names reads a list of one or more of the names allowed.
func (p *params) names(key string, allowed, def []string) []string {
	if !p.has(key) {
		return def
	}
	var out []string
	switch v := p.spec[key].(type) {
	case []string:
		out = v
	case []any:
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
	}
	if len(out) == 0 {
		p.fail("%s: %v is not a list of names: %s", key, p.spec[key], list(allowed))
	}
	for _, name := range out {
		if !slices.Contains(allowed, name) {
			p.fail("%s: unknown name %q%s", key, name, meant(name, allowed))
		}
	}
	return out
}

func (p *params) filter() Filter {
	return Filter(slices.Index(filterNames, p.choice("filter", filterNames)))
}

// chance reads the probability with which the entry is applied.
func (p *params) chance(def *float64) { p.prob = p.float("prob", 0, 1, def) }

// number converts what YAML or Go code hold as a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, !math.IsNaN(v)
	case float32:
		return float64(v), v == v
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	}
	return 0, false
}

func numbers(v any) ([]float64, bool) {
	switch v := v.(type) {
	case []float64:
		return v, !slices.ContainsFunc(v, math.IsNaN)
	case []any:
		out := make([]float64, len(v))
		for i, e := range v {
			x, ok := number(e)
			if !ok {
				return nil, false
			}
			out[i] = x
		}
		return out, true
	}
	return nil, false
}

// meant ends an error about a name that is not among names: with the nearest of them, or with all.
func meant(name string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		d := distance(name, n)
		if name != "" && (strings.Contains(n, name) || strings.Contains(name, n)) {
			d = min(d, 2)
		}
		if d < least {
			best, least = n, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ": one of " + list(names)
}

func list(names []string) string { return strings.Join(names, ", ") }

// distance is the number of bytes to insert, delete or replace that make a into b (Levenshtein 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
