// Package machine tells what the computer has free and what the process uses. Where the system does not say, the answer is 0.
package machine

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// AvailableMemory returns the bytes that can be had without swapping, at most what a control group still allows; 0 when unknown.
func AvailableMemory() int64 { return available("/proc/meminfo", "/sys/fs/cgroup") }

func available(meminfo, group string) int64 {
	free := field(meminfo, "MemAvailable:")
	limit := number(filepath.Join(group, "memory.max"))
	if limit <= 0 {
		return free
	}
	// What the group uses counts the files that it has read, which give way to memory that is asked for.
	used := number(filepath.Join(group, "memory.current")) - field(filepath.Join(group, "memory.stat"), "inactive_file")
	left := max(limit-max(used, 0), 1) // 0 would mean unknown
	if free == 0 {
		return left
	}
	return min(free, left)
}

// AnonymousMemory returns the bytes of the process's own memory that are resident; 0 when unknown.
func AnonymousMemory() int64 { return field("/proc/self/status", "RssAnon:") }

// PeakMemory returns the most bytes of the process that were resident at once since its start or ResetPeakMemory; 0 when unknown.
func PeakMemory() int64 { return field("/proc/self/status", "VmHWM:") }

// ResetPeakMemory makes PeakMemory begin anew, where the system can.
func ResetPeakMemory() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // where it cannot, the peak is that since the start
}

// field reads a line "name  123 kB", or "name 123" in bytes.
func field(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || f[0] != name {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch {
		case len(f) == 2:
			return n
		case len(f) == 3 && f[2] == "kB":
			return n << 10
		}
	}
	return 0
}

// number reads a file that holds one number; 0 when it does not.
func number(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}
