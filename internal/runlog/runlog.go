// Package runlog keeps a run directory's records: who works in it ([Lock]), what every step measured (metrics.jsonl and the
// same as metrics.csv), what every evaluation found (eval.jsonl), and the curves drawn from them ([Curves]).
//
// A step stands in the records exactly once. A run that goes on from a checkpoint opens its [Log] with the checkpoint's step,
// and what was recorded after it, a half-written last line too, is cut off.
package runlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// The files of a run directory.
const (
	MetricsFile = "metrics.jsonl"
	CSVFile     = "metrics.csv"
	EvalFile    = "eval.jsonl"
	CurvesFile  = "curves.png"
)

// Log appends to the records of a run. It is for one goroutine.
type Log struct {
	columns            []string
	metrics, csv, eval *os.File
	last               int // step of the last metrics record, 0 if there is none
	lastEval           int
	evaluated          map[int]bool
}

// Open opens the records in dir, whose lock the caller holds, and cuts them back to the given step: 0 for a new run, a
// checkpoint's for one that goes on. columns names the values of [Log.Append] beside the step.
func Open(dir string, columns []string, step int) (_ *Log, err error) {
	l := &Log{columns: columns, evaluated: map[int]bool{}}
	defer func() {
		if err != nil {
			l.Close()
			err = fmt.Errorf("runlog: %w", err)
		}
	}()
	if l.metrics, err = openCut(filepath.Join(dir, MetricsFile), func(at int) bool {
		ok := at > l.last && at <= step
		if ok {
			l.last = at
		}
		return ok
	}); err != nil {
		return nil, err
	}
	if l.eval, err = openCut(filepath.Join(dir, EvalFile), func(at int) bool {
		ok := at >= l.lastEval && at <= step
		if ok {
			l.lastEval = at
			l.evaluated[at] = true
		}
		return ok
	}); err != nil {
		return nil, err
	}
	if l.csv, err = l.rebuildCSV(filepath.Join(dir, CSVFile)); err != nil {
		return nil, err
	}
	return l, nil
}

// openCut opens a file of JSON lines for appending, without what begins at the first line that is torn, no record, or not kept.
func openCut(path string, keep func(step int) bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	end := int64(0)
	err = eachLine(f, func(line []byte) bool {
		var head struct{ Step *int }
		if json.Unmarshal(line, &head) != nil || head.Step == nil || !keep(*head.Step) {
			return false
		}
		end += int64(len(line))
		return true
	})
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// eachLine calls use for every whole line, newline included, until it returns false.
func eachLine(r io.Reader, use func(line []byte) bool) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what has no newline is torn
		}
		if err != nil {
			return err
		}
		if !use(line) {
			return nil
		}
	}
}

// rebuildCSV writes the table anew from the records that are left: so both always say the same, also when a newer program has
// more columns than the one that began the run.
func (l *Log) rebuildCSV(path string) (*os.File, error) {
	var b bytes.Buffer
	b.WriteString("step")
	for _, c := range l.columns {
		b.WriteByte(',')
		b.WriteString(csvField(c))
	}
	b.WriteByte('\n')
	if _, err := l.metrics.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var bad error
	if err := eachLine(l.metrics, func(line []byte) bool {
		var rec map[string]json.RawMessage
		if bad = json.Unmarshal(line, &rec); bad != nil {
			return false
		}
		row := [][]byte{rec["step"]}
		for _, c := range l.columns {
			row = append(row, rec[c])
		}
		b.Write(csvRow(row))
		return true
	}); err != nil || bad != nil { // every line was decoded before
		return nil, errors.Join(err, bad)
	}
	// Aside and renamed: a reader never sees half of the table.
	if err := os.WriteFile(path+".new", b.Bytes(), 0o644); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
}

// csvRow makes a line of JSON values; null and what is missing are empty.
func csvRow(values [][]byte) []byte {
	var b []byte
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		var text string
		switch {
		case len(v) == 0 || string(v) == "null":
		case json.Unmarshal(v, &text) == nil:
			b = append(b, csvField(text)...)
		default:
			b = append(b, csvField(string(v))...)
		}
	}
	return append(b, '\n')
}

// csvField quotes a field where RFC 4180 wants it.
func csvField(s string) string {
	if !bytes.ContainsAny([]byte(s), ",\"\r\n") {
		return s
	}
	return `"` + string(bytes.ReplaceAll([]byte(s), []byte(`"`), []byte(`""`))) + `"`
}

// Append records what a step measured: one value for each column, a number or a text. A number that is not finite becomes null.
// Steps come in rising order. The record is with the operating system when Append returns, so that a kill does not lose it.
func (l *Log) Append(step int, values ...any) error {
	if step <= l.last {
		return fmt.Errorf("runlog: step %d after step %d", step, l.last)
	}
	if len(values) != len(l.columns) {
		return fmt.Errorf("runlog: step %d: %d values for %d columns", step, len(values), len(l.columns))
	}
	line := strconv.AppendInt([]byte(`{"step":`), int64(step), 10)
	row := [][]byte{strconv.AppendInt(nil, int64(step), 10)}
	for i, c := range l.columns {
		v, err := encode(values[i])
		if err != nil {
			return fmt.Errorf("runlog: step %d: %s: %w", step, c, err)
		}
		name, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("runlog: column %q: %w", c, err)
		}
		line = append(append(append(append(line, ','), name...), ':'), v...)
		row = append(row, v)
	}
	if _, err := l.metrics.Write(append(line, '}', '\n')); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	if _, err := l.csv.Write(csvRow(row)); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	l.last = step
	return nil
}

// encode is json.Marshal, with null for what JSON has no number for.
func encode(v any) ([]byte, error) {
	x := 0.0
	switch n := v.(type) {
	case float64:
		x = n
	case float32:
		x = float64(n)
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(v)
}

// Eval records an evaluation after a step, as one line with the metrics in order of their names. There may be several of a step.
func (l *Log) Eval(step int, metrics map[string]float64) error {
	if step < l.lastEval {
		return fmt.Errorf("runlog: evaluation of step %d after that of step %d", step, l.lastEval)
	}
	line := strconv.AppendInt([]byte(`{"step":`), int64(step), 10)
	names := make([]string, 0, len(metrics))
	for name := range metrics {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		key, err := json.Marshal(name)
		if err != nil {
			return fmt.Errorf("runlog: metric %q: %w", name, err)
		}
		v, err := encode(metrics[name])
		if err != nil {
			return fmt.Errorf("runlog: metric %q: %w", name, err)
		}
		line = append(append(append(append(line, ','), key...), ':'), v...)
	}
	if _, err := l.eval.Write(append(line, '}', '\n')); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	l.lastEval = step
	l.evaluated[step] = true
	return nil
}

// Evaluated reports whether an evaluation of the step is recorded.
func (l *Log) Evaluated(step int) bool { return l.evaluated[step] }

// Sync makes the records durable. A run calls it before it saves a checkpoint, so that no step up to a checkpoint is ever missing.
func (l *Log) Sync() error {
	if err := errors.Join(l.metrics.Sync(), l.csv.Sync(), l.eval.Sync()); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	return nil
}

// Close closes the files.
func (l *Log) Close() error {
	var errs []error
	for _, f := range []*os.File{l.metrics, l.csv, l.eval} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Record is a line of metrics.jsonl or eval.jsonl: its numbers by name, the step among them.
type Record map[string]float64

// Read returns the records of MetricsFile or EvalFile in dir; none if there is no such file. A torn last line is left out.
// Values that are no numbers are left out.
func Read(dir, file string) ([]Record, error) {
	f, err := os.Open(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	defer f.Close()
	var out []Record
	var bad error
	if err := eachLine(f, func(line []byte) bool {
		var raw map[string]any
		if err := json.Unmarshal(line, &raw); err != nil {
			bad = fmt.Errorf("runlog: %s: line %d: %w", f.Name(), len(out)+1, err)
			return false
		}
		r := Record{}
		for name, v := range raw {
			if x, ok := v.(float64); ok {
				r[name] = x
			}
		}
		out = append(out, r)
		return true
	}); err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	return out, bad
}
