package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// commandRun runs the command with --json and returns the seconds from the start of its process to its end and to the end of
// its first update.
func commandRun(tb testing.TB, bin string, args ...string) (whole, firstStep float64) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), bin, args...)
	var people bytes.Buffer
	cmd.Stderr = &people
	events, err := cmd.StdoutPipe()
	require.NoError(tb, err)
	begun := time.Now()
	require.NoError(tb, cmd.Start())
	for in := bufio.NewScanner(events); in.Scan(); {
		if firstStep == 0 && strings.HasPrefix(in.Text(), `{"step":`) {
			firstStep = time.Since(begun).Seconds()
		}
	}
	require.NoError(tb, cmd.Wait(), "%s", &people)
	require.NotZero(tb, firstStep)
	return time.Since(begun).Seconds(), firstStep
}

// BenchmarkFirstStep measures how long a user waits for the demo's first update: from the start of the built command's process.
func BenchmarkFirstStep(b *testing.B) {
	bin, dir := build(b), b.TempDir()
	sum, n := 0.0, 0
	for b.Loop() {
		_, first := commandRun(b, bin, "pretrain", "--out", filepath.Join(dir, fmt.Sprint(n)), "--set", "train.steps=1", "--set", "eval.splits=[val]", "--json")
		sum += first
		n++
	}
	b.ReportMetric(sum/float64(n), "s/first-step")
}
