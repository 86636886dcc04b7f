"""Checks of numbers that a user gives."""

import math


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
