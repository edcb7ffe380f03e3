package bench

import (
	"context"
	"fmt"
	"time"

	"diptych/internal/kernel"
)

// AttentionResult is the speed of fused attention, forward and backward.
type AttentionResult struct {
	Peak   PeakResult       `json:"peak"`
	Shapes []AttentionShape `json:"shapes"`
}

// AttentionShape is one shape of sequences and heads.
type AttentionShape struct {
	Tokens    int     `json:"tokens"` // of a sequence
	Sequences int     `json:"sequences"`
	Heads     int     `json:"heads"`
	HeadDim   int     `json:"headDim"`
	Causal    bool    `json:"causal"`
	Forward   Spread  `json:"forward"`  // seconds
	Backward  Spread  `json:"backward"` // seconds
	GFLOPs    float64 `json:"gflops"`   // of both; seven products of tokens², half of that if causal
	Share     float64 `json:"share"`
}

// attentionShapes are those of the towers that are trained: the demo's, ViT-B/32's two, ViLT's, ViT-B/16's, and 384 pixels.
var attentionShapes = []AttentionShape{
	{Tokens: 17, Sequences: 128, Heads: 4, HeadDim: 32}, {Tokens: 50, Sequences: 32, Heads: 12, HeadDim: 64},
	{Tokens: 77, Sequences: 32, Heads: 8, HeadDim: 64, Causal: true}, {Tokens: 185, Sequences: 8, Heads: 12, HeadDim: 64},
	{Tokens: 197, Sequences: 8, Heads: 12, HeadDim: 64}, {Tokens: 577, Sequences: 4, Heads: 12, HeadDim: 64},
}

// Attention times the attention of packed queries, keys and values at several lengths, tries times in turn.
func Attention(ctx context.Context, tries int, precision string, p *kernel.Pool) (*AttentionResult, error) {
	r := &AttentionResult{Peak: Peak(p, precision), Shapes: append([]AttentionShape(nil), attentionShapes...)}
	runs := make([]kernel.Attention[float32], len(r.Shapes))
	for i, s := range r.Shapes {
		rows, d := s.Tokens*s.Sequences, s.Heads*s.HeadDim
		a := &runs[i]
		*a = kernel.Attention[float32]{Heads: s.Heads, HeadDim: s.HeadDim, Causal: s.Causal, BF16: precision == BF16}
		for _, m := range []struct {
			to *[]float32
			n  int
		}{{&a.QKV, 3 * rows * d}, {&a.Out, rows * d}, {&a.LSE, rows * s.Heads}, {&a.DOut, rows * d}, {&a.DQKV, 3 * rows * d}} {
			*m.to = kernel.NewSlab(m.n)
			defer kernel.FreeSlab(*m.to)
		}
		fill(a.QKV)
		fill(a.DOut)
		for j := range s.Sequences + 1 {
			a.Offsets = append(a.Offsets, int32(j*s.Tokens))
		}
	}
	there, back := make([][]float64, len(runs)), make([][]float64, len(runs))
	for try := -1; try < tries; try++ { // the first is not counted
		for i := range runs {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("bench: %w", err)
			}
			begun := time.Now()
			kernel.AttentionForward(p, &runs[i])
			turned := time.Now()
			kernel.AttentionBackward(p, &runs[i])
			if try >= 0 {
				there[i] = append(there[i], turned.Sub(begun).Seconds())
				back[i] = append(back[i], time.Since(turned).Seconds())
			}
		}
	}
	r.Peak.atMost(Peak(p, precision))
	for i := range r.Shapes {
		s := &r.Shapes[i]
		s.Forward, s.Backward = spread(there[i]), spread(back[i])
		flops := 7 * 2 * float64(s.Sequences*s.Heads) * float64(s.Tokens*s.Tokens) * float64(s.HeadDim)
		if s.Causal {
			flops /= 2
		}
		s.GFLOPs = flops / (s.Forward.Median + s.Backward.Median) / 1e9
		s.Share = s.GFLOPs / r.Peak.GFLOPs
	}
	return r, nil
}
