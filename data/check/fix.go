package check

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"diptych/data/arrowset"
)

// FixesName is the file in a cleaned copy that lists what was left out of it or rewritten, one JSON object on each line.
const FixesName = "fixes.jsonl"

// Change is one line of that list. Row and Caption number the set that was checked.
type Change struct {
	Action  string `json:"action"` // left out, rewritten
	Row     int    `json:"row"`
	ImageID string `json:"imageID"`
	Caption int    `json:"caption"` // -1: the whole row
	Kind    Kind   `json:"kind"`
	Why     string `json:"why"`
	Text    string `json:"text,omitempty"` // of the caption
	Now     string `json:"now,omitempty"`  // of a caption that was rewritten
}

// FixOptions say how Fix works.
type FixOptions struct {
	// Also names the kinds of warnings that are acted upon, beside all errors.
	Also     []Kind
	Progress func(stage string, done, total int)
}

// Fixable says whether Fix can do something about a kind.
func (k Kind) Fixable() bool {
	return slices.ContainsFunc(kinds, func(i kindInfo) bool { return i.kind == k && i.remedy != byHand })
}

// Fix writes a cleaned copy of the set that r is the report of to the folder out, which must not exist or be empty, with the
// list of changes in FixesName, which it returns too. Row order stays. The copy appears whole or not at all; where no row would be left
// of it, it does not appear, which is an error.
func Fix(ctx context.Context, set *arrowset.Set, r *Report, out string, o FixOptions) ([]Change, error) {
	byRow := map[int][]Finding{}
	for _, f := range r.Findings {
		if f.Row >= 0 && (f.Severity == Error || slices.Contains(o.Also, f.Kind)) {
			byRow[f.Row] = append(byRow[f.Row], f)
		}
	}
	m := set.Manifest()
	w, err := arrowset.Create(out, m.Given())
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	changes := []Change{}
	left := 0
	for i, meta := range set.Meta() {
		captions, more, keep := clean(set.Captions(i), byRow[i])
		changes = append(changes, more...)
		if keep {
			left++
			row := arrowset.Row{RowMeta: meta, Captions: captions}
			if row.Image, err = set.Image(ctx, i); err != nil {
				return nil, err
			}
			if set.HasSecond(i) {
				if row.Second, err = set.Second(ctx, i); err != nil {
					return nil, err
				}
			}
			if err := w.Append(row); err != nil {
				return nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if o.Progress != nil {
			o.Progress("writing the cleaned copy", i+1, set.Len())
		}
	}
	if left == 0 {
		return nil, fmt.Errorf("check: none of the %d rows of %s would be left; nothing was written. Without --fix the check names what is wrong with them", set.Len(), m.Name)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return changes, writeChanges(filepath.Join(out, FixesName), changes)
}

// clean does to a row what its findings ask for.
func clean(captions []arrowset.Caption, found []Finding) (kept []arrowset.Caption, changes []Change, keep bool) {
	change := func(f Finding, action, text, now string) {
		changes = append(changes, Change{action, f.Row, f.ImageID, f.Caption, f.Kind, f.Detail, text, now})
	}
	if len(found) == 0 {
		return captions, nil, true
	}
	for _, f := range found {
		if f.Kind.info().remedy == dropRow {
			change(f, "left out", "", "")
		}
	}
	if len(changes) > 0 {
		return nil, changes, false
	}
	for k, cp := range captions {
		gone := false
		for _, f := range found {
			if f.Caption != k || gone {
				continue
			}
			switch f.Kind.info().remedy {
			case dropCaption:
				change(f, "left out", cp.Text, "")
				gone = true
			case repairText:
				now := repair(f.Kind, cp.Text)
				gone = blank(now)
				if gone {
					change(f, "left out", cp.Text, "")
				} else {
					change(f, "rewritten", cp.Text, now)
					cp.Text = now
				}
			}
		}
		if !gone {
			kept = append(kept, cp)
		}
	}
	if len(kept) == 0 {
		last := found[len(found)-1]
		last.Caption, last.Kind, last.Detail = -1, CaptionNone, "none of its captions is left"
		change(last, "left out", "", "")
		return nil, changes, false
	}
	return kept, changes, true
}

// repair rewrites a caption that has a finding of kind k.
func repair(k Kind, text string) string {
	switch k {
	case CaptionMojibake:
		return unmojibake(text)
	case CaptionControl:
		return visible(text)
	case CaptionMarkup:
		return plain(text)
	}
	return text
}

func writeChanges(path string, changes []Change) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+FixesName+".*")
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("check: %s: %w", path, err)
		}
	}()
	buf := bufio.NewWriter(f)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	for _, c := range changes {
		if err = enc.Encode(c); err != nil {
			break
		}
	}
	if err = errors.Join(err, buf.Flush(), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
