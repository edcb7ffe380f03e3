package machine

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestField(t *testing.T) {
	f := filepath.Join(t.TempDir(), "status")
	require.NoError(t, os.WriteFile(f, []byte("Name:\tx\nRssAnon:\t  12 kB\nRssFile: 3 pages\n"), 0o600))
	require.EqualValues(t, 12<<10, field(f, "RssAnon:"))
	require.Zero(t, field(f, "RssFile:"), "another unit")
	require.Zero(t, field(f, "RssShmem:"))
	require.Zero(t, field(f+"x", "RssAnon:"))
}

func TestThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	require.Positive(t, AvailableMemory())
	require.Positive(t, AnonymousMemory())
	ResetPeakMemory()
	require.GreaterOrEqual(t, PeakMemory(), AnonymousMemory())
}
