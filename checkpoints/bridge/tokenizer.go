package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/gzip"

	"diptych/data/tokenizer"
)

// The marks of CLIP's vocabulary as Hugging Face spells them; our spelling is open_clip's.
const (
	hfBOS = "<|startoftext|>"
	hfEOS = "<|endoftext|>"
)

// tokenizerFiles writes a byte-pair tokenizer as Hugging Face's CLIPTokenizer reads it: vocab.json, merges.txt and
// tokenizer_config.json (spec 2.14).
func tokenizerFiles(t tokenizer.Tokenizer) (map[string][]byte, error) {
	n := t.VocabSize()
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i)
	}
	spelled := t.Tokens(ids)
	spelled[t.BOS()], spelled[t.EOS()] = hfBOS, hfEOS
	vocab := make(map[string]int, n)
	for i, s := range spelled {
		vocab[s] = i
	}
	if len(vocab) != n {
		return nil, fmt.Errorf("two of the %d entries of the vocabulary are spelled alike", n)
	}
	v, err := json.Marshal(vocab)
	if err != nil {
		return nil, err
	}
	bpe, ok := t.(*tokenizer.BPE)
	if !ok {
		return nil, fmt.Errorf("a tokenizer of kind %s is not a CLIPTokenizer", t.Config().Kind)
	}
	config, err := json.MarshalIndent(map[string]any{
		"tokenizer_class": "CLIPTokenizer", "model_max_length": t.ContextLength(), "do_lower_case": true, "add_prefix_space": false, "errors": "replace",
		"bos_token": hfBOS, "eos_token": hfEOS, "pad_token": hfEOS, "unk_token": hfEOS,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	special, err := json.MarshalIndent(map[string]any{"bos_token": hfBOS, "eos_token": hfEOS, "pad_token": hfEOS, "unk_token": hfEOS}, "", "  ")
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"vocab.json": v, "merges.txt": bpe.Text(), "tokenizer_config.json": append(config, '\n'),
		"special_tokens_map.json": append(special, '\n'),
	}, nil
}

// mergesFile holds the merges as OpenAI's and open_clip's SimpleTokenizer reads them: packed, and without a line's end after the last, of
// which it would make an entry.
const mergesFile = "merges.txt.gz"

// openCLIPMerges writes a vocabulary that is not CLIP's own, and notes how its library opens it, which code says, or that it cannot.
func openCLIPMerges(d *Description, code string) (map[string][]byte, error) {
	files := map[string][]byte{}
	if d.Tokenizer == nil || d.Tokenizer.Config().Kind == "clip" {
		return files, nil
	}
	bpe, ok := d.Tokenizer.(*tokenizer.BPE)
	if !ok {
		d.Notes = append(d.Notes, fmt.Sprintf("the library's tokenizer reads byte-pair merges, not a vocabulary of kind %s: give the model ids of this program's tokenizer", d.Tokenizer.Config().Kind))
		return files, nil
	}
	text := bytes.TrimSpace(bpe.Text())
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(text)
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	files[mergesFile] = packed.Bytes()
	const most = 49152 - 256 - 2 // SimpleTokenizer's slice of the lines
	if n := bytes.Count(text, []byte{'\n'}); n > most {
		d.Notes = append(d.Notes, fmt.Sprintf("the library's tokenizer reads %d merges and this vocabulary has %d: give the model ids of this program's tokenizer", most, n))
	} else {
		d.Notes = append(d.Notes, "the vocabulary is the model's own: "+code)
	}
	return files, nil
}

// wordPieceFiles writes a WordPiece tokenizer as Hugging Face's BertTokenizer reads it: vocab.txt, tokenizer_config.json, and the tokenizer.json that it
// was read from, if it was.
func wordPieceFiles(t tokenizer.Tokenizer) (map[string][]byte, error) {
	w, ok := t.(*tokenizer.WordPiece)
	if !ok {
		return nil, fmt.Errorf("a tokenizer of kind %s is not a BertTokenizer", t.Config().Kind)
	}
	ids := make([]int32, w.VocabSize())
	for i := range ids {
		ids[i] = int32(i)
	}
	special := map[string]string{"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
	for name, id := range map[string]int32{"pad_token": w.Pad(), "mask_token": w.Mask()} {
		if id >= 0 {
			special[name] = w.Tokens([]int32{id})[0]
		}
	}
	config := map[string]any{"tokenizer_class": "BertTokenizer", "model_max_length": w.ContextLength(), "do_lower_case": w.Lowercase()}
	for name, text := range special {
		config[name] = text
	}
	files := map[string][]byte{"vocab.txt": []byte(strings.Join(w.Tokens(ids), "\n") + "\n")}
	for name, v := range map[string]any{"tokenizer_config.json": config, "special_tokens_map.json": special} {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return nil, err
		}
		files[name] = append(b, '\n')
	}
	if b, err := w.Config().ReadFile(); err != nil {
		return nil, err
	} else if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		files["tokenizer.json"] = b
	}
	return files, nil
}
