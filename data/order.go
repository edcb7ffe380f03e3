package data

import (
	"fmt"

	"diptych/internal/addr"
)

// Order is the order of samples of a run. It is computed, not stored, so entering any update is exact.
//
// The rows of a split fall into G groups (a row without a group is its own). An epoch shows each group once, by one of its n
// rows, number σ(seed, group, ⌊e/n⌋)[e mod n] in epoch e, so that each row comes once in n epochs. An epoch has nb = ⌊G/N⌋
// updates of N pairs: no batch holds a group twice, as no epoch does. The rest of an epoch's groups is left out, so that no
// batch straddles an edge.
//
// How the groups follow one another is the arrangement: NewOrder permutes the whole set, NewWindowed permutes blocks of rows,
// and what they hold within windows of some blocks.
type Order struct {
	batch int // N
	perEp int // nb
	arrangement
}

// arrangement lines the groups of each epoch up.
type arrangement interface {
	groups() int
	// at returns the group at a position of an epoch, and its row there.
	at(epoch, position int) (group, row int)
}

// NewOrder returns the order of batches of n pairs over groups of rows in which slot i of update b of epoch e holds group
// π(seed, e)[bn+i]. Fewer groups than n is an error.
func NewOrder(seed uint64, n int, groups [][]int32) (*Order, error) {
	return newOrder(n, &shuffled{seed, groups})
}

func newOrder(n int, a arrangement) (*Order, error) {
	if n <= 0 {
		return nil, fmt.Errorf("data: a batch of %d pairs", n)
	}
	if a.groups() < n {
		return nil, fmt.Errorf("data: a batch of %d pairs needs as many groups, the split has %d: lower train.globalBatch", n, a.groups())
	}
	return &Order{batch: n, perEp: a.groups() / n, arrangement: a}, nil
}

// updatesPerEpoch returns nb.
func (o *Order) updatesPerEpoch() int { return o.perEp }

// Groups returns G.
func (o *Order) Groups() int { return o.groups() }

// At returns the group and the row in slot i of update u.
func (o *Order) At(u, i int) (group, row int) { return o.substitute(u, i, 0) }

// substitute returns what stands in for slot i of update u when k pictures of it were broken: what slot i holds in the k-th
// next batch of the same epoch, which no other slot of its batch can hold. It must be asked for k < updatesPerEpoch only.
func (o *Order) substitute(u, i, k int) (group, row int) {
	e, b := u/o.perEp, (u%o.perEp+k)%o.perEp
	return o.at(e, b*o.batch+i)
}

// shuffled is the arrangement that permutes the whole set.
type shuffled struct {
	seed uint64
	rows [][]int32 // of each group
}

func (s *shuffled) groups() int { return len(s.rows) }

func (s *shuffled) at(e, p int) (group, row int) {
	perm := addr.NewPerm(addr.Hash(s.seed, addr.Name("groups"), uint64(e)), uint64(len(s.rows)))
	group = int(perm.At(uint64(p)))
	rows := s.rows[group]
	return group, int(rows[turn(s.seed, group, e, len(rows))])
}

// turn is the number of the row, of n, by which a group is shown in epoch e: σ(seed, group, ⌊e/n⌋)[e mod n].
func turn(seed uint64, group, e, n int) int {
	inner := addr.NewPerm(addr.Hash(seed, addr.Name("rows"), uint64(group), uint64(e/n)), uint64(n))
	return int(inner.At(uint64(e % n)))
}

// PartSeed is the seed of the order of part i of several. The first has the run's own.
func PartSeed(seed uint64, i int) uint64 { return addr.Hash(seed, addr.Name("part"), uint64(i)) }
