package edit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/transform"
)

// picture is a PNG, or for a .jpg a JPEG, of w×h pixels of noise.
func picture(t testing.TB, name string, seed uint64, w, h int) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = uint8(rng.Uint32()) | uint8(i%4/3*255)
	}
	var b bytes.Buffer
	if strings.HasSuffix(name, ".jpg") {
		require.NoError(t, jpeg.Encode(&b, m, nil))
	} else {
		require.NoError(t, png.Encode(&b, m))
	}
	return b.Bytes()
}

// rowsOf makes n rows in groups of three: two train rows for each val row.
func rowsOf(t testing.TB, n int, group string) []arrowset.Row {
	rows := make([]arrowset.Row, n)
	for i := range rows {
		name := fmt.Sprintf("%s%03d.%s", group, i, []string{"png", "jpg"}[i%2])
		rows[i] = arrowset.Row{
			RowMeta: arrowset.RowMeta{ImageID: name, Split: []string{"train", "train", "val"}[i%3], Group: fmt.Sprintf("%s%d", group, i/3), Label: fmt.Sprint("label ", i/3), Attributes: []string{[]string{"red", "blue"}[i%2]}},
			Image:   picture(t, name, uint64(i), 30+i%7, 20), Captions: []arrowset.Caption{{Text: fmt.Sprintf("a %s %d", group, i), Kind: "k", Lang: "en"}, {Text: "more"}},
		}
	}
	return rows
}

var given1 = arrowset.Manifest{Name: "first", Description: "d", Attributes: []string{"style"}, Licenses: []arrowset.License{{Name: "MIT"}},
	Classes: []arrowset.ClassSystem{{Name: "style", Column: "style", Templates: []string{"a {}"}, Classes: []arrowset.Class{{ID: "red", Text: "red one"}}}}}

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
	return open(t, dir)
}

func open(t testing.TB, dir string) *arrowset.Set {
	t.Helper()
	set, err := arrowset.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { set.Close() })
	require.NoError(t, set.Verify(t.Context()))
	return set
}

// both does an edit with one goroutine and with four: the same files must come out. It returns the set.
func both(t *testing.T, do func(o Options) error) *arrowset.Set {
	t.Helper()
	var sets [2]*arrowset.Set
	for i, workers := range []int{1, 4} {
		out := filepath.Join(t.TempDir(), "out")
		last := 0
		require.NoError(t, do(Options{Out: out, Workers: workers, Progress: func(done, total int) { last = done }}))
		sets[i] = open(t, out)
		require.Equal(t, sets[i].Len(), last)
	}
	require.Equal(t, sets[0].Manifest(), sets[1].Manifest(), "checksums are in the manifest")
	return sets[0]
}

func ids(set *arrowset.Set) (out []string) {
	for _, m := range set.Meta() {
		out = append(out, m.ImageID)
	}
	return out
}

// requireRow holds a row of a new set against the old one's.
func requireRow(t *testing.T, want arrowset.Row, set *arrowset.Set, i int) {
	t.Helper()
	require.Equal(t, want.RowMeta, set.Meta()[i])
	require.Equal(t, want.Captions, set.Captions(i))
	b, err := set.Image(t.Context(), i)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want.Image, b), "picture of row %d", i)
}

func TestReshard(t *testing.T) {
	rows := rowsOf(t, 60, "a")
	from := write(t, given1, rows)
	set := both(t, func(o Options) error {
		o.ShardBytes, o.Name = 32<<10, "new"
		return Reshard(t.Context(), from, o)
	})
	for i, r := range rows {
		requireRow(t, r, set, i)
	}
	m := set.Manifest()
	require.Equal(t, "new", m.Name)
	require.Equal(t, []any{given1.Attributes, given1.Classes, given1.Licenses, given1.Description}, []any{m.Attributes, m.Classes, m.Licenses, m.Description})
	require.Equal(t, from.Manifest().Splits, m.Splits)
	require.Equal(t, from.Manifest().Groups, m.Groups)
}

func TestFilter(t *testing.T) {
	rows := rowsOf(t, 30, "a")
	from := write(t, given1, rows)
	for _, c := range []struct {
		where, splits []string
		keep          func(r arrowset.Row) bool
	}{
		{[]string{"style=red"}, nil, func(r arrowset.Row) bool { return r.Attributes[0] == "red" }},
		{[]string{"style!=red"}, []string{"val"}, func(r arrowset.Row) bool { return r.Attributes[0] != "red" && r.Split == "val" }},
		{[]string{"caption~^a a 1", "split=train"}, nil, func(r arrowset.Row) bool {
			return strings.HasPrefix(r.Captions[0].Text, "a a 1") && r.Split == "train"
		}},
		{[]string{"caption!=a a 5"}, nil, func(r arrowset.Row) bool { return r.Captions[0].Text != "a a 5" }},
		{[]string{"image_id!~[13579]\\.jpg$"}, nil, func(r arrowset.Row) bool { return strings.HasSuffix(r.ImageID, ".png") }},
		{[]string{"label = label 1"}, nil, nil},
		{nil, []string{"val"}, func(r arrowset.Row) bool { return r.Split == "val" }},
	} {
		t.Run(strings.Join(append(c.where, c.splits...), " and "), func(t *testing.T) {
			var where []Where
			for _, s := range c.where {
				w, err := ParseWhere(s)
				require.NoError(t, err)
				where = append(where, w)
			}
			if c.keep == nil { // the space belongs to the text
				require.ErrorIs(t, Filter(t.Context(), from, c.splits, where, Options{Out: filepath.Join(t.TempDir(), "x")}), ErrArgument)
				return
			}
			set := both(t, func(o Options) error { return Filter(t.Context(), from, c.splits, where, o) })
			i := 0
			for _, r := range rows {
				if c.keep(r) {
					requireRow(t, r, set, i)
					i++
				}
			}
			require.Equal(t, i, set.Len())
		})
	}
}

func TestSample(t *testing.T) {
	from := write(t, given1, rowsOf(t, 90, "a"))
	take := func(n int, fraction float64, seed uint64) []string {
		return ids(both(t, func(o Options) error { return Sample(t.Context(), from, n, fraction, seed, o) }))
	}
	ten, forty := take(10, 0, 1), take(40, 0, 1)
	require.Len(t, ten, 10)
	require.Len(t, forty, 40)
	require.Subset(t, forty, ten)
	require.True(t, slices.IsSorted(forty), "the order stays")
	require.NotEqual(t, ten, take(10, 0, 2))
	third := take(0, 0.33, 1)
	require.InDelta(t, 30, len(third), 15)
	require.Equal(t, third, take(len(third), 0, 1), "both choose the least hashes")
}

func TestSplit(t *testing.T) {
	rows := rowsOf(t, 300, "a")
	rows[4].Group = ""
	parts, err := ParseParts("train=.6, val=.2,exam=.2")
	require.NoError(t, err)
	deal := func(rows []arrowset.Row, by string) map[string]string {
		set := both(t, func(o Options) error { return Split(t.Context(), write(t, given1, rows), parts, by, 3, o) })
		split := map[string]string{}
		for _, m := range set.Meta() {
			split[m.ImageID] = m.Split
		}
		return split
	}
	all := deal(rows, "group")
	count, groups := map[string]int{}, map[string]string{}
	for _, r := range rows {
		count[all[r.ImageID]]++
		if s, ok := groups[r.Group]; ok && r.Group != "" {
			require.Equal(t, s, all[r.ImageID], "group %s", r.Group)
		}
		groups[r.Group] = all[r.ImageID]
	}
	require.InDelta(t, 180, count["train"], 45)
	require.InDelta(t, 60, count["val"], 35)
	require.InDelta(t, 60, count["exam"], 35)
	for id, s := range deal(rows[:150], "group") { // what was dealt stays
		require.Equal(t, all[id], s)
	}
	require.NotEqual(t, all, deal(rows, "image_id"))
}

func TestMix(t *testing.T) {
	a, b := rowsOf(t, 60, "a"), rowsOf(t, 30, "b")
	second := arrowset.Manifest{Name: "second", Attributes: []string{"size", "style"}, Licenses: []arrowset.License{{Name: "MIT"}, {Name: "CC0"}},
		Classes: []arrowset.ClassSystem{{Name: "style", Column: "style", Templates: []string{"a {}", "the {}"}, Classes: []arrowset.Class{{ID: "red", Text: "red one"}, {ID: "blue", Text: "blue one"}}}}}
	for i := range b {
		b[i].Attributes = []string{"large", b[i].Attributes[0]}
	}
	sets := []*arrowset.Set{write(t, given1, a), write(t, second, b)}

	t.Run("all", func(t *testing.T) {
		set := both(t, func(o Options) error { return Mix(t.Context(), sets, MixOptions{Options: o}) })
		require.Equal(t, 90, set.Len())
		m := set.Manifest()
		require.Equal(t, []string{"style", "size"}, m.Attributes)
		require.Equal(t, second.Licenses, m.Licenses)
		require.Equal(t, second.Classes, m.Classes)
		require.Equal(t, 30, m.Groups)
		require.Equal(t, "out", m.Name)
		at := slices.Index(ids(set), "b000.png")
		want := b[0]
		want.Attributes = []string{"red", "large"}
		requireRow(t, want, set, at)
		for i := range 9 { // ten rows, about a third of which are of b
			n := 0
			for _, id := range ids(set)[10*i : 10*i+10] {
				if strings.HasPrefix(id, "b") {
					n++
				}
			}
			require.InDelta(t, 10./3, n, 1, "evenly interleaved")
		}
	})
	t.Run("weights", func(t *testing.T) {
		for _, c := range []struct {
			weights []float64
			a, b    int // rows of train, which has 40 and 20
		}{{[]float64{1, 1}, 20, 20}, {[]float64{3, 1}, 40, 13}, {[]float64{2, 1}, 40, 20}, {[]float64{1, 10}, 2, 20}} {
			set := both(t, func(o Options) error {
				return Mix(t.Context(), sets, MixOptions{Options: o, Weights: c.weights, Splits: []string{"train"}})
			})
			got := map[string]int{}
			for _, m := range set.Meta() {
				got[m.ImageID[:1]+m.Split]++
			}
			require.Equal(t, map[string]int{"atrain": c.a, "btrain": c.b, "aval": 20, "bval": 10}, got)
		}
	})
	t.Run("the same names", func(t *testing.T) {
		twin := given1
		twin.Name = "twin"
		same := []*arrowset.Set{sets[0], write(t, twin, a)}
		set := both(t, func(o Options) error { return Mix(t.Context(), same, MixOptions{Options: o, ApartGroups: true}) })
		require.Contains(t, ids(set), "first/a000.png")
		require.Contains(t, ids(set), "twin/a000.png")
		require.Equal(t, 40, set.Manifest().Groups)
		require.Equal(t, 20, both(t, func(o Options) error { return Mix(t.Context(), same, MixOptions{Options: o}) }).Manifest().Groups)
		err := Mix(t.Context(), []*arrowset.Set{sets[0], sets[0]}, MixOptions{Options: Options{Out: filepath.Join(t.TempDir(), "x")}})
		require.ErrorIs(t, err, ErrArgument)
		require.ErrorContains(t, err, "a000.png")
	})
}

func size(t *testing.T, set *arrowset.Set, i int) (string, int, int) {
	b, err := set.Image(t.Context(), i)
	require.NoError(t, err)
	c, format, err := image.DecodeConfig(bytes.NewReader(b))
	require.NoError(t, err)
	return format, c.Width, c.Height
}

func TestResize(t *testing.T) {
	rows := rowsOf(t, 4, "a") // 30×20, 31×20, 32×20, 33×20; PNG and JPEG in turn
	rows = append(rows, arrowset.Row{RowMeta: rows[0].RowMeta, Image: picture(t, "x.png", 1, 8, 6), Captions: rows[0].Captions})
	rows[4].ImageID = "small.png"
	from := write(t, given1, rows)
	for _, c := range []struct {
		name string
		o    PictureOptions
		want [][2]int
	}{
		{"shortest", PictureOptions{Size: 10, Mode: "shortest"}, [][2]int{{15, 10}, {16, 10}, {16, 10}, {17, 10}, {8, 6}}},
		{"longest", PictureOptions{Size: 15, Mode: "longest"}, [][2]int{{15, 10}, {15, 10}, {15, 9}, {15, 9}, {8, 6}}},
		{"enlarge", PictureOptions{Size: 40, Mode: "shortest", Enlarge: true}, [][2]int{{60, 40}, {62, 40}, {64, 40}, {66, 40}, {53, 40}}},
		{"squash", PictureOptions{Size: 12, Mode: "squash"}, [][2]int{{12, 12}, {12, 12}, {12, 12}, {12, 12}, {12, 12}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := both(t, func(o Options) error {
				c.o.Options, c.o.Quality, c.o.Filter = o, 90, transform.Bicubic
				return Resize(t.Context(), from, c.o)
			})
			for i, want := range c.want {
				format, w, h := size(t, set, i)
				require.Equal(t, want, [2]int{w, h}, "row %d", i)
				require.Equal(t, []string{"png", "jpeg"}[i%2], format)
			}
			if c.want[4] == [2]int{8, 6} {
				requireRow(t, rows[4], set, 4) // its bytes stay
			}
		})
	}
}

func TestReEncode(t *testing.T) {
	rows := rowsOf(t, 4, "a")
	rows[1].ImageID = "a000.jpg" // a000.png would take its name
	from := write(t, given1, rows)
	asJPEG := both(t, func(o Options) error {
		return ReEncode(t.Context(), from, PictureOptions{Options: o, Format: "jpeg", Quality: 50})
	})
	require.Equal(t, []string{"a000_.jpg", "a000.jpg", "a002.jpg", "a003.jpg"}, ids(asJPEG))
	asPNG := both(t, func(o Options) error {
		return ReEncode(t.Context(), from, PictureOptions{Options: o, Format: "png", Quality: 50})
	})
	require.Equal(t, []string{"a000.png", "a000_.png", "a002.png", "a003.png"}, ids(asPNG))
	for i := range rows {
		format, _, _ := size(t, asJPEG, i)
		require.Equal(t, "jpeg", format)
		b, err := asPNG.Image(t.Context(), i)
		require.NoError(t, err)
		var want, got transform.Image
		require.NoError(t, transform.Decode(rows[i].Image, &want))
		require.NoError(t, transform.Decode(b, &got))
		require.Equal(t, want, got, "PNG keeps every pixel")
	}
}

func TestMistakes(t *testing.T) {
	rows := rowsOf(t, 6, "a")
	from := write(t, given1, rows)
	rows[3].Image = []byte("no picture")
	broken := write(t, given1, rows)
	byGroup := given1
	byGroup.Classes = []arrowset.ClassSystem{{Name: "g", Column: "group"}}
	other := given1
	other.Classes = []arrowset.ClassSystem{{Name: "style", Column: "label"}}
	renamed := given1
	renamed.Classes = []arrowset.ClassSystem{{Name: "style", Column: "style", Classes: []arrowset.Class{{ID: "red", Text: "ruddy"}}}}
	more := rowsOf(t, 3, "b")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	parts := func(s string) error { _, err := ParseParts(s); return err }
	where := func(s string) error { _, err := ParseWhere(s); return err }
	mix := func(o Options, m arrowset.Manifest, mo MixOptions) error {
		mo.Options = o
		return Mix(t.Context(), []*arrowset.Set{from, write(t, m, more)}, mo)
	}
	for _, c := range []struct {
		name string
		do   func(o Options) error
		is   error
		text string
	}{
		{"unknown column", func(o Options) error {
			return Filter(t.Context(), from, nil, []Where{{Column: "colour", Op: "=", Text: "x"}}, o)
		}, ErrArgument, `no text column "colour"; it has image_id, split, group, label, source, caption, style`},
		{"unknown split", func(o Options) error { return Filter(t.Context(), from, []string{"exam"}, nil, o) }, ErrArgument, `no split "exam"; it has train, val`},
		{"no condition", func(Options) error { return where("style") }, ErrArgument, "want COLUMN=TEXT"},
		{"bad expression", func(Options) error { return where("style~(") }, ErrArgument, "missing closing )"},
		{"too large a sample", func(o Options) error { return Sample(t.Context(), from, 7, 0, 0, o) }, ErrArgument, "has 6"},
		{"no fraction", func(o Options) error { return Sample(t.Context(), from, 0, 1.5, 0, o) }, ErrArgument, "1.5"},
		{"fractions of more than one", func(Options) error { return parts("a=.6,b=.6") }, ErrArgument, "add up to 1.2"},
		{"a split twice", func(Options) error { return parts("a=.5,a=.5") }, ErrArgument, "twice"},
		{"no fractions", func(Options) error { return parts("a") }, ErrArgument, "SPLIT=FRACTION"},
		{"an empty split", func(o Options) error {
			return Split(t.Context(), from, []Part{{"a", 0.999999}, {"b", 0.000001}}, "group", 1, o)
		}, ErrArgument, "split b would be empty"},
		{"split by nothing", func(o Options) error { return Split(t.Context(), from, []Part{{"a", 1}}, "x", 1, o) }, ErrArgument, `column "x"`},
		{"weights", func(o Options) error { return mix(o, given1, MixOptions{Weights: []float64{1}}) }, ErrArgument, "1 weights for 2 sets"},
		{"a weight of none", func(o Options) error { return mix(o, given1, MixOptions{Weights: []float64{1, 0}}) }, ErrArgument, "weight 0"},
		{"weights of no split", func(o Options) error {
			return mix(o, given1, MixOptions{Weights: []float64{1, 1}, Splits: []string{"exam"}})
		}, ErrArgument, "split exam"},
		{"groups that name classes", func(o Options) error { return mix(o, byGroup, MixOptions{ApartGroups: true}) }, ErrArgument, "by group"},
		{"systems in two columns", func(o Options) error { return mix(o, other, MixOptions{}) }, ErrArgument, "lies in column style"},
		{"classes of two names", func(o Options) error { return mix(o, renamed, MixOptions{}) }, ErrArgument, `calls red "red one"`},
		{"a broken picture", func(o Options) error {
			return Resize(t.Context(), broken, PictureOptions{Options: o, Size: 10, Mode: "shortest", Quality: 90})
		}, transform.ErrBadPicture, "row 3 (a003.jpg)"},
		{"no size", func(o Options) error {
			return Resize(t.Context(), from, PictureOptions{Options: o, Mode: "shortest", Quality: 90})
		}, ErrArgument, "0 pixels"},
		{"no mode", func(o Options) error {
			return Resize(t.Context(), from, PictureOptions{Options: o, Size: 9, Mode: "x", Quality: 90})
		}, ErrArgument, `mode "x"`},
		{"no format", func(o Options) error {
			return ReEncode(t.Context(), from, PictureOptions{Options: o, Format: "gif", Quality: 90})
		}, ErrArgument, `format "gif"`},
		{"no quality", func(o Options) error { return ReEncode(t.Context(), from, PictureOptions{Options: o, Format: "jpeg"}) }, ErrArgument, "quality of 0"},
		{"a folder that is there", func(o Options) error {
			o.Out = from.Path()
			return Reshard(t.Context(), from, o)
		}, os.ErrExist, "not empty"},
		{"stopped", func(o Options) error { return Reshard(stopped, from, o) }, context.Canceled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := c.do(Options{Out: filepath.Join(dir, "out")})
			require.Error(t, err)
			require.True(t, errors.Is(err, c.is), "%v", err)
			require.ErrorContains(t, err, c.text)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "nothing is left behind")
		})
	}
}
