//go:build !amd64 || noasm

package transform

import "testing"

func portable(_ *testing.T, f func()) { f() }
