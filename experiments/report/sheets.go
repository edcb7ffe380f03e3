package report

import (
	"context"
	"errors"
	"fmt"
	"image"

	"diptych/data/transform"
	"diptych/eval"
	"diptych/internal/addr"
	"diptych/internal/sheet"
)

// answers is how many answers of each query a sheet shows.
const answers = 5

const defaultQueries = 8

// direction is one way of retrieval.
type direction struct {
	name, file string
	images     bool // pictures ask
}

var (
	imageToText = direction{"Image to text", "image-to-text", true}
	textToImage = direction{"Text to image", "text-to-image", false}
)

// of picks the direction's part of a result.
func (d direction) of(r *eval.RetrievalResult) eval.Direction {
	if d.images {
		return r.ImageToText
	}
	return r.TextToImage
}

// sheet draws the first answers to some queries of a split. The queries are a random sample that hangs on the split's name
// and size alone, so two models show the same ones.
func (r *Report) sheet(ctx context.Context, split *eval.SplitResult, d direction) (*sheet.Sheet, error) {
	f := split.Features
	asked, ranked := f.Images, f.TextEmbeds
	askedGroup, rankedGroup := f.ImageGroup, f.TextGroup
	if !d.images {
		asked, ranked = ranked, asked
		askedGroup, rankedGroup = rankedGroup, askedGroup
	}
	n := r.Queries
	if n <= 0 {
		n = defaultQueries
	}
	queries := sample(split.Split, askedGroup, rankedGroup, n)
	rows := make([]float32, 0, len(queries)*f.Dim)
	for _, q := range queries {
		rows = append(rows, asked[q*f.Dim:(q+1)*f.Dim]...)
	}
	hits, err := eval.Nearest(r.Pool, rows, ranked, f.Dim, answers)
	if err != nil {
		return nil, err
	}

	firstText := map[int32]string{} // of each group
	for t, g := range f.TextGroup {
		if _, ok := firstText[g]; !ok {
			firstText[g] = f.Texts[t]
		}
	}
	picture := func(i int) (sheet.Cell, error) {
		c := sheet.Cell{Text: firstText[f.ImageGroup[i]]}
		var err error
		c.Picture, err = r.picture(ctx, f.Rows[i])
		return c, err
	}
	s := &sheet.Sheet{Title: fmt.Sprintf("%s, %s", d.name, split.Split), Subtitle: summary(d.of(&split.Retrieval.RetrievalResult), d), Heads: []string{"query"}, Lead: true}
	for k := range answers {
		s.Heads = append(s.Heads, fmt.Sprint(k+1))
	}
	for i, q := range queries {
		var row []sheet.Cell
		if d.images {
			c, err := picture(q)
			if err != nil {
				return nil, err
			}
			row = append(row, c)
		} else {
			row = append(row, sheet.Cell{Text: f.Texts[q]})
		}
		for _, h := range hits[i] {
			c := sheet.Cell{}
			if d.images {
				c.Text = f.Texts[h.Index]
			} else if c, err = picture(h.Index); err != nil {
				return nil, err
			}
			c.Note = fmt.Sprintf("%.3f", h.Score)
			c.Mark = sheet.Wrong
			if rankedGroup[h.Index] == askedGroup[q] {
				c.Mark = sheet.Right
			}
			row = append(row, c)
		}
		s.Rows = append(s.Rows, row)
	}
	return s, nil
}

// sample draws at most n queries that have an answer, no two of one group.
func sample(split string, asked, ranked []int32, n int) []int {
	answered := map[int32]bool{}
	for _, g := range ranked {
		answered[g] = true
	}
	order := addr.NewPerm(addr.Hash(addr.Name("report sheet"), addr.Name(split)), uint64(len(asked)))
	var out []int
	for i := range asked {
		q := int(order.At(uint64(i)))
		if !answered[asked[q]] {
			continue
		}
		delete(answered, asked[q])
		if out = append(out, q); len(out) == n {
			break
		}
	}
	return out
}

// picture reads the picture of a row; one that transform does not read is nil, and a gap on the sheet.
func (r *Report) picture(ctx context.Context, row int) (image.Image, error) {
	b, err := r.Set.Image(ctx, row)
	if err != nil {
		return nil, err
	}
	var m transform.Image
	if err := transform.Decode(b, &m); errors.Is(err, transform.ErrBadPicture) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return sheet.RGB(m.W, m.H, m.Pix), nil
}
