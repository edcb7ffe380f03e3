package data

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
	"diptych/internal/addr"
)

var scale = flag.Bool("scale", false, "simulate 10⁹ pairs in 10⁵ shards")

// synthetic is the manifest and the index of a set that does not exist; perGroup is 0 for rows without groups, else how many
// rows that follow one another share a group.
func synthetic(shards, rows, perGroup int) (*arrowset.Manifest, *arrowset.Index) {
	m := &arrowset.Manifest{Version: 1, Name: "synthetic", Rows: shards * rows, Groups: shards * rows, Splits: map[string]int{"train": shards * rows}}
	x := &arrowset.Index{Splits: []string{"train"}}
	for i := range shards {
		sum := fmt.Sprintf("%016x", addr.Hash(uint64(i)))
		m.Shards = append(m.Shards, arrowset.Shard{File: fmt.Sprintf("%05d.arrow", i), Rows: rows, Bytes: 256 << 20, SHA256: strings.Repeat(sum, 4)})
		s := arrowset.ShardIndex{First: i * rows, Rows: rows, Runs: []arrowset.Run{{Split: 0, Rows: rows}}}
		if perGroup > 0 {
			for r := range rows {
				s.Groups = append(s.Groups, uint32((s.First+r)/perGroup)+1)
			}
		}
		x.Shards = append(x.Shards, s)
	}
	return m, x
}

// heap is what is alive, in bytes.
func heap() float64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc)
}

// TestScale measures what docs/scale.md reports, by default on a small set:
//
//	go test ./data -run TestScale -v -scale
func TestScale(t *testing.T) {
	shards, rows := 500, 200
	if *scale {
		shards, rows = 100_000, 10_000
	}
	const n, w = 4096, 16
	report := func(what string, format string, args ...any) {
		t.Logf("%-44s "+format, append([]any{what}, args...)...)
	}

	m, x := synthetic(shards, rows, 0)
	text, err := json.MarshalIndent(m, "", " ")
	require.NoError(t, err)
	file, err := x.Encode()
	require.NoError(t, err)
	x = nil
	before, start := heap(), time.Now()
	parsed, err := arrowset.ParseManifest(text)
	require.NoError(t, err)
	report("manifest: bytes, time to parse", "%.1f MB, %v", float64(len(text))/1e6, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	x, err = arrowset.DecodeIndex(file, &parsed)
	require.NoError(t, err)
	report("index: bytes, time to decode", "%.1f kB, %v", float64(len(file))/1e3, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	o, err := NewWindowed(1, n, w, x, "train")
	require.NoError(t, err)
	report("order: time to make", "%v", time.Since(start).Round(10*time.Microsecond))
	start = time.Now()
	o.At(123*o.updatesPerEpoch()+o.updatesPerEpoch()/2, 7)
	report("seek to an update of another epoch", "%v", time.Since(start).Round(10*time.Microsecond))
	start = time.Now()
	const asked = 100_000
	for i := range asked {
		o.At(123*o.updatesPerEpoch()+i/n%o.updatesPerEpoch(), i%n)
	}
	report("one sample's place", "%v", time.Since(start)/asked)
	report("memory of manifest, index and order", "%.1f MB", (heap()-before)/1e6)
	runtime.KeepAlive([]any{m, text, file, parsed, x})

	_, grouped := synthetic(shards/100, rows, 3)
	file, err = grouped.Encode()
	require.NoError(t, err)
	before = heap()
	og, err := NewWindowed(1, n/100, w/4, grouped, "train")
	require.NoError(t, err)
	count := float64(shards / 100 * rows)
	report("with groups of three, per row", "%.2f bytes of index file, 4 of index, %.1f of order", float64(len(file))/count, (heap()-before)/count)
	runtime.KeepAlive([]any{og, grouped, file})

	// How even the shuffle is, beside a permutation of all.
	whole := addr.NewPerm(99, uint64(shards*rows))
	full := func(u, i int) int { return int(whole.At(uint64(u*n + i))) }
	windowed := func(u, i int) int { _, row := o.At(u, i); return row }
	batches := min(400, o.updatesPerEpoch())
	for _, rho := range []float64{0, 0.01, 0.1, 1} {
		// A value of each row, of variance 1, of which the share rho is the shard's.
		value := func(row int) float64 {
			return math.Sqrt(rho)*addr.Norm(addr.Hash(1, uint64(row/rows))) + math.Sqrt(1-rho)*addr.Norm(addr.Hash(2, uint64(row)))
		}
		spread := func(at func(u, i int) int) float64 {
			sum := 0.0
			for k := range batches {
				u, mean := k*(o.updatesPerEpoch()/batches), 0.0
				for i := range n {
					mean += value(at(u, i)) / n
				}
				sum += mean * mean
			}
			return sum / float64(batches) * n
		}
		wide, narrow := spread(full), spread(windowed)
		report(fmt.Sprintf("n · variance of a batch's mean, rho = %v", rho), "%.2f in windows, %.2f permuted, 1 + rho·n/w = %.2f", narrow, wide, 1+rho*n/w)
		if batches > 20 { // the standard error of a variance from 24 batches is 0.3 of it
			require.Less(t, narrow, 3*(1+rho*n/w))
		}
	}
	distinct := func(at func(u, i int) int) int {
		seen := map[int]bool{}
		for i := range n {
			seen[at(1, i)/rows] = true
		}
		return len(seen)
	}
	report("shards in a batch", "%d in windows, %d permuted", distinct(windowed), distinct(full))
	require.LessOrEqual(t, distinct(windowed), 2*w+n/(w*rows)*w)

	// Do those who met in one batch meet again in the next epoch? On 10⁶ rows, so that whole epochs are compared.
	_, small := synthetic(1000, 1000, 0)
	so, err := NewWindowed(1, 1000, w, small, "train")
	require.NoError(t, err)
	at := make([]int32, 1_000_000) // the batch of each row in epoch 1
	for p := range at {
		_, row := so.at(1, p)
		at[row] = int32(p / 1000)
	}
	again, both := 0, map[int32]int{}
	for p := range at {
		_, row := so.at(0, p)
		again += both[at[row]]
		both[at[row]]++
		if p%1000 == 999 {
			clear(both)
		}
	}
	pairs := 1000.0 * 1000 * 999 / 2
	report("pairs of a batch that meet again, of 10⁶ rows", "%.4f%% in windows, %.4f%% permuted", 100*float64(again)/pairs, 100*999/999_999.0)
}
