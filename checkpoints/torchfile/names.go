package torchfile

import (
	"fmt"
	"strconv"
)

// The limits of the tree that a pickle makes. Values are shared by reference, so a small pickle can be an endless tree.
const (
	maxNodes = 1 << 18  // values that are looked at
	maxText  = 32 << 20 // bytes of their names
	maxDeep  = 200      // containers in each other
)

// named is a tensor with the path that leads to it.
type named struct {
	name   string
	tensor *tensorRef
}

// walker collects the tensors and the plain values of a tree under their names.
type walker struct {
	found  []named
	values map[string]any
	nodes  int
	text   int
}

// visit walks over v, whose name is path.
func (w *walker) visit(path string, v any, depth int) error {
	w.nodes++
	w.text += len(path)
	switch {
	case depth > maxDeep:
		return corrupt("pickle: %s…: values lie in each other more than %d deep, or in a circle", path[:min(len(path), 60)], maxDeep)
	case w.nodes > maxNodes || w.text > maxText:
		return corrupt("pickle: more than %d values, or %d MiB of their names", maxNodes, maxText>>20)
	}
	switch v := v.(type) {
	case *tensorRef:
		w.found = append(w.found, named{path, v})
	case int64, float64, string, bool:
		w.values[path] = v
	case *dict:
		return w.entries(path, v, depth, false)
	case *object:
		if err := w.entries(path, &v.items, depth, true); err != nil {
			return err
		}
		states := []any{v.state}
		if t, ok := v.state.(tuple); ok { // attributes, and those in slots
			states = t
		}
		for _, s := range states {
			if d, ok := s.(*dict); ok {
				if err := w.entries(path, d, depth, true); err != nil {
					return err
				}
			}
		}
	case tuple:
		return w.items(path, v, depth)
	case *list:
		return w.items(path, v.items, depth)
	}
	return nil
}

// entries walks over a dict, or over the attributes of an object. Those of a module that hold its parts do not count as a name.
func (w *walker) entries(path string, d *dict, depth int, attributes bool) error {
	for i, key := range d.keys {
		var name string
		switch key := key.(type) {
		case string:
			name = key
		case int64:
			name = strconv.FormatInt(key, 10)
		default:
			name = fmt.Sprintf("[%d]", i)
		}
		to := join(path, name)
		if attributes && (name == "_parameters" || name == "_buffers" || name == "_modules") {
			to = path
		}
		if err := w.visit(to, d.values[i], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) items(path string, items []any, depth int) error {
	for i, v := range items {
		if err := w.visit(join(path, strconv.Itoa(i)), v, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
