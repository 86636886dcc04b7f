"""The characters of the prompts as tokens, numbered as s3prl's character encoder does."""

from __future__ import annotations

from collections.abc import Sequence

CHARACTERS = (" ", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
BLANK, END, UNKNOWN = 0, 1, 2
"""The first three tokens of s3prl's character encoder: padding, which is also CTC's blank; end of text; unknown."""


def encode_text(text: str) -> list[int]:
    """Tokens of a text as s3prl's character encoder makes them, with the end token last.

    >>> encode_text("A B")
    [5, 3, 6, 1]
    """
    return [CHARACTERS.index(character) + 3 if character in CHARACTERS else UNKNOWN for character in text] + [END]


def decode_tokens(tokens: Sequence[int]) -> str:
    """The text of tokens, up to the first end token; padding (blank or negative) is left out.

    >>> decode_tokens([5, 3, 6, 1, 7])
    'A B'
    """
    text = []
    for token in tokens:
        if token == END:
            break
        if token > UNKNOWN:
            text.append(CHARACTERS[token - 3])
    return "".join(text)
