package kernel

// The portable product packs both matrices into strips and multiplies them in tiles, which keeps the loop free of strides,
// transpositions and edges. Tiles are 4×4 in Go, where products are rounded before they are added (an explicit conversion
// forbids fusing), so that every machine gives the same bits, and 8×12 with NEON.

const tile = 4 // of mulTile

// portableRun is a product being dealt. It stays with the Pool, so that its func values are made once.
type portableRun[T Float] struct {
	pool       *Pool
	g          *Gemm[T]
	rows, cols int // of a tile
	b          []T // B in strips of cols columns: strip, k, column
	packB, mul func(lo, hi, thread int)
}

func portableRunOf[T Float](p *Pool) *portableRun[T] {
	r, ok := any(&p.portable32).(*portableRun[T])
	if !ok {
		r = any(&p.portable64).(*portableRun[T])
	}
	if r.pool == nil {
		r.pool, r.packB, r.mul = p, r.packBStrips, r.mulStrips
	}
	return r
}

func matMulPortable[T Float](p *Pool, g *Gemm[T]) {
	r := portableRunOf[T](p)
	r.g, r.rows, r.cols = g, tile, tile
	if isSingle[T]() && useNEON && g.K > 0 {
		r.rows, r.cols = 8, 12
	}
	strips := ceilDiv(g.N, r.cols)
	r.b = scratch[T](p, 0, slotPackB, strips*r.cols*g.K)
	p.For(strips, 16, r.packB)
	p.For(ceilDiv(g.M, r.rows), 4, r.mul)
	r.g, r.b = nil, nil
}

// packStrip copies columns [j, j+width) of the (k, n) matrix whose element (k, j) is x[k*sk+j*sj]; columns past n become 0.
func packStrip[T Float](dst, x []T, j, width, n, k, sk, sj int) {
	for c := range width {
		if j+c >= n {
			for i := range k {
				dst[i*width+c] = 0
			}
			continue
		}
		at := (j + c) * sj
		for i := range k {
			dst[i*width+c] = x[at]
			at += sk
		}
	}
}

// roundStrip rounds a packed strip if the product wants bfloat16.
func (g *Gemm[T]) roundStrip(s []T) {
	if g.BF16 {
		roundInto(s, s)
	}
}

func strides(trans bool, ld int) (int, int) {
	if trans {
		return 1, ld
	}
	return ld, 1
}

func (r *portableRun[T]) packBStrips(lo, hi, _ int) {
	g := r.g
	sk, sj := strides(g.TransB, g.LDB)
	for s := lo; s < hi; s++ {
		strip := r.b[s*r.cols*g.K : (s+1)*r.cols*g.K]
		packStrip(strip, g.B, s*r.cols, r.cols, g.N, g.K, sk, sj)
		g.roundStrip(strip)
	}
}

func (r *portableRun[T]) mulStrips(lo, hi, thread int) {
	g := r.g
	a := scratch[T](r.pool, thread, slotPackA, r.rows*g.K)
	si, sk := strides(g.TransA, g.LDA)
	var acc [8 * 12]T // row by row
	for s := lo; s < hi; s++ {
		packStrip(a, g.A, s*r.rows, r.rows, g.M, g.K, sk, si)
		g.roundStrip(a)
		for j := 0; j < g.N; j += r.cols {
			if b := r.b[j*g.K : (j+r.cols)*g.K]; r.cols == tile {
				mulTile((*[tile * tile]T)(acc[:]), a, b)
			} else {
				tileNEON(single(acc[:]), single(a), single(b))
			}
			for i := s * r.rows; i < min(g.M, (s+1)*r.rows); i++ {
				g.finish(i, j, acc[(i-s*r.rows)*r.cols:][:min(r.cols, g.N-j)])
			}
		}
	}
}

// mulTile sets acc = aᵀb for strips a and b of equal length.
func mulTile[T Float](acc *[tile * tile]T, a, b []T) {
	for h := 0; h < tile; h += 2 { // two rows at a time: 8 sums and 6 factors fit in 15 registers
		var s00, s01, s02, s03, s10, s11, s12, s13 T
		x := a
		y := b
		for len(x) >= tile && len(y) >= tile {
			p, q := x[h], x[h+1]
			b0, b1, b2, b3 := y[0], y[1], y[2], y[3]
			s00 += T(p * b0)
			s01 += T(p * b1)
			s02 += T(p * b2)
			s03 += T(p * b3)
			s10 += T(q * b0)
			s11 += T(q * b1)
			s12 += T(q * b2)
			s13 += T(q * b3)
			x, y = x[tile:], y[tile:]
		}
		t := acc[h*tile : h*tile+2*tile]
		t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] = s00, s01, s02, s03, s10, s11, s12, s13
	}
}

// finish turns sums of row i, from column j on, into elements of C.
func (g *Gemm[T]) finish(i, j int, sums []T) {
	scale := g.scale()
	at := i*g.LDC + j
	for n, v := range sums {
		v = T(scale * v)
		if g.Accumulate {
			v += g.C[at+n]
		}
		if g.Bias != nil {
			v += g.Bias[j+n]
		}
		switch {
		case g.ActGrad != nil:
			v = T(v * actGrad(g.Act, g.ActGrad[at+n]))
		case g.ActGrad16 != nil:
			v = T(v * actGrad(g.Act, T(fromBF16(g.ActGrad16[at+n]))))
		default:
			if g.Pre != nil {
				g.Pre[at+n] = v
			}
			if g.Pre16 != nil {
				g.Pre16[at+n] = toBF16(float32(v))
			}
			v = actValue(g.Act, v)
		}
		if g.Residual != nil {
			v += g.Residual[at+n]
		}
		if g.C16 != nil {
			g.C16[at+n] = toBF16(float32(v))
		} else {
			g.C[at+n] = v
		}
	}
}
