package data

import (
	"iter"
	"regexp"
	"slices"
	"strings"

	"diptych/data/batch"
)

// This file holds what the evaluation of VQA says of answers (Goyal et al. 2017; Antol et al. 2015, §3 and §4): how they are
// written, how right one is beside those of ten annotators, and which of them are a model's classes.

var (
	groupedDigits = regexp.MustCompile(`\d,\d`)
	// numbers are those that are written as digits; articles are left out.
	numbers = map[string]string{
		"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
		"nine": "9", "ten": "10",
	}
	articles = []string{"a", "an", "the"}
)

// marks are the punctuation that answers lose, besides full stops.
const marks = ";/[]\"{}()=+\\_-><@`,?!"

// NormalizeAnswer writes an answer as the evaluation of VQA does before it compares: in small letters, without articles, with
// digits for zero to ten, with the apostrophes of contractions, and without punctuation. A mark next to a blank is deleted, and
// so is every mark where digits are grouped by commas; other marks become blanks. A full stop goes unless a digit follows.
func NormalizeAnswer(s string) string {
	s = strings.TrimSpace(strings.NewReplacer("\n", " ", "\t", " ").Replace(s))
	out, grouped := s, groupedDigits.MatchString(s)
	for _, m := range marks {
		to, mark := " ", string(m)
		if grouped || strings.Contains(s, mark+" ") || strings.Contains(s, " "+mark) {
			to = ""
		}
		out = strings.ReplaceAll(out, mark, to)
	}
	words := strings.Fields(strings.ToLower(dropStops(out)))
	kept := words[:0]
	for _, w := range words {
		if slices.Contains(articles, w) {
			continue
		}
		if n, ok := numbers[w]; ok {
			w = n
		}
		if c, ok := contractions[w]; ok {
			w = c
		}
		kept = append(kept, w)
	}
	return strings.Join(kept, " ")
}

// dropStops deletes full stops that no digit follows.
func dropStops(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] != '.' || i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// contractions are the spellings that the evaluation mends. The list is its own, with what is odd in it.
var contractions = map[string]string{"somebody'd": "somebodyd", "'ow'sat": "'ow's'at", "'ows'at": "'ow's'at", "ow's'at": "'ow's'at"}

func init() {
	const right = `ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll they're
they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
why'll why're why's won't would've wouldn't y'all you'd you'll you're you've`
	for _, c := range strings.Fields(right) {
		contractions[strings.ReplaceAll(c, "'", "")] = c
	}
	// Of those with two apostrophes either may be missing.
	const twice = `couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've`
	for _, c := range strings.Fields(twice) {
		first, last := strings.IndexByte(c, '\''), strings.LastIndexByte(c, '\'')
		contractions[c[:first]+c[first+1:]], contractions[c[:last]+c[last+1:]] = c, c
	}
	for _, c := range []string{"yall'd've", "y'alld've", "y'all'dve"} {
		contractions[c] = "y'all'd've"
	}
}

// tally counts answers by their normal form, in the order in which they first come.
func tally(answers []string) (order []string, count map[string]int) {
	count = make(map[string]int, len(answers))
	for _, a := range answers {
		a = NormalizeAnswer(a)
		if count[a] == 0 {
			order = append(order, a)
		}
		count[a]++
	}
	return order, count
}

// AnswerAccuracy is how right an answer in normal form is beside those of a question's annotators: the mean, over leaving each
// of them out, of min(n/3, 1), where n of the others said it. Where there is one annotator it is 1 or 0. The official script
// compares without normalising where all annotators gave one string; here both sides always have their normal form, as the
// answers that a model can give have it.
func AnswerAccuracy(answers []string, answer string) float64 {
	_, count := tally(answers)
	n, all := count[answer], len(answers)
	if all < 2 {
		return float64(n)
	}
	// Left out are n that said it and all-n that did not.
	return (float64(n)*min(float64(n-1)/3, 1) + float64(all-n)*min(float64(n)/3, 1)) / float64(all)
}

// softScores are those of an answer that one, two, three annotators gave; of more it is 1 (ViLT and its forerunners).
var softScores = [...]float32{0, 0.3, 0.6, 0.9}

// SoftTargets are the classes of a question's answers with their scores; answers that are no class are left out. Where there is
// one annotator the score is 1.
func SoftTargets(answers []string, class map[string]int32) []batch.Answer {
	order, count := tally(answers)
	var out []batch.Answer
	for _, a := range order {
		k, ok := class[a]
		if !ok {
			continue
		}
		score := float32(1)
		if n := count[a]; len(answers) > 1 && n < len(softScores) {
			score = softScores[n]
		}
		out = append(out, batch.Answer{Class: k, Score: score})
	}
	return out
}

// AnswerList lists the answers that are the most common one of at least so many questions, in the order in which they first
// come; of equally common ones a question's first counts. questions yields the answers of each.
func AnswerList(questions iter.Seq[[]string], least int) []string {
	count := map[string]int{}
	var order []string
	for answers := range questions {
		all, n := tally(answers)
		if len(all) == 0 {
			continue
		}
		most := slices.MaxFunc(all, func(a, b string) int { return n[a] - n[b] }) // the first of equal ones
		if count[most] == 0 {
			order = append(order, most)
		}
		count[most]++
	}
	return slices.DeleteFunc(order, func(a string) bool { return a == "" || count[a] < least })
}
