package data

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/transform"
)

func TestValidate(t *testing.T) {
	resize := []transform.Spec{{"op": "resize", "mode": "squash"}}
	good := Default()
	good.Transforms, good.EvalTransforms = resize, resize
	require.NoError(t, good.Validate())
	for _, x := range []struct {
		want string
		set  func(c *Config)
	}{
		{"data.path: empty", func(c *Config) { c.Path = "" }},
		{"data.split: empty", func(c *Config) { c.Split = "" }},
		{"data.transforms: empty", func(c *Config) { c.Transforms = nil }},
		{"data.evalTransforms: empty", func(c *Config) { c.EvalTransforms = nil }},
		{"data.brokenLimit: NaN, want [0, 1]", func(c *Config) { c.BrokenLimit = math.NaN() }},
		{"data.brokenLimit: 1.5, want [0, 1]", func(c *Config) { c.BrokenLimit = 1.5 }},
		{"data.cacheMiB: -1, want", func(c *Config) { c.CacheMiB = -1 }},
		{"data.cacheMiB: 9223372036854775807, want", func(c *Config) { c.CacheMiB = math.MaxInt }},
	} {
		t.Run(x.want, func(t *testing.T) {
			c := good
			x.set(&c)
			require.ErrorContains(t, c.Validate(), x.want)
		})
	}
}
