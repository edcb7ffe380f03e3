package ops

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
	"diptych/internal/kernel"
)

// The authors' optimal_transport_dist: plans' distances and the gradient by the features.
func TestAlignmentGolden(t *testing.T) {
	f := golden.Load(t, "testdata/vilt-original-transport")
	d, m, n := f.Shape("in.text")[2], f.Shape("in.text")[1], f.Shape("in.image")[1]
	text, image, textPad, imagePad := f.Float32("in.text"), f.Float32("in.image"), f.Ints("in.text_pad"), f.Ints("in.image_pad")
	var x []float32
	texts, pics := []int32{0}, []int32{0}
	type place struct {
		text bool
		at   int
	}
	where := map[int]place{} // of the rows that take part
	for s := range 3 {
		x = append(x, make([]float32, d)...) // [CLS]
		for i := range m {
			if textPad[s*m+i] == 0 {
				where[len(x)/d] = place{true, (s*m + i) * d}
				x = append(x, text[(s*m+i)*d:(s*m+i+1)*d]...)
			}
		}
		x = append(x, make([]float32, d)...) // [SEP]
		end := int32(len(x) / d)
		x = append(x, make([]float32, d)...) // the class token
		for j := range n {
			if imagePad[s*n+j] == 0 {
				where[len(x)/d] = place{false, (s*n + j) * d}
				x = append(x, image[(s*n+j)*d:(s*n+j+1)*d]...)
			}
		}
		begin := texts[s] + pics[s]
		texts, pics = append(texts, texts[s]+end-begin), append(pics, pics[s]+int32(len(x)/d)-end)
	}
	g := NewGraph[float32]()
	a, b := g.Seqs("texts", 3, 100), g.Seqs("pictures", 3, 100)
	ta, tb := g.Input("text", a.Rows, d), g.Input("image", b.Rows, d)
	sign := g.Input("sign", a.Count, 1)
	rows, joined := g.Concat(ta, a, tb, b)
	loss := g.Alignment(rows, joined, sign)
	p, err := g.Compile(CompileOpt[float32]{Outputs: []*Node{loss}, Wrt: []*Node{ta, tb}})
	require.NoError(t, err)
	defer p.Close()
	p.Bind(&Run[float32]{Arena: make([]float32, p.ArenaSize())})
	var xa, xb []float32
	for s := range 3 {
		from := int(texts[s]+pics[s]) * d
		mid, to := from+int(texts[s+1]-texts[s])*d, int(texts[s+1]+pics[s+1])*d
		xa, xb = append(xa, x[from:mid]...), append(xb, x[mid:to]...)
	}
	weight := f.Float32("in.weight")
	p.SetSeqs(a, texts)
	p.SetSeqs(b, pics)
	p.SetInput(ta, xa)
	p.SetInput(tb, xb)
	p.SetInput(sign, weight)
	require.NoError(t, p.Forward())
	want, signed, all := f.Float32("out.distance"), 0.0, 0.0
	for s, v := range want {
		signed, all = signed+float64(v*weight[s]), all+float64(v)
	}
	require.InDelta(t, signed, p.Value(loss)[0], 3*f.Atol("out.distance"))
	require.InDelta(t, all, p.Value(loss)[1], 3*f.Atol("out.distance"))
	p.SetOutputGrad(loss, []float32{1, 0})
	require.NoError(t, p.Backward())
	dText, dImage := make([]float32, len(text)), make([]float32, len(image))
	var joinedGrad []float32
	for s := range 3 {
		joinedGrad = append(joinedGrad, p.InputGrad(ta)[int(texts[s])*d:int(texts[s+1])*d]...)
		joinedGrad = append(joinedGrad, p.InputGrad(tb)[int(pics[s])*d:int(pics[s+1])*d]...)
	}
	for r := range len(joinedGrad) / d {
		row := joinedGrad[r*d : (r+1)*d]
		switch w, ok := where[r]; {
		case !ok:
			require.Equal(t, make([]float32, d), row, "row %d", r)
		case w.text:
			copy(dText[w.at:], row)
		default:
			copy(dImage[w.at:], row)
		}
	}
	f.Check(t, "grad.text", dText)
	f.Check(t, "grad.image", dImage)

	plan := f.Float32("out.plan.50")
	offsets := []int32{0}
	for s := range 3 {
		offsets = append(offsets, texts[s+1]+pics[s+1])
	}
	for s := range 3 {
		got, words, patches := kernel.TransportPlan(&kernel.Transport[float32]{X: x, Cols: d, Offsets: offsets, Texts: texts}, s)
		var want []float32
		for j := range n {
			for i := range m {
				if textPad[s*m+i] == 0 && imagePad[s*n+j] == 0 {
					want = append(want, plan[(s*n+j)*m+i])
				}
			}
		}
		require.Equal(t, len(want), words*patches)
		golden.Close(t, "out.plan.50", got, want, f.Atol("out.plan.50"))
	}
}

// A sentence of two marks alone has no words to align: the authors' code divides by zero there.
func TestAlignmentWithoutWords(t *testing.T) {
	b := newBench[float32](t)
	a, c := b.seqs("a", 0, 2, 6), b.seqs("c", 0, 4, 6)
	x, j := b.Concat(b.inputOf("x", a.Rows, 6, 5), a, b.inputOf("y", c.Rows, 6, 5), c)
	b.compile(b.Alignment(x, j, b.data("sign", 2, 1)))
	clear(b.run.Grads)
	require.NoError(t, b.prog.Forward())
	require.NoError(t, b.prog.Backward())
	grad := b.prog.InputGrad(b.wrt[0])
	require.Equal(t, make([]float32, 3*5), grad[:3*5]) // both marks, and the next sentence's first
	require.True(t, slices.ContainsFunc(grad[3*5:5*5], func(v float32) bool { return v != 0 }))
}
