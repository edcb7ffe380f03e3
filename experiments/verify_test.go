package experiments

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
)

// Every stored tensor of the references' fixtures is computed and within its tolerance, but for pictures that are not square.
func TestVerify(t *testing.T) {
	for _, x := range []struct {
		dir     string
		skipped []string
	}{
		{"../train/testdata/clip-gelu", nil}, {"../train/testdata/clip-quickgelu", nil}, {"../train/testdata/vit-token", nil}, {"../train/testdata/vit-avg", nil},
		{"../train/testdata/vit-prenorm", nil}, {"../train/testdata/vit-map", nil}, {"../checkpoints/bridge/testdata/vit-hf", []string{"out.logits.interpolated"}},
		{"../checkpoints/bridge/testdata/posembed", nil},
		{"../model/testdata/vilt-mlm", nil}, {"../model/testdata/vilt-itm", nil}, {"../model/testdata/vilt-vqa", nil}, {"../model/testdata/vilt-nlvr2", nil},
		{"../model/testdata/vilt-retrieval", nil}, {"../model/testdata/vilt-original-irtr", nil}, {"../model/testdata/vilt-original-vqa", nil},
		{"../model/testdata/vilt-original-nlvr2", nil},
	} {
		t.Run(filepath.Base(x.dir), func(t *testing.T) {
			f, err := OpenFixture(x.dir)
			require.NoError(t, err)
			defer f.Close()
			res, err := Verify(f, "", nil, 1)
			require.NoError(t, err)
			var skipped []string
			for _, v := range res {
				if !v.Computed {
					skipped = append(skipped, v.Name)
					continue
				}
				require.True(t, v.OK, "%s: %v, tolerance %v", v.Name, v.Largest, v.Atol)
			}
			require.Equal(t, x.skipped, skipped)
		})
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
