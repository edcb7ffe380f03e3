// Package vocab holds the demo's vocabulary: the merges of a byte-pair encoding, trained on the captions of the demo's
// train split by
//
//	trainer data tokenizer train --data demo --split train --size 3072 --out data/demo/vocab/merges.txt
//
// At that size the rarest merge stands 14 times in the captions, in more than one concept as a rule, and a word takes
// 1.19 tokens (CLIP's own vocabulary: 1.07). Package tokenizer opens it under the name "demo".
package vocab

import _ "embed"

// Merges is the text of the merges file, in CLIP's format. Nobody may write to it.
//
//go:embed merges.txt
var Merges []byte
