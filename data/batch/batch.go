// Package batch holds the plain structs that travel from the data source to the objectives and the training loop. It knows
// neither files nor models.
package batch

// Pair is one picture with one sentence, ready for a model.
type Pair struct {
	Row           int     // row of the data set
	Group         int32   // pairs of one group are not each other's negatives; no batch holds a group twice
	Height, Width int     // of the picture, in pixels
	Pixels        []uint8 // (Height, Width, 3), levels 0 to 255
	Tokens        []int32 // bos … eos, not padded; empty where the model reads no texts
	Label         int32   // class; only set where the recipe names classes
	// Answers are the right answers to the sentence, each a class with its score in (0, 1]; only set where an objective learns them.
	Answers []Answer
	// Second is the other picture of the sentence; only set for a model that reads two.
	Second Picture
	// Normalized, when not nil, holds the normalised picture (3, Height, Width) that takes the place of Pixels.
	Normalized []float32
}

// Answer is an answer to a sentence, by the number of its class, and how right it is.
type Answer struct {
	Class int32
	Score float32
}

// Picture is a picture beside the pair's own.
type Picture struct {
	Height, Width int
	Pixels        []uint8 // (Height, Width, 3), levels 0 to 255
}

// Batch is the global batch of one update, in the order of its positions. Its owner reuses it: what it points to is valid
// until the batch is released.
type Batch struct {
	Step  int // the update it belongs to, from 0
	Pairs []Pair
	// Pixels (N, height, width, 3) are the pictures of all pairs one after another; each pair's Pixels is its part. It is nil where the
	// pictures' shapes differ: each pair's Pixels then has memory of its own.
	Pixels []uint8
	// Normalized, when not nil, holds normalised pictures (N, 3, height, width) that take the place of Pixels: input that is not 8-bit.
	Normalized []float32
	// Broken names the rows whose picture did not decode; a substitute stands in the slot of each.
	Broken []Broken
}

// Broken is a picture that could not be used.
type Broken struct {
	Row, Slot int
	Reason    string
}
