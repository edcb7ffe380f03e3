package data

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/batch"
	"diptych/data/tokenizer"
	"diptych/data/transform"
)

// Answers as the official evaluation writes them (PythonEvaluationTools/vqaEvaluation of the VQA API).
func TestNormalizeAnswer(t *testing.T) {
	for in, want := range map[string]string{
		"Yes": "yes", "yes.": "yes", "The cat": "cat", "a": "", "an  apple\n": "apple", "Two": "2", "none": "0", "ten": "10", "twenty": "twenty",
		"2,000": "2000", "1,000,000 dollars": "1000000 dollars", "red, white": "red white", "red,white": "red white", "black/white": "black white",
		"black / white": "black white", "t-shirt": "t shirt", "3.5": "3.5", "3.": "3", "no. 7": "no 7", "u.s.a.": "usa", "dont know": "don't know",
		"Its": "its", "whats up": "what's up", "couldnt've": "couldn't've", "couldn'tve": "couldn't've", "yalld've": "yalld've", "yall'd've": "y'all'd've",
		"(left)": "left", "left (of it)": "left of it", "o'clock": "o'clock", "oclock": "o'clock", "12:30": "12:30", "what?": "what", "": "",
	} {
		if in == "(left)" {
			want = "left" // marks become blanks, which fall away
		}
		require.Equal(t, want, NormalizeAnswer(in), in)
	}
	require.Len(t, contractions, 114, "the official list without those that change nothing, or have a capital letter and are never reached")
}

// The accuracy of an answer that n of ten annotators gave: mean over leaving each out.
func TestAnswerAccuracy(t *testing.T) {
	ten := func(n int) []string {
		return append(slices.Repeat([]string{"The Yes"}, n), slices.Repeat([]string{"no"}, 10-n)...)
	}
	for n, want := range []float64{0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1} {
		brute := 0.0
		for out := range 10 {
			others := 0
			for i, a := range ten(n) {
				if i != out && NormalizeAnswer(a) == "yes" {
					others++
				}
			}
			brute += min(float64(others)/3, 1) / 10
		}
		require.InDelta(t, brute, AnswerAccuracy(ten(n), "yes"), 1e-12)
		require.InDelta(t, want, brute, 1e-12)
	}
	require.Equal(t, 1.0, AnswerAccuracy([]string{"One"}, "1"))
	require.Equal(t, 0.0, AnswerAccuracy([]string{"One"}, "2"))
	require.Equal(t, 0.0, AnswerAccuracy(nil, "2"))
}

func TestSoftTargets(t *testing.T) {
	class := map[string]int32{"yes": 0, "no": 1, "2": 2, "maybe": 3}
	answers := []string{"no", "Yes", "yes", "no", "no", "no", "two", "what", "what", "maybe?"}
	require.Equal(t, []batch.Answer{{Class: 1, Score: 1}, {Class: 0, Score: 0.6}, {Class: 2, Score: 0.3}, {Class: 3, Score: 0.3}}, SoftTargets(answers, class))
	require.Equal(t, []batch.Answer{{Class: 2, Score: 1}}, SoftTargets([]string{"two"}, class))
	require.Empty(t, SoftTargets([]string{"seldom"}, class))
	require.Equal(t, []batch.Answer{{Class: 0, Score: 0.9}}, SoftTargets([]string{"yes", "yes", "yes", "x"}, class))
}

func TestAnswerList(t *testing.T) {
	questions := [][]string{{"yes", "no", "no"}, {"Yes."}, {"no", "yes"}, {"blue", "red", "red"}, {"the"}, {}, {"yes"}}
	require.Equal(t, []string{"no", "yes", "red"}, AnswerList(slices.Values(questions), 1))
	require.Equal(t, []string{"no", "yes"}, AnswerList(slices.Values(questions), 2))
}

// twoRows are rows whose second picture is the first of the next row.
type twoRows struct{ fakeRows }

func (f twoRows) Second(ctx context.Context, row int) ([]byte, error) {
	return f.Image(ctx, (row+1)%len(f.fakeRows))
}

// Pairs have the answers to the caption that was drawn, and second pictures by draws of their own, in every batch alike.
func TestSourceAnswers(t *testing.T) {
	rows, samples := fakeSet(t, 12)
	for i := range samples {
		samples[i].Answers = [][]batch.Answer{{{Class: int32(i), Score: 1}}, {{Class: 99, Score: 0.3}}}
	}
	pipe, err := transform.New([]transform.Spec{{"op": "resize", "mode": "squash"}, {"op": "flip", "prob": 0.5}}, side, side)
	require.NoError(t, err)
	tok, err := tokenizer.New(tokenizer.Config{Kind: "bpe", File: "demo", ContextLength: 16})
	require.NoError(t, err)
	o := Options{Seed: 5, Batch: 4, Pipeline: pipe, Tokenizer: tok, CacheBytes: 1 << 20, Answers: true, Second: true}
	s, err := NewSource(twoRows{rows}, samples, o)
	require.NoError(t, err)
	other := tok.Encode("another", nil)
	drawn := map[bool]int{}
	for u := range 6 {
		var b batch.Batch
		require.NoError(t, s.At(t.Context(), u, &b))
		again := clone(&b)
		require.NoError(t, s.At(t.Context(), u, &b))
		for i := range b.Pairs {
			p := &b.Pairs[i]
			require.Equal(t, again.Pairs[i].Answers, p.Answers)
			second := slices.Equal(p.Tokens, other)
			drawn[second]++
			if second {
				require.Equal(t, []batch.Answer{{Class: 99, Score: 0.3}}, p.Answers)
			} else {
				require.Equal(t, []batch.Answer{{Class: int32(p.Row), Score: 1}}, p.Answers)
			}
			require.Equal(t, [2]int{side, side}, [2]int{p.Second.Height, p.Second.Width})
			require.Equal(t, uint8(p.Row), p.Pixels[0])
			require.Equal(t, uint8((p.Row+1)%12), p.Second.Pixels[0])
		}
	}
	require.Positive(t, drawn[true])
	require.Positive(t, drawn[false])

	_, err = NewSource(rows, samples, o)
	require.ErrorContains(t, err, "no second pictures")
}

// A second picture that does not decode is a broken row like any other: another row takes its slot, and it is named.
func TestBrokenSecondPicture(t *testing.T) {
	rows, samples := fakeSet(t, 12, 5)
	for i := range samples {
		samples[i].Answers = make([][]batch.Answer, 2)
	}
	pipe, err := transform.New([]transform.Spec{{"op": "resize", "mode": "squash"}}, side, side)
	require.NoError(t, err)
	tok, err := tokenizer.New(tokenizer.Config{Kind: "bpe", File: "demo", ContextLength: 16})
	require.NoError(t, err)
	s, err := NewSource(twoRows{rows}, samples, Options{Seed: 5, Batch: 2, Pipeline: pipe, Tokenizer: tok, BrokenLimit: 1, Answers: true, Second: true})
	require.NoError(t, err)
	for u := range 12 {
		var b batch.Batch
		require.NoError(t, s.At(t.Context(), u, &b))
		for _, p := range b.Pairs {
			require.NotContains(t, []int{4, 5}, p.Row)
		}
	}
	require.Len(t, s.Broken(), 2)
	require.Contains(t, s.Broken(), 4)
}
