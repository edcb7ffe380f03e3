package bridge

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"diptych/checkpoints/safetensors"
	"diptych/checkpoints/torchfile"
	"diptych/data/tokenizer"
	"diptych/model"
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

// held are the tensors of a model.
type held map[string]safetensors.Tensor

func (h held) Names() []string { return slices.Sorted(maps.Keys(h)) }

func (h held) Info(name string) (safetensors.Info, error) {
	return safetensors.Info{Name: name, DType: h[name].DType, Shape: h[name].Shape}, nil
}

func (h held) Stream(name string, use func([]byte) error) error {
	tensor := h[name]
	return tensor.Write(writer(use))
}

// write writes a model in a family's names and reads it back.
func write(t testing.TB, m *Model, family string, pickle bool) *Model {
	from := held{}
	for _, tensor := range m.Tensors {
		from[tensor.Name] = tensor
	}
	public, err := Publish(family, &m.Description, from)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, b := range public.Files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o666))
	}
	var b bytes.Buffer
	weights := public.Weights
	if pickle || filepath.Ext(weights) != ".safetensors" {
		weights = "pytorch_model.bin"
		require.NoError(t, torchfile.Write(&b, public.Tensors, public.Within))
	} else {
		require.NoError(t, safetensors.Write(&b, public.Tensors, map[string]string{"format": "pt"}))
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

// Parts of a CLIP that this program does not build are refused by name, with the names of their models where the configuration says them.
func TestForeignParts(t *testing.T) {
	for _, x := range []struct {
		name, config string
		tensors      []string
		want         string
	}{
		{"timm's trunk", `{"model_cfg": {"vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}, "text_cfg": {"width": 8}}}`,
			[]string{"visual.trunk.patch_embed.proj.weight", "visual.trunk.blocks.0.attn.qkv.weight", "text.token_embedding.weight", "logit_scale"},
			"an image tower of timm (vit_base_patch16_siglip_224, visual.trunk.*);"},
		{"transformers' text", `{"vision_cfg": {"width": 8}, "text_cfg": {"hf_model_name": "roberta-base"}}`,
			[]string{"visual.conv1.weight", "text.transformer.embeddings.word_embeddings.weight", "logit_scale"},
			"a text tower of transformers (roberta-base, text.transformer.embeddings.*);"},
		{"both, in a checkpoint", "",
			[]string{"state_dict.module.visual.trunk.patch_embed.proj.weight", "state_dict.module.visual.trunk.blocks.0.attn.qkv.weight", "state_dict.module.text.transformer.encoder.block.0.weight", "state_dict.module.logit_scale"},
			"timm (visual.trunk.*) and a text tower of transformers (text.transformer.encoder.*);"},
		{"CoCa", `{"vision_cfg": {"attentional_pool": true}, "text_cfg": {"width": 8}}`,
			[]string{"visual.conv1.weight", "text.token_embedding.weight", "visual.attn_pool.query", "text_decoder.resblocks.0.ln_1.weight", "logit_scale"},
			"attentional pooling of the image tower (visual.attn_pool*) and CoCa's text decoder (text_decoder.*);"},
		{"ResNet", "", []string{"visual.conv1.weight", "visual.layer1.0.conv1.weight", "token_embedding.weight", "logit_scale"}, "a ResNet image tower (visual.layer1.*);"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var tensors []safetensors.Tensor
			for _, name := range x.tensors {
				tensors = append(tensors, safetensors.Floats(name, []int{1}, []float32{1}))
			}
			var b bytes.Buffer
			require.NoError(t, safetensors.Write(&b, tensors, nil))
			f, err := safetensors.New(bytes.NewReader(b.Bytes()), int64(b.Len()), "made")
			require.NoError(t, err)
			src := &Source{Tensors: f, Path: "made"}
			if x.config != "" {
				src.Config = []byte(x.config)
			}
			_, err = Read(src, nil)
			require.ErrorIs(t, err, ErrUnsupported)
			require.ErrorContains(t, err, x.want)
		})
	}
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

// Google's files without a head are a ViT without classes; its tensors are those of the file with one.
func TestGoogleHeadless(t *testing.T) {
	for path, family := range map[string]string{torchData + "vit.npz": "google", "testdata/vit-npz-bigvision/google.npz": "big_vision"} {
		src, whole := readModel(t, path, "")
		src.Tensors = headless{src.Tensors}
		m, err := Read(src, nil)
		require.NoError(t, err)
		require.Equal(t, family, m.Family)
		require.Zero(t, m.Description.Model.NumClasses)
		require.Equal(t, whole.Description.Model.Vision, m.Description.Model.Vision)
		want := contents(t, whole.Tensors)
		delete(want, "head.weight")
		delete(want, "head.bias")
		require.Equal(t, want, contents(t, m.Tensors))
	}
}

// headless is a file as it would be without its classifier.
type headless struct{ Tensors }

func (h headless) Names() []string {
	return slices.DeleteFunc(h.Tensors.Names(), func(n string) bool { return strings.Contains(n, "head/") })
}

func (h headless) Info(name string) (safetensors.Info, error) {
	if strings.Contains(name, "head/") {
		return safetensors.Info{}, safetensors.ErrMissing
	}
	return h.Tensors.Info(name)
}

// Classifiers survive the way through timm's names and, where they have its form, Hugging Face's.
func TestRoundTripViT(t *testing.T) {
	const fixtures = "../../train/testdata/"
	for _, x := range []struct {
		path, family string
		hf           bool
	}{
		{fixtures + "vit-token", "timm", true}, {fixtures + "vit-avg", "timm", false}, {fixtures + "vit-avg-nocls", "timm", false}, {fixtures + "vit-prenorm", "timm", false}, {fixtures + "vit-map", "timm", false},
		{"testdata/vit-hf", "hf-vit", true}, {"testdata/vit-npz", "timm", true},
		{"testdata/vit-hf-bare", "hf-vit-bare", true}, {"testdata/vit-timm-bare", "timm", false},
	} {
		_, m := readModel(t, x.path, "")
		require.Equal(t, x.family, m.Family, x.path)
		want := contents(t, m.Tensors)
		for _, family := range []string{"timm", "hf-vit"} {
			if family == "hf-vit" && !x.hf || family == "timm" && strings.HasPrefix(x.family, "hf-vit") { // timm's epsilon is fixed
				continue
			}
			again := write(t, m, family, false)
			require.Equal(t, m.Description.Model.NumClasses, again.Description.Model.NumClasses)
			require.Equal(t, m.Description.Model.Representation, again.Description.Model.Representation)
			if again.Description.Model.NumClasses == 0 && family == "hf-vit" {
				family = "hf-vit-bare"
			}
			require.Equal(t, family, again.Family)
			wantVision, gotVision := m.Description.Model.Vision, again.Description.Model.Vision
			require.Equal(t, wantVision, gotVision, "%s as %s", x.path, family)
			got := contents(t, again.Tensors)
			require.Len(t, got, len(want))
			for name, w := range want {
				require.True(t, bytes.Equal(w, got[name]), "%s as %s: %s", x.path, family, name)
			}
		}
	}
}

// A ViT without a classifier keeps its pooler as the representation layer, unless it is asked to leave it; its files tell the libraries so.
func TestHeadless(t *testing.T) {
	src, m := readModel(t, "testdata/vit-hf-bare", "")
	require.Equal(t, []int{0, 16}, []int{m.Description.Model.NumClasses, m.Description.Model.Representation})
	files, err := hfViTFiles(&m.Description)
	require.NoError(t, err)
	require.Contains(t, string(files["config.json"]), `"ViTModel"`)
	require.Contains(t, string(files["config.json"]), `"pooler_output_size": 16`)
	_, err = timmFiles(&m.Description)
	require.ErrorContains(t, err, "representation 16")

	without, err := Read(src, func(d *Description) error {
		d.Model.Representation, d.Model.Vision.LayerNormEps = 0, 1e-6 // timm's
		return nil
	})
	require.NoError(t, err)
	require.Len(t, without.Tensors, len(m.Tensors)-2)
	_, err = hfViTFiles(&without.Description)
	require.NoError(t, err)
	require.Contains(t, without.Notes[len(without.Notes)-1], "add_pooling_layer=False")
	files, err = timmFiles(&without.Description)
	require.NoError(t, err)
	require.Contains(t, string(files["config.json"]), `"num_classes": 0`)

	src.Config = bytes.Replace(src.Config, []byte(`"pooler_act": "tanh"`), []byte(`"pooler_act": "gelu"`), 1)
	_, err = Read(src, nil)
	require.ErrorContains(t, err, `pooler_act "gelu" is not supported`)
}

// The place of open_clip's last norm goes both ways.
func TestNormAfterPool(t *testing.T) {
	_, m := readModel(t, "testdata/clip-avg", "")
	require.Equal(t, "avg", m.Description.Model.Vision.Pool)
	require.True(t, m.Description.Model.Vision.NormAfterPool)
	for _, family := range []string{"open_clip", "open_clip-custom"} {
		again := write(t, m, family, false)
		require.Equal(t, m.Description.Model, again.Description.Model, family)
		require.Equal(t, contents(t, m.Tensors), contents(t, again.Tensors), family)
	}
}

// LayerScale of both towers goes both ways, and open_clip's configuration says that it is there.
func TestLayerScaleOfCLIP(t *testing.T) {
	_, m := readModel(t, "testdata/clip-avg", "")
	for tower, part := range map[string]*model.Transformer{"visual.transformer": &m.Description.Model.Vision.Transformer, "transformer": &m.Description.Model.Text.Transformer} {
		part.LayerScale = firstLayerScale
		for block := range part.Depth {
			for _, name := range []string{"ls_1", "ls_2"} {
				gamma := make([]float32, part.Width)
				for i := range gamma {
					gamma[i] = 0.1 * float32(block*part.Width+i)
				}
				m.Tensors = append(m.Tensors, safetensors.Floats(fmt.Sprintf("%s.resblocks.%d.%s.gamma", tower, block, name), []int{part.Width}, gamma))
			}
		}
	}
	for _, family := range []string{"openai", "open_clip", "open_clip-custom"} {
		again := write(t, m, family, false)
		require.Equal(t, contents(t, m.Tensors), contents(t, again.Tensors), family)
		if family != "openai" { // which has no file for the configuration
			require.Equal(t, m.Description.Model, again.Description.Model, family)
		}
	}
}

// A model of pairs with each of its heads survives the way through the authors' names and Hugging Face's, also in PyTorch's form; so does its
// configuration where the family has a file for it. The authors' checkpoint has the bits of Hugging Face's folder.
func TestRoundTripViLT(t *testing.T) {
	const fixtures = "../../model/testdata/"
	for _, x := range []struct {
		path, family string
		heads        model.ViLTHeads
	}{
		{fixtures + "vilt-mlm", "hf-vilt", model.ViLTHeads{Words: true}}, {fixtures + "vilt-itm", "hf-vilt", model.ViLTHeads{Match: true}},
		{fixtures + "vilt-retrieval", "hf-vilt", model.ViLTHeads{Rank: true}}, {fixtures + "vilt-vqa", "hf-vilt", model.ViLTHeads{Classes: 13, ClassName: "vqa_classifier"}},
		{fixtures + "vilt-nlvr2", "hf-vilt", model.ViLTHeads{Classes: 2, ClassName: "nlvr2_classifier"}},
		{fixtures + "vilt-original-irtr", "vilt", model.ViLTHeads{Match: true, Rank: true}},
		{fixtures + "vilt-original-vqa", "vilt", model.ViLTHeads{Classes: 17, ClassName: "vqa_classifier"}},
		{fixtures + "vilt-original-nlvr2", "vilt", model.ViLTHeads{Classes: 2, ClassName: "nlvr2_classifier"}},
		{"../../train/testdata/vilt-original-pretrain", "vilt", model.ViLTHeads{Match: true, Words: true, Color: true}},
	} {
		_, m := readModel(t, x.path, "")
		require.Equal(t, x.family, m.Family, x.path)
		require.Equal(t, x.heads, m.ViLT, x.path)
		want := contents(t, m.Tensors)
		for _, family := range []string{"vilt", "hf-vilt"} {
			again := write(t, m, family, family == x.family)
			require.Equal(t, family, again.Family)
			require.Equal(t, m.ViLT, again.ViLT)
			if family == "hf-vilt" {
				again.Description.Model.Vision.LayerNormEps = m.Description.Model.Vision.LayerNormEps // it has one for all norms
				require.Equal(t, m.Description.Model, again.Description.Model, x.path)
				if m.Classes != nil {
					require.Equal(t, m.Classes, again.Classes)
				}
			}
			require.Equal(t, want, contents(t, again.Tensors), "%s as %s", x.path, family)
		}
	}
	_, m := readModel(t, fixtures+"vilt-vqa", "") // the head of one picture's classes has the same form
	m.ViLT.ClassName = model.AnswersOfPair
	for i, tensor := range m.Tensors {
		m.Tensors[i].Name = strings.Replace(tensor.Name, model.AnswersOfQuestion, model.AnswersOfPair, 1)
	}
	for _, family := range []string{"vilt", "hf-vilt"} {
		again := write(t, m, family, false)
		require.Equal(t, m.ViLT, again.ViLT, family)
		require.Equal(t, contents(t, m.Tensors), contents(t, again.Tensors), family)
	}
	src, m := readModel(t, "testdata/vilt/original.ckpt", fixtures+"vilt-mlm/config.json")
	require.Equal(t, "vilt", m.Family)
	require.Equal(t, "state_dict.", m.Prefix)
	_, hf := readModel(t, fixtures+"vilt-mlm", "")
	require.Equal(t, hf.Description.Model, m.Description.Model)
	require.Equal(t, contents(t, hf.Tensors), contents(t, m.Tensors))
	src.Config = nil
	m, err := Read(src, nil)
	require.NoError(t, err)
	require.Equal(t, []any{1e-6, 1e-12}, []any{m.Description.Model.Vision.LayerNormEps, m.Description.Model.ViLT.EmbedNormEps}, "the authors' own")
	require.Len(t, m.Notes, 1, "heads are a guess at this width")
}

// Classes of a picture and a sentence have no public class of their own: Hugging Face's question answering computes them, and config.json tells the
// two apart when they come back.
func TestRoundTripPairClasses(t *testing.T) {
	_, m := readModel(t, "../../model/testdata/vilt-vqa", "")
	m.ViLT.ClassName = "classifier"
	for i := range m.Tensors {
		if leaf, ok := strings.CutPrefix(m.Tensors[i].Name, "vqa_classifier."); ok {
			m.Tensors[i].Name = "classifier." + leaf
		}
	}
	want := contents(t, m.Tensors)
	for _, family := range []string{"vilt", "hf-vilt"} {
		again := write(t, m, family, false)
		require.Equal(t, m.ViLT, again.ViLT, family)
		require.Equal(t, want, contents(t, again.Tensors), family)
	}
}

// A word head that reads the embeddings' table is written as such for transformers, and with a table of its own for the authors' code.
func TestTiedWords(t *testing.T) {
	_, m := readModel(t, "../../model/testdata/vilt-mlm", "")
	m.Description.Model.ViLT.TieWords = true
	m.Tensors = slices.DeleteFunc(m.Tensors, func(t safetensors.Tensor) bool { return t.Name == wordHead })
	want := contents(t, m.Tensors)
	hf := write(t, m, "hf-vilt", false)
	require.True(t, hf.Description.Model.ViLT.TieWords)
	require.Equal(t, want, contents(t, hf.Tensors))
	own := write(t, m, "vilt", false)
	require.False(t, own.Description.Model.ViLT.TieWords)
	want[wordHead] = want[wordTable]
	require.Equal(t, want, contents(t, own.Tensors))
}

// The positions of a model of pairs are resampled as the model itself does for each picture.
func TestReadResizedViLT(t *testing.T) {
	src, m := readModel(t, "../../model/testdata/vilt-mlm", "")
	bigger, err := Read(src, func(d *Description) error {
		d.Model.Vision.ImageSize = 48
		return nil
	})
	require.NoError(t, err)
	for i, tensor := range bigger.Tensors {
		before, err := m.Tensors[i].Float32()
		require.NoError(t, err)
		if tensor.Name == "transformer.pos_embed" {
			require.Equal(t, []int{1, 37, 40}, tensor.Shape)
			before, err = ResizePositions(MethodGoogle, before, 40, 1, [2]int{4, 4}, [2]int{6, 6})
			require.NoError(t, err)
		}
		got, err := tensor.Float32()
		require.NoError(t, err)
		require.Equal(t, before, got, tensor.Name)
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

// A vocabulary of one's own goes with a model as SimpleTokenizer reads it: without an empty line, of which it would make an entry.
func TestOpenCLIPMerges(t *testing.T) {
	tok, err := tokenizer.New(tokenizer.Config{Kind: "bpe", File: "demo", ContextLength: 32})
	require.NoError(t, err)
	d := &Description{Tokenizer: tok}
	files, err := openCLIPMerges(d, "how")
	require.NoError(t, err)
	z, err := gzip.NewReader(bytes.NewReader(files[mergesFile]))
	require.NoError(t, err)
	text, err := io.ReadAll(z)
	require.NoError(t, err)
	require.Equal(t, 512+bytes.Count(text, []byte{'\n'})+2, tok.VocabSize())
	require.False(t, bytes.HasSuffix(text, []byte{'\n'}))
	require.Equal(t, []string{"the vocabulary is the model's own: how"}, d.Notes)

	tok, err = tokenizer.New(tokenizer.Config{Kind: "wordpiece", File: "demo", ContextLength: 32})
	require.NoError(t, err)
	d = &Description{Tokenizer: tok}
	files, err = openCLIPMerges(d, "how")
	require.NoError(t, err)
	require.Empty(t, files)
	require.Contains(t, d.Notes[0], "not a vocabulary of kind wordpiece")

	tok, err = tokenizer.New(tokenizer.Config{Kind: "clip", ContextLength: 32})
	require.NoError(t, err)
	longer := append(bytes.TrimSpace(tok.(*tokenizer.BPE).Text()), "\ning ing\n"...)
	tok, err = tokenizer.New(tokenizer.Config{Kind: "bpe", File: "longer", Content: longer, ContextLength: 32})
	require.NoError(t, err)
	d = &Description{Tokenizer: tok}
	_, err = openCLIPMerges(d, "how")
	require.NoError(t, err)
	require.Contains(t, d.Notes[0], "reads 48894 merges and this vocabulary has 48895")
}
