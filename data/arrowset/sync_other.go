//go:build !unix

package arrowset

// syncDir does nothing where folders cannot be synced.
func syncDir(string) error { return nil }
