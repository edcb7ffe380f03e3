// Package eval measures trained models: retrieval both ways and zero-shot classification of those that give pictures and
// sentences unit rows in one space, the scores of classifiers, those of models that read a picture and a sentence together, and
// what a linear probe or the nearest neighbours make of an image tower's features. Retrieval, Nearest and ZeroShot work on plain
// slices of embeddings and know no data set; Run reads the splits of one, embeds them with a Model and measures the tasks asked
// for. Of all that only the probe learns, by L-BFGS on features; the model's own weights never change. It writes no files: package
// experiments/report turns a Result into tables and pictures. Start reading at Run.
package eval

import (
	"context"
	"errors"
	"fmt"
	"math"

	"diptych/internal/kernel"
)

var (
	// ErrShape marks slices whose lengths do not fit together.
	ErrShape = errors.New("shapes do not fit")
	// ErrNotFinite marks embeddings that hold NaN or Inf, of which no rank can be taken.
	ErrNotFinite = errors.New("embedding is not finite")
	// ErrRequest marks options that cannot be served, such as a split that the data set does not have.
	ErrRequest = errors.New("cannot be evaluated")
)

// Encoder gives pictures and sentences unit rows in one space; package experiments implements it over a trained model.
type Encoder interface {
	EmbedDim() int                   // E
	ImageSides() (height, width int) // in pixels
	// Images embeds n pictures: (n, E), unit rows. at fills picture i as (height, width, 3) levels 0 to 255; it may be called from
	// several goroutines at once, each i once. Its first error ends the call.
	Images(ctx context.Context, n int, at func(i int, dst []uint8) error) ([]float32, error)
	// Texts embeds sentences: (len(texts), E), unit rows.
	Texts(ctx context.Context, texts []string) ([]float32, error)
}

// blockFloats bounds the block of similarities that is held at once (16 MiB), unless a single panel of minBlockRows rows
// needs more.
const (
	blockFloats  = 4 << 20
	minBlockRows = 16
	maxBlockRows = 512
)

// eachRow computes the similarities of every query with all candidates, a block of queries at a time, and hands visit each
// query's row (len(candidates)/dim), which is valid during the call only. Calls for different queries may run at the same
// time; a row's values do not depend on the number of threads.
func eachRow(p *kernel.Pool, queries, candidates []float32, dim int, visit func(query int, scores []float32)) {
	nq, nc := len(queries)/dim, len(candidates)/dim
	if nq == 0 || nc == 0 {
		return
	}
	rows := min(max(blockFloats/nc, minBlockRows), maxBlockRows, nq)
	scores := make([]float32, rows*nc)
	for lo := 0; lo < nq; lo += rows {
		m := min(rows, nq-lo)
		kernel.MatMul(p, &kernel.Gemm[float32]{
			TransB: true, M: m, N: nc, K: dim,
			A: queries[lo*dim : (lo+m)*dim], LDA: dim, B: candidates, LDB: dim, C: scores, LDC: nc,
		})
		p.For(m, 4, func(a, b, _ int) {
			for i := a; i < b; i++ {
				visit(lo+i, scores[i*nc:(i+1)*nc])
			}
		})
	}
}

// checkRows checks that x holds whole, finite rows of dim numbers; want is their number, or -1.
func checkRows(name string, x []float32, dim, want int) error {
	if dim <= 0 {
		return fmt.Errorf("%w: embeddings have %d dimensions", ErrShape, dim)
	}
	if len(x)%dim != 0 || want >= 0 && len(x) != want*dim {
		return fmt.Errorf("%w: %s has %d numbers, want %s rows of %d", ErrShape, name, len(x), rowsWanted(want), dim)
	}
	for i, v := range x {
		if v-v != 0 { // NaN and Inf
			return fmt.Errorf("%w: %s, row %d, column %d: %v", ErrNotFinite, name, i/dim, i%dim, v)
		}
	}
	return nil
}

func rowsWanted(n int) string {
	if n < 0 {
		return "whole"
	}
	return fmt.Sprint(n)
}

// normalizeRows scales each row of x to length 1, summing in float64; a row of zeros stays.
func normalizeRows(x []float32, dim int) {
	for lo := 0; lo+dim <= len(x); lo += dim {
		row := x[lo : lo+dim]
		var ss float64
		for _, v := range row {
			ss += float64(v) * float64(v)
		}
		if ss == 0 {
			continue
		}
		inv := 1 / math.Sqrt(ss)
		for i, v := range row {
			row[i] = float32(float64(v) * inv)
		}
	}
}
