package losses

import (
	"errors"
	"fmt"
	"math"

	"diptych/internal/addr"
	"diptych/model"
	"diptych/ops"
)

// wordFiller is a model that guesses hidden words.
type wordFiller interface {
	// FillWords adds a pass over sentences and their pictures that guesses the words at the listed rows of the sentences' packed
	// tokens, which ascend: the scores of all words are hidden·tableᵀ + bias of hidden (rows, D), table (V, D) and bias (V).
	FillWords(g *ops.Graph, pass string, texts *model.TextInput, images *model.ImageInput, rows *ops.Ints) (hidden, table, bias *ops.Node)
}

// mlm is masked language modelling beside the picture (Devlin et al. 2019, §3.1; Kim et al. 2021, §3.2), over the M hidden tokens
// of the global batch:
//
//	L = -1/M Σ_m log softmax(z_m)[token m]
//
// By default each token but the marks is chosen with probability maskProb. With wholeWords words are chosen instead, in random
// order as long as their tokens fit into a budget of that share of the sentence, at least one (Kim et al. 2021, §3.2); with padTo L
// both are as if the sentence were padded to L tokens, each padding a word of its own, as the authors' code has it (spec/vilt 3.3).
// Of the chosen tokens 80 % read [MASK], 10 % another id of the vocabulary, 10 % stay, each token for itself.
func mlm(gr *model.Grain, c Config, o *Options) (Local, error) {
	m, ok := gr.Model.(wordFiller)
	if !ok {
		return Local{}, unfit("head that guesses hidden words")
	}
	if o.Vocabulary == nil || o.Vocabulary.Mask() < 0 {
		return Local{}, errors.New("the tokenizer has no token that hides another; choose data.tokenizer.kind wordpiece")
	}
	texts := gr.NewTexts("mlm.text")
	images, setImages := o.ownPictures(gr, "mlm")
	most := gr.N * c.mostHidden(texts.Context())
	rows := gr.G.Ints("mlm.rows", most)
	t := ops.Targets{Classes: gr.G.Ints("mlm.classes", most)}
	hidden, table, bias := m.FillWords(gr.G, "mlm", texts, images, rows)
	t.Weights = gr.G.Input("mlm.weights", rows.Dim, 1)
	var (
		mask           = masker{cfg: c, vocabulary: o.Vocabulary}
		tokens         [][]int32
		where, classes []int32
		weights        []float32
	)
	bind := func(p *ops.Program, v View) (int, error) {
		tokens, where, classes = tokens[:0], where[:0], classes[:0]
		at := 0
		for i := range v.N {
			ids := v.Pair(i).Tokens
			read, chosen := mask.hide(ids, v.At("mlm", i))
			if o.Draws != nil {
				read, chosen = o.Draws.Words(v, i)
			}
			for _, k := range chosen {
				where, classes = append(where, int32(at+k)), append(classes, ids[k])
			}
			tokens = append(tokens, read)
			at += len(ids)
		}
		items := len(where)
		weights = weights[:0]
		for range items {
			weights = append(weights, 1)
		}
		if items == 0 { // a list has at least one row: this one counts for nothing
			where, classes, weights = append(where, 0), append(classes, 0), append(weights, 0)
		}
		p.SetInts(rows, where)
		p.SetInts(t.Classes, classes)
		p.SetInput(t.Weights, weights)
		if err := texts.Set(p, tokens); err != nil {
			return 0, fmt.Errorf("losses: mlm: %w", err)
		}
		return items, setImages(p, v)
	}
	return Local{Sums: gr.G.VocabCrossEntropy(hidden, table, bias, t), Bind: bind}, nil
}

// maskProb is the share of what is hidden where the recipe names none, BERT's.
const maskProb = 0.15

// hidden returns the share of tokens that are hidden.
func (c *Config) hidden() float64 {
	if c.MaskProb == 0 {
		return maskProb
	}
	return c.MaskProb
}

// mostHidden returns how many tokens of a sentence of at most length tokens can be hidden.
func (c *Config) mostHidden(length int) int {
	if c.WholeWords {
		return min(length, c.budget(max(length, c.PadTo)))
	}
	return length
}

// budget is how many tokens of a sentence of so many are hidden at most where whole words are.
func (c *Config) budget(length int) int { return max(1, int(math.Round(c.hidden()*float64(length)))) }

// masker hides tokens of sentences.
type masker struct {
	cfg        Config
	vocabulary Vocabulary

	words        []int32
	order, begin []int
}

// hide returns what the model reads of a sentence, and the places whose tokens it must guess, ascending. It depends on key alone.
func (m *masker) hide(ids []int32, key uint64) (read []int32, chosen []int) {
	chosen = m.choose(ids, key)
	read = append(read, ids...)
	for _, i := range chosen {
		switch u := addr.Float64(addr.Hash(key, 1, uint64(i))); {
		case u < 0.8:
			read[i] = m.vocabulary.Mask()
		case u < 0.9:
			read[i] = int32(addr.Below(addr.Hash(key, 2, uint64(i)), m.vocabulary.VocabSize()))
		}
	}
	return read, chosen
}

// choose returns the places of the tokens that are to be guessed.
func (m *masker) choose(ids []int32, key uint64) (chosen []int) {
	m.words = m.vocabulary.Words(ids, m.words[:0])
	take := make([]bool, len(ids))
	if m.cfg.WholeWords {
		m.chooseWords(take, key)
	} else {
		prob := m.cfg.hidden()
		for i, w := range m.words {
			take[i] = w >= 0 && addr.Float64(addr.Hash(key, 0, uint64(i))) < prob
		}
	}
	for i, yes := range take {
		if yes {
			chosen = append(chosen, i)
		}
	}
	return chosen
}

// Hider hides words of sentences as a recipe's mlm does, but each hidden token reads [MASK]: for those who measure.
type Hider struct{ masker }

// NewHider returns the hider of a recipe's objectives. The vocabulary must have a token that hides another.
func NewHider(cfgs []Config, v Vocabulary) *Hider {
	h := &Hider{masker{vocabulary: v}}
	for _, c := range cfgs {
		if c.Name == "mlm" {
			h.cfg = c
		}
	}
	return h
}

// Hide returns what is read of a sentence, and the hidden places, ascending. They depend on key alone.
func (h *Hider) Hide(ids []int32, key uint64) (read []int32, places []int) {
	places = h.choose(ids, key)
	read = append(read, ids...)
	for _, i := range places {
		read[i] = h.vocabulary.Mask()
	}
	return read, places
}

// chooseWords marks the tokens of whole words.
func (m *masker) chooseWords(take []bool, key uint64) {
	m.begin = m.begin[:0] // where each word begins
	for i, w := range m.words {
		if w >= 0 && (i == 0 || m.words[i-1] != w) {
			m.begin = append(m.begin, i)
		}
	}
	length := max(len(m.words), m.cfg.PadTo)
	budget := m.cfg.budget(length)
	m.order = shuffle(m.order[:0], addr.Hash(key, 0), len(m.begin)+length-len(m.words))
	used := 0
	for _, k := range m.order {
		if used >= budget {
			break
		}
		n := 1 // of padding
		if k < len(m.begin) {
			for at := m.begin[k] + 1; at < len(m.words) && m.words[at] == m.words[m.begin[k]]; at++ {
				n++
			}
		}
		if used+n > budget {
			continue
		}
		used += n
		if k < len(m.begin) {
			for i := range n {
				take[m.begin[k]+i] = true
			}
		}
	}
}
