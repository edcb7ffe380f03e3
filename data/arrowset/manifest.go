package arrowset

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	// ManifestName is the file of a set that holds its Manifest, in at most MaxManifest bytes.
	ManifestName    = "manifest.json"
	manifestVersion = 1
	MaxManifest     = 64 << 20 // a class system of 20,000 names has about 2 MB, a hundred thousand shards have 14
)

// Manifest says what a data set is. The caller of Create gives the first part; Writer.Close fills the second.
type Manifest struct {
	Version     int           `json:"version"`
	Name        string        `json:"name"`
	Description string        `json:"description,omitempty"`
	Attributes  []string      `json:"attributes,omitempty"` // names of the further columns, in the order of RowMeta.Attributes
	Optional    []string      `json:"optional,omitempty"`   // columns that not every set has: ColCaptionAnswer, ColSecondImage
	Classes     []ClassSystem `json:"classes,omitempty"`
	Licenses    []License     `json:"licenses,omitempty"`

	Splits map[string]int `json:"splits"` // rows of each split
	Rows   int            `json:"rows"`
	Groups int            `json:"groups"` // distinct groups; a row without a group counts as one
	Schema []Column       `json:"schema"`
	Index  *IndexFile     `json:"index,omitempty"` // sets of older programs have none
	Shards []Shard        `json:"shards"`
}

// Given is the part of a manifest that Create takes.
func (m *Manifest) Given() Manifest {
	return Manifest{Name: m.Name, Description: m.Description, Attributes: m.Attributes, Optional: m.Optional, Classes: m.Classes, Licenses: m.Licenses}
}

// Has tells whether the set has one of the optional columns.
func (m *Manifest) Has(column string) bool { return slices.Contains(m.Optional, column) }

// IndexFile is the file with the set's Index, beside the shards.
type IndexFile struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ClassSystem is a way to sort the pictures into named classes, for zero-shot classification. The class of a row is the one
// whose ID equals the row's value in Column; a row whose value is no ID has no class.
type ClassSystem struct {
	Name      string   `json:"name"`
	Column    string   `json:"column"`
	Templates []string `json:"templates"` // prompts, each with {} where Class.Text goes
	Classes   []Class  `json:"classes"`
}

// Class is one class: its value in the class system's column and its name in words.
type Class struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// License is the licence of some of the pictures: those whose attribute "license" is Name.
type License struct {
	Name string `json:"name"`
	URL  string `json:"url,omitempty"`
}

// Column is a column of the shards; Type is binary, utf8 or list<utf8>.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Shard is one Arrow file of the set.
type Shard struct {
	File   string `json:"file"`
	Rows   int    `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ParseManifest reads the text of a manifest.json. Errors wrap ErrSchema, or ErrCorrupt where it contradicts itself.
func ParseManifest(text []byte) (Manifest, error) {
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&m); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return m, fmt.Errorf("%w: %s is not JSON at byte %d: %v", ErrCorrupt, ManifestName, syntax.Offset, err)
		}
		return m, fmt.Errorf("%w: %s: %v", ErrSchema, ManifestName, err)
	}
	if m.Version != manifestVersion {
		return m, fmt.Errorf("%w: %s has version %d, this program reads version %d; import the data again", ErrSchema, ManifestName, m.Version, manifestVersion)
	}
	if err := m.checkGiven(); err != nil {
		return m, err
	}
	rows := 0
	files := map[string]bool{}
	for i, s := range m.Shards {
		sum, err := hex.DecodeString(s.SHA256)
		switch {
		case s.File == "" || path.Base(s.File) != s.File || strings.ContainsAny(s.File, `\:`) || s.File == "..":
			return m, fmt.Errorf("%w: %s: shard %d is named %q, which is not a file of the folder", ErrSchema, ManifestName, i, s.File)
		case files[s.File]:
			return m, fmt.Errorf("%w: %s: shard %s is listed twice", ErrSchema, ManifestName, s.File)
		case s.Rows < 0 || s.Bytes < 0 || s.Rows > maxRows-rows:
			return m, fmt.Errorf("%w: %s: shard %s has %d rows, %d bytes", ErrCorrupt, ManifestName, s.File, s.Rows, s.Bytes)
		case err != nil || len(sum) != 32:
			return m, fmt.Errorf("%w: %s: shard %s: %q is not a SHA-256 sum", ErrCorrupt, ManifestName, s.File, s.SHA256)
		}
		files[s.File] = true
		rows += s.Rows
	}
	if x := m.Index; x != nil {
		sum, err := hex.DecodeString(x.SHA256)
		if x.File == "" || path.Base(x.File) != x.File || strings.ContainsAny(x.File, `\:`) || x.File == ".." || files[x.File] || x.Bytes < 0 || err != nil || len(sum) != 32 {
			return m, fmt.Errorf("%w: %s: the index is file %q of %d bytes with SHA-256 %q", ErrCorrupt, ManifestName, x.File, x.Bytes, x.SHA256)
		}
	}
	if rows != m.Rows {
		return m, fmt.Errorf("%w: %s says %d rows, its shards have %d", ErrCorrupt, ManifestName, m.Rows, rows)
	}
	return m, nil
}

const maxRows = 1 << 31 // rows of a set: they are counted in int32 elsewhere

// checkGiven checks what the caller of Create gives.
func (m *Manifest) checkGiven() error {
	seen := map[string]bool{}
	for _, a := range m.Attributes {
		switch {
		case a == "" || standardType(a) != "":
			return fmt.Errorf("%w: attribute %q has the name of another column", ErrSchema, a)
		case seen[a]:
			return fmt.Errorf("%w: attribute %q is named twice", ErrSchema, a)
		}
		seen[a] = true
	}
	for _, name := range m.Optional {
		if !slices.ContainsFunc(optional, func(c Column) bool { return c.Name == name }) {
			return fmt.Errorf("%w: there is no optional column %q", ErrSchema, name)
		}
	}
	for _, c := range m.Classes {
		if !seen[c.Column] && standardType(c.Column) != typeString {
			return fmt.Errorf("%w: class system %q lies in column %q, which is no text column of the set", ErrSchema, c.Name, c.Column)
		}
		ids := map[string]bool{}
		for _, class := range c.Classes {
			if ids[class.ID] {
				return fmt.Errorf("%w: class system %q has class %q twice", ErrSchema, c.Name, class.ID)
			}
			ids[class.ID] = true
		}
		for _, t := range c.Templates {
			if !strings.Contains(t, "{}") {
				return fmt.Errorf("%w: class system %q: template %q has no {} for the name of the class", ErrSchema, c.Name, t)
			}
		}
	}
	return nil
}
