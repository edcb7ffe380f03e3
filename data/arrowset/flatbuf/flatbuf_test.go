package flatbuf

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// sample is a buffer whose root has a byte (slot 0), no slot 1, a text (slot 2) and a table (slot 3) with a number of each width.
func sample() []byte {
	le := binary.LittleEndian
	b := make([]byte, 80)
	put32 := func(at int, v int32) { le.PutUint32(b[at:], uint32(v)) }
	put16 := func(at int, v ...uint16) {
		for i, x := range v {
			le.PutUint16(b[at+2*i:], x)
		}
	}
	put32(0, 16) // the root
	put16(4, 12, 16, 4, 0, 8, 12)
	put32(16, 12) // back to its vtable
	b[20] = 7
	put32(24, 12) // the text, at 36
	put32(28, 32) // the table, at 60
	put32(36, 3)
	copy(b[40:], "abc")
	put16(46, 10, 18, 4, 8, 10)
	put32(60, 14)
	put32(64, -5)
	put16(68, 300)
	le.PutUint64(b[70:], 1<<40)
	return b
}

func TestReader(t *testing.T) {
	r := &Reader{B: sample()}
	root := r.Root()
	require.Equal(t, 7, r.FieldU8(root, 0))
	for _, slot := range []int{1, 4, 1000} { // absent, behind the vtable's end
		require.Zero(t, r.Field(root, slot))
		require.Zero(t, r.Table(root, slot))
		require.Zero(t, r.FieldI64(root, slot))
		require.Empty(t, r.Text(root, slot))
	}
	require.Equal(t, "abc", r.Text(root, 2))
	inner := r.Table(root, 3)
	require.Equal(t, -5, r.FieldI32(inner, 0))
	require.Equal(t, 300, r.FieldU16(inner, 1))
	require.EqualValues(t, 1<<40, r.FieldI64(inner, 2))
	require.False(t, r.Bad)
}

// TestBad reads what lies outside of the buffer.
func TestBad(t *testing.T) {
	change := func(at int, v int32) []byte {
		b := sample()
		binary.LittleEndian.PutUint32(b[at:], uint32(v))
		return b
	}
	for name, b := range map[string][]byte{
		"empty": {}, "cut": sample()[:30], "root outside": change(0, 1<<20), "root before": change(0, -9), "vtable outside": change(16, -1<<30),
		"long text": change(36, 1<<30), "negative text": change(36, -1), "text outside": change(24, 1<<30),
	} {
		t.Run(name, func(t *testing.T) {
			r := &Reader{B: b}
			require.Empty(t, r.Text(r.Root(), 2))
			require.True(t, r.Bad)
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add(sample(), 2)
	f.Fuzz(func(t *testing.T, b []byte, slot int) {
		if slot < 0 || slot > 1<<20 {
			return
		}
		r := &Reader{B: b}
		for _, table := range []int{r.Root(), r.Table(r.Root(), slot)} {
			at, n := r.Vector(table, slot, 24)
			require.True(t, n == 0 || at+24*n <= len(b))
			require.LessOrEqual(t, len(r.Text(table, slot)), len(b))
			r.FieldI64(table, slot)
		}
	})
}
