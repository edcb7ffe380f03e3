package bridge

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
	"diptych/checkpoints/torchfile"
)

const torchData = "../torchfile/testdata/"

// readModel opens and reads a file that is beside no config.json of its own; config, if not empty, stands for it.
func readModel(t testing.TB, path, config string) (*Source, *Model) {
	src, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { src.Close() })
	if config != "" {
		src.Config, err = os.ReadFile(config)
		require.NoError(t, err)
	}
	m, err := Read(src, nil)
	require.NoError(t, err)
	return src, m
}

func contents(t testing.TB, tensors []safetensors.Tensor) map[string][]byte {
	out := map[string][]byte{}
	for _, tensor := range tensors {
		var b bytes.Buffer
		require.NoError(t, tensor.Write(&b), tensor.Name)
		out[tensor.Name] = b.Bytes()
	}
	return out
}

// One set of weights in every form and family gives the same bits under our names; half precision stays as it is.
func TestRead(t *testing.T) {
	_, want := readModel(t, torchData+"plain.safetensors", "testdata/config.json")
	require.Equal(t, "open_clip", want.Family)
	require.Equal(t, 3, want.Description.Model.Vision.NumHeads, "head_width of the config")
	require.Equal(t, "gelu", want.Description.Model.Text.Activation)
	wantBytes := contents(t, want.Tensors)
	for _, x := range []struct {
		path, config, family, prefix string
		beside                       int
		dtype                        safetensors.DType
	}{
		{torchData + "plain.pt", "testdata/config.json", "open_clip", "", 0, safetensors.F32},
		{torchData + "legacy.pt", "testdata/config.json", "open_clip", "", 0, safetensors.F32},
		{"testdata/checkpoint.pt", "testdata/config.json", "open_clip", "state_dict.module.", 3 * 43, safetensors.F32},
		{"testdata/hf", "", "hf", "", 0, safetensors.F32},
		{"testdata/hf/model.safetensors.index.json", "", "hf", "", 0, safetensors.F32},
		{torchData + "fp16.pt", "testdata/config.json", "open_clip", "", 0, safetensors.F16},
		{torchData + "bf16.safetensors", "testdata/config.json", "open_clip", "", 0, safetensors.BF16},
	} {
		t.Run(x.path, func(t *testing.T) {
			_, m := readModel(t, x.path, x.config)
			require.Equal(t, x.family, m.Family)
			require.Equal(t, x.prefix, m.Prefix)
			if x.beside > 0 {
				require.NotEmpty(t, m.Beside)
			}
			require.Equal(t, want.Description.Model, m.Description.Model)
			got := contents(t, m.Tensors)
			require.Len(t, got, len(wantBytes))
			for i, tensor := range m.Tensors {
				require.Equal(t, x.dtype, tensor.DType, tensor.Name)
				require.Equal(t, want.Tensors[i].Shape, tensor.Shape)
				w := wantBytes[tensor.Name]
				if x.dtype != safetensors.F32 {
					v, err := want.Tensors[i].Float32()
					require.NoError(t, err)
					w = x.dtype.Narrow(v) // rounded to nearest even, as PyTorch did
				}
				require.True(t, bytes.Equal(w, got[tensor.Name]), tensor.Name)
			}
		})
	}
	_, m := readModel(t, torchData+"openai.pt", "")
	require.Equal(t, "openai", m.Family)
	require.Equal(t, "quick_gelu", m.Description.Model.Vision.Activation)
	require.Equal(t, 1, m.Description.Model.Vision.NumHeads, "width / 64")
	require.Empty(t, m.Notes)
}

// write writes a model in a family's names and reads it back.
func write(t testing.TB, m *Model, family string, pickle bool) *Model {
	byName := map[string]safetensors.Tensor{}
	var names []string
	for _, tensor := range m.Tensors {
		byName[tensor.Name] = tensor
		names = append(names, tensor.Name)
	}
	info := func(name string) (safetensors.Info, error) {
		tensor := byName[name]
		return safetensors.Info{Name: name, DType: tensor.DType, Shape: tensor.Shape}, nil
	}
	stream := func(name string, use func([]byte) error) error {
		tensor := byName[name]
		return tensor.Write(writer(use))
	}
	tensors, files, weights, err := Public(family, &m.Description, names, info, stream)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, b := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o666))
	}
	var b bytes.Buffer
	if pickle || weights == "model.pt" {
		weights = "pytorch_model.bin"
		require.NoError(t, torchfile.Write(&b, tensors))
	} else {
		require.NoError(t, safetensors.Write(&b, tensors, map[string]string{"format": "pt"}))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, weights), b.Bytes(), 0o666))
	_, again := readModel(t, dir, "")
	return again
}

type writer func(b []byte) error

func (w writer) Write(b []byte) (int, error) { return len(b), w(b) }

// Import, export, import gives equal bits in every family and type, and the same configuration where the family has a file for it.
func TestRoundTrip(t *testing.T) {
	for _, source := range []struct{ path, config string }{
		{torchData + "plain.pt", "testdata/config.json"}, {torchData + "fp16.pt", "testdata/config.json"}, {torchData + "bf16.safetensors", "testdata/config.json"},
		{"testdata/hf", ""}, {torchData + "openai.pt", ""},
	} {
		_, m := readModel(t, source.path, source.config)
		want := contents(t, m.Tensors)
		for _, family := range []string{"openai", "open_clip", "open_clip-custom", "hf"} {
			for _, pickle := range []bool{false, true} {
				again := write(t, m, family, pickle)
				got := contents(t, again.Tensors)
				require.Len(t, got, len(want))
				for i, tensor := range again.Tensors {
					require.Equal(t, m.Tensors[i].DType, tensor.DType, tensor.Name)
					require.True(t, bytes.Equal(want[tensor.Name], got[tensor.Name]), "%s as %s: %s", source.path, family, tensor.Name)
				}
				if family != "openai" {
					require.Equal(t, m.Description.Model, again.Description.Model, "%s as %s", source.path, family)
				}
			}
		}
	}
}

// What is missing, unknown or of another shape is listed by name, all of it at once.
func TestFaults(t *testing.T) {
	src, m := readModel(t, torchData+"plain.pt", "testdata/config.json")
	var tensors []safetensors.Tensor
	for _, tensor := range m.Tensors {
		switch tensor.Name {
		case "ln_final.bias":
			continue
		case "visual.ln_post.weight":
			tensor = safetensors.Floats(tensor.Name, []int{5}, make([]float32, 5))
		}
		tensors = append(tensors, tensor)
	}
	tensors = append(tensors, safetensors.Floats("visual.extra", nil, []float32{1}))
	var b bytes.Buffer
	require.NoError(t, safetensors.Write(&b, tensors, nil))
	f, err := safetensors.New(bytes.NewReader(b.Bytes()), int64(b.Len()), "broken")
	require.NoError(t, err)
	_, err = Read(&Source{Tensors: f, Path: "broken", Config: src.Config}, nil)
	require.ErrorIs(t, err, ErrMismatch)
	for _, want := range []string{"ln_final.bias is missing", "visual.ln_post.weight has shape [5], the model's visual.ln_post.weight wants [24]", "visual.extra [] is not known"} {
		require.ErrorContains(t, err, want)
	}
	_, err = Open("testdata/posembed/golden.json")
	require.Error(t, err)
	other, err := Open("testdata/posembed/io.safetensors")
	require.NoError(t, err)
	defer other.Close()
	_, err = Read(other, nil)
	require.ErrorIs(t, err, ErrUnknown)
}

// Another picture size resamples the positions by the family's method, and nothing else.
func TestReadResized(t *testing.T) {
	src, m := readModel(t, torchData+"plain.pt", "testdata/config.json")
	for _, method := range []string{MethodOpenCLIP, MethodGoogle} {
		bigger, err := Read(src, func(d *Description) error {
			require.Equal(t, MethodOpenCLIP, d.Positions)
			d.Model.Vision.ImageSize, d.Positions = 24, method
			return nil
		})
		require.NoError(t, err)
		for i, tensor := range bigger.Tensors {
			before, err := m.Tensors[i].Float32()
			require.NoError(t, err)
			got, err := tensor.Float32()
			require.NoError(t, err)
			want := before
			if tensor.Name == "visual.positional_embedding" {
				require.Equal(t, []int{17, 24}, tensor.Shape)
				want, err = ResizePositions(method, before, 24, 1, [2]int{2, 2}, [2]int{4, 4})
				require.NoError(t, err)
			}
			require.Equal(t, want, got, tensor.Name)
		}
	}
}

// Google's files give the bits that timm's own conversion gives.
func TestGoogle(t *testing.T) {
	for _, x := range []struct{ npz, family, timm string }{
		{torchData + "vit.npz", "google", "testdata/vit-npz"}, {"testdata/vit-npz-bigvision/google.npz", "big_vision", "testdata/vit-npz-bigvision"},
	} {
		_, want := readModel(t, x.timm, "")
		require.Equal(t, "timm", want.Family)
		src, err := Open(x.npz)
		require.NoError(t, err)
		defer src.Close()
		m, err := Read(src, func(d *Description) error {
			d.Model.Representation = 0 // timm leaves it out
			require.Equal(t, "gelu_tanh", d.Model.Vision.Activation)
			d.Model.Vision.Activation = "gelu"
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, x.family, m.Family)
		require.Equal(t, want.Description.Model, m.Description.Model)
		got := contents(t, m.Tensors)
		for name, w := range contents(t, want.Tensors) {
			require.True(t, bytes.Equal(w, got[name]), "%s: %s", x.npz, name)
		}
		require.Len(t, got, len(want.Tensors))
	}
}

// Classifiers survive the way through timm's names and, where they have its form, Hugging Face's.
func TestRoundTripViT(t *testing.T) {
	const fixtures = "../../train/testdata/"
	for _, x := range []struct {
		path, family string
		hf           bool
	}{
		{fixtures + "vit-token", "timm", true}, {fixtures + "vit-avg", "timm", false}, {fixtures + "vit-prenorm", "timm", false}, {fixtures + "vit-map", "timm", false},
		{"testdata/vit-hf", "hf-vit", true}, {"testdata/vit-npz", "timm", true},
	} {
		_, m := readModel(t, x.path, "")
		require.Equal(t, x.family, m.Family, x.path)
		want := contents(t, m.Tensors)
		for _, family := range []string{"timm", "hf-vit"} {
			if family == "hf-vit" && !x.hf || family == "timm" && x.family == "hf-vit" { // timm's epsilon is fixed
				continue
			}
			again := write(t, m, family, false)
			require.Equal(t, family, again.Family)
			require.Equal(t, m.Description.Model.NumClasses, again.Description.Model.NumClasses)
			wantVision, gotVision := m.Description.Model.Vision, again.Description.Model.Vision
			require.Equal(t, wantVision, gotVision, "%s as %s", x.path, family)
			got := contents(t, again.Tensors)
			for name, w := range want {
				require.True(t, bytes.Equal(w, got[name]), "%s as %s: %s", x.path, family, name)
			}
		}
	}
}

// The image tower of a CLIP goes into timm's names and reads as a classifier into the joint space.
func TestImageTower(t *testing.T) {
	_, m := readModel(t, torchData+"plain.pt", "testdata/config.json")
	tower := write(t, m, "timm", false)
	require.Equal(t, "timm", tower.Family)
	v := m.Description.Model.Vision
	require.Equal(t, m.Description.Model.EmbedDim, tower.Description.Model.NumClasses)
	want := contents(t, m.Tensors)
	got := contents(t, tower.Tensors)
	for _, pair := range [][2]string{
		{"visual.conv1.weight", "patch_embed.proj.weight"}, {"visual.class_embedding", "cls_token"}, {"visual.positional_embedding", "pos_embed"}, {"visual.ln_pre.weight", "norm_pre.weight"},
		{"visual.transformer.resblocks.0.attn.in_proj_weight", "blocks.0.attn.qkv.weight"}, {"visual.transformer.resblocks.0.mlp.c_proj.bias", "blocks.0.mlp.fc2.bias"}, {"visual.ln_post.bias", "norm.bias"},
	} {
		require.True(t, bytes.Equal(want[pair[0]], got[pair[1]]), pair[0])
	}
	require.Equal(t, permute(want["visual.proj"], []int{v.Width, 20}, []int{1, 0}, 4), got["head.weight"])
	require.Len(t, got, 3+4+12+2, "cls, positions, patches, two norms, a block, head")
}
