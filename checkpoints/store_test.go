package checkpoints

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sample is a state whose every part depends on step and salt.
func sample(step, salt int) *State {
	fill := func(n, of int) []float32 {
		d := make([]float32, n)
		for i := range d {
			d[i] = float32(step*1000+salt*100+of*10+i) * 0.25
		}
		return d
	}
	return &State{
		Step: step, Position: step * 32, Recipe: fmt.Sprintf("train: {steps: %d}\n", salt),
		Extra: map[string]json.RawMessage{"seen": json.RawMessage(fmt.Sprintf(`{"a": [%d, 2], "html": "<&>"}`, step))},
		Files: map[string][]Tensor{
			"model":   {{"w", []int{2, 3}, fill(6, 1)}, {"b", []int{3}, fill(3, 2)}, {"scale", nil, fill(1, 3)}},
			"moments": {{"m/w", []int{2, 3}, fill(6, 4)}, {"v/w", []int{2, 3}, fill(6, 5)}},
		},
	}
}

// requireState checks that c holds exactly want.
func requireState(t *testing.T, want *State, c *Checkpoint) {
	t.Helper()
	require.NotNil(t, c)
	require.Equal(t, want.Step, c.Step)
	require.Equal(t, want.Position, c.Position)
	require.Equal(t, want.Recipe, c.Recipe)
	require.Equal(t, want.Score, c.Score)
	require.JSONEq(t, string(want.Extra["seen"]), string(c.Extra["seen"]))
	for name, tensors := range want.Files {
		got := make([]Tensor, len(tensors))
		for i, x := range tensors {
			got[i] = Tensor{x.Name, x.Shape, make([]float32, len(x.Data))}
		}
		require.NoError(t, c.Load(name, got))
		require.Equal(t, tensors, got)
	}
	require.False(t, c.Has("average"))
}

func open(t *testing.T, dir string, opt Options) *Store {
	t.Helper()
	if opt.FS == nil {
		opt.FS = quick{}
	}
	s, err := Open(dir, opt)
	require.NoError(t, err)
	return s
}

// quick is Disk without waiting for the disk.
type quick struct{ disk }

type quickFile struct{ WriteFile }

func (quickFile) Sync() error           { return nil }
func (quick) SyncDir(name string) error { return nil }
func (q quick) Create(name string) (WriteFile, error) {
	f, err := q.disk.Create(name)
	return quickFile{f}, err
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func latestOf(t *testing.T, s *Store) *Checkpoint {
	t.Helper()
	c, damaged, err := s.Latest()
	require.NoError(t, err)
	require.Empty(t, damaged)
	return c
}

func TestSaveAndLoad(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "run", DirName), Options{}) // the real disk, with missing parents
	require.NoError(t, err)
	require.Nil(t, latestOf(t, s))
	for _, step := range []int{0, 5, 123456789} {
		require.NoError(t, s.Save(sample(step, 1)))
		requireState(t, sample(step, 1), latestOf(t, s))
	}
	require.Equal(t, []string{"step-00000000", "step-00000005", "step-123456789"}, names(t, s.dir))

	again := sample(5, 2) // the same step with other content
	require.NoError(t, s.Save(again))
	c, err := ReadFolder(s.Path(5))
	require.NoError(t, err)
	requireState(t, again, c)
	require.Equal(t, []string{"step-00000000", "step-00000005", "step-123456789"}, names(t, s.dir))
}

func TestKeeps(t *testing.T) {
	score := func(v float64) *Score { return &Score{"recall", v} }
	tests := []struct {
		name   string
		opt    Options
		scores []*Score
		want   []int
		best   int
	}{
		{"all", Options{}, []*Score{nil, nil, nil}, []int{0, 1, 2}, -1},
		{"last one", Options{KeepLast: 1}, []*Score{score(3), nil, nil}, []int{2}, -1},
		{"last two", Options{KeepLast: 2}, []*Score{score(3), score(1), score(2)}, []int{1, 2}, 2},
		{"best and last", Options{KeepLast: 1, KeepBest: true}, []*Score{score(1), score(3), score(3), score(2), nil}, []int{1, 4}, 1},
		{"best is last", Options{KeepLast: 1, KeepBest: true}, []*Score{score(1), score(2)}, []int{1}, 1},
		{"best without scores", Options{KeepLast: 1, KeepBest: true}, []*Score{nil, nil}, []int{1}, -1},
		{"another score's name", Options{KeepLast: 2, KeepBest: true}, []*Score{{"loss", 9}, score(2), score(1), nil, nil}, []int{1, 3, 4}, 1},
		{"negative", Options{KeepLast: 1, KeepBest: true}, []*Score{score(-3), score(-1), score(-2)}, []int{1, 2}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir(), tt.opt)
			for step, sc := range tt.scores {
				st := sample(step, 0)
				st.Score = sc
				require.NoError(t, s.Save(st))
			}
			steps, err := listSteps(s.dir)
			require.NoError(t, err)
			var got []int
			for _, st := range steps {
				got = append(got, st.step)
			}
			require.Equal(t, tt.want, got)
			require.Len(t, names(t, s.dir), len(tt.want), "nothing else is left")
			c, damaged, err := s.Best()
			require.NoError(t, err)
			require.Empty(t, damaged)
			if tt.best < 0 {
				require.Nil(t, c)
				return
			}
			require.Equal(t, tt.best, c.Step)
		})
	}
}

func flip(at float64) func([]byte) []byte {
	return func(b []byte) []byte { b[int(at*float64(len(b)-1))] ^= 1; return b }
}

func TestDamage(t *testing.T) {
	edit := func(name string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), change(b), 0o644))
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	tests := []struct {
		name   string
		damage func(*testing.T, string)
		want   string // in the message, beside the folder
	}{
		{"a bit of the weights", edit("model.safetensors", flip(0.99)), "model.safetensors"},
		{"a bit of the header", edit("model.safetensors", flip(0.1)), "model.safetensors"},
		{"moments cut off", edit("moments.safetensors", func(b []byte) []byte { return b[:len(b)-1] }), "moments.safetensors"},
		{"moments longer", edit("moments.safetensors", func(b []byte) []byte { return append(b, 0) }), "moments.safetensors"},
		{"moments missing", remove("moments.safetensors"), "moments.safetensors"},
		{"state missing", remove("state.json"), "state.json"},
		{"state empty", edit("state.json", func([]byte) []byte { return nil }), "state.json"},
		{"state cut off", edit("state.json", func(b []byte) []byte { return b[:len(b)/2] }), "state.json"},
		{"a number of the state", edit("state.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"dataPosition": 6`, `"dataPosition": 7`, 1))
		}), "state.json"},
		{"a bit of the state's sum", edit("state.json", func(b []byte) []byte { b[ownSumAt] ^= 1; return b }), "state.json"},
		{"another step's folder", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, WriteFolder(quick{}, dir, sample(7, 0)))
		}, "of step 7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir(), Options{})
			require.NoError(t, s.Save(sample(1, 0)))
			require.NoError(t, s.Save(sample(2, 0)))
			tt.damage(t, s.Path(2))
			s = open(t, s.dir, Options{})
			c, damaged, err := s.Latest()
			require.NoError(t, err)
			requireState(t, sample(1, 0), c)
			require.Len(t, damaged, 1)
			require.ErrorContains(t, damaged[0], "step-00000002")
			require.ErrorContains(t, damaged[0], tt.want)

			tt.damage(t, s.Path(1)) // both
			c, damaged, err = s.Latest()
			if strings.Contains(tt.name, "another") || strings.Contains(tt.name, "number") {
				return // the damage does not fit the first
			}
			require.Nil(t, c)
			require.Len(t, damaged, 2)
			require.ErrorContains(t, err, "none of 2 checkpoints is whole")
		})
	}
}

// A damaged checkpoint does not count among those that are kept, and goes when it is the oldest.
func TestPruneCountsWholeOnes(t *testing.T) {
	s := open(t, t.TempDir(), Options{KeepLast: 2})
	require.NoError(t, s.Save(sample(1, 0)))
	require.NoError(t, s.Save(sample(2, 0)))
	require.NoError(t, os.Remove(filepath.Join(s.Path(2), "model.safetensors")))
	require.NoError(t, s.Save(sample(3, 0)))
	require.Equal(t, []string{"step-00000001", "step-00000002", "step-00000003"}, names(t, s.dir))
	require.NoError(t, s.Save(sample(4, 0)))
	require.Equal(t, []string{"step-00000003", "step-00000004"}, names(t, s.dir))
}

func TestNewerFormat(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	require.NoError(t, s.Save(sample(1, 0)))
	require.NoError(t, s.Save(sample(2, 0)))
	path := filepath.Join(s.Path(2), stateFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(b), `"version": 1`, `"version": 2`, 1)), 0o644))
	_, _, err = s.Latest()
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "2, this program knows 1")
}

// Weights go from their slab to the disk and back without a copy in memory.
func TestMemory(t *testing.T) {
	slab := make([]float32, 4<<20)
	for i := range slab {
		slab[i] = float32(i)
	}
	state := &State{Step: 1, Files: map[string][]Tensor{"model": {{"w", []int{len(slab)}, slab}}}}
	s := open(t, t.TempDir(), Options{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, s.Save(state))
	c := latestOf(t, s)
	clear(slab)
	require.NoError(t, c.Load("model", state.Files["model"]))
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*len(slab)/4), "the blocks that are hashed while they are written")
	require.Equal(t, float32(len(slab)-1), slab[len(slab)-1])
}

func TestLoadMismatch(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	require.NoError(t, s.Save(sample(1, 0)))
	c := latestOf(t, s)
	w := make([]float32, 6)
	err := c.Load("model", []Tensor{{"w", []int{3, 2}, w}, {"b", []int{3}, make([]float32, 3)}, {"new", []int{1}, make([]float32, 1)}})
	require.ErrorIs(t, err, ErrMismatch)
	for _, part := range []string{`"w" has shape [2 3], the model wants [3 2]`, `"new" of shape [1] is missing`, `"scale" of shape [] is not in the model`, "model.safetensors"} {
		require.ErrorContains(t, err, part)
	}
	require.Equal(t, make([]float32, 6), w, "nothing is read")

	many := make([]Tensor, 20)
	for i := range many {
		many[i] = Tensor{fmt.Sprint("t", i), nil, make([]float32, 1)}
	}
	require.ErrorContains(t, c.Load("model", many), "and 18 more")
	require.ErrorIs(t, c.Load("average", nil), ErrMismatch)
}

func TestFind(t *testing.T) {
	run := t.TempDir()
	_, _, err := Find(run)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "neither a run directory")

	s := open(t, filepath.Join(run, DirName), Options{})
	_, _, err = Find(run)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, s.Save(sample(1, 0)))
	require.NoError(t, s.Save(sample(2, 0)))
	for path, step := range map[string]int{run: 2, s.dir: 2, s.Path(1): 1, s.Path(2): 2} {
		c, damaged, err := Find(path)
		require.NoError(t, err)
		require.Empty(t, damaged)
		requireState(t, sample(step, 0), c)
	}
	require.NoError(t, os.Remove(filepath.Join(s.Path(2), stateFile)))
	c, damaged, err := Find(run)
	require.NoError(t, err)
	require.Len(t, damaged, 1)
	require.Equal(t, 1, c.Step)
	require.NoError(t, os.Remove(filepath.Join(s.Path(1), "model.safetensors")))
	_, damaged, err = Find(run)
	require.ErrorContains(t, err, "none of 2")
	require.Len(t, damaged, 2)

	require.NoError(t, WriteFolder(quick{}, filepath.Join(run, ModelName), sample(9, 0)))
	for _, path := range []string{run, filepath.Join(run, ModelName)} {
		c, _, err := Find(path)
		require.NoError(t, err)
		requireState(t, sample(9, 0), c)
	}
	require.NoError(t, os.Remove(filepath.Join(run, ModelName, "model.safetensors")))
	require.NoError(t, s.Save(sample(3, 0)))
	c, damaged, err = Find(run)
	require.NoError(t, err)
	requireState(t, sample(3, 0), c)
	require.ErrorContains(t, damaged[0], "model.safetensors")
	require.NoError(t, os.RemoveAll(s.dir))
	_, _, err = Find(run)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestSaveRefuses(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	bad := sample(1, 0)
	bad.Score = &Score{"recall", math.NaN()}
	require.ErrorContains(t, s.Save(bad), "score recall is NaN")
	require.ErrorContains(t, s.Save(sample(-1, 0)), "step -1")
	wrong := sample(1, 0)
	wrong.Files["model"][0].Shape = []int{7}
	require.ErrorContains(t, s.Save(wrong), `"w"`)
	require.Empty(t, names(t, s.dir))

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := Open(file, Options{})
	require.ErrorContains(t, err, "a file of this name exists")
}

// state.json is checked before anything in it is believed.
func FuzzState(f *testing.F) {
	dir := f.TempDir()
	require.NoError(f, WriteFolder(quick{}, filepath.Join(dir, "m"), sample(3, 0)))
	b, err := os.ReadFile(filepath.Join(dir, "m", stateFile))
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"version": 7}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		r, err := parseState(b)
		require.Equal(t, before, b)
		if err == nil {
			for _, e := range r.Files {
				require.NotContains(t, e.Name, "/")
			}
		}
	})
}
