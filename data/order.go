package data

import (
	"fmt"

	"diptych/internal/addr"
)

// Order is the order of samples of a run. It is computed, not stored, so entering any update is exact.
//
// The rows of a split fall into G groups (a row without a group is its own). An epoch has nb = ⌊G/N⌋ updates of N pairs; slot
// i of update b of epoch e holds group π(seed, e)[bN+i], and of its n rows number σ(seed, group, ⌊e/n⌋)[e mod n]: no batch
// holds a group twice, and each row of a group comes once in n epochs. The rest of an epoch's groups is left out, so that no
// batch straddles an edge.
type Order struct {
	seed   uint64
	batch  int       // N
	groups [][]int32 // the rows of each group
	perEp  int       // nb
}

// NewOrder returns the order of batches of n pairs over groups of rows. Fewer groups than n is an error.
func NewOrder(seed uint64, n int, groups [][]int32) (*Order, error) {
	if n <= 0 {
		return nil, fmt.Errorf("data: a batch of %d pairs", n)
	}
	if len(groups) < n {
		return nil, fmt.Errorf("data: a batch of %d pairs needs as many groups, the split has %d: lower train.globalBatch", n, len(groups))
	}
	return &Order{seed: seed, batch: n, groups: groups, perEp: len(groups) / n}, nil
}

// UpdatesPerEpoch returns nb.
func (o *Order) UpdatesPerEpoch() int { return o.perEp }

// Groups returns G.
func (o *Order) Groups() int { return len(o.groups) }

// At returns the group and the row in slot i of update u.
func (o *Order) At(u, i int) (group, row int) { return o.substitute(u, i, 0) }

// substitute returns what stands in for slot i of update u when k pictures of it were broken: what slot i holds in the k-th
// next batch of the same epoch, which no other slot of its batch can hold. It must be asked for k < UpdatesPerEpoch only.
func (o *Order) substitute(u, i, k int) (group, row int) {
	e, b := u/o.perEp, (u%o.perEp+k)%o.perEp
	perm := addr.NewPerm(addr.Hash(o.seed, addr.Name("groups"), uint64(e)), uint64(len(o.groups)))
	group = int(perm.At(uint64(b*o.batch + i)))
	rows := o.groups[group]
	n := len(rows)
	inner := addr.NewPerm(addr.Hash(o.seed, addr.Name("rows"), uint64(group), uint64(e/n)), uint64(n))
	return group, int(rows[inner.At(uint64(e%n))])
}
