package data

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// fakeIndex is the index of shards of about 12 rows, of which kind says how they are grouped.
func fakeIndex(shards int, kind string) (*arrowset.Index, map[int]string) {
	var b arrowset.IndexBuilder
	groups := map[int]string{} // of the training rows
	r := rand.New(rand.NewPCG(1, 2))
	row := 0
	for s := range shards {
		b.Begin()
		for k := range 10 + s%5 {
			m := arrowset.RowMeta{Split: "train"}
			switch kind {
			case "near": // in one shard each
				m.Group = fmt.Sprint(s, "-", k/3)
			case "far": // over many shards, some rows without
				if m.Group = fmt.Sprint(r.IntN(60)); k%5 == 0 {
					m.Group = ""
				}
			}
			if kind == "far" && k == 7 || kind == "splits" && k%3 == 1 {
				m.Split = "val"
			}
			if b.Add(&m); m.Split == "train" {
				groups[row] = m.Group
				if m.Group == "" {
					groups[row] = fmt.Sprint("row ", row)
				}
			}
			row++
		}
	}
	return b.Index(), groups
}

func shardOf(x *arrowset.Index, row int) int {
	for i, s := range x.Shards {
		if row < s.First+s.Rows {
			return i
		}
	}
	return -1
}

// In each epoch every group comes once, by a row of its own; each row comes once in as many epochs as its group has rows; the
// number of a group names it; and a window needs no more shards than it has, however the groups lie.
func TestWindowed(t *testing.T) {
	const n, w = 7, 4
	for _, kind := range []string{"none", "near", "far", "splits"} {
		t.Run(kind, func(t *testing.T) {
			x, groups := fakeIndex(23, kind)
			size := map[string]int{}
			for _, g := range groups {
				size[g]++
			}
			most := 0
			for _, s := range size {
				most = max(most, s)
			}
			o, err := NewWindowed(5, n, w, x, "train")
			require.NoError(t, err)
			require.Equal(t, len(size), o.Groups())
			require.Equal(t, len(size)/n, o.updatesPerEpoch())

			number := map[string]int{}
			var first []int
			for e := range 2 * most {
				seen := map[string]bool{}
				for p := range o.Groups() { // the rest of an epoch too
					group, row := o.at(e, p)
					g, ok := groups[row]
					require.True(t, ok, "row %d is of another split", row)
					require.False(t, seen[g], "group %s twice in epoch %d", g, e)
					seen[g] = true
					if _, ok := number[g]; !ok {
						number[g] = group
					}
					require.Equal(t, number[g], group)
					if e == 0 {
						first = append(first, row)
					} else if e == 1 && p < len(first) && kind == "none" {
						first[p] -= row
					}
				}
				require.Len(t, seen, len(size))
			}
			if kind == "none" { // the epochs differ
				same := 0
				for _, d := range first {
					if d == 0 {
						same++
					}
				}
				require.Less(t, same, len(first)/4)
			}
			named := map[int]bool{}
			for _, k := range number {
				require.False(t, named[k])
				named[k] = true
			}
			turns := map[int]int{}
			g := groups[first[0]]
			if kind == "none" {
				g = groups[x.Shards[3].First]
			}
			for e := range size[g] {
				for p := range o.Groups() {
					if _, row := o.at(e, p); groups[row] == g {
						turns[row]++
					}
				}
			}
			require.Len(t, turns, size[g], "each row of a group has its turn")

			a := o.arrangement.(*windowed)
			for e := range 4 {
				ep := a.enter(e)
				for p := 0; p < o.Groups(); {
					lo, hi := a.windowOf(ep, p)
					touched := map[int]bool{}
					for ; p < ep.starts[hi]; p++ {
						_, row := o.at(e, p)
						touched[shardOf(x, row)] = true
					}
					require.LessOrEqual(t, len(touched), w, "window %d of epoch %d", lo/w, e)
				}
			}
		})
	}
}

// A batch is the same whenever and by whichever order it is asked for; its slots and substitutes hold different groups; and
// the shards that updates touch were announced.
func TestWindowedIsEnteredAnywhere(t *testing.T) {
	const n, w = 6, 3
	x, groups := fakeIndex(17, "far")
	o, err := NewWindowed(8, n, w, x, "train")
	require.NoError(t, err)
	last := 5 * o.updatesPerEpoch()
	for u := last; u >= 0; u-- { // backwards, each by an order that knows nothing
		fresh, err := NewWindowed(8, n, w, x, "train")
		require.NoError(t, err)
		near := map[int]bool{}
		for _, row := range o.Ahead(u) {
			near[shardOf(x, row)] = true
		}
		require.LessOrEqual(t, len(near), 2*w)
		held := map[string]int{}
		for i := range n {
			g, row := o.At(u, i)
			g2, row2 := fresh.At(u, i)
			require.Equal(t, []int{g, row}, []int{g2, row2})
			require.True(t, near[shardOf(x, row)], "update %d needs a shard that was not announced", u)
			for k := range o.updatesPerEpoch() {
				_, row := o.substitute(u, i, k)
				if other, ok := held[groups[row]]; ok {
					require.Equal(t, other, i, "group %s could stand in two slots of update %d", groups[row], u)
				}
				held[groups[row]] = i
			}
		}
	}
}

// A window that holds the whole set is the order of the whole set.
func TestWindowOfAllShards(t *testing.T) {
	x, _ := fakeIndex(9, "far")
	o, err := NewWindowed(4, 5, 9, x, "train")
	require.NoError(t, err)
	s := 0
	if x.Splits[s] != "train" {
		s = 1
	}
	whole, err := NewOrder(4, 5, groupsOf(x, s))
	require.NoError(t, err)
	for u := range 3 * whole.updatesPerEpoch() {
		for i := range 5 {
			g, row := whole.At(u, i)
			g2, row2 := o.At(u, i)
			require.Equal(t, []int{g, row}, []int{g2, row2})
		}
	}
	require.Nil(t, o.Ahead(0))
	_, err = NewWindowed(4, 1000, 2, x, "train")
	require.ErrorContains(t, err, "a batch of 1000 pairs needs as many groups, the split has")
	_, err = NewWindowed(4, 5, 0, x, "train")
	require.Error(t, err)
}
