"""Reads policies of the first version, which had two modes with options of their own, as weighted tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.common.names import refuse_unknown

_MODES = ("single", "double")
_SINGLE = {
    "clean_probability": 0.25,
    "noise_probability": 0.25,
    "reverb_probability": 0.25,
    "noise_reverb_probability": 0.25,
    "white_noise_probability": 0.3,
    "babble_probability": 0.0,
}
_NOISES = {"file_noise_weight": 2.0, "white_noise_weight": 1.0, "babble_weight": 0.0, "no_noise_weight": 1.0}
_DISTORTIONS = {"reverb_weight": 1.0, "pitch_shift_weight": 1.0, "band_reject_weight": 1.0, "no_distortion_weight": 1.0}
_BANDS = {"pitch_cents": (-500, 500), "band_width_mel": (0, 150), "band_range_hz": (0, 8000)}
_BOTH = {"snr_db": (0, 20), "talkers": (3, 7), "reverb_level": "rms"}
_DEFAULTS = {**_SINGLE, **_BOTH, "mode": "single", **_NOISES, **_DISTORTIONS, **_BANDS}
#: What the shipped recipes say; options of old files are laid over these. Today noise is added first in both.
_RECIPES: tuple[dict[str, Any], ...] = tuple(
    {**recipe, "noise_added": added}
    for recipe in ({}, {"mode": "double", "snr_db": (10, 19)})
    for added in (None, "first")
)


def without_modes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a policy as of today.

    Args:
        values: options of today, of the first version, or of the first version over the ``tables`` of a shipped recipe.

    Raises:
        ValueError: probabilities that do not add up to 1, options of the first version over other tables.

    >>> without_modes({"noise_probability": 0.5, "reverb_probability": 0.0, "babble_probability": 0.7})["tables"]
    [{'clean': 0.25, 'noise:snr_db=0..20,noise=white': 0.15, 'noise:snr_db=0..20,noise=babble,talkers=3..7': 0.35, ...}]
    """
    old = {key: value for key, value in values.items() if key in _DEFAULTS and value is not None}
    kept = {key: value for key, value in values.items() if key not in _DEFAULTS}
    if not old:
        return {"tables": _tables(_DEFAULTS), **kept}
    bases = (base for base in _RECIPES if kept.get("tables") in (None, _tables({**_DEFAULTS, **base})))
    base = next(bases, None)
    refuse_unknown([old.get("mode", "single")], _MODES, "mode", "a policy of the first version")
    if base is None:
        raise ValueError(f"{next(iter(old))} is an option of the first version and cannot change tables; edit tables")
    return {**kept, "tables": _tables({**_DEFAULTS, **base, **old})}


def _tables(old: Mapping[str, Any]) -> list[dict[str, float]]:
    snr, talkers = _spelled(old["snr_db"]), _spelled(old["talkers"])
    noises = {"file": "", "white": ",noise=white", "babble": f",noise=babble,talkers={talkers}"}
    level = f"reverb_level={old['reverb_level']}" if old["reverb_level"] != "rms" else ""
    added = f",noise_added={old['noise_added']}" if old.get("noise_added") else ""
    if old["mode"] == "double":
        weights = {"file": "file_noise_weight", "white": "white_noise_weight", "babble": "babble_weight"}
        sounds = {f"noise:snr_db={snr}{noises[kind]}{added}": old[key] for kind, key in weights.items()}
        band = ",".join(f"{key}={_spelled(old[key])}" for key in ("band_width_mel", "band_range_hz"))
        distortions = {
            f"reverb:{level}".rstrip(":"): old["reverb_weight"],
            f"pitch_shift:pitch_cents={_spelled(old['pitch_cents'])}": old["pitch_shift_weight"],
            f"band_reject:{band}": old["band_reject_weight"],
        }
        sounds["clean"], distortions["clean"] = old["no_noise_weight"], old["no_distortion_weight"]
        return [_positive(sounds), _positive(distortions)]
    shares = [old[key] for key in _SINGLE][:4]
    if abs(sum(map(float, shares)) - 1) > 1e-6:
        raise ValueError(
            f"the probabilities of clean, noise, reverb and noise_reverb must add up to 1, found {sum(shares):g}"
        )
    white, babble = float(old["white_noise_probability"]), float(old["babble_probability"])
    of_noise = {"file": 1 - white - babble, "white": white, "babble": babble}
    table = {"clean": float(shares[0])}
    for kind, share in of_noise.items():
        table[f"noise:snr_db={snr}{noises[kind]}"] = float(shares[1]) * share
    table[f"reverb:{level}".rstrip(":")] = float(shares[2])
    for kind, share in of_noise.items():
        options = ",".join(filter(None, (f"snr_db={snr}{noises[kind]}{added}", level)))
        table[f"noise+reverb:{options}"] = float(shares[3]) * share
    return [_positive(table)]


def _positive(table: Mapping[str, float]) -> dict[str, float]:
    return {text: round(weight, 9) for text, weight in table.items() if abs(weight) > 1e-9}


def _spelled(pair: Any) -> str:
    low, high = pair if isinstance(pair, (list, tuple)) else (pair, pair)
    return f"{low}..{high}" if low != high else f"{low}"
