package losses

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/model"
)

// What the features of a tower without a head cannot learn is an error of the recipe, not a softmax over no class.
func TestClassifyWithoutClasses(t *testing.T) {
	c := model.DefaultViT()
	c.Vision.Width, c.Vision.Depth, c.Vision.NumHeads, c.Vision.ImageSize, c.Vision.PatchSize = 8, 1, 2, 16, 8
	for classes, want := range map[int]string{0: "losses: classify: the recipe's model has no classes (model.numClasses 0); name those of the data set in data.classes", 3: ""} {
		c.NumClasses = classes
		m, err := model.NewViT(c)
		require.NoError(t, err)
		_, err = NewLocals(model.NewGrain(m, 2, [3]float32{}, [3]float32{1, 1, 1}, nil), []Config{{Name: "classify", Weight: 1}}, Options{})
		if want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}
