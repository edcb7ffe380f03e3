// Package vocab holds the demo's vocabulary: the merges of a byte-pair encoding, trained on the captions of the demo's
// train split by
//
//	trainer data tokenizer train --data demo --split train --size 2048 --out data/demo/vocab/merges.txt
//
// Package tokenizer opens it under the name "demo".
package vocab

import _ "embed"

// Merges is the text of the merges file, in CLIP's format.
//
//go:embed merges.txt
var Merges []byte
