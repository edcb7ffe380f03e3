package eval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/data/transform"
	"diptych/internal/addr"
	"diptych/internal/kernel"
)

// guesser gives pictures, of one byte, and texts rows by their hash, and pairs odds that favour those of one group a little.
type guesser struct {
	stop    int // pairs after which Match fails; 0: never
	scored  int
	decoded atomic.Int32
}

const guessDim = 6

func (*guesser) Tasks() []Task                   { return []Task{TaskRetrieval} }
func (*guesser) EmbedDim() int                   { return guessDim }
func (*guesser) ImageSides() (height, width int) { return 1, 1 }

func (*guesser) Prepare(b []byte, dst []uint8) error {
	if b[0] == 255 {
		return transform.ErrBadPicture
	}
	dst[0] = b[0]
	return nil
}

func (g *guesser) Picture(b []byte) (*transform.Image, error) {
	g.decoded.Add(1)
	im := &transform.Image{W: 1, H: 1, Pix: make([]uint8, 3)}
	return im, g.Prepare(b, im.Pix)
}

func row(key uint64) []float32 {
	x := make([]float32, guessDim)
	for i := range x {
		x[i] = float32(addr.Norm(addr.Hash(key, uint64(i))))
	}
	normalizeRows(x, guessDim)
	return x
}

func (*guesser) Images(_ context.Context, n int, at func(i int, dst []uint8) error) (out []float32, err error) {
	for i := range n {
		var dst [3]uint8
		err = errors.Join(err, at(i, dst[:]))
		out = append(out, row(uint64(dst[0]))...)
	}
	return out, err
}

func (*guesser) Texts(_ context.Context, texts []string) (out []float32, _ error) {
	for _, t := range texts {
		out = append(out, row(addr.Name(t))...)
	}
	return out, nil
}

func (g *guesser) odds(picture byte, text string) float32 {
	v := addr.Norm(addr.Hash(uint64(picture), addr.Name(text)))
	if text == fmt.Sprint("text ", picture/2) {
		v += 2
	}
	return float32(v)
}

func (g *guesser) Match(_ context.Context, pics []*transform.Image, texts []string, pairs [][2]int) (out []float32, _ error) {
	if g.scored += len(pairs); g.stop > 0 && g.scored > g.stop {
		return nil, errors.New("killed")
	}
	for _, p := range pairs {
		out = append(out, g.odds(pics[p[0]].Pix[0], texts[p[1]]))
	}
	return out, nil
}

// doubles is a set of n pictures, every two of a group, of which one is broken.
func doubles(n int) *memorySet {
	s := &memorySet{}
	s.manifest.Name = "doubles"
	for i := range n {
		b := string([]byte{byte(i)})
		if i == 8 {
			b = "\xff"
		}
		s.add("val", fmt.Sprint("g", i/2), "", b, caption(fmt.Sprint("text ", i/2), "label", "en"))
	}
	return s
}

// memoryJournal keeps scores.
type memoryJournal struct {
	key   uint64
	known map[int][]float32
	ended []bool
}

func (j *memoryJournal) Begin(_ string, key uint64) (map[int][]float32, error) {
	if j.key != key || j.known == nil {
		j.key, j.known = key, map[int][]float32{}
	}
	return j.known, nil
}
func (j *memoryJournal) Append(picture int, scores []float32) error {
	j.known[picture] = slices.Clone(scores)
	return nil
}
func (j *memoryJournal) End(done bool) error { j.ended = append(j.ended, done); return nil }

// plainRanks ranks candidates by first scores, then the first k of them by second scores, each ties by number, and returns the rank
// of the best right one.
func plainRanks(queries, candidates, k int, first, second func(q, c int) float32, right func(q, c int) bool) (ranks []int) {
	for q := range queries {
		var order []int
		for c := range candidates {
			order = append(order, c)
		}
		by := func(score func(q, c int) float32) func(a, b int) int {
			return func(a, b int) int {
				switch x, y := score(q, a), score(q, b); {
				case x > y:
					return -1
				case x < y:
					return 1
				}
				return a - b
			}
		}
		slices.SortFunc(order, by(first))
		slices.SortFunc(order[:min(k, candidates)], by(second))
		ranks = append(ranks, 1+slices.IndexFunc(order, func(c int) bool { return right(q, c) }))
	}
	return ranks
}

// Ranking again equals sorting by hand, for few candidates, many and all, with and without the first scores, for any number of
// threads; and it says what it can lose.
func TestRescore(t *testing.T) {
	const n = 80
	set := doubles(n)
	var rows, texts []float32
	var images []byte
	for i := range n {
		if i != 8 {
			images, rows = append(images, byte(i)), append(rows, row(uint64(i))...)
		}
	}
	for j := range n / 2 {
		texts = append(texts, row(addr.Name(fmt.Sprint("text ", j)))...)
	}
	dot := func(i, j int) (sum float32) {
		for c := range guessDim {
			sum += rows[i*guessDim+c] * texts[j*guessDim+c]
		}
		return sum
	}
	for _, c := range []struct {
		k     int
		first float64
	}{{1, 0}, {5, 0}, {5, 2}, {79, 0}, {500, 1}, {0, 0}, {0, 1.5}} {
		t.Run(fmt.Sprint(c.k, " by ", c.first), func(t *testing.T) {
			var g guesser
			k := c.k
			if k == 0 {
				k = n
			}
			odds := func(i, j int) float32 {
				return g.odds(images[i], fmt.Sprint("text ", j)) + float32(c.first)*dot(i, j)
			}
			right := func(i, j int) bool { return int(images[i])/2 == j }
			i2t := plainRanks(len(images), n/2, k, dot, odds, right)
			t2i := plainRanks(n/2, len(images), k, func(j, i int) float32 { return dot(i, j) }, func(j, i int) float32 { return odds(i, j) },
				func(j, i int) bool { return right(i, j) })
			share := func(ranks []int, k int) float64 {
				hits := 0
				for _, r := range ranks {
					if r <= k {
						hits++
					}
				}
				return float64(hits) / float64(len(ranks))
			}
			var want *Result
			for _, threads := range []int{1, 3} {
				pool := kernel.NewPool(threads)
				res, err := Retrieve(t.Context(), &g, set, Options{Pool: pool, Rescore: &Rescore{K: c.k, First: c.first, Model: &g}})
				pool.Close()
				require.NoError(t, err)
				if want == nil {
					want = res
				}
				require.Equal(t, want, res)
			}
			s := want.Splits[0].Retrieval
			require.Equal(t, 8, want.Splits[0].Broken[0].Row)
			for _, k := range []int{1, 5, 10} {
				require.InDelta(t, share(i2t, k), s.Rescored.ImageToText.RecallAt(k), 1e-12)
				require.InDelta(t, share(t2i, k), s.Rescored.TextToImage.RecallAt(k), 1e-12)
			}
			if c.k == 0 || c.k > n/2 {
				require.Equal(t, len(images)*n/2, s.Rescored.Pairs)
				require.InDelta(t, 1, s.Rescored.MostImageToText, 1e-12)
			}
			if c.k == 5 || c.k == 1 {
				require.InDelta(t, s.ImageToText.RecallAt(c.k), s.Rescored.MostImageToText, 1e-12)
				require.InDelta(t, s.TextToImage.RecallAt(c.k), s.Rescored.MostTextToImage, 1e-12)
				require.LessOrEqual(t, s.Rescored.ImageToText.RecallAt(1), s.Rescored.MostImageToText)
			}
			if c.first == 0 && c.k == 0 { // no first scores are needed
				pool := kernel.NewPool(1)
				defer pool.Close()
				var once guesser
				alone, err := Retrieve(t.Context(), nil, set, Options{Pool: pool, Rescore: &Rescore{Model: &once}})
				require.NoError(t, err)
				require.EqualValues(t, len(set.meta), once.decoded.Load(), "each picture once")
				require.Equal(t, len(images), alone.Splits[0].Images)
				require.Equal(t, s.Rescored, alone.Splits[0].Retrieval.Rescored)
				require.Equal(t, want.Splits[0].Broken, alone.Splits[0].Broken)
				require.Zero(t, alone.Splits[0].Retrieval.ImageToText.Candidates)
			}
		})
	}
}

// An evaluation that is killed goes on from its journal and ends with the same result; scores of something else are not used.
func TestRescoreResumes(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	set, whole := doubles(200), guesser{}
	want, err := Retrieve(t.Context(), &whole, set, Options{Pool: pool, Rescore: &Rescore{Model: &whole}})
	require.NoError(t, err)
	require.Equal(t, 199*100, whole.scored)

	j := &memoryJournal{}
	halted := guesser{stop: 12000}
	_, err = Retrieve(t.Context(), &halted, set, Options{Pool: pool, Rescore: &Rescore{Model: &halted, Journal: j}})
	require.ErrorContains(t, err, "killed")
	require.NotEmpty(t, j.known)
	kept := 0
	for _, s := range j.known {
		kept += len(s)
	}
	var rest guesser
	var seen []int
	res, err := Retrieve(t.Context(), &rest, set, Options{Pool: pool, Rescore: &Rescore{Model: &rest, Journal: j}, Progress: func(what string, done, total int) {
		if what == "pairs of val" {
			require.Equal(t, 199*100, total)
			seen = append(seen, done)
		}
	}})
	require.NoError(t, err)
	require.Equal(t, want, res)
	require.Equal(t, 199*100-kept, rest.scored)
	require.Equal(t, []bool{false, true}, j.ended)
	require.Equal(t, kept, seen[0])
	require.Equal(t, 199*100, seen[len(seen)-1])

	others := doubles(200)
	others.manifest.Shards = []arrowset.Shard{{SHA256: "another"}}
	for _, c := range []struct {
		name  string
		set   *memorySet
		pairs int
	}{{"fewer pictures", doubles(198), 197 * 99}, {"other pictures of the same names", others, 199 * 100}} {
		j.key, j.known = 0, nil
		_, err = Retrieve(t.Context(), nil, set, Options{Pool: pool, Rescore: &Rescore{Model: &guesser{}, Journal: j}})
		require.NoError(t, err)
		var other guesser
		_, err = Retrieve(t.Context(), nil, c.set, Options{Pool: pool, Rescore: &Rescore{Model: &other, Journal: j}})
		require.NoError(t, err)
		require.Equal(t, c.pairs, other.scored, c.name)
	}
}

// What cannot be ranked again is told.
func TestRescoreRefuses(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	for _, r := range []Rescore{{K: 3}, {First: 1}, {K: -1}} {
		r.Model = &guesser{}
		_, err := Retrieve(t.Context(), nil, doubles(10), Options{Pool: pool, Rescore: &r})
		require.ErrorIs(t, err, ErrRequest)
	}
	_, err := Retrieve(t.Context(), &guesser{}, doubles(10), Options{Pool: pool, Splits: []string{"none"}, Rescore: &Rescore{Model: &guesser{}}})
	require.ErrorContains(t, err, `no split "none"`)
	broken := &memorySet{}
	broken.add("val", "g", "", "\xff", caption("text", "label", "en"))
	_, err = Retrieve(t.Context(), nil, broken, Options{Pool: pool, Rescore: &Rescore{Model: &guesser{}}})
	require.ErrorContains(t, err, "none of its 1 pictures decodes")
	require.ErrorContains(t, err, "split val")
}
