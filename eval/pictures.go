package eval

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"diptych/data/transform"
)

// Model is an Encoder that also knows how its pictures are to be prepared.
type Model interface {
	Encoder
	// Prepare decodes a picture and brings it to the model's size: (height, width, 3) levels 0 to 255. Its errors are about that
	// picture. It is called from several goroutines at once.
	Prepare(encoded []byte, dst []uint8) error
	// Tasks lists what the model serves.
	Tasks() []Task
}

// BadPicture is a picture that cannot be used.
type BadPicture struct {
	Index int
	Err   error
}

// Pictures embeds the encoded pictures that read gives for 0 … n-1 and leaves out those that do not decode: row k of x (E
// numbers) is picture good[k]. An error of read that wraps transform.ErrBadPicture is about that picture alone, any other
// ends the call. read is called from several goroutines at once; progress, if not nil, by one at a time.
func Pictures(ctx context.Context, m Model, n int, read func(i int) ([]byte, error), progress func(done int)) (x []float32, good []int, bad []BadPicture, err error) {
	x, _, good, bad, err = pictures(ctx, m, n, read, progress, true, false)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("eval: pictures: %w", err)
	}
	return x, good, bad, nil
}

// pictures gives the rows of the pictures, what a Featurer says of them, or both at once.
func pictures(ctx context.Context, m Model, n int, read func(i int) ([]byte, error), progress func(done int), wantRows, wantFeatures bool) (rows, features []float32, good []int, bad []BadPicture, err error) {
	var mu sync.Mutex
	faults := map[int]error{}
	done := 0
	at := func(i int, dst []uint8) error {
		b, err := read(i)
		if err != nil && !errors.Is(err, transform.ErrBadPicture) {
			return err
		}
		if err == nil {
			err = m.Prepare(b, dst)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			clear(dst) // embedded all the same, then dropped
			faults[i] = err
		}
		done++
		if progress != nil {
			progress(done)
		}
		return nil
	}
	if wantFeatures {
		features, rows, err = m.(Featurer).Features(ctx, n, at, wantRows)
	} else {
		rows, err = m.Images(ctx, n, at)
	}
	if err != nil {
		return nil, nil, nil, nil, err
	}
	for i := range n {
		if err, is := faults[i]; is {
			bad = append(bad, BadPicture{i, err})
		} else {
			good = append(good, i)
		}
	}
	keep := func(name string, x []float32, dim int) ([]float32, error) {
		if err := checkRows(name, x, dim, n); err != nil {
			return nil, err
		}
		kept := x[:0]
		for _, i := range good {
			kept = append(kept, x[i*dim:(i+1)*dim]...)
		}
		return kept, nil
	}
	if wantRows {
		if rows, err = keep("pictures", rows, m.EmbedDim()); err != nil {
			return nil, nil, nil, nil, err
		}
	}
	if wantFeatures {
		if features, err = keep("features", features, m.(Featurer).FeatureDim()); err != nil {
			return nil, nil, nil, nil, err
		}
	}
	return rows, features, good, bad, nil
}
