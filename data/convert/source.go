package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// Importer is one format with what the user said about it: the files, the columns, the split.
type Importer interface {
	// Open checks what can be checked at once and begins to read. What it knows of the whole set, such as attributes,
	// licences and the number of records, it adds to o.
	Open(ctx context.Context, o *Options) (Source, error)
}

// Source yields records in an order that depends on nothing but the input. Next is called by one goroutine at a time. It
// returns io.EOF at the end, a *RecordError for one bad record, after which it can be called again, and any other error if
// it cannot go on.
type Source interface {
	Next() (*Record, error)
	Close() error
}

// Record is a row to be, with where it stands.
type Record struct {
	Row   arrowset.Row                              // without Image if Load is set
	Load  func(ctx context.Context) ([]byte, error) // reads the picture; several run at once. Errors as of Next
	Where string                                    // file and record or line, for messages
	// LoadSecond reads the second picture; nil if there is none.
	LoadSecond func(ctx context.Context) ([]byte, error)
}

// load reads the record's pictures.
func (r *Record) load(ctx context.Context) (err error) {
	if r.Row.Image, err = r.Load(ctx); err != nil {
		return err
	}
	if err := checkPicture(r.Row.ImageID, r.Row.Image); err != nil || r.LoadSecond == nil {
		return err
	}
	if r.Row.Second, err = r.LoadSecond(ctx); err != nil {
		return err
	}
	return checkPicture(r.Row.ImageID+", second", r.Row.Second)
}

// bytes is what the record's pictures take.
func (r *Record) bytes() int { return len(r.Row.Image) + len(r.Row.Second) }

// RecordError is the fault of one record of the input; it wraps ErrInput. The import of the others can go on.
type RecordError struct {
	Where string // file and record or line
	Err   error
}

// Error is error's.
func (e *RecordError) Error() string {
	if errors.Is(e.Err, ErrInput) {
		return e.Where + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s: %v: %v", e.Where, ErrInput, e.Err)
}

// Unwrap makes errors.Is find ErrInput and the cause.
func (e *RecordError) Unwrap() []error { return []error{ErrInput, e.Err} }

// badRecord makes a *RecordError.
func badRecord(where, format string, args ...any) error {
	return &RecordError{where, fmt.Errorf(format, args...)}
}

// pictureEndings are those of the names of picture files.
var pictureEndings = []string{".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

// isPicture says whether a name ends as a picture's does.
func isPicture(name string) bool {
	return slices.Contains(pictureEndings, strings.ToLower(path.Ext(name)))
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// maxPicture is the size in bytes above which a picture is refused: what arrowset can hold, less its texts.
const maxPicture = 255 << 20

// pictureFolder loads pictures by their names below a folder.
type pictureFolder string

// open checks that the folder is one.
func (dir pictureFolder) open() error {
	info, err := os.Stat(string(dir))
	if err != nil {
		return fmt.Errorf("pictures: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: pictures: %s is not a folder", ErrInput, string(dir))
	}
	return nil
}

// load returns the Load of the picture of a name with slashes, which must lie below the folder. An ending .* stands for any
// picture's, and for none.
func (dir pictureFolder) load(name string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		full := filepath.Join(string(dir), filepath.FromSlash(name))
		open, any := strings.CutSuffix(full, ".*")
		b, err := readPicture(open)
		for i := 0; any && errors.Is(err, fs.ErrNotExist) && i < len(pictureEndings); i++ {
			b, err = readPicture(open + pictureEndings[i])
		}
		if any && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: picture %s is missing in %s, whatever its ending (%s): %w", ErrInput, name, string(dir), strings.Join(pictureEndings, " "), fs.ErrNotExist)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: picture %s is missing in %s: %w", ErrInput, name, string(dir), err)
		}
		if err != nil {
			return nil, fmt.Errorf("picture: %w", err)
		}
		return b, nil
	}
}

// localName cleans the name of a picture below a folder, and refuses one that leads out of it.
func localName(name string) (string, error) {
	if name == "" || !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) == "." {
		return "", fmt.Errorf("%w: %q is not the name of a file below the pictures' folder", ErrInput, name)
	}
	return path.Clean(name), nil
}

// readPicture reads a file whole. A file that is no picture's for its size or kind gives an error wrapping ErrInput.
func readPicture(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is not a file", ErrInput, name)
	case info.Size() > maxPicture:
		return nil, fmt.Errorf("%w: %s has %d bytes; a picture may have %d", ErrInput, name, info.Size(), maxPicture)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// span is a range of a file.
type span struct{ off, len int64 }

// loadRange is the Load of a picture that lies in a file as it is. It opens the file anew, so that what is in flight holds no
// file open; that costs some microseconds.
func loadRange(name string, at span) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b := make([]byte, at.len)
		if n, err := f.ReadAt(b, at.off); n < len(b) {
			if err == io.EOF {
				err = fmt.Errorf("%w: %s has become shorter while it was read: it ends before byte %d", ErrInput, name, at.off+at.len)
			}
			return nil, err
		}
		return b, nil
	}
}

// magics are how the files of the formats begin that package transform decodes.
var magics = []string{"\xff\xd8\xff", "\x89PNG\r\n\x1a\n", "GIF87a", "GIF89a", "BM", "II*\x00", "MM\x00*"}

// checkPicture looks at the first bytes of a picture: it finds what is no picture at all, such as a web page saved under
// a picture's name. Whether it decodes, `trainer data check` says.
func checkPicture(name string, b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: %s: the picture is empty", ErrInput, name)
	}
	for _, m := range magics {
		if bytes.HasPrefix(b, []byte(m)) {
			return nil
		}
	}
	if len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP" {
		return nil
	}
	return fmt.Errorf("%w: %s: the picture begins with %q, which is neither JPEG, PNG, WebP, GIF, BMP nor TIFF", ErrInput, name, b[:min(len(b), 12)])
}
