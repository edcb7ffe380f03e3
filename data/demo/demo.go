// Package demo is the data set that lies in the program: 7,762 pictures of 1,644 emoji in six drawing styles, 64×64 pixels,
// with English names and keywords. recipe/emoji.mjs draws it and says what its splits are; LICENSES.md says whose pictures
// and texts they are and on what terms they may be passed on.
package demo

import (
	"embed"
	"fmt"
	"io/fs"

	"diptych/data/arrowset"
)

// The set as `trainer data import` wrote it.
//
//go:embed emoji/manifest.json emoji/*.arrow
var files embed.FS

//go:embed LICENSES.md licenses/*.txt
var licenses embed.FS

// Open opens the embedded set. It takes some tens of milliseconds; the pictures are not copied.
func Open() (*arrowset.Set, error) {
	dir, err := fs.Sub(files, "emoji")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return arrowset.OpenFS(dir)
}

// Licenses are the credits (LICENSES.md) and the texts of the licences (licenses/*.txt), which must stay with the pictures
// wherever they go.
func Licenses() fs.FS { return licenses }
