"""Mandarin syllables written in bopomofo: initial, final and tone as ASCII labels."""

from __future__ import annotations

from typing import NamedTuple

INITIALS = {
    **{"ㄅ": "b", "ㄆ": "p", "ㄇ": "m", "ㄈ": "f", "ㄉ": "d", "ㄊ": "t", "ㄋ": "n", "ㄌ": "l", "ㄍ": "g", "ㄎ": "k"},
    **{"ㄏ": "h", "ㄐ": "j", "ㄑ": "q", "ㄒ": "x", "ㄓ": "zh", "ㄔ": "ch", "ㄕ": "sh", "ㄖ": "r", "ㄗ": "z", "ㄘ": "c"},
    "ㄙ": "s",
}
RIMES = {
    **{
        "ㄧ": "i",
        "ㄨ": "u",
        "ㄩ": "v",
        "ㄚ": "a",
        "ㄛ": "o",
        "ㄜ": "e",
        "ㄝ": "eh",
        "ㄞ": "ai",
        "ㄟ": "ei",
        "ㄠ": "ao",
    },
    **{"ㄡ": "ou", "ㄢ": "an", "ㄣ": "en", "ㄤ": "ang", "ㄥ": "eng", "ㄦ": "er"},
}
TONES = {"": "tone1", "2": "tone2", "3": "tone3", "4": "tone4", "1": "neutral"}
NO_PART = "zero"  # a syllable without an initial, or a syllabic consonant without a final


class Syllable(NamedTuple):
    """The three slots of a syllable; `tone` is `"tone1"` to `"tone4"` or `"neutral"` (a bare digit would be read as a
    number)."""

    initial: str
    final: str
    tone: str

    @property
    def name(self) -> str:
        """An ASCII file name, such as `zh_u-an_tone2`."""
        return "_".join(self)


def parse_syllable(text: str) -> Syllable:
    """Splits a bopomofo syllable with an optional tone digit at its end.

    No digit is the first tone, and 1 the neutral tone: in the shipped recordings the few syllables with a 1 are the
    particles (such as ㄋㄜ1 beside ㄋㄜ) and clearly shorter. Finals are spelt symbol by symbol (`u-an`), not in
    pinyin, so that every label names exactly one final.

    Raises:
        ValueError: the text holds another symbol, or nothing but a tone.

    >>> parse_syllable("ㄓㄨㄢ2")
    Syllable(initial='zh', final='u-an', tone='tone2')
    >>> parse_syllable("ㄙ").final
    'zero'
    """
    digit = text[-1:] if text[-1:].isdigit() else ""
    symbols = text.removesuffix(digit)
    initial = INITIALS.get(symbols[:1])
    rest = symbols[1:] if initial else symbols
    if not symbols or digit not in TONES or any(symbol not in RIMES for symbol in rest):
        raise ValueError(f"not a bopomofo syllable with a tone digit up to 4: {text!r} (expected, say, 'ㄓㄨㄢ2')")
    return Syllable(initial or NO_PART, "-".join(RIMES[symbol] for symbol in rest) or NO_PART, TONES[digit])
