package transform

import "fmt"

// decodeOp is the list's first entry: New takes its options for Pipeline.Decode, and it is not run.
type decodeOp struct {
	step
	turn, scaled, late, white bool
}

func newDecode(p *params, _ sides) step {
	return &decodeOp{
		turn:   p.choice("exif", []string{"ignore", "apply"}) == "apply",
		scaled: p.choice("size", []string{"full", "scaled"}) == "scaled",
		late:   p.choice("convert", []string{"first", "last"}) == "last",
		white:  p.choice("alpha", []string{"drop", "white"}) == "white",
	}
}

// link reads of the next entry what decoding has to know of it.
func (o *decodeOp) link(p *Pipeline, specs []Spec, size sides) error {
	p.decode = options{turn: o.turn, white: o.white}
	if !o.scaled && !o.late {
		return nil
	}
	var next step
	if len(specs) > 1 {
		e, err := parse(specs[1], 2, size, p.patch)
		if err != nil {
			return nil // reported with the entry itself
		}
		next = e.step
	}
	switch next := next.(type) {
	case *resizeOp:
		if o.late { // what the entry finds is of its size already
			p.decode.late = next
		}
		p.decode.side = max(next.size.w, next.size.h)
	case *randomResizedCrop:
		p.decode.side = max(next.size.w, next.size.h)
	case *minMaxResize:
		p.decode.side = next.size
	default:
		return fmt.Errorf("transform: entry 1 (decode): size: scaled and convert: last need a resize as entry 2")
	}
	if o.late && p.decode.late == nil {
		return fmt.Errorf("transform: entry 1 (decode): convert: last needs {op: resize} as entry 2")
	}
	if !o.scaled {
		p.decode.side = 0
	}
	return nil
}
