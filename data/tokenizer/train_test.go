package tokenizer

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// spellings returns a tokenizer's merges as its file writes them.
func spellings(t *BPE) []string {
	return strings.Split(strings.TrimSpace(string(t.appendText(nil))), "\n")[1:]
}

func TestTrainBPE(t *testing.T) {
	// The counts of Sennrich et al. 2016, Algorithm 1, in other letter case and white space.
	paper := append(slices.Repeat([]string{"low"}, 5), "lower Lower", "newest newest\tnewest", "Newest", "NEWEST", "newest", " widest widest  widest ")
	for _, c := range []struct {
		name  string
		texts []string
		size  int
		want  []string
	}{
		{"the paper's words", paper, MinVocabSize + 5, []string{"e s", "es t</w>", "l o", "e w", "ew est</w>"}}, // 9, 9, 7, 6, 6 times
		{"ties in byte order", []string{"zy zy ba ba bc bc"}, MinVocabSize + 3, []string{"b a</w>", "b c</w>", "z y</w>"}},
		{"a run of one letter", []string{"aaaa aaaa"}, MinVocabSize + 9, []string{"a a", "a a</w>", "aa aa</w>"}},
		{"nothing that stands twice", []string{"ab cd"}, MinVocabSize + 9, []string{}},
		{"no merges wanted", []string{"ab ab"}, MinVocabSize, []string{}},
		{"special strings", []string{"<end_of_text> <start_of_text> ok <end_of_text> ok"}, MinVocabSize + 9, []string{"o k</w>"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := TrainBPE(t.Context(), slices.Values(c.texts), c.size)
			require.NoError(t, err)
			require.Equal(t, c.want, spellings(tok))
			require.Equal(t, MinVocabSize+len(c.want), tok.VocabSize())
		})
	}
}

// Two merges could make one spelling ("a"+"bc" and "ab"+"c"), which would be two ids of one name: the second is left out.
func TestTrainBPENamesAreUnique(t *testing.T) {
	texts := slices.Concat(slices.Repeat([]string{"xbcx"}, 9), slices.Repeat([]string{"yabcy zabcq"}, 5), slices.Repeat([]string{"abx aby"}, 8), slices.Repeat([]string{"</w> a</w> b</w>"}, 3))
	tok, err := TrainBPE(t.Context(), slices.Values(texts), MinVocabSize+500)
	require.NoError(t, err)
	m, err := parseMerges(string(tok.appendText(nil))) // refuses a name made twice
	require.NoError(t, err)
	require.Equal(t, tok.pairs, m.pairs)
}

// someTexts are deterministic captions whose words repeat unevenly.
func someTexts(n int) iter.Seq[string] {
	words := strings.Fields("a photo of the red green small large apple banana cat dog fish running jumping eating under over café 日本 über cat's x-ray")
	return func(yield func(string) bool) {
		for i := range n {
			text := fmt.Sprintf("%s %s %s number %d", words[i*i%len(words)], words[i*7%5], words[(i*i*i+3)%len(words)], i%1000)
			if !yield(text) {
				return
			}
		}
	}
}

// The slow way: count all pairs anew before every merge.
func TestTrainBPEEqualsPlainAlgorithm(t *testing.T) {
	const size = MinVocabSize + 60
	tok, err := TrainBPE(t.Context(), someTexts(500), size)
	require.NoError(t, err)

	counts, err := countWords(t.Context(), someTexts(500))
	require.NoError(t, err)
	words := map[string][]string{}
	for w := range counts {
		for i := range len(w) {
			words[w] = append(words[w], string(byteRune[w[i]]))
		}
		words[w][len(w)-1] += endOfWord
	}
	var want []string
	known := map[string]bool{}
	for range size - MinVocabSize {
		pairs := map[string]int{}
		for w, symbols := range words {
			for j := 1; j < len(symbols); j++ {
				pairs[symbols[j-1]+" "+symbols[j]] += counts[w]
			}
		}
		best := ""
		for p, n := range pairs { // no symbol holds a space, which is below all of their bytes: this is the order of the halves
			joined := strings.ReplaceAll(p, " ", "")
			if n >= minPairCount && !known[joined] && (best == "" || n > pairs[best] || n == pairs[best] && p < best) {
				best = p
			}
		}
		if best == "" {
			break
		}
		want = append(want, best)
		known[strings.ReplaceAll(best, " ", "")] = true
		left, right, _ := strings.Cut(best, " ")
		for w, symbols := range words {
			var out []string
			for j := 0; j < len(symbols); j++ {
				if j+1 < len(symbols) && symbols[j] == left && symbols[j+1] == right {
					out = append(out, left+right)
					j++
				} else {
					out = append(out, symbols[j])
				}
			}
			words[w] = out
		}
	}
	require.Equal(t, want, spellings(tok))
}

func TestTrainBPEIsDeterministic(t *testing.T) {
	texts := slices.Collect(someTexts(2000))
	first, err := TrainBPE(t.Context(), slices.Values(texts), 900)
	require.NoError(t, err)
	slices.Reverse(texts)
	second, err := TrainBPE(t.Context(), slices.Values(texts), 900)
	require.NoError(t, err)
	require.Equal(t, spellings(first), spellings(second), "the order of the texts does not matter")

	path := filepath.Join(t.TempDir(), "merges.txt")
	require.NoError(t, first.WriteFile(path))
	read := open(t, Config{Kind: "bpe", File: path})
	require.Equal(t, first.VocabSize(), read.VocabSize())
	for _, text := range texts[:100] {
		require.Equal(t, first.Encode(text, nil), read.Encode(text, nil))
		require.Equal(t, strings.ReplaceAll(clean(text), " ", ""), strings.ReplaceAll(read.Decode(read.Encode(text, nil)), " ", ""))
	}
}

func TestTrainBPEErrors(t *testing.T) {
	_, err := TrainBPE(t.Context(), someTexts(1), MinVocabSize-1)
	require.ErrorContains(t, err, "513 is outside 514")
	_, err = TrainBPE(t.Context(), slices.Values([]string{"", " \n"}), 600)
	require.ErrorContains(t, err, "no words")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = TrainBPE(ctx, someTexts(9), 600)
	require.ErrorIs(t, err, context.Canceled)
}

// 40,000 captions take a fraction of a second; the bound is that wide for a busy machine.
func TestTrainBPEIsFast(t *testing.T) {
	start := time.Now()
	_, err := TrainBPE(t.Context(), someTexts(40_000), 4096)
	require.NoError(t, err)
	require.Less(t, time.Since(start), 10*time.Second)
	t.Log(time.Since(start))
}
