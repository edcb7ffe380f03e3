package convert

import (
	"context"
	"os"
)

// Parquet says what to import: Parquet files with a column of pictures, or of their paths, and a column of sentences. A row
// of the file is a row of the set. Without a column of ids a picture's name is its path, or else the file's name and the row.
type Parquet struct {
	Files    []File // names may hold braces and wildcards. Without a split, the column's or what the name says, or else train
	Pictures string // folder of the paths in a column; "" takes that of the file
	Columns  Columns
}

// Open is Importer's. It reads the footers of all files.
func (p Parquet) Open(_ context.Context, o *Options) (Source, error) {
	return openTables(p.Files, p.Pictures, p.Columns, o, func(f *os.File, size int64) (table, error) { return openParquet(f, size) })
}

// ViltArrow says what to import: Arrow IPC files or streams as ViLT's scripts write them, with columns image (bytes), caption
// (a list of sentences), image_id and split, or with columns of other names.
type ViltArrow struct {
	Files    []File // names may hold braces and wildcards. Without a split, the column's or what the name says, or else train
	Pictures string // folder of the paths in a column; "" takes that of the file
	Columns  Columns
}

// Open is Importer's. It reads the schemas of all files.
func (v ViltArrow) Open(_ context.Context, o *Options) (Source, error) {
	return openTables(v.Files, v.Pictures, v.Columns, o, func(f *os.File, size int64) (table, error) { return openArrow(f, size) })
}
