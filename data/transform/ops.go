package transform

import (
	"fmt"
	"slices"
)

// operations are what an entry's op may name. A constructor reads its parameters in the order in which its comment and
// the error about an unknown one list them. size is the model's, the default of every other.
var operations = []struct {
	op     string
	random bool
	make   func(p *params, size sides) step
}{
	// decode (the first entry): exif (ignore, or apply: the picture is turned as its EXIF orientation says; that of TIFF always is), size
	// (full, or scaled: a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as no side gets shorter than what the
	// next entry makes of it, which is faster and changes pixels), convert (first, or last: the resize that must follow runs in
	// the file's own mode, as open_clip does with single files: palettes by nearest neighbour, alpha premultiplied), alpha
	// (drop, or white: transparent pictures are laid on white, as transformers 5 does). The first of each is the default.
	{"decode", false, newDecode},
	// resize: size (one number, or [height, width]; default the model's), mode (shortest, longest or squash; default shortest),
	// filter (bicubic, bilinear, box, nearest, lanczos or hamming, Pillow's; torch_bicubic or torch_bilinear, PyTorch's for 8-bit
	// tensors; default bicubic). shortest gives the shorter side size pixels, longest the longer one, squash both; with two
	// numbers the picture just covers them, fits into them, or gets them.
	{"resize", false, func(p *params, size sides) step {
		return &resizeOp{size: p.sides("size", size), mode: p.choice("mode", []string{"shortest", "longest", "squash"}), filter: p.filter()}
	}},
	// min_max_resize: size (of the shorter side; default the model's), longest (what the longer side may have; default size ·
	// 1333/800, rounded down), multiple (both sides are cut down to multiples of it; default the model's patch size), filter. For
	// models that take pictures of different shapes.
	{"min_max_resize", false, newMinMaxResize},
	// center_crop: size (as resize's), fill (the level, 0 to 255, of what is added to smaller pictures; default 0), rounding (of half pixels:
	// even, as torchvision does, or down, as transformers does; default even).
	{"center_crop", false, func(p *params, size sides) step {
		return &centerCrop{size: p.sides("size", size), fill: uint8(p.int("fill", 0, 255, 0)), down: p.choice("rounding", []string{"even", "down"}) == "down"}
	}},
	// random_resized_crop: scale ([least, most] share of the area), ratio ([least, most] width/height, drawn
	// log-uniformly; default [3/4, 4/3]), size and filter (as resize's). CLIP's is scale: [0.9, 1].
	{"random_resized_crop", true, func(p *params, size sides) step {
		return &randomResizedCrop{scale: p.span("scale", 1e-4, 1, nil), ratio: p.span("ratio", 0.01, 100, &[2]float64{3. / 4, 4. / 3}),
			size: p.sides("size", size), filter: p.filter()}
	}},
	// flip: prob.
	{"flip", true, func(p *params, _ sides) step {
		p.chance(nil)
		return flip{}
	}},
	// affine: rotate (degrees, each way; default 0), scale ([least, most] part of the side that is shown: 0.8 magnifies,
	// 1.2 shrinks; default [1, 1]), shift (share of the side, each way; default 0), prob (default 1).
	{"affine", true, func(p *params, _ sides) step {
		p.chance(&always)
		return &affine{rotate: p.float("rotate", 0, 180, new(float64)), scale: p.span("scale", 0.01, 100, &[2]float64{1, 1}),
			shift: p.float("shift", 0, 1, new(float64))}
	}},
	// color_gain: gain and offset (each way, of levels in [-1, 1]), prob (default 1).
	{"color_gain", true, func(p *params, _ sides) step {
		p.chance(&always)
		return colorGain{gain: p.float("gain", 0, 1, nil), offset: p.float("offset", 0, 2, nil)}
	}},
	// grey: prob, weights (luma, of ITU-R 601-2, or mean; default luma).
	{"grey", true, func(p *params, _ sides) step {
		p.chance(nil)
		return grey{mean: p.choice("weights", []string{"luma", "mean"}) == "mean"}
	}},
	// blank: the picture becomes an even grey of level 128, for twins that learn from sentences alone.
	{"blank", false, func(*params, sides) step { return blank{} }},
	// color_jitter (torchvision's ColorJitter): brightness, contrast, saturation (each way of factor 1; default 0), hue (each
	// way, of the colour circle; default 0), prob (default 1). Their order is drawn.
	{"color_jitter", true, func(p *params, _ sides) step {
		p.chance(&always)
		return &colorJitter{[3]float64{p.float("brightness", 0, 10, new(float64)), p.float("contrast", 0, 10, new(float64)),
			p.float("saturation", 0, 10, new(float64))}, p.float("hue", 0, 0.5, new(float64))}
	}},
	// hue: shift (each way, of the colour circle), prob (default 1).
	{"hue", true, func(p *params, _ sides) step {
		p.chance(&always)
		return &colorJitter{hue: p.float("shift", 0, 0.5, nil)}
	}},
	// rand_augment: n (operations for each picture; default 2), magnitude (0 to 30; default 9), ops (names from augments; default
	// ViLT's fourteen), filter and fill (of rotations, shears and shifts: nearest, bilinear or bicubic, and the level outside;
	// default nearest and 0), prob (default 1). Operations are drawn with replacement.
	{"rand_augment", true, newRandAugment},
	// random_erasing (torchvision's): prob, scale ([least, most] share of the area; default [0.02, 0.33]), ratio ([least, most]
	// height/width, drawn log-uniformly; default [0.3, 3.3]), with (level or noise; default level), fill (the level; default 0).
	{"random_erasing", true, func(p *params, _ sides) step {
		p.chance(nil)
		return &randomErasing{scale: p.span("scale", 1e-4, 1, &[2]float64{0.02, 0.33}), ratio: p.span("ratio", 0.01, 100, &[2]float64{0.3, 3.3}),
			noise: p.choice("with", []string{"level", "noise"}) == "noise", fill: uint8(p.int("fill", 0, 255, 0))}
	}},
	// normalize: stats (clip, imagenet or half), or mean and std (three numbers each, of levels in [0, 1]).
	{"normalize", false, newNormalize},
}

// maxSize bounds the sizes that a recipe may name.
const maxSize = 4096

var always = 1.0

// stats are the means and standard deviations that published models were trained with.
var stats = []struct {
	name      string
	mean, std [3]float32
}{
	{"clip", [3]float32{0.48145466, 0.4578275, 0.40821073}, [3]float32{0.26862954, 0.26130258, 0.27577711}},
	{"imagenet", [3]float32{0.485, 0.456, 0.406}, [3]float32{0.229, 0.224, 0.225}},
	{"half", [3]float32{0.5, 0.5, 0.5}, [3]float32{0.5, 0.5, 0.5}},
}

// normalize is not run: New takes its numbers for the model.
type normalize struct {
	step
	mean, std [3]float32
}

func newNormalize(p *params, _ sides) step {
	named, mean, std := p.has("stats"), p.has("mean"), p.has("std")
	var names []string
	for _, s := range stats {
		names = append(names, s.name)
	}
	switch {
	case named && (mean || std):
		p.fail("stats already says mean and std; give one or the other")
	case named:
		s := stats[slices.Index(names, p.choice("stats", names))]
		return &normalize{mean: s.mean, std: s.std}
	case !mean && !std:
		p.fail("stats is missing: one of %s (or give mean and std)", list(names))
	default:
		return &normalize{mean: p.triple("mean", -10, 10), std: p.triple("std", 1e-6, 100)}
	}
	return &normalize{}
}

// parse reads one entry of the list.
func parse(spec Spec, number int, size sides, patch int) (entry, error) {
	name, ok := spec["op"].(string)
	var names []string
	for _, o := range operations {
		names = append(names, o.op)
		if ok && o.op == name {
			p := &params{spec: spec, where: fmt.Sprintf("transform: entry %d (%s)", number, name), patch: patch, prob: 1}
			e := entry{step: o.make(p, size), number: number, op: name, random: o.random}
			e.prob = p.prob
			return e, p.err()
		}
	}
	switch v, given := spec["op"]; {
	case !given:
		return entry{}, fmt.Errorf("transform: entry %d: op is missing: one of %s", number, list(names))
	case !ok:
		return entry{}, fmt.Errorf("transform: entry %d: op: %v is no name: one of %s", number, v, list(names))
	}
	return entry{}, fmt.Errorf("transform: entry %d: unknown op %q%s", number, name, meant(name, names))
}
