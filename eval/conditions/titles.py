"""How a condition is shown and ordered in tables and plots."""

from __future__ import annotations

from robustdistiller.acoustics import Condition

_KINDS = ("clean", "noise", "reverb", "noise+reverb")


def _parse(condition: str) -> Condition | None:
    try:
        return Condition.parse(condition)
    except ValueError:  # a record of another release: shown as it is
        return None


def condition_title(condition: str) -> str:
    """Short human form of a condition's one-line form.

    Example:
        >>> condition_title("noise+reverb:snr_db=10,rt60_s=0.6")
        'noise 10 dB + reverb 0.6 s'
        >>> condition_title("noise:noise=white,snr_db=-5"), condition_title("reverb"), condition_title("clean")
        ('white noise -5 dB', 'reverb', 'clean')
        >>> condition_title("noise:snr_db=10..20,noise=chime"), condition_title("reverb:rt60_s=0.25..0.5,side=test")
        ('chime noise 10 to 20 dB', 'reverb 0.25 to 0.5 s, test side')
    """
    parsed = _parse(condition)
    return condition if parsed is None else parsed.title


def condition_order(condition: str) -> tuple:
    """Sort key: clean, noise from high to low SNR, reverberation from short to long, both, anything else."""
    parsed = _parse(condition)
    if parsed is None:
        return len(_KINDS), 0.0, 0.0, condition
    kind = _KINDS.index(parsed.kind) if parsed.kind in _KINDS else len(_KINDS)
    snr_db, rt60_s = (parsed.get(key) for key in ("snr_db", "rt60_s"))
    return kind, -snr_db.low if snr_db else 0.0, rt60_s.low if rt60_s else 0.0, condition
