package convert

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"diptych/data/arrowset"
	"diptych/internal/runlog"
)

// journal is the memory of an import that is not finished, in a folder .NAME.import beside the set to be: journal.jsonl, and
// in set what will become the set. The journal's first line says which import it is; then come a line for each finished
// shard, written when the shard is on disk, and a line for each bad record that was skipped. A line that a kill cut short
// and what stands after the last shard are dropped: the import goes on at the first record behind that shard.
type journal struct {
	dir  string // .NAME.import
	key  []byte // which import it is
	lock *runlog.DirLock
	file *os.File
	read bool // the file was understood

	mu      sync.Mutex // of what follows: shards end beside the reading of records
	shards  []arrowset.Shard
	rows    int // of shards
	mark    journalMark
	skipped []skippedRecord
}

// journalMark is where an import stands at the end of a shard.
type journalMark struct {
	Records int    `json:"records"` // before the first row of the next shard, with the bad ones among them
	Digest  string `json:"digest"`  // of their texts
}

// journalLine is one line of journal.jsonl: one of its members is set.
type journalLine struct {
	Import json.RawMessage `json:"import,omitempty"`
	Shard  *shardLine      `json:"shard,omitempty"`
	Skip   *skippedRecord  `json:"skip,omitempty"`
}

type shardLine struct {
	arrowset.Shard
	journalMark
}

// skippedRecord is a line of SkippedName.
type skippedRecord struct {
	Record int    `json:"record"`
	Where  string `json:"where"`
	Error  string `json:"error"`
}

// openJournal begins the import of a set or goes on with it; key says what is imported, as JSON. finished is true if
// nothing is left to do but to close the journal.
func openJournal(out string, key []byte) (_ *journal, finished bool, err error) {
	j := &journal{}
	if j.dir, err = journalDir(out); err != nil {
		return nil, false, err
	}
	exist := emptyOrMissing(out)
	if _, err := os.Stat(j.dir); exist != nil && errors.Is(err, fs.ErrNotExist) {
		return nil, false, exist
	}
	if err := os.MkdirAll(j.dir, 0o755); err != nil {
		return nil, false, err
	}
	if j.lock, err = runlog.Lock(j.dir); err != nil {
		return nil, false, err
	}
	j.key = key
	if err = j.load(); err == nil && exist != nil {
		// The set stands there already: it is this import's if the kill came between its rename and the end.
		if finished = j.made(out); !finished {
			err = exist
		}
	}
	if err != nil {
		return nil, false, errors.Join(err, j.close())
	}
	return j, finished, nil
}

// journalDir returns the folder of the journal of the import that makes a set.
func journalDir(out string) (string, error) {
	out, err := filepath.Abs(out)
	return filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+".import"), err
}

// madeBefore returns the rows of the set that stands in a folder if an import with this key made it, 0 if there is none, and an error
// wrapping fs.ErrExist if something else made it. An import that was cut off is left to its journal.
func madeBefore(out string, key []byte) (rows int, err error) {
	dir, err := journalDir(out)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	set, err := arrowset.Open(out)
	if err != nil {
		return 0, nil // no set
	}
	defer set.Close()
	was, err := os.ReadFile(filepath.Join(out, requestName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("%s holds a data set of %d rows, which does not say that this import made it; remove the folder or name another: %w", out, set.Len(), fs.ErrExist)
	case err != nil:
		return 0, err
	case !bytes.Equal(bytes.TrimSpace(was), key):
		return 0, fmt.Errorf("%s holds a whole data set of %d rows that an import of something else made, or with other options (%s there says which); remove the folder or name another: %w",
			out, set.Len(), requestName, fs.ErrExist)
	}
	return set.Len(), nil
}

// made says whether the set in a folder is what the journal tells of; if so, the journal can go.
func (j *journal) made(out string) bool {
	set, err := arrowset.Open(out)
	if err != nil {
		return false
	}
	defer set.Close()
	if len(j.shards) == 0 || !slices.Equal(set.Manifest().Shards, j.shards) {
		return false
	}
	j.shards = nil // so that close removes the folder
	return true
}

// emptyOrMissing gives an error wrapping fs.ErrExist if there is something in a folder.
func emptyOrMissing(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: the folder is not empty (%s …); name another or remove it: %w", dir, entries[0].Name(), os.ErrExist)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (j *journal) setDir() string { return filepath.Join(j.dir, "set") }

// load opens the file, takes in what it holds and cuts off what is of no use.
func (j *journal) load() error {
	name := filepath.Join(j.dir, "journal.jsonl")
	var err error
	if j.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	r := bufio.NewReader(j.file)
	var read, good int64 // bytes: read, and up to the last line of use
	var skips []skippedRecord
	for begun := false; ; begun = true {
		text, err := r.ReadBytes('\n')
		if err != nil {
			break // the last line has no end: it is nothing
		}
		read += int64(len(text))
		var line journalLine
		if err := json.Unmarshal(text, &line); err != nil || begun == (line.Import != nil) {
			return fmt.Errorf("%s is damaged at byte %d; remove %s to begin anew", name, read-int64(len(text)), j.dir)
		}
		switch {
		case line.Import != nil:
			if !bytes.Equal(line.Import, j.key) {
				return fmt.Errorf("%w: %s holds an unfinished import of something else, or with other options: %s; give these to go on with it, or remove the folder to begin anew",
					ErrInput, j.dir, line.Import)
			}
			good = read
		case line.Shard != nil:
			j.shards = append(j.shards, line.Shard.Shard)
			j.rows += line.Shard.Rows
			j.mark = line.Shard.journalMark
			good = read
		case line.Skip != nil:
			skips = append(skips, *line.Skip)
		}
	}
	// Those behind the last shard are found again. Their lines may stand before the shard's, and so twice after another start.
	for _, s := range skips {
		if s.Record < j.mark.Records {
			j.skipped = append(j.skipped, s)
		}
	}
	slices.SortFunc(j.skipped, func(a, b skippedRecord) int { return a.Record - b.Record })
	j.skipped = slices.Compact(j.skipped)
	if err := j.file.Truncate(good); err != nil {
		return err
	}
	if _, err := j.file.Seek(good, 0); err != nil {
		return err
	}
	j.read = true
	if good == 0 {
		return j.write(journalLine{Import: j.key})
	}
	return nil
}

func (j *journal) write(line journalLine) error {
	text, err := marshal(line)
	if err == nil {
		_, err = j.file.Write(append(text, '\n'))
	}
	return err
}

// shard notes a finished shard.
func (j *journal) shard(s arrowset.Shard, mark journalMark) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.write(journalLine{Shard: &shardLine{s, mark}}); err != nil {
		return err
	}
	j.shards = append(j.shards, s)
	j.rows += s.Rows
	return j.file.Sync()
}

// skip notes a bad record.
func (j *journal) skip(record int, bad *RecordError) error {
	valid := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") } // so that it reads back equal
	s := skippedRecord{record, valid(bad.Where), valid(bad.Err.Error())}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.skipped = append(j.skipped, s)
	return j.write(journalLine{Skip: &s})
}

// finish closes the writer, with the request and the list of what was skipped in the set, and forgets.
func (j *journal) finish(w *arrowset.Writer) error {
	if err := os.WriteFile(filepath.Join(j.setDir(), requestName), append(bytes.Clone(j.key), '\n'), 0o644); err != nil {
		return err
	}
	if len(j.skipped) > 0 {
		var list bytes.Buffer
		for _, s := range j.skipped {
			line, err := marshal(s)
			if err != nil {
				return err
			}
			list.Write(append(line, '\n'))
		}
		if err := os.WriteFile(filepath.Join(j.setDir(), SkippedName), list.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	j.shards = nil
	return nil
}

// bad says whether a record of the finished shards' was skipped.
func (j *journal) bad(record int) bool {
	_, found := slices.BinarySearchFunc(j.skipped, record, func(s skippedRecord, record int) int { return s.Record - record })
	return found
}

// close gives up the folder; it removes it if it holds no finished shard.
func (j *journal) close() error {
	var errs []error
	if j.file != nil {
		errs = append(errs, j.file.Close())
	}
	if j.read && len(j.shards) == 0 {
		errs = append(errs, os.RemoveAll(j.dir))
	}
	return errors.Join(append(errs, j.lock.Close())...)
}
