package bridge

import (
	"encoding/json"
	"fmt"
	"math"

	"diptych/model"
)

// pictureSize is the size of a model's pictures as configurations have it: one number, or height and width.
type pictureSize [2]int

func (s *pictureSize) UnmarshalJSON(b []byte) error {
	var one int
	if err := json.Unmarshal(b, &one); err == nil {
		*s = pictureSize{one, one}
		return nil
	}
	var two []int
	if err := json.Unmarshal(b, &two); err == nil && len(two) == 2 {
		*s = pictureSize(two)
	}
	return nil // another library's form says nothing
}

// pictureSizes are the places where the configurations of timm, open_clip and transformers have it.
type pictureSizes struct {
	Timm   pictureSize   `json:"img_size"`
	Size   pictureSize   `json:"image_size"`
	Args   *pictureSizes `json:"model_args"`
	Model  *pictureSizes `json:"model_cfg"`
	Vision *pictureSizes `json:"vision_cfg"`
	Tower  *pictureSizes `json:"vision_config"`
}

func (s *pictureSizes) find() pictureSize {
	if s == nil {
		return pictureSize{}
	}
	for _, p := range []pictureSize{s.Timm, s.Size, s.Args.find(), s.Model.find(), s.Vision.find(), s.Tower.find()} {
		if p != (pictureSize{}) {
			return p
		}
	}
	return pictureSize{}
}

// grid returns the rows and columns of the patches that so many positions belong to, skip of them before the patches: those of the
// configuration where it says so, or else a square.
func (v *view) grid(positions, skip, patch int) ([2]int, error) {
	var sizes pictureSizes
	if v.Config != nil && json.Unmarshal(v.Config, &sizes) == nil && patch > 0 {
		s := sizes.find()
		if g := [2]int{s[0] / patch, s[1] / patch}; g[0]*g[1] > 0 && g[0]*g[1] == positions-skip {
			return g, nil
		}
	}
	n := int(math.Round(math.Sqrt(float64(max(positions-skip, 0)))))
	if n < 1 || n*n != positions-skip {
		return [2]int{}, fmt.Errorf("%d positions are not those of a square picture and %d class token, and no configuration says another size", positions, skip)
	}
	return [2]int{n, n}, nil
}

// setGrid gives a tower pictures of so many rows and columns of patches.
func setGrid(v *model.Vision, g [2]int) {
	v.ImageSize, v.ImageWidth = g[0]*v.PatchSize, 0
	if g[1] != g[0] {
		v.ImageWidth = g[1] * v.PatchSize
	}
}
