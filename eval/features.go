package eval

import (
	"context"
	"fmt"
	"slices"

	"diptych/data/arrowset"
)

// Featurer is a Model whose image tower's own features can be had.
type Featurer interface {
	Model
	// FeatureDim returns D, the numbers of a picture's features.
	FeatureDim() int
	// Features gives n pictures' features, the image tower's pooled rows before they are projected or scored: (n, D). Where wantRows says
	// so it gives with them what Images gives. It is called as Images is.
	Features(ctx context.Context, n int, at func(i int, dst []uint8) error, wantRows bool) (features, rows []float32, err error)
}

// learns tells whether a task learns from the features of other pictures.
func learns(t Task) bool { return t == TaskProbe || t == TaskKNN }

// Sources lists the splits that are read beside those that are measured.
func (o *Options) Sources() []string {
	if !slices.ContainsFunc(o.Tasks, learns) {
		return nil
	}
	train := o.Train
	if train == "" {
		train = "train"
	}
	if o.Validation == "" {
		return []string{train}
	}
	return []string{train, o.Validation}
}

// checkLearning checks what only tasks that learn are asked for.
func (r *runner) checkLearning(have []string) error {
	o := &r.opt
	sources := o.Sources()
	if sources == nil {
		return nil
	}
	o.Train = sources[0]
	for _, s := range sources {
		if !slices.Contains(have, s) {
			return fmt.Errorf("%w: the data set %s has no split %q to learn from", ErrRequest, r.set.Manifest().Name, s)
		}
		if slices.Contains(o.Splits, s) {
			return fmt.Errorf("%w: split %q cannot be measured by a task that learns from it", ErrRequest, s)
		}
	}
	if o.KNN.K == 0 {
		o.KNN.K = 20
	}
	if o.KNN.Temperature == 0 {
		o.KNN.Temperature = 0.07
	}
	if o.KNN.K < 1 || !(o.KNN.Temperature > 0) {
		return fmt.Errorf("%w: %d neighbours at a temperature of %v: want 1 or more, above 0", ErrRequest, o.KNN.K, o.KNN.Temperature)
	}
	if len(r.set.Manifest().Classes) == 0 {
		return fmt.Errorf("%w: the data set %s has no class system to learn", ErrRequest, r.set.Manifest().Name)
	}
	count := map[string]int{}
	for _, m := range r.set.Meta() {
		count[m.Split]++
	}
	pictures := 0
	for _, s := range o.Splits {
		pictures += count[s]
	}
	for _, s := range sources {
		pictures += 2 * count[s] // as they are read, and by class
	}
	if need := 4 * int64(pictures) * int64(r.Model.(Featurer).FeatureDim()); o.Memory > 0 && need > o.Memory {
		return fmt.Errorf("%w: the features of splits %v take %d MiB, %d MiB are free", ErrRequest, append(sources, o.Splits...), need>>20, o.Memory>>20)
	}
	return nil
}

// learn measures what learns from features, on every split.
func (r *runner) learn(ctx context.Context, splits []SplitResult) error {
	var sources []*Features
	for _, split := range r.opt.Sources() {
		f, _, err := r.embed(ctx, split, false, true)
		if err != nil {
			return fmt.Errorf("split %s: %w", split, err)
		}
		sources = append(sources, f)
	}
	var systems []*learnt
	for _, sys := range r.set.Manifest().Classes {
		if !slices.Contains(r.opt.Systems, sys.Name) {
			continue
		}
		l, err := r.learnSystem(ctx, &sys, sources)
		if err != nil {
			return fmt.Errorf("class system %s: %w", sys.Name, err)
		}
		systems = append(systems, l)
	}
	for i := range splits {
		for _, l := range systems {
			splits[i].Classified = append(splits[i].Classified, r.classifyLearnt(l, r.embedded[i])...)
		}
	}
	return nil
}

// learnt is what a class system's classes were learnt from, and what came of it.
type learnt struct {
	system string
	names  []string
	index  map[string]int // of the classes that have pictures in the training split
	value  func(row int) string
	samples
	own   int // of the samples, those of the training split, which come first
	probe *probe
	fit   *Fit
}

// learnSystem arranges the pictures that have a class and fits the probe. The classes are those that the training split shows.
func (r *runner) learnSystem(ctx context.Context, sys *arrowset.ClassSystem, sources []*Features) (*learnt, error) {
	value, ok := r.set.Column(sys.Column)
	if !ok {
		return nil, fmt.Errorf("%w: the data set has no text column %q", ErrRequest, sys.Column)
	}
	l := &learnt{system: sys.Name, value: value, index: map[string]int{}}
	shown := map[string]bool{}
	for _, row := range sources[0].Rows {
		shown[value(row)] = true
	}
	for _, c := range sys.Classes {
		if shown[c.ID] {
			l.index[c.ID] = len(l.names)
			l.names = append(l.names, c.Text)
		}
	}
	if len(l.names) < 2 {
		return nil, fmt.Errorf("%w: split %s shows %d of its classes, of which there must be two", ErrRequest, r.opt.Train, len(l.names))
	}
	train := l.labelled(sources[0])
	order, fitted := train, len(train)
	if slices.Contains(r.opt.Tasks, TaskProbe) && len(sources) == 1 {
		var labels, rows []int
		for _, i := range train {
			row := sources[0].Rows[i]
			labels, rows = append(labels, l.index[value(row)]), append(rows, row)
		}
		rest, val := holdout(labels, rows, len(l.names))
		order, fitted = nil, len(rest)
		for _, i := range append(rest, val...) {
			order = append(order, train[i])
		}
	}
	l.take(sources[0], order)
	l.own = len(l.labels)
	if !slices.Contains(r.opt.Tasks, TaskProbe) {
		return l, nil
	}
	if len(sources) == 2 {
		l.take(sources[1], l.labelled(sources[1]))
	}
	if fitted == len(l.labels) {
		return nil, fmt.Errorf("%w: nothing is left to choose the regularisation on: no class of split %s has three pictures, or the validation split has no pictures of its classes", ErrRequest, r.opt.Train)
	}
	var err error
	l.probe, l.fit, err = learn(ctx, r.opt.Pool, l.samples, fitted, len(l.names), len(l.x)/len(l.labels), func(done, total int) {
		if r.opt.Progress != nil {
			r.opt.Progress("linear probe of "+sys.Name, done, total)
		}
	})
	return l, err
}

// labelled lists the pictures of f that have one of the classes.
func (l *learnt) labelled(f *Features) []int {
	var out []int
	for i, row := range f.Rows {
		if _, ok := l.index[l.value(row)]; ok {
			out = append(out, i)
		}
	}
	return out
}

// take adds pictures of f to the samples.
func (l *learnt) take(f *Features, which []int) {
	dim := len(f.tower) / len(f.Rows)
	l.x, l.labels = slices.Grow(l.x, len(which)*dim), slices.Grow(l.labels, len(which))
	for _, i := range which {
		l.x = append(l.x, f.tower[i*dim:(i+1)*dim]...)
		l.labels = append(l.labels, l.index[l.value(f.Rows[i])])
	}
}

// classifyLearnt measures the tasks on the pictures of a split that have one of the classes.
func (r *runner) classifyLearnt(l *learnt, f *Features) (out []Classification) {
	in, label := f.labelled(f.tower, l.value, l.index)
	if label.Images == 0 {
		return nil
	}
	label.System = l.system
	s := samples{in.Images, in.Labels}
	for _, t := range r.opt.Tasks {
		c := Classification{Method: string(t), Labelled: label}
		var answers []answer
		switch t {
		case TaskProbe:
			c.Fit, c.Detail = l.fit, fmt.Sprintf("(λ = %.3g)", l.fit.Lambda)
			answers = l.probe.answers(s)
		case TaskKNN:
			c.Detail = fmt.Sprintf("(k = %d, τ = %v)", r.opt.KNN.K, r.opt.KNN.Temperature)
			own := samples{l.x[:l.own*in.Dim], l.labels[:l.own]}
			answers = neighbours(r.opt.Pool, r.opt.KNN, own, s, len(l.names), in.Dim)
		default:
			continue
		}
		c.Accuracy, c.PerClass = tally(answers, s.labels, l.names)
		out = append(out, c)
	}
	return out
}

// embed gives the rows of a split's pictures, their features, or both, and names those that do not decode.
func (r *runner) embed(ctx context.Context, split string, wantRows, wantFeatures bool) (*Features, []Broken, error) {
	meta := r.set.Meta()
	var rows []int
	for i := range meta {
		if meta[i].Split == split {
			rows = append(rows, i)
		}
	}
	read := func(i int) ([]byte, error) { return r.set.Image(ctx, rows[i]) }
	progress := func(done int) {
		if r.opt.Progress != nil {
			r.opt.Progress("pictures of "+split, done, len(rows))
		}
	}
	f := &Features{Dim: r.EmbedDim()}
	var good []int
	var bad []BadPicture
	var err error
	f.Images, f.tower, good, bad, err = pictures(ctx, r.Model, len(rows), read, progress, wantRows, wantFeatures)
	if err != nil {
		return nil, nil, err
	}
	var broken []Broken
	for _, b := range bad {
		row := rows[b.Index]
		broken = append(broken, Broken{Row: row, ImageID: meta[row].ImageID, Reason: b.Err.Error()})
	}
	if len(good) == 0 {
		return nil, nil, fmt.Errorf("%w: none of its %d pictures decodes; row %d: %w", ErrRequest, len(rows), rows[bad[0].Index], bad[0].Err)
	}
	for _, i := range good {
		f.Rows = append(f.Rows, rows[i])
	}
	return f, broken, nil
}
