"""Writes texts as real ftfy repairs them, which the tests of data/tokenizer/ftfy read: lines of JSON, [text, repaired text].

  python ftfy_texts.py --n 60000 --seed 7 texts.jsonl
  go test ./data/tokenizer/ftfy -run TestEqualsPython -args -texts $PWD/texts.jsonl

The texts are sentences that went through one to three wrong encodings, some with lost bytes, spaces for no-break spaces or
CESU-8, mixtures of them with others, random characters of those that occur in such texts, marks, HTML references, escapes.
testdata/texts.jsonl is --n 800 --seed 1 with ftfy 6.3.1.
"""

import argparse
import html.entities
import json
import random

import ftfy
from ftfy.badness import MOJIBAKE_CATEGORIES
from ftfy.chardata import CHARMAP_ENCODINGS

SENTENCES = [
    "a photo of the large small red Blue two dogs", "Cat's riding horse-drawn near x-ray café naïve O'Brien", "50% $20 e.g. U.S. Ph.D. rock'n'roll",
    "à la mode", "às vezes é àquela", "voilà le travail", "L’épée “dit-il” — très été…", "日本語のテキスト", "Привет мир", "Ελληνικά κείμενο", "العربية نص",
    "हिन्दी", "한국어", "😀👍🏽 ok", "naïve façade – 50€ ½", "Ünïcödé ŠŽ", "“quotes”", "™ © ® ° µ", "中文", "Łódź Gdańsk", "İstanbul ığü", "žluťoučký kůň",
    "ﬁne ﬂour Ǆ ŉ", "ＦＵＬＬ　ｗｉｄｔｈ ｶﾞ", "<b>AT&amp;T</b>", "P&EACUTE;REZ &lt; &NOTIT; &hearts; &SZLIG;",
]
CHARACTERS = [c for c in "".join(MOJIBAKE_CATEGORIES.values()) if c != "-"]


def spoil(rng, s):
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        encoding = rng.choice(CHARMAP_ENCODINGS + ["sloppy-windows-1252"] * 4)
        b, r = s.encode(), rng.random()
        if r < 0.15:
            b = b.replace(b"\xa0", b" ")
        elif r < 0.25:
            b = b"".join(bytes([x]) if x < 0x80 or rng.random() < 0.8 else rng.choice([b"\x1a", b"?"]) for x in b)
        elif r < 0.3:
            b = b.replace(b"\xed", b"\xed\xa0\x80\xed\xb0\x80") + rng.choice([b"\xc0\x80", b"\xc0\n", b"\xed\xa0\x80\xed\xb0\n"])
        s = b.decode(encoding, errors="replace")
    return s


def text(rng):
    kind, s = rng.random(), rng.choice(SENTENCES)
    if kind < 0.5:
        s = spoil(rng, s)
    elif kind < 0.6:
        s += rng.choice([" ", "", "\n"]) + spoil(rng, rng.choice(SENTENCES)) + " " + rng.choice(SENTENCES)
    elif kind < 0.8:
        s = "".join(rng.choice(CHARACTERS) if rng.random() < 0.7 else rng.choice("aAzZ .,?!\n \t\r\x85\u2028é") for _ in range(rng.randrange(1, 12)))
    elif kind < 0.85:
        s = "".join(rng.choice("aé\u0301\u0316\u0302\u0323e가각") for _ in range(rng.randrange(1, 100)))
    elif kind < 0.9:
        s = "".join(chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x20, 0xD800), rng.randrange(0xE000, 0x11000)])) for _ in range(rng.randrange(1, 30)))
    elif kind < 0.95:
        names = sorted(html.entities.html5)
        s = " ".join("&" + rng.choice(names).replace(";", "")[: rng.randrange(1, 12)] + rng.choice([";", ";", ""]) for _ in range(4))
        s = rng.choice([s, s.upper(), f"{s}&#{rng.randrange(70000)};", f"&#x{rng.randrange(0x120000):x};"])
    else:
        s = rng.choice(["\x1b[31m", "\x1b[1;2mX", "\ufeff", "\u2018a\u201d", "\ufffc"]) + s + "\x1b[" + s
    return "".join(c for c in s if not 0xD800 <= ord(c) < 0xE000)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--n", type=int, default=800)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("out")
    a = p.parse_args()
    rng = random.Random(a.seed)
    with open(a.out, "w", encoding="ascii", newline="\n") as f:
        for _ in range(a.n):
            s = text(rng)
            f.write(json.dumps([s, ftfy.fix_text(s)]) + "\n")


if __name__ == "__main__":
    main()
