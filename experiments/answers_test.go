package experiments

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/transform"
	"diptych/model"
)

// Public ViLTs with a head for questions, for two pictures, or for ranking open as models that answer and rank.
func TestImportedAnswers(t *testing.T) {
	dir := t.TempDir()
	words := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it"}
	for i := len(words); i < 120; i++ {
		words = append(words, fmt.Sprint("w", i))
	}
	vocab := filepath.Join(dir, "vocab.txt")
	require.NoError(t, os.WriteFile(vocab, []byte(strings.Join(words, "\n")), 0o666))
	im := &transform.Image{W: 32, H: 32, Pix: slices.Repeat([]uint8{200, 10, 30}, 32*32)}
	for name, c := range map[string]struct {
		answers int
		head    string
	}{"vilt-vqa": {13, "vqa"}, "vilt-nlvr2": {2, "pairclass"}, "vilt-retrieval": {0, "rank"}} {
		out := filepath.Join(dir, name)
		_, err := Import("../model/testdata/"+name, out, ImportOptions{Tokenizer: vocab})
		require.NoError(t, err)
		m, err := OpenPairs(out, 1)
		require.NoError(t, err)
		require.Equal(t, c.head, m.Config().Losses[0].Name)
		if c.answers == 0 {
			odds, err := m.Match(t.Context(), []*transform.Image{im}, []string{"what is it"}, [][2]int{{0, 0}})
			require.NoError(t, err)
			require.Len(t, odds, 1)
			_, err = m.Ask(t.Context(), im, nil, "what is it", 5)
			require.ErrorIs(t, err, ErrQuestion)
			m.Close()
			continue
		}
		var second *transform.Image
		if c.answers == 2 {
			second = im
		}
		said, err := m.Ask(t.Context(), im, second, "what is it", 100)
		require.NoError(t, err)
		require.Len(t, said, c.answers)
		require.Contains(t, said[0].Text, "LABEL_")
		m.Close()
	}
}

// A ViLT that is trained to rank begins with the odds of matching, one for two pictures with the row of the first for the second;
// what no other model has must be named.
func TestHeirs(t *testing.T) {
	from := untrained(t, "vilt-emoji", "losses=[{name: itm}]")
	begin := func(more string) (*Config, []float32, *parts, error) {
		c, err := Parse("name: heir\nstart: {from: "+from+more+"\ntrain: {steps: 1, globalBatch: 16, lanes: 1}\n", nil)
		require.NoError(t, err)
		p, err := c.build(nil)
		require.NoError(t, err)
		slab := make([]float32, p.model.Parameters().Size)
		_, err = c.Start.begin(p.model, slab)
		return c, slab, p, err
	}
	source, err := openTrained(from)
	require.NoError(t, err)
	weights, err := source.weights()
	require.NoError(t, err)
	of := func(l *model.Layout, slab []float32, name string) []float32 { return l.Find(name).Slice(slab) }
	itm := of(source.parts.model.Parameters(), weights, "itm_score.fc.weight")
	types := of(source.parts.model.Parameters(), weights, "token_type_embeddings.weight")

	_, slab, p, err := begin("}\nlosses: [{name: rank}]")
	require.NoError(t, err)
	require.Equal(t, itm[len(itm)/2:], of(p.model.Parameters(), slab, "rank_output.weight"))

	_, slab, p, err = begin(", new: [nlvr2_classifier.*]}\ndata: {classes: category}\nmodel: {vilt: {pictureTypes: 2}}\nlosses: [{name: pairclass}]")
	require.NoError(t, err)
	three := of(p.model.Parameters(), slab, "token_type_embeddings.weight")
	d := len(types) / 2
	require.Equal(t, types, three[:2*d])
	require.Equal(t, types[d:], three[2*d:])

	_, _, _, err = begin("}\ndata: {classes: category}\nlosses: [{name: pairclass}]")
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, "has no parameter classifier.0.weight; name it in start.new to begin it anew")
}
