package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/demo/vocab"
)

// tokenizerCommand runs "trainer data tokenizer" with args and returns what it prints.
func tokenizerCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newTokenizer()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestTokenizerEncode(t *testing.T) {
	out, err := tokenizerCommand(t, "encode", "A photo of a cat", "é")
	require.NoError(t, err)
	require.Equal(t, `A photo of a cat
  ids    49406 320 1125 539 320 2368 49407
  tokens <start_of_text> a</w> photo</w> of</w> a</w> cat</w> <end_of_text>
é
  ids    49406 4166 49407
  tokens <start_of_text> Ã©</w> <end_of_text>
`, out)

	out, err = tokenizerCommand(t, "encode", "--json", "--file", "demo", "--context-length", "4", "red apple, green apple")
	require.NoError(t, err)
	var got []encodedText
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Len(t, got, 1)
	require.Len(t, got[0].IDs, 4)
	require.Equal(t, []string{"<start_of_text>", "red</w>", "apple</w>", "<end_of_text>"}, got[0].Tokens)

	out, err = tokenizerCommand(t, "encode", "--wordpiece", "--file", "bert-base-uncased", "unaffable [MASK]")
	require.NoError(t, err)
	require.Equal(t, "unaffable [MASK]\n  ids    101 14477 20961 3468 103 102\n  tokens [CLS] una ##ffa ##ble [MASK] [SEP]\n", out)
}

// The demo's vocabulary is what the command in its package comment makes of the demo's captions.
func TestTokenizerTrainMakesDemoVocabulary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "merges.txt")
	out, err := tokenizerCommand(t, "train", "--data", "demo", "--split", "train", "--size", "3072", "--out", file, "--json")
	require.NoError(t, err)
	var sum trainedTokenizer
	require.NoError(t, json.Unmarshal([]byte(out), &sum))
	require.Equal(t, file, sum.File)
	require.Equal(t, 3072, sum.VocabSize)
	require.Less(t, sum.TokensPerCaption, 10.0)
	made, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(vocab.Merges), string(made), "run the command in data/demo/vocab/vocab.go")
}

// The demo's pieces are what the command in their package comment makes of the demo's captions.
func TestTokenizerReduceMakesDemoPieces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vocab.txt")
	out, err := tokenizerCommand(t, "reduce", "--data", "demo", "--out", file, "--json",
		"--also", "what is its category? which subcategory does it belong to? what category of thing is this?",
		"--also", "activities, animals nature, food drink, objects, people body, smileys emotion, symbols, travel places",
		"--also", "what colour is it? which colour does it have most of? what is its main colour?",
		"--also", "red orange yellow green blue purple pink brown black grey white",
		"--also", "how many letters are on it? how many letters does it show?")
	require.NoError(t, err)
	var sum trainedTokenizer
	require.NoError(t, json.Unmarshal([]byte(out), &sum))
	require.Less(t, sum.VocabSize, 4000)
	made, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(vocab.Pieces), string(made), "run the command in data/demo/vocab/vocab.go")
}

func TestTokenizerTrainStopsEarly(t *testing.T) {
	out, err := tokenizerCommand(t, "train", "--data", "demo", "--split", "val", "--size", "100000", "--out", filepath.Join(t.TempDir(), "merges.txt"))
	require.NoError(t, err)
	require.Contains(t, out, "fewer than the 100000 asked for")
}

func TestTokenizerErrors(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no data":      {[]string{"train", "--size", "600", "--out", "x"}, "--data is missing"},
		"no out":       {[]string{"train", "--data", "demo", "--size", "600"}, "--out is missing"},
		"no size":      {[]string{"train", "--data", "demo", "--out", "x"}, "--size 0: want 514"},
		"no such data": {[]string{"train", "--data", none, "--size", "600", "--out", "x"}, none},
		"no split":     {[]string{"train", "--data", "demo", "--split", "dev", "--size", "600", "--out", "x"}, "--split dev: demo has no such split; it has test_both, test_concept, test_style, train, val"},
		"reduce what":  {[]string{"reduce", "--out", "x"}, "--data is missing"},
		"reduce to":    {[]string{"reduce", "--data", "demo"}, "--out is missing"},
		"reduce merge": {[]string{"reduce", "--data", "demo", "--file", none, "--out", "x"}, none},
		"no such file": {[]string{"encode", "--file", none, "x"}, none},
		"short":        {[]string{"encode", "--context-length", "2", "x"}, "contextLength 2"},
		"cased clip":   {[]string{"encode", "--cased", "x"}, "always lower-case"},
		"not UTF-8":    {[]string{"encode", "ok", "\xff"}, `text 2, "\xff", is not UTF-8`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tokenizerCommand(t, c.args...)
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, errUsage)
		})
	}
	_, err := tokenizerCommand(t, "train", "--data", "demo", "--size", "600", "--out", filepath.Join(none, "merges.txt"))
	require.ErrorContains(t, err, none)
	require.False(t, strings.Contains(err.Error(), "panic"))
}
