package eval

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"diptych/data/arrowset"
	"diptych/internal/kernel"
)

// Set is the data set as Run reads it; *arrowset.Set is one.
type Set interface {
	Manifest() *arrowset.Manifest
	Meta() []arrowset.RowMeta
	Captions(row int) []arrowset.Caption
	Column(name string) (value func(row int) string, ok bool)
	// Image returns an encoded picture; it is called from several goroutines at once.
	Image(ctx context.Context, row int) ([]byte, error)
}

// Task is something to measure.
type Task string

// The tasks, and the ways to choose the texts that retrieval ranks.
const (
	TaskRetrieval Task = "retrieval"
	TaskZeroShot  Task = "zeroshot"
	TaskClassify  Task = "classify"     // by a Classifier's own scores
	TaskProbe     Task = "linear-probe" // by logistic regression on a Featurer's features
	TaskKNN       Task = "knn"          // by the nearest pictures among those features

	TextsAuto  = ""      // TextsLabel if the split has captions of the kind label, otherwise TextsAll
	TextsLabel = "label" // one text for each group: its first label
	TextsAll   = "all"   // every caption of every picture
)

// labelKind is the kind of the captions that name what is shown.
const labelKind = "label"

// Options say what Run is to measure. The zero value measures everything.
type Options struct {
	Splits  []string // none: every split but train
	Tasks   []Task   // none: all that the model serves as it is, without learning anything, and the set can be measured by
	Systems []string // class systems of the set; none: all
	K       []int    // of R@K; nil means 1, 5, 10
	Texts   string   // TextsAuto, TextsLabel or TextsAll
	Lang    string   // captions of this language, or of none, are used; "" means en
	Pool    *kernel.Pool
	// Rescore, if not nil, ranks again by a model that reads pictures and sentences together; of the tasks retrieval alone is measured.
	Rescore *Rescore
	// Templates, if any, take the place of those of the class systems; see Prompts. ClassNames take that of one system's names, in its order.
	Templates, ClassNames []string
	// Train is the split that a linear probe and nearest neighbours learn from; "" means train. Validation is the one that chooses the
	// regularisation, which the probe then learns from too; "" means a fifth of Train.
	Train, Validation string
	KNN               KNN
	Memory            int64    // bytes that the features of these may take; 0: any
	Kinds             []string // of captions that a model of pairs is measured on; none: all
	// MatchPictures is how many pictures of a split choose among sentences at most; 0: all.
	MatchPictures int
	// Progress, if not nil, hears what is being done; calls do not overlap.
	Progress func(what string, done, total int)
}

// Result is what Run measured, in the order of the options.
type Result struct {
	Data     string        `json:"data"` // the set's name
	EmbedDim int           `json:"embedDim"`
	Splits   []SplitResult `json:"splits"`
}

// SplitResult is what was measured on one split.
type SplitResult struct {
	Split      string           `json:"split"`
	Images     int              `json:"images"`           // embedded
	Broken     []Broken         `json:"broken,omitempty"` // left out
	Retrieval  *SplitRetrieval  `json:"retrieval,omitempty"`
	ZeroShot   []SystemResult   `json:"zeroshot,omitempty"`
	Classified []Classification `json:"classified,omitempty"`
	Match      *MatchResult     `json:"match,omitempty"`
	Fill       *FillResult      `json:"fill,omitempty"`
	Answers    *AnswerResult    `json:"answers,omitempty"`
	// Features are the embeddings that were measured, for those who draw them.
	Features *Features `json:"-"`
}

// Broken is a picture that does not decode.
type Broken struct {
	Row     int    `json:"row"`
	ImageID string `json:"imageID"`
	Reason  string `json:"reason"`
}

// SplitRetrieval is the retrieval on one split.
type SplitRetrieval struct {
	Texts  int    `json:"texts"`
	Groups int    `json:"groups"`     // of pictures that count as one another's answers
	Choice string `json:"textChoice"` // TextsLabel or TextsAll
	// RetrievalResult ranks by the product of unit rows. It has no candidates if only Rescored was measured.
	RetrievalResult
	Rescored *Rescored `json:"rescored,omitempty"`
}

// SystemResult is the zero-shot classification of one split by one class system.
type SystemResult struct {
	Labelled
	Ensemble  Accuracy           `json:"ensemble"` // of all templates
	Bare      Accuracy           `json:"bareName"`
	Templates []TemplateAccuracy `json:"templates,omitempty"` // each alone
	PerClass  []ClassAccuracy    `json:"perClass"`            // by the ensemble
}

// TemplateAccuracy is what one template reaches alone.
type TemplateAccuracy struct {
	Template string `json:"template"`
	Accuracy
}

// Features are the embeddings of a split: N pictures and T texts of E = Dim numbers each.
type Features struct {
	Dim        int
	Rows       []int     // (N) the pictures' rows in the set
	Images     []float32 // (N, E)
	ImageGroup []int32   // (N)
	Texts      []string  // (T) none if retrieval was not asked for
	TextEmbeds []float32 // (T, E)
	TextGroup  []int32   // (T)

	tower []float32 // (N, D) the image tower's features, if something learns from such
}

// Run embeds the splits of set and measures what opt asks for. A picture that does not decode is left out and named in the
// result; a split without any that does, a missing split or class system is an ErrRequest.
func Run(ctx context.Context, m Model, set Set, opt Options) (*Result, error) {
	r := &runner{Model: m, set: set, opt: opt}
	if err := r.check(m.Tasks()); err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	res := &Result{Data: set.Manifest().Name, EmbedDim: m.EmbedDim(), Splits: make([]SplitResult, len(r.opt.Splits))}
	for i, split := range r.opt.Splits {
		if err := r.split(ctx, split, &res.Splits[i]); err != nil {
			return nil, fmt.Errorf("eval: split %s: %w", split, err)
		}
	}
	if slices.Contains(r.opt.Tasks, TaskClassify) {
		if err := r.classify(m.(Classifier), res.Splits); err != nil {
			return nil, fmt.Errorf("eval: %w", err)
		}
	}
	if slices.ContainsFunc(r.opt.Tasks, learns) {
		if err := r.learn(ctx, res.Splits); err != nil {
			return nil, fmt.Errorf("eval: %w", err)
		}
	}
	if slices.Contains(r.opt.Tasks, TaskZeroShot) {
		for _, sys := range set.Manifest().Classes {
			if !slices.Contains(r.opt.Systems, sys.Name) {
				continue
			}
			if err := r.system(ctx, &sys, res.Splits); err != nil {
				return nil, fmt.Errorf("eval: class system %s: %w", sys.Name, err)
			}
		}
	}
	return res, nil
}

type runner struct {
	Model
	set Set
	opt Options // resolved by check
	// embedded are the pictures of the splits that are measured, each read once for all tasks.
	embedded []*Features
}

// check fills in the defaults and names what the set does not have, or the model does not serve.
func (r *runner) check(serves []Task) error {
	man, o := r.set.Manifest(), &r.opt
	have := splitNames(r.set.Meta())
	if len(o.Splits) == 0 {
		o.Splits = slices.DeleteFunc(slices.Clone(have), func(s string) bool { return s == "train" || slices.Contains(o.Sources(), s) })
		if len(o.Splits) == 0 {
			o.Splits = have
		}
	}
	if len(o.Splits) == 0 {
		return fmt.Errorf("%w: the data set %s has no rows", ErrRequest, man.Name)
	}
	if err := checkSplits(r.set, o.Splits); err != nil {
		return err
	}
	if len(o.Tasks) == 0 {
		if o.Tasks = serves; o.Templates == nil && o.ClassNames == nil { // which ask for zeroshot
			o.Tasks = Served(serves, man)
		}
	}
	if _, ok := r.Model.(Featurer); ok {
		serves = append(slices.Clip(serves), TaskProbe, TaskKNN)
	}
	if len(o.Tasks) == 0 {
		return fmt.Errorf("%w: the model has nothing to be measured without learning; choose of its tasks: %s", ErrRequest, TaskList(serves))
	}
	for _, t := range o.Tasks {
		if !slices.Contains(serves, t) {
			return fmt.Errorf("%w: the model has no task %q; it has %s", ErrRequest, t, TaskList(serves))
		}
	}
	var systems []string
	for _, c := range man.Classes {
		systems = append(systems, c.Name)
	}
	if slices.Contains(o.Tasks, TaskZeroShot) && len(systems) == 0 {
		return fmt.Errorf("%w: %s sorts into classes, and the data set %s has none; an import takes them from --classes FILE", ErrRequest, TaskZeroShot, man.Name)
	}
	for _, s := range o.Systems {
		if !slices.Contains(systems, s) {
			return fmt.Errorf("%w: the data set %s has no class system %q; it has %s", ErrRequest, man.Name, s, strings.Join(systems, ", "))
		}
	}
	if len(o.Systems) == 0 {
		o.Systems = systems
	}
	if o.Texts != TextsAuto && o.Texts != TextsLabel && o.Texts != TextsAll {
		return fmt.Errorf("%w: there is no choice of texts %q; there are %s and %s", ErrRequest, o.Texts, TextsLabel, TextsAll)
	}
	if err := o.checkPrompts(); err != nil {
		return err
	}
	if o.ClassNames != nil && len(o.Systems) != 1 {
		return fmt.Errorf("%w: names of classes are for one class system; choose one of %s", ErrRequest, strings.Join(o.Systems, ", "))
	}
	if o.Lang == "" {
		o.Lang = "en"
	}
	if err := r.checkLearning(have); err != nil {
		return err
	}
	_, err := checkK(o.K)
	return err
}

// checkPrompts refuses prompts that no task reads or no class system fills.
func (o *Options) checkPrompts() error {
	if (o.Templates != nil || o.ClassNames != nil) && !slices.Contains(o.Tasks, TaskZeroShot) {
		return fmt.Errorf("%w: prompts and names of classes are for the task %s, which is not among %s", ErrRequest, TaskZeroShot, TaskList(o.Tasks))
	}
	return nil
}

// Served are those of a model's tasks that a set can be measured by: without classes there is nothing to sort pictures into.
func Served(tasks []Task, man *arrowset.Manifest) []Task {
	if len(man.Classes) > 0 {
		return tasks
	}
	return slices.DeleteFunc(slices.Clone(tasks), func(t Task) bool { return t == TaskZeroShot })
}

// TaskList names tasks, for messages.
func TaskList(tasks []Task) string {
	names := make([]string, len(tasks))
	for i, t := range tasks {
		names[i] = string(t)
	}
	return strings.Join(names, ", ")
}

// checkSplits refuses a split that the set does not have.
func checkSplits(set Set, splits []string) error {
	have := splitNames(set.Meta())
	for _, s := range splits {
		if !slices.Contains(have, s) {
			return fmt.Errorf("%w: the data set %s has no split %q; it has %s", ErrRequest, set.Manifest().Name, s, strings.Join(have, ", "))
		}
	}
	return nil
}

func splitNames(meta []arrowset.RowMeta) []string {
	seen := map[string]bool{}
	for i := range meta {
		seen[meta[i].Split] = true
	}
	names := make([]string, 0, len(seen))
	for s := range seen {
		names = append(names, s)
	}
	sort.Strings(names)
	return names
}

// split embeds one split's pictures, and measures retrieval if it is asked for.
func (r *runner) split(ctx context.Context, split string, out *SplitResult) error {
	wantRows := slices.ContainsFunc(r.opt.Tasks, func(t Task) bool { return !learns(t) })
	f, broken, err := r.embed(ctx, split, wantRows, slices.ContainsFunc(r.opt.Tasks, learns))
	if err != nil {
		return err
	}
	r.embedded = append(r.embedded, f)
	out.Split, out.Images, out.Broken = split, len(f.Rows), broken
	if wantRows {
		out.Features = f
	}
	if !slices.Contains(r.opt.Tasks, TaskRetrieval) {
		return nil
	}
	meta := r.set.Meta()
	var rows []int
	for i := range meta {
		if meta[i].Split == split {
			rows = append(rows, i)
		}
	}
	groups := groupsOf(meta, rows)
	for _, row := range f.Rows {
		f.ImageGroup = append(f.ImageGroup, groups[row])
	}
	var choice string
	f.Texts, f.TextGroup, choice = r.texts(rows, groups)
	if len(f.Texts) == 0 {
		return fmt.Errorf("%w: it has no captions of language %q", ErrRequest, r.opt.Lang)
	}
	if f.TextEmbeds, err = r.sentences(ctx, split, f.Texts); err != nil {
		return err
	}
	ranked, err := retrieval(r.opt.Pool, RetrievalInput{
		Images: f.Images, Texts: f.TextEmbeds, Dim: f.Dim, ImageGroup: f.ImageGroup, TextGroup: f.TextGroup, K: r.opt.K,
	})
	out.Retrieval = &SplitRetrieval{Texts: len(f.Texts), Groups: countGroups(f.ImageGroup), Choice: choice, RetrievalResult: ranked}
	return err
}

// countGroups returns how many different groups there are.
func countGroups(groups []int32) int {
	distinct := map[int32]bool{}
	for _, g := range groups {
		distinct[g] = true
	}
	return len(distinct)
}

// groupsOf numbers the groups of rows; a row without a group is its own.
func groupsOf(meta []arrowset.RowMeta, rows []int) map[int]int32 {
	number := map[string]int32{}
	groups := make(map[int]int32, len(rows))
	next := int32(0)
	for _, row := range rows {
		name := meta[row].Group
		g, ok := number[name]
		if !ok || name == "" {
			g = next
			next++
			number[name] = g
		}
		groups[row] = g
	}
	return groups
}

// texts chooses the candidates of a split and says which group each belongs to.
func (r *runner) texts(rows []int, groups map[int]int32) (texts []string, group []int32, choice string) {
	captions := make([][]arrowset.Caption, len(rows)) // in the language asked for
	labels := false
	for i, row := range rows {
		for _, c := range r.set.Captions(row) {
			if c.Text != "" && (c.Lang == "" || c.Lang == r.opt.Lang) {
				captions[i] = append(captions[i], c)
				labels = labels || c.Kind == labelKind
			}
		}
	}
	choice = r.opt.Texts
	if choice == TextsAuto && labels {
		choice = TextsLabel
	} else if choice == TextsAuto {
		choice = TextsAll
	}
	done := map[int32]bool{}
	for i, row := range rows {
		g := groups[row]
		if len(captions[i]) == 0 || choice == TextsLabel && done[g] {
			continue
		}
		done[g] = true
		chosen := captions[i]
		if choice == TextsLabel { // a row without a label gives its first caption
			at := max(0, slices.IndexFunc(chosen, func(c arrowset.Caption) bool { return c.Kind == labelKind }))
			chosen = chosen[at : at+1]
		}
		for _, c := range chosen {
			texts, group = append(texts, c.Text), append(group, g)
		}
	}
	return texts, group, choice
}

// textChunk is how many texts are embedded between two reports of progress.
const textChunk = 1024

func (r *runner) sentences(ctx context.Context, split string, texts []string) ([]float32, error) {
	x := make([]float32, 0, len(texts)*r.EmbedDim())
	for lo := 0; lo < len(texts); lo += textChunk {
		part := texts[lo:min(lo+textChunk, len(texts))]
		y, err := r.Texts(ctx, part)
		if err != nil {
			return nil, err
		}
		x = append(x, y...)
		if r.opt.Progress != nil {
			r.opt.Progress("texts of "+split, lo+len(part), len(texts))
		}
	}
	return x, checkRows("texts", x, r.EmbedDim(), len(texts))
}

// system classifies every split by one class system. Each template's class names are embedded once.
func (r *runner) system(ctx context.Context, sys *arrowset.ClassSystem, splits []SplitResult) error {
	names, index := classNames(sys.Classes)
	if r.opt.ClassNames != nil {
		if len(r.opt.ClassNames) != len(names) {
			return fmt.Errorf("%w: %d names for its %d classes", ErrRequest, len(r.opt.ClassNames), len(names))
		}
		names = r.opt.ClassNames
	}
	value, ok := r.set.Column(sys.Column)
	if !ok {
		return fmt.Errorf("%w: the data set has no text column %q", ErrRequest, sys.Column)
	}
	inputs := make([]ZeroShotInput, len(splits))
	results := make([]SystemResult, len(splits))
	any := false
	for i := range splits {
		inputs[i], results[i].Labelled = splits[i].Features.labelled(splits[i].Features.Images, value, index)
		results[i].System = sys.Name
		any = any || results[i].Images > 0
	}
	if !any {
		return nil // none of the splits has pictures of its classes
	}
	measure := func(classes []float32, each func(res *SystemResult, a Accuracy, per []ClassAccuracy)) error {
		for i := range splits {
			if results[i].Images == 0 {
				continue
			}
			inputs[i].Classes = classes
			a, per, err := zeroShot(r.opt.Pool, inputs[i], names)
			if err != nil {
				return fmt.Errorf("split %s: %w", splits[i].Split, err)
			}
			each(&results[i], a, per)
		}
		return nil
	}

	templates := r.opt.Templates
	if len(templates) == 0 {
		templates = sys.Templates
	}
	if len(templates) == 0 {
		templates = []string{BareTemplate}
	}
	var sum []float32 // of the templates' unit rows
	for t, template := range templates {
		x, err := promptEmbeds(ctx, r, names, template)
		if err != nil {
			return err
		}
		err = measure(x, func(res *SystemResult, a Accuracy, _ []ClassAccuracy) {
			res.Templates = append(res.Templates, TemplateAccuracy{template, a})
		})
		if err != nil {
			return err
		}
		if sum == nil {
			sum = make([]float32, len(x))
		}
		for i, v := range x {
			sum[i] += v
		}
		if r.opt.Progress != nil {
			r.opt.Progress("class names of "+sys.Name, t+1, len(templates))
		}
	}
	normalizeRows(sum, r.EmbedDim()) // the mean's length does not matter
	err := measure(sum, func(res *SystemResult, a Accuracy, per []ClassAccuracy) { res.Ensemble, res.PerClass = a, per })
	if err != nil {
		return err
	}
	bare, err := promptEmbeds(ctx, r, names, BareTemplate)
	if err != nil {
		return err
	}
	err = measure(bare, func(res *SystemResult, a Accuracy, _ []ClassAccuracy) { res.Bare = a })
	if err != nil {
		return err
	}
	for i := range splits {
		if results[i].Images > 0 {
			splits[i].ZeroShot = append(splits[i].ZeroShot, results[i])
		}
	}
	return nil
}

// labelled picks the pictures of f that have one of the classes, and of x, which has a row for each of f, theirs.
func (f *Features) labelled(x []float32, value func(row int) string, index map[string]int) (ZeroShotInput, Labelled) {
	in := ZeroShotInput{Dim: len(x) / len(f.Rows)}
	count := make([]int, len(index))
	for i, row := range f.Rows {
		c, ok := index[value(row)]
		if !ok {
			continue
		}
		in.Images = append(in.Images, x[i*in.Dim:(i+1)*in.Dim]...)
		in.Labels = append(in.Labels, c)
		count[c]++
	}
	res := Labelled{Classes: len(index), Unlabelled: len(f.Rows) - len(in.Labels)}
	res.count(count)
	return in, res
}
