"""Transcripts of the English prompts in the characters of the SUPERB speech recognition task."""

from __future__ import annotations

import re

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
SYMBOLS = {"*": "STAR", "#": "POUND"}
# Sound effects, stage directions, numbers and addresses that can be read in several ways.
UNCLEAR = re.compile(r"[<>()\[\]]|\d{2,}|\w\.\w")


def normalise(text: str) -> str | None:
    """Upper-case words of A-Z and apostrophes; None where the written text does not tell what is said.

    Single digits, `*` and `#` become words, other punctuation a space.

    >>> normalise("press * to toggle pause, press 4 now.")
    'PRESS STAR TO TOGGLE PAUSE PRESS FOUR NOW'
    >>> normalise("<beep ascending>") is None
    True
    """
    if UNCLEAR.search(text):
        return None
    upper = text.upper().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    upper = re.sub(r"\d", lambda match: f" {DIGITS[int(match.group())]} ", upper)
    upper = re.sub(r"[*#]", lambda match: f" {SYMBOLS[match.group()]} ", upper)
    words = [word.strip("'") for word in re.sub(r"[^A-Z']+", " ", upper).split()]
    return " ".join(word for word in words if word) or None
