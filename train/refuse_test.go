package train

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"diptych/internal/machine"
	"diptych/losses"
	"diptych/model"
	"diptych/optim"
)

// A trainer that is refused takes no memory of the model's size, and leaves no threads behind.
func TestNewRefused(t *testing.T) {
	c := model.Presets["ViT-B-32"] // a slab has 0.6 GB
	m, err := model.NewCLIP(c, false)
	require.NoError(t, err)
	good := Options{Model: m, Losses: losses.Default(), Optim: optim.Default(), Std: [3]float32{1, 1, 1},
		Resources: Resources{Workers: 2, Threads: 2, Memory: 1 << 20}}
	cfg := Config{Steps: 4, GlobalBatch: 8, Lanes: 2, KeepLast: 1}
	for _, x := range []struct {
		name string
		set  func(o *Options)
		want string
	}{
		{"memory", func(*Options) {}, "train: the run needs "},
		{"objective", func(o *Options) { o.Losses = []losses.Config{{Name: "none", Weight: 1}} }, `"none" is unknown`},
		{"optimizer", func(o *Options) { o.Optim.LR = -1 }, "optim: lr is -1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			o := good
			x.set(&o)
			threads, memory := runtime.NumGoroutine(), machine.AnonymousMemory()
			_, err := New(cfg, o)
			require.ErrorContains(t, err, x.want)
			for end := time.Now().Add(time.Second); runtime.NumGoroutine() > threads && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			require.LessOrEqual(t, runtime.NumGoroutine(), threads, "threads are left")
			require.Less(t, machine.AnonymousMemory()-memory, int64(4*m.Layout.Size/2))
		})
	}
}
