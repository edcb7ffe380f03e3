package bridge

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"diptych/checkpoints/safetensors"
)

// row is a line of a family's table: one of our parameters and the public tensors that hold it. A * stands for the number of a block in both
// names; ours has one and theirs none where a leading axis numbers the blocks.
type row struct {
	ours   string
	theirs []string // more than one lie one after the other along our first axis
	also   string   // another name of a single one, which is read where the first is not there; both are written
	how    shaping
}

// shaping says how a public tensor's elements are ours.
type shaping struct {
	axes []int // the public tensor's axes in our order; nil: as they are. Neighbours may be one axis of ours
	lead int   // axes of length 1 that the public tensor begins with and ours does not have
}

var (
	same       = shaping{}
	transposed = shaping{axes: []int{1, 0}}
	leading1   = shaping{lead: 1}
	leading2   = shaping{lead: 2}
)

// is makes a row of one tensor.
func is(ours, theirs string, how ...shaping) row {
	r := row{ours: ours, theirs: []string{theirs}}
	if len(how) > 0 {
		r.how = how[0]
	}
	return r
}

// both makes rows for weight and bias.
func both(ours, theirs string) []row {
	return []row{is(ours+".weight", theirs+".weight"), is(ours+".bias", theirs+".bias")}
}

// packed makes rows for the weight and bias of a layer that is several public layers. join stands between our name and weight or bias.
func packed(ours, join string, theirs ...string) []row {
	var out []row
	for _, kind := range []string{"weight", "bias"} {
		r := row{ours: ours + join + kind}
		for _, t := range theirs {
			r.theirs = append(r.theirs, t+"."+kind)
		}
		out = append(out, r)
	}
	return out
}

// resolve finds the row of one of our parameters and fills the number of its block in.
func resolve(rows []row, ours string) (r row, block int, ok bool) {
	for _, r := range rows {
		number, ok := match(r.ours, ours)
		if !ok {
			continue
		}
		block = -1
		out := row{ours: ours, also: r.also, how: r.how}
		for _, t := range r.theirs {
			if number != "" && !strings.Contains(t, "*") {
				block, _ = strconv.Atoi(number)
			}
			out.theirs = append(out.theirs, strings.Replace(t, "*", number, 1))
		}
		return out, block, true
	}
	return row{}, 0, false
}

// match compares a name with a pattern whose * is a number, which it returns.
func match(pattern, name string) (number string, ok bool) {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return "", pattern == name
	}
	rest, ok1 := strings.CutPrefix(name, before)
	number, ok2 := strings.CutSuffix(rest, after)
	if !ok1 || !ok2 || number == "" || strings.Trim(number, "0123456789") != "" {
		return "", false
	}
	return number, true
}

// ignored reports whether a name is one of those that carry no weights.
func ignored(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok })
}

// fits reports whether shape is the public form of ours: the same after its axes are brought into our order and those of length 1 are left out,
// or, where axes are named, neighbours are joined.
func (h shaping) fits(shape, ours []int) bool {
	if h.axes != nil {
		if len(shape) != len(h.axes) {
			return false
		}
		moved := make([]int, len(shape))
		for i, a := range h.axes {
			moved[i] = shape[a]
		}
		k := 0
		for _, d := range ours {
			n := 1
			for ; k < len(moved) && (n < d || moved[k] == 1); k++ {
				n *= moved[k]
			}
			if n != d {
				return false
			}
		}
		return k == len(moved)
	}
	long := func(s []int) []int { return slices.DeleteFunc(slices.Clone(s), func(d int) bool { return d == 1 }) }
	return slices.Equal(long(shape), long(ours))
}

// public returns the shape of a public tensor that holds ours.
func (h shaping) public(ours []int) []int {
	out := slices.Repeat([]int{1}, h.lead)
	if h.axes == nil {
		return append(out, ours...)
	}
	shape := make([]int, len(ours))
	for i, a := range h.axes {
		shape[a] = ours[i]
	}
	return append(out, shape...)
}

// permute returns the elements of width bytes of a tensor with its axes in another order.
func permute(b []byte, shape, axes []int, width int) []byte {
	strides := make([]int, len(shape))
	n := width
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = n
		n *= shape[i]
	}
	out := make([]byte, 0, len(b))
	index := make([]int, len(axes))
	for at := 0; len(out) < len(b); {
		out = append(out, b[at:at+width]...)
		for i := len(axes) - 1; i >= 0; i-- {
			index[i]++
			at += strides[axes[i]]
			if index[i] < shape[axes[i]] {
				break
			}
			at -= index[i] * strides[axes[i]]
			index[i] = 0
		}
	}
	return out
}

// bytesOf reads a tensor whole.
func bytesOf(stream func(use func(b []byte) error) error, size int) ([]byte, error) {
	out := make([]byte, 0, size)
	err := stream(func(b []byte) error { out = append(out, b...); return nil })
	return out, err
}

// there gives a resolved row the name that its public tensor has in the file.
func (v *view) there(r row) row {
	if r.also != "" && !v.names[r.theirs[0]] && v.names[r.also] {
		r.theirs = []string{r.also}
	}
	return r
}

// ours gives a resolved row's public tensors as one of our parameters. What does not fit is an error that names it with both shapes.
func (v *view) ours(r row, block int, shape []int) (safetensors.Tensor, error) {
	var none safetensors.Tensor
	part := slices.Clone(shape)
	if n := len(r.theirs); n > 1 {
		if len(part) == 0 || part[0]%n != 0 {
			return none, fmt.Errorf("%s %v cannot be cut into %d", r.ours, shape, n)
		}
		part[0] /= n
	}
	infos := make([]safetensors.Info, len(r.theirs))
	for i, name := range r.theirs {
		info, ok := v.info(name)
		if !ok {
			return none, fmt.Errorf("%s is missing", name)
		}
		infos[i] = info
		layer := info.Shape
		if block >= 0 { // a leading axis numbers the blocks
			if len(layer) == 0 || block >= layer[0] {
				return none, fmt.Errorf("%s has shape %v, block %d is wanted", name, info.Shape, block)
			}
			layer = layer[1:]
		}
		if !r.how.fits(layer, part) {
			return none, fmt.Errorf("%s has shape %v, the model's %s wants %v", name, info.Shape, r.ours, r.how.public(part))
		}
		if info.DType != infos[0].DType {
			return none, fmt.Errorf("%s is %s, but %s is %s", name, info.DType, r.theirs[0], infos[0].DType)
		}
		if !info.DType.Widen(nil, nil) {
			return none, fmt.Errorf("%s is %s, which is not read", name, info.DType)
		}
	}
	width := infos[0].DType.Size()
	produce := func(use func(b []byte) error) error {
		for i, name := range r.theirs {
			info := infos[i]
			stream := func(use func(b []byte) error) error { return v.Stream(v.prefix+name, use) }
			if block < 0 && r.how.axes == nil {
				if err := stream(use); err != nil {
					return err
				}
				continue
			}
			b, err := bytesOf(stream, info.Len()*width)
			if err != nil {
				return err
			}
			layer := info.Shape
			if block >= 0 {
				size := len(b) / layer[0]
				b, layer = b[block*size:][:size], layer[1:]
			}
			if r.how.axes != nil {
				b = permute(b, layer, r.how.axes, width)
			}
			if err := use(b); err != nil {
				return err
			}
		}
		return nil
	}
	return safetensors.Streamed(r.ours, infos[0].DType, shape, produce), nil
}

// public gives one of our tensors, which stream reads, as the public ones of its row.
func public(r row, info safetensors.Info, stream func(use func(b []byte) error) error) ([]safetensors.Tensor, error) {
	n := len(r.theirs)
	part := slices.Clone(info.Shape)
	if n > 1 {
		if len(part) == 0 || part[0]%n != 0 {
			return nil, fmt.Errorf("%s %v cannot be cut into %d", r.ours, info.Shape, n)
		}
		part[0] /= n
	}
	if r.how.axes != nil && len(r.how.axes) != len(part) {
		return nil, fmt.Errorf("%s %v: its public form %s is only read", r.ours, info.Shape, r.theirs[0])
	}
	width := info.DType.Size()
	size := info.Len() / n * width
	back := make([]int, len(r.how.axes)) // the inverse of the axes' order
	for i, a := range r.how.axes {
		back[a] = i
	}
	var out []safetensors.Tensor
	for i, name := range r.theirs {
		produce := func(use func(b []byte) error) error {
			lo, hi, at := i*size, (i+1)*size, 0
			if r.how.axes != nil {
				b, err := bytesOf(stream, info.Len()*width)
				if err != nil {
					return err
				}
				return use(permute(b[lo:hi], part, back, width))
			}
			return stream(func(b []byte) error {
				from, to := max(lo-at, 0), min(hi-at, len(b))
				at += len(b)
				if from >= to {
					return nil
				}
				return use(b[from:to])
			})
		}
		out = append(out, safetensors.Streamed(name, info.DType, r.how.public(part), produce))
		if r.also != "" {
			out = append(out, safetensors.Streamed(r.also, info.DType, r.how.public(part), produce))
		}
	}
	return out, nil
}
