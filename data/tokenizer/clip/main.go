// Command clip makes merges.txt.gz, CLIP's merges, and LICENSE beside it from open_clip's wheel:
//
//	pip download --no-deps open-clip-torch
//	go run ./data/tokenizer/clip -out data/tokenizer/clip open_clip_torch-*.whl
//
// The file in the wheel lists 262,144 merges, of which CLIP uses the first 48,894.
package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
)

const (
	mergesName = "open_clip/bpe_simple_vocab_16e6.txt.gz"
	// mergesSum is the SHA-256 of that file, the same in openai/CLIP, open_clip and LAVIS.
	mergesSum = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
	lines     = 1 + 49152 - 256 - 2 // the version and the merges, as open_clip counts them

	notice = `merges.txt.gz holds the first 48,895 lines of bpe_simple_vocab_16e6.txt, which is part of CLIP
(https://github.com/openai/CLIP, MIT License, Copyright (c) 2021 OpenAI) and was taken from open_clip's wheel
open-clip-torch (https://github.com/mlfoundations/open_clip), whose licence, the MIT License, is:

`
)

func main() {
	log.SetFlags(0)
	out := flag.String("out", ".", "`directory` for merges.txt.gz and LICENSE")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("clip: name the wheel of open-clip-torch")
	}
	if err := run(flag.Arg(0), *out); err != nil {
		log.Fatalf("clip: %v", err)
	}
}

func run(wheel, out string) error {
	w, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer w.Close()
	var packed, licence []byte
	for _, f := range w.File {
		var to *[]byte
		switch {
		case f.Name == mergesName:
			to = &packed
		case path.Base(f.Name) == "LICENSE":
			to = &licence
		default:
			continue
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		if *to, err = io.ReadAll(r); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if licence == nil {
		return errors.New("the wheel has no LICENSE")
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != mergesSum {
		return fmt.Errorf("%s has SHA-256 %x, not %s", mergesName, sum, mergesSum)
	}
	trimmed, err := trim(packed)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "LICENSE"), append([]byte(notice), licence...), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "merges.txt.gz"), trimmed, 0o644)
}

// trim keeps the lines that CLIP uses.
func trim(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	end := 0
	for range lines {
		n := bytes.IndexByte(text[end:], '\n')
		if n < 0 {
			return nil, fmt.Errorf("fewer than %d lines", lines)
		}
		end += n + 1
	}
	var b bytes.Buffer
	to, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := to.Write(text[:end]); err != nil {
		return nil, err
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
