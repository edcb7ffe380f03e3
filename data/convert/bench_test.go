package convert

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkFlickr8k imports the whole of Flickr8k from its COCO captions files: `tests/peers/import.py` writes the same in Python.
func BenchmarkFlickr8k(b *testing.B) {
	c := flickr8k(b)
	dir, n := b.TempDir(), 0
	for b.Loop() {
		n++
		_, err := Run(ctx, c, Options{Out: filepath.Join(dir, fmt.Sprint(n))})
		require.NoError(b, err)
	}
	b.ReportMetric(8000*float64(b.N)/b.Elapsed().Seconds(), "pictures/s")
}
