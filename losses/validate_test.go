package losses

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValidateNumbers(t *testing.T) {
	require.NoError(t, Validate(Default()))
	for name, c := range map[string]Config{
		"weight: NaN":          {Name: "itc", Weight: math.NaN()},
		"weight: +Inf":         {Name: "itc", Weight: math.Inf(1)},
		"weight: 1e+300":       {Name: "itc", Weight: 1e300},
		"weight: 0":            {Name: "itc"},
		"labelSmoothing: NaN":  {Name: "itc", Weight: 1, LabelSmoothing: math.NaN()},
		"labelSmoothing: 1":    {Name: "itc", Weight: 1, LabelSmoothing: 1},
		"labelSmoothing: -0.5": {Name: "itc", Weight: 1, LabelSmoothing: -0.5},
		"hardAfter: 9":         {Name: "itm", Weight: 1, HardAfter: 9},
		"hardAfter: -1":        {Name: "itm", Weight: 1, HardNegatives: true, HardAfter: -1},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, Validate([]Config{c}), "losses[0]."+name+", want")
		})
	}
}
