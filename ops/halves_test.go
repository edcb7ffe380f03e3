package ops

import (
	"testing"

	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

// What attention reads is stored as bfloat16 unless something else reads it too, and that makes no difference to any bit.
func TestAttentionOperandsAreStoredAsBF16(t *testing.T) {
	for name, attend := range map[string]func(b *bench[float32], x *Node, seqs *Seqs) (y, stored *Node){
		"packed": func(b *bench[float32], x *Node, seqs *Seqs) (y, stored *Node) {
			qkv := b.Linear(x, b.param("w", 24, 12), b.param("bias", 24), LinearOpt{})
			return b.Attention(qkv, seqs, 2, true), qkv
		},
		"pooled": func(b *bench[float32], x *Node, seqs *Seqs) (y, stored *Node) {
			kv := b.Linear(x, b.param("w", 16, 12), nil, LinearOpt{})
			q := b.Linear(b.Gather(x, b.First(seqs).Rows), b.param("q", 8, 12), nil, LinearOpt{})
			return b.PooledAttention(q, kv, seqs, 2), kv
		},
		"cross": func(b *bench[float32], x *Node, seqs *Seqs) (y, stored *Node) {
			kv := b.Linear(x, b.param("w", 16, 12), nil, LinearOpt{})
			q := b.Linear(x, b.param("q", 8, 12), nil, LinearOpt{})
			return b.CrossAttention(q, seqs, kv, seqs, nil, 2), kv
		},
	} {
		build := func(output bool) (*bench[float32], *Node) {
			b := newBench[float32](t)
			b.RoundProducts()
			seqs := b.seqs("seqs", 0, 4, 9)
			y, stored := attend(b, b.inputOf("x", seqs.Rows, 9, 12), seqs)
			outs := []*Node{b.Linear(y, b.param("out", 6, 8), nil, LinearOpt{})}
			if output {
				outs = append(outs, stored)
			}
			return b.compile(outs...), stored
		}
		half, stored := build(false)
		full, kept := build(true)
		clear(full.fed[1])
		copy(full.fed[0], half.fed[0])
		require.True(t, stored.buf.half, name)
		require.False(t, kept.buf.half, name)
		require.Equal(t, full.gradients(), half.gradients(), name)
		require.Equal(t, full.prog.Value(full.outs[0]), half.prog.Value(half.outs[0]), name)
		require.Less(t, half.prog.ArenaSize(), full.prog.ArenaSize(), name)
	}
}

// The argument of an activation is rounded for the backward pass alone: values stay, and gradients move by a rounding. Blocks
// that are computed again give the same bits.
func TestActivationArgumentsAreStoredAsBF16(t *testing.T) {
	build := func(bf16, recompute, dropout bool) *bench[float32] {
		b := newBench[float32](t)
		if bf16 {
			b.RoundProducts()
		}
		if recompute {
			b.RecomputeBlocks()
		}
		seqs := b.seqs("seqs", 0, 4, 9)
		x := b.inputOf("x", seqs.Rows, 9, 12)
		y := x
		for _, name := range []string{"a", "b"} {
			b.BeginBlock()
			h := b.LayerNorm(y, b.param(name+".gamma", 12), b.param(name+".beta", 12), 1e-5)
			w1, b1, w2 := b.param(name+".w1", 32, 12), b.param(name+".b1", 32), b.param(name+".w2", 12, 32)
			if dropout {
				h = b.Dropout(b.Linear(h, w1, b1, LinearOpt{Act: kernel.ActGELU}), 0.1, name, seqs)
				y = b.Linear(h, w2, nil, LinearOpt{Residual: y})
			} else {
				y = b.MLP(h, w1, b1, w2, nil, kernel.ActGELU, y)
			}
			b.EndBlock(y)
		}
		return b.compile(y)
	}
	for _, dropout := range []bool{false, true} {
		half, again, full := build(true, false, dropout), build(true, true, dropout), build(false, false, dropout)
		grads, want := half.gradients(), full.gradients()
		require.Equal(t, grads, again.gradients())
		require.Equal(t, half.prog.Value(half.outs[0]), again.prog.Value(again.outs[0]))
		require.NotEqual(t, want, grads)
		largest := float32(0)
		for _, g := range want {
			largest = max(largest, g, -g)
		}
		require.InDeltaSlice(t, want, grads, 0.02*float64(largest))
		require.Less(t, half.prog.ArenaSize(), full.prog.ArenaSize())
		require.Equal(t, half.prog.Stats().ForwardFLOPs, full.prog.Stats().ForwardFLOPs)
	}
}
