"""How a condition is shown and ordered in tables and plots."""

from __future__ import annotations

import re
from pathlib import PurePath

_KINDS = ("clean", "noise", "reverb", "noise+reverb")


def _split(condition: str) -> tuple[str, dict[str, str]]:
    kind, _, rest = condition.partition(":")
    return kind, dict(part.partition("=")[::2] for part in rest.split(",") if "=" in part)


def condition_title(condition: str) -> str:
    """Short human form of a condition's canonical one-line form.

    Example:
        >>> condition_title("noise+reverb:snr_db=10,rt60_s=0.6")
        'noise 10 dB + reverb 0.6 s'
        >>> condition_title("noise:noise=white,snr_db=-5"), condition_title("reverb"), condition_title("clean")
        ('white noise -5 dB', 'reverb', 'clean')
    """
    kind, keys = _split(condition)
    source = PurePath(keys.pop("noise", "")).name
    snr, rt60, rir = keys.pop("snr_db", ""), keys.pop("rt60_s", ""), PurePath(keys.pop("rir", "")).name
    noise = " ".join(part for part in (source, "noise", f"{snr} dB" if snr else "") if part)
    reverb = " ".join(part for part in ("reverb", rir, f"{rt60} s" if rt60 else "") if part)
    parts = {"noise": noise, "reverb": reverb}
    rest = "".join(f" {key}={PurePath(value).name}" for key, value in keys.items())
    return " + ".join(parts.get(part, part) for part in kind.split("+")) + rest


def condition_order(condition: str) -> tuple:
    """Sort key: clean, noise from high to low SNR, reverberation from short to long, both, anything else.

    Example:
        >>> sorted(["reverb", "noise:snr_db=0", "clean", "noise:snr_db=10"], key=condition_order)
        ['clean', 'noise:snr_db=10', 'noise:snr_db=0', 'reverb']
    """
    kind, keys = _split(condition)
    rank = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    return rank, kind, -_first_number(keys.get("snr_db", "")), _first_number(keys.get("rt60_s", "")), condition


def _first_number(text: str) -> float:
    found = re.search(r"-?\d+(\.\d+)?", text)
    return float(found.group()) if found else 0.0
