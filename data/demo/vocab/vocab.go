// Package vocab holds the demo's vocabularies, made of the captions of the demo's train split. Package tokenizer opens them under the
// name "demo".
//
// Merges are those of a byte-pair encoding:
//
//	trainer data tokenizer train --data demo --split train --size 3072 --out data/demo/vocab/merges.txt
//
// At that size the rarest merge stands 14 times in the captions, in more than one concept as a rule, and a word takes
// 1.19 tokens (CLIP's own vocabulary: 1.07).
//
// Pieces are the entries of BERT's uncased vocabulary that the captions take, and those of the questions that can be asked about
// the pictures:
//
//	trainer data tokenizer reduce --data demo --split train --out data/demo/vocab/pieces.txt \
//	  --also "what is its category? which subcategory does it belong to? what category of thing is this?" \
//	  --also "activities, animals nature, food drink, objects, people body, smileys emotion, symbols, travel places" \
//	  --also "what colour is it? which colour does it have most of? what is its main colour?" \
//	  --also "red orange yellow green blue purple pink brown black grey white" \
//	  --also "how many letters are on it? how many letters does it show?"
//
// Whose that is says data/tokenizer/bert/LICENSE.
package vocab

import _ "embed"

// Merges is the text of the merges file, in CLIP's format. Nobody may write to it.
//
//go:embed merges.txt
var Merges []byte

// Pieces is a vocab.txt of WordPiece. Nobody may write to it.
//
//go:embed pieces.txt
var Pieces []byte
