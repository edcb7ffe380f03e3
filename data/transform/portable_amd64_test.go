//go:build amd64 && !noasm

package transform

import "testing"

// portable runs f without vector code.
func portable(t *testing.T, f func()) {
	t.Helper()
	old := useAVX2
	useAVX2 = false
	defer func() { useAVX2 = old }()
	f()
}
