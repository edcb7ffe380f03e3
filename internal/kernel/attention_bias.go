package kernel

// ScoreBias is what attention adds to its scores: B_hij of head h, for a query at position i and a key at position j. Relative
// positions are such a bias, looked up in a table (Liu et al. 2021, §3.2, "relative position bias"; ops.RelativeBias).
type ScoreBias[T Float] struct {
	Add  []T // (Heads, N, N)
	DAdd []T // (Heads, N, N): its gradient is added to; nil if nobody needs it
	N    int // positions

	// Position of each row of queries and of keys, from 0 to N-1; nil: a row's place in its sequence.
	Queries, Keys []int32

	runs []int32 // for each key the first one after it whose position does not follow on, in the sequence
}

// differentiated says whether the backward pass adds to DAdd.
func (b *ScoreBias[T]) differentiated() bool { return b != nil && b.DAdd != nil }

// prepare checks the slices against the rows of queries and keys and finds the runs of positions.
func (b *ScoreBias[T]) prepare(heads int, queries, keys []int32) {
	if b == nil {
		return
	}
	if size := heads * b.N * b.N; len(b.Add) < size || b.DAdd != nil && len(b.DAdd) < size {
		panic("kernel: bias of attention is too short")
	}
	checkPositions(b.Queries, queries, b.N)
	checkPositions(b.Keys, keys, b.N)
	if b.Keys == nil {
		return
	}
	rows := int(keys[len(keys)-1])
	if cap(b.runs) < rows {
		b.runs = make([]int32, rows)
	}
	b.runs = b.runs[:rows]
	for s := range len(keys) - 1 {
		for j := keys[s+1] - 1; j >= keys[s]; j-- {
			b.runs[j] = j + 1
			if j+1 < keys[s+1] && b.Keys[j+1] == b.Keys[j]+1 {
				b.runs[j] = b.runs[j+1]
			}
		}
	}
}

// checkPositions panics at a position that the bias does not have.
func checkPositions(positions, offsets []int32, n int) {
	if positions == nil {
		for s := range len(offsets) - 1 {
			if int(offsets[s+1]-offsets[s]) > n {
				panic("kernel: a sequence is longer than the bias of its attention")
			}
		}
		return
	}
	for _, at := range positions[:offsets[len(offsets)-1]] {
		if at < 0 || int(at) >= n {
			panic("kernel: a position is outside of the bias of its attention")
		}
	}
}

// head returns the bias of one head in the sequence whose rows begin at queries[0] and keys[0].
func (b *ScoreBias[T]) head(index int, queries, keys []int32) headBias[T] {
	if b == nil {
		return headBias[T]{}
	}
	h := headBias[T]{b: b.Add[index*b.N*b.N:][:b.N*b.N], n: b.N, first: int(keys[0])}
	if b.DAdd != nil {
		h.db = b.DAdd[index*b.N*b.N:][:b.N*b.N]
	}
	if b.Queries != nil {
		h.queries = b.Queries[queries[0]:]
	}
	if b.Keys != nil {
		h.keys, h.runs = b.Keys, b.runs
	}
	return h
}

// headBias is the bias of one head in one sequence; without any it is zero.
type headBias[T Float] struct {
	b, db      []T // (n, n)
	n          int
	queries    []int32 // positions of the sequence's queries, or nil
	keys, runs []int32 // positions and runs of all keys, or nil
	first      int     // the first of the sequence among them
}

// add adds factor·B to the scores of rows queries from the given one on and width keys, rows stride apart.
func (h *headBias[T]) add(score []T, from, rows, width, stride int, factor T) {
	if h.b != nil {
		h.each(from, rows, width, func(i, j, n, at int) { addScaled(score[i*stride+j:][:n], factor, h.b[at:at+n]) })
	}
}

// addGradient adds factor·ds, the gradients of such scores, to the gradient of B.
func (h *headBias[T]) addGradient(ds []T, from, rows, width, stride int, factor T) {
	if h.db != nil {
		h.each(from, rows, width, func(i, j, n, at int) { addScaled(h.db[at:at+n], factor, ds[i*stride+j:][:n]) })
	}
}

// each calls f for the stretches of n keys, from the j-th on, whose elements of B lie side by side from at on, in each row.
func (h *headBias[T]) each(from, rows, width int, f func(i, j, n, at int)) {
	for i := range rows {
		row := (from + i) * h.n
		if h.queries != nil {
			row = int(h.queries[from+i]) * h.n
		}
		if h.keys == nil {
			f(i, 0, width, row)
			continue
		}
		for j := 0; j < width; {
			n := min(width, int(h.runs[h.first+j])-h.first) - j
			f(i, j, n, row+int(h.keys[h.first+j]))
			j += n
		}
	}
}
