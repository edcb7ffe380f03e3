package experiments

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
)

// Every stored tensor of the references' fixtures is computed and within its tolerance, from every form of file that holds their float32
// weights. (Of half precision the tests of package bridge compare the tensors.)
func TestVerify(t *testing.T) {
	const trained, pairs, bridge, files = "../train/testdata/", "../model/testdata/", "../checkpoints/bridge/testdata/", "../checkpoints/torchfile/testdata/"
	timm := []string{"model.representation=0", "model.vision.activation=gelu"} // what timm makes of Google's files
	for _, x := range []struct {
		dir, weights string // empty: its own
		sets         []string
	}{
		{dir: trained + "clip-gelu"}, {dir: trained + "clip-quickgelu"}, {dir: bridge + "clip-hf"},
		{dir: bridge + "clip-files", weights: files + "plain.safetensors"}, {dir: bridge + "clip-files", weights: files + "plain.pt"},
		{dir: bridge + "clip-files", weights: files + "legacy.pt"}, {dir: bridge + "clip-files", weights: bridge + "checkpoint.pt"},
		{dir: bridge + "clip-files", weights: bridge + "hf"},
		{dir: bridge + "clip-openai", weights: files + "openai.pt"}, {dir: bridge + "clip-openai", weights: files + "openai.safetensors"},
		{dir: trained + "vit-token"}, {dir: trained + "vit-avg"}, {dir: trained + "vit-avg-nocls"}, {dir: trained + "vit-prenorm"}, {dir: trained + "vit-map"},
		{dir: bridge + "vit-hf"}, {dir: bridge + "vit-npz"}, {dir: bridge + "vit-npz", weights: files + "vit.npz", sets: timm},
		{dir: bridge + "vit-npz-bigvision"}, {dir: bridge + "vit-npz-bigvision", weights: bridge + "vit-npz-bigvision/google.npz", sets: timm},
		{dir: bridge + "vit-hf-bare"}, {dir: bridge + "vit-timm-bare"}, {dir: bridge + "clip-avg"}, {dir: bridge + "posembed"},
		{dir: pairs + "vilt-mlm"}, {dir: pairs + "vilt-itm"}, {dir: pairs + "vilt-vqa"}, {dir: pairs + "vilt-nlvr2"}, {dir: pairs + "vilt-retrieval"},
		{dir: pairs + "vilt-original-irtr"}, {dir: pairs + "vilt-original-vqa"}, {dir: pairs + "vilt-original-nlvr2"},
	} {
		t.Run(filepath.Base(x.dir)+" "+filepath.Base(x.weights), func(t *testing.T) {
			f, err := OpenFixture(x.dir)
			require.NoError(t, err)
			defer f.Close()
			res, err := Verify(f, x.weights, x.sets, 1)
			require.NoError(t, err)
			for _, v := range res {
				require.True(t, v.Computed, v.Name)
				require.True(t, v.OK, "%s: %v, tolerance %v", v.Name, v.Largest, v.Atol)
			}
		})
	}
}

// A fixed table of positions lies elsewhere in the slab and has no gradient; all else is as with a learned one that holds the same.
func TestVerifyFixedPositions(t *testing.T) {
	f, err := OpenFixture("../train/testdata/vit-avg-nocls")
	require.NoError(t, err)
	defer f.Close()
	res, err := Verify(f, "", []string{"model.vision.positions=sincos2d"}, 1)
	require.NoError(t, err)
	for _, v := range res {
		require.Equal(t, v.Name != "grad.pos_embed", v.Computed, v.Name)
		require.Equal(t, v.Computed, v.OK, "%s: %v, tolerance %v", v.Name, v.Largest, v.Atol)
	}
}

// The authors' objectives of pre-training, and their checkpoint against the reference in transformers.
func TestVerifyViLT(t *testing.T) {
	for _, x := range []struct {
		dir, weights string
		compared     int
	}{
		{"../train/testdata/vilt-original-pretrain", "", 79}, {"../model/testdata/vilt-mlm", "../checkpoints/bridge/testdata/vilt/original.ckpt", 62},
	} {
		f, err := OpenFixture(x.dir)
		require.NoError(t, err)
		defer f.Close()
		res, err := Verify(f, x.weights, nil, 1)
		require.NoError(t, err)
		compared := 0
		for _, v := range res {
			if v.Computed {
				require.True(t, v.OK, "%s: %v, tolerance %v", v.Name, v.Largest, v.Atol)
				compared++
			}
		}
		require.Equal(t, x.compared, compared, x.dir)
	}
}

// A weight that is a thousandth off is seen.
func TestVerifySees(t *testing.T) {
	const dir = "../train/testdata/vit-token"
	src, err := safetensors.Open(filepath.Join(dir, "weights.safetensors"))
	require.NoError(t, err)
	defer src.Close()
	var tensors []safetensors.Tensor
	for _, name := range src.Names() {
		v, shape, err := src.Float32(name)
		require.NoError(t, err)
		if name == "blocks.1.mlp.fc1.weight" {
			v[0] += 1e-3
		}
		tensors = append(tensors, safetensors.Floats(name, shape, v))
	}
	path := filepath.Join(t.TempDir(), "changed.safetensors")
	out, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, safetensors.Write(out, tensors, nil))
	require.NoError(t, out.Close())
	f, err := OpenFixture(dir)
	require.NoError(t, err)
	defer f.Close()
	res, err := Verify(f, path, nil, 1)
	require.NoError(t, err)
	beyond := 0
	for _, v := range res {
		if v.Computed && !v.OK {
			beyond++
		}
	}
	require.Greater(t, beyond, 5)
}

// A fixture of which an input is missing or lacks its axes does not end in a panic.
func TestVerifyDamaged(t *testing.T) {
	for _, dir := range []string{
		"../train/testdata/vilt-original-pretrain", "../train/testdata/clip-gelu", "../train/testdata/vit-avg-nocls", "../checkpoints/bridge/testdata/posembed",
		"../model/testdata/vilt-mlm", "../model/testdata/vilt-nlvr2",
	} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			src, err := safetensors.Open(filepath.Join(dir, "io.safetensors"))
			require.NoError(t, err)
			defer src.Close()
			for _, damaged := range src.Names() {
				if !strings.HasPrefix(damaged, "in.") || strings.HasPrefix(damaged, "in.capped_") { // other draws are read alike
					continue
				}
				for how, shape := range map[string][]int{
					"missing": nil,
					"number":  {},
				} {
					var tensors []safetensors.Tensor
					for _, name := range src.Names() {
						info, err := src.Info(name)
						require.NoError(t, err)
						b, err := src.Bytes(name)
						require.NoError(t, err)
						if name == damaged {
							if shape == nil {
								continue
							}
							size := len(b) / info.Len()
							info.Shape = shape
							b = b[:size*info.Len()]
						}
						tensors = append(tensors, safetensors.Raw(name, info.DType, info.Shape, b))
					}
					copied := t.TempDir()
					require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
					out, err := os.Create(filepath.Join(copied, "io.safetensors"))
					require.NoError(t, err)
					require.NoError(t, safetensors.Write(out, tensors, nil))
					require.NoError(t, out.Close())
					f, err := OpenFixture(copied)
					if err != nil {
						continue
					}
					require.NotPanics(t, func() { _, _ = Verify(f, "", nil, 1) }, "%s, %s %s", dir, damaged, how)
					require.NoError(t, f.Close())
				}
			}
		})
	}
}
