package eval

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// featureModel has two features for the picture of each byte: cats lie left, dogs right, and of byte 4 in the middle but right.
type featureModel struct {
	*tinyModel
	calls int
}

func (m *featureModel) FeatureDim() int { return 2 }

func (m *featureModel) Features(ctx context.Context, n int, at func(int, []uint8) error, wantRows bool) (x, rows []float32, err error) {
	m.calls++
	var dst [3]uint8
	kinds := make([]uint8, n)
	for i := range n {
		if err := at(i, dst[:]); err != nil {
			return nil, nil, err
		}
		kinds[i] = dst[0]
		x = append(x, [...][]float32{{-2, 1}, {2, 1}, {-1, 1}, {1, 1}, {0.2, 1}}[dst[0]]...)
	}
	if wantRows {
		rows, err = m.Images(ctx, n, func(i int, dst []uint8) error { dst[0] = kinds[i]; return nil })
	}
	return x, rows, err
}

// pets is a set of cats and dogs to learn, with a class and a picture that cannot be.
func pets() (*memorySet, *featureModel) {
	s := &memorySet{manifest: arrowset.Manifest{Name: "pets", Classes: []arrowset.ClassSystem{{
		Name: "kind", Column: arrowset.ColLabel, Classes: []arrowset.Class{{ID: "B", Text: "bus"}, {ID: "C", Text: "cat"}, {ID: "D", Text: "dog"}},
	}}}}
	for _, split := range []string{"train", "val"} {
		for range 4 {
			s.add(split, "", "C", "0")
			s.add(split, "", "C", "2")
			s.add(split, "", "D", "1")
			s.add(split, "", "D", "3")
		}
	}
	s.add("train", "", "X", "1", caption("no class", "", ""))
	s.add("test", "", "C", "2")
	s.add("test", "", "D", "4")
	s.add("test", "", "C", "4") // looks like a dog
	s.add("test", "", "B", "0") // training shows none
	s.add("test", "", "D", "?")
	_, m := emojis()
	return s, &featureModel{tinyModel: m}
}

func TestRunLearns(t *testing.T) {
	s, m := pets()
	for _, c := range []struct {
		name                       string
		opt                        Options
		pictures, chosenOn, splits int
	}{
		{"a fifth chooses", Options{Splits: []string{"test"}}, 16, 4, 2},
		{"a split chooses", Options{Validation: "val"}, 32, 16, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.calls = 0
			c.opt.Tasks = []Task{TaskKNN, TaskProbe}
			c.opt.KNN.K = 3
			res, err := Run(t.Context(), m, s, c.opt)
			require.NoError(t, err)
			require.Equal(t, c.splits, m.calls, "each split once for both tasks")
			require.Len(t, res.Splits, 1, "what is learnt from is not measured")
			sp := res.Splits[0]
			require.Equal(t, 4, sp.Images)
			require.Len(t, sp.Broken, 1)
			require.Nil(t, sp.Features, "nothing was embedded")
			require.Len(t, sp.Classified, 2)
			for i, method := range []Task{TaskKNN, TaskProbe} {
				got := sp.Classified[i]
				require.Equal(t, string(method), got.Method)
				require.Equal(t, Labelled{System: "kind", Classes: 2, Images: 3, Unlabelled: 1, ChanceTop1: 0.5, ChanceTop5: 1, Largest: 2.0 / 3}, got.Labelled)
				require.InDelta(t, 2.0/3, got.Top1, 1e-12)
				require.Equal(t, []ClassAccuracy{{Class: "cat", Images: 2, Top1: 0.5, Top5: 1, Mistaken: "dog", MistakenFor: 0.5}, {Class: "dog", Images: 1, Top1: 1, Top5: 1}}, got.PerClass)
			}
			require.Equal(t, "(k = 3, τ = 0.07)", sp.Classified[0].Detail)
			require.Nil(t, sp.Classified[0].Fit)
			fit := sp.Classified[1].Fit
			require.Equal(t, []int{c.pictures, c.chosenOn}, []int{fit.Pictures, fit.ChosenOn})
			require.Equal(t, 1.0, fit.Validation)
			require.True(t, fit.Converged)
		})
	}
}

// Each split is read once for retrieval, zero-shot and what learns, which measure the same as alone.
func TestRunReadsOnce(t *testing.T) {
	s, m := pets()
	s.manifest.Classes[0].Templates = []string{"{}"}
	for i := range s.captions {
		s.captions[i] = []arrowset.Caption{caption("cat", "", "")}
	}
	var got, want SplitResult
	for _, tasks := range [][]Task{{TaskRetrieval, TaskKNN, TaskZeroShot}, {TaskRetrieval, TaskZeroShot}, {TaskKNN}} {
		m.prepared.Store(0)
		res, err := Run(t.Context(), m, s, Options{Tasks: tasks, Splits: []string{"test"}})
		require.NoError(t, err)
		sp := res.Splits[0]
		switch len(tasks) {
		case 3:
			require.Equal(t, int32(17+5), m.prepared.Load(), "train and test")
			got = sp
		case 2:
			want = sp
		default:
			want.Classified = sp.Classified
		}
	}
	require.NotNil(t, got.Retrieval)
	require.NotEmpty(t, got.ZeroShot)
	require.NotEmpty(t, got.Classified)
	got.Features, want.Features = nil, nil
	require.Equal(t, want, got)
}

func TestRunLearnsErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*memorySet, *Options)
		text   string
	}{
		{"no such split", func(_ *memorySet, o *Options) { o.Train = "extra" }, `no split "extra" to learn from`},
		{"the split that is learnt from", func(_ *memorySet, o *Options) { o.Splits = []string{"train"} }, `split "train" cannot be measured`},
		{"the split that chooses", func(_ *memorySet, o *Options) { o.Validation = "test" }, `split "test" cannot be measured`},
		{"no neighbours", func(_ *memorySet, o *Options) { o.KNN.K = -1 }, "-1 neighbours"},
		{"no temperature", func(_ *memorySet, o *Options) { o.KNN.Temperature = -1 }, "temperature of -1"},
		{"no classes", func(s *memorySet, _ *Options) { s.manifest.Classes = nil }, "no class system to learn"},
		{"one class", func(s *memorySet, _ *Options) { s.manifest.Classes[0].Classes = s.manifest.Classes[0].Classes[:2] }, "shows 1 of its classes"},
		{"too few to choose", func(s *memorySet, _ *Options) {
			for i := range s.meta[4:16] {
				s.meta[4+i].Label = ""
			}
		}, "nothing is left to choose"},
		{"too little memory", func(_ *memorySet, o *Options) { o.Memory = 100 }, "MiB are free"},
		{"prompts for no task", func(_ *memorySet, o *Options) { o.Templates = []string{"{}"} }, "for the task zeroshot, which is not among linear-probe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, m := pets()
			o := Options{Tasks: []Task{TaskProbe}, Splits: []string{"test"}}
			c.change(s, &o)
			_, err := Run(t.Context(), m, s, o)
			require.ErrorIs(t, err, ErrRequest)
			require.ErrorContains(t, err, c.text)
		})
	}
	s, m := pets()
	_, err := Run(t.Context(), m.tinyModel, s, Options{Tasks: []Task{TaskKNN}})
	require.ErrorContains(t, err, `no task "knn"`)
}

// Templates and names from elsewhere take the place of the set's.
func TestRunPrompts(t *testing.T) {
	s, m := emojis()
	m.text["my cat"], m.text["my dog"], m.text["my bus"] = m.text["cat"], m.text["bus"], m.text["dog"]
	m.text["bus!"] = m.text["bus"]
	res, err := Run(t.Context(), m, s, Options{Tasks: []Task{TaskZeroShot}, Templates: []string{"my {}"}})
	require.NoError(t, err)
	z := res.Splits[0].ZeroShot[0]
	require.Equal(t, "my {}", z.Templates[0].Template)
	require.Len(t, z.Templates, 1)
	require.Equal(t, 2.0/3, z.Ensemble.Top1)
	res, err = Run(t.Context(), m, s, Options{Tasks: []Task{TaskZeroShot}, Templates: []string{"{}"}, ClassNames: []string{"cat", "dog", "bus!"}})
	require.NoError(t, err)
	require.Equal(t, "bus!", res.Splits[0].ZeroShot[0].PerClass[2].Class)
	_, err = Run(t.Context(), m, s, Options{Tasks: []Task{TaskZeroShot}, ClassNames: []string{"cat"}})
	require.ErrorContains(t, err, "1 names for its 3 classes")
	s.manifest.Classes = append(s.manifest.Classes, arrowset.ClassSystem{Name: "style"})
	_, err = Run(t.Context(), m, s, Options{Tasks: []Task{TaskZeroShot}, ClassNames: []string{"cat"}})
	require.ErrorContains(t, err, "choose one of concept, style")
}
