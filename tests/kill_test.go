package tests

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// build builds the command once for all tests of this process and returns its path.
func build(tb testing.TB) string {
	tb.Helper()
	path, err := buildOnce()
	require.NoError(tb, err)
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "trainer")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", path, "./cmd/trainer")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// buildDir is where the command is built; TestMain makes and removes it.
var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "diptych-tests"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

// A run that is killed at 20 random moments and started again each time, with other workers and threads, ends with the same
// weights, moments, averages, samples and records as one that was left alone.
func TestKilled(t *testing.T) {
	needSlow(t)
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGKILL; a stop at every operation of a checkpoint is tested there too")
	}
	const steps, kills = 60, 20
	bin, dir := build(t), t.TempDir()
	recipe := writeRecipe(t, dir)
	start := func(out string, workers, threads int) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.CommandContext(t.Context(), bin, "pretrain", recipe, "--out", out, "--set", fmt.Sprintf("train.steps=%d", steps),
			"--workers", fmt.Sprint(workers), "--threads", fmt.Sprint(threads), "--json")
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		require.NoError(t, cmd.Start())
		return cmd, &output
	}
	begun := time.Now()
	cmd, output := start(filepath.Join(dir, "base"), 1, 1)
	require.NoError(t, cmd.Wait(), "%s", output)
	whole := time.Since(begun)
	want := outcome(t, filepath.Join(dir, "base"), steps)

	const seed = 20
	r := rand.New(rand.NewPCG(seed, 0))
	starts, killed, inside, runs := 0, 0, 0, 0
	for ; killed < kills; runs++ {
		out := filepath.Join(dir, fmt.Sprint("run", runs))
		for finished := false; !finished; starts++ {
			require.Less(t, starts, 50*kills, "the run makes no progress")
			delay := time.Duration(r.Float64() * 0.7 * float64(whole)) // most before the end, some while the report is written
			cmd, output := start(out, 1<<r.IntN(3), 1+r.IntN(2))
			timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() }) // SIGKILL; an error means that it has ended
			err := cmd.Wait()
			timer.Stop()
			var exit *exec.ExitError
			switch {
			case err == nil:
				finished = true
			case errors.As(err, &exit) && !exit.Exited():
				killed++
				if n := strings.Count(output.String(), `{"step":`); n > 0 {
					inside++
				}
			default:
				t.Fatalf("%v: %s", err, output)
			}
		}
		require.Equal(t, want, outcome(t, out, steps))
	}
	require.GreaterOrEqual(t, inside, kills/4, "too few kills fell between updates")
	t.Logf("an undisturbed run takes %v; %d runs, killed %d times, of which %d after an update of theirs", whole.Round(time.Millisecond), runs, killed, inside)
}
