package convert

import "diptych/internal/addr"

// textTable maps texts to values. It keeps 64-bit hashes of the texts, in a table at most half full: 16 to 32 bytes for each,
// and twice to four times the value's. Among 10⁸ texts the chance that two have one hash is 3·10⁻⁴.
type textTable[V any] struct {
	keys   []uint64 // 0 is free
	values []V
	n      int
}

func hashOf(text []byte) uint64 { return max(addr.Name(string(text)), 1) }

func (t *textTable[V]) slot(h uint64) int {
	at := int(h & uint64(len(t.keys)-1))
	for t.keys[at] != 0 && t.keys[at] != h {
		at = (at + 1) & (len(t.keys) - 1)
	}
	return at
}

// get returns the place of a text's value, nil if it has none. It is valid until the next put.
func (t *textTable[V]) get(text []byte) *V {
	if t.n == 0 {
		return nil
	}
	h := hashOf(text)
	if at := t.slot(h); t.keys[at] == h {
		return &t.values[at]
	}
	return nil
}

// put is get that adds what was not there.
func (t *textTable[V]) put(text []byte) (v *V, added bool) {
	if 2*(t.n+1) > len(t.keys) {
		old := *t
		size := max(1024, 2*len(old.keys))
		t.keys, t.values = make([]uint64, size), make([]V, size)
		for i, h := range old.keys {
			if h != 0 {
				at := t.slot(h)
				t.keys[at], t.values[at] = h, old.values[i]
			}
		}
	}
	h := hashOf(text)
	at := t.slot(h)
	if added = t.keys[at] == 0; added {
		t.keys[at] = h
		t.n++
	}
	return &t.values[at], added
}

// all yields the values, in no order that means anything.
func (t *textTable[V]) all() func(yield func(uint64, *V) bool) {
	return func(yield func(uint64, *V) bool) {
		for i, h := range t.keys {
			if h != 0 && !yield(h, &t.values[i]) {
				return
			}
		}
	}
}
