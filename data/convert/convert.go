// Package convert turns captioned pictures in other formats into data sets (package arrowset), and data sets into picture
// files with COCO captions JSON. A conversion streams: it holds the pictures that are on their way and, of the texts, only ids and
// places in the file. What it reads is checked record by record; errors name file and record. Start reading at Run and Importer.
package convert

import "errors"

// ErrInput is wrapped by errors about the files that are to be imported.
var ErrInput = errors.New("bad input")

var errNotUTF8 = errors.New("not UTF-8; convert the file to UTF-8")
