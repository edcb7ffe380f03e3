package convert

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // width and height of the pictures
	_ "image/png"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// Export writes a data set as files that COCO.Import reads back to equal rows, as long as the rows of a split lie together:
// out/images/…, named by image_id, out/annotations/captions_SPLIT.json, and out/classes.json if the set has class systems.
// out must not exist or be empty. The files returned are the annotations, in the order in which their splits begin.
// progress is called after every picture; it may be nil.
func Export(ctx context.Context, set *arrowset.Set, out string, progress func(done, total int)) (captions []string, err error) {
	if captions, err = export(ctx, set, out, progress); err != nil {
		return nil, fmt.Errorf("convert: export to %s: %w", out, err)
	}
	return captions, nil
}

func export(ctx context.Context, set *arrowset.Set, out string, progress func(done, total int)) (captions []string, err error) {
	if entries, err := os.ReadDir(out); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("the folder is not empty (%s …); name another or remove it: %w", entries[0].Name(), os.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, a := range set.Manifest().Attributes {
		if a != "license" && slices.Contains(notAttributes, a) {
			return nil, fmt.Errorf("attribute %q has the name of a COCO field", a)
		}
	}
	if err := os.MkdirAll(filepath.Join(out, "annotations"), 0o755); err != nil {
		return nil, err
	}
	if classes := set.Manifest().Classes; len(classes) > 0 {
		text, err := formatClasses(classes)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(out, "classes.json"), text, 0o644); err != nil {
			return nil, err
		}
	}
	bySplit := map[string][]int{}
	var splits []string
	for i, m := range set.Meta() {
		if bySplit[m.Split] == nil {
			splits = append(splits, m.Split)
		}
		bySplit[m.Split] = append(bySplit[m.Split], i)
	}
	e := &exporter{ctx: ctx, set: set, out: out, progress: progress}
	for _, split := range splits {
		if strings.ContainsAny(split, `/\:`) {
			return nil, fmt.Errorf("split %q cannot be part of a file's name", split)
		}
		name := filepath.Join(out, "annotations", "captions_"+split+".json")
		if err := e.split(name, bySplit[split]); err != nil {
			return nil, err
		}
		captions = append(captions, name)
	}
	return captions, nil
}

// exporter numbers images and captions through all splits.
type exporter struct {
	ctx            context.Context
	set            *arrowset.Set
	out            string
	progress       func(done, total int)
	image, caption int
}

// split writes the pictures of some rows, and their captions file, a record a line.
func (e *exporter) split(name string, rows []int) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	licenses := e.set.Manifest().Licenses
	records := func(n int, record func(i int) any) error {
		for i := range n {
			line, err := marshal(record(i))
			if err != nil {
				return err
			}
			if i > 0 {
				w.WriteByte(',')
			}
			w.WriteByte('\n')
			w.Write(line)
		}
		_, err := w.WriteString("\n]")
		return err
	}
	w.WriteString(`{"licenses":[`)
	err = records(len(licenses), func(i int) any {
		return object{{"id", i + 1}, {"name", licenses[i].Name}, {"url", licenses[i].URL}}
	})
	if err != nil {
		return err
	}
	w.WriteString(",\n\"images\":[")
	first := e.image
	var failed error
	err = records(len(rows), func(i int) any {
		if failed != nil {
			return nil
		}
		var record object
		record, failed = e.writeImage(rows[i], licenses)
		return record
	})
	if err = errors.Join(failed, err); err != nil {
		return err
	}
	w.WriteString(",\n\"annotations\":[")
	type place struct{ row, caption int }
	var all []place
	for k, row := range rows {
		for c := range e.set.Captions(row) {
			all = append(all, place{k, c})
		}
	}
	err = records(len(all), func(i int) any {
		c := e.set.Captions(rows[all[i].row])[all[i].caption]
		e.caption++
		record := object{{"id", e.caption}, {"image_id", first + all[i].row + 1}, {"caption", c.Text}}
		return record.text("kind", c.Kind).text("lang", c.Lang)
	})
	if err != nil {
		return err
	}
	w.WriteString("}\n")
	return w.Flush()
}

// writeImage writes the picture of a row and returns its record.
func (e *exporter) writeImage(row int, licenses []arrowset.License) (object, error) {
	m := &e.set.Meta()[row]
	fail := func(err error) (object, error) { return nil, fmt.Errorf("row %d: %w", row, err) }
	name := filepath.FromSlash(m.ImageID)
	if !filepath.IsLocal(name) {
		return fail(fmt.Errorf("image_id %q is not the name of a file below a folder", m.ImageID))
	}
	b, err := e.set.Image(e.ctx, row)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(e.out, "images", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := writeNew(path, b); err != nil {
		return fail(err)
	}
	e.image++
	if e.progress != nil {
		e.progress(e.image, e.set.Len())
	}
	record := object{{"id", e.image}, {"file_name", m.ImageID}}
	if size, _, err := image.DecodeConfig(bytes.NewReader(b)); err == nil { // other formats go without
		record = append(record, pair{"width", size.Width}, pair{"height", size.Height})
	}
	record = record.text("concept", m.Group).text("label", m.Label).text("source", m.Source)
	for a, attribute := range e.set.Manifest().Attributes {
		value := m.Attributes[a]
		if attribute != "license" {
			record = append(record, pair{attribute, value})
			continue
		}
		id := slices.IndexFunc(licenses, func(l arrowset.License) bool { return l.Name == value })
		if id < 0 && value != "" {
			return fail(fmt.Errorf("license %q is not in the manifest", value))
		}
		if id < 0 {
			record = append(record, pair{"license", nil})
		} else {
			record = append(record, pair{"license", id + 1})
		}
	}
	return record, nil
}

func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// object is a JSON object whose members keep their order.
type object []pair

type pair struct {
	name  string
	value any
}

// text adds a text unless it is empty.
func (o object) text(name, value string) object {
	if value == "" {
		return o
	}
	return append(o, pair{name, value})
}

// MarshalJSON is json.Marshaler's.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, m := range o {
		name, err := marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(m.value)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%c%s:%s", "{,"[min(i, 1)], name, value)
	}
	if len(o) == 0 {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
