"""Checks shared by everything that reads options from a user."""

import dataclasses
import difflib
import math
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `` (nearest: 'x')`` for an error message, or an empty string when nothing is near.

    >>> nearest("snr", ["snr_db", "rt60_s"])
    " (nearest: 'snr_db')"
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (nearest: {matches[0]!r})" if matches else ""


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises ValueError naming the first key of ``given`` that is not in ``known``, and the nearest known key.

    >>> refuse_unknown(["snr_db"], ["snr_db", "rt60_s"], "condition")
    """
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(
                f"unknown key {key!r} in {where}{nearest(str(key), known)}; known keys: {', '.join(known) or 'none'}"
            )


def check_range(name: str, value: float, low: float, high: float) -> float:
    """Returns ``value`` when it is a finite number inside ``[low, high]``, otherwise raises ValueError.

    >>> check_range("snr_db", 5.0, -40, 100)
    5.0
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, found {value!r}")
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, found {value!r}")
    return value


def dataclass_from_dict(cls, values: dict, where: str):
    """Builds the dataclass ``cls`` from a dict, refusing keys that are not fields (lists become tuples).

    >>> from robustdistiller.acoustics import CorruptionPolicy
    >>> dataclass_from_dict(CorruptionPolicy, {"snr_db": [5, 15]}, "corruption").snr_db
    (5, 15)
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping of options, found {type(values).__name__}: {values!r}")
    refuse_unknown(values, [field.name for field in dataclasses.fields(cls)], where)
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
