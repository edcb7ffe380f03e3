package ftfy

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

var texts = flag.String("texts", "testdata/texts.jsonl", "`file` of texts and what ftfy makes of them, of tests/peers/ftfy_texts.py")

func readTexts(t testing.TB) [][2]string {
	t.Helper()
	f, err := os.Open(*texts)
	require.NoError(t, err)
	defer f.Close()
	var pairs [][2]string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var p [2]string
		require.NoError(t, json.Unmarshal(s.Bytes(), &p))
		pairs = append(pairs, p)
	}
	require.NoError(t, s.Err())
	return pairs
}

func TestEqualsPython(t *testing.T) {
	pairs, changed := readTexts(t), 0
	for i, p := range pairs {
		require.Equalf(t, p[1], Fix(p[0]), "line %d: %q", i+1, p[0])
		if p[0] != p[1] {
			changed++
		}
	}
	require.Greater(t, changed, len(pairs)/2)
}

func TestFix(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "a red fruit", "a red fruit"},
		{"accents are right", "schön, à la mode, œuf", "schön, à la mode, œuf"},
		{"UTF-8 as Latin-1", "schÃ¶n", "schön"},
		{"twice", "schÃƒÂ¶n", "schön"},
		{"spaces for A0", "voilÃ le travail", "voilà le travail"},
		{"Portuguese", "Ã s vezes", "às vezes"},
		{"lost bytes", "â€œ like this â€�", `" like this �`},
		{"a part", "œuf: schÃ¶n, –", "œuf: schön, –"},
		{"C1", "a\u0085b", "a…b"},
		{"reference", "P&EACUTE;REZ &lt; &notit; &#65; &#59;", "PÉREZ < &notit; A &#59;"},
		{"upper case of two letters", "BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"},
		{"HTML", "<b>&lt;\n&lt;", "<b>&lt;\n&lt;"},
		{"HTML after a line", "&lt;\n", "<\n"},
		{"ligatures, widths, quotes", "ﬂuﬃ ＬＯＵＤ　ｶﾞ “it’s”", "fluffi LOUD ガ \"it's\""},
		{"controls", "\x1b[36;44mblue\x1b[0m\x07\ufeff", "blue"},
		{"line breaks", "a\r\nb\rc\u2028d", "a\nb\nc\nd"},
		{"composed", "e\u0301", "é"},
		{"a NUL of Java before a line feed", "Ã©À\n", "é"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Fix(c.in)) })
	}
}

// A line longer than maxSegment is cut into pieces, as there, even where that hides a mix-up.
func TestFixLongLine(t *testing.T) {
	cut := strings.Repeat("a", maxSegment-1) + "Ð¶ "
	require.Equal(t, cut+"ж", Fix(cut+"Ð¶"))
}

// Runs of marks longer than package norm takes are put in order all the same, and quickly.
func TestComposeManyMarks(t *testing.T) {
	const n = 100_000
	got := compose("e" + strings.Repeat("\u0301\u0316", n))
	require.Equal(t, "é"+strings.Repeat("\u0316", n)+strings.Repeat("\u0301", n-1), got)
	require.Equal(t, "각\u034f", compose("\u1100\u1161\u11a8\u034f"))
}

func TestFixPlainDoesNotAllocate(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { Fix("a café by the water, twice") }))
}

func FuzzFix(f *testing.F) {
	for _, p := range readTexts(f)[:200] {
		f.Add(p[0])
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "\uFFFD")
		fixed := Fix(s)
		require.True(t, utf8.ValidString(fixed))
		if !strings.ContainsAny(fixed, "<\n") {
			require.Equal(t, fixed, Fix(fixed), "repairing is done when it is done")
			if strings.Count(norm.NFC.String(fixed), "\u034f") == strings.Count(fixed, "\u034f") {
				require.True(t, norm.NFC.IsNormalString(fixed))
			}
		}
	})
}

func BenchmarkFix(b *testing.B) {
	for name, s := range map[string]string{
		"ascii": "A black dog and a spotted dog are fighting over a stick near the water.", "accents": "A café with a naïve dog near the water.",
		"broken": "Un chien noir prÃ¨s de l’eau", "cyrillic": "Чёрная собака у воды",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Fix(s)
			}
		})
	}
}
