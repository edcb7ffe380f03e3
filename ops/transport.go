package ops

import "diptych/internal/kernel"

// Alignment is the distance between the words and the patches of each joined sequence by optimal transport (Kim et al. 2021, §3.2,
// as the authors' code has it: spec/vilt 3.2), times sign (sequences, 1), summed: x (R, D) are the rows of sentences joined with
// pictures -> (1, 2):
//
//	( Σ_s sign_s·Σ_ij plan_ij·(1 - cos(word_i, patch_j)),  Σ_s distance_s )
//
// The marks around the words and the class token take no part; a sentence without words counts for nothing. The plan is a
// constant to the gradient, and none flows from the second sum.
func (g *GraphOf[T]) Alignment(x *Node, j *Joined, sign *Node) *Node {
	if !g.operands("alignment", x, sign) {
		return nil
	}
	name := g.describe("alignment")
	if j == nil || sign.Cols() != 1 || !g.sameRows(name, x.buf.rows, j.Seqs.Rows) || !g.sameRows(name, sign.buf.rows, j.Seqs.Count) {
		return g.fail("%s: %s and %s do not fit the sequences: %w", name, x, sign, ErrShape)
	}
	y := g.matrix(name, fixed(1), 2)
	distance := workspace(name+".distance", j.Seqs.Count, 1)
	o := &op[T]{kind: "alignment", name: name, in: []*Node{x}, out: y, work: []*buffer{distance}}
	bind := func() kernel.Transport[T] {
		return kernel.Transport[T]{X: g.at(x), Cols: x.Cols(), Offsets: j.Seqs.offsets, Texts: j.first.offsets, Sign: g.at(sign)}
	}
	o.forward = func() {
		a := bind()
		a.Distance = g.mem.at(distance)
		kernel.TransportForward(g.mem.run.Pool, &a)
		signed, all := 0.0, 0.0
		for s, v := range a.Distance {
			signed, all = signed+float64(v)*float64(a.Sign[s]), all+float64(v)
		}
		g.at(y)[0], g.at(y)[1] = T(signed), T(all)
	}
	o.backward = func(r *reverse[T]) {
		d := r.grad(0)
		r.step(0, func() {
			a := bind()
			a.DX = g.mem.at(d)
			kernel.TransportBackward(g.mem.run.Pool, &a, g.mem.at(r.dy)[0])
		}, x.buf)
	}
	return g.add(o)
}
