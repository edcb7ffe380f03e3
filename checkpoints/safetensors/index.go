package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxIndex bounds the size of an index, as maxHeader bounds a header.
const maxIndex = maxHeader

// OpenIndex opens a model that is cut into several files beside each other. path is its index: JSON with a weight_map from each tensor's name to
// the file that holds it (model.safetensors.index.json). The result is as one file with all tensors, shard after shard. A file name
// with a path in it, a tensor that is not where the index says, or one that the index leaves out is an error wrapping [ErrCorrupt];
// a shard that is not there one wrapping fs.ErrNotExist.
func OpenIndex(path string) (_ *File, err error) {
	all := &File{name: path, index: map[string]int{}}
	defer func() {
		if err != nil {
			all.Close()
			err = fmt.Errorf("safetensors: %s: %w", path, err)
		}
	}()
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxIndex {
		return nil, corrupt("an index of %d bytes, at most %d are allowed", st.Size(), maxIndex)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var index struct {
		Files map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, corrupt("index: %v", err)
	}
	if len(index.Files) == 0 {
		return nil, corrupt("the index has no weight_map")
	}
	for _, name := range slices.Compact(slices.Sorted(maps.Values(index.Files))) {
		if name != filepath.Base(name) || strings.ContainsAny(name, "/\\\x00") || name == ".." || name == "." {
			return nil, corrupt("the index names the file %q, which is not beside it", name)
		}
		part, err := Open(filepath.Join(filepath.Dir(path), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the shard %s is missing: %w", name, fs.ErrNotExist)
		}
		if err != nil {
			return nil, err
		}
		all.closers = append(all.closers, part)
		for _, info := range part.infos {
			if where, ok := index.Files[info.Name]; !ok || where != name {
				return nil, corrupt("tensor %q lies in %s, the index says %q", info.Name, name, where)
			}
			all.index[info.Name] = len(all.infos)
			all.infos = append(all.infos, info)
		}
	}
	for name, where := range index.Files {
		if _, ok := all.index[name]; !ok {
			return nil, corrupt("tensor %q should be in %s and is not", name, where)
		}
	}
	return all, nil
}

// Index returns the text of an index for tensors that are written to several files: weight_map by tensor name, and the bytes of all.
func Index(files map[string]string, size int64) []byte {
	b, err := json.MarshalIndent(map[string]any{"metadata": map[string]int64{"total_size": size}, "weight_map": files}, "", "  ")
	if err != nil {
		panic(err) // strings and a number always encode
	}
	return append(b, '\n')
}
