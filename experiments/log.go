package experiments

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/metrics"
	"time"

	"diptych/data/batch"
	"diptych/experiments/report"
	"diptych/internal/machine"
	"diptych/internal/runlog"
	"diptych/losses"
	"diptych/train"
)

// runLog keeps the records of one run.
type runLog struct {
	*runlog.Log
	dir     string
	pairs   int      // of an update
	scale   bool     // there is one
	samples *os.File // rows of every batch, nil unless the recipe wants them
	heap    []metrics.Sample
}

// samplesFile has a line for each update: its number and the rows of its pairs, in order.
const samplesFile = "samples.txt"

// newRunLog opens the records of a run that has done step updates, and cuts back what was recorded after them.
func newRunLog(r *Run, step int) (*runLog, error) {
	columns := []string{"loss"}
	for _, l := range r.Config.Losses {
		columns = append(columns, "loss."+l.Name)
	}
	columns = append(columns, losses.Metrics(r.Config.Losses)...)
	columns = append(columns, "lr", "gradNorm", "weightNorm")
	if losses.HasGlobal(r.Config.Losses) {
		columns = append(columns, "scale")
	}
	columns = append(columns, "pairsPerSecond", "dataWait", "heapMiB", "anonymousMiB", "broken", "samples")
	log, err := runlog.Open(r.Dir, columns, step)
	if err != nil {
		return nil, err
	}
	l := &runLog{Log: log, dir: r.Dir, pairs: r.Config.Train.GlobalBatch, scale: losses.HasGlobal(r.Config.Losses), heap: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
	if r.Config.Train.LogSamples {
		if l.samples, err = openSamples(filepath.Join(r.Dir, samplesFile), step); err != nil {
			return nil, errors.Join(err, log.Close())
		}
	}
	return l, nil
}

// openSamples opens the list of samples for appending, cut back to the lines of the first steps updates.
func openSamples(path string, steps int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("experiments: %w", err)
	}
	var end int64
	in := bufio.NewReader(f)
	for n := 0; n < steps; n++ {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("experiments: %s ends after %d updates, the checkpoint has %d", path, n, steps), f.Close())
		}
		end += int64(len(line))
	}
	if err := f.Truncate(end); err != nil {
		return nil, errors.Join(fmt.Errorf("experiments: %w", err), f.Close())
	}
	if _, err := f.Seek(end, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("experiments: %w", err), f.Close())
	}
	return f, nil
}

// step records an update.
func (l *runLog) step(r train.Record, wait time.Duration, b *batch.Batch) error {
	metrics.Read(l.heap)
	const mib = 1 << 20
	values := []any{r.Loss}
	for _, t := range r.Terms {
		values = append(values, t)
	}
	for _, m := range r.Metrics {
		values = append(values, m)
	}
	values = append(values, r.LR, r.GradNorm, r.WeightNorm)
	if l.scale {
		values = append(values, r.Scale)
	}
	values = append(values, float64(l.pairs)/(r.Seconds+wait.Seconds()), wait.Seconds(),
		float64(l.heap[0].Value.Uint64())/mib, float64(machine.AnonymousMemory())/mib, r.Broken, fmt.Sprintf("%016x", r.Samples))
	if err := l.Append(r.Step, values...); err != nil {
		return err
	}
	if l.samples == nil {
		return nil
	}
	line := fmt.Appendf(nil, "%d", r.Step)
	for i := range b.Pairs {
		line = fmt.Appendf(line, " %d", b.Pairs[i].Row)
	}
	_, err := l.samples.Write(append(line, '\n'))
	return err
}

// sync makes the records durable.
func (l *runLog) sync() error {
	if l.samples != nil {
		if err := l.samples.Sync(); err != nil {
			return fmt.Errorf("experiments: %w", err)
		}
	}
	return l.Sync()
}

// curves draws the records in the run directory and returns the picture as the report's folder names it.
func (l *runLog) curves() ([]report.Picture, error) {
	if err := runlog.Curves(l.dir, runlog.DefaultPanels()); err != nil {
		return nil, err
	}
	return []report.Picture{{Title: "Curves", File: "../" + runlog.CurvesFile}}, nil
}

// Close closes the records.
func (l *runLog) Close() error {
	var err error
	if l.samples != nil {
		err = l.samples.Close()
	}
	return errors.Join(err, l.Log.Close())
}
