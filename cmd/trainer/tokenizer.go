package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"diptych/data/remote"
	"diptych/data/tokenizer"
)

// newTokenizer is "trainer data tokenizer": it learns vocabularies and shows what they make of a text.
func newTokenizer() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "tokenizer",
		Short:   "Train or reduce a vocabulary, or encode texts with one",
		Example: "  trainer data tokenizer encode --file demo \"a red fruit\"",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenizerTrain(), newTokenizerReduce(), newTokenizerEncode())
	return cmd
}

// trainedTokenizer is what "trainer data tokenizer train" and "reduce" write with --json.
type trainedTokenizer struct {
	File             string  `json:"file"`
	VocabSize        int     `json:"vocabSize"`
	Captions         int     `json:"captions"`
	TokensPerCaption float64 `json:"tokensPerCaption"` // mean, bos and eos included, before truncation
	LongestCaption   int     `json:"longestCaption"`   // the same, the most
}

// newTokenizerTrain is "trainer data tokenizer train": it learns merges from a split's captions.
func newTokenizerTrain() *cobra.Command {
	var path, split, out string
	var size int
	var asJSON bool
	var cache remote.Options
	cmd := &cobra.Command{
		Use:   "train --data DIR --size N --out FILE",
		Short: "Learn a byte-pair vocabulary from the captions of a data set",
		Long: `Learn a byte-pair vocabulary from all captions of one split of a data set and write its merges in CLIP's text format.
A recipe uses it by data.tokenizer: {kind: bpe, file: FILE}. The same captions always give the same file.`,
		Example: "  trainer data tokenizer train --data demo --split train --size 3072 --out merges.txt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case path == "":
				return usagef("--data is missing: the directory of an Arrow data set, or demo")
			case out == "":
				return usagef("--out is missing: the merges file to write")
			case size < tokenizer.MinVocabSize || size > tokenizer.MaxVocabSize:
				return usagef("--size %d: want %d (bytes and special tokens alone) to %d", size, tokenizer.MinVocabSize, tokenizer.MaxVocabSize)
			}
			texts, err := captionsOf(cmd, path, split, cache)
			if err != nil {
				return err
			}
			bpe, err := tokenizer.TrainBPE(cmd.Context(), slices.Values(texts), size)
			if err != nil {
				return err
			}
			if err := bpe.WriteFile(out); err != nil {
				return err
			}
			sum, err := openTrained("bpe", out, false, texts)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(sum)
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "%s: %d entries from %d captions; %.2f tokens per caption with bos and eos, at most %d\n",
				sum.File, sum.VocabSize, sum.Captions, sum.TokensPerCaption, sum.LongestCaption)
			if sum.VocabSize < size {
				fmt.Fprintf(w, "fewer than the %d asked for: no further pair stands twice in the captions\n", size)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "data", "", "`directory` or address of an Arrow data set, or demo")
	addCacheFlags(cmd, &cache)
	cmd.Flags().StringVar(&split, "split", "train", "split whose captions to learn from")
	cmd.Flags().IntVar(&size, "size", 0, "entries of the vocabulary, of which 514 are bytes and special tokens")
	cmd.Flags().StringVar(&out, "out", "", "merges `file` to write")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the summary as JSON")
	return cmd
}

// newTokenizerReduce is "trainer data tokenizer reduce": it keeps of a WordPiece vocabulary what a split's captions take.
func newTokenizerReduce() *cobra.Command {
	var path, split, file, out string
	var also []string
	var cased, asJSON bool
	var cache remote.Options
	cmd := &cobra.Command{
		Use:   "reduce --data DIR --out FILE",
		Short: "Keep of a WordPiece vocabulary what the captions of a data set take",
		Long: `Keep of a WordPiece vocabulary the entries that all captions of one split of a data set take, the special ones and the
printable ASCII characters, and write them as a vocab.txt. Those captions are cut as before; other words are cut into smaller parts.
In a small model the words of BERT's whole vocabulary would be most of the parameters.`,
		Example: "  trainer data tokenizer reduce --data demo --split train --out vocab.txt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case path == "":
				return usagef("--data is missing: the directory of an Arrow data set, or demo")
			case out == "":
				return usagef("--out is missing: the vocabulary file to write")
			}
			tok, err := tokenizer.New(tokenizer.Config{Kind: "wordpiece", File: file, Cased: cased})
			if err != nil {
				return usageError{err} // all that it checks is what the user named
			}
			texts, err := captionsOf(cmd, path, split, cache)
			if err != nil {
				return err
			}
			part, err := tok.(*tokenizer.WordPiece).Reduce(slices.Values(append(texts, also...)))
			if err != nil {
				return usageError{err}
			}
			if err := part.WriteFile(out); err != nil {
				return err
			}
			sum, err := openTrained("wordpiece", out, cased, texts)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(sum)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d of %d entries for %d captions; %.2f tokens per caption with bos and eos, at most %d\n",
				sum.File, sum.VocabSize, tok.VocabSize(), sum.Captions, sum.TokensPerCaption, sum.LongestCaption)
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "data", "", "`directory` or address of an Arrow data set, or demo")
	addCacheFlags(cmd, &cache)
	cmd.Flags().StringVar(&split, "split", "train", "split whose captions to keep the words of")
	cmd.Flags().StringArrayVar(&also, "also", nil, "further `text` whose words stay, such as a question that the model will be asked; may be repeated")
	cmd.Flags().StringVar(&file, "file", "bert-base-uncased", "vocab.txt or tokenizer.json `file` of BERT, or bert-base-uncased")
	cmd.Flags().BoolVar(&cased, "cased", false, "the words of that vocab.txt keep their case and accents")
	cmd.Flags().StringVar(&out, "out", "", "vocab.txt `file` to write")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the summary as JSON")
	return cmd
}

// captionsOf returns all captions of a split. It names the splits that there are when there is no such one.
func captionsOf(cmd *cobra.Command, path, split string, cache remote.Options) ([]string, error) {
	set, err := openData(cmd, path, cache, split)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	var texts []string
	splits := map[string]bool{}
	for i, row := range set.Meta() {
		splits[row.Split] = true
		if row.Split != split {
			continue
		}
		for _, c := range set.Captions(i) {
			texts = append(texts, strings.Clone(c.Text)) // it outlives the set
		}
	}
	if !splits[split] {
		return nil, usagef("--split %s: %s has no such split; it has %s", split, path, strings.Join(slices.Sorted(maps.Keys(splits)), ", "))
	}
	return texts, nil
}

// openTrained opens a vocabulary's file as a run will, and measures how it cuts texts.
func openTrained(kind, file string, cased bool, texts []string) (trainedTokenizer, error) {
	sum := trainedTokenizer{File: file, Captions: len(texts)}
	tok, err := tokenizer.New(tokenizer.Config{Kind: kind, File: file, Cased: cased, ContextLength: 1 << 20})
	if err != nil {
		return sum, err
	}
	sum.VocabSize = tok.VocabSize()
	var ids []int32
	total := 0
	for _, text := range texts {
		ids = tok.Encode(text, ids[:0])
		total += len(ids)
		sum.LongestCaption = max(sum.LongestCaption, len(ids))
	}
	sum.TokensPerCaption = float64(total) / float64(len(texts))
	return sum, nil
}

// encodedText is one element of what "trainer data tokenizer encode --json" writes.
type encodedText struct {
	Text   string   `json:"text"`
	IDs    []int32  `json:"ids"`
	Tokens []string `json:"tokens"`
}

// newTokenizerEncode is "trainer data tokenizer encode": it shows the ids and tokens of texts.
func newTokenizerEncode() *cobra.Command {
	var file string
	var contextLength int
	var wordPiece, cased, asJSON bool
	cmd := &cobra.Command{
		Use:   "encode TEXT...",
		Short: "Show the ids and tokens of texts",
		Example: `  trainer data tokenizer encode --file demo "a red fruit" "a cat's face"
  trainer data tokenizer encode --wordpiece --file bert-base-uncased "unaffable"`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := tokenizer.Config{Kind: "bpe", File: file, Cased: cased, ContextLength: contextLength}
			switch {
			case file == "clip":
				cfg.Kind, cfg.File = "clip", ""
			case wordPiece:
				cfg.Kind = "wordpiece"
			}
			tok, err := tokenizer.New(cfg)
			if err != nil {
				return usageError{err} // all that it checks is what the user named
			}
			encoded := make([]encodedText, len(args))
			for i, text := range args {
				if !utf8.ValidString(text) {
					return usagef("text %d, %q, is not UTF-8", i+1, text)
				}
				ids := tok.Encode(text, nil)
				encoded[i] = encodedText{text, ids, tok.Tokens(ids)}
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(encoded)
			}
			for _, e := range encoded {
				fmt.Fprintf(w, "%s\n  ids    %s\n  tokens %s\n", e.Text, strings.Trim(fmt.Sprint(e.IDs), "[]"), strings.Join(e.Tokens, " "))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "clip", "merges `file`, or clip or demo for those in this program")
	cmd.Flags().BoolVar(&wordPiece, "wordpiece", false, "--file is a vocab.txt or tokenizer.json of BERT, or bert-base-uncased")
	cmd.Flags().BoolVar(&cased, "cased", false, "the words of that vocab.txt keep their case and accents")
	cmd.Flags().IntVar(&contextLength, "context-length", 77, "longest encoding in tokens")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write a JSON array of {text, ids, tokens}")
	return cmd
}
