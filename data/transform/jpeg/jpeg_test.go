package jpeg

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const pictures = "../testdata/preprocess/images"

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(pictures, name))
	require.NoError(t, err)
	return b
}

func decode(d *Decoder, b []byte, by int) ([]uint8, error) {
	h, err := d.Open(b)
	if err != nil {
		return nil, err
	}
	if h.W > 1<<20/h.H {
		return nil, ErrFormat
	}
	w, height := h.Size(by)
	dst := make([]uint8, w*height*h.Channels)
	return dst, d.Read(dst, by)
}

func TestErrors(t *testing.T) {
	gray := read(t, "gray.jpg")
	replace := func(old, new string) []byte { return bytes.Replace(gray, []byte(old), []byte(new), 1) }
	tests := []struct {
		name, want string
		b          []byte
		is         error
	}{
		{"empty", "no start marker", nil, ErrFormat},
		{"text", "no start marker", []byte("hello"), ErrFormat},
		{"start alone", "it ends at byte 2 without an end marker", gray[:2], ErrTruncated},
		{"no end marker", "it ends at byte", gray[:len(gray)-2], ErrTruncated},
		{"half", "in the middle of the picture", gray[:len(gray)/2+200], ErrTruncated},
		{"12 bits", "12 bits for each sample", replace("\xff\xc0\x00\x0b\x08", "\xff\xc1\x00\x0b\x0c"), ErrUnsupported},
		{"lossless", "lossless (marker FFC3", replace("\xff\xc0", "\xff\xc3"), ErrUnsupported},
		{"arithmetic", "arithmetic coding (marker FFC9", replace("\xff\xc0", "\xff\xc9"), ErrUnsupported},
		{"no Huffman tables", "Huffman table 0 of DC coefficients is missing", bytes.ReplaceAll(gray, []byte("\xff\xc4"), []byte("\xff\xec")), ErrFormat},
		{"no quantization table", "quantization table 0 is missing", replace("\xff\xdb", "\xff\xec"), ErrFormat},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(new(Decoder), c.b, 1)
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, c.is)
		})
	}
	require.ErrorContains(t, new(Decoder).Read(nil, 1), "Read without Open")
}

// TestDamaged: like libjpeg, a picture whose data end early at a marker is decoded, and its rest is grey.
func TestDamaged(t *testing.T) {
	b := read(t, "gray.jpg")
	b = append(b[:len(b)*2/3:len(b)*2/3], 0xff, markEOI)
	got, err := decode(new(Decoder), b, 1)
	require.NoError(t, err)
	require.Equal(t, []uint8{128, 128, 128}, got[len(got)-3:])
}

// TestVector: vector code and its portable twins give the same bits on any coefficients.
func TestVector(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var b, q [64]int16
		for i := range b {
			b[i], q[i] = int16(r.Uint32()), int16(r.Uint32())
			if r.IntN(2) == 0 {
				b[i], q[i] = b[i]%64, 1+q[i]&31
			}
		}
		got, want := make([]uint8, 8*11), make([]uint8, 8*11)
		inverse8(&b, &q, got, 11)
		inverse8Go(&b, &q, want, 11)
		require.Equal(t, want, got)
	}
	for n := 1; n < 70; n++ {
		rows := make([][]uint8, 3)
		for i := range rows {
			rows[i] = make([]uint8, n+margin)
			for k := range rows[i] {
				rows[i][k] = uint8(r.Uint32())
			}
		}
		s1, s2 := make([]int16, n+2*margin), make([]int16, n+2*margin)
		blend(s1[margin:], rows[0], rows[1], n)
		blendGo(s2[margin:], rows[0], rows[1], n)
		require.Equal(t, s2[margin:margin+n], s1[margin:margin+n])
		for _, s := range [][]int16{s1, s2} {
			s[margin-1], s[margin+n] = s[margin], s[margin+n-1]
		}
		w1, w2 := make([]uint8, 2*n+2*margin), make([]uint8, 2*n+2*margin)
		widen(w1, s1, n, 8, 7)
		widenGo(w2, s2, n, 8, 7)
		require.Equal(t, w2[:2*n], w1[:2*n])
		c1, c2 := make([]uint8, 3*n), make([]uint8, 3*n)
		convert(c1, rows[0][:n], rows[1][:n], rows[2][:n])
		convertGo(c2, rows[0][:n], rows[1][:n], rows[2][:n])
		require.Equal(t, c2, c1)
	}
}

// TestMutated: no damage makes the decoder panic or go on for long.
func TestMutated(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var d Decoder
	for _, name := range []string{"j420.jpg", "j422-restart.jpg", "progressive.jpg", "cmyk.jpg", "exif6.jpg"} {
		whole := read(t, name)
		for i := range 400 {
			b := bytes.Clone(whole)
			for range 1 + r.IntN(4) {
				b[r.IntN(len(b))] = uint8(r.Uint32())
			}
			if i%3 == 0 {
				b = b[:r.IntN(len(b))]
			}
			_, _ = decode(&d, b, 1<<(i%4))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"j420.jpg", "j422-restart.jpg", "j444.jpg", "progressive.jpg", "cmyk.jpg", "gray.jpg", "exif6.jpg"} {
		f.Add(read(f, name), uint8(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, by uint8) {
		_, _ = decode(new(Decoder), b, 1<<(by%4))
	})
}
