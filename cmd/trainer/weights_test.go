package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// weights runs "trainer weights" and returns its exit code and what it printed.
func weights(t *testing.T, args ...string) (int, string, string) {
	root := newRoot()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	code := run(context.Background(), root, append([]string{"weights"}, args...))
	return code, out.String(), errs.String()
}

func TestWeights(t *testing.T) {
	const (
		torch  = "../../checkpoints/torchfile/testdata/"
		bridge = "../../checkpoints/bridge/testdata/"
		golden = "../../train/testdata/"
	)
	out := filepath.Join(t.TempDir(), "vit")
	for _, x := range []struct {
		name string
		args []string
		code int
		want string // in what is printed, or in the error
	}{
		{"show", []string{"show", torch + "openai.pt"}, 0, "OpenAI's CLIP: pictures of 24 px in patches of 8, width 64, 1 blocks, 1 heads, quick_gelu"},
		{"show what is no model", []string{"show", torch + "views.pt"}, 0, "weights of no known family"},
		{"show nothing", []string{"show", "absent.pt"}, exitUsage, "absent.pt"},
		{"show a text", []string{"show", "main.go"}, exitFailure, "not a valid file of tensors"},
		{"import without out", []string{"import", bridge + "vit-hf"}, exitUsage, "--out is missing"},
		{"import without a vocabulary", []string{"import", bridge + "hf", "--out", out}, exitUsage, "give --tokenizer"},
		{"import at a size that is no multiple of the patch", []string{"import", bridge + "vit-hf", "--out", out, "--image-size", "65"}, exitUsage, "65 is not a multiple of patchSize"},
		{"import with another way of positions", []string{"import", bridge + "vit-hf", "--out", out, "--positions", "bogus"}, exitUsage, "--positions bogus is unknown; known: google, hf, open_clip, timm_npz"},
		{"import", []string{"import", bridge + "vit-hf", "--out", out}, 0, "Hugging Face's ViTForImageClassification: pictures of 24 px"},
		{"import again", []string{"import", bridge + "vit-hf", "--out", out}, exitUsage, "is there already"},
		{"show imported", []string{"show", out}, 0, "a vit of this program: pictures of 24 px in patches of 8, width 32, 2 blocks, 4 heads, gelu; 6 classes\nobjectives: classify\npictures: resize filter=bicubic mode=shortest, center_crop, normalize"},
		{"verify imported", []string{"verify", out, "--golden", bridge + "vit-hf", "--threads", "1"}, 0, "0 beyond their tolerance"},
		{"verify another", []string{"verify", bridge + "vit-npz", "--golden", bridge + "vit-hf"}, exitFailure, "the model takes (B, 3, 32, 32)"},
		{"verify changed", []string{"verify", bridge + "vit-hf", "--golden", bridge + "vit-hf", "--set", "model.vision.layerNormEps=1e-5"}, exitFailure, "are beyond their tolerance"},
		{"verify without golden", []string{"verify", out}, exitUsage, "--golden is missing"},
		{"diff of one model", []string{"diff", torch + "plain.pt", bridge + "hf"}, 0, "0 of 50 tensors differ"},
		{"diff with fp16", []string{"diff", torch + "plain.pt", torch + "fp16.pt"}, exitFailure, "tensors differ"},
		{"export without format", []string{"export", out, "--out", out + "2"}, exitUsage, `--format "" is unknown`},
		{"export another form", []string{"export", out, "--format", "hf", "--out", out + "2"}, exitUsage, "has no name for"},
		{"export", []string{"export", out, "--format", "hf-vit", "--out", out + "3"}, 0, "config.json"},
		{"diff of the export", []string{"diff", out + "3", bridge + "vit-hf"}, 0, "tensors differ"},
		{"verify the export", []string{"verify", out + "3", "--golden", bridge + "vit-hf", "--threads", "1"}, 0, "0 beyond"},
		{"import without a classifier", []string{"import", bridge + "vit-hf-bare", "--out", out + "4"}, 0, "Hugging Face's ViTModel: pictures of 24 px"},
		{"verify it", []string{"verify", out + "4", "--golden", bridge + "vit-hf-bare", "--threads", "1"}, 0, "0 beyond their tolerance"},
		{"export it", []string{"export", out + "4", "--format", "hf-vit", "--out", out + "5"}, 0, "config.json"},
		{"diff of that export", []string{"diff", out + "5", bridge + "vit-hf-bare"}, 0, "0 of 32 tensors differ"},
		{"verify in bf16", []string{"verify", torch + "bf16.safetensors", "--golden", golden + "vit-token"}, exitFailure, ""},
	} {
		code, printed, errs := weights(t, x.args...)
		require.Equal(t, x.code, code, "%s: %s%s", x.name, printed, errs)
		require.Contains(t, printed+errs, x.want, x.name)
	}
	code, printed, errs := weights(t, "verify", "--golden", golden+"vit-token", "--json", "--threads", "1")
	require.Zero(t, code, errs)
	var rep verifyReport
	require.NoError(t, json.Unmarshal([]byte(printed), &rep))
	require.True(t, rep.OK)
	require.Zero(t, rep.NotComputed)
	require.Equal(t, len(rep.Tensors), rep.Compared)
}
