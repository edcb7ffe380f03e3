package check

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// picture is a PNG of 24×24 pixels of soft noise, its own for each seed.
func picture(t testing.TB, seed uint64) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 9))
	var grid [4][4][3]uint8
	for y := range grid {
		for x := range grid[y] {
			grid[y][x] = [3]uint8{uint8(rng.Uint32()), uint8(rng.Uint32()), uint8(rng.Uint32())}
		}
	}
	m := image.NewRGBA(image.Rect(0, 0, 24, 24))
	for y := range 24 {
		for x := range 24 {
			c := grid[y/6][x/6]
			m.SetRGBA(x, y, color.RGBA{c[0], c[1], c[2], 255})
		}
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	return b.Bytes()
}

// plainRows are n sound rows of their own groups, a tenth of them in each of val and test.
func plainRows(t testing.TB, n int) []arrowset.Row {
	rows := make([]arrowset.Row, n)
	for i := range rows {
		split := "train"
		if i%10 == 8 {
			split = "val"
		} else if i%10 == 9 {
			split = "test"
		}
		rows[i] = arrowset.Row{
			RowMeta:  arrowset.RowMeta{ImageID: strconv.Itoa(i) + ".png", Split: split, Group: "g" + strconv.Itoa(i)},
			Image:    picture(t, uint64(i)),
			Captions: []arrowset.Caption{{Text: "picture number " + strconv.Itoa(i)}},
		}
	}
	return rows
}

func kindsOf(r *Report) (out []Kind) {
	for _, k := range r.Kinds {
		out = append(out, k.Kind)
	}
	return out
}

func TestSound(t *testing.T) {
	r, err := Run(t.Context(), write(t, arrowset.Manifest{Name: "sound"}, plainRows(t, 200)), Options{Tokenizer: tok(t), Split: "train"})
	require.NoError(t, err)
	require.Empty(t, r.Findings)
	require.Equal(t, []SplitStats{{"train", 160, 160, 160, 0}, {"test", 20, 20, 20, 0}, {"val", 20, 20, 20, 0}}, r.Splits)
	require.Equal(t, GroupStats{Groups: 200, Largest: 1, Singles: 200, NoLabel: 200}, r.Groups)
	require.Equal(t, 200, r.Tokens.Captions)
}

// TestSet holds the faults of a whole set.
func TestSet(t *testing.T) {
	rows := plainRows(t, 20)
	for _, c := range []struct {
		name    string
		change  func(rows []arrowset.Row) []arrowset.Row
		options Options
		set     string
		want    []Kind
		text    string
	}{
		{"unknown words", func(rows []arrowset.Row) []arrowset.Row {
			for i := range rows {
				rows[i].Captions = []arrowset.Caption{{Text: "ꦱꦸꦏꦸ" + string(rune('ꦏ'+i)) + " ꦗꦮ"}}
			}
			return rows
		}, Options{Tokenizer: tok(t)}, "set", []Kind{WordsUnknown}, "spelled nearly byte by byte"},
		{"no row of the recipe's split", nil, Options{Split: "training"}, "set", []Kind{SplitEmpty}, "split training"},
		{"no caption of the recipe's kinds", nil, Options{Split: "val", Admits: func(arrowset.Caption) bool { return false }}, "set", []Kind{CaptionNone}, "none of its 1 captions"},
		{"counts", nil, Options{}, "Flickr8k", []Kind{PublishedCount}, "split train has 16 pictures, flickr8k has 6000"},
		{"counts by name", nil, Options{Published: "coco2017"}, "set", []Kind{PublishedCount}, "118287"},
		{"one colour in two splits is no leak", func(rows []arrowset.Row) []arrowset.Row {
			var b bytes.Buffer
			require.NoError(t, png.Encode(&b, image.NewGray(image.Rect(0, 0, 20, 20))))
			rows[0].Image, rows[8].Image, rows[9].Image = b.Bytes(), b.Bytes(), b.Bytes()
			return rows
		}, Options{}, "set", []Kind{ImageOneColour}, "#000000"},
		{"all groups shared, by design", func(rows []arrowset.Row) []arrowset.Row {
			for i := range rows {
				rows[i].Group = "all"
			}
			return rows
		}, Options{}, "set", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows := slices.Clone(rows)
			if c.change != nil {
				rows = c.change(rows)
			}
			r, err := Run(t.Context(), write(t, arrowset.Manifest{Name: c.set}, rows), c.options)
			require.NoError(t, err)
			require.Equal(t, c.want, kindsOf(r), "%+v", r.Findings)
			var details strings.Builder
			for _, f := range r.Findings {
				details.WriteString(f.Detail + "\n")
			}
			require.Contains(t, details.String(), c.text)
		})
	}
}

// TestFiles holds the faults of the files: they are written by hand into a set that was sound.
func TestFiles(t *testing.T) {
	rows := plainRows(t, 20)
	for i := range rows { // of noise, which the file does not compress
		m, rng := image.NewRGBA(image.Rect(0, 0, 24, 24)), rand.New(rand.NewPCG(uint64(i), 0))
		for k := range m.Pix {
			m.Pix[k] = uint8(rng.Uint32()) | uint8(k%4/3*255)
		}
		var b bytes.Buffer
		require.NoError(t, png.Encode(&b, m))
		rows[i].Image = b.Bytes()
	}
	set := write(t, arrowset.Manifest{Name: "files"}, rows)
	manifest := filepath.Join(set.Path(), "manifest.json")
	text, err := os.ReadFile(manifest)
	require.NoError(t, err)

	t.Run("a split without rows", func(t *testing.T) {
		require.NoError(t, os.WriteFile(manifest, bytes.Replace(text, []byte(`"splits": {`), []byte(`"splits": {"exam": 0,`), 1), 0o644))
		again, err := arrowset.Open(set.Path())
		require.NoError(t, err)
		defer again.Close()
		r, err := Run(t.Context(), again, Options{})
		require.NoError(t, err)
		require.Equal(t, []Kind{SplitEmpty}, kindsOf(r))
		require.Equal(t, 1, r.Errors)
	})
	t.Run("a flipped bit", func(t *testing.T) {
		require.NoError(t, os.WriteFile(manifest, text, 0o644))
		shard := filepath.Join(set.Path(), set.Manifest().Shards[0].File)
		b, err := os.ReadFile(shard)
		require.NoError(t, err)
		image, err := set.Image(t.Context(), 3)
		require.NoError(t, err)
		at := bytes.Index(b, image)
		require.Positive(t, at)
		b[at+bytes.Index(image, []byte("IDAT"))+8] ^= 4
		require.NoError(t, os.WriteFile(shard, b, 0o644))
		again, err := arrowset.Open(set.Path())
		require.NoError(t, err)
		defer again.Close()
		r, err := Run(t.Context(), again, Options{})
		require.NoError(t, err)
		require.Contains(t, kindsOf(r), ShardChecksum)
		require.Equal(t, -1, r.Findings[0].Row)
		require.Equal(t, 3, r.Findings[1].Row)
	})
	t.Run("a set that does not open", func(t *testing.T) {
		require.NoError(t, os.WriteFile(manifest, text[:100], 0o644))
		_, err := arrowset.Open(set.Path())
		r := Unreadable(set.Path(), err)
		require.Equal(t, []Kind{SetUnreadable}, kindsOf(r))
		require.Equal(t, 1, r.Errors)
	})
}

func TestFix(t *testing.T) {
	rows := plainRows(t, 12)
	rows[1].Image = []byte("no picture")
	rows[2].Captions = append(rows[2].Captions, arrowset.Caption{})
	rows[3].Captions = []arrowset.Caption{{}, {Text: "\t"}}
	rows[4].Captions[0].Text = "donâ€™t"
	rows[5].Image, rows[5].Group = rows[9].Image, rows[9].Group // train and test
	m := arrowset.Manifest{Name: "n", Description: "d", Attributes: []string{}, Licenses: []arrowset.License{{Name: "MIT"}}}
	set := write(t, m, rows)
	r, err := Run(t.Context(), set, Options{})
	require.NoError(t, err)
	require.Equal(t, []Kind{ImageUnreadable, ImageLeak, CaptionEmpty, CaptionBlank, CaptionMojibake}, kindsOf(r))

	fix := func(also ...Kind) ([]Change, *arrowset.Set) {
		out := filepath.Join(t.TempDir(), "clean")
		changes, err := Fix(t.Context(), set, r, out, FixOptions{Also: also})
		require.NoError(t, err)
		clean, err := arrowset.Open(out)
		require.NoError(t, err)
		t.Cleanup(func() { clean.Close() })
		b, err := os.ReadFile(filepath.Join(out, FixesName))
		require.NoError(t, err)
		var listed []Change
		for line := range strings.Lines(string(b)) {
			var c Change
			require.NoError(t, json.Unmarshal([]byte(line), &c))
			listed = append(listed, c)
		}
		require.Equal(t, changes, listed)
		return changes, clean
	}
	changes, clean := fix()
	var did []string
	for _, c := range changes {
		did = append(did, c.Action+" "+strconv.Itoa(c.Row)+" "+strconv.Itoa(c.Caption)+" "+string(c.Kind))
	}
	require.Equal(t, []string{
		"left out 1 -1 image-undecodable", "left out 2 1 caption-empty",
		"left out 3 0 caption-empty", "left out 3 1 caption-blank", "left out 3 -1 caption-none", "left out 5 -1 image-two-splits",
	}, did)
	require.Equal(t, 9, clean.Len())
	require.Equal(t, "n", clean.Manifest().Name)
	require.Equal(t, m.Licenses, clean.Manifest().Licenses)
	require.Equal(t, rows[2].Captions[:1], clean.Captions(1))

	changes, clean = fix(CaptionMojibake)
	require.Equal(t, "donâ€™t", changes[4].Text+changes[5].Text)
	require.Equal(t, "don’t", clean.Captions(2)[0].Text)
	after, err := Run(t.Context(), clean, Options{})
	require.NoError(t, err)
	require.Empty(t, after.Findings)

	_, err = Fix(t.Context(), set, r, set.Path(), FixOptions{})
	require.ErrorIs(t, err, os.ErrExist)

	all := &Report{}
	for i, row := range set.Meta() {
		all.Findings = append(all.Findings, Finding{Kind: ImageUnreadable, Severity: Error, Row: i, ImageID: row.ImageID, Caption: -1})
	}
	none := filepath.Join(t.TempDir(), "none")
	_, err = Fix(t.Context(), set, all, none, FixOptions{})
	require.ErrorContains(t, err, "none of the 12 rows of n would be left; nothing was written")
	require.NoDirExists(t, none)
	require.Equal(t, 12, set.Len())
}

func TestStopped(t *testing.T) {
	set := write(t, arrowset.Manifest{Name: "n"}, plainRows(t, 12))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err := Run(ctx, set, Options{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = Fix(ctx, set, &Report{}, filepath.Join(t.TempDir(), "x"), FixOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestPublished(t *testing.T) {
	for _, c := range []struct {
		name   string
		splits map[string]int
		want   string
	}{
		{"flickr8k-128", map[string]int{"train": 6000}, "flickr8k"},
		{"Flickr_30k", map[string]int{"train": 29000, "val": 1014, "test": 1000}, "flickr30k-karpathy"},
		{"flickr30k", map[string]int{"all": 31783}, "flickr30k"},
		{"coco-2014", map[string]int{"train": 82783, "val": 40504}, "coco2014"},
		{"coco-2014", map[string]int{"train": 113287, "val": 5000, "test": 5000}, "coco2014-karpathy"},
		{"coco_2017", map[string]int{"val": 5000}, "coco2017"},
		{"my own", nil, ""},
	} {
		t.Run(c.name+" "+c.want, func(t *testing.T) {
			set := write(t, arrowset.Manifest{Name: c.name}, nil)
			set.Manifest().Splits = c.splits
			p, err := (&checker{set: set}).findPublished()
			require.NoError(t, err)
			if c.want == "" {
				require.Nil(t, p)
			} else {
				require.Equal(t, c.want, p.Name)
			}
		})
	}
	_, err := (&checker{set: write(t, arrowset.Manifest{}, nil), Options: Options{Published: "imagenet"}}).findPublished()
	require.ErrorContains(t, err, "known are flickr8k")
}

func TestKinds(t *testing.T) {
	seen := map[Kind]bool{}
	warned := false
	for _, k := range kinds {
		require.False(t, seen[k.kind], k.kind)
		seen[k.kind] = true
		require.NotEmpty(t, k.advice)
		warned = warned || k.severity == Warning
		require.Equal(t, warned, k.severity == Warning, "errors come first")
	}
	require.Len(t, Kinds(), len(seen))
}
