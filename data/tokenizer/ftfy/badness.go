package ftfy

import (
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"
)

// categories are the characters that occur in UTF-8 read in another encoding, each as name and inside of a character class
// (ftfy.badness.MOJIBAKE_CATEGORIES). White space and word characters are those of Python.
var categories = []string{
	"{common}", "\u00a0\u00ad´·–—―’…",
	"{c1}", "\u0080-\u009f",
	"{bad}", "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\ufffd",
	"{law}", "§¶",
	"{currency}", "¢£¥₧€",
	"{start_punctuation}", "¡©«¿΄΅‘‚“„•‹\uf8ff",
	"{end_punctuation}", "®»˝”›™",
	"{numeric}", "±²³µ¹¼½¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥",
	"{kaomoji}", "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ",
	"{upper_accented}", "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ",
	"{lower_accented}", "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ",
	"{upper_common}", "ÞΆΈΉΊΌΎΏΑ-ΫЁ-Я",
	"{lower_common}", "ά-ωа-џ",
	"{box}", "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓",
	`\s`, `[\t-\r\x1c-\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`,
	`\w`, `[\p{L}\p{N}_]`,
}

// badness finds sequences that hardly anyone means to write (ftfy.badness.BADNESS_RE).
var badness = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(strings.NewReplacer(categories...).Replace(strings.Join([]string{
		`[{c1}]`,
		`[{bad}{lower_accented}{upper_accented}{box}{start_punctuation}{end_punctuation}{currency}{numeric}{law}][{bad}]`,
		`[a-zA-Z][{lower_common}{upper_common}][{bad}]`,
		`[{bad}][{lower_accented}{upper_accented}{box}{start_punctuation}{end_punctuation}{currency}{numeric}{law}]`,
		`[{lower_accented}{lower_common}{box}{end_punctuation}{currency}{numeric}][{upper_accented}]`,
		`[{box}{end_punctuation}{currency}{numeric}][{lower_accented}]`,
		`[{lower_accented}{box}{end_punctuation}][{currency}]`,
		`\s[{upper_accented}][{currency}]`,
		`[{upper_accented}{box}][{numeric}{law}]`,
		`[{lower_accented}{upper_accented}{box}{currency}{end_punctuation}][{start_punctuation}][{numeric}]`,
		`[{lower_accented}{upper_accented}{currency}{numeric}{box}{law}][{end_punctuation}][{start_punctuation}]`,
		`[{currency}{numeric}{box}][{start_punctuation}]`,
		`[a-z][{upper_accented}][{start_punctuation}{currency}]`,
		`[{box}][{kaomoji}]`,
		`[{lower_accented}{upper_accented}{currency}{numeric}{start_punctuation}{end_punctuation}{law}][{box}]`,
		`[{box}][{end_punctuation}]`,
		`[{lower_accented}{upper_accented}][{start_punctuation}{end_punctuation}]\w`,
		`[Œœ][^A-Za-z]`,
		`[{upper_accented}]°`,
		`[ÂÃÎÐ][€œŠš¢£Ÿž\xa0\xad®©°·»{start_punctuation}{end_punctuation}–—´]`,
		`×[²³]`,
		`[ØÙ][{common}{currency}{bad}{numeric}{start_punctuation}ŸŠ®°µ»][ØÙ][{common}{currency}{bad}{numeric}{start_punctuation}ŸŠ®°µ»]`,
		`à[²µ¹¼½¾]`,
		`√[±∂†≠®™´≤≥¥µø]`,
		`≈[°¢]`,
		`‚Ä[ìîïòôúùû†°¢π]`,
		`‚[âó][àä°ê]`,
		`вЂ`,
		`[ВГРС][{c1}{bad}{start_punctuation}{end_punctuation}{currency}°µ][ВГРС]`,
		`ГўВЂВ.[A-Za-z ]`,
		`Ã[\xa0¡]`,
		`[a-z]\s?[ÃÂ][ ]`,
		`^[ÃÂ][ ]`,
		`[a-z.,?!{end_punctuation}]Â[ {start_punctuation}{end_punctuation}]`,
		`β€[™\xa0Ά\xad®°]`,
		`[ΒΓΞΟ][{c1}{bad}{start_punctuation}{end_punctuation}{currency}°][ΒΓΞΟ]`,
		`ā€`,
	}, "|")))
})

// telling has the characters of which one is in every such sequence: all of the categories but letters of other alphabets.
var telling = func() map[rune]bool {
	m := map[rune]bool{'Ђ': true}
	for i := 0; i < len(categories); i += 2 {
		if name := categories[i]; name[0] == '{' && name != "{upper_common}" && name != "{lower_common}" {
			eachOf(categories[i+1], func(r rune) { m[r] = true })
		}
	}
	return m
}()

// isBad reports whether s holds such a sequence.
func isBad(s string) bool {
	// Every sequence has a telling character beside another one beyond ASCII, or one of these. Most captions have neither.
	before := rune(0)
	for _, r := range s {
		if r >= utf8.RuneSelf && before >= utf8.RuneSelf && (telling[r] || telling[before]) ||
			0x80 <= r && r <= 0x9F || r == 'Â' || r == 'Ã' || r == 'Œ' || r == 'œ' {
			return badness().MatchString(s)
		}
		before = r
	}
	return false
}

// eachOf calls f with the characters of a class, in which "-" stands between the first and the last of a range.
func eachOf(class string, f func(rune)) {
	runes := []rune(class)
	for i := 0; i < len(runes); i++ {
		last := runes[i]
		if i+2 < len(runes) && runes[i+1] == '-' {
			last = runes[i+2]
		}
		for r := runes[i]; r <= last; r++ {
			f(r)
		}
		if last != runes[i] {
			i += 2
		}
	}
}

// clue says which byte of a UTF-8 sequence a character may stand for, in any of the encodings (ftfy.chardata.UTF8_CLUES).
type clue uint8

const (
	first2       clue = 1 << iota // the first byte of two
	first3                        // of three
	first4                        // of four
	continuation                  // a further byte
	strict                        // the same, of a character that seldom stands for itself beside such sequences
)

var clues = func() map[rune]clue {
	m := make(map[rune]clue)
	for set, c := range map[string]clue{
		"Â-ßĀĂĆČĎĐĒĖĘĚĞĢĪİĶĹĻŁŃŅŇŌŐŘŚŞŠŢŪŮŰŲŹŻŽΒ-ΡΣ-ίВ-Я": first2,
		"à-ïāăąćčďēėęěģīįķĺļŕźΰ-οа-п":                     first3,
		"ðóđğšπσру":    first4,
		" –—―‘’‚“”„•…": continuation,
		"\u0080-¿ÆØæøĄąĽľŁłŒœŖŗŚśŞ-šŤťŸ-žƒˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁ-ЌЎЏё-ќўџҐґ†‡‰‹›€№™": continuation | strict,
	} {
		eachOf(set, func(r rune) { m[r] |= c })
	}
	return m
}()
