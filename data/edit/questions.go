package edit

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"diptych/data/arrowset"
	"diptych/data/transform"
	"diptych/internal/addr"
)

// Kinds of questions, beside the names of class systems.
const (
	KindColour  = "colour"
	KindYesNo   = "yesno"
	KindLetters = "letters"
)

// mostClasses is the size of a class system above which nothing is asked about it: its classes are names of single things.
const mostClasses = 200

// Questions writes a set of the same pictures whose captions are questions with their answers, made of what the set says of each
// picture and of its pixels. Of a picture is asked
//
//   - its class in every class system of at most 200 classes: "what is its category?";
//   - its dominant colour (see dominant): "what colour is it?";
//   - one colour and one class of the first such system, by yes or no: half of the time its own, else those of another row;
//   - the number of capital letters that it shows, where its label says it ("SOS button": 3), and of as many pictures whose label
//     says nothing of the kind, where the answer is 0.
//
// Each answer is that of one annotator. What is drawn hangs on seed and image_id. Splits, groups and all else stay.
func Questions(ctx context.Context, set *arrowset.Set, seed uint64, o Options) error {
	p := copyOf(set, nil)
	if !p.manifest.Has(arrowset.ColCaptionAnswer) {
		p.manifest.Optional = append(slices.Clone(p.manifest.Optional), arrowset.ColCaptionAnswer)
	}
	q := &questioner{ctx: ctx, set: set, seed: seed}
	for _, s := range set.Manifest().Classes {
		if len(s.Classes) < 2 || len(s.Classes) > mostClasses {
			continue
		}
		column, ok := set.Column(s.Column)
		if !ok {
			return refuse("%s has no column %s", nameOf(set), s.Column)
		}
		names := map[string]string{}
		for _, c := range s.Classes {
			names[c.ID] = c.Text
		}
		q.systems = append(q.systems, system{s.Name, func(row int) string { return names[column(row)] }})
	}
	q.zeros = q.unlettered()
	p.captions = q.of
	return p.write(ctx, o)
}

// system is a class system that is asked about.
type system struct {
	name  string
	class func(row int) string // in words; "" if a row has none
}

// questioner makes the questions of rows.
type questioner struct {
	ctx     context.Context
	set     *arrowset.Set
	seed    uint64
	systems []system
	zeros   []bool // rows whose letters are asked for though they show none
}

// draw returns the address of a choice for a row.
func (q *questioner) draw(purpose string, row int) uint64 {
	return draw(q.seed, "questions."+purpose, q.set.Meta()[row].ImageID)
}

// pick chooses one of the ways to ask something.
func (q *questioner) pick(purpose string, row int, ways ...string) string {
	return ways[addr.Below(addr.Hash(q.draw(purpose, row), 1), len(ways))]
}

// other draws another row.
func (q *questioner) other(purpose string, row int) int {
	n := q.set.Len()
	return (row + 1 + addr.Below(addr.Hash(q.draw(purpose, row), 2), max(n-1, 1))) % n
}

// of makes the questions of a row, whose picture is encoded in b.
func (q *questioner) of(w *worker, row int, b []byte) ([]arrowset.Caption, error) {
	var out []arrowset.Caption
	ask := func(kind, question, answer string) {
		out = append(out, arrowset.Caption{Text: question, Kind: kind, Lang: "en", Answer: answer})
	}
	// yesNo asks whether one of own and other holds of the row.
	yesNo := func(purpose, own, other, question string) {
		if addr.Below(addr.Hash(q.draw(purpose, row), 3), 2) == 0 {
			other = own
		}
		answer := "no"
		if other == own {
			answer = "yes"
		}
		ask(KindYesNo, fmt.Sprintf(question, other), answer)
	}
	for i, s := range q.systems {
		own := s.class(row)
		if own == "" {
			continue
		}
		ask(s.name, fmt.Sprintf(q.pick(s.name, row, "what is its %s?", "which %s does it belong to?", "what %s of thing is this?"), s.name), own)
		if other := s.class(q.other(s.name, row)); i == 0 && other != "" {
			yesNo(s.name, own, other, "does it belong to %s?")
		}
	}
	own, err := q.colour(w, b)
	if err != nil {
		return nil, err
	}
	ask(KindColour, q.pick(KindColour, row, "what colour is it?", "which colour does it have most of?", "what is its main colour?"), own)
	if b, err = q.set.Image(q.ctx, q.other(KindColour, row)); err != nil {
		return nil, err
	}
	other, err := q.colour(w, b)
	if errors.Is(err, transform.ErrBadPicture) {
		other = own
	} else if err != nil {
		return nil, err
	}
	yesNo(KindColour, own, other, "is it %s?")
	if n := letters(q.set.Meta()[row].Label); n > 0 || q.zeros[row] {
		ask(KindLetters, q.pick(KindLetters, row, "how many letters are on it?", "how many letters does it show?"), strconv.Itoa(n))
	}
	return out, nil
}

// colour names the dominant colour of an encoded picture.
func (q *questioner) colour(w *worker, b []byte) (string, error) {
	if err := transform.Decode(b, &w.decoded); err != nil {
		return "", err
	}
	return dominant(&w.decoded), nil
}

var (
	lettered = regexp.MustCompile(`^(?:circled )?([A-Z]{1,4})!?(?:$| (?:button|arrow|sign))`)
	signs    = regexp.MustCompile(`button|arrow|sign|circled|keycap|input|[A-Z]`)
)

// letters counts the capital letters that a label says its picture shows, 0 if it says nothing.
func letters(label string) int {
	if m := lettered.FindStringSubmatch(label); m != nil {
		return len(m[1])
	}
	return 0
}

// unlettered chooses as many rows that show no letters as there are that do, in every split.
func (q *questioner) unlettered() []bool {
	chosen := make([]bool, q.set.Len())
	with, without := map[string]int{}, map[string][]int{}
	for i, m := range q.set.Meta() {
		if letters(m.Label) > 0 {
			with[m.Split]++
		} else if m.Label != "" && !signs.MatchString(m.Label) {
			without[m.Split] = append(without[m.Split], i)
		}
	}
	for split, rows := range without {
		n := min(with[split], len(rows))
		for i, yes := range leastOf(q.set.Len(), rows, n, func(row int) uint64 { return q.draw("zero", row) }) {
			chosen[i] = chosen[i] || yes
		}
	}
	return chosen
}

// colours are the names that dominant gives.
var colours = [...]string{"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white"}

// dominant names the colour that most of a picture's pixels have, but for those of its background: the nearly white ones that are
// joined with its border by others. A picture that is nothing else is white.
func dominant(im *transform.Image) string {
	names := make([]uint8, im.W*im.H)
	for i := range names {
		names[i] = nameOfPixel(im.Pix[3*i], im.Pix[3*i+1], im.Pix[3*i+2])
	}
	const white, ground = uint8(len(colours) - 1), uint8(len(colours))
	var edge []int
	reach := func(x, y int) {
		if x >= 0 && y >= 0 && x < im.W && y < im.H && names[y*im.W+x] == white {
			names[y*im.W+x] = ground
			edge = append(edge, y*im.W+x)
		}
	}
	for x := range im.W {
		reach(x, 0)
		reach(x, im.H-1)
	}
	for y := range im.H {
		reach(0, y)
		reach(im.W-1, y)
	}
	for len(edge) > 0 {
		i := edge[len(edge)-1]
		edge = edge[:len(edge)-1]
		x, y := i%im.W, i/im.W
		reach(x-1, y)
		reach(x+1, y)
		reach(x, y-1)
		reach(x, y+1)
	}
	var count [len(colours)]int
	for _, k := range names {
		if k != ground {
			count[k]++
		}
	}
	best := int(white)
	for k, n := range count {
		if n > count[best] {
			best = k
		}
	}
	return colours[best]
}

// nameOfPixel returns the place in colours of a pixel's colour, by hue, chroma and value.
func nameOfPixel(r8, g8, b8 uint8) uint8 {
	r, g, b := int(r8), int(g8), int(b8)
	top, low := max(r, g, b), min(r, g, b)
	chroma := top - low
	hue := 0
	switch {
	case chroma == 0:
	case top == r:
		hue = 60 * (g - b) / chroma
	case top == g:
		hue = 120 + 60*(b-r)/chroma
	default:
		hue = 240 + 60*(r-g)/chroma
	}
	if hue < 0 {
		hue += 360
	}
	name := func(s string) uint8 { return uint8(slices.Index(colours[:], s)) }
	switch dim := top < 176; {
	case top < 56 || top < 80 && chroma < 32:
		return name("black")
	case chroma < 24 || chroma*6 < top:
		if top > 224 {
			return name("white")
		}
		return name("grey")
	case hue < 16 || hue >= 345:
		switch {
		case dim && hue < 16 && top < 140:
			return name("brown")
		case chroma*2 < top:
			return name("pink")
		}
		return name("red")
	case hue < 42:
		if dim {
			return name("brown")
		}
		return name("orange")
	case hue < 68:
		return name("yellow")
	case hue < 165:
		return name("green")
	case hue < 255:
		return name("blue")
	case hue < 300:
		return name("purple")
	}
	return name("pink")
}
