"""Corpora of noise, rooms and speech as they are published: one file each, found by themselves, parts kept apart."""

from .find import LAYOUTS, detect_layout, known_layouts
from .layout import PURPOSES, split_of
from .pieces import corpus_pieces
from .spec import SourceSpec, root_weights

__all__ = [
    "LAYOUTS",
    "PURPOSES",
    "SourceSpec",
    "corpus_pieces",
    "detect_layout",
    "known_layouts",
    "root_weights",
    "split_of",
]
