// Package machine tells what the computer has free and what the process uses. Where the system does not say, the answer is 0.
package machine

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
)

// AvailableMemory returns the bytes that can be had without swapping, at most what a control group still allows; 0 when unknown.
func AvailableMemory() int64 {
	free := field("/proc/meminfo", "MemAvailable:")
	if limit, used := number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current"); limit > 0 && (free == 0 || limit-used < free) {
		free = max(limit-used, 0)
	}
	return free
}

// AnonymousMemory returns the bytes of the process's own memory that are resident; 0 when unknown.
func AnonymousMemory() int64 { return field("/proc/self/status", "RssAnon:") }

// field reads a line "name  123 kB".
func field(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) == 3 && f[0] == name && f[2] == "kB" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
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
