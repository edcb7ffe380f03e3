package experiments

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"diptych/eval"
	"diptych/internal/addr"
	"diptych/internal/kernel"
	"diptych/internal/runlog"
	"diptych/losses"
)

// ErrMatch marks a model that does not score a picture and a sentence together.
var ErrMatch = errors.New("the model does not tell whether a picture and a sentence belong together; a recipe with itm trains one that does")

// Scorer returns what ranks pairs again by the model, and what a cosine of its own towers is to be multiplied with before it is added
// to the odds: the scale that they learnt, if the false partners of itm were drawn by it; else 0.
func (m *Model) Scorer() (eval.PairScorer, float64, error) {
	if m.Config().Model.Kind != "fusion" || !losses.Heads(m.Config().Losses).Match {
		return nil, 0, fmt.Errorf("experiments: kind %s: %w", m.Config().Model.Kind, ErrMatch)
	}
	first := 0.0
	if slices.ContainsFunc(m.Config().Losses, func(c losses.Config) bool { return c.HardNegatives }) {
		var err error
		if first, err = m.Scale(); err != nil {
			return nil, 0, err
		}
	}
	return m.pairs(), first, nil
}

// Scale returns what a cosine of the model's towers is multiplied with in its objective.
func (m *Model) Scale() (float64, error) {
	two, ok := m.opened.parts.model.(losses.TwoTower)
	if !ok {
		return 0, fmt.Errorf("experiments: a model of kind %s has no towers of pictures and sentences: %w", m.Config().Model.Kind, eval.ErrRequest)
	}
	scale, _ := two.Scale()
	return math.Exp(float64(scale.Slice(m.opened.weights)[0])), nil
}

// Scorer returns what ranks pairs again by the model.
func (m *Pairs) Scorer() (eval.PairScorer, error) {
	if !slices.Contains(m.Tasks(), eval.TaskMatch) {
		return nil, fmt.Errorf("experiments: %w", ErrMatch)
	}
	return m, nil
}

// Journal keeps the scores of pairs by this model in files of a folder, for evaluations that are killed; see eval.Journal. Scores
// are those of its recipe, tokenizer, weights and kernels.
func (o *opened) Journal(dir string) eval.Journal {
	key := addr.Hash(addr.Name(kernel.Family()), addr.Name(string(o.config.YAML())), addr.Name(string(o.parts.vocabulary)))
	for _, w := range o.weights {
		key = addr.Hash(key, uint64(math.Float32bits(w)))
	}
	return &journal{dir: dir, model: key}
}

// journal is a file for each split: journalMagic, the key, then for each picture its number, the number of scores, the scores and the
// CRC-32 of all that. An entry that is cut or damaged ends it. Who writes it has its lock.
type journal struct {
	dir   string
	model uint64
	file  *os.File
}

const journalMagic = "diptych scores 1\n"

func (j *journal) path(split string) string {
	return filepath.Join(j.dir, fmt.Sprintf("scores-%016x.journal", addr.Name(split)))
}

// Begin opens the scores of a split. While another evaluation of it has them open that is an error which wraps runlog.ErrBusy.
func (j *journal) Begin(split string, key uint64) (_ map[int][]float32, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("experiments: journal of scores: %w", err), j.End(false))
		}
	}()
	if j.file, err = os.OpenFile(j.path(split), os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return nil, err
	}
	if err := runlog.LockFile(j.file); errors.Is(err, runlog.ErrBusy) {
		return nil, fmt.Errorf("%s is %w: another evaluation of split %s writes it; wait until it ends, or give another directory", j.file.Name(), runlog.ErrBusy, split)
	} else if err != nil {
		return nil, fmt.Errorf("lock %s: %w", j.file.Name(), err)
	}
	head := append([]byte(journalMagic), binary.LittleEndian.AppendUint64(nil, addr.Hash(j.model, key))...)
	known, good := readJournal(bufio.NewReader(j.file), head)
	if good == 0 { // of another key, or new
		if _, err := j.file.WriteAt(head, 0); err != nil {
			return nil, err
		}
		good = int64(len(head))
	}
	if err := j.file.Truncate(good); err != nil {
		return nil, err
	}
	_, err = j.file.Seek(good, io.SeekStart)
	return known, err
}

// mostScores is the largest number of scores of a picture that is believed of a journal.
const mostScores = 1 << 28

// readJournal returns the scores that follow head, and the length of the good part of the file: 0 if it does not begin with head.
func readJournal(r io.Reader, head []byte) (map[int][]float32, int64) {
	got := make([]byte, len(head))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != string(head) {
		return nil, 0
	}
	known, good := map[int][]float32{}, int64(len(head))
	for {
		var begin [8]byte
		if _, err := io.ReadFull(r, begin[:]); err != nil {
			return known, good
		}
		picture, n := binary.LittleEndian.Uint32(begin[:]), int64(binary.LittleEndian.Uint32(begin[4:]))
		if n > mostScores {
			return known, good
		}
		body, err := io.ReadAll(io.LimitReader(r, 4*n+4)) // grows with what is there, not with what is claimed
		if err != nil || int64(len(body)) != 4*n+4 {
			return known, good
		}
		sum := crc32.Update(crc32.ChecksumIEEE(begin[:]), crc32.IEEETable, body[:4*n])
		if binary.LittleEndian.Uint32(body[4*n:]) != sum {
			return known, good
		}
		scores := make([]float32, n)
		for i := range scores {
			scores[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:]))
		}
		known[int(picture)] = scores
		good += 8 + int64(len(body))
	}
}

// Append adds the scores of a picture.
func (j *journal) Append(picture int, scores []float32) error {
	b := binary.LittleEndian.AppendUint32(nil, uint32(picture))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(scores)))
	for _, s := range scores {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s))
	}
	if _, err := j.file.Write(binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))); err != nil {
		return fmt.Errorf("experiments: journal of scores: %w", err)
	}
	return nil
}

// End closes the file, which gives the lock back, and removes it when its scores are used.
func (j *journal) End(done bool) error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	if done {
		if gone := os.Remove(j.file.Name()); !errors.Is(gone, fs.ErrNotExist) { // another evaluation of the same split may have ended before
			err = errors.Join(err, gone)
		}
	}
	j.file = nil
	return err
}
