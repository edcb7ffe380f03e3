package experiments

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/checkpoints"
	"diptych/checkpoints/bridge"
	"diptych/checkpoints/safetensors"
	"diptych/checkpoints/torchfile"
	"diptych/data"
	"diptych/data/arrowset"
	"diptych/data/tokenizer"
	"diptych/data/transform"
	"diptych/losses"
	"diptych/model"
)

// ErrExists marks an output that is there already.
var ErrExists = errors.New("is there already")

// ImportOptions are what a person says about weights that are brought in.
type ImportOptions struct {
	Name      string   // of the model; empty: the output folder's
	Tokenizer string   // a merges file; empty: the one beside the weights, or CLIP's
	Positions string   // how positions are brought to another picture size; empty: as the weights' library does
	Sets      []string // overrides of the recipe, such as model.vision.imageSize=336
}

// extraSource is where a checkpoint's entry says which public weights it was made from.
const extraSource = "source"

// Imported is what came of an import.
type Imported struct {
	*bridge.Model
	Out    string
	Config *Config
}

// Import brings the public weights at path, a file or a folder, into out: a finished model's folder, which evaluation and
// fine-tuning open like a run. Elements are copied in the type they are stored in.
func Import(path, out string, o ImportOptions) (*Imported, error) {
	if _, err := os.Lstat(out); err == nil {
		return nil, fmt.Errorf("experiments: %s %w; give another --out", out, ErrExists)
	}
	if known := bridge.Methods(); o.Positions != "" && !slices.Contains(known, o.Positions) {
		return nil, fmt.Errorf("%w: --positions %s is unknown; known: %s", ErrRecipe, o.Positions, strings.Join(known, ", "))
	}
	src, err := bridge.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	cfg, err := Default("", "")
	if err != nil {
		return nil, err
	}
	cfg.Train.Steps, cfg.Train.GlobalBatch = 1, 2*cfg.Train.Lanes // a recipe must say them; nothing is trained by this one
	cfg.Name = o.Name
	if cfg.Name == "" {
		cfg.Name = filepath.Base(filepath.Clean(out))
	}
	m, err := bridge.Read(src, func(d *bridge.Description) error {
		cfg.Model = d.Model
		switch {
		case d.LogitBias:
			cfg.Losses = []losses.Config{{Name: "sigmoid", Weight: 1}}
		case d.Model.Kind == "vit":
			cfg.Losses = []losses.Config{{Name: "classify", Weight: 1}}
			cfg.Data.Classes = importedClasses
		case d.Model.Kind == "vilt":
			if cfg.Losses, err = headLosses(d.ViLT); err != nil {
				return err
			}
		}
		changed, err := parse(cfg.YAML(), path, o.Sets, false)
		if err != nil {
			return err
		}
		*cfg, d.Model = *changed, changed.Model
		if o.Positions != "" {
			d.Positions = o.Positions
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var classes []arrowset.Class
	if m.Description.Model.Kind == "vilt" {
		if k := m.Description.ViLT.Classes; k > 0 {
			if classes = classesOf(m.Classes, k); len(m.Classes) > 0 {
				for i := range classes { // as answers are compared
					classes[i].ID = data.NormalizeAnswer(classes[i].Text)
				}
			}
		}
		if err := setWordPiece(cfg, src.Dir, o.Tokenizer); err != nil {
			return nil, err
		}
	} else if m.Description.Model.HasTexts() {
		if err := setTokenizer(cfg, src.Dir, o.Tokenizer); err != nil {
			return nil, err
		}
	} else {
		classes = classesOf(m.Classes, m.Description.Model.NumClasses)
	}
	if len(cfg.Data.EvalTransforms) == 0 {
		setTransforms(cfg, m.Preprocess)
	}
	vocabulary := cfg.Data.Tokenizer.Content
	p, err := cfg.build(classes)
	if err != nil {
		return nil, err
	}
	if p.vocabulary != nil {
		vocabulary = p.vocabulary
	}
	cfg.Data.Tokenizer.Content = nil
	state := &checkpoints.State{
		Recipe: string(cfg.YAML()), Streams: map[string][]safetensors.Tensor{fileModel: m.Tensors},
	}
	entries := map[string]any{extraSource: map[string]any{"file": filepath.Base(src.Path), "form": src.Form, "family": m.Family, "positions": m.Positions}}
	if vocabulary != nil {
		entries[extraVocabulary] = vocabulary
	}
	if classes != nil {
		entries[extraClasses] = classes
	}
	if state.Extra, err = encodeExtra(entries); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(out)), 0o777); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	if err := checkpoints.WriteFolder(checkpoints.Disk, out, state); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	return &Imported{Model: m, Out: out, Config: cfg}, nil
}

// headLosses are the objectives that read the heads of a model of pairs: the imported model's recipe lists them, and so its heads are laid out.
func headLosses(h model.ViLTHeads) (out []losses.Config, err error) {
	for _, head := range []struct {
		there bool
		loss  losses.Config
	}{
		{h.Match, losses.Config{Name: "itm"}}, {h.Words, losses.Config{Name: "mlm", WholeWords: true}}, {h.Color, losses.Config{Name: "mpp"}},
		{h.Rank, losses.Config{Name: "rank"}}, {h.ClassName == model.AnswersOfQuestion, losses.Config{Name: "vqa"}},
		{h.Classes > 0 && h.ClassName != model.AnswersOfQuestion, losses.Config{Name: "pairclass"}},
	} {
		if head.there {
			head.loss.Weight = 1
			out = append(out, head.loss)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the file has none of the heads of ViLT (matching itm_score, masked words mlm_score, answers vqa_classifier or nlvr2_classifier, ranking rank_output): nothing could be done with the model", ErrRecipe)
	}
	return out, nil
}

// importedClasses names the class system of an imported classifier, which no data set here has.
const importedClasses = "imported"

// classesOf gives each of n classes its name, or its number.
func classesOf(names []string, n int) []arrowset.Class {
	out := make([]arrowset.Class, n)
	for i := range out {
		out[i] = arrowset.Class{ID: fmt.Sprint(i), Text: fmt.Sprint(i)}
		if i < len(names) {
			out[i].Text = names[i]
		}
	}
	return out
}

// setTokenizer opens the merges beside the weights, or CLIP's own where the vocabulary has its size.
func setTokenizer(cfg *Config, dir, file string) error {
	t, vocab := &cfg.Data.Tokenizer, cfg.Model.Text.VocabSize
	t.ContextLength = 0
	if file == "" && vocab == 49408 {
		*t = tokenizer.Config{Kind: "clip"}
		return nil
	}
	for _, name := range []string{"merges.txt", "merges.txt.gz"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil && file == "" {
			file = filepath.Join(dir, name)
		}
	}
	if file == "" {
		return fmt.Errorf("%w: the vocabulary has %d entries, CLIP's 49408, and there is no merges.txt beside the weights; give --tokenizer FILE", ErrRecipe, vocab)
	}
	*t = tokenizer.Config{Kind: "bpe", File: file}
	b, err := t.ReadFile()
	if err != nil {
		return fmt.Errorf("%w: --tokenizer: %w", ErrRecipe, err)
	}
	t.Content = b
	return nil
}

// setWordPiece opens BERT's vocabulary: the tokenizer.json or vocab.txt beside the weights, or, where it has the size of that, bert-base-uncased.
func setWordPiece(cfg *Config, dir, file string) error {
	t, vocab := &cfg.Data.Tokenizer, cfg.Model.Text.VocabSize
	*t = tokenizer.Config{Kind: "wordpiece", File: file}
	for _, name := range []string{"tokenizer.json", "vocab.txt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil && t.File == "" {
			t.File = filepath.Join(dir, name)
		}
	}
	if t.File == "" {
		const size = 30522
		if vocab != size {
			return fmt.Errorf("%w: the vocabulary has %d entries, bert-base-uncased %d, and there is neither a tokenizer.json nor a vocab.txt beside the weights; give --tokenizer FILE", ErrRecipe, vocab, size)
		}
		t.File = "bert-base-uncased"
		return nil
	}
	if strings.HasSuffix(t.File, ".txt") { // a tokenizer.json says it itself
		var config struct {
			Lowercase *bool `json:"do_lower_case"`
		}
		if b, err := os.ReadFile(filepath.Join(dir, "tokenizer_config.json")); err == nil {
			if err := json.Unmarshal(b, &config); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrRecipe, filepath.Join(dir, "tokenizer_config.json"), err)
			}
		}
		t.Cased = config.Lowercase != nil && !*config.Lowercase
	}
	b, err := t.ReadFile()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	t.Content = b
	return nil
}

// setTransforms makes the pictures as the weights' library does; for training the crop is a random one of at least nine tenths, as CLIP's, and pictures
// that keep their shape are trained on as they are measured.
func setTransforms(cfg *Config, p *bridge.Preprocess) {
	if p == nil {
		p = bridge.DefaultPreprocess(cfg.Model.Vision.ImageSize)
	}
	cfg.Data.EvalTransforms = p.Specs()
	if cfg.Model.HasShapes() {
		cfg.Data.Transforms = cfg.Data.EvalTransforms
		return
	}
	last := cfg.Data.EvalTransforms[len(cfg.Data.EvalTransforms)-1]
	cfg.Data.Transforms = []transform.Spec{{"op": "random_resized_crop", "scale": []any{0.9, 1.0}, "filter": p.Filter}, last}
}

// Exported is what came of an export.
type Exported struct {
	Out     string
	Family  string
	Files   []string
	Tensors int
	Bytes   int64
	Notes   []string // what the library has otherwise
}

// ExportOptions say how a model is written.
type ExportOptions struct {
	Family string // hf, open_clip, …
	DType  string // fp32, fp16 or bf16; empty: as the weights are stored
	Pickle bool   // PyTorch's form in place of safetensors
}

// Export writes the model of a run, a checkpoint or a finished model's folder into the folder out, in the names and with the files of a
// public library.
func Export(dir, out string, o ExportOptions) (*Exported, error) {
	if _, err := os.Lstat(out); err == nil {
		return nil, fmt.Errorf("experiments: %s %w; give another --out", out, ErrExists)
	}
	c, _, err := checkpoints.Find(dir)
	if err != nil {
		return nil, err
	}
	cfg, p, err := open(c)
	if err != nil {
		return nil, err
	}
	name := fileModel
	if c.Has(fileAverage) {
		name = fileAverage
	}
	stored, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	defer stored.Close()
	from, err := converted(stored, o.DType)
	if err != nil {
		return nil, err
	}
	public, err := bridge.Publish(o.Family, describe(cfg, p), from)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	weights := public.Weights
	write := func(w io.Writer) error { return torchfile.Write(w, public.Tensors, public.Within) }
	if ext := filepath.Ext(weights); ext == ".safetensors" && o.Pickle {
		weights = strings.TrimSuffix(weights, ext) + ".bin"
		weights = strings.NewReplacer("open_clip_model.bin", "open_clip_pytorch_model.bin", "model.bin", "pytorch_model.bin").Replace(weights)
	} else if ext == ".safetensors" {
		write = func(w io.Writer) error {
			return safetensors.Write(w, public.Tensors, map[string]string{"format": "pt"})
		}
	}
	res := &Exported{Out: out, Family: o.Family, Tensors: len(public.Tensors), Notes: public.Notes}
	for _, t := range public.Tensors {
		res.Bytes += t.Size()
	}
	// Written aside and renamed, so that a folder of that name is always whole.
	aside := filepath.Clean(out) + ".new"
	if err := os.MkdirAll(filepath.Dir(aside), 0o777); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	if err := os.Mkdir(aside, 0o777); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	defer os.RemoveAll(aside)
	for _, name := range slices.Sorted(maps.Keys(public.Files)) {
		if err := os.WriteFile(filepath.Join(aside, name), public.Files[name], 0o666); err != nil {
			return nil, fmt.Errorf("experiments: %w", err)
		}
		res.Files = append(res.Files, name)
	}
	if err := writeWeights(filepath.Join(aside, weights), write); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	res.Files = append(res.Files, weights)
	if err := os.Rename(aside, out); err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	return res, nil
}

// describe says of a recipe's model what public files say of theirs.
func describe(cfg *Config, p *parts) *bridge.Description {
	v := &cfg.Model.Vision
	d := &bridge.Description{Model: cfg.Model, LogitBias: losses.Heads(cfg.Losses).LogitBias, Tokenizer: p.tok}
	if m, ok := p.model.(*model.ViLT); ok {
		d.ViLT = m.Heads
	}
	d.Preprocess = bridge.PreprocessOf(cfg.Data.EvalTransforms, v.ImageSize, v.PatchSize, p.eval.Mean, p.eval.Std)
	for _, c := range p.classes {
		d.Classes = append(d.Classes, c.Text)
	}
	return d
}

func writeWeights(path string, write func(w io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
}

// dtypes are the types that weights are written in, by the names that the command takes.
var dtypes = map[string]safetensors.DType{"fp32": safetensors.F32, "fp16": safetensors.F16, "bf16": safetensors.BF16}

// converted gives a file's tensors in another type, or as they are.
func converted(f *safetensors.File, dtype string) (bridge.Stored, error) {
	if dtype == "" {
		return f, nil
	}
	to, ok := dtypes[dtype]
	if !ok {
		return nil, fmt.Errorf("%w: --dtype %s is unknown; known: %s", ErrRecipe, dtype, strings.Join(slices.Sorted(maps.Keys(dtypes)), ", "))
	}
	return &inType{f, to}, nil
}

// inType are a file's tensors in another type.
type inType struct {
	*safetensors.File
	to safetensors.DType
}

// Info has that type.
func (t *inType) Info(name string) (safetensors.Info, error) {
	i, err := t.File.Info(name)
	i.DType = t.to
	return i, err
}

// Stream converts piece by piece.
func (t *inType) Stream(name string, use func([]byte) error) error {
	i, err := t.File.Info(name)
	if err != nil || i.DType == t.to {
		return errors.Join(err, t.File.Stream(name, use))
	}
	return t.File.Stream(name, func(b []byte) error {
		v := make([]float32, len(b)/i.DType.Size())
		i.DType.Widen(v, b)
		return use(t.to.Narrow(v))
	})
}

// open builds what a checkpoint's recipe describes.
func open(c *checkpoints.Checkpoint) (*Config, *parts, error) {
	cfg, err := ParseResolved([]byte(c.Recipe), c.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("experiments: the recipe of %s: %w", c.Dir, err)
	}
	if err := extra(c, extraVocabulary, &cfg.Data.Tokenizer.Content); err != nil {
		return nil, nil, err
	}
	var classes []arrowset.Class
	if err := extra(c, extraClasses, &classes); err != nil {
		return nil, nil, err
	}
	p, err := cfg.build(classes)
	if err != nil {
		return nil, nil, fmt.Errorf("experiments: the recipe of %s: %w", c.Dir, err)
	}
	return cfg, p, nil
}
