package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints"
	"diptych/experiments"
)

var errStopped = errors.New("stopped")

// stopping is a disk that begins to count when the checkpoint called name is begun and stops at its n-th operation: what is
// written then is half there, and from then on nothing happens any more, as if the process had been killed.
type stopping struct {
	name    string
	n, done int
	begun   bool
}

func (s *stopping) step(name string) error {
	s.begun = s.begun || filepath.Base(name) == s.name
	if !s.begun {
		return nil
	}
	if s.done++; s.done >= s.n {
		return errStopped
	}
	return nil
}

func (s *stopping) Mkdir(name string) error {
	if err := s.step(name); err != nil {
		return err
	}
	return checkpoints.Disk.Mkdir(name)
}

func (s *stopping) Create(name string) (checkpoints.WriteFile, error) {
	if err := s.step(name); err != nil {
		return nil, err
	}
	f, err := checkpoints.Disk.Create(name)
	if err != nil {
		return nil, err
	}
	return &stoppingFile{f, s}, nil
}

func (s *stopping) Rename(from, to string) error {
	if err := s.step(from); err != nil {
		return err
	}
	return checkpoints.Disk.Rename(from, to)
}

func (s *stopping) Remove(name string) error {
	if err := s.step(name); err != nil {
		return err
	}
	return checkpoints.Disk.Remove(name)
}

func (s *stopping) SyncDir(name string) error {
	if err := s.step(name); err != nil {
		return err
	}
	return checkpoints.Disk.SyncDir(name)
}

type stoppingFile struct {
	checkpoints.WriteFile
	s *stopping
}

func (f *stoppingFile) Write(b []byte) (int, error) {
	if err := f.s.step(""); err != nil {
		n, _ := f.WriteFile.Write(b[:len(b)/2])
		return n, err
	}
	return f.WriteFile.Write(b)
}

func (f *stoppingFile) Sync() error {
	if err := f.s.step(""); err != nil {
		return err
	}
	return f.WriteFile.Sync()
}

// A run stopped at every write, sync, rename and removal of a checkpoint, and of the finished model, in turn, goes on to the
// weights, samples and records of one that was not stopped. Without -slow every fortieth operation is tried.
func TestStoppedCheckpoint(t *testing.T) {
	const steps = 7
	dir := t.TempDir()
	recipe := writeRecipe(t, dir)
	options := func(name string) experiments.Options {
		return experiments.Options{Recipe: recipe, Out: filepath.Join(dir, name), Workers: 1, Threads: 1, Sets: []string{
			fmt.Sprintf("train.steps=%d", steps), "train.keepLast=1", "train.keepBest=", "train.evalEvery=0", "train.checkpointEvery=3"}}
	}
	require.NoError(t, pretrain(t.Context(), options("base"), &watcher{}))
	want := outcome(t, filepath.Join(dir, "base"), steps)
	pretrainUntil(t, options("begun"), 5) // checkpoints of updates 3 and 5

	for _, c := range []struct {
		name, folder string
		least        int // operations that there must be
	}{
		// The last update's checkpoint is written, and that of update 5 is removed.
		{"checkpoint", "new-step-00000007", 30},
		{"finished model", "new-model", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			every := 1
			if !*slow {
				every = 40
			}
			n := 1
			for ; ; n += every {
				name := fmt.Sprint(c.name, n)
				require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(dir, "begun"))))
				o := options(name)
				o.FS = &stopping{name: c.folder, n: n}
				err := pretrain(t.Context(), o, &watcher{})
				if err != nil {
					require.ErrorIs(t, err, errStopped, "operation %d", n)
					o.FS = nil
					require.NoError(t, pretrain(t.Context(), o, &watcher{}), "after a stop at operation %d", n)
				}
				require.Equal(t, want, outcome(t, o.Out, steps), "after a stop at operation %d", n)
				left, globErr := filepath.Glob(filepath.Join(o.Out, "*", "new-*"))
				require.NoError(t, globErr)
				require.Empty(t, left, "nothing half-made stays")
				require.NoError(t, os.RemoveAll(o.Out))
				if err == nil {
					break
				}
			}
			require.Greater(t, n, c.least)
			t.Logf("%d operations", n-1)
		})
	}
}
