package convert

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// texts are captions without kind and language.
func texts(all ...string) (c []arrowset.Caption) {
	for _, text := range all {
		c = append(c, arrowset.Caption{Text: text})
	}
	return c
}

// row is a row whose picture put has made from its name.
func row(id, split string, captions ...string) arrowset.Row {
	return arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: id, Split: split}, Image: []byte(pic(id)), Captions: texts(captions...)}
}

func with(r arrowset.Row, change func(r *arrowset.Row)) arrowset.Row {
	change(&r)
	return r
}

// pictures puts pictures below a new folder.
func pictures(t testing.TB, names ...string) string {
	files := map[string]string{}
	for _, name := range names {
		files[name] = pic(name)
	}
	return put(t, files)
}

// TestFormats reads files as they are published, shortened, and compares every row.
func TestFormats(t *testing.T) {
	flickr := []arrowset.Row{
		row("1000092795.jpg", "train", "Two young guys with shaggy hair look at their hands .", "Two young , White males are outside near many bushes ."),
		row("10002456.jpg", "train", "Several men in hard hats are operating a giant pulley system ."),
		row("2199200615.jpg", "train", "A dog runs across the grass ."),
	}
	flickrDir := pictures(t, "1000092795.jpg", "10002456.jpg", "2199200615.jpg")
	lists := put(t, map[string]string{"train.txt": "1000092795.jpg\n", "test.txt": "10002456\r\n\r\n"})
	coco := pictures(t, "val2014/COCO_val2014_000000391895.jpg", "val2014/COCO_val2014_000000522418.jpg", "train2014/COCO_train2014_000000057870.jpg")
	karpathy := func(restval string) []arrowset.Row {
		return []arrowset.Row{
			row("val2014/COCO_val2014_000000391895.jpg", "test", "A man with a red helmet on a small moped on a dirt road.", "Man riding a motor bike on a dirt road on the countryside."),
			row("val2014/COCO_val2014_000000522418.jpg", restval, "A woman wearing a net on her head cutting a cake."),
			row("train2014/COCO_train2014_000000057870.jpg", "train", "a restaurant has modern wooden tables"),
		}
	}
	const bus, skirt = "http://lh6.ggpht.com/-IvRtNLNcG8o/TpFyrudaT6I/bus.jpg", "http://78.media.tumblr.com/3b133294bdc7c7784b781b45d06e0e42/tumblr.jpg?x=1"
	cc := func(first, second string) []arrowset.Row {
		return []arrowset.Row{
			with(row(first, "train", "a very typical bus station"), func(r *arrowset.Row) { r.Source = bus }),
			with(row(second, "train", `sierra looked stunning in this "top" and this skirt`), func(r *arrowset.Row) { r.Source = skirt }),
		}
	}
	sbu := []arrowset.Row{
		with(row("4385058960_b0f291553e.jpg", "train", "A wooden chair in the living room."), func(r *arrowset.Row) { r.Source = "http://static.flickr.com/2723/4385058960_b0f291553e.jpg" }),
		with(row("3183472382_156bcbc461.jpg", "train", "Interior design of modern living room"), func(r *arrowset.Row) { r.Source = "http://static.flickr.com/3348/3183472382_156bcbc461.jpg" }),
	}
	mapping := put(t, map[string]string{"names.tsv": bus + "\tone.png\n" + skirt + "\tsub/two.jpg\n"})
	table := []arrowset.Row{
		with(row("a.jpg", "train", "first, \"quoted\"\nline", "again"), func(r *arrowset.Row) {
			r.Group, r.Label, r.Source, r.Attributes = "g1", "cat", "me", []string{"red"}
		}),
		with(row("sub/b.jpg", "val", "größer"), func(r *arrowset.Row) { r.Attributes = []string{""} }),
	}
	columns := Columns{Image: "path", Captions: []string{"text"}, Split: "split", Group: "group", Label: "label", Source: "source", Others: []string{"colour"}}
	tables := put(t, map[string]string{
		// a byte order mark, line ends of Windows, a column more than wanted, and the second line of a.jpg far from the first
		"pairs.csv": "\ufeffpath,text,split,group,label,source,colour,more\r\na.jpg,\"first, \"\"quoted\"\"\nline\",train,g1,cat,me,red,1\r\n\r\n" +
			"sub/b.jpg,größer,val,,,,,2\r\n./a.jpg,again,train,g1,cat,me,red,3",
		"semicolon.csv": "0;text;colour\n1;caption; blue\n",
		"quotes.tsv":    "image\ttext\tcaption\na.jpg\t\"not quoted\tfive\" nails\n",
		"pairs.jsonl": `{"path":"a.jpg","text":["first, \"quoted\"\nline"],"split":"train","group":"g1","label":"cat","source":"me","colour":"red","x":{}}` + "\r\n\n" +
			`{"path":"sub/b.jpg","text":"gr\u00f6\u00dfer","split":"val","group":null}` + "\n" + `{"text":["again"],"path":"a.jpg","split":"train","group":"g1","label":"cat","source":"me","colour":"red"}`,
		"ids.jsonl": `{"image":"a.jpg","caption":"one","id":7}` + "\n" + `{"image":"a.jpg","caption":"two","id":8.50}`,
	})
	tableDir := pictures(t, "a.jpg", "sub/b.jpg", "1")
	side := put(t, map[string]string{"b.jpg": pic("b.jpg"), "b.txt": "\ufeffa dog\r\n\r\n  on grass \r\n", "a/z.PNG": pic("a/z.PNG"), "a/z.txt": "zebra", "readme.md": "x", ".hidden/x.jpg": ""})
	classes := put(t, map[string]string{"train/n01_x/1.jpg": pic("train/n01_x/1.jpg"), "train/grey_cat/deep/2.png": pic("train/grey_cat/deep/2.png"), "val/n01_x/3.jpg": pic("val/n01_x/3.jpg"),
		"names.txt": "n01_x tench, Tinca tinca\n"})
	require.NoError(t, os.Rename(filepath.Join(classes, "names.txt"), filepath.Join(mapping, "names.txt")))
	class := func(id, split, group, label string) arrowset.Row {
		return with(row(id, split, "a photo of a "+label+".", label), func(r *arrowset.Row) { r.Group, r.Label = group, label })
	}

	for _, c := range []struct {
		name string
		im   Importer
		want []arrowset.Row
	}{
		{"karpathy coco", Karpathy{Images: coco, File: "testdata/dataset_coco.json", Restval: "train"}, karpathy("train")},
		{"karpathy coco, restval kept", Karpathy{Images: coco, File: "testdata/dataset_coco.json", Restval: "restval"}, karpathy("restval")},
		{"karpathy coco, restval left out", Karpathy{Images: coco, File: "testdata/dataset_coco.json"}, append(karpathy("")[:1:1], karpathy("")[2])},
		{"karpathy flickr30k", Karpathy{Images: flickrDir, File: "testdata/dataset_flickr30k.json"}, []arrowset.Row{
			row("1000092795.jpg", "train", "Two young guys with shaggy hair look at their hands while hanging out in the yard.", "Two young, White males are outside near many bushes.")}},
		{"flickr30k token", Flickr{Images: flickrDir, Files: Files([]string{"testdata/results.token"}, "train")}, flickr},
		{"flickr30k results.csv", Flickr{Images: flickrDir, Files: Files([]string{"testdata/results.csv"}, "train")}, flickr},
		{"flickr30k captions.txt", Flickr{Images: flickrDir, Files: Files([]string{"testdata/captions.txt"}, "train")}, flickr},
		{"flickr30k with numbers", Flickr{Images: flickrDir, Files: Files([]string{"testdata/captions3.txt"}, "train")}, flickr},
		{"flickr30k lists", Flickr{Images: flickrDir, Files: Files([]string{"testdata/results.token"}, "x"), Lists: Files([]string{"train=" + lists + "/train.txt", "test=" + lists + "/test.txt"}, "")},
			[]arrowset.Row{flickr[0], with(flickr[1], func(r *arrowset.Row) { r.Split = "test" })}},
		{"flickr30k lists and the rest", Flickr{Images: flickrDir, Files: Files([]string{"testdata/results.token"}, "x"), Lists: Files([]string{"train=" + lists + "/train.txt"}, ""), Rest: "rest"},
			[]arrowset.Row{flickr[0], with(flickr[1], func(r *arrowset.Row) { r.Split = "rest" }), with(flickr[2], func(r *arrowset.Row) { r.Split = "rest" })}},
		{"cc by row", CC{Images: pictures(t, "00/000000000.jpg", "00/000000001"), Files: Files([]string{"testdata/cc.tsv"}, "train"), Names: Names{Pattern: "00/{row:9}.*"}},
			[]arrowset.Row{with(cc("00/000000000.*", "")[0], func(r *arrowset.Row) { r.Image = []byte(pic("00/000000000.jpg")) }),
				with(cc("", "00/000000001.*")[1], func(r *arrowset.Row) { r.Image = []byte(pic("00/000000001")) })}},
		{"cc by crc32", CC{Images: pictures(t, "0_1190181928", "1_1246386508"), Files: Files([]string{"testdata/cc.tsv"}, "train"), Names: Names{Pattern: "{row}_{crc32}"}}, cc("0_1190181928", "1_1246386508")},
		{"cc by mapping", CC{Images: pictures(t, "one.png", "sub/two.jpg"), Files: Files([]string{"testdata/cc.tsv"}, "train"), Names: Names{Mapping: mapping + "/names.tsv"}}, cc("one.png", "sub/two.jpg")},
		{"cc12m", CC{Images: pictures(t, "049781077fdcd8bb92da7962667b55a3"), Files: Files([]string{"val=testdata/cc12m.tsv"}, "train"), Names: Names{Pattern: "{md5}"}}, []arrowset.Row{
			with(row("049781077fdcd8bb92da7962667b55a3", "val", "Metal Design Within Reach Ivory Slipper Chairs"), func(r *arrowset.Row) { r.Source = "https://chart.googleapis.com/chart?chs=455" })}},
		{"sbu json", SBU{Images: pictures(t, sbu[0].ImageID, sbu[1].ImageID), File: "testdata/sbu.json", Split: "train", Names: Names{Pattern: "{base}"}}, sbu},
		{"sbu lists", SBU{Images: pictures(t, sbu[0].ImageID, sbu[1].ImageID), URLs: "testdata/sbu_urls.txt", Captions: "testdata/sbu_captions.txt", Split: "train", Names: Names{Pattern: "{base}"}}, sbu},
		{"sbu names", SBU{Images: pictures(t, "0000/0000001", "0000/0000002"), File: "testdata/sbu_annot.json", Split: "train", Names: Names{Pattern: "{name:4}/{name}"}},
			[]arrowset.Row{row("0000/0000001", "train", "A wooden chair in the living room."), row("0000/0000002", "train", "Interior design of modern living room")}},
		{"vg", VG{Images: []string{pictures(t, "1.jpg"), pictures(t, "2.jpg")}, File: "testdata/region_descriptions.json", Split: "train"},
			[]arrowset.Row{row("1.jpg", "train", "the clock is green in colour", "shade is along the street"), row("2.jpg", "train", "walk sign is lit up")}},
		{"csv", CSV{Images: tableDir, Files: Files([]string{tables + "/pairs.csv"}, ""), Columns: columns}, table},
		{"csv with a header of its own", CSV{Images: tableDir, Files: Files([]string{tables + "/semicolon.csv"}, "s"), Delimiter: ";", Header: []string{"image", "caption", "c"},
			Columns: Columns{Image: "image", Captions: []string{"caption"}}}, nil},
		{"tsv without quotes", CSV{Images: tableDir, Files: Files([]string{tables + "/quotes.tsv"}, "s"), Delimiter: "\t", NoQuotes: true, Columns: Columns{Image: "image", Captions: []string{"caption", "text"}}},
			[]arrowset.Row{with(row("a.jpg", "s"), func(r *arrowset.Row) {
				r.Captions = []arrowset.Caption{{Text: `five" nails`, Kind: "caption"}, {Text: `"not quoted`, Kind: "text"}}
			})}},
		{"csv of two files", CSV{Images: tableDir, Files: Files([]string{tables + "/pairs.csv", tables + "/pairs.csv"}, ""), Columns: Columns{Image: "path", Captions: []string{"text"}, ID: "text", Split: "split"}},
			[]arrowset.Row{
				with(row("first, \"quoted\"\nline", "train", "first, \"quoted\"\nline", "first, \"quoted\"\nline"), func(r *arrowset.Row) { r.Image = []byte(pic("a.jpg")) }),
				with(row("größer", "val", "größer", "größer"), func(r *arrowset.Row) { r.Image = []byte(pic("sub/b.jpg")) }),
				with(row("again", "train", "again", "again"), func(r *arrowset.Row) { r.Image = []byte(pic("a.jpg")) })}},
		{"jsonl", JSONL{Images: tableDir, Files: Files([]string{tables + "/pairs.jsonl"}, ""), Columns: columns}, table},
		{"jsonl with ids", JSONL{Images: tableDir, Files: Files([]string{tables + "/ids.jsonl"}, "s"), Columns: Columns{Image: "image", Captions: []string{"caption"}, ID: "id"}}, []arrowset.Row{
			with(row("7", "s", "one"), func(r *arrowset.Row) { r.Image = []byte(pic("a.jpg")) }), with(row("8.50", "s", "two"), func(r *arrowset.Row) { r.Image = []byte(pic("a.jpg")) })}},
		{"folder", Folder{Folders: Files([]string{side}, "train")}, []arrowset.Row{row("a/z.PNG", "train", "zebra"), row("b.jpg", "train", "a dog", "on grass")}},
		{"two folders", Folder{Folders: Files([]string{"train=" + side + "/a", "val=" + side}, "")}, []arrowset.Row{
			with(row("train/z.PNG", "train", "zebra"), func(r *arrowset.Row) { r.Image = []byte(pic("a/z.PNG")) }),
			with(row("val/a/z.PNG", "val", "zebra"), func(r *arrowset.Row) { r.Image = []byte(pic("a/z.PNG")) }),
			with(row("val/b.jpg", "val", "a dog", "on grass"), func(r *arrowset.Row) { r.Image = []byte(pic("b.jpg")) })}},
		{"classes", ClassFolders{Folders: Files([]string{classes}, ""), Templates: []string{"a photo of a {}.", "{}"}, Names: mapping + "/names.txt"}, []arrowset.Row{
			class("train/grey_cat/deep/2.png", "train", "grey_cat", "grey cat"), class("train/n01_x/1.jpg", "train", "n01_x", "tench"), class("val/n01_x/3.jpg", "val", "n01_x", "tench")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			var last Progress
			result, err := Run(ctx, c.im, Options{Out: out, Progress: func(p Progress) { last = p }})
			if c.want == nil {
				require.ErrorContains(t, err, `semicolon.csv:1: bad input: picture 0 is missing`)
				return
			}
			require.NoError(t, err)
			rows, m := all(t, out)
			for i := range c.want {
				if c.want[i].Attributes == nil {
					c.want[i].Attributes = []string{}
				}
			}
			require.Equal(t, c.want, rows)
			require.Equal(t, Result{Rows: len(c.want)}, result)
			if last.Total > 0 {
				require.Equal(t, len(c.want), last.Total, "the total that was promised")
			}
			require.InDelta(t, 1, last.Part, 0.4) // a reader is some bytes short of the file's end
			if c.name == "classes" {
				require.Equal(t, []arrowset.ClassSystem{{Name: "class", Column: "group", Templates: []string{"a photo of a {}.", "{}"},
					Classes: []arrowset.Class{{ID: "grey_cat", Text: "grey cat"}, {ID: "n01_x", Text: "tench"}}}}, m.Classes)
			}
		})
	}
}

// TestCrop cuts regions out of a picture of four colours.
func TestCrop(t *testing.T) {
	im := image.NewRGBA(image.Rect(0, 0, 40, 20))
	for y := range 20 {
		for x := range 40 {
			im.SetRGBA(x, y, color.RGBA{uint8(x / 20 * 200), uint8(y / 10 * 200), 40, 255})
		}
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, im))
	dir := put(t, map[string]string{"1.jpg": b.String(), "2.jpg": pic("no picture"),
		"regions.json": `[{"id":1,"regions":[{"region_id":5,"x":0,"y":0,"width":10,"height":8,"phrase":"black"},{"region_id":6,"x":24,"y":12,"width":99,"height":99,"phrase":"yellow"},
			{"region_id":7,"x":40,"y":0,"width":5,"height":5,"phrase":"outside"},{"region_id":8,"x":0,"y":0,"width":0,"height":5,"phrase":"none"}]},
			{"id":2,"regions":[{"region_id":9,"x":0,"y":0,"width":5,"height":5,"phrase":"broken"}]}]`})
	out := filepath.Join(t.TempDir(), "out")
	result, err := Run(ctx, VG{Images: []string{dir}, File: dir + "/regions.json", Split: "train", Crop: true}, Options{Out: out, OnBad: Skip})
	require.NoError(t, err)
	require.Equal(t, Result{Rows: 2, Skipped: 3}, result)
	rows, m := all(t, out)
	require.Equal(t, []string{"picture"}, m.Attributes)
	for i, want := range []struct {
		id, text string
		w, h     int
		colour   color.RGBA
	}{{"1_5.jpg", "black", 10, 8, color.RGBA{0, 0, 40, 255}}, {"1_6.jpg", "yellow", 16, 8, color.RGBA{200, 200, 40, 255}}} {
		require.Equal(t, arrowset.RowMeta{ImageID: want.id, Split: "train", Attributes: []string{"1"}}, rows[i].RowMeta)
		require.Equal(t, texts(want.text), rows[i].Captions)
		cut, err := jpeg.Decode(bytes.NewReader(rows[i].Image))
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, want.w, want.h), cut.Bounds())
		got := color.RGBAModel.Convert(cut.At(want.w/2, want.h/2)).(color.RGBA)
		require.InDelta(t, want.colour.R, got.R, 6) // JPEG of quality 95
		require.InDelta(t, want.colour.G, got.G, 6)
	}
	list, err := os.ReadFile(filepath.Join(out, SkippedName))
	require.NoError(t, err)
	for i, want := range []string{"outside of picture 1.jpg of 40×20", "regions.json: [0]: regions[3]", "picture 2.jpg"} {
		require.Contains(t, strings.Split(string(list), "\n")[i], want)
	}
}

// TestBadInput wants the file and the line or record in every message.
func TestBadInput(t *testing.T) {
	file := func(text string) string { return put(t, map[string]string{"in": text}) + "/in" }
	dir := pictures(t, "a.jpg", "b.jpg")
	plain := Columns{Image: "image", Captions: []string{"caption"}}
	csv := func(text string) Importer {
		return CSV{Images: dir, Files: Files([]string{file(text)}, "s"), Columns: plain}
	}
	jsonl := func(text string) Importer {
		return JSONL{Images: dir, Files: Files([]string{file(text)}, "s"), Columns: plain}
	}
	flickr := func(text string) Importer { return Flickr{Images: dir, Files: Files([]string{file(text)}, "s")} }
	cc := func(text string) Importer {
		return CC{Images: dir, Files: Files([]string{file(text)}, "s"), Names: Names{Pattern: "a.jpg"}}
	}
	karpathy := func(images string) Importer {
		return Karpathy{Images: dir, File: file(`{"images":[` + images + `],"dataset":"coco"}`)}
	}
	vg := func(text string) Importer { return VG{Images: []string{dir}, File: file(text)} }
	const head = "image,caption\n"
	for _, c := range []struct {
		name string
		im   Importer
		want string
	}{
		{"csv: no such file", CSV{Images: dir, Files: []File{{"s", "gone.csv"}}, Columns: plain}, "gone.csv"},
		{"csv: no file", CSV{Images: dir, Columns: plain}, "no file is named"},
		{"csv: no folder", CSV{Images: dir + "/none", Files: []File{{"s", file(head)}}, Columns: plain}, "none"},
		{"csv: no columns", CSV{Images: dir, Files: []File{{"s", file(head)}}}, "columns of the picture"},
		{"csv: empty", csv(""), "in: bad input: the first line must name the columns"},
		{"csv: only a header", csv(head), "no record"},
		{"csv: column missing", csv("image,text\na.jpg,x\n"), `in: bad input: there is no column "caption" for the caption; the columns are ["image" "text"]`},
		{"csv: column twice", csv("image,caption,image\na.jpg,x,y\n"), `two columns "image"`},
		{"csv: delimiter", CSV{Images: dir, Files: []File{{"s", file(head)}}, Columns: plain, Delimiter: "::"}, `"::"`},
		{"csv: cell missing", csv(head + "a.jpg,x\nb.jpg\n"), "in:3: bad input: 1 cells stand where there are 2 columns"},
		{"csv: cell too many", csv(head + "a.jpg,x,y\n"), "in:2: bad input: 3 cells"},
		{"csv: quote open", csv(head + "a.jpg,\"x\nb.jpg,y\n"), "in:2: bad input: a quotation mark is opened and never closed"},
		{"csv: text behind a quote", csv(head + "a.jpg,\"x\"y\n"), `in:2: bad input: "y" stands behind the closing quotation mark of cell 2`},
		{"csv: empty caption", csv(head + "a.jpg, \n"), "in:2: bad input: column caption: the caption is empty"},
		{"csv: no picture", csv(head + ",x\n"), `in:2: column image: bad input: ""`},
		{"csv: picture outside", csv(head + "../a.jpg,x\n"), `in:2: column image: bad input: "../a.jpg"`},
		{"csv: absolute outside", csv(head + "/a.jpg,x\n"), "in:2: column image"},
		{"csv: picture missing", csv(head + "a.jpg,x\nc.jpg,x\n"), "in:3: bad input: picture c.jpg is missing"},
		{"csv: Latin-1", csv(head + "a.jpg,caf\xe9\n"), "in:2: bad input: arrowset: row 0 (a.jpg)"},
		{"csv: UTF-16", csv("\xff\xfei\x00m\x00"), "in: bad input: it is UTF-16"},
		{"csv: long line", csv(head + "a.jpg," + strings.Repeat("x", maxLine) + "\n"), "in:2: bad input: the line has more than"},
		{"csv: long record", csv(head + "a.jpg,\"" + strings.Repeat(strings.Repeat("x", 1023)+"\n", maxLine>>10) + "\"\n"), "in:2: bad input: a quotation mark"},
		{"csv: splits differ", CSV{Images: dir, Files: []File{{"s", file("image,caption,split\na.jpg,x,train\na.jpg,y,val\n")}}, Columns: Columns{Image: "image", Captions: []string{"caption"}, Split: "split"}},
			`in:3: bad input: picture a.jpg has split "val" here and "train" at`},
		{"csv: splits differ in two files", CSV{Images: dir, Files: []File{{"train", file(head + "a.jpg,x\n")}, {"val", file(head + "b.jpg,y\na.jpg,z\n")}}, Columns: plain}, `in:3: bad input: picture a.jpg has split "val" here and "train" at`},
		{"csv: empty split", CSV{Images: dir, Files: []File{{"s", file("image,caption,split\na.jpg,x,\n")}}, Columns: Columns{Image: "image", Captions: []string{"caption"}, Split: "split"}}, "in:2: bad input: column split is empty"},
		{"jsonl: no JSON", jsonl("{\"image\":\"a.jpg\",\"caption\":\"x\"}\nimage,caption\n"), "in:2: bad input: it is not a JSON object"},
		{"jsonl: cut", jsonl(`{"image":"a.jpg","capt`), "in:1: bad input: it is not a JSON object: unexpected end"},
		{"jsonl: no caption", jsonl(`{"image":"a.jpg"}`), "in:1: bad input: column caption: the caption is empty"},
		{"jsonl: caption is an object", jsonl(`{"image":"a.jpg","caption":{"en":"x"}}`), `in:1: bad input: caption: {"en":"x"} is neither`},
		{"jsonl: not UTF-8", jsonl("{\"image\":\"a.jpg\",\"caption\":\"\xff\"}"), "in:1: bad input: it is not a JSON object: not UTF-8"},
		{"flickr30k: no tab", flickr("a.jpg#0\tx\nb.jpg#0 y\n"), `in:2: bad input: it must be IMAGE#NUMBER, a tab, and the caption, not "b.jpg#0 y"`},
		{"flickr30k: no number", flickr("a.jpg\tx\n"), "in:1: bad input: it must be IMAGE#NUMBER"},
		{"flickr30k: no caption", flickr("a.jpg#0\t\n"), "in:1: bad input: it must be IMAGE#NUMBER"},
		{"flickr30k: bars", flickr("image_name| comment_number| comment\na.jpg x\n"), "in:2: bad input: it must be IMAGE| NUMBER| CAPTION"},
		{"flickr30k: table", flickr("image,caption\na.jpg\n"), "in:2: bad input: 1 cells"},
		{"flickr30k: two lists", Flickr{Images: dir, Files: Files([]string{file("a.jpg#0\tx\n")}, "s"), Lists: []File{{"train", file("a.jpg\n")}, {"val", file("b.jpg\na.jpg\n")}}}, "in:2: bad input: picture a is also in the list of split train"},
		{"cc: no tab", cc("a caption\n"), "in:1: bad input: it must be a caption, a tab, and an address"},
		{"cc: no address", cc("a caption\tb\n"), `in:1: bad input: "b" is not an address`},
		{"cc: no caption", cc("\thttp://x\n"), "in:1: bad input: the caption is empty"},
		{"cc: pattern", CC{Images: dir, Files: Files([]string{file("")}, "s"), Names: Names{Pattern: "{rows}"}}, `names "{rows}"`},
		{"cc: pattern not closed", CC{Images: dir, Files: Files([]string{file("")}, "s"), Names: Names{Pattern: "x{row"}}, `{row is none of`},
		{"cc: mapping", CC{Images: dir, Files: Files([]string{file("x\thttp://y\n")}, "s"), Names: Names{Mapping: file("http://x a.jpg\n")}}, "in:1: bad input: it must be ADDRESS, a tab"},
		{"cc: not in mapping", CC{Images: dir, Files: Files([]string{file("x\thttp://y\n")}, "s"), Names: Names{Mapping: file("http://x\ta.jpg\n")}}, "in:1: bad input: http://y is not in"},
		{"sbu: nothing", SBU{Images: dir}, "either a JSON file or the two lists"},
		{"sbu: no list", SBU{Images: dir, File: file(`{"captions":[]}`)}, `in: bad input: it has no array "image_urls"`},
		{"sbu: lists of two lengths", SBU{Images: dir, Split: "s", URLs: file("http://x\n"), Captions: file("x\ny\n"), Names: Names{Pattern: "a.jpg"}}, "one list ends at"},
		{"sbu: caption is a number", SBU{Images: dir, Split: "s", File: file(`{"image_urls":["http://x"],"captions":[7]}`)}, "in: captions[0]: bad input: the value is a JSON number, it must be a text"},
		{"sbu: three texts", SBU{Images: dir, Split: "s", File: file(`[["a","b","c"]]`)}, "in: [0]: bad input: it must be [NAME, CAPTION], not 3 texts"},
		{"karpathy: no images", Karpathy{Images: dir, File: file(`{"dataset":"x"}`)}, `in: bad input: it has no array "images"`},
		{"karpathy: cut", Karpathy{Images: dir, File: file(`{"images":[{"filename":"a.jpg"`)}, "in: images[0]: bad input: the file ends in the middle"},
		{"karpathy: cut behind", Karpathy{Images: dir, File: file(`{"images":[{"filename":"a.jpg","split":"s","sentences":[{"raw":"x"}]}],`)}, "in: bad input: the file ends"},
		{"karpathy: no split", karpathy(`{"filename":"a.jpg","sentences":[{"raw":"x"}]}`), "in: images[0]: bad input: a.jpg has no split"},
		{"karpathy: no name", karpathy(`{"filepath":"val2014"}`), `in: images[0]: bad input: filename ""`},
		{"karpathy: no sentences", karpathy(`{"filename":"a.jpg","split":"s"}`), "in: images[0]: bad input: a.jpg has no sentences"},
		{"karpathy: twice", karpathy(`{"filename":"a.jpg","split":"s","sentences":[{"raw":"x"}]},{"filename":"./a.jpg","split":"s","sentences":[{"raw":"y"}]}`), "in: images[1]: bad input: picture a.jpg was there before"},
		{"vg: an object", vg(`{}`), "in: bad input: near byte 0: '{' stands where '[' must"},
		{"vg: no id", vg(`[{"regions":[{"phrase":"x"}]}]`), "in: [0]: bad input: it has no id"},
		{"vg: no regions", vg(`[{"id":1}]`), "in: [0]: bad input: picture 1 has no regions"},
		{"vg: empty phrase", vg(`[{"id":1,"regions":[{"phrase":"x"},{"phrase":" "}]}]`), "in: [0]: bad input: regions[1]: the phrase is empty"},
		{"vg: no picture", vg(`[{"id":1,"regions":[{"phrase":"x"}]}]`), "in: [0]: bad input: picture 1.jpg is missing"},
		{"folder: no text", Folder{Folders: Files([]string{dir}, "s")}, "a.jpg: bad input: its text"},
		{"folder: no picture", Folder{Folders: Files([]string{put(t, map[string]string{"x.txt": "x"})}, "s")}, "x.txt: bad input: there is no picture"},
		{"folder: empty text", Folder{Folders: Files([]string{put(t, map[string]string{"x.jpg": pic("x"), "x.txt": "\n"})}, "s")}, "x.txt: bad input: it holds no caption"},
		{"classes: no classes", ClassFolders{Folders: Files([]string{dir}, "")}, "are the classes, give train=" + dir},
		{"classes: picture beside", ClassFolders{Folders: Files([]string{"s=" + put(t, map[string]string{"x.jpg": pic("x"), "cat/y.jpg": pic("y")})}, "")}, "x.jpg: bad input: the picture lies in no folder of a class"},
		{"classes: template", ClassFolders{Folders: Files([]string{dir}, ""), Templates: []string{"a photo"}}, `template "a photo" has no {}`},
		{"classes: names", ClassFolders{Folders: Files([]string{dir}, ""), Names: file("x y\nz\n")}, "in:2: bad input: it must be a folder and the name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Run(ctx, c.im, Options{Out: filepath.Join(t.TempDir(), "out")})
			require.ErrorContains(t, err, c.want)
			require.True(t, errors.Is(err, ErrInput) || errors.Is(err, os.ErrNotExist), "%v", err)
		})
	}
}

// FuzzCSV compares with what was meant: cells written by the rules come back, and no input hangs or panics.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("a,b\n\"c\"\"d\ne\",f\r\n\n\"open,x\ny,\"z\"w\n,"), byte(','), true)
	f.Add([]byte("\ufeffa\tb\n"), byte('\t'), false)
	f.Fuzz(func(t *testing.T, b []byte, delimiter byte, quotes bool) {
		l, err := newLines("f", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			require.ErrorIs(t, err, ErrInput)
			return
		}
		r := &csvReader{lines: l, delimiter: delimiter, quotes: quotes}
		var rows [][]string
		for last := 0; ; {
			cells, line, err := r.next()
			if err == io.EOF {
				break
			}
			require.Greater(t, line, last, "lines go on")
			last = line
			if err != nil {
				require.IsType(t, &RecordError{}, err)
				require.ErrorContains(t, err, fmt.Sprintf("f:%d: ", line))
				continue
			}
			rows = append(rows, append([]string{}, cells...))
		}
		if !quotes || delimiter == '"' || delimiter == '\n' || delimiter == '\r' {
			return
		}
		var again strings.Builder
		for _, cells := range rows {
			for i, cell := range cells {
				if i > 0 {
					again.WriteByte(delimiter)
				}
				again.WriteString(`"` + strings.ReplaceAll(cell, `"`, `""`) + `"`)
			}
			again.WriteByte('\n')
		}
		l, err = newLines("f", strings.NewReader(again.String()), int64(again.Len()))
		require.NoError(t, err)
		r = &csvReader{lines: l, delimiter: delimiter, quotes: true}
		for _, want := range rows {
			cells, _, err := r.next()
			require.NoError(t, err)
			require.Equal(t, want, cells)
		}
	})
}

// textSeeds are files of every format that is text.
func textSeeds(t testing.TB) (files [][]byte) {
	for _, name := range []string{"dataset_coco.json", "results.token", "results.csv", "captions.txt", "captions3.txt", "cc.tsv", "sbu.json", "sbu_annot.json", "region_descriptions.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		files = append(files, b)
	}
	return append(files, []byte("image,caption\na,b\n\"a,b\nc,d\na,e\n"),
		[]byte("{\"image\":\"a\",\"caption\":[\"b\"]}\n{\"caption\":\"b\",\"image\":\"c\"}\n{\"image\":\"a\",\"caption\":7}\n"))
}

// readTexts feeds every parser of texts with b; each must come to an end, and name the file in what it says.
func readTexts(t testing.TB, dir string, b []byte) {
	name := filepath.Join(dir, "input")
	require.NoError(t, os.WriteFile(name, b, 0o644))
	files := []File{{"s", name}}
	plain := Columns{Image: "image", Captions: []string{"caption"}}
	for _, im := range []Importer{
		CSV{Images: dir, Files: files, Columns: plain},
		CSV{Images: dir, Files: files, Delimiter: "\t", NoQuotes: true, Header: []string{"image", "caption"}, Columns: plain},
		JSONL{Images: dir, Files: files, Columns: plain},
		Flickr{Images: dir, Files: files}, CC{Images: dir, Files: files, Names: Names{Pattern: "{row}"}}, CC{Images: dir, Files: files, Names: Names{Mapping: name}},
		SBU{Images: dir, File: name, Split: "s"}, SBU{Images: dir, URLs: name, Captions: name, Split: "s"},
		Karpathy{Images: dir, File: name, Restval: "train"}, VG{Images: []string{dir}, File: name}, VG{Images: []string{dir}, File: name, Crop: true},
	} {
		src, err := im.Open(ctx, &Options{})
		for records := 0; err == nil; records++ {
			require.LessOrEqual(t, records, len(b)+1)
			var rec *Record
			rec, err = src.Next()
			if bad := (*RecordError)(nil); errors.As(err, &bad) {
				require.Contains(t, bad.Where, name)
				err = nil
			} else if err == nil {
				require.Contains(t, rec.Where, name)
				require.True(t, filepath.IsLocal(rec.Row.ImageID), rec.Row.ImageID)
			}
		}
		if src != nil {
			require.NoError(t, src.Close())
		}
		if err != io.EOF {
			require.ErrorIs(t, err, ErrInput)
			require.ErrorContains(t, err, name)
		}
	}
}

func FuzzSources(f *testing.F) {
	for _, b := range textSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { readTexts(t, t.TempDir(), b) })
}

// TestDamagedTexts reads damaged files with every parser of texts, and damaged captions files with COCO's.
func TestDamagedTexts(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 2))
	files, dir := textSeeds(t), t.TempDir()
	for i := range mutations() {
		readTexts(t, dir, mutate(rng, files[i%len(files)]))
		readCOCO(t, mutate(rng, []byte(cocoSeed)))
	}
}
