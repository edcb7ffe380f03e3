package check

import (
	"context"
	"math"
	"math/bits"
	"slices"
	"sort"

	"diptych/data/transform"
)

// Near-duplicates are found in two steps. Candidates are pictures whose perceptual hashes differ in at most NearBits of 63
// bits. Of two candidates, thumbnails of thumbSide×thumbSide pixels are compared: they must agree to within nearMean levels of
// red, green and blue and nearShare of their contrast on average, and to within nearMost levels of grey and
// nearColour of any channel at the worst place; JPEG keeps grey better than colours. So the warning holds for the same picture
// in another size, format or quality, and not for two drawings of one kind, which the hash alone confuses.
const (
	NearBits   = 5
	thumbSide  = 32
	nearMean   = 4.0
	nearShare  = 0.1
	nearMost   = 40
	nearColour = 96
)

// noLook stands for a picture without a perceptual hash: it does not decode or has one colour. The hash's highest bit is 0.
const noLook = math.MaxUint64

// cosines[u][x] = cos(π(2x+1)u / 2·thumbSide), of the discrete cosine transform.
var cosines = func() (c [8][thumbSide]float64) {
	for u := range c {
		for x := range c[u] {
			c[u][x] = math.Cos(math.Pi * float64(2*x+1) * float64(u) / (2 * thumbSide))
		}
	}
	return c
}()

// lookOf is a perceptual hash of w.image after Zauner 2010, §3.2.1: one bit for each of the 63 lowest frequencies of the grey
// thumbnail but the constant. There a bit says whether the coefficient is above the median. Half the coefficients of a symmetric
// drawing are zero but for noise, and so is their median; here a bit says whether the coefficient is above a quarter of the mean
// size, which lies away from them.
func lookOf(w *pictureWorker) (uint64, error) {
	if err := transform.Resize(&w.small, &w.image, thumbSide, thumbSide, transform.Box, &w.scratch); err != nil {
		return 0, err
	}
	var half [8][thumbSide]float64 // (u, y)
	for y := range thumbSide {
		var grey [thumbSide]float64
		for x := range grey {
			p := w.small.Pix[3*(y*thumbSide+x):]
			grey[x] = 0.299*float64(p[0]) + 0.587*float64(p[1]) + 0.114*float64(p[2])
		}
		for u := range half {
			for x, g := range grey {
				half[u][y] += float64(g * cosines[u][x])
			}
		}
	}
	var freq [64]float64
	for u := range half {
		for v := range 8 {
			for y, h := range half[u] {
				freq[8*v+u] += float64(h * cosines[v][y])
			}
		}
	}
	size := 0.0
	for _, f := range freq[1:] {
		size += math.Abs(f)
	}
	var look uint64
	for k, f := range freq[1:] {
		if f > size/(4*63) {
			look |= 1 << k
		}
	}
	return look, nil
}

// nearPictures finds pictures that look like one of another split.
func (c *checker) nearPictures(ctx context.Context) error {
	pairs, err := c.candidates(ctx)
	if err != nil {
		return err
	}
	return each(ctx, c, "comparing pictures", len(pairs), func() *[2]pictureWorker { return &[2]pictureWorker{} }, func(w *[2]pictureWorker, i int) ([]Finding, error) {
		p := pairs[i]
		best, bestMean := -1, math.Inf(1)
		if err := c.thumb(ctx, &w[0], p.row); err != nil {
			return nil, err
		}
		for _, other := range p.others {
			if err := c.thumb(ctx, &w[1], other); err != nil {
				return nil, err
			}
			if mean, near := alike(w[0].small.Pix, w[1].small.Pix); near && mean < bestMean {
				best, bestMean = other, mean
			}
		}
		if best < 0 {
			return nil, nil
		}
		return []Finding{c.found(ImageNearLeak, p.row, -1, best, "split %s; row %d (%s) of split %s differs by %d of 63 bits and %.1f levels on average",
			c.set.Meta()[p.row].Split, best, c.set.Meta()[best].ImageID, c.set.Meta()[best].Split, bits.OnesCount64(c.looks[p.row]^c.looks[best]), bestMean)}, nil
	})
}

// thumb decodes the picture of a row, which has decoded before, and makes its thumbnail.
func (c *checker) thumb(ctx context.Context, w *pictureWorker, row int) error {
	b, err := c.set.Image(ctx, row)
	if err == nil {
		err = transform.DecodeLimit(b, c.MaxPixels, &w.image)
	}
	if err != nil {
		return err
	}
	return transform.Resize(&w.small, &w.image, thumbSide, thumbSide, transform.Box, &w.scratch)
}

// alike says whether two thumbnails show one picture, and how far they are from each other.
func alike(a, b []uint8) (mean float64, near bool) {
	mean, grey, colour := difference(a, b)
	return mean, mean <= min(nearMean, nearShare*contrast(a), nearShare*contrast(b)) && grey <= nearMost && colour <= nearColour
}

// contrast is how far the levels of a thumbnail are from their mean, on average.
func contrast(a []uint8) float64 {
	var sum [3]int
	for i, v := range a {
		sum[i%3] += int(v)
	}
	total, n := 0.0, float64(len(a))/3
	for i, v := range a {
		total += math.Abs(float64(v) - float64(sum[i%3])/n)
	}
	return total / float64(len(a))
}

// difference compares thumbnails: the mean over all channels, the most of the grey and of any channel.
func difference(a, b []uint8) (mean, grey float64, colour int) {
	total := 0
	for i := 0; i < len(a); i += 3 {
		var d [3]int
		for k := range d {
			d[k] = int(a[i+k]) - int(b[i+k])
			size := max(d[k], -d[k])
			total += size
			colour = max(colour, size)
		}
		grey = max(grey, math.Abs(0.299*float64(d[0])+0.587*float64(d[1])+0.114*float64(d[2])))
	}
	return float64(total) / float64(len(a)), grey, colour
}

// candidate is a row and those rows of splits before its own that it may look like.
type candidate struct {
	row    int
	others []int
}

// mostOthers bounds the comparisons of one row, to the nearest of those listed; mostListed ends the list of a row whose hash
// very many share.
const (
	mostOthers = 16
	mostListed = 1024
)

// candidates lists pairs of rows of two splits whose hashes are near. Of a pair, the row of the split that --fix rather leaves
// out comes first. Two hashes that differ in NearBits of 63 bits agree in one of NearBits+1 bands of bits (pigeonhole), so
// only rows that share a band are compared. A band takes every sixth bit, so that each has low and high frequencies.
func (c *checker) candidates(ctx context.Context) ([]candidate, error) {
	const bands = NearBits + 1
	var everySixth uint64
	for k := 0; k < 64; k += bands {
		everySixth |= 1 << k
	}
	of := func(look uint64, band int) uint64 { return look & (everySixth << band) }
	type distinct struct {
		look uint64
		rows []int
	}
	var all []distinct // rows by hash, so that many equal ones cost no comparisons
	index := map[uint64]int{}
	for i, look := range c.looks {
		if look == noLook {
			continue
		}
		d, ok := index[look]
		if !ok {
			d = len(all)
			index[look] = d
			all = append(all, distinct{look: look})
		}
		all[d].rows = append(all[d].rows, i)
	}
	near := make([][]int32, len(all)) // with a smaller number
	for i := range near {
		near[i] = []int32{int32(i)}
	}
	for band := range bands {
		buckets := map[uint64][]int32{}
		for i := range all {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b := of(all[i].look, band)
			for _, j := range buckets[b] {
				x := all[i].look ^ all[j].look
				if bits.OnesCount64(x) > NearBits {
					continue
				}
				first := 0 // the first band in which they agree: each pair is listed once
				for of(x, first) != 0 {
					first++
				}
				if first == band {
					near[i], near[j] = append(near[i], j), append(near[j], int32(i))
				}
			}
			buckets[b] = append(buckets[b], int32(i))
		}
	}
	meta := c.set.Meta()
	var out []candidate
	for i := range all {
		for _, row := range all[i].rows {
			var others []int
			for _, j := range near[i] {
				for _, other := range all[j].rows {
					if c.sums[other] != c.sums[row] && bySplit(meta[other].Split, meta[row].Split) < 0 {
						others = append(others, other)
					}
				}
				if len(others) > mostListed {
					break
				}
			}
			if len(others) == 0 {
				continue
			}
			sort.SliceStable(others, func(a, b int) bool {
				da, db := bits.OnesCount64(c.looks[others[a]]^c.looks[row]), bits.OnesCount64(c.looks[others[b]]^c.looks[row])
				return da < db || da == db && others[a] < others[b]
			})
			out = append(out, candidate{row, others[:min(len(others), mostOthers)]})
		}
	}
	slices.SortFunc(out, func(a, b candidate) int { return a.row - b.row })
	return out, nil
}
