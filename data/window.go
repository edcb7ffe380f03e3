package data

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"sync"

	"diptych/data/arrowset"
	"diptych/internal/addr"
)

// windowed is the arrangement on two levels, for sets whose shards stream: the blocks (shards) are permuted, β(seed, e); each
// W of them, one after the other, make a window; and the groups that the blocks of a window show are permuted within it,
// ω(seed, e, window). While a window is used, only its blocks are needed, and where a batch straddles an edge, those of the
// next.
//
// No group comes twice in an epoch, wherever its rows lie: in epoch e it is shown by the row whose turn it is, in the block
// where that row lies. So the number of groups that a block shows may change from epoch to epoch; the number of all does not.
// A group of which all rows lie in one block is that block's own and costs nothing to place. Those that are spread over
// several blocks are placed when an epoch is entered, in time proportional to their number.
//
// A group's number is its first row.
type windowed struct {
	seed   uint64
	window int // W, blocks
	total  int // G
	blocks []block
	spread [][]uint32 // rows of each group that lies in several blocks

	mu     sync.Mutex
	epochs [2]*epoch // those that were used last: the loader works ahead of an epoch's edge
}

// block is the rows of the split in one shard.
type block struct {
	first, end int // rows of the set
	own        int // groups whose rows all lie in this block
	// bounds and rows are those groups' rows: group k has rows[bounds[k]:bounds[k+1]], counted from first. Without bounds each
	// row is a group; without rows they are those from first on, without a gap.
	bounds, rows []uint32
}

// epoch says where the groups of one epoch lie.
type epoch struct {
	number int
	order  []int32    // the blocks, permuted
	starts []int      // position of the first group of each of them, and G
	shown  [][]uint32 // for each block, not permuted, the groups of several blocks that it shows: numbers in spread
}

// NewWindowed returns the order of batches of n pairs over the rows of a split in which shards are permuted, and their groups
// within windows of w shards. A w that holds all shards gives the order of NewOrder.
func NewWindowed(seed uint64, n, w int, index *arrowset.Index, split string) (*Order, error) {
	if w <= 0 {
		return nil, fmt.Errorf("data: a window of %d shards", w)
	}
	s := slices.Index(index.Splits, split)
	if w >= len(index.Shards) {
		return NewOrder(seed, n, groupsOf(index, s))
	}
	return newOrder(n, newWindowed(seed, w, index, s))
}

// rowsOf calls f for each row of split s in a shard, with its group.
func rowsOf(sh *arrowset.ShardIndex, s int, f func(row int, group uint32)) {
	at := 0
	for _, run := range sh.Runs {
		if run.Split == s {
			for r := at; r < at+run.Rows; r++ {
				g := uint32(0)
				if sh.Groups != nil {
					g = sh.Groups[r]
				}
				f(sh.First+r, g)
			}
		}
		at += run.Rows
	}
}

// groupsOf lists the groups of a split by their first row.
func groupsOf(index *arrowset.Index, s int) [][]int32 {
	var groups [][]int32
	known := map[uint32]int{}
	for i := range index.Shards {
		rowsOf(&index.Shards[i], s, func(row int, g uint32) {
			k, ok := known[g]
			if !ok || g == 0 {
				k = len(groups)
				groups = append(groups, nil)
				known[g] = k
			}
			groups[k] = append(groups[k], int32(row))
		})
	}
	return groups
}

func newWindowed(seed uint64, w int, index *arrowset.Index, split int) *windowed {
	o := &windowed{seed: seed, window: w}
	// home is the block of each group, or many.
	const none, many = -1, -2
	most := uint32(0)
	for i := range index.Shards {
		if g := index.Shards[i].Groups; g != nil {
			most = max(most, slices.Max(g))
		}
	}
	home := make([]int32, most+1)
	for g := range home {
		home[g] = none
	}
	for i := range index.Shards {
		if index.Shards[i].Groups == nil {
			continue
		}
		rowsOf(&index.Shards[i], split, func(_ int, g uint32) {
			switch home[g] {
			case none:
				home[g] = int32(i)
			case int32(i):
			default:
				home[g] = many
			}
		})
	}
	spread := map[uint32]int{}
	for i := range index.Shards {
		sh := &index.Shards[i]
		b := block{first: sh.First, end: sh.First + sh.Rows}
		if sh.Groups == nil && len(sh.Runs) == 1 { // by far the most shards of a large set: nothing is kept for their rows
			if sh.Runs[0].Split == split {
				b.own = sh.Rows
				o.blocks = append(o.blocks, b)
				o.total += b.own
			}
			continue
		}
		type member struct {
			key int // first row of the group
			row uint32
		}
		var own []member
		firsts := map[uint32]int{}
		any, grouped := false, false
		rowsOf(sh, split, func(row int, g uint32) {
			any = true
			switch {
			case g == 0:
				own = append(own, member{row, uint32(row - sh.First)})
			case home[g] == many:
				k, ok := spread[g]
				if !ok {
					k = len(o.spread)
					spread[g] = k
					o.spread = append(o.spread, nil)
				}
				o.spread[k] = append(o.spread[k], uint32(row))
			default:
				first, ok := firsts[g]
				if !ok {
					first, firsts[g] = row, row
				}
				grouped = grouped || ok
				own = append(own, member{first, uint32(row - sh.First)})
			}
		})
		if !any {
			continue
		}
		slices.SortStableFunc(own, func(x, y member) int { return cmp.Compare(x.key, y.key) })
		for k, m := range own {
			if grouped && (k == 0 || m.key != own[k-1].key) {
				b.bounds = append(b.bounds, uint32(k))
			}
			b.rows = append(b.rows, m.row)
		}
		b.own = len(own)
		if !grouped && b.own == sh.Rows {
			b.rows = nil
		}
		if grouped {
			b.own = len(b.bounds)
			b.bounds = append(b.bounds, uint32(len(own)))
		}
		o.blocks = append(o.blocks, b)
		o.total += b.own
	}
	o.total += len(o.spread)
	return o
}

func (o *windowed) groups() int { return o.total }

// enter returns the layout of epoch e.
func (o *windowed) enter(e int) *epoch {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ep := range o.epochs {
		if ep != nil && ep.number == e {
			return ep
		}
	}
	ep := &epoch{number: e, order: make([]int32, len(o.blocks)), starts: make([]int, len(o.blocks)+1)}
	if len(o.spread) > 0 {
		ep.shown = make([][]uint32, len(o.blocks))
		for g, rows := range o.spread {
			row := int(rows[turn(o.seed, int(rows[0]), e, len(rows))])
			b := o.blockOf(row)
			ep.shown[b] = append(ep.shown[b], uint32(g))
		}
	}
	perm := addr.NewPerm(addr.Hash(o.seed, addr.Name("blocks"), uint64(e)), uint64(len(o.blocks)))
	for i := range o.blocks {
		b := int(perm.At(uint64(i)))
		ep.order[i] = int32(b)
		ep.starts[i+1] = ep.starts[i] + o.blocks[b].own
		if ep.shown != nil {
			ep.starts[i+1] += len(ep.shown[b])
		}
	}
	o.epochs[0], o.epochs[1] = ep, o.epochs[0]
	return ep
}

// blockOf returns the block in which a row lies.
func (o *windowed) blockOf(row int) int {
	return sort.Search(len(o.blocks), func(b int) bool { return o.blocks[b].first > row }) - 1
}

// windowOf returns the places in ep.order, from lo up to hi, of the window that holds position p.
func (o *windowed) windowOf(ep *epoch, p int) (lo, hi int) {
	i := sort.SearchInts(ep.starts, p+1) - 1
	lo = i / o.window * o.window
	return lo, min(lo+o.window, len(ep.order))
}

func (o *windowed) at(e, p int) (group, row int) {
	ep := o.enter(e)
	lo, hi := o.windowOf(ep, p)
	start, n := ep.starts[lo], ep.starts[hi]-ep.starts[lo]
	perm := addr.NewPerm(addr.Hash(o.seed, addr.Name("window"), uint64(e), uint64(lo/o.window)), uint64(n))
	q := start + int(perm.At(uint64(p-start)))
	i := lo + sort.SearchInts(ep.starts[lo:hi+1], q+1) - 1
	number := int(ep.order[i])
	b, k := &o.blocks[number], q-ep.starts[i]
	if k >= b.own {
		rows := o.spread[ep.shown[number][k-b.own]]
		group = int(rows[0])
		return group, int(rows[turn(o.seed, group, e, len(rows))])
	}
	switch {
	case b.rows == nil:
		row = b.first + k
		return row, row
	case b.bounds == nil:
		row = b.first + int(b.rows[k])
		return row, row
	}
	rows := b.rows[b.bounds[k]:b.bounds[k+1]]
	group = b.first + int(rows[0])
	return group, b.first + int(rows[turn(o.seed, group, e, len(rows))])
}

// ahead lists a row of each block that will be needed from update u on: the window's at hand, and the next one's.
func (o *windowed) ahead(u, perEp, batch int) []int {
	e, p := u/perEp, u%perEp*batch
	ep := o.enter(e)
	lo, hi := o.windowOf(ep, p)
	var rows []int
	add := func(ep *epoch, lo, hi int) {
		for _, b := range ep.order[lo:min(hi, len(ep.order))] {
			rows = append(rows, o.blocks[b].first)
		}
	}
	add(ep, lo, hi)
	if ep.starts[hi] < perEp*batch {
		add(ep, hi, hi+o.window)
	} else {
		add(o.enter(e+1), 0, o.window)
	}
	return rows
}

// Ahead lists a row of each shard that the updates from u on will need first, the nearest first; nil means the whole set. It
// changes only where Update u enters another window of shards.
func (o *Order) Ahead(u int) []int {
	if w, ok := o.arrangement.(*windowed); ok {
		return w.ahead(u, o.perEp, o.batch)
	}
	return nil
}
