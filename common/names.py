"""Words of messages: names that do not exist, with those that were probably meant, and lengths of audio."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 40


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.5) -> list[str]:
    """The known names that look most like ``name``, in any case, best first.

    Args:
        name: what was given.
        known: what there is.
        most: return no more than these.
        cutoff: likeness from which on a name is returned, 0 to 1.

    Example:
        >>> nearest("SEDE", ["seed", "out_dir"])
        ['seed']
    """
    by_lower = {str(one).lower(): str(one) for one in known}
    return [by_lower[key] for key in difflib.get_close_matches(str(name).lower(), by_lower, n=most, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.5) -> str:
    """The end of a sentence about a name that does not exist: the known ones that begin with it and the nearest ones
    or, where there are none, a list.

    Args:
        name, known, most, cutoff: as for :func:`nearest`.

    Example:
        >>> "unknown key 'sede'" + did_you_mean("sede", ["seed", "out_dir"])
        "unknown key 'sede'; did you mean 'seed'?"
        >>> did_you_mean("zzz", ["seed", "out_dir"])
        '; known: seed, out_dir'
    """
    known, name = [str(one) for one in known], str(name)
    longer = sorted((one for one in known if len(name) > 2 and one.lower().startswith(name.lower())), key=len)
    near = list(dict.fromkeys([*longer, *nearest(name, known, most, cutoff)]))[:most]
    if near:
        *first, last = map(repr, near)
        return f"; did you mean {', '.join(first) + ' or ' if first else ''}{last}?"
    return f"; known: {', '.join(known) or 'none'}" if len(known) <= _LISTED else ""


def refuse_unknown(given: Iterable[str], known: Iterable[str], what: str, where: str = "") -> None:
    """Refuse names that are not known.

    Args:
        given: the names.
        known: what there is.
        what: what the names are of, as in ``unknown WHAT 'name'``.
        where: what they stand in.

    Raises:
        ValueError: for the first name that is not known.

    Example:
        >>> refuse_unknown(["snr"], ["snr_db", "rt60_s"], "key", "'noise:snr=5'")
        Traceback (most recent call last):
        ValueError: unknown key 'snr' in 'noise:snr=5'; did you mean 'snr_db'?
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise ValueError(f"unknown {what} {str(name)!r}{where and ' in ' + where}{did_you_mean(name, known)}")


def hours_in_words(hours: float) -> str:
    """A length of audio in the unit that suits it.

    >>> hours_in_words(1234.5), hours_in_words(0.5), hours_in_words(0.0001)
    ('1,234.5 h', '30.0 min', '0.4 s')
    """
    units = ((hours, "h"), (hours * 60, "min"), (hours * 3600, "s"))
    amount, unit = next((one for one in units if one[0] >= 1), units[-1])
    return f"{amount:,.1f} {unit}"
