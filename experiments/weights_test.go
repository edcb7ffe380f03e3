package experiments

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints"
	"diptych/checkpoints/bridge"
	"diptych/internal/kernel"
)

// untrained writes a finished model's folder of a recipe with initial weights.
func untrained(t testing.TB, recipe string, sets ...string) string {
	cfg, err := Load(recipe, sets)
	require.NoError(t, err)
	p, err := cfg.build(nil)
	require.NoError(t, err)
	l := p.model.Parameters()
	slab := make([]float32, l.Size)
	pool := kernel.NewPool(1)
	defer pool.Close()
	l.Init(pool, slab, 7)
	state := &checkpoints.State{Recipe: string(cfg.YAML()), Files: map[string][]checkpoints.Tensor{fileModel: tensors(l, "", slab)}}
	dir := filepath.Join(t.TempDir(), "model")
	require.NoError(t, checkpoints.WriteFolder(checkpoints.Disk, dir, state))
	return dir
}

// What is exported and imported again computes the same bits: weights, vocabulary and preprocessing are the same.
func TestExportImport(t *testing.T) {
	from := untrained(t, DefaultRecipe)
	texts := []string{"a red fruit", "two dogs on the moon"}
	encode := func(dir string) ([]float32, *Config) {
		m, err := OpenModel(dir, 1)
		require.NoError(t, err)
		defer m.Close()
		out, err := m.Texts(context.Background(), texts)
		require.NoError(t, err)
		side := m.ImageSide()
		picture, err := m.Images(context.Background(), 1, func(_ int, dst []uint8) error {
			for i := range side * side * 3 {
				dst[i] = uint8(i * 7)
			}
			return nil
		})
		require.NoError(t, err)
		return append(out, picture...), m.Config()
	}
	want, cfg := encode(from)
	for _, x := range []struct{ family, dtype string }{{"hf", ""}, {"open_clip", ""}, {"open_clip-custom", "fp16"}, {"hf", "bf16"}} {
		dir := t.TempDir()
		res, err := Export(from, filepath.Join(dir, "out"), ExportOptions{Family: x.family, DType: x.dtype})
		require.NoError(t, err, x.family)
		require.NotZero(t, res.Tensors)
		tok := ""
		if x.family != "hf" { // open_clip's files have no vocabulary
			tok = filepath.Join(dir, "merges.txt")
			require.NoError(t, os.WriteFile(tok, demoMerges(t, cfg), 0o666))
		}
		m, err := Import(filepath.Join(dir, "out"), filepath.Join(dir, "in"), ImportOptions{Tokenizer: tok})
		require.NoError(t, err, x.family)
		require.Equal(t, x.family, m.Family)
		if tok != "" {
			require.NoError(t, os.Remove(tok), "the folder holds a copy")
		}
		got, again := encode(filepath.Join(dir, "in"))
		vision, text := cfg.Model.Vision, cfg.Model.Text
		vision.PatchBias = false // is in the positions now
		text.Dropout = 0         // training's own; no public file holds it
		require.Equal(t, vision, again.Model.Vision)
		require.Equal(t, text, again.Model.Text)
		tolerance := 1e-6
		if x.dtype != "" {
			tolerance = 0.02
		}
		texts := len(texts) * cfg.Model.EmbedDim
		if x.dtype == "" {
			require.Equal(t, want[:texts], got[:texts], x.family)
		}
		for i := range want {
			require.InDelta(t, want[i], got[i], tolerance, x.family)
		}
	}
	_, err := Export(from, from, ExportOptions{Family: "hf"})
	require.ErrorIs(t, err, ErrExists)
	_, err = Export(from, filepath.Join(t.TempDir(), "x"), ExportOptions{Family: "hf-vit"})
	require.ErrorContains(t, err, "has no name for")
	_, err = Import(filepath.Join(t.TempDir(), "absent.pt"), filepath.Join(t.TempDir(), "x"), ImportOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// demoMerges returns the demo's vocabulary as a file.
func demoMerges(t testing.TB, cfg *Config) []byte {
	b, err := cfg.Data.Tokenizer.ReadFile()
	require.NoError(t, err)
	return b
}

// A file without a vocabulary that fits is refused before anything is written, also what is no model.
func TestImportRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x")
	_, err := Import("../checkpoints/bridge/testdata/hf", out, ImportOptions{})
	require.ErrorContains(t, err, "the vocabulary has 64 entries, CLIP's 49408")
	_, err = Import("../checkpoints/torchfile/testdata/views.pt", out, ImportOptions{})
	require.ErrorIs(t, err, bridge.ErrUnknown)
	require.NoFileExists(t, out)
}

// A classifier is imported with the names of its classes.
func TestImportClassifier(t *testing.T) {
	out := filepath.Join(t.TempDir(), "vit")
	m, err := Import("../checkpoints/bridge/testdata/vit-hf", out, ImportOptions{})
	require.NoError(t, err)
	require.Equal(t, "hf-vit", m.Family)
	opened, err := OpenModel(out, 1)
	require.NoError(t, err)
	defer opened.Close()
	_, classes := opened.Classes()
	require.Len(t, classes, 6)
	require.Equal(t, "LABEL_3", classes[3].Text)
	require.Equal(t, 1e-12, opened.Config().Model.Vision.LayerNormEps)
	for _, family := range []string{"hf-vit"} {
		_, err := Export(out, filepath.Join(t.TempDir(), family), ExportOptions{Family: family})
		require.NoError(t, err)
	}
}
