package eval

import (
	"fmt"
	"slices"

	"diptych/data/arrowset"
)

// Classifier is a Model whose rows are scores of classes of its own.
type Classifier interface {
	Model
	// Classes returns the class system's name and its classes, in the order of the scores.
	Classes() (system string, classes []arrowset.Class)
}

// Labelled says which pictures of a split have one of the classes that they are sorted into.
type Labelled struct {
	System     string  `json:"system"`
	Classes    int     `json:"classes"`
	Images     int     `json:"images"`     // that have a class
	Unlabelled int     `json:"unlabelled"` // pictures without one, not counted
	ChanceTop1 float64 `json:"chanceTop1"`
	ChanceTop5 float64 `json:"chanceTop5"`
	Largest    float64 `json:"largestClass"` // share of the most frequent class: what always naming it reaches
}

// count fills in what follows from how many pictures each class has.
func (l *Labelled) count(perClass []int) {
	for _, n := range perClass {
		l.Images += n
	}
	if l.Images > 0 {
		k := float64(len(perClass))
		l.ChanceTop1, l.ChanceTop5, l.Largest = 1/k, min(5, k)/k, float64(slices.Max(perClass))/float64(l.Images)
	}
}

// Classification is how often a method that knows the classes from training names the right one.
type Classification struct {
	Method string `json:"method"`           // the Task
	Detail string `json:"detail,omitempty"` // what the method chose
	Labelled
	Accuracy
	PerClass []ClassAccuracy `json:"perClass"`
	Fit      *Fit            `json:"fit,omitempty"` // of a linear probe
}

// answer is what was said of one picture.
type answer struct {
	rank  int // of the right class, from 1
	first int // the class with the highest score
}

// answerOf reads the scores of the classes for a picture.
func answerOf(scores []float32, label int) answer {
	return answer{bestRank(scores, []int32{int32(label)}), topK(scores, 1)[0].Index}
}

// tally counts the answers. perClass has one entry for each of names.
func tally(answers []answer, labels []int, names []string) (acc Accuracy, perClass []ClassAccuracy) {
	perClass = make([]ClassAccuracy, len(names))
	wrong := make([]map[int]int, len(names)) // class -> wrong class chosen -> how often
	for c, name := range names {
		perClass[c].Class = name
		wrong[c] = map[int]int{}
	}
	for i, a := range answers {
		c := labels[i]
		perClass[c].Images++
		if a.rank <= 5 {
			perClass[c].Top5++
			acc.Top5++
		}
		if a.rank == 1 {
			perClass[c].Top1++
			acc.Top1++
		} else {
			wrong[c][a.first]++
		}
	}
	seen := 0
	for c := range perClass {
		pc := &perClass[c]
		if pc.Images == 0 {
			continue
		}
		seen++
		most := -1
		for w, n := range wrong[c] {
			if most < 0 || n > wrong[c][most] || n == wrong[c][most] && w < most {
				most = w
			}
		}
		count := float64(pc.Images)
		if most >= 0 {
			pc.Mistaken, pc.MistakenFor = names[most], float64(wrong[c][most])/count
		}
		pc.Top1 /= count
		pc.Top5 /= count
		acc.MeanPerClass += pc.Top1
	}
	if seen > 0 {
		acc.MeanPerClass /= float64(seen)
		acc.Top1 /= float64(len(labels))
		acc.Top5 /= float64(len(labels))
	}
	return acc, perClass
}

// classify measures the model's own scores on every split.
func (r *runner) classify(m Classifier, splits []SplitResult) error {
	system, classes := m.Classes()
	value, err := classColumn(r.set, system)
	if err != nil {
		return err
	}
	names, index := classNames(classes)
	for i := range splits {
		f := splits[i].Features
		in, label := f.labelled(f.Images, value, index)
		if label.Images == 0 {
			continue
		}
		label.System = system
		answers := make([]answer, label.Images)
		for k, c := range in.Labels {
			answers[k] = answerOf(in.Images[k*f.Dim:(k+1)*f.Dim], c)
		}
		c := Classification{Method: string(TaskClassify), Labelled: label}
		c.Accuracy, c.PerClass = tally(answers, in.Labels, names)
		splits[i].Classified = append(splits[i].Classified, c)
	}
	return nil
}

// classColumn returns the function that gives the class of a row in a class system.
func classColumn(set Set, system string) (func(row int) string, error) {
	man := set.Manifest()
	at := slices.IndexFunc(man.Classes, func(s arrowset.ClassSystem) bool { return s.Name == system })
	if at < 0 {
		return nil, fmt.Errorf("%w: the model sorts into the classes of %q, which the data set %s does not have", ErrRequest, system, man.Name)
	}
	value, ok := set.Column(man.Classes[at].Column)
	if !ok {
		return nil, fmt.Errorf("%w: the data set has no text column %q", ErrRequest, man.Classes[at].Column)
	}
	return value, nil
}

// classNames returns the classes' names and their places by ID.
func classNames(classes []arrowset.Class) (names []string, index map[string]int) {
	index = make(map[string]int, len(classes))
	for c, class := range classes {
		names, index[class.ID] = append(names, class.Text), c
	}
	return names, index
}
