package tokenizer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"diptych/data/demo/vocab"
)

// maxFileBytes bounds a vocabulary's file, unpacked: 40 times CLIP's merges.
const maxFileBytes = 64 << 20

// builtIn holds the files in the binary, by kind and name.
var builtIn = map[[2]string][]byte{
	{"bpe", "demo"}:            vocab.Merges,
	{"wordpiece", "demo"}:      vocab.Pieces,
	{"wordpiece", bertUncased}: bertFile,
}

// BuiltIn reports whether File names a file in the binary.
func (c Config) BuiltIn() bool { return builtIn[[2]string{c.Kind, c.File}] != nil }

// ReadFile returns what the file of kind "bpe" or "wordpiece" holds.
func (c Config) ReadFile() ([]byte, error) {
	if c.Content != nil {
		return c.Content, nil
	}
	if c.BuiltIn() {
		return builtIn[[2]string{c.Kind, c.File}], nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: the file of kind %s: %w", c.Kind, err)
	}
	defer f.Close()
	b, err := readLimited(f)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", c.File, err)
	}
	return b, nil
}

// readVerified is ReadFile for a configuration whose checksum must hold.
func (c Config) readVerified() ([]byte, error) {
	b, err := c.ReadFile()
	if err != nil {
		return nil, err
	}
	if sum := Checksum(b); c.SHA256 != "" && sum != c.SHA256 {
		return nil, fmt.Errorf("tokenizer: %s has SHA-256 %s, not %s: it is not the one that the run began with", c.File, sum, c.SHA256)
	}
	return b, nil
}

// Checksum is the SHA-256 of a vocabulary's file, in hex, as Config.SHA256 has it.
func Checksum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// readLimited reads all of r, up to maxFileBytes.
func readLimited(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if n > maxFileBytes {
		return nil, fmt.Errorf("more than %d MiB of text", maxFileBytes>>20)
	}
	return b.Bytes(), nil
}

// unpack returns b, unpacked if it is gzip.
func unpack(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = readLimited(z)
	}
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	return b, nil
}

// writeFile writes b to path. The file appears whole or not at all.
func writeFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".vocabulary-*")
	if err != nil {
		return fmt.Errorf("tokenizer: write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("tokenizer: write %s: %w", path, err)
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644) // a temporary file is private; a vocabulary is not
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
