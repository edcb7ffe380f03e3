package runlog

import (
	"fmt"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func read(t *testing.T, dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	require.NoError(t, err)
	return string(b)
}

func open(t *testing.T, dir string, columns []string, step int) *Log {
	t.Helper()
	l, err := Open(dir, columns, step)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLog(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, []string{"loss", "a,b", "rows"}, 0)
	require.NoError(t, l.Append(1, 2.5, float32(0.1), "c0\"ffee,"))
	require.NoError(t, l.Append(2, math.NaN(), float32(math.Inf(1)), 1e-9))
	require.NoError(t, l.Append(3, 1e21, 7, uint64(math.MaxUint64)))
	require.NoError(t, l.Sync())
	wantJSON := `{"step":1,"loss":2.5,"a,b":0.1,"rows":"c0\"ffee,"}
{"step":2,"loss":null,"a,b":null,"rows":1e-9}
{"step":3,"loss":1e+21,"a,b":7,"rows":18446744073709551615}
`
	wantCSV := "step,loss,\"a,b\",rows\n1,2.5,0.1,\"c0\"\"ffee,\"\n2,,,1e-9\n3,1e+21,7,18446744073709551615\n"
	require.Equal(t, wantJSON, read(t, dir, MetricsFile))
	require.Equal(t, wantCSV, read(t, dir, CSVFile))

	require.ErrorContains(t, l.Append(3, 1, 2, 3), "step 3 after step 3")
	require.ErrorContains(t, l.Append(4, 1, 2), "2 values for 3 columns")
	require.ErrorContains(t, l.Append(4, 1, 2, func() {}), "rows")
	require.Equal(t, wantJSON, read(t, dir, MetricsFile), "what is refused leaves no trace")
	require.NoError(t, l.Close())

	open(t, dir, []string{"loss", "a,b", "rows"}, 3)
	require.Equal(t, wantJSON, read(t, dir, MetricsFile))
	require.Equal(t, wantCSV, read(t, dir, CSVFile), "the table made anew is the same")

	records, err := Read(dir, MetricsFile)
	require.NoError(t, err)
	require.Equal(t, []Record{{"step": 1, "loss": 2.5, "a,b": 0.1}, {"step": 2, "rows": 1e-9}, {"step": 3, "loss": 1e21, "a,b": 7, "rows": math.MaxUint64}}, records)
}

// A run killed at any byte of its records and resumed from a checkpoint has each step once.
func TestCutBack(t *testing.T) {
	const checkpoint, last = 12, 15 // two and three digits would hide a comparison of texts
	write := func(l *Log, from int) {
		for step := from; step <= last; step++ {
			require.NoError(t, l.Append(step, float64(step)/4, step*2))
			if step%4 == 0 {
				require.NoError(t, l.Eval(step, map[string]float64{"val.top1": float64(step) / 100, "a": math.NaN()}))
			}
		}
	}
	columns := []string{"loss", "n"}
	whole := t.TempDir()
	write(open(t, whole, columns, 0), 1)
	want := map[string]string{}
	for _, f := range []string{MetricsFile, CSVFile, EvalFile} {
		want[f] = read(t, whole, f)
	}
	require.Equal(t, 3, strings.Count(want[EvalFile], "\n"))
	at := strings.Index(want[MetricsFile], `{"step":13`) // the checkpoint of step 12 was saved after this
	dir := t.TempDir()
	for end := at; end <= len(want[MetricsFile]); end++ {
		csv := []string{"", want[CSVFile], want[CSVFile][:len(want[CSVFile])-3]}[end%3]
		require.NoError(t, os.WriteFile(filepath.Join(dir, MetricsFile), []byte(want[MetricsFile][:end]), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, CSVFile), []byte(csv), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, EvalFile), []byte(want[EvalFile]+`{"step":16,"val.top1":1}`), 0o644))
		l, err := Open(dir, columns, checkpoint)
		require.NoError(t, err)
		require.True(t, l.Evaluated(12))
		require.False(t, l.Evaluated(16))
		require.False(t, l.Evaluated(11))
		write(l, checkpoint+1)
		require.NoError(t, l.Close())
		for f, text := range want {
			require.Equal(t, text, read(t, dir, f), "%s after a kill at byte %d", f, end)
		}
	}
}

func TestCutBackDamaged(t *testing.T) {
	good := "{\"step\":1,\"loss\":1}\n"
	tests := []struct{ name, rest string }{
		{"zeros after a loss of power", strings.Repeat("\x00", 40) + "\n"},
		{"not an object", "17\n"},
		{"no step", "{\"loss\":3}\n"},
		{"step twice", good},
		{"torn", `{"step":2,"lo`},
		{"torn after the value", `{"step":2,"loss":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, MetricsFile), []byte(good+tt.rest), 0o644))
			l := open(t, dir, []string{"loss", "new"}, 5)
			require.NoError(t, l.Append(2, 0.5, 3))
			require.Equal(t, good+"{\"step\":2,\"loss\":0.5,\"new\":3}\n", read(t, dir, MetricsFile))
			require.Equal(t, "step,loss,new\n1,1,\n2,0.5,3\n", read(t, dir, CSVFile), "a new column is empty before")
		})
	}
}

func TestEval(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, nil, 0)
	require.NoError(t, l.Eval(2, map[string]float64{"b": 1, "a": 0.5}))
	require.NoError(t, l.Eval(2, map[string]float64{"test": 3}))
	require.ErrorContains(t, l.Eval(1, nil), "step 1 after that of step 2")
	require.Equal(t, "{\"step\":2,\"a\":0.5,\"b\":1}\n{\"step\":2,\"test\":3}\n", read(t, dir, EvalFile))
	_, err := Open(filepath.Join(dir, "absent"), nil, 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	none, err := Read(t.TempDir(), EvalFile)
	require.NoError(t, err)
	require.Empty(t, none)
}

// The second process is another program: this test's own, which runs only TestHoldsLock.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	l, err := Lock(dir)
	require.NoError(t, err)
	_, err = Lock(dir)
	require.ErrorIs(t, err, ErrLocked)

	other := func() string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHoldsLock$", "-test.v")
		cmd.Env = append(os.Environ(), "RUNLOG_TEST_DIR="+dir)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	out := other()
	require.Contains(t, out, fmt.Sprintf("in use by process %d on ", os.Getpid()))
	require.Contains(t, out, dir)
	require.NoError(t, l.Close())
	require.Contains(t, other(), "got the lock")

	l, err = Lock(dir) // the other process ended without closing
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = Lock(filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestHoldsLock(t *testing.T) {
	dir := os.Getenv("RUNLOG_TEST_DIR")
	if dir == "" {
		t.Skip("runs in the process that TestLock starts")
	}
	if _, err := Lock(dir); err != nil {
		require.ErrorIs(t, err, ErrLocked)
		fmt.Println(err)
		return
	}
	fmt.Println("got the lock")
}

func TestCurves(t *testing.T) {
	dir := t.TempDir()
	require.ErrorContains(t, Curves(dir, DefaultPanels()), "no records")
	l := open(t, dir, []string{"loss", "lr", "gradNorm", "scale", "pairsPerSecond"}, 0)
	for step := 1; step <= 4000; step++ {
		x := float64(step)
		noise := math.Sin(x*12.9898) * math.Cos(x*78.233)
		loss := 4.8*math.Exp(-x/900) + 0.6 + 0.3*noise
		require.NoError(t, l.Append(step, loss, 1e-3*min(x/400, 0.5*(1+math.Cos(math.Pi*x/4000))),
			math.Exp(2*math.Exp(-x/500)+noise), 14+20*(1-math.Exp(-x/1000)), 600+40*noise))
		if step%400 == 0 {
			r := 0.45 * (1 - math.Exp(-x/1500))
			require.NoError(t, l.Eval(step, map[string]float64{"val.imageToText.recallAt1": r, "val.textToImage.recallAt1": r * 0.93,
				"val.imageToText.recallAt10": 2 * r, "val.group.top1": 0.29 * r / 0.45}))
		}
	}
	require.NoError(t, Curves(dir, DefaultPanels()))
	f, err := os.Open(filepath.Join(dir, CurvesFile))
	require.NoError(t, err)
	defer f.Close()
	im, err := png.Decode(f)
	require.NoError(t, err)
	require.Equal(t, perRow*panelWidth, im.Bounds().Dx())
	require.Equal(t, 4*panelHeight, im.Bounds().Dy())
	colors := map[uint32]int{}
	for y := range im.Bounds().Dy() {
		for x := range im.Bounds().Dx() {
			r, g, b, _ := im.At(x, y).RGBA()
			colors[r>>8<<16|g>>8<<8|b>>8]++
		}
	}
	for rgb, least := range map[uint32]int{0x00559a: 1000, 0xd55e00: 100, 0xa8c4e0: 1000} {
		require.Greater(t, colors[rgb], least, "pixels of colour %06x", rgb)
	}
	if keep := os.Getenv("DIPTYCH_KEEP"); keep != "" {
		require.NoError(t, os.CopyFS(keep, os.DirFS(dir)))
	}
}

// Few steps, equal values, values that a logarithmic axis does not take.
func TestCurvesOfShortRuns(t *testing.T) {
	for name, values := range map[string][]float64{"one step": {2}, "equal": {1, 1, 1}, "zeros": {0, 0}, "null": {math.NaN(), 1}, "rising": {1e-7, 1e-7, 3}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, []string{"loss", "gradNorm"}, 0)
			for i, v := range values {
				require.NoError(t, l.Append(i+1, v, v))
			}
			require.NoError(t, Curves(dir, DefaultPanels()))
			st, err := os.Stat(filepath.Join(dir, CurvesFile))
			require.NoError(t, err)
			require.Greater(t, st.Size(), int64(2000))
		})
	}
}

func TestCurvesOfFirstEvaluation(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, open(t, dir, nil, 0).Eval(0, map[string]float64{"val.a.recallAt1": 0}))
	require.NoError(t, Curves(dir, DefaultPanels()))
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("{\"step\":1,\"loss\":1}\n{\"step\":2}\n{\"st"), 1)
	f.Add([]byte("{\"step\":1,\"loss\":{\"x\":[1,\"\\n\"]}}\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, MetricsFile), b, 0o644))
		l := open(t, dir, []string{"loss"}, step)
		if step < math.MaxInt {
			require.NoError(t, l.Append(max(l.last, step)+1, 1.5))
		}
		require.NoError(t, l.Close())
		records, err := Read(dir, MetricsFile)
		require.NoError(t, err)
		require.Equal(t, len(records)+1, strings.Count(read(t, dir, CSVFile), "\n"))
	})
}
