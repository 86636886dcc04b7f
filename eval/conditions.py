"""How a condition is shown and ordered in tables and plots."""

from __future__ import annotations

from pathlib import PurePath

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
    if parsed is None or parsed.kind == "clean":
        return condition
    parts = []
    if "noise" in parsed.kind:
        source = PurePath(parsed.noise or "").name
        sound = source if source == "babble" else f"{source} noise".strip()
        parts.append(
            f"{sound} {_span(parsed.snr_db, parsed.snr_max_db)} dB"
            + (f", {parsed.talkers} talkers" if parsed.talkers else "")
        )
    if "reverb" in parsed.kind:
        room = f"{_span(parsed.rt60_s, parsed.rt60_max_s)} s" if parsed.rt60_s else ""
        words = ["reverb", PurePath(parsed.rir or "").name, room]
        parts.append(" ".join(word for word in words if word))
        if parsed.reverb_level:
            parts[-1] += f" ({parsed.reverb_level} level)"
    return " + ".join(parts) + (f", {parsed.side} side" if parsed.side else "")


def _span(low: float, high: float | None) -> str:
    return f"{low:g}" if high is None else f"{low:g} to {high:g}"


def condition_order(condition: str) -> tuple:
    """Sort key: clean, noise from high to low SNR, reverberation from short to long, both, anything else.

    Example:
        >>> sorted(["reverb", "noise:snr_db=0", "clean", "noise:snr_db=10"], key=condition_order)
        ['clean', 'noise:snr_db=10', 'noise:snr_db=0', 'reverb']
    """
    parsed = _parse(condition)
    if parsed is None:
        return len(_KINDS), 0.0, 0.0, condition
    return _KINDS.index(parsed.kind), -(parsed.snr_db or 0.0), parsed.rt60_s or 0.0, condition
