package checkpoints

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// FS is how this package changes the disk. Everything that could leave a half-made state goes through it, so that a test can
// stop at every single operation as a killed process does. Names are paths as package os takes them.
type FS interface {
	Mkdir(name string) error // the parent must exist
	Create(name string) (WriteFile, error)
	Rename(from, to string) error
	Remove(name string) error  // a file or an empty folder
	SyncDir(name string) error // makes the entries of a folder durable
}

// WriteFile is a new file of an [FS].
type WriteFile interface {
	io.Writer
	Sync() error // makes the content durable
	Close() error
}

// Disk is the machine's file system.
var Disk FS = disk{}

type disk struct{}

func (disk) Mkdir(name string) error { return os.Mkdir(name, 0o755) }

func (disk) Create(name string) (WriteFile, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err // not a WriteFile that holds a nil *os.File
	}
	return f, nil
}

func (disk) Rename(from, to string) error { return os.Rename(from, to) }
func (disk) Remove(name string) error     { return os.Remove(name) }

func (disk) SyncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil // there a folder cannot be opened for syncing, and its entries are journalled
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// mkdirAll makes a folder and its missing parents.
func mkdirAll(fsys FS, dir string) error {
	if st, err := os.Stat(dir); err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("a file of this name exists")}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if err := mkdirAll(fsys, parent); err != nil {
		return err
	}
	if err := fsys.Mkdir(dir); err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}

// removeAll removes a folder that holds nothing but files; a missing one is no error.
func removeAll(fsys FS, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}
