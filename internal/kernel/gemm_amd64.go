//go:build amd64 && !noasm

package kernel

import "unsafe"

// gemmArgs is what a tile's kernel reads (offsets in asmgen/gemm.go). It lives on the stack.
type gemmArgs struct {
	k             int
	a, b, c       unsafe.Pointer
	ldc, lda, ldb int    // bytes
	mask          uint64 // of the last vector of a row of C
	bias          unsafe.Pointer
	residual      unsafe.Pointer // rows ldc apart
	prefetch      uintptr        // one line for each k, step bytes apart; may lie outside of everything, so it is no pointer
	step          int
	fetch         unsafe.Pointer // rows ldc apart that are wanted soon after the tile's sums, to fetch with C; or nil
	accumulate    int
	scale         float32
}

// tiling is how a family cuts C: tiles of m rows, or what is left of fewer, by n columns, a multiple of its lanes.
type tiling struct {
	m, n, lanes int
	maxStrips   int    // bounds the strips of m rows that meet a panel of B while it is in cache
	height      []int8 // of the tallest tile that fits so many rows
}

var (
	tilingAVX512 = tiling{m: 14, n: 32, lanes: 16, maxStrips: 10, height: []int8{0, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 14}}
	tilingAVX2   = tiling{m: 6, n: 16, lanes: 8, maxStrips: 24, height: []int8{0, 1, 2, 2, 4, 4, 6}}
)

const (
	// maxKC is the longest stretch of k that is summed in registers; longer sums are cut into equal blocks of at most
	// this, which fits the second-level cache together with a block of A. How K is cut depends on K alone.
	maxKC = 768
	// maxNC bounds the columns of B packed at once.
	maxNC = 3072
	// maxPacked bounds the floats of B that are packed before any is used, if that is more than a stretch: packing all at once
	// saves the threads from waiting for each other between stretches.
	maxPacked = 3 << 19
	// packedRows and packedStrips are the rows of B as it lies, and the strips of A, that are packed at once.
	packedRows, packedStrips = 64, 5
	// packPieces is into how many pieces for each thread packing is cut.
	packPieces = 4
	// epilogueN is how many columns are finished before their activation is computed, while they are in cache.
	epilogueN = 128
	// serialWork is the number of multiply-adds below which waking another thread costs more than it saves.
	serialWork = 1 << 20
)

// runTile calls the kernel of a tile of h rows. The calls are direct, so that p need not live on the heap.
func (r *gemmRun) runTile(h int, byK, narrow bool, p *byte) {
	switch {
	case r.pairs:
		h += tilePairs
	case byK:
		h += tileByK
	}
	switch {
	case !useAVX512:
		h += tileAVX2
	case narrow:
		h += tileNarrow
	}
	switch h {
	case 14:
		tile14x32(p)
	case 8:
		tile8x32(p)
	case 4:
		tile4x32(p)
	case 2:
		tile2x32(p)
	case 1:
		tile1x32(p)
	case 14 + tileNarrow:
		tile14x16(p)
	case 8 + tileNarrow:
		tile8x16(p)
	case 4 + tileNarrow:
		tile4x16(p)
	case 2 + tileNarrow:
		tile2x16(p)
	case 1 + tileNarrow:
		tile1x16(p)
	case 14 + tileByK:
		tile14x32ByK(p)
	case 8 + tileByK:
		tile8x32ByK(p)
	case 4 + tileByK:
		tile4x32ByK(p)
	case 2 + tileByK:
		tile2x32ByK(p)
	case 1 + tileByK:
		tile1x32ByK(p)
	case 14 + tileByK + tileNarrow:
		tile14x16ByK(p)
	case 8 + tileByK + tileNarrow:
		tile8x16ByK(p)
	case 4 + tileByK + tileNarrow:
		tile4x16ByK(p)
	case 2 + tileByK + tileNarrow:
		tile2x16ByK(p)
	case 1 + tileByK + tileNarrow:
		tile1x16ByK(p)
	case 14 + tilePairs:
		tile14x32ByKBF16(p)
	case 8 + tilePairs:
		tile8x32ByKBF16(p)
	case 4 + tilePairs:
		tile4x32ByKBF16(p)
	case 2 + tilePairs:
		tile2x32ByKBF16(p)
	case 1 + tilePairs:
		tile1x32ByKBF16(p)
	case 14 + tilePairs + tileNarrow:
		tile14x16ByKBF16(p)
	case 8 + tilePairs + tileNarrow:
		tile8x16ByKBF16(p)
	case 4 + tilePairs + tileNarrow:
		tile4x16ByKBF16(p)
	case 2 + tilePairs + tileNarrow:
		tile2x16ByKBF16(p)
	case 1 + tilePairs + tileNarrow:
		tile1x16ByKBF16(p)
	case 6 + tileAVX2:
		tile6x16AVX2(p)
	case 4 + tileAVX2:
		tile4x16AVX2(p)
	case 2 + tileAVX2:
		tile2x16AVX2(p)
	case 1 + tileAVX2:
		tile1x16AVX2(p)
	case 6 + tileByK + tileAVX2:
		tile6x16ByKAVX2(p)
	case 4 + tileByK + tileAVX2:
		tile4x16ByKAVX2(p)
	case 2 + tileByK + tileAVX2:
		tile2x16ByKAVX2(p)
	case 1 + tileByK + tileAVX2:
		tile1x16ByKAVX2(p)
	}
}

// Summands of runTile's cases.
const (
	tileNarrow = 16
	tileByK    = 32
	tilePairs  = 64
	tileAVX2   = 128
)

// gemmRun is a product being dealt: a block of columns and some stretches of k at a time. It stays with the Pool.
type gemmRun struct {
	pool *Pool
	g    *Gemm[float32]

	tile         *tiling
	packB, packA bool
	shareA       bool  // all of A is packed before pieces are dealt, as B is, for several pieces need the same rows
	pairs        bool  // words of packed A and B are pairs of bfloat16
	round        bool  // words are floats, rounded to bfloat16
	strips       int   // at most so many strips of rows are a piece
	group        int   // columns of a piece, in panels of tileN
	cuts         []int // where pieces begin, in strips, counted through one group of panels after the other; and the end
	panels       int
	packsB       int // pieces in which a stretch of B is packed
	packsA       int // pieces in which a stretch of A is packed if it is shared
	jc, nc       int // columns of this block
	perWord      int // 1, or 2 for pairs
	kc           int // the longest stretch of k that is summed at once
	from, to     int // the stretches that are packed together

	b         []float32 // packed B: stretch, panel, word, column
	a         []float32 // if shareA, packed A: stretch, strip, word, row
	pack, mul func(lo, hi, thread int)
}

// stretch is a part of k that is summed in registers.
type stretch struct {
	pc, kc int // the first k and how many
	words  int // of packed A or B along it
	last   bool
	b, a   int // where it begins in packed B and shared A
}

// stretch returns number i.
func (r *gemmRun) stretch(i int) stretch {
	s := stretch{pc: i * r.kc, kc: min(r.kc, r.g.K-i*r.kc)}
	s.words, s.last = ceilDiv(s.kc, r.perWord), s.pc+s.kc == r.g.K
	full := ceilDiv(r.kc, r.perWord) * (i - r.from)
	s.b = full * r.panels * r.tile.n
	if r.shareA {
		s.a = (i - r.from) * r.allStrips() * r.aStrip(ceilDiv(r.kc, r.perWord))
	}
	return s
}

func (r *gemmRun) allStrips() int { return ceilDiv(r.g.M, r.tile.m) }

func at(s []float32, i int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), 4*i)
}

// matMulASM computes g with vectors if the family has them and there is anything to sum.
func matMulASM(p *Pool, g *Gemm[float32]) bool {
	if !useAVX512 && !useAVX2 || g.K == 0 {
		return false
	}
	r := &p.gemm
	if r.tile = &tilingAVX512; !useAVX512 {
		r.tile = &tilingAVX2
	}
	tileN := r.tile.n
	if r.pool == nil {
		r.pool, r.pack, r.mul = p, r.packAll, r.mulPiece
	}
	r.g = g
	r.pairs, r.round = g.BF16 && hasBF16, g.BF16 && !hasBF16
	r.perWord = 1
	if r.pairs {
		r.perWord = 2
	}
	stretches := ceilDiv(g.K, maxKC*r.perWord)
	unit := 4 * r.perWord
	r.kc = min(g.K, ceilDiv(ceilDiv(g.K, stretches), unit)*unit)
	nc := (ceilDiv(g.N, ceilDiv(g.N, maxNC)) + tileN - 1) / tileN * tileN

	// Reading A in place costs nothing as long as its rows do not all fall into the same few sets of the caches: rows a
	// multiple of 4 KiB apart do, and are packed if enough panels of B follow to pay for it.
	// B, if its rows lie in order, is read in place where few rows of C do not pay for packing it.
	r.packB = g.TransB || g.M > 3*r.tile.m || g.BF16 || !useAVX512
	r.packA = g.N > 3*tileN && g.LDA%1024 == 0 || g.BF16
	groups := 1
	if g.M*min(nc, g.N)*g.K < serialWork { // one piece, which the caller does alone
		r.strips, r.group = r.allStrips(), ceilDiv(nc, tileN)
		r.cuts = append(r.cuts[:0], 0, r.strips)
	} else {
		groups = r.deal(ceilDiv(min(nc, g.N), tileN))
	}
	r.shareA = r.packA && groups > 1
	words := ceilDiv(r.kc, r.perWord)
	together := max(1, min(ceilDiv(g.K, r.kc), maxPacked/(words*nc)))
	if g.C16 != nil { // sums stay with a thread until they are finished
		together = ceilDiv(g.K, r.kc)
	}
	if r.packB {
		r.b = scratch[float32](p, 0, slotPackB, together*words*nc)
	}
	if r.shareA {
		r.a = scratch[float32](p, 0, slotSharedA, together*r.allStrips()*r.aStrip(words))
	}
	for r.jc = 0; r.jc < g.N; r.jc += nc {
		r.nc = min(nc, g.N-r.jc)
		r.panels = ceilDiv(r.nc, tileN)
		r.packsB, r.packsA = 0, 0
		switch {
		case r.packB && g.TransB:
			r.packsB = r.panels
		case r.packB:
			r.packsB = ceilDiv(r.kc, packedRows)
		}
		if r.shareA {
			r.packsA = ceilDiv(r.allStrips(), packedStrips)
		}
		for r.from = 0; r.from*r.kc < g.K; r.from += together {
			r.to = min(r.from+together, ceilDiv(g.K, r.kc))
			packs := (r.to - r.from) * (r.packsB + r.packsA)
			pieces := len(r.cuts) - 1
			if pieces == 1 {
				p.For(packs, packs, r.pack)
			} else {
				p.For(packs, ceilDiv(packs, packPieces*p.threads), r.pack)
			}
			p.For(pieces, 1, r.mul)
		}
	}
	r.g, r.b, r.a = nil, nil, nil
	return true
}

// deal cuts C into pieces, large ones first and small ones last, so that the threads end together: by rows alone if there are
// many, which packs each row of A once; else also into groups of panels. It returns the number of groups.
func (r *gemmRun) deal(panels int) int {
	const perThread = 24 // strips at least, counted once in each group
	threads, strips, groups := r.pool.threads, r.allStrips(), 1
	if threads > 1 {
		groups = min(ceilDiv(perThread*threads, strips), ceilDiv(panels, 2))
	}
	r.group = ceilDiv(panels, groups)
	groups = ceilDiv(panels, r.group)
	r.cuts, r.strips = append(r.cuts[:0], 0), 0
	for at, all := 0, groups*strips; at < all; {
		n := min(r.tile.maxStrips, strips-at%strips)
		if threads > 1 {
			n = min(n, ceilDiv(all-at, 2*threads))
		}
		at += n
		r.cuts, r.strips = append(r.cuts, at), max(r.strips, n)
	}
	return groups
}

// packAll packs, for one stretch after the other, pieces of B and pieces of A: of a transposed B panels; of B as it is some rows
// of all panels, which lie in order; of A some strips.
func (r *gemmRun) packAll(lo, hi, _ int) {
	g, tileM, tileN := r.g, r.tile.m, r.tile.n
	for t := lo; t < hi; t++ {
		s, u := r.stretch(r.from+t/(r.packsB+r.packsA)), t%(r.packsB+r.packsA)
		switch {
		case u >= r.packsB:
			first := (u - r.packsB) * packedStrips
			r.packRowsOfA(s, r.a[s.a+first*r.aStrip(s.words):], first*tileM, min(g.M, (first+packedStrips)*tileM))
		case g.TransB:
			r.packPanel(s, u)
		default:
			k := u * packedRows
			if n := min(packedRows, s.kc-k); n > 0 { // the last stretch may be shorter
				r.packRows(n, at(g.B, (s.pc+k)*g.LDB+r.jc), g.LDB, r.b[s.b+k/r.perWord*tileN:], tileN, s.words*tileN, r.nc)
			}
		}
	}
}

// packPanel packs a panel of a stretch of this block of the transposed B.
func (r *gemmRun) packPanel(s stretch, panel int) {
	g, tileN, lanes := r.g, r.tile.n, r.tile.lanes
	j := panel * tileN
	dst := r.b[s.b+j*s.words : s.b+(j+tileN)*s.words]
	n := min(tileN, r.nc-j)
	var rows [16]*float32
	for v := 0; v < n; v += lanes {
		for i := range rows[:lanes] { // rows past the end repeat the last; nobody reads their results
			rows[i] = (*float32)(at(g.B, (r.jc+j+min(v+i, n-1))*g.LDB+s.pc))
		}
		r.packTransposed(&rows, s.kc, &dst[v], 4*tileN)
	}
	r.rounded(dst)
}

// packTransposed turns as many rows of k floats as a vector has lanes into rows of so many words, stride bytes apart.
func (r *gemmRun) packTransposed(rows *[16]*float32, k int, dst *float32, stride int) {
	switch {
	case r.pairs:
		packTransposedBF16(rows, k, dst, stride)
	case useAVX512:
		packTransposed(rows, k, dst, stride)
	default:
		transposeAVX2(rows, k, dst, stride)
	}
}

// packRows turns k rows of cols floats, lds floats apart, into panels of width ≤ 32 columns, step floats apart: rows of words.
// What the last panel lacks is zeros.
func (r *gemmRun) packRows(k int, src unsafe.Pointer, lds int, dst []float32, width, step, cols int) {
	n := cols / width
	if n > 0 {
		r.packPanels(k, src, lds, &dst[0], n, width, step, width)
	}
	if rest := cols % width; rest > 0 {
		r.packPanels(k, unsafe.Add(src, 4*n*width), lds, &dst[n*step], 1, width, step, rest)
	}
	for i := 0; r.round && i < cols; i += width {
		r.rounded(dst[i/width*step:][:k*width])
	}
}

// packPanels packs n panels whose rows take width words, of cols columns.
func (r *gemmRun) packPanels(k int, src unsafe.Pointer, lds int, dst *float32, n, width, step, cols int) {
	from := (*float32)(src)
	ahead := 4 * lds * max(4, 64/n) // some rows, more of them if they are short
	switch {
	case r.pairs && cols > 16:
		packRows32BF16(k, from, 4*lds, ahead, dst, 4*width, n, 4*step, mask16(cols-16))
	case r.pairs:
		packRows16BF16(k, from, 4*lds, ahead, dst, 4*width, n, 4*step, mask16(cols))
	case cols > 16:
		packRows32(k, from, 4*lds, ahead, dst, 4*width, n, 4*step, mask16(cols-16))
	case useAVX512:
		packRows16(k, from, 4*lds, ahead, dst, 4*width, n, 4*step, mask16(cols))
	default:
		for i := range k {
			for p := range n {
				to := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(dst), 4*(i*width+p*step))), width)
				clear(to[copy(to, unsafe.Slice((*float32)(unsafe.Add(src, 4*(i*lds+p*width))), cols)):])
			}
		}
	}
}

// rounded rounds packed floats where the product wants bfloat16 and the processor has no products of pairs.
func (r *gemmRun) rounded(packed []float32) {
	if r.round {
		roundInto(packed, packed)
	}
}

func mask16(n int) uint64 { return 1<<n - 1 }

// aStrip is the length of a packed strip of A. Kernels of package asmgen store whole vectors, so 16 floats follow.
func (r *gemmRun) aStrip(words int) int { return (r.tile.m*words + 31) &^ 15 }

// packRowsOfA packs rows [lo, hi) of a stretch of k: strips of the heights the tiles will have, each (k, height).
func (r *gemmRun) packRowsOfA(t stretch, a []float32, lo, hi int) {
	g, strip, tileM := r.g, r.aStrip(t.words), r.tile.m
	if g.TransA {
		rest := (hi - lo) % tileM
		if lo+rest < hi {
			r.packRows(t.kc, at(g.A, t.pc*g.LDA+lo), g.LDA, a, tileM, strip, hi-lo-rest)
		}
		if rest > 0 {
			r.packRows(t.kc, at(g.A, t.pc*g.LDA+hi-rest), g.LDA, a[(hi-lo)/tileM*strip:], rest, 0, rest)
		}
		return
	}
	var rows [16]*float32
	for i, s := lo, 0; i < hi; i, s = i+tileM, s+1 {
		for off := 0; off < min(tileM, hi-i); {
			h := int(r.tile.height[min(tileM, hi-i-off)])
			for n := range rows {
				rows[n] = (*float32)(at(g.A, (i+off+min(n, h-1))*g.LDA+t.pc))
			}
			r.packTransposed(&rows, t.kc, &a[s*strip+off*t.words], 4*h)
			off += h
		}
		r.rounded(a[s*strip : s*strip+tileM*t.words])
	}
}

// mulPiece computes pieces [lo, hi) of C.
func (r *gemmRun) mulPiece(lo, hi, thread int) {
	strips, tileM := r.allStrips(), r.tile.m
	for t := lo; t < hi; t++ {
		first, group := r.cuts[t]%strips, r.cuts[t]/strips
		i0, i1 := first*tileM, min(r.g.M, (first+r.cuts[t+1]-r.cuts[t])*tileM)
		p0 := group * r.group
		if p0 >= r.panels { // the last columns are fewer
			continue
		}
		p1 := min(r.panels, p0+r.group)
		for i := r.from; i < r.to; i++ {
			s := r.stretch(i)
			var a []float32
			switch {
			case r.shareA:
				a = r.a[s.a+first*r.aStrip(s.words):]
			case r.packA:
				a = scratch[float32](r.pool, thread, slotPackA, r.strips*r.aStrip(s.words))
				r.packRowsOfA(s, a, i0, i1)
			}
			r.mulRows(s, a, thread, i0, i1, p0, p1)
		}
	}
}

// sums is where the tiles of a piece put their sums: rows that are ld apart, of C from row i and column j on.
type sums struct {
	x     []float32
	ld    int
	i, j  int
	reuse bool // by tile after tile, each of which is rounded at once
}

func (s *sums) at(i, j int) unsafe.Pointer {
	if s.reuse {
		return at(s.x, 0)
	}
	return at(s.x, (i-s.i)*s.ld+j-s.j)
}

// sums returns the place for a piece of the given columns that begins at row i and column j.
func (r *gemmRun) sums(thread, i, j, cols int) sums {
	switch g := r.g; {
	case g.C16 != nil && r.kc >= g.K:
		return sums{x: scratch[float32](r.pool, thread, slotSums, r.tile.m*r.tile.n), ld: r.tile.n, reuse: true}
	case g.C16 != nil:
		return sums{x: scratch[float32](r.pool, thread, slotSums, r.strips*r.tile.m*cols), ld: cols, i: i, j: j}
	case g.Pre != nil:
		return sums{x: g.Pre, ld: g.LDC}
	default:
		return sums{x: g.C, ld: g.LDC}
	}
}

// mulRows computes rows [i0, i1) and panels [p0, p1) of this block, for a stretch of k.
func (r *gemmRun) mulRows(s stretch, a []float32, thread, i0, i1, p0, p1 int) {
	g, tileN, last := r.g, r.tile.n, s.last
	post := g.Act != ActNone || g.ActGrad != nil || g.ActGrad16 != nil || g.Pre != nil || g.Pre16 != nil
	c := r.sums(thread, i0, r.jc+p0*tileN, (p1-p0)*tileN)
	args := gemmArgs{k: s.words, ldc: 4 * c.ld, scale: g.scale()}
	if g.Accumulate || s.pc > 0 {
		args.accumulate = 1
	}
	finished := p0 * tileN
	for p := p0; p < p1; p++ {
		j := p * tileN
		n := min(tileN, r.nc-j)
		// A panel in place is read in whole vectors of the wide kernel only where they exist.
		for w := 0; w < n; {
			cols, narrow := n-w, false
			if cols <= 16 || !r.packB && cols < tileN {
				cols, narrow = min(cols, 16), true
				args.mask = mask16(cols)
			} else {
				args.mask = mask16(cols - 16)
			}
			if r.packB {
				args.b, args.ldb = at(r.b, s.b+j*s.words+w), 4*tileN
			} else {
				args.b, args.ldb = at(g.B, s.pc*g.LDB+r.jc+j+w), 4*g.LDB
			}
			col := r.jc + j + w
			args.bias = nil
			if last && g.Bias != nil {
				args.bias = at(g.Bias, col)
			}
			r.mulPanel(s, &args, a, c, i0, i1, col, cols, narrow, p == p0, last && !post)
			w += cols
		}
		if end := min(r.nc, j+tileN); last && post && (end-finished >= epilogueN || p == p1-1) {
			g.activate(i0, i1, r.jc+finished, r.jc+end)
			finished = end
		}
	}
}

// mulPanel runs the tiles of rows [i0, i1) against one panel, which args describes, at cols columns of C from col on.
func (r *gemmRun) mulPanel(t stretch, args *gemmArgs, a []float32, c sums, i0, i1, col, cols int, narrow, first, residual bool) {
	g, tileM, tileN := r.g, r.tile.m, r.tile.n
	byK, half := r.packA || g.TransA, g.half()
	// The kernel fetches ahead what comes next: in the first panel the next rows of A, those of the next piece if they must be
	// packed; later a share of the next panel.
	next, share := uintptr(args.b)+uintptr(tileN*4*t.words), uintptr(tileN*4*t.words/r.strips)
	args.step = 64
	if first && r.packA && !r.shareA {
		rows := r.strips * tileM * r.pool.threads             // the threads take pieces in turn
		next = uintptr(unsafe.Pointer(unsafe.SliceData(g.A))) // and no pointer from here on: it may pass the end
		if g.TransA {
			next += uintptr(4 * (t.pc*g.LDA + i0 + rows))
			share, args.step = 64, 4*g.LDA
		} else {
			next += uintptr(4 * ((i0+rows)*g.LDA + t.pc))
			share = uintptr(4 * tileM * g.LDA)
		}
	}
	strip := r.aStrip(t.words)
	for i, s := i0, 0; i < i1; s++ {
		for end := min(i1, i+tileM); i < end; {
			h := int(r.tile.height[end-i])
			switch {
			case r.packA:
				args.a, args.lda = at(a, s*strip+(i-i0-s*tileM)*t.words), 4*h
				if g.TransA {
					args.a, args.lda = at(a, s*strip+i-i0-s*tileM), 4*min(tileM, i1-i0-s*tileM)
				}
			case g.TransA:
				args.a, args.lda = at(g.A, t.pc*g.LDA+i), 4*g.LDA
			default:
				args.a, args.lda = at(g.A, i*g.LDA+t.pc), 4*g.LDA
			}
			switch {
			case !first || r.packA && !r.shareA:
				args.prefetch = next
			case r.shareA:
				args.prefetch = uintptr(args.a) + uintptr(4*strip)
			case g.TransA:
				args.prefetch, args.step = uintptr(args.a)+uintptr(4*h), 4*g.LDA
			default:
				args.prefetch = uintptr(args.a) + uintptr(4*h*g.LDA)
			}
			args.c = c.at(i, col)
			args.residual, args.fetch = nil, nil
			if residual && g.Residual != nil {
				args.residual = at(g.Residual, i*g.LDC+col)
				args.fetch = args.residual
			} else if g.ActGrad != nil {
				args.fetch = at(g.ActGrad, i*g.LDC+col)
			}
			if t.last && half != nil {
				prefetchRows((*byte)(unsafe.Pointer(&half[i*g.LDC+col])), h, 2*cols, 2*g.LDC)
			}
			r.runTile(h, byK, narrow, (*byte)(unsafe.Pointer(args)))
			if t.last && half != nil && g.ActGrad16 == nil { // the tile is in the first-level cache
				narrowRows(half[i*g.LDC+col:], (*float32)(args.c), h, cols, g.LDC, c.ld)
			}
			i += h
		}
		next += share
	}
}

// activate finishes rows [i0, i1) of columns [j0, j1): activation or its derivative, then the residual.
func (g *Gemm[T]) activate(i0, i1, j0, j1 int) {
	for i := i0; i < i1; i++ {
		lo, hi := i*g.LDC+j0, i*g.LDC+j1
		c := g.C[lo:hi]
		switch {
		case g.ActGrad != nil:
			actGradRow(g.Act, c, g.ActGrad[lo:hi])
		case g.ActGrad16 != nil:
			actGradRow16(g.Act, c, g.ActGrad16[lo:hi])
		case g.Pre != nil && g.Act == ActNone:
			copy(c, g.Pre[lo:hi])
		case g.Pre != nil:
			actRow(g.Act, c, g.Pre[lo:hi])
		case g.Act != ActNone:
			actRow(g.Act, c, c)
		}
		if g.Residual != nil {
			addTo(c, g.Residual[lo:hi])
		}
	}
}

// half returns the one of C16, Pre16 and ActGrad16 that is there, or nil.
func (g *Gemm[T]) half() []uint16 {
	switch {
	case g.C16 != nil:
		return g.C16
	case g.Pre16 != nil:
		return g.Pre16
	}
	return g.ActGrad16
}
