package checkpoints

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

var errStopped = errors.New("stopped")

// stopping is a file system that stops at its n-th operation and refuses everything afterwards, as if the process were gone.
// A write that is stopped has written half. power makes it a machine whose current fails: then what was not synced is lost.
type stopping struct {
	n, done  int
	unsynced map[string]bool // files with content that is not synced
	renames  [][2]string     // whose folder is not synced
}

func newStopping(n int) *stopping { return &stopping{n: n, unsynced: map[string]bool{}} }

// step counts an operation and says whether it happens.
func (s *stopping) step() error {
	s.done++
	if s.done >= s.n {
		return errStopped
	}
	return nil
}

func (s *stopping) Mkdir(name string) error {
	if err := s.step(); err != nil {
		return err
	}
	return Disk.Mkdir(name)
}

func (s *stopping) Create(name string) (WriteFile, error) {
	if err := s.step(); err != nil {
		return nil, err
	}
	f, err := Disk.Create(name)
	if err != nil {
		return nil, err
	}
	return &stoppingFile{f, name, s}, nil
}

func (s *stopping) Rename(from, to string) error {
	if err := s.step(); err != nil {
		return err
	}
	if err := Disk.Rename(from, to); err != nil {
		return err
	}
	s.renames = append(s.renames, [2]string{from, to})
	for name := range s.unsynced {
		if rest, ok := strings.CutPrefix(name, from+string(filepath.Separator)); ok {
			delete(s.unsynced, name)
			s.unsynced[filepath.Join(to, rest)] = true
		}
	}
	return nil
}

func (s *stopping) Remove(name string) error {
	if err := s.step(); err != nil {
		return err
	}
	return Disk.Remove(name)
}

func (s *stopping) SyncDir(name string) error {
	if err := s.step(); err != nil {
		return err
	}
	s.renames = slices.DeleteFunc(s.renames, func(r [2]string) bool { return filepath.Dir(r[1]) == name })
	return nil
}

// losePower takes away what was not synced: half of such a file's content, and renames, latest first. What was removed stays so.
func (s *stopping) losePower() {
	for name := range s.unsynced {
		if st, err := os.Stat(name); err == nil {
			os.Truncate(name, st.Size()/2)
		}
	}
	for _, r := range slices.Backward(s.renames) {
		os.Rename(r[1], r[0])
	}
}

type stoppingFile struct {
	WriteFile
	name string
	s    *stopping
}

func (f *stoppingFile) Write(b []byte) (int, error) {
	err := f.s.step()
	if err != nil && f.s.done == f.s.n {
		f.WriteFile.Write(b[:len(b)/2])
	}
	f.s.unsynced[f.name] = true
	if err != nil {
		return 0, err
	}
	return f.WriteFile.Write(b)
}

func (f *stoppingFile) Sync() error {
	if err := f.s.step(); err != nil {
		return err
	}
	delete(f.s.unsynced, f.name)
	return nil
}

const never = 1 << 30

// A Save is stopped at each of its operations in turn, by a kill or a loss of power; after a kill the clearing up at the next Open
// is stopped at each of its operations, too. After that the store must give the old state or the new one, whole, and work on.
func TestStopAtEveryOperation(t *testing.T) {
	opt := Options{KeepLast: 2, KeepBest: true}
	scored := func(step, salt int, v float64) *State {
		s := sample(step, salt)
		s.Score = &Score{"recall", v}
		return s
	}
	scenarios := []struct {
		name   string
		before []*State
		save   *State
	}{
		{"first", nil, scored(10, 1, 1)},
		{"one more", []*State{scored(10, 1, 1)}, scored(20, 1, 0)},
		{"one goes", []*State{scored(5, 1, 9), scored(10, 1, 1), scored(20, 1, 2)}, scored(30, 1, 3)},
		{"best goes", []*State{scored(5, 1, 9), scored(10, 1, 1), scored(20, 1, 2)}, scored(30, 1, 10)},
		{"same step again", []*State{scored(10, 1, 1), scored(20, 1, 2)}, scored(20, 2, 3)},
		{"the only one again", []*State{scored(20, 1, 2)}, scored(20, 2, 3)},
	}
	for _, sc := range scenarios {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, power %v", sc.name, power), func(t *testing.T) {
				root := memoryDir(t)
				old := open(t, filepath.Join(root, "old"), opt)
				for _, b := range sc.before {
					require.NoError(t, old.Save(b))
				}
				stops := 0
				for n, finished := 1, false; !finished; n++ {
					m := 1 // the operation at which clearing up stops
					if power {
						m = never
					}
					for ; ; m++ {
						dir := filepath.Join(root, fmt.Sprint(n, "-", m))
						link(t, old.dir, dir)
						finished = stopOnce(t, dir, opt, sc.save, n, power)
						_, err := Open(dir, Options{FS: newStopping(m)})
						checkAfterStop(t, dir, opt, sc.before, sc.save, finished)
						if err == nil {
							checkWorksOn(t, dir, opt)
						}
						require.NoError(t, os.RemoveAll(dir))
						if err == nil {
							break
						}
						require.ErrorIs(t, err, errStopped)
						stops++
					}
					stops++
				}
				require.Greater(t, stops, 10)
			})
		}
	}
}

// stopOnce saves with a stop at operation n, and reports whether the save was done before.
func stopOnce(t *testing.T, dir string, opt Options, save *State, n int, power bool) (finished bool) {
	t.Helper()
	s := open(t, dir, opt)
	stop := newStopping(n)
	s.opt.FS = stop
	err := s.Save(save)
	if err != nil {
		require.ErrorIs(t, err, errStopped)
	}
	if power {
		stop.losePower()
	}
	return err == nil
}

func checkAfterStop(t *testing.T, dir string, opt Options, before []*State, save *State, finished bool) {
	t.Helper()
	s := open(t, dir, opt)
	for _, name := range names(t, dir) {
		require.True(t, strings.HasPrefix(name, prefixStep), "%s is left over", name)
	}
	c, damaged, err := s.Latest()
	require.NoError(t, err)
	require.Empty(t, damaged)
	var old *State
	if len(before) > 0 {
		old = before[len(before)-1]
	}
	switch {
	case finished || c != nil && c.Step == save.Step && c.Recipe == save.Recipe:
		requireState(t, save, c)
	case old == nil:
		require.Nil(t, c)
	default:
		requireState(t, old, c)
	}
	if best, _, err := s.Best(); len(before) > 0 {
		require.NoError(t, err)
		top := slices.MaxFunc(before, func(a, b *State) int { return int(a.Score.Value - b.Score.Value) })
		require.GreaterOrEqual(t, best.Score.Value, top.Score.Value, "the best is never lost")
	}
}

func checkWorksOn(t *testing.T, dir string, opt Options) {
	t.Helper()
	s := open(t, dir, opt)
	next := sample(99, 3)
	require.NoError(t, s.Save(next))
	requireState(t, next, latestOf(t, s))
}

// memoryDir is t.TempDir in memory, where there is such a place: the test makes thousands of small folders.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "checkpoints")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// link makes a copy of a store by hard links: files of a checkpoint are never written again.
func link(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if e.IsDir() {
			return os.Mkdir(target, 0o755)
		}
		return os.Link(path, target)
	}))
}

// failing gives an error where it is told to, and goes on afterwards, as a full disk or a read-only folder does.
type failing struct {
	quick
	room int   // bytes that can be written
	err  error // of what fails
	ro   bool
}

func (f *failing) Mkdir(name string) error {
	if f.ro {
		return &fs.PathError{Op: "mkdir", Path: name, Err: f.err}
	}
	return f.quick.Mkdir(name)
}

func (f *failing) Create(name string) (WriteFile, error) {
	w, err := f.quick.Create(name)
	return &failingFile{w, f}, err
}

type failingFile struct {
	WriteFile
	f *failing
}

func (f *failingFile) Write(b []byte) (int, error) {
	n := min(len(b), f.f.room)
	f.f.room -= n
	f.WriteFile.Write(b[:n])
	if n < len(b) {
		return n, f.f.err
	}
	return n, nil
}

func TestFullDisk(t *testing.T) {
	s := open(t, t.TempDir(), Options{KeepLast: 1})
	require.NoError(t, s.Save(sample(1, 0)))
	for _, step := range []int{1, 2} { // replaced, and new
		for room := 0; ; room += 37 {
			s.opt.FS = &failing{room: room, err: syscall.ENOSPC}
			err := s.Save(sample(step, 1))
			if err == nil {
				require.Greater(t, room, 500)
				break
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorContains(t, err, fmt.Sprintf("save step %d (earlier checkpoints are intact)", step))
			require.Equal(t, []string{"step-00000001"}, names(t, s.dir), "the space is given back")
			requireState(t, sample(1, step-1), latestOf(t, s))
		}
	}
}

func TestReadOnly(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	require.NoError(t, s.Save(sample(1, 0)))
	s.opt.FS = &failing{ro: true, err: syscall.EROFS}
	err := s.Save(sample(2, 0))
	require.ErrorIs(t, err, syscall.EROFS)
	requireState(t, sample(1, 0), latestOf(t, s))

	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	require.NoError(t, os.Chmod(s.dir, 0o555))
	defer os.Chmod(s.dir, 0o755)
	s.opt.FS = Disk
	require.ErrorIs(t, s.Save(sample(2, 0)), fs.ErrPermission)
	requireState(t, sample(1, 0), latestOf(t, s))
}
