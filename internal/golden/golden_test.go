package golden

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
)

// fixture writes a small folder.
func fixture(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, tensors ...safetensors.Tensor) {
		file, err := os.Create(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, safetensors.Write(file, tensors, nil))
		require.NoError(t, file.Close())
	}
	write("io.safetensors", safetensors.Floats("out.y", []int{1, 2}, []float32{1, 2}), safetensors.Int64s("in.ids", []int{2}, []int64{3, -4}),
		safetensors.Floats("loss.a", nil, []float32{0.5}))
	write("w.safetensors", safetensors.Floats("w", []int{2, 1}, []float32{5, 6}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "golden.json"),
		[]byte(`{"weights": "w.safetensors", "tolerance": {"rule": "", "tensors": {"out.y": {"d": 1e-7, "m": 2, "atol": 1e-3}}}}`), 0o644))
	return dir
}

// recorder notes failures instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestFolder(t *testing.T) {
	f := Load(t, fixture(t))
	require.Equal(t, []float32{1, 2}, f.Float32("out.y"))
	require.Equal(t, []int{1, 2}, f.Shape("out.y"))
	require.Equal(t, []int64{3, -4}, f.Ints("in.ids"))
	require.Equal(t, float32(0.5), f.Scalar("loss.a"))
	require.True(t, f.Has("out.y"))
	require.False(t, f.Has("out.z"))
	require.Equal(t, 1e-3, f.Atol("out.y"))
	w, shape := f.Weight("w")
	require.Equal(t, []float32{5, 6}, w)
	require.Equal(t, []int{2, 1}, shape)
	f.Check(t, "out.y", []float32{1.0009, 2})
	r := &recorder{TB: t}
	f.Check(r, "out.y", []float32{1.002, 2})
	require.True(t, r.failed)
}

func TestDifference(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	tests := []struct {
		name      string
		got, want []float64
		atol      float64
		contains  string
	}{
		{"equal", []float64{1, nan, inf, -inf}, []float64{1, nan, inf, -inf}, 0, ""},
		{"within", []float64{1.5}, []float64{1}, 0.5, ""},
		{"exact fails", []float64{1, 1 + 1e-15}, []float64{1, 1}, 0, "1 of 2 elements differ by more than 0; most at index 1"},
		{"largest is reported", []float64{2, 5, 1}, []float64{1, 1, 1}, 0.5, "2 of 3 elements differ by more than 0.5; most at index 1: got 5, want 1, difference 4"},
		{"NaN for a number", []float64{3, nan}, []float64{1, 1}, 1e9, "index 1: got NaN"},
		{"number for NaN", []float64{1}, []float64{nan}, inf, "index 0: got 1, want NaN"},
		{"infinity for a number", []float64{inf}, []float64{1}, inf, "got +Inf"},
		{"wrong infinity", []float64{-inf}, []float64{inf}, inf, "got -Inf"},
		{"lengths", []float64{1}, []float64{1, 2}, 1, "1 elements, want 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			msg := difference(tt.got, tt.want, tt.atol)
			if tt.contains == "" {
				require.Empty(t, msg)
				return
			}
			require.Contains(t, msg, tt.contains)
		})
	}
}
