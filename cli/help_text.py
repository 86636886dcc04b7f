"""Help texts of several paragraphs, written at any width."""

from __future__ import annotations


def folded(text: str) -> str:
    """Each paragraph on one line, for the terminal to wrap; those that begin with a backspace stay as they are.

    >>> folded("One\\ntwo.\\n\\n\\b\\n  a list\\n  of two")
    'One two.\\n\\n\\x08\\n  a list\\n  of two'
    """
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(part if part.startswith("\b") else " ".join(part.split()) for part in paragraphs)
