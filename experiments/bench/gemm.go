package bench

import (
	"context"
	"fmt"
	"time"

	"diptych/internal/kernel"
	"diptych/model"
)

// GemmResult is the speed of the matrix products of one model's towers.
type GemmResult struct {
	Model    string        `json:"model"`
	Batch    int           `json:"batch"`
	Peak     PeakResult    `json:"peak"`
	Products []GemmProduct `json:"products"`
	GFLOPs   float64       `json:"gflops"` // of all, each as often as the model has it
	Share    float64       `json:"share"`  // of the peak
	Worst    float64       `json:"worst"`  // smallest share of a product
}

// GemmProduct is one product: of a layer forward, of its input's gradient or of its weight's.
type GemmProduct struct {
	Layer   string  `json:"layer"`
	Form    string  `json:"form"` // Y = X·Wᵀ, dX = dY·W, dW = dYᵀ·X
	M       int     `json:"m"`
	N       int     `json:"n"`
	K       int     `json:"k"`
	Blocks  int     `json:"blocks"` // how often a pass over the model has it
	Seconds Spread  `json:"seconds"`
	GFLOPs  float64 `json:"gflops"`
	Share   float64 `json:"share"`
}

// layer is a product's shape: rows of tokens, from in to out columns.
type layer struct {
	name          string
	rows, in, out int
	blocks        int
}

// layers lists the linear layers of the blocks of c's towers for a batch of pairs with texts of the whole context.
func layers(c *model.Config, batch int) []layer {
	var all []layer
	tower := func(name string, t *model.Transformer, tokens int) {
		d, hidden, rows := t.Width, int(t.MLPRatio*float64(t.Width)), batch*tokens
		all = append(all, layer{name + " qkv", rows, d, 3 * d, t.Depth}, layer{name + " out", rows, d, d, t.Depth},
			layer{name + " fc", rows, d, hidden, t.Depth}, layer{name + " proj", rows, hidden, d, t.Depth})
	}
	tower("image", &c.Vision.Transformer, c.Vision.NumTokens())
	tower("text", &c.Text.Transformer, c.Text.ContextLength)
	return all
}

// fill gives a matrix values of the size that activations have.
func fill(s []float32) {
	for i := range s {
		s[i] = float32(i%29-14) / 8
	}
}

// Gemm times every product of c's layers, forward and backward, tries times in turn.
func Gemm(ctx context.Context, name string, c *model.Config, batch, tries int, precision string, p *kernel.Pool) (*GemmResult, error) {
	r := &GemmResult{Model: name, Batch: batch, Peak: Peak(p, precision), Worst: 1}
	var products []kernel.Gemm[float32]
	for _, l := range layers(c, batch) {
		var slabs [6][]float32
		for i, n := range []int{l.rows * l.in, l.out * l.in, l.rows * l.out} { // operands, and results of the same shapes
			slabs[i], slabs[i+3] = kernel.NewSlab(n), kernel.NewSlab(n)
			defer kernel.FreeSlab(slabs[i])
			defer kernel.FreeSlab(slabs[i+3])
			fill(slabs[i])
		}
		x, w, d, dx, dw, y := slabs[0], slabs[1], slabs[2], slabs[3], slabs[4], slabs[5]
		products = append(products,
			kernel.Gemm[float32]{TransB: true, M: l.rows, N: l.out, K: l.in, A: x, LDA: l.in, B: w, LDB: l.in, C: y, LDC: l.out},
			kernel.Gemm[float32]{M: l.rows, N: l.in, K: l.out, A: d, LDA: l.out, B: w, LDB: l.in, C: dx, LDC: l.in},
			kernel.Gemm[float32]{TransA: true, Accumulate: true, M: l.out, N: l.in, K: l.rows, A: d, LDA: l.out, B: x, LDB: l.in, C: dw, LDC: l.in})
		for i, form := range []string{"Y", "dX", "dW"} {
			g := &products[len(products)-3+i]
			g.BF16 = precision == BF16
			r.Products = append(r.Products, GemmProduct{Layer: l.name, Form: form, M: g.M, N: g.N, K: g.K, Blocks: l.blocks})
		}
	}
	seconds := make([][]float64, len(products))
	for try := -1; try < tries; try++ { // the first is not counted: it touches the scratch memory
		for i := range products {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("bench: %w", err)
			}
			begun := time.Now()
			kernel.MatMul(p, &products[i])
			if try >= 0 {
				seconds[i] = append(seconds[i], time.Since(begun).Seconds())
			}
		}
	}
	r.Peak.atMost(Peak(p, precision))
	var flops, time float64
	for i := range r.Products {
		q := &r.Products[i]
		n := 2 * float64(q.M) * float64(q.N) * float64(q.K)
		q.Seconds = spread(seconds[i])
		q.GFLOPs = n / q.Seconds.Median / 1e9
		q.Share = q.GFLOPs / r.Peak.GFLOPs
		r.Worst = min(r.Worst, q.Share)
		flops, time = flops+n*float64(q.Blocks), time+q.Seconds.Median*float64(q.Blocks)
	}
	r.GFLOPs = flops / time / 1e9
	r.Share = r.GFLOPs / r.Peak.GFLOPs
	return r, nil
}
