package kernel

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPeakCountsItsOperations(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	one, five := Peak(nil, 1), Peak(p, 5)
	require.Positive(t, one)
	require.Equal(t, 5*one, five)
	require.GreaterOrEqual(t, PeakBF16(nil, 1), one)
	require.EqualValues(t, 16*peakPiece, peakRounds(peakPiece))
}

func BenchmarkPeak(b *testing.B) {
	p := NewPool(2)
	defer p.Close()
	var n int64
	for b.Loop() {
		n += Peak(p, 64)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}
