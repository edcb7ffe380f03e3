package machine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// In a container files that were read are not in the way; a group that uses all it may is not one that says nothing.
func TestAvailableInAControlGroup(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name string
		have map[string]string
		want int64
	}{
		{"no group", map[string]string{"meminfo": "MemAvailable: 4096 kB\n"}, 4 * mib},
		{"no limit", map[string]string{"meminfo": "MemAvailable: 4096 kB\n", "memory.max": "max\n", "memory.current": "9999999\n"}, 4 * mib},
		{"limit", map[string]string{"meminfo": "MemAvailable: 4096 kB\n", "memory.max": "3145728\n", "memory.current": "1048576\n"}, 2 * mib},
		{"limit above what is free", map[string]string{"meminfo": "MemAvailable: 1024 kB\n", "memory.max": "3145728\n", "memory.current": "1048576\n"}, mib},
		{"files were read", map[string]string{"meminfo": "MemAvailable: 4096 kB\n", "memory.max": "3145728\n", "memory.current": "3145728\n",
			"memory.stat": "anon 1048576\nfile 2097152\ninactive_file 2097152\n"}, 2 * mib},
		{"all is used", map[string]string{"meminfo": "MemAvailable: 4096 kB\n", "memory.max": "3145728\n", "memory.current": "3145728\n"}, 1},
		{"nothing is known", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.have {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
			}
			require.Equal(t, c.want, available(filepath.Join(dir, "meminfo"), dir))
		})
	}
}
