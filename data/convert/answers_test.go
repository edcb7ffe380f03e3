package convert

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// Files in the form of VQA v2's (visualqa.org/vqa_v2_teaser.html): questions of one picture lie apart, annotations are in another order.
const (
	vqaQuestions = `{"info":{"year":2017},"task_type":"Open-Ended","data_type":"mscoco","license":{"url":"x"},"questions":[
{"image_id":458752,"question":"What is this photo taken looking through?","question_id":458752000},
{"image_id":9,"question":"What color are the dishes?","question_id":9002},
{"image_id":458752,"question":"What position is this man playing?","question_id":458752001}],"data_subtype":"train2014"}`
	vqaAnnotations = `{"info":{},"data_subtype":"train2014","annotations":[
{"question_type":"what color","multiple_choice_answer":"pink and yellow","answers":[{"answer":"pink and yellow","answer_confidence":"yes","answer_id":1},{"answer":" pink\nyellow","answer_confidence":"maybe","answer_id":2}],"image_id":9,"answer_type":"other","question_id":9002},
{"question_type":"what is this","multiple_choice_answer":"net","answers":[{"answer":"net","answer_confidence":"maybe","answer_id":1},{"answer":"net","answer_confidence":"yes","answer_id":2},{"answer":"mesh","answer_id":3}],"image_id":458752,"answer_type":"other","question_id":458752000},
{"answers":[{"answer":"pitcher"}],"answer_type":"other","question_id":458752001}]}`
	vqaTest = `{"data_subtype":"test-dev2015","questions":[{"image_id":1,"question":"Is the ball flying towards the batter?","question_id":1000}]}`

	nlvr2Lines = `{"validation": {"2": "True"}, "sentence": "An image shows one leather pencil case.", "left_url": "https://x/1", "writer": 19, "label": "False", "right_url": "https://x/2", "synset": "pencilbox", "query": "pencil cases7", "identifier": "train-10171-0-0", "extra_validations": {"2": "False"}, "directory": 70}
{"sentence": "There is one case.", "label": "True", "identifier": "dev-850-0-1"}

{"sentence": "At least two are open.", "label": "True", "identifier": "train-10171-0-1", "directory": 70}
`
	nlvrLines = `{"sentence": "There is a box with 4 items.", "evals": {"r0": "true"}, "directory": "14", "identifier": "4020-0", "label": "true", "structured_rep": [[{"y_loc": 21, "type": "square", "color": "Yellow", "x_loc": 9, "size": 20}],[],[]]}
{"sentence": "There is no box.", "identifier": "4020-1", "label": "false"}
`
	snliLines = `{"annotator_labels": ["contradiction"], "captionID": "4705552913.jpg#2", "gold_label": "contradiction", "pairID": "4705552913.jpg#2r1c", "sentence1": "Two women are embracing.", "sentence2": "The sisters are hugging goodbye.", "Flickr30K_ID": "4705552913"}
{"gold_label": "entailment", "sentence2": "Two woman are holding packages.", "Flickr30K_ID": "4705552913"}
{"gold_label": "neutral", "sentence2": "A man sells donuts.", "Flikr30kID": "2407214681.jpg"}
`
)

func said(text, kind, answer string) arrowset.Caption {
	return arrowset.Caption{Text: text, Kind: kind, Lang: "en", Answer: answer}
}

// answerRows imports and returns the rows, with their second pictures.
func answerRows(t *testing.T, im Importer) []arrowset.Row {
	out := filepath.Join(t.TempDir(), "out")
	_, err := Run(ctx, im, Options{Out: out})
	require.NoError(t, err)
	rows, m := all(t, out)
	require.True(t, m.Has(arrowset.ColCaptionAnswer))
	set, err := arrowset.Open(out)
	require.NoError(t, err)
	defer set.Close()
	for i := range rows {
		if rows[i].Attributes = nil; set.HasSecond(i) {
			rows[i].Second, err = set.Second(ctx, i)
			require.NoError(t, err)
		}
	}
	return rows
}

func TestAnswerFormats(t *testing.T) {
	files := put(t, map[string]string{"q.json": vqaQuestions, "a.json": vqaAnnotations, "t.json": vqaTest, "train.json": nlvr2Lines, "dev.json": nlvrLines, "snli_ve_test.jsonl": snliLines})
	coco := pictures(t, "COCO_train2014_000000458752.jpg", "COCO_train2014_000000000009.jpg", "COCO_test2015_000000000001.jpg")
	asked := func(id, split string, captions ...arrowset.Caption) arrowset.Row {
		return with(row(id, split), func(r *arrowset.Row) { r.Captions = captions })
	}
	man, dishes, ball := "COCO_train2014_000000458752.jpg", "COCO_train2014_000000000009.jpg", "COCO_test2015_000000000001.jpg"
	vqa := []arrowset.Row{
		asked(man, "train", said("What is this photo taken looking through?", "other", "net\nnet\nmesh"), said("What position is this man playing?", "other", "pitcher")),
		asked(dishes, "train", said("What color are the dishes?", "other", "pink and yellow\npink yellow")),
	}
	test := asked(ball, "test", said("Is the ball flying towards the batter?", "", ""))
	for _, order := range [][]string{{"q", "a", "t"}, {"a", "q", "t"}} {
		var args []string
		for _, name := range order {
			args = append(args, filepath.Join(files, name+".json"))
		}
		require.Equal(t, append(vqa[:2:2], test), answerRows(t, VQA{Images: coco, Files: Files(args, ""), Pattern: "COCO_{subtype}_{id:12}.jpg"}))
	}
	flat := pictures(t, "9.jpg", "458752.jpg")
	rows := answerRows(t, VQA{Images: flat, Files: Files([]string{"mine=" + filepath.Join(files, "q.json")}, ""), Pattern: "{id}.*"})
	require.Equal(t, []string{"mine", "mine"}, []string{rows[0].Split, rows[1].Split})
	require.Equal(t, []byte(pic("458752.jpg")), rows[0].Image)

	pairs := pictures(t, "train/70/train-10171-0-img0.png", "train/70/train-10171-0-img1.png", "dev/dev-850-0-img0.png", "dev/dev-850-0-img1.png")
	pair := func(id, dir string, captions ...arrowset.Caption) arrowset.Row {
		return arrowset.Row{RowMeta: arrowset.RowMeta{ImageID: id, Split: "train", Group: id[:len(id)-2]}, Image: []byte(pic(dir + id + "-img0.png")), Second: []byte(pic(dir + id + "-img1.png")), Captions: captions}
	}
	require.Equal(t, []arrowset.Row{
		pair("train-10171-0", "train/70/", arrowset.Caption{Text: "An image shows one leather pencil case.", Answer: "False"}, arrowset.Caption{Text: "At least two are open.", Answer: "True"}),
		pair("dev-850-0", "dev/", arrowset.Caption{Text: "There is one case.", Answer: "True"}),
	}, answerRows(t, NLVR2{Images: pairs, Files: Files([]string{filepath.Join(files, "train.json")}, ""), Pattern: "{split}/{directory}/{pair}-img{n}.png"}))

	var drawings []string
	for _, k := range []string{"0", "1", "2", "3", "4", "5"} {
		drawings = append(drawings, "dev/images/14/dev-4020-0-"+k+".png", "dev/images/dev-4020-1-"+k+".png")
	}
	rows = answerRows(t, NLVR{Images: pictures(t, drawings...), Files: Files([]string{filepath.Join(files, "dev.json")}, ""), Pattern: "{split}/images/{directory}/{split}-{identifier}-{n}.png"})
	require.Len(t, rows, 12)
	require.Equal(t, with(row(drawings[10], "dev"), func(r *arrowset.Row) {
		r.Group, r.Captions = "dev-4020", []arrowset.Caption{{Text: "There is a box with 4 items.", Answer: "True"}}
	}), rows[5])
	require.Equal(t, "False", rows[6].Captions[0].Answer)

	require.Equal(t, []arrowset.Row{
		with(row("4705552913.jpg", "test"), func(r *arrowset.Row) {
			r.Captions = []arrowset.Caption{{Text: "The sisters are hugging goodbye.", Answer: "contradiction"}, {Text: "Two woman are holding packages.", Answer: "entailment"}}
		}),
		with(row("2407214681.jpg", "test"), func(r *arrowset.Row) {
			r.Captions = []arrowset.Caption{{Text: "A man sells donuts.", Answer: "neutral"}}
		}),
	}, answerRows(t, SNLIVE{Images: pictures(t, "4705552913.jpg", "2407214681.jpg"), Files: Files([]string{filepath.Join(files, "snli_ve_test.jsonl")}, "")}))
}

// An import that stops at a missing picture goes on once it is there, and makes the files that an undisturbed one makes.
func TestAnswersGoOn(t *testing.T) {
	var questions, annotations strings.Builder
	questions.WriteString(`{"data_subtype":"val2014","questions":[{"image_id":0,"question":"first?","question_id":"x"}`)
	annotations.WriteString(`{"annotations":[{"question_id":"x","answers":[{"answer":"a"}]}`)
	names := map[string]string{}
	for i := range 120 {
		noise := make([]byte, 8000)
		rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		names[fmt.Sprintf("%d.png", i)] = pic(string(noise))
		fmt.Fprintf(&questions, `,{"image_id":%d,"question":"what is %d?","question_id":%d}`, i, i, i)
		fmt.Fprintf(&annotations, `,{"question_id":%d,"answer_type":"number","answers":[{"answer":"%d"},{"answer":"none"}]}`, 119-i, 119-i)
	}
	texts := put(t, map[string]string{"q.json": questions.String() + "]}", "a.json": annotations.String() + "]}"})
	dir := put(t, names)
	im := VQA{Images: dir, Files: Files([]string{filepath.Join(texts, "q.json"), filepath.Join(texts, "a.json")}, ""), Pattern: "{id}.*"}
	undisturbed := filepath.Join(t.TempDir(), "set")
	o := Options{Out: undisturbed, ShardBytes: 300 << 10, Workers: 2}
	_, err := Run(ctx, im, o)
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(dir, "100.png"), filepath.Join(dir, "gone")))
	o.Out = filepath.Join(t.TempDir(), "set")
	_, err = Run(ctx, im, o)
	require.ErrorContains(t, err, "q.json: image 100: bad input: picture 100.* is missing")
	require.ErrorContains(t, err, "goes on behind them")
	require.NoError(t, os.Rename(filepath.Join(dir, "gone"), filepath.Join(dir, "100.png")))
	o.Workers = 3
	r, err := Run(ctx, im, o)
	require.NoError(t, err)
	require.Positive(t, r.Kept)
	require.Equal(t, Result{Rows: 120, Kept: r.Kept}, r)
	require.Equal(t, files(t, undisturbed), files(t, o.Out))
}

// Bad records are named by file and place; with Skip the others come through.
func TestAnswerFaults(t *testing.T) {
	dir := pictures(t, "COCO_train2014_000000000001.jpg", "COCO_train2014_000000000002.jpg", "1.jpg", "train-1-0-img0.png", "train-1-0-img1.png", "train-2-0-img0.png")
	write := func(name, text string) string { return filepath.Join(put(t, map[string]string{name: text}), name) }
	questions := `{"data_subtype":"train2014","questions":[{"image_id":1,"question":"a?","question_id":1},{"image_id":"x","question":"b?","question_id":2},
{"image_id":1,"question":"c?","question_id":3},{"image_id":1,"question":" ","question_id":4},{"image_id":2,"question":"d?","question_id":1}]}`
	annotations := `{"annotations":[{"question_id":1,"answers":[{"answer":"yes"}]},{"question_id":3,"answers":[]},{"question_id":1,"answers":[{"answer":"no"}]},{"question_id":4,"answers":[{}]}]}`
	vqa := func(files ...string) Importer {
		return VQA{Images: dir, Files: Files(files, ""), Pattern: "COCO_{subtype}_{id:12}.jpg"}
	}
	q, a := write("q.json", questions), write("a.json", annotations)
	nlvr2 := func(text string) Importer {
		return NLVR2{Images: dir, Files: Files([]string{write("train.json", text)}, ""), Pattern: "{pair}-img{n}.png"}
	}
	snli := func(text string) Importer {
		return SNLIVE{Images: dir, Files: Files([]string{write("a_train.jsonl", text)}, "")}
	}
	for _, c := range []struct {
		im      Importer
		skipped []string // all of them
		rows    int
	}{
		{vqa(q, a), []string{"q.json: questions[1]: bad input: ", "q.json: questions[3]: bad input: it has no question", "q.json: questions[4]: bad input: question_id 1 is there twice",
			"a.json: annotations[1]: bad input: it has no answers", "a.json: annotations[2]: bad input: question_id 1 is there twice", "a.json: annotations[3]: bad input: answers[0] has no answer",
			"q.json: questions, image 1: bad input: question 3 has no annotation"}, 1},
		{nlvr2(`{"sentence":"a","identifier":"train-1-0-0","label":"True"}` + "\n" + `{"sentence":"b","identifier":"train-1-0","label":"True"}` + "\n" + `{"sentence":"c","identifier":"train-1-0-1","label":"?"}` +
			"\n" + `{"sentence":"","identifier":"train-1-0-1","label":"True"}` + "\n{" + "\n" + `{"sentence":"e","identifier":"train-2-0-1","label":"True"}`),
			[]string{"train.json:2: bad input: identifier is", "train.json:3: bad input: label is", "train.json:4: bad input: identifier", "train.json:5: bad input: unexpected end", "train.json:6: bad input: picture train-2-0-img1.png is missing"}, 1},
		{snli(`{"gold_label":"neutral","sentence2":"a","Flickr30K_ID":1}` + "\n" + `{"gold_label":"-","sentence2":"a","Flickr30K_ID":1}` + "\n" + `{"gold_label":"neutral","sentence2":"a"}` + "\n" +
			`{"gold_label":"neutral","sentence2":" ","Flickr30K_ID":1}` + "\n" + `{"gold_label":"neutral","sentence2":"a","Flickr30K_ID":"../1"}`),
			[]string{`a_train.jsonl:2: bad input: gold_label is "-"`, "a_train.jsonl:3: bad input: Flickr30K_ID is", "a_train.jsonl:4: bad input: the sentence is empty", "a_train.jsonl:5: bad input: "}, 1},
	} {
		_, err := Run(ctx, c.im, Options{Out: filepath.Join(t.TempDir(), "out")})
		require.ErrorIs(t, err, ErrInput)
		require.ErrorContains(t, err, c.skipped[0])
		out := filepath.Join(t.TempDir(), "out")
		r, err := Run(ctx, c.im, Options{Out: out, OnBad: Skip})
		require.NoError(t, err)
		require.Equal(t, Result{Rows: c.rows, Skipped: len(c.skipped)}, r)
		list, err := os.ReadFile(filepath.Join(out, SkippedName))
		require.NoError(t, err)
		for _, want := range c.skipped[1:] {
			at := bytes.IndexByte([]byte(want), ':')
			require.Contains(t, string(list), want[:at])
		}
	}
	for text, want := range map[string]string{
		`{"questions":[]`: "the file ends in the middle", `[]`: "stands where '{' must", `{"x":1}`: "neither an array questions nor an array annotations",
		`{"questions":[],"annotations":[]}`: "behind its array", `{"questions":[]}`: "does not give a split", `{"annotations":[]}`: "none of the files has an array questions",
	} {
		_, err := Run(ctx, vqa(write("x.json", text)), Options{Out: filepath.Join(t.TempDir(), "out")})
		require.ErrorIs(t, err, ErrInput, text)
		require.ErrorContains(t, err, want, text)
	}
}

// readAnswers reads a file with every importer of answers; whatever it holds, they end with rows or a fault of the input.
func readAnswers(t *testing.T, dir string, b []byte) {
	name := filepath.Join(dir, "train.json")
	require.NoError(t, os.WriteFile(name, b, 0o644))
	good := filepath.Join(dir, "good.json")
	require.NoError(t, os.WriteFile(good, []byte(vqaQuestions), 0o644))
	files := []File{{"train", name}}
	for _, im := range []Importer{
		VQA{Images: dir, Files: files, Pattern: "{id}"}, VQA{Images: dir, Files: append(files, File{"x", good}), Pattern: "{id}"},
		NLVR2{Images: dir, Files: files, Pattern: "{pair}{n}"}, NLVR{Images: dir, Files: files, Pattern: "{identifier}{n}"}, SNLIVE{Images: dir, Files: files},
	} {
		src, err := im.Open(ctx, &Options{})
		if err != nil {
			require.ErrorIs(t, err, ErrInput)
			continue
		}
		for n := 0; ; n++ {
			r, err := src.Next()
			if ignoreEOF(err) != nil {
				require.ErrorIs(t, err, ErrInput)
			} else if err != nil {
				break
			} else {
				require.NotEmpty(t, r.Row.Captions)
			}
			if _, bad := err.(*RecordError); err != nil && !bad {
				break
			}
			require.LessOrEqual(t, n, 6*len(b)+1000)
		}
		require.NoError(t, src.Close())
	}
}

var answerSeeds = []string{vqaQuestions, vqaAnnotations, vqaTest, nlvr2Lines, nlvrLines, snliLines}

func FuzzAnswers(f *testing.F) {
	for _, s := range answerSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { readAnswers(t, t.TempDir(), b) })
}

func TestDamagedAnswers(t *testing.T) {
	rng, dir := rand.New(rand.NewPCG(7, 3)), t.TempDir()
	for i := range mutations() {
		readAnswers(t, dir, mutate(rng, []byte(answerSeeds[i%len(answerSeeds)])))
	}
}
