package experiments

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/batch"
	"diptych/data/demo"
	"diptych/data/remote"
)

// openSet opens a data set on this machine by the name that recipes and commands use for it.
func openSet(path string) (*arrowset.Set, error) {
	if path == "demo" {
		return demo.Open()
	}
	return arrowset.Open(path)
}

// OpenSet opens a data set by the name that recipes and commands use for it: a folder, demo, or an address. Of a remote set only
// the files with rows of the splits are opened that choose returns for its manifest; a nil choose, or none returned, means all.
// The files are fetched into the cache and stay open.
func OpenSet(ctx context.Context, path string, cache remote.Options, choose func(m *arrowset.Manifest) []string) (*arrowset.Set, error) {
	if !data.IsAddress(path) {
		return openSet(path)
	}
	c, err := openCache(cache)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	far, err := remote.Open(ctx, path, c)
	if err != nil {
		return nil, err
	}
	defer far.Close()
	var splits []string
	if choose != nil {
		splits = choose(far.Manifest())
	}
	return far.OpenSplits(ctx, splits...)
}

// readManifest reads what a data set says of itself, by the name that OpenSet takes.
func readManifest(name string) (*arrowset.Manifest, error) {
	if data.IsAddress(name) {
		return remote.ReadManifest(context.Background(), name, remote.Options{Getenv: os.Getenv})
	}
	if name == "demo" {
		set, err := demo.Open()
		if err != nil {
			return nil, err
		}
		defer set.Close()
		return set.Manifest(), nil
	}
	text, err := os.ReadFile(filepath.Join(name, arrowset.ManifestName))
	if err != nil {
		return nil, err
	}
	m, err := arrowset.ParseManifest(text)
	return &m, err
}

// dataset is one of the data sets of a recipe. Either near or far is not nil.
type dataset struct {
	config data.SourceConfig
	near   *arrowset.Set
	far    *remote.Set
}

func (d *dataset) manifest() *arrowset.Manifest {
	if d.far != nil {
		return d.far.Manifest()
	}
	return d.near.Manifest()
}

func (d *dataset) Close() error {
	if d.far != nil {
		return d.far.Close()
	}
	return d.near.Close()
}

// openData opens the data sets of the recipe and what the model is measured on, and makes the run's source of them. closeData
// must follow, also after an error.
func (r *Run) openData(ctx context.Context, note func(format string, args ...any)) (*data.Source, error) {
	c := r.Config
	all := c.Data.All()
	for i, sc := range all {
		d, err := r.openOne(ctx, sc, note)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, remote.ErrAddress) {
			key := "data.path"
			if len(c.Data.Sources) > 0 {
				key = fmt.Sprintf("data.sources[%d].path", i)
			}
			return nil, fmt.Errorf("%w: %s: %w", ErrRecipe, key, err)
		}
		if err != nil {
			return nil, err
		}
		r.data = append(r.data, d)
	}
	if err := r.checkCache(); err != nil {
		return nil, err
	}
	source, err := r.newSource()
	if err != nil {
		return nil, err
	}
	if r.set = r.data[0].near; r.set != nil {
		return source, nil
	}
	splits := map[string]bool{}
	for _, step := range []int{0, c.Train.Steps} {
		for _, s := range c.evalOptions(r.data[0].manifest(), step).Splits {
			splits[s] = true
		}
	}
	r.set, err = r.data[0].far.OpenSplits(ctx, slices.Sorted(maps.Keys(splits))...)
	return source, err
}

// openOne opens one data set.
func (r *Run) openOne(ctx context.Context, sc data.SourceConfig, note func(format string, args ...any)) (*dataset, error) {
	if !data.IsAddress(sc.Path) {
		set, err := openSet(sc.Path)
		return &dataset{config: sc, near: set}, err
	}
	if r.cache == nil {
		o := r.opt.Cache
		o.Note = note
		var err error
		if r.cache, err = openCache(o); err != nil {
			return nil, err
		}
	}
	far, err := remote.Open(ctx, sc.Path, r.cache)
	return &dataset{config: sc, far: far}, err
}

// openCache opens the cache of remote data sets, in the user's cache folder if o names none.
func openCache(o remote.Options) (*remote.Cache, error) {
	if o.Dir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("experiments: no folder for the cache of remote data; name one (--cache): %w", err)
		}
		o.Dir = filepath.Join(dir, "diptych")
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	return remote.NewCache(o)
}

// closeData closes what openData opened.
func (r *Run) closeData() error {
	var errs []error
	for _, d := range r.data {
		errs = append(errs, d.Close())
	}
	if r.set != nil && len(r.data) > 0 && r.set != r.data[0].near {
		errs = append(errs, r.set.Close())
	}
	if r.cache != nil {
		r.cache.Close()
	}
	r.data, r.set, r.cache = nil, nil, nil
	return errors.Join(errs...)
}

// checkCache refuses windows that do not fit the cache: each shard would be fetched again and again.
func (r *Run) checkCache() error {
	var need int64
	var names []string
	for _, d := range r.data {
		if d.far != nil {
			need += d.far.Need(d.config.WindowShards)
			names = append(names, fmt.Sprintf("%d shards of %s", min(d.config.WindowShards, len(d.manifest().Shards)), d.manifest().Name))
		}
	}
	if r.cache != nil && r.cache.Limit > 0 && need > r.cache.Limit {
		return fmt.Errorf("%w: data.windowShards: %s are shuffled together and have up to %d MiB, the cache holds %d MiB: make it larger (--cache-size), or lower the number",
			ErrRecipe, strings.Join(names, " and "), need>>20, r.cache.Limit>>20)
	}
	return nil
}

// newSource makes the source of the data sets that are open.
func (r *Run) newSource() (*data.Source, error) {
	c := r.Config
	o := data.Options{
		Labels: c.Data.Classes != "", Answers: c.learnsAnswers(), Second: c.readsTwo(),
		Seed: c.Seed, Batch: c.Train.GlobalBatch, Pipeline: r.parts.train, Tokenizer: r.parts.tok,
		BrokenLimit: c.Data.BrokenLimit, CacheBytes: c.Data.CacheMiB << 20, MergeDropout: c.Data.MergeDropout,
	}
	var weights []float64
	for _, d := range r.data {
		weights = append(weights, d.config.Weight)
	}
	shares, err := data.Shares(weights, o.Batch)
	if err != nil {
		return nil, fmt.Errorf("%w: data.sources: %w", ErrRecipe, err)
	}
	var parts []data.Part
	for i, d := range r.data {
		if err := d.checkSplit(); err != nil {
			return nil, err
		}
		if d.near != nil && d.config.WindowShards == 0 && len(r.data) == 1 {
			rows, err := r.samples(d)
			if err != nil {
				return nil, err
			}
			source, err := data.NewSource(d.near, rows, o)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
			}
			return source, nil
		}
		// Each set has an order of its own, also one that is mixed with itself.
		seed := c.Seed
		if i > 0 {
			seed = data.PartSeed(c.Seed, i)
		}
		part, err := r.part(d, seed, shares[i])
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	source, err := data.NewMixed(parts, o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	return source, nil
}

// part is what the source takes from a data set: n pairs of each batch.
func (r *Run) part(d *dataset, seed uint64, n int) (data.Part, error) {
	m := d.manifest()
	label, err := r.label(d)
	if err != nil {
		return data.Part{}, err
	}
	p := data.Part{Name: m.Name, Len: m.Rows, Samples: m.Splits[d.config.Split], Label: label}
	var index *arrowset.Index
	class := r.Config.answerClasses(r.parts)
	if d.far != nil {
		index = d.far.Index()
		p.Rows, p.ID = d.far, d.far.ID
		p.Captions = func(ctx context.Context, row int) ([]string, error) {
			all, err := d.far.Captions(ctx, row)
			if err != nil {
				return nil, err
			}
			texts, _ := sentences(all, &d.config, class)
			if len(texts) == 0 {
				return nil, noCaption(m, row, d.far.ID(row), &d.config, class != nil)
			}
			return texts, nil
		}
	} else {
		index = d.near.Index()
		rows, err := samples(d.near, &d.config, r.parts.tok != nil)
		if err != nil {
			return p, err
		}
		captions := make(map[int][]string, len(rows))
		for _, s := range rows {
			if captions[s.Row], _ = sentences(d.near.Captions(s.Row), &d.config, class); len(captions[s.Row]) == 0 && r.parts.tok != nil {
				return p, noCaption(m, s.Row, s.ID, &d.config, class != nil)
			}
		}
		p.Rows, p.ID = d.near, func(row int) string { return d.near.Meta()[row].ImageID }
		p.Captions = func(_ context.Context, row int) ([]string, error) { return captions[row], nil }
	}
	if class != nil {
		p.Answers = func(ctx context.Context, row int) ([][]batch.Answer, error) {
			all, err := d.captions(ctx, row)
			_, answers := sentences(all, &d.config, class)
			return answers, err
		}
	}
	window := d.config.WindowShards
	if window == 0 {
		window = max(len(m.Shards), 1)
	}
	if p.Order, err = data.NewWindowed(seed, n, window, index, d.config.Split); err != nil {
		return p, fmt.Errorf("%w: %s: %w", ErrRecipe, m.Name, err)
	}
	return p, nil
}

// checkSplit says what splits there are when the recipe's is not among them.
func (d *dataset) checkSplit() error {
	if m := d.manifest(); m.Splits[d.config.Split] == 0 {
		return fmt.Errorf("%w: data.split: %s has no rows of split %q; it has %s", ErrRecipe, m.Name, d.config.Split, strings.Join(splitNames(m), ", "))
	}
	return nil
}

// label returns the function that gives the class of a set's row; nil where the recipe names no classes.
func (r *Run) label(d *dataset) (func(ctx context.Context, row int) (int32, error), error) {
	if r.Config.Data.Classes == "" {
		return nil, nil
	}
	sys, err := classSystem(d.manifest(), r.Config.Data.Classes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	index := map[string]int32{}
	for i, c := range r.parts.classes {
		index[c.ID] = int32(i)
	}
	value := func(ctx context.Context, row int) (string, error) { return d.far.Value(ctx, row, sys.Column) }
	if d.near != nil {
		column, _ := d.near.Column(sys.Column) // a manifest's class systems have columns
		value = func(_ context.Context, row int) (string, error) { return column(row), nil }
	}
	return func(ctx context.Context, row int) (int32, error) {
		id, err := value(ctx, row)
		if err != nil {
			return 0, err
		}
		class, ok := index[id]
		if !ok {
			return 0, fmt.Errorf("%w: data.classes: %s is %q, which is no class of %s", ErrRecipe, sys.Column, id, sys.Name)
		}
		return class, nil
	}, nil
}

// samples lists the rows of a data set's split; where the recipe names classes, those that have one.
func (r *Run) samples(d *dataset) ([]data.Sample, error) {
	rows, err := samples(d.near, &d.config, r.parts.tok != nil)
	label, labelErr := r.label(d)
	if err = errors.Join(err, labelErr); err != nil {
		return nil, err
	}
	if r.Config.readsTwo() {
		for _, s := range rows {
			if !d.near.HasSecond(s.Row) {
				return nil, fmt.Errorf("%w: data.path: row %d (%s) of %s has no second picture (column %s), and the recipe's model reads two", ErrRecipe, s.Row, s.ID, d.manifest().Name, arrowset.ColSecondImage)
			}
		}
	}
	if class := r.Config.answerClasses(r.parts); class != nil {
		return answered(rows, d, class), nil
	}
	if label == nil {
		return rows, nil
	}
	kept := rows[:0]
	for _, s := range rows {
		class, err := label(context.Background(), s.Row)
		if err != nil {
			continue
		}
		s.Label = class
		kept = append(kept, s)
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("%w: data.classes: none of the %d rows of split %q of %s has a class of %s", ErrRecipe, len(rows), d.config.Split, d.manifest().Name, r.Config.Data.Classes)
	}
	return kept, nil
}

// samples lists the rows of a split with the captions that the recipe admits, of which each must have one if texts are read.
func samples(set *arrowset.Set, c *data.SourceConfig, texts bool) ([]data.Sample, error) {
	var out []data.Sample
	for i, m := range set.Meta() {
		if m.Split != c.Split {
			continue
		}
		s := data.Sample{Row: i, ID: m.ImageID, Group: m.Group, Captions: admitted(set.Captions(i), c)}
		if len(s.Captions) == 0 && texts {
			return nil, noCaption(set.Manifest(), i, m.ImageID, c, false)
		}
		out = append(out, s)
	}
	return out, nil
}

// admitted are the captions of a picture that the recipe admits.
func admitted(captions []arrowset.Caption, c *data.SourceConfig) []string {
	var out []string
	for _, cp := range captions {
		if admitsCaption(c, cp) {
			out = append(out, cp.Text)
		}
	}
	return out
}

func admits(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }

// noCaption is the error of a row without a caption that the recipe admits; answered tells that one with an answer is meant.
func noCaption(m *arrowset.Manifest, row int, id string, c *data.SourceConfig, answered bool) error {
	if answered {
		return fmt.Errorf("%w: data: %s, row %d (%s) has no caption of data.captionKinds %v and data.captionLangs %v with an answer that the model can give (data.leastAnswers): leave such rows out of the set",
			ErrRecipe, m.Name, row, id, c.CaptionKinds, c.CaptionLangs)
	}
	return fmt.Errorf("%w: data: %s, row %d (%s) has no caption of data.captionKinds %v and data.captionLangs %v: widen them, or leave such rows out of the set",
		ErrRecipe, m.Name, row, id, c.CaptionKinds, c.CaptionLangs)
}

func splitNames(m *arrowset.Manifest) []string { return slices.Sorted(maps.Keys(m.Splits)) }

// dataSum tells data sets from others: a hash of their shards' checksums, in order.
func dataSum(sets []*dataset) string {
	h := sha256.New()
	for _, d := range sets {
		for _, s := range d.manifest().Shards {
			fmt.Fprintln(h, s.Rows, strings.ToLower(s.SHA256))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
