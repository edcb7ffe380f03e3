package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"diptych/eval"
)

const (
	manyClasses = 40 // a longer table stands in its CSV alone
	manyBroken  = 20 // pictures named in report.md
)

// markdown is report.md.
func (r *Report) markdown(pictures []Picture) string {
	d := &document{}
	d.line("# %s", escape(r.Title))
	d.line("")
	if len(r.About) > 0 {
		rows := [][]string{{"what", "value"}}
		for _, f := range r.About {
			rows = append(rows, []string{escape(f.Name), escape(f.Value)})
		}
		d.table(rows)
	}
	d.line("Data set %s; embeddings of %d numbers. \"Chance\" is what random scores reach on average.", code(r.Result.Data), r.Result.EmbedDim)
	d.line("")
	d.retrieval(r.Result.Splits)
	d.classified(r.Result.Splits)
	d.zeroShot(r.Result.Splits)
	if rows := pairRows(r.Result.Splits); rows != nil {
		d.line("## Pairs")
		d.line("")
		d.table(rows)
		d.line("Matching: half of the pairs have a picture of another group. Choice: the picture's own sentence has the highest odds among")
		d.line("the candidates. Words: the share of hidden words guessed right beside the picture, another one, and an even grey.")
		d.line("")
	}
	if rows := answerRows(r.Result.Splits); rows != nil {
		d.line("## Answers")
		d.line("")
		d.table(rows)
		d.line("The accuracy of vqa is the official one, beside all annotators of a question. Reach is what always choosing the best of the")
		d.line("model's answers would give. Consistency is the share of distinct sentences that are judged right with all their pictures.")
		d.line("")
	}
	d.broken(r.Result.Splits)
	if len(pictures) > 0 {
		d.line("## Pictures")
		d.line("")
		d.line("The queries of contact sheets are a random sample, the same for every model. Right answers are framed in green, wrong")
		d.line("ones in red; the number below an answer is its score, the cosine of the two embeddings.")
		d.line("")
		for _, p := range pictures {
			d.line("### %s", escape(p.Title))
			d.line("")
			d.line("![%s](%s)", escape(p.Title), p.File)
			d.line("")
		}
	}
	return strings.TrimRight(d.String(), "\n") + "\n"
}

// Summary is the tables of retrieval and zero-shot classification alone, for a terminal.
func Summary(r *eval.Result) string {
	d := &document{}
	if rows, _ := retrievalRows(r.Splits); rows != nil {
		d.table(rows)
		for i := range r.Splits { // what ranking again can lose belongs to its numbers
			if x := r.Splits[i].Retrieval; x != nil && x.Rescored != nil {
				d.line("%s", rescoredNote(&r.Splits[i]))
			}
		}
	}
	if rows := classifiedRows(r.Splits); rows != nil {
		d.table(rows)
	}
	if rows := zeroShotRows(r.Splits); rows != nil {
		d.table(rows)
	}
	if rows := pairRows(r.Splits); rows != nil {
		d.table(rows)
	}
	if rows := answerRows(r.Splits); rows != nil {
		d.table(rows)
	}
	return strings.TrimRight(d.String(), "\n") + "\n"
}

// pairRows is the table of models of pairs, nil if there was none.
func pairRows(splits []eval.SplitResult) (rows [][]string) {
	for _, s := range splits {
		if s.Match == nil && s.Fill == nil {
			continue
		}
		if rows == nil {
			rows = [][]string{{"split", "pictures", "matching", "choice", "of", "words", "shuffled", "blank"}}
		}
		row := []string{escape(s.Split), strconv.Itoa(s.Images), "–", "–", "–", "–", "–", "–"}
		if m := s.Match; m != nil {
			row[2], row[3], row[4] = percent(m.Accuracy), percent(m.Choice), strconv.Itoa(m.Candidates)
		}
		if f := s.Fill; f != nil {
			row[5], row[6], row[7] = percent(f.Picture.Top1()), percent(f.Shuffled.Top1()), percent(f.Blank.Top1())
		}
		rows = append(rows, row)
	}
	return rows
}

// answerRows is the table of questions, with a row for each kind of them, nil if there were none.
func answerRows(splits []eval.SplitResult) (rows [][]string) {
	for _, s := range splits {
		a := s.Answers
		if a == nil {
			continue
		}
		if rows == nil {
			rows = [][]string{{"task", "split", "kind", "questions", "accuracy", "reach", "consistency"}}
		}
		row := []string{string(a.Task), escape(s.Split), "all", thousands(a.Questions), percent(a.Accuracy), percent(a.Reach), "–"}
		if a.Sentences > 0 {
			row[6] = percent(a.Consistency)
		}
		rows = append(rows, row)
		for _, k := range a.Kinds {
			rows = append(rows, []string{"", "", escape(k.Kind), thousands(k.Questions), percent(k.Accuracy), "–", "–"})
		}
	}
	return rows
}

type document struct{ strings.Builder }

func (d *document) line(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

// table writes rows, of which the first is the head, with columns of equal width; numbers are set right.
func (d *document) table(rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for c, cell := range row {
			width[c] = max(width[c], len([]rune(cell)), 3)
		}
	}
	right := make([]bool, len(width))
	for c := range width {
		right[c] = len(rows) > 1
		for _, row := range rows[1:] {
			right[c] = right[c] && (row[c] == "" || row[c] == "–" || row[c][0] >= '0' && row[c][0] <= '9')
		}
	}
	for i, row := range rows {
		for c, cell := range row {
			pad := strings.Repeat(" ", width[c]-len([]rune(cell)))
			if right[c] {
				d.WriteString("| " + pad + cell + " ")
			} else {
				d.WriteString("| " + cell + pad + " ")
			}
		}
		d.line("|")
		if i == 0 {
			for c := range row {
				rule := strings.Repeat("-", width[c]+1)
				if right[c] {
					d.WriteString("|" + rule + ":")
				} else {
					d.WriteString("|" + rule + "-")
				}
			}
			d.line("|")
		}
	}
	d.line("")
}

// retrievalRows is the table of retrieval, nil if there was none, and what is to be said of each split.
func retrievalRows(splits []eval.SplitResult) (rows [][]string, notes []string) {
	for _, s := range splits {
		r := s.Retrieval
		if r == nil {
			continue
		}
		if rows == nil {
			rows = [][]string{{"split", "query → candidates", "queries", "candidates"}}
			some := r.ImageToText.Recall
			if r.Rescored != nil {
				some = r.Rescored.ImageToText.Recall
			}
			for _, k := range some {
				rows[0] = append(rows[0], fmt.Sprintf("R@%d", k.K))
			}
			rows[0] = append(rows[0], "median rank", "mean rank")
		}
		for _, dir := range []direction{imageToText, textToImage} {
			name := strings.ToLower(dir.name)
			add := func(what string, x eval.Direction) {
				row := []string{escape(s.Split), name + what, thousands(x.Queries), thousands(x.Candidates)}
				for _, k := range x.Recall {
					row = append(row, percent(k.Recall))
				}
				rows = append(rows, append(row, trim(x.MedianRank), trim(x.MeanRank)))
			}
			x := dir.of(&r.RetrievalResult)
			if x.Candidates > 0 {
				add("", x)
			}
			if again := r.Rescored; again != nil {
				x = dir.of(&again.RetrievalResult)
				if again.K > 0 {
					add(fmt.Sprintf(", the first %d again", again.K), x)
				} else {
					add(", all pairs", x)
				}
			}
			chance := []string{"", "chance", "", ""}
			for _, k := range x.Recall {
				chance = append(chance, percent(k.Chance))
			}
			rows = append(rows, append(chance, "", trim(x.ChanceRank)))
			if x.Unmatched > 0 {
				notes = append(notes, fmt.Sprintf("%s, %s: %d queries have no right candidate and are not counted.", escape(s.Split), strings.ToLower(dir.name), x.Unmatched))
			}
		}
		what := "every caption of every picture"
		if r.Choice == eval.TextsLabel {
			what = "one text, the label, of each group"
		}
		if r.Rescored != nil {
			notes = append(notes, rescoredNote(&s))
		}
		notes = append(notes, fmt.Sprintf("%s: %s pictures in %s groups; texts are %s (%s).", escape(s.Split), thousands(s.Images), thousands(r.Groups), what, thousands(r.Texts)))
	}
	return rows, notes
}

// rescoredNote says what was ranked again, and what that can lose.
func rescoredNote(s *eval.SplitResult) string {
	again := s.Retrieval.Rescored
	note := fmt.Sprintf("%s: a model that reads picture and sentence together scored %s pairs", escape(s.Split), thousands(again.Pairs))
	if again.First != 0 {
		note += fmt.Sprintf("; %s times the first cosine is added to its log odds", trim(again.First))
	}
	if again.K > 0 {
		note += fmt.Sprintf(". A right candidate is among the first %d of %s of the pictures and of %s of the texts: no recall up to there can be higher",
			again.K, percent(again.MostImageToText), percent(again.MostTextToImage))
	}
	return note + "."
}

func (d *document) retrieval(splits []eval.SplitResult) {
	rows, notes := retrievalRows(splits)
	if rows == nil {
		return
	}
	d.line("## Retrieval")
	d.line("")
	d.line("R@K is the share of queries with a right answer among the first K. Any text of a picture's group is right for it, and any")
	d.line("picture of a text's group for the text. A rank is that of the best right answer, from 1; equal scores rank by index. Every")
	d.line("pair is scored.")
	d.line("")
	d.table(rows)
	for _, n := range notes {
		d.line("- %s", n)
	}
	d.line("")
}

// classifiedRows is the table of classification by methods that know the classes from training, nil if there was none.
func classifiedRows(splits []eval.SplitResult) [][]string {
	rows := [][]string{{"method", "class system", "split", "pictures", "classes", "top-1", "top-5", "mean per class", "chance", "largest class"}}
	for _, s := range splits {
		for _, c := range s.Classified {
			rows = append(rows, []string{escape(strings.TrimSpace(c.Method + " " + c.Detail)), escape(c.System), escape(s.Split), thousands(c.Images), thousands(c.Classes),
				percent(c.Top1), percent(c.Top5), percent(c.MeanPerClass), percent(c.ChanceTop1), percent(c.Largest)})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func (d *document) classified(splits []eval.SplitResult) {
	rows := classifiedRows(splits)
	if rows == nil {
		return
	}
	d.line("## Classification")
	d.line("")
	d.line("\"largest class\" is what always naming the most frequent class reaches. The figures of each class are in a CSV beside this file.")
	d.line("")
	d.table(rows)
}

// systemsOf lists the class systems that were measured on any split.
func systemsOf(splits []eval.SplitResult) []string {
	var systems []string
	for _, s := range splits {
		for _, z := range s.ZeroShot {
			if !slices.Contains(systems, z.System) {
				systems = append(systems, z.System)
			}
		}
	}
	return systems
}

// zeroShotRows is the table of zero-shot classification, nil if there was none.
func zeroShotRows(splits []eval.SplitResult) [][]string {
	systems := systemsOf(splits)
	if len(systems) == 0 {
		return nil
	}
	rows := [][]string{{"class system", "split", "pictures", "classes", "top-1", "top-5", "mean per class", "bare name", "chance", "largest class"}}
	for _, name := range systems {
		for _, s := range splits {
			if z := find(s, name); z != nil {
				rows = append(rows, []string{escape(name), escape(s.Split), thousands(z.Images), thousands(z.Classes), percent(z.Ensemble.Top1), percent(z.Ensemble.Top5),
					percent(z.Ensemble.MeanPerClass), percent(z.Bare.Top1), percent(z.ChanceTop1), percent(z.Largest)})
			}
		}
	}
	return rows
}

func (d *document) zeroShot(splits []eval.SplitResult) {
	rows := zeroShotRows(splits)
	if rows == nil {
		return
	}
	d.line("## Zero-shot classification")
	d.line("")
	d.line("A picture gets the class whose text is nearest. The text of a class is the mean of its name in all templates; \"bare name\" is")
	d.line("the top-1 of the name alone, \"largest class\" what always naming the most frequent class reaches.")
	d.line("")
	d.table(rows)
	for _, name := range systemsOf(splits) {
		d.templates(splits, name)
	}
	for _, s := range splits {
		for _, z := range s.ZeroShot {
			d.classes(s.Split, z)
		}
	}
}

func find(s eval.SplitResult, system string) *eval.SystemResult {
	for i := range s.ZeroShot {
		if s.ZeroShot[i].System == system {
			return &s.ZeroShot[i]
		}
	}
	return nil
}

// templates compares the templates of a class system, where it has several.
func (d *document) templates(splits []eval.SplitResult, system string) {
	head := []string{"template"}
	var rows [][]string
	for _, s := range splits {
		z := find(s, system)
		if z == nil || len(z.Templates) < 2 {
			continue
		}
		head = append(head, escape(s.Split))
		if rows == nil {
			rows = make([][]string, len(z.Templates)+1)
			for t := range z.Templates {
				rows[t] = []string{code(z.Templates[t].Template)}
			}
			rows[len(z.Templates)] = []string{"all"}
		}
		for t := range z.Templates {
			rows[t] = append(rows[t], percent(z.Templates[t].Top1))
		}
		rows[len(z.Templates)] = append(rows[len(z.Templates)], percent(z.Ensemble.Top1))
	}
	if rows == nil {
		return
	}
	d.line("Top-1 of %s by template:", escape(system))
	d.line("")
	d.table(append([][]string{head}, rows...))
}

// classes shows the classes of one system on one split, if they are few; all are in the CSV.
func (d *document) classes(split string, z eval.SystemResult) {
	file := classFile(z.System, split)
	var seen []eval.ClassAccuracy
	for _, c := range z.PerClass {
		if c.Images > 0 {
			seen = append(seen, c)
		}
	}
	if len(seen) > manyClasses {
		d.line("%s on %s: %s classes have pictures, each in [%s](%s).", escape(z.System), escape(split), thousands(len(seen)), file, file)
		d.line("")
		return
	}
	d.line("%s on %s, by class ([%s](%s)):", escape(z.System), escape(split), file, file)
	d.line("")
	rows := [][]string{{"class", "pictures", "top-1", "top-5", "most often mistaken for"}}
	for _, c := range seen {
		mistaken := "–"
		if c.Mistaken != "" {
			mistaken = fmt.Sprintf("%s (%s)", escape(c.Mistaken), percent(c.MistakenFor))
		}
		rows = append(rows, []string{escape(c.Class), thousands(c.Images), percent(c.Top1), percent(c.Top5), mistaken})
	}
	d.table(rows)
}

func (d *document) broken(splits []eval.SplitResult) {
	total := 0
	for _, s := range splits {
		total += len(s.Broken)
	}
	if total == 0 {
		return
	}
	d.line("## Pictures left out")
	d.line("")
	d.line("Pictures that do not decode, in no figure above (%s):", thousands(total))
	d.line("")
	left := manyBroken
	for _, s := range splits {
		for _, b := range s.Broken {
			if left == 0 {
				d.line("- and %s more, in report.json.", thousands(total-manyBroken))
				d.line("")
				return
			}
			left--
			d.line("- %s, row %d, %s: %s", escape(s.Split), b.Row, code(b.ImageID), escape(b.Reason))
		}
	}
	d.line("")
}

// summary is one direction in a line.
func summary(x eval.Direction, d direction) string {
	var parts []string
	for _, k := range x.Recall {
		parts = append(parts, fmt.Sprintf("R@%d %s", k.K, percent(k.Recall)))
	}
	asked, ranked := "pictures", "texts"
	if !d.images {
		asked, ranked = ranked, asked
	}
	return fmt.Sprintf("%s · %s %s, %s %s", strings.Join(parts, ", "), thousands(x.Queries), asked, thousands(x.Candidates), ranked)
}

// percent prints a fraction with one decimal, or two where it is below one percent.
func percent(x float64) string {
	if x > 0 && x < .00995 {
		return fmt.Sprintf("%.2f %%", 100*x)
	}
	return fmt.Sprintf("%.1f %%", 100*x)
}

// trim prints a rank with at most one decimal.
func trim(x float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0") }

// thousands prints 12345 as 12,345.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// escape keeps a text from being read as Markdown.
func escape(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "<", `\<`, "`", "\\`", "[", `\[`).Replace(s)
}

// code sets a text in the typewriter face.
func code(s string) string {
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "`", "'")
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}
