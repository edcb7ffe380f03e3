package check

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/charmap"

	"diptych/data/arrowset"
)

func TestUnmojibake(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"ASCII", "a cafe", "a cafe"},
		{"sound", "the crème brûlée of a café – “really”…", "the crème brûlée of a café – “really”…"},
		{"sound Cyrillic", "кошка и собака", "кошка и собака"},
		{"sound Chinese", "一只猫", "一只猫"},
		{"sound emoji", "a 🐈‍⬛ and a ❤️", "a 🐈‍⬛ and a ❤️"},
		{"é", "cafÃ©", "café"},
		{"à", "voilÃ\u00a0", "voilà"},
		{"apostrophe", "donâ€™t", "don’t"},
		{"quotes and dash", "â€œwellâ€\u009d â€“ yes", "“well” – yes"},
		{"emoji", "a cat ðŸ˜€", "a cat 😀"},
		{"Cyrillic", "ÐºÐ¾Ñ‚", "кот"},
		{"twice", "cafÃƒÂ©", "café"},
		{"a capital and a closing quote", "the “CAFÉ”", "the “CAFÉ”"},
		{"capitals of Portuguese", "AMANHÃ”", "AMANHÃ”"},
		{"degrees", "30°C, ±5", "30°C, ±5"},
		{"accents side by side", "naïveté, Noëlle, ÀÉ", "naïveté, Noëlle, ÀÉ"},
		{"not valid", "Ã alone", "Ã alone"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, unmojibake(c.text)) })
	}
}

// FuzzUnmojibake misreads any text and wants it back, or at least no panic and valid text.
func FuzzUnmojibake(f *testing.F) {
	f.Add("crème brûlée")
	f.Add("donâ€™t")
	f.Fuzz(func(t *testing.T, s string) {
		require.True(t, utf8.ValidString(unmojibake(strings.ToValidUTF8(s, "?"))))
		if bad, err := charmap.Windows1252.NewDecoder().String(s); err == nil {
			require.True(t, utf8.ValidString(unmojibake(bad)))
		}
	})
}

func TestCaption(t *testing.T) {
	set := write(t, arrowset.Manifest{Name: "one"}, []arrowset.Row{{RowMeta: arrowset.RowMeta{ImageID: "a", Split: "train"}, Image: []byte{1}}})
	c := &checker{set: set}
	for _, tc := range []struct {
		name, text string
		want       []Kind
	}{
		{"sound", "a cat on a mat", nil},
		{"line break", "a cat\non a mat", nil},
		{"no characters", "", []Kind{CaptionEmpty}},
		{"white space", "\u00a0 \n", []Kind{CaptionBlank}},
		{"a zero width space alone", "\u200b", []Kind{CaptionBlank}},
		{"emoji with a joiner", "👩‍🚀", nil},
		{"escape", "a \x1b[1mcat", []Kind{CaptionControl}},
		{"entity", "cats &amp; dogs", []Kind{CaptionMarkup}},
		{"numeric entity", "it&#39;s", []Kind{CaptionMarkup}},
		{"no entity", "R&D; A&B", nil},
		{"tag", "a<br/>b", []Kind{CaptionMarkup}},
		{"person token", "<person> walks", nil},
		{"less than", "a < b and b > c", nil},
		{"address", "see www.example.org/a", []Kind{CaptionURL}},
		{"address and tag", "<a href=\"http://x.org\">x</a>", []Kind{CaptionURL, CaptionMarkup}},
		{"replacement", "caf\ufffd", []Kind{CaptionReplaced}},
		{"mojibake hides no control", "don\u00e2\u0080\u0099t", []Kind{CaptionMojibake}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []Kind
			for _, f := range c.caption(0, 0, tc.text) {
				got = append(got, f.Kind)
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestRepair(t *testing.T) {
	require.Equal(t, "it’s", repair(CaptionMojibake, "itâ€™s"))
	require.Equal(t, "ring the bell", repair(CaptionControl, "ring\a the \ufeffbell"))
	require.Equal(t, "salt & pepper  now", strings.TrimSpace(repair(CaptionMarkup, "salt &amp;amp; pepper<br> now")))
	for _, text := range []string{"a <b>b</b> &lt;c", "x &amp;lt;i&amp;gt; y"} { // what is left is not found again
		require.Empty(t, markup(repair(CaptionMarkup, text)))
	}
}

func TestComplete(t *testing.T) {
	thumbnail := "\xff\xd8\xff\xe1\x00\x06\xff\xd8\xff\xd9\xff\xda\x00\x02\x12\xff\x00\x34" // a segment that holds a whole JPEG
	for _, c := range []struct {
		name, format, file string
		want               bool
	}{
		{"JPEG", "jpeg", thumbnail + "\xff\xd9", true},
		{"JPEG with a tail", "jpeg", thumbnail + "\xff\xff\xd9tail", true},
		{"JPEG cut", "jpeg", thumbnail, false},
		{"JPEG cut in a segment", "jpeg", thumbnail[:8], false},
		{"PNG", "png", "\x89PNG\r\n\x1a\n\x00\x00\x00\x00IEND\xae\x42\x60\x82", true},
		{"PNG cut", "png", "\x89PNG\r\n\x1a\n\x00\x00\x00\x09IDAT\x00", false},
		{"PNG with a wild length", "png", "\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT\x00\x00\x00\x00", false},
		{"WebP", "webp", "RIFF\x04\x00\x00\x00WEBP", true},
		{"WebP cut", "webp", "RIFF\x40\x00\x00\x00WEBP", false},
		{"GIF", "gif", "GIF89a\x00\x00;\x00", true},
		{"GIF cut", "gif", "GIF89a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.format, formatOf([]byte(c.file)))
			require.Equal(t, c.want, complete(c.format, []byte(c.file)))
		})
	}
}

// FuzzPicture gives any bytes to the checks of a picture.
func FuzzPicture(f *testing.F) {
	f.Add([]byte("\xff\xd8\xff\xe1\x00\x06\xff\xd8\xff\xd9\xff\xda\x00\x02\x12\xff\x00\x34"))
	f.Add([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"))
	f.Add([]byte("RIFF\x04\x00\x00\x00WEBPVP8 "))
	f.Add([]byte("II*\x00\x08\x00\x00\x00"))
	set := write(f, arrowset.Manifest{Name: "one"}, []arrowset.Row{{RowMeta: arrowset.RowMeta{ImageID: "a.png", Split: "train"}, Image: []byte{1}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &checker{set: set, Options: Options{MaxPixels: 1 << 16, MinSide: 4}, sums: make([]sum, 1), looks: make([]uint64, 1)}
		c.picture(&pictureWorker{}, 0, b)
	})
}
