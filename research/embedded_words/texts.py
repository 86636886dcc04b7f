"""The words of a prompt as they are spoken, and when two spellings are one word."""

from __future__ import annotations

import re
import unicodedata

from robustdistiller.mini.prompt_text import UNCLEAR

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
DIGITS = {
    "en": "zero one two three four five six seven eight nine",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "ru": "ноль один два три четыре пять шесть семь восемь девять",
}
ACCENTS = "\u0300\u0301\u0302\u0303\u0308\u0327"  # not the breve, which makes another letter of a Russian one


def spoken(text: str, language: str) -> str | None:
    """The text with single digits as words, and without dots of omission and hyphens.

    Returns:
        None where the text does not tell what is said: symbols, numbers of several digits, stage directions.

    >>> spoken("...press 1, or re-enter", "en")
    'press one, or re enter'
    >>> spoken("<beep>", "en") is None
    True
    """
    text = re.sub(r"\.{2,}|…", " ", text)
    if UNCLEAR.search(text) or set("*#&@/") & set(text) or not re.search(r"\w", text):
        return None
    return digits_spoken(text, language)


def digits_spoken(text: str, language: str) -> str:
    """The text with each digit as a word, as a recogniser's output is to be read.

    >>> digits_spoken("Appuyez sur 1.", "fr")
    'Appuyez sur un.'
    """
    names = DIGITS[language].split()
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("-", " ")
    text = re.sub(r"\d", lambda match: f" {names[int(match.group())]} ", text)
    return re.sub(r"\s+(?=[,.;:!?])", "", " ".join(text.split()))


def words(text: str) -> list[str]:
    """The words of a text in lower case.

    >>> words("Appuyez sur l'étoile.")
    ['appuyez', 'sur', "l'étoile"]
    """
    return WORD.findall(text.lower())


def letters(text: str) -> str:
    """The letters of a text in lower case.

    >>> letters(" l'appel,")
    'lappel'
    """
    return "".join(mark for mark in text.lower() if mark.isalpha())


def same(word: str) -> str:
    """A word without accents, which the shipped Spanish and Russian texts leave out or not.

    >>> same("número"), same("ещё"), same("мой")
    ('numero', 'еще', 'мой')
    """
    plain = "".join(mark for mark in unicodedata.normalize("NFD", word) if mark not in ACCENTS)
    return unicodedata.normalize("NFC", plain)
