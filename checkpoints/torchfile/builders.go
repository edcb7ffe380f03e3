package torchfile

import (
	"math"
	"math/bits"

	"diptych/checkpoints/safetensors"
)

// builders are the constructors of the values that weights are made of. Everything else becomes an object that is not looked into.
var builders = map[global]func(args tuple) (any, error){
	{"collections", "OrderedDict"}:                    newDict,
	{"collections", "defaultdict"}:                    func(tuple) (any, error) { return &dict{}, nil },
	{"torch", "Size"}:                                 first,
	{"torch._utils", "_rebuild_tensor"}:               newTensor,
	{"torch._utils", "_rebuild_tensor_v2"}:            newTensor,
	{"torch._utils", "_rebuild_tensor_v3"}:            newTensor,
	{"torch._utils", "_rebuild_parameter"}:            first,
	{"torch._utils", "_rebuild_parameter_with_state"}: first,
}

// first returns a constructor's first argument: a parameter's tensor.
func first(args tuple) (any, error) {
	if len(args) == 0 {
		return nil, corrupt("pickle: a constructor without arguments")
	}
	return args[0], nil
}

// newDict makes an ordered dict, which Python 2 gave its entries as a list of pairs.
func newDict(args tuple) (any, error) {
	d := &dict{}
	if len(args) == 0 {
		return d, nil
	}
	l, ok := args[0].(*list)
	if !ok {
		return nil, corrupt("pickle: an OrderedDict of what is not a list")
	}
	for _, item := range l.items {
		var pair []any
		switch item := item.(type) {
		case *list:
			pair = item.items
		case tuple:
			pair = item
		}
		if len(pair) != 2 {
			return nil, corrupt("pickle: an OrderedDict with an entry that is not a pair")
		}
		d.keys, d.values = append(d.keys, pair[0]), append(d.values, pair[1])
	}
	return d, nil
}

// build makes the value that a class, called with args, would be. A tensor of a subclass is made by the plain tensor's constructor, which comes
// first among the arguments, from the arguments that come third.
func build(class global, args tuple) (any, error) {
	if (class == global{"torch._tensor", "_rebuild_from_type_v2"}) && len(args) >= 3 {
		inner, ok := args[0].(global)
		innerArgs, ok2 := args[2].(tuple)
		if ok && ok2 {
			class, args = inner, innerArgs
		}
	}
	if builder := builders[class]; builder != nil {
		return builder(args)
	}
	return &object{class: class}, nil
}

// newStorage reads a persistent id: ("storage", class, key, location, elements), in the legacy form with a sixth entry for a view.
func newStorage(id any) (*storageRef, error) {
	t, ok := id.(tuple)
	if !ok || len(t) < 5 {
		return nil, corrupt("pickle: a persistent id that is not a storage")
	}
	kind, ok1 := t[0].(string)
	class, ok2 := t[1].(global)
	key, ok3 := t[2].(string)
	count, ok4 := t[4].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 || kind != "storage" || count < 0 {
		return nil, corrupt("pickle: a persistent id that is not a storage")
	}
	if len(t) > 5 && t[5] != nil {
		return nil, corrupt("pickle: storage %s is a view of another, as versions of PyTorch before 0.4 wrote it", key)
	}
	return &storageRef{key: key, class: class.name, count: count}, nil
}

// newTensor reads the arguments of torch._utils._rebuild_tensor and its successors: storage, offset, size, stride, then
// requires_grad, hooks and (v2) metadata or (v3) the element type.
func newTensor(args tuple) (any, error) {
	if len(args) < 4 {
		return nil, corrupt("pickle: a tensor of %d arguments", len(args))
	}
	s, ok := args[0].(*storageRef)
	offset, ok2 := args[1].(int64)
	shape, ok3 := ints(args[2])
	strides, ok4 := ints(args[3])
	if !ok || !ok2 || !ok3 || !ok4 || offset < 0 || len(shape) != len(strides) {
		return nil, corrupt("pickle: a tensor whose arguments are not a storage, an offset, a size and a stride")
	}
	t := &tensorRef{storage: s, offset: offset, shape: shape, strides: strides}
	if len(args) > 6 {
		switch extra := args[6].(type) {
		case global:
			t.dtype = extra.name
		case *dict: // conj and neg say that the stored elements are not the tensor's
			if len(extra.keys) > 0 {
				return nil, corrupt("pickle: a tensor with a pending negation or conjugation")
			}
		}
	}
	return t, nil
}

// ints reads a tuple of numbers that are not negative.
func ints(v any) ([]int64, bool) {
	t, ok := v.(tuple)
	if !ok {
		l, isList := v.(*list)
		if !isList {
			return nil, false
		}
		t = l.items
	}
	if len(t) > maxRank {
		return nil, false
	}
	out := make([]int64, len(t))
	for i, e := range t {
		n, ok := e.(int64)
		if !ok || n < 0 {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

// maxRank is above the largest number of dimensions that PyTorch (64) and NumPy (64) allow.
const maxRank = 64

// classes are the element types by the names of storage classes.
var classes = map[string]safetensors.DType{
	"DoubleStorage": safetensors.F64, "FloatStorage": safetensors.F32, "HalfStorage": safetensors.F16, "BFloat16Storage": safetensors.BF16,
	"LongStorage": safetensors.I64, "IntStorage": safetensors.I32, "ShortStorage": safetensors.I16, "CharStorage": safetensors.I8,
	"ByteStorage": safetensors.U8, "BoolStorage": safetensors.Bool, "UntypedStorage": safetensors.U8,
}

// dtypes are the element types by torch's names, as untyped storages need them.
var dtypes = map[string]safetensors.DType{
	"float64": safetensors.F64, "float32": safetensors.F32, "float16": safetensors.F16, "bfloat16": safetensors.BF16,
	"int64": safetensors.I64, "int32": safetensors.I32, "int16": safetensors.I16, "int8": safetensors.I8, "uint64": safetensors.U64, "uint32": safetensors.U32,
	"uint16": safetensors.U16, "uint8": safetensors.U8, "bool": safetensors.Bool, "float8_e4m3fn": safetensors.F8E4M3, "float8_e5m2": safetensors.F8E5M2,
}

// extent returns the number of elements of a view and of storage elements up to the last that it reads; false on overflow.
func extent(offset int64, shape, strides []int64) (count, end int64, ok bool) {
	count, last := int64(1), offset
	for i, n := range shape {
		hi, lo := bits.Mul64(uint64(count), uint64(n))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, 0, false
		}
		count = int64(lo)
		if n == 0 {
			continue
		}
		hi, lo = bits.Mul64(uint64(n-1), uint64(strides[i]))
		if hi != 0 || lo > math.MaxInt64-uint64(last) {
			return 0, 0, false
		}
		last += int64(lo)
	}
	if count == 0 {
		return 0, 0, true
	}
	if last == math.MaxInt64 {
		return 0, 0, false
	}
	return count, last + 1, true
}
