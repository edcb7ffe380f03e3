package check

import (
	"bytes"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/check/dirty"
	"diptych/data/demo"
	"diptych/data/tokenizer"
)

// named says what each planted fault is called here.
var named = map[string]Kind{
	"random bytes": ImageUnreadable, "a web page": ImageUnreadable, "a flipped bit": ImageUnreadable, "half a PNG": ImageTruncated, "half a JPEG": ImageTruncated,
	"a picture of 2.5 gigapixels": ImageBomb, "one colour": ImageOneColour, "a thumbnail of 9×9": ImageTiny, "another extension": ImageExtension,
	"no captions": CaptionNone, "an empty caption": CaptionEmpty, "a caption of spaces": CaptionBlank,
	"UTF-8 read as Windows-1252": CaptionMojibake, "an apostrophe read as Windows-1252": CaptionMojibake, "a lost character": CaptionReplaced,
	"a bell": CaptionControl, "a byte order mark": CaptionControl, "a character reference": CaptionMarkup, "a tag": CaptionMarkup, "an address": CaptionURL,
	"120 words and numbers": CaptionTooLong, "a caption twice": CaptionRepeated, "a caption for 20 groups": CaptionCommon,
	"a picture of train in test": ImageLeak, "a larger picture of train in test": ImageNearLeak, "a JPEG of train in test": ImageNearLeak,
	"a picture in two groups": ImageTwoGroups, "a picture twice": ImageRepeated, "a pair twice": PairRepeated, "one name for two": ImageIDRepeated,
	"a label in capitals": LabelVariant, "a group with spaces": GroupVariant, "a group of train elsewhere": GroupLeak, "no such class": ClassUnknown, "a split in capitals": SplitVariant,
}

// relational are the kinds whose findings name the second row too.
var relational = []Kind{ImageLeak, ImageNearLeak, ImageTwoGroups, ImageRepeated, PairRepeated, ImageIDRepeated, GroupLeak}

func tok(t testing.TB) tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.New(tokenizer.Default())
	require.NoError(t, err)
	return tok
}

// some are every step-th row of the demo, in a set of their own with the class systems of its attributes.
func some(t testing.TB, step int) ([]arrowset.Row, arrowset.Manifest) {
	t.Helper()
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	var rows []arrowset.Row
	for i := 0; i < set.Len(); i += step {
		b, err := set.Image(t.Context(), i)
		require.NoError(t, err)
		rows = append(rows, arrowset.Row{RowMeta: set.Meta()[i], Image: b, Captions: set.Captions(i)})
	}
	m := arrowset.Manifest{Name: "some", Attributes: set.Manifest().Attributes}
	for _, c := range set.Manifest().Classes {
		if c.Column != arrowset.ColGroup { // groups are changed
			m.Classes = append(m.Classes, c)
		}
	}
	return rows, m
}

// write makes a set of rows and opens it.
func write(t testing.TB, m arrowset.Manifest, rows []arrowset.Row) *arrowset.Set {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "set")
	w, err := arrowset.Create(dir, m)
	require.NoError(t, err)
	defer w.Abort()
	for _, r := range rows {
		require.NoError(t, w.Append(r))
	}
	require.NoError(t, w.Close())
	set, err := arrowset.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { set.Close() })
	return set
}

// TestPlanted plants 35 kinds of faults, two of each, into a part of the demo: the list found is the list planted, and the same
// with any number of goroutines. Fix then leaves nothing to find.
func TestPlanted(t *testing.T) {
	rows, m := some(t, 8)
	before, err := Run(t.Context(), write(t, m, rows), Options{Tokenizer: tok(t)})
	require.NoError(t, err)
	require.Zero(t, before.Errors)

	class := slices.Index(m.Attributes, "category")
	bad, faults, err := dirty.Plant(7, rows, class, 2)
	require.NoError(t, err)
	require.Len(t, faults, 2*len(named))
	set := write(t, m, bad)
	r, err := Run(t.Context(), set, Options{Tokenizer: tok(t), Workers: 3})
	require.NoError(t, err)

	changed := map[int]bool{}
	var want []string
	for _, f := range faults {
		for _, row := range f.Rows {
			changed[row] = true
		}
		k := named[f.Name]
		require.NotEmpty(t, k, f.Name)
		want = append(want, line(Finding{Kind: k, Row: f.Rows[0], Caption: f.Caption, Other: other(f)}))
	}
	var found []string
	for _, f := range r.Findings {
		if slices.ContainsFunc(before.Findings, func(b Finding) bool {
			return b.Kind == f.Kind && b.Row == f.Row && b.Caption == f.Caption && b.Other == f.Other
		}) {
			continue
		}
		if f.Kind == CaptionCommon { // one finding, at any of the rows
			i := slices.IndexFunc(faults, func(p dirty.Fault) bool { return named[p.Name] == CaptionCommon && slices.Contains(p.Rows, f.Row) })
			require.GreaterOrEqual(t, i, 0, f.Detail)
			f.Row, f.Caption = faults[i].Rows[0], -1
		}
		if !slices.Contains(relational, f.Kind) {
			f.Other = -1
		}
		found = append(found, line(f))
	}
	slices.Sort(want)
	slices.Sort(found)
	require.Equal(t, want, found)
	for _, b := range before.Findings {
		if !changed[b.Row] && !changed[b.Other] {
			require.Contains(t, r.Findings, b)
		}
	}

	again, err := Run(t.Context(), set, Options{Tokenizer: tok(t), Workers: 1})
	require.NoError(t, err)
	require.Equal(t, r, again)

	out := filepath.Join(t.TempDir(), "clean")
	var fixable []Kind
	for _, k := range Kinds() {
		if k.Fixable() {
			fixable = append(fixable, k)
		}
	}
	changes, err := Fix(t.Context(), set, r, out, FixOptions{Also: fixable})
	require.NoError(t, err)
	require.NotEmpty(t, changes)
	require.FileExists(t, filepath.Join(out, FixesName))
	clean, err := arrowset.Open(out)
	require.NoError(t, err)
	defer clean.Close()
	after, err := Run(t.Context(), clean, Options{Tokenizer: tok(t)})
	require.NoError(t, err)
	for _, f := range after.Findings {
		require.False(t, f.Kind.Fixable(), "%+v", f)
	}
}

// other is the second row of a fault between two.
func other(f dirty.Fault) int {
	if slices.Contains(relational, named[f.Name]) {
		return f.Rows[1]
	}
	return -1
}

func line(f Finding) string {
	return fmt.Sprintf("%s row %d caption %d other %d", f.Kind, f.Row, f.Caption, f.Other)
}

// TestDemo checks the demo: there is no error, and each warning is true. Some styles draw a woman and a person alike, and squares,
// hourglasses and families; one keycap is white on white; two snowmen differ in a few flakes, two black squares in a shade.
func TestDemo(t *testing.T) {
	set, err := demo.Open()
	require.NoError(t, err)
	defer set.Close()
	stages := map[string]int{}
	r, err := Run(t.Context(), set, Options{Tokenizer: tok(t), Progress: func(stage string, done, total int) { stages[stage] = max(stages[stage], done) }})
	require.NoError(t, err)
	require.Zero(t, r.Errors)
	require.Equal(t, set.Len(), stages["checking pictures"])
	require.Equal(t, set.Len(), stages["checking captions"])
	require.Len(t, r.Splits, 5)
	require.Equal(t, SplitStats{Name: "train", Pictures: 5085, Captions: 17039, Groups: 1461, Labels: r.Splits[0].Labels}, r.Splits[0])

	pixels := func(row int) *image.NRGBA {
		b, err := set.Image(t.Context(), row)
		require.NoError(t, err)
		m, err := png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		out := image.NewNRGBA(m.Bounds())
		draw.Draw(out, out.Bounds(), m, image.Point{}, draw.Src)
		return out
	}
	count := map[Kind]int{}
	for _, f := range r.Findings {
		count[f.Kind]++
		a := set.Meta()[f.Row]
		switch f.Kind {
		case ImageTwoGroups, ImageTwoNames:
			b := set.Meta()[f.Other]
			require.Equal(t, pixels(f.Other).Pix, pixels(f.Row).Pix, "%+v", f)
			require.NotEqual(t, b.Group, a.Group)
			require.Equal(t, f.Kind == ImageTwoGroups, a.Split == b.Split)
		case ImageOneColour:
			p := pixels(f.Row).Pix
			for i := range p {
				require.Equal(t, p[i%4], p[i])
			}
		default:
			t.Log(line(f), f.Detail)
		}
	}
	require.Equal(t, map[Kind]int{ImageTwoGroups: 58, ImageTwoNames: 34, ImageOneColour: 1, ImageNearLeak: 2}, count)
}
