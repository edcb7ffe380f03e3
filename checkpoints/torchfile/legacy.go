package torchfile

import (
	"io"
	"math"
	"math/bits"
)

// legacyMagic is the first pickle of a legacy file, the number 0x1950a86a20f9469cfc6c, and the second, protocol 1001.
const legacyMagic = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."

// openLegacy opens what torch.save wrote before version 1.6: five pickles (magic number, protocol, system, the object, the keys of
// its storages), then for each key the number of elements and the elements. There is no checksum.
func (f *File) openLegacy(r io.ReaderAt) error {
	head := make([]byte, min(maxPickle, f.size))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		if err == io.EOF {
			err = corrupt("the file ends at byte %d", n)
		}
		return err
	}
	if len(head) < len(legacyMagic) || string(head[:len(legacyMagic)]) != legacyMagic {
		return corrupt("a pickle, but not one of torch.save")
	}
	at := len(legacyMagic)
	var parts [3]any
	for i := range parts {
		v, n, err := unpickle(head[at:])
		if err != nil {
			return err
		}
		parts[i] = v
		at += n
	}
	if system, ok := parts[0].(*dict); ok {
		for i, k := range system.keys {
			if k == "little_endian" && system.values[i] != true {
				return corrupt("a big-endian file; only little-endian ones are read")
			}
		}
	}
	w := &walker{values: f.values}
	if err := w.visit("", parts[1], 0); err != nil {
		return err
	}
	keys, ok := parts[2].(*list)
	if !ok {
		return corrupt("the keys of the storages are not a list")
	}
	refs := map[string]*storageRef{}
	for _, n := range w.found {
		s := n.tensor.storage
		if other := refs[s.key]; other != nil && (other.class != s.class || other.count != s.count) {
			return corrupt("storage %s is described as %d %s and as %d %s", s.key, s.count, s.class, other.count, other.class)
		}
		refs[s.key] = s
	}
	stores, sizes := map[string]storage{}, map[string]int64{}
	next := int64(at)
	for _, k := range keys.items {
		key, ok := k.(string)
		if !ok || stores[key] != nil {
			return corrupt("the storages' keys are not different strings")
		}
		ref := refs[key]
		if ref == nil {
			return corrupt("storage %s belongs to no tensor that is known, so its size is not either", key)
		}
		var count [8]byte
		if n, err := r.ReadAt(count[:], next); n < len(count) {
			if err == nil || err == io.EOF {
				err = corrupt("the file ends before storage %s", key)
			}
			return err
		}
		next += int64(len(count))
		if le.Uint64(count[:]) != uint64(ref.count) {
			return corrupt("storage %s has %d elements, the pickle says %d", key, le.Uint64(count[:]), ref.count)
		}
		width, ok := legacyWidths[ref.class]
		if !ok {
			return corrupt("storage %s is a %s, which is not known", key, ref.class)
		}
		hi, size := bits.Mul64(uint64(ref.count), width)
		if hi != 0 || size > math.MaxInt64 || int64(size) > f.size-next {
			return corrupt("storage %s of %d elements ends after the file", key, ref.count)
		}
		stores[key], sizes[key] = &region{r: r, at: next}, int64(size)
		next += int64(size)
	}
	if next != f.size {
		return corrupt("%d bytes follow the last storage", f.size-next)
	}
	size := func(s *storageRef) (int64, error) {
		if stores[s.key] == nil {
			return 0, corrupt("there is no storage %s", s.key)
		}
		return sizes[s.key], nil
	}
	if err := f.add(w.found, size, func(key string) storage { return stores[key] }); err != nil {
		return err
	}
	if len(f.tensors) == 0 {
		return corrupt("the file has no tensors")
	}
	return nil
}

// legacyWidths are the bytes of an element by the storage's class, also of those that are read past.
var legacyWidths = func() map[string]uint64 {
	w := map[string]uint64{"ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4}
	for class, dtype := range classes {
		w[class] = uint64(dtype.Size())
	}
	return w
}()
