// Package edit makes data sets out of data sets: mixed, filtered, sampled, split anew, cut into other files, with smaller or
// re-encoded pictures.
//
// Every operation is a plan, the rows of the new set in order, which one loop carries out (write.go): pictures are read and
// changed on all cores, rows are written in the plan's order, and what is in memory is a few dozen pictures. So the new set
// depends on the plan alone, not on the cores. It appears whole under its name or not at all, and its manifest is that of the
// old set, with what has changed. A choice among rows is made by a hash of (seed, name of the row or group), never by its
// place, so that it stays when the set grows.
package edit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"diptych/data/arrowset"
	"diptych/internal/addr"
)

// ErrArgument is wrapped by errors about what the caller asked for.
var ErrArgument = errors.New("cannot be done")

func refuse(format string, args ...any) error {
	return fmt.Errorf("edit: %w: %w", ErrArgument, fmt.Errorf(format, args...))
}

// Options are common to all operations.
type Options struct {
	Out        string                // folder to make, which must not exist or be empty
	Name       string                // of the new set; "" keeps the old one's
	ShardBytes int64                 // size at which a file is closed and the next begun; 0 takes arrowset's
	Workers    int                   // 0 takes all cores
	Progress   func(done, total int) // called after every row; may be nil
}

// ref is a row of one of the sets of a plan.
type ref struct{ set, row int }

// plan is what a new set shall hold.
type plan struct {
	sets     []*arrowset.Set
	manifest arrowset.Manifest
	rows     []ref
	// meta changes what the row's picture and captions do not know: its split, its names. Attributes are the plan's to
	// make. nil keeps all.
	meta func(r ref, m *arrowset.RowMeta)
	// picture changes a picture; nil keeps its bytes.
	picture func(w *worker, r ref, b []byte) ([]byte, error)
	// captions makes the captions of a row, whose picture as it was is b; nil keeps them.
	captions func(w *worker, row int, b []byte) ([]arrowset.Caption, error)
}

// copyOf is the plan that copies those rows of a set that keep admits; nil admits all.
func copyOf(set *arrowset.Set, keep func(row int) bool) *plan {
	p := &plan{sets: []*arrowset.Set{set}, manifest: set.Manifest().Given()}
	for i := range set.Len() {
		if keep == nil || keep(i) {
			p.rows = append(p.rows, ref{0, i})
		}
	}
	return p
}

// Reshard writes the rows as they are, in files of another size.
func Reshard(ctx context.Context, set *arrowset.Set, o Options) error {
	return copyOf(set, nil).write(ctx, o)
}

// Where is one condition on rows: COLUMN OP TEXT, where OP is = (equal), != (not equal), ~ (a regular expression matches) or !~
// (none matches). COLUMN is a text column of the set, or caption, which holds if any of the row's captions fulfils it; with !=
// and !~ it holds if all do.
type Where struct {
	Column, Op, Text string
	match            func(string) bool
}

var whereForm = regexp.MustCompile(`^([^=~!]+?)\s*(!=|!~|=|~)(.*)$`)

// ParseWhere reads a condition such as style=noto.
func ParseWhere(s string) (Where, error) {
	m := whereForm.FindStringSubmatch(s)
	if m == nil {
		return Where{}, refuse("condition %q: want COLUMN=TEXT, COLUMN!=TEXT, COLUMN~EXPRESSION or COLUMN!~EXPRESSION", s)
	}
	w := Where{Column: strings.TrimSpace(m[1]), Op: m[2], Text: m[3]}
	if strings.HasSuffix(w.Op, "~") {
		re, err := regexp.Compile(w.Text)
		if err != nil {
			return w, refuse("condition %q: %w", s, err)
		}
		w.match = re.MatchString
	} else {
		w.match = func(v string) bool { return v == w.Text }
	}
	return w, nil
}

// bind returns the condition for the rows of a set.
func (w Where) bind(set *arrowset.Set) (func(row int) bool, error) {
	want := !strings.HasPrefix(w.Op, "!")
	if w.Column == arrowset.ColCaption {
		return func(row int) bool {
			return slices.ContainsFunc(set.Captions(row), func(c arrowset.Caption) bool { return w.match(c.Text) }) == want
		}, nil
	}
	value, ok := set.Column(w.Column)
	if !ok {
		return nil, refuse("condition %s%s%s: %s has no text column %q; it has %s", w.Column, w.Op, w.Text, nameOf(set), w.Column, strings.Join(textColumns(set), ", "))
	}
	return func(row int) bool { return w.match(value(row)) == want }, nil
}

// textColumns are the columns that conditions and splits may name.
func textColumns(set *arrowset.Set) []string {
	return append([]string{arrowset.ColImageID, arrowset.ColSplit, arrowset.ColGroup, arrowset.ColLabel, arrowset.ColSource, arrowset.ColCaption}, set.Manifest().Attributes...)
}

// nameOf is what messages call a set.
func nameOf(set *arrowset.Set) string { return cmp.Or(set.Path(), set.Manifest().Name) }

// Filter keeps the rows of the splits named (none: all) that fulfil all conditions.
func Filter(ctx context.Context, set *arrowset.Set, splits []string, where []Where, o Options) error {
	if err := haveSplits(set, splits); err != nil {
		return err
	}
	var conditions []func(int) bool
	for _, w := range where {
		c, err := w.bind(set)
		if err != nil {
			return err
		}
		conditions = append(conditions, c)
	}
	p := copyOf(set, func(row int) bool {
		return (len(splits) == 0 || slices.Contains(splits, set.Meta()[row].Split)) &&
			!slices.ContainsFunc(conditions, func(c func(int) bool) bool { return !c(row) })
	})
	if len(p.rows) == 0 {
		return refuse("no row of %s fulfils the conditions", nameOf(set))
	}
	return p.write(ctx, o)
}

func haveSplits(set *arrowset.Set, splits []string) error {
	for _, s := range splits {
		if _, ok := set.Manifest().Splits[s]; !ok {
			return refuse("%s has no split %q; it has %s", nameOf(set), s, strings.Join(slices.Sorted(maps.Keys(set.Manifest().Splits)), ", "))
		}
	}
	return nil
}

// draw is a number for a name, uniform over all of uint64: the same for the same seed, purpose and name.
func draw(seed uint64, purpose, name string) uint64 {
	return addr.Hash(seed, addr.Name(purpose), addr.Name(name))
}

// Sample keeps n rows, or, if n is 0, each with the probability fraction. The rows of a greater sample with the same seed hold
// those of a smaller one.
func Sample(ctx context.Context, set *arrowset.Set, n int, fraction float64, seed uint64, o Options) error {
	at := func(row int) uint64 { return draw(seed, "sample", set.Meta()[row].ImageID) }
	switch {
	case n < 0 || n > set.Len():
		return refuse("a sample of %d rows; %s has %d", n, nameOf(set), set.Len())
	case n > 0:
		rows := least(set, n, at)
		return copyOf(set, func(row int) bool { return rows[row] }).write(ctx, o)
	case !(fraction > 0 && fraction <= 1):
		return refuse("a sample of the fraction %v; want more than 0 and at most 1, or a number of rows", fraction)
	}
	p := copyOf(set, func(row int) bool { return addr.Float64(at(row)) < fraction })
	if len(p.rows) == 0 {
		return refuse("a fraction of %v of %d rows is none", fraction, set.Len())
	}
	return p.write(ctx, o)
}

// least marks the n rows whose numbers are the least.
func least(set *arrowset.Set, n int, at func(row int) uint64) []bool {
	rows := make([]int, set.Len())
	for i := range rows {
		rows[i] = i
	}
	return leastOf(set.Len(), rows, n, at)
}

// leastOf marks the n of rows whose numbers are the least, among total rows.
func leastOf(total int, rows []int, n int, at func(row int) uint64) []bool {
	order := slices.Clone(rows)
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b)) })
	marked := make([]bool, total)
	for _, row := range order[:n] {
		marked[row] = true
	}
	return marked
}

// Part is one split to make and its share of the rows.
type Part struct {
	Split    string
	Fraction float64
}

// ParseParts reads fractions such as train=.8,val=.1,test=.1, which add up to 1.
func ParseParts(s string) ([]Part, error) {
	var parts []Part
	total := 0.0
	for _, field := range strings.Split(s, ",") {
		name, text, ok := strings.Cut(strings.TrimSpace(field), "=")
		var f float64
		if _, err := fmt.Sscanf(text, "%g", &f); !ok || err != nil || name == "" || !(f > 0 && f <= 1) {
			return nil, refuse("fractions %q: %q is not SPLIT=FRACTION, such as train=0.8", s, field)
		}
		if slices.ContainsFunc(parts, func(p Part) bool { return p.Split == name }) {
			return nil, refuse("fractions %q: split %s is there twice", s, name)
		}
		parts = append(parts, Part{name, f})
		total += f
	}
	if math.Abs(total-1) > 1e-6 {
		return nil, refuse("fractions %q add up to %v, not to 1", s, total)
	}
	return parts, nil
}

// Split deals the rows anew into splits. Rows with the same value in column by stay together; a row with an empty one goes by
// its image_id. Which split a value falls into depends on the value and the seed only.
func Split(ctx context.Context, set *arrowset.Set, parts []Part, by string, seed uint64, o Options) error {
	value, ok := set.Column(by)
	if !ok {
		return refuse("%s has no text column %q to split by; it has %s", nameOf(set), by, strings.Join(textColumns(set), ", "))
	}
	p := copyOf(set, nil)
	split := func(row int) string {
		name := "value " + value(row)
		if value(row) == "" {
			name = "row " + set.Meta()[row].ImageID
		}
		u := addr.Float64(draw(seed, "split", name))
		for _, part := range parts {
			if u -= part.Fraction; u < 0 {
				return part.Split
			}
		}
		return parts[len(parts)-1].Split // what rounding leaves of the sum
	}
	count := map[string]int{}
	for i := range set.Len() {
		count[split(i)]++
	}
	for _, part := range parts {
		if count[part.Split] == 0 {
			return refuse("split %s would be empty: %s has too few different values in %s", part.Split, nameOf(set), by)
		}
	}
	p.meta = func(r ref, m *arrowset.RowMeta) { m.Split = split(r.row) }
	return p.write(ctx, o)
}

// MixOptions say how sets are mixed.
type MixOptions struct {
	Options
	// Weights are the shares of the sets in the splits named by Splits: of each, as many rows are taken as the proportions
	// allow without a row being taken twice. Empty takes all.
	Weights []float64
	// Splits are those that Weights apply to; the others are taken whole.
	Splits []string
	// ApartGroups makes groups of different sets different, even if they have one name.
	ApartGroups bool
	Seed        uint64
}

// Mix puts several sets into one, their rows evenly interleaved. It has the attributes, classes and licences of all. Where rows
// of two sets have one image_id, every image_id gets the name of its set in front.
func Mix(ctx context.Context, sets []*arrowset.Set, o MixOptions) error {
	if len(o.Weights) > 0 && len(o.Weights) != len(sets) {
		return refuse("%d weights for %d sets", len(o.Weights), len(sets))
	}
	for _, w := range o.Weights {
		if !(w > 0) || math.IsInf(w, 1) {
			return refuse("weight %v; want numbers above 0", w)
		}
	}
	for _, s := range o.Splits {
		if len(o.Weights) > 0 && !slices.ContainsFunc(sets, func(set *arrowset.Set) bool { return set.Manifest().Splits[s] > 0 }) {
			return refuse("weights for split %s, which none of the sets has", s)
		}
	}
	p := &plan{sets: sets}
	var err error
	if p.manifest, err = union(sets, o.ApartGroups); err != nil {
		return err
	}
	if o.Name == "" {
		p.manifest.Name = filepath.Base(filepath.Clean(o.Out))
	}
	prefix, err := prefixes(sets)
	if err != nil {
		return err
	}
	attributes := make([][]int, len(sets)) // where each set's attributes go
	for s, set := range sets {
		for _, a := range set.Manifest().Attributes {
			attributes[s] = append(attributes[s], slices.Index(p.manifest.Attributes, a))
		}
	}
	p.meta = func(r ref, m *arrowset.RowMeta) {
		m.ImageID = prefix[r.set] + m.ImageID
		if o.ApartGroups && m.Group != "" {
			m.Group = fmt.Sprintf("%d/%s", r.set, m.Group)
		}
		all := make([]string, len(p.manifest.Attributes))
		for i, v := range m.Attributes {
			all[attributes[r.set][i]] = v
		}
		m.Attributes = all
	}
	p.rows = interleave(choose(sets, &o))
	return p.write(ctx, o.Options)
}

// choose lists the rows that each set gives.
func choose(sets []*arrowset.Set, o *MixOptions) [][]ref {
	chosen := make([][]bool, len(sets)) // nil: all
	if len(o.Weights) > 0 {
		for s, set := range sets {
			chosen[s] = make([]bool, set.Len())
			for i := range chosen[s] {
				chosen[s][i] = !slices.Contains(o.Splits, set.Meta()[i].Split)
			}
		}
		for _, split := range o.Splits {
			rows := make([][]int, len(sets))
			most := math.Inf(1) // rows for each unit of weight
			for s, set := range sets {
				for i := range set.Len() {
					if set.Meta()[i].Split == split {
						rows[s] = append(rows[s], i)
					}
				}
				if len(rows[s]) > 0 { // a set without the split has no share in it
					most = min(most, float64(len(rows[s]))/o.Weights[s])
				}
			}
			for s, set := range sets {
				if len(rows[s]) == 0 {
					continue
				}
				n := min(len(rows[s]), int(math.Round(most*o.Weights[s])))
				for i, yes := range leastOf(set.Len(), rows[s], n, func(row int) uint64 { return draw(o.Seed, "mix", set.Meta()[row].ImageID) }) {
					chosen[s][i] = chosen[s][i] || yes
				}
			}
		}
	}
	out := make([][]ref, len(sets))
	for s, set := range sets {
		for i := range set.Len() {
			if chosen[s] == nil || chosen[s][i] {
				out[s] = append(out[s], ref{s, i})
			}
		}
	}
	return out
}

// interleave spreads the rows of each set evenly over all: row k of n comes at (k + 1/2)/n.
func interleave(parts [][]ref) []ref {
	var out []ref
	next := make([]int, len(parts))
	for {
		best, least := -1, math.Inf(1)
		for s, rows := range parts {
			if at := (float64(next[s]) + 0.5) / float64(len(rows)); next[s] < len(rows) && at < least {
				best, least = s, at
			}
		}
		if best < 0 {
			return out
		}
		out = append(out, parts[best][next[best]])
		next[best]++
	}
}

// prefixes are what makes image ids differ between sets: nothing where they do.
func prefixes(sets []*arrowset.Set) ([]string, error) {
	out := make([]string, len(sets))
	seen := map[string]int{}
	twice := ""
	for s, set := range sets {
		for i := range set.Len() {
			id := set.Meta()[i].ImageID
			if before, ok := seen[id]; ok && before != s && twice == "" {
				twice = id
			}
			seen[id] = s
		}
	}
	if twice == "" {
		return out, nil
	}
	for s, set := range sets {
		out[s] = set.Manifest().Name + "/"
		if i := slices.Index(out[:s], out[s]); i >= 0 {
			return nil, refuse("the sets %d and %d have rows with the same image_id, such as %s, and the same name %s; rename one, with trainer data reshard --name", i+1, s+1, twice, set.Manifest().Name)
		}
	}
	return out, nil
}

// union is the manifest of a mixture.
func union(sets []*arrowset.Set, apart bool) (arrowset.Manifest, error) {
	var m arrowset.Manifest
	var about []string
	for _, set := range sets {
		from := set.Manifest()
		about = append(about, from.Name)
		for _, a := range from.Attributes {
			if !slices.Contains(m.Attributes, a) {
				m.Attributes = append(m.Attributes, a)
			}
		}
		for _, c := range from.Optional {
			if !m.Has(c) {
				m.Optional = append(m.Optional, c)
			}
		}
		for _, l := range from.Licenses {
			if !slices.Contains(m.Licenses, l) {
				m.Licenses = append(m.Licenses, l)
			}
		}
		for _, c := range from.Classes {
			if apart && c.Column == arrowset.ColGroup {
				return m, refuse("class system %s of %s names its classes by group, so groups cannot be kept apart", c.Name, nameOf(set))
			}
			i := slices.IndexFunc(m.Classes, func(have arrowset.ClassSystem) bool { return have.Name == c.Name })
			if i < 0 {
				c.Classes, c.Templates = slices.Clone(c.Classes), slices.Clone(c.Templates)
				m.Classes = append(m.Classes, c)
				continue
			}
			if err := merge(&m.Classes[i], &c, nameOf(set)); err != nil {
				return m, err
			}
		}
	}
	m.Description = "A mixture of " + strings.Join(about, ", ")
	return m, nil
}

// merge adds the classes of a system to another of the same name.
func merge(have, more *arrowset.ClassSystem, from string) error {
	if have.Column != more.Column {
		return refuse("class system %s lies in column %s, in %s it lies in %s", have.Name, have.Column, from, more.Column)
	}
	texts := map[string]string{}
	for _, c := range have.Classes {
		texts[c.ID] = c.Text
	}
	for _, c := range more.Classes {
		text, ok := texts[c.ID]
		switch {
		case !ok:
			have.Classes = append(have.Classes, c)
		case text != c.Text:
			return refuse("class system %s calls %s %q, in %s it is %q", have.Name, c.ID, text, from, c.Text)
		}
	}
	for _, t := range more.Templates {
		if !slices.Contains(have.Templates, t) {
			have.Templates = append(have.Templates, t)
		}
	}
	return nil
}
