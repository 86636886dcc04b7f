"""The page: utterances under conditions, with spectrograms and players, and distances between features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.acoustics.effects.codec import encode
from robustdistiller.acoustics.listening.spectrogram import RANGE_DB, Spectrogram, draw_spectrogram, magnitudes
from robustdistiller.common.page.render import data_uri, render_page

BITRATE_KBPS = 64
_PEAK = 0.9


@dataclass
class Version:
    """An utterance under one condition.

    Attributes:
        condition: what was done to it.
        drawn: with what, as `Corruptor.draw` gives it.
        waveform: (samples,) float32 at 16 kHz.
        enhanced: the magnitude spectrum that an enhancement head made of it, (spectra, 257), if there is one.
        resynthesis: that spectrum as sound, (samples,).
    """

    condition: Condition
    drawn: Mapping[str, Any]
    waveform: np.ndarray
    enhanced: np.ndarray | None = None
    resynthesis: np.ndarray | None = None


@dataclass
class DistanceTable:
    """Distances for each layer and condition.

    Attributes:
        title: between what and what.
        formula: how they are computed, in a sentence or two.
        columns: titles of the conditions.
        rows: by layer, one distance per condition; None where there is none.
    """

    title: str
    formula: str
    columns: Sequence[str]
    rows: dict[str, list[float | None]] = field(default_factory=dict)


def make_versions(
    waveform: np.ndarray, utterance_id: str, corruptors: Mapping[Condition, Corruptor | None]
) -> list[Version]:
    """An utterance under each condition.

    Args:
        waveform: (samples,) float32 at 16 kHz.
        utterance_id: decides what is drawn, together with the seed of the corruptors.
        corruptors: by condition; None for clean.
    """
    versions = []
    for condition, corruptor in corruptors.items():
        if corruptor is None:
            versions.append(Version(condition, {}, waveform))
            continue
        drawn = corruptor.draw(utterance_id, len(waveform))
        versions.append(Version(condition, drawn, corruptor.apply(waveform, drawn)))
    return versions


def listening_page(
    utterances: Mapping[str, Sequence[Version]],
    model: str = "",
    distances: Sequence[DistanceTable] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        utterances: by name, each under the same conditions, the first of which is what the others are compared with.
        model: whose enhancement head and features are shown, if any.
        distances: of its features.
        notes: what is to be said beside.
    """
    return render_page(
        "robustdistiller.acoustics.listening",
        "listen.html",
        title="Speech under conditions",
        conditions=[version.condition for version in next(iter(utterances.values()))],
        utterances={name: _cards(versions) for name, versions in utterances.items()},
        model=model,
        distances=distances,
        notes=notes,
        range_db=f"{RANGE_DB:g}",
        bitrate_kbps=BITRATE_KBPS,
    )


@dataclass(frozen=True)
class _Card:
    title: str
    spelled: str
    details: str
    spectrogram: Spectrogram
    audio: str
    enhanced: Spectrogram | None
    enhanced_audio: str


def _cards(versions: Sequence[Version]) -> list[_Card]:
    spectra = [magnitudes(version.waveform) for version in versions]
    loudest = float(spectra[0].max())
    sounds = [version.waveform for version in versions]
    sounds += [version.resynthesis for version in versions if version.resynthesis is not None]
    # One factor for all versions, so that they can be compared, without clipping and audible if it is quiet.
    peak = max(float(np.abs(sound).max()) for sound in sounds)
    gain = np.float32(_PEAK / peak if peak > 0 else 1.0)
    return [
        _Card(
            title=version.condition.title,
            spelled=str(version.condition),
            details=_details(version.drawn),
            spectrogram=draw_spectrogram(spectrum, loudest),
            audio=_audio(version.waveform * gain),
            enhanced=None if version.enhanced is None else draw_spectrogram(version.enhanced, loudest),
            enhanced_audio="" if version.resynthesis is None else _audio(version.resynthesis * gain),
        )
        for version, spectrum in zip(versions, spectra)
    ]


def _audio(waveform: np.ndarray) -> str:
    return data_uri(encode("mp3", waveform, BITRATE_KBPS), "audio/mpeg")


def _details(drawn: Mapping[str, Any]) -> str:
    """What was drawn, one line of keys and values, but not what the condition says already."""
    parts = []
    for key, value in drawn.items():
        if key == "operation":
            continue
        text = ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) if isinstance(value, Mapping) else _plain(value)
        parts.append(f"{key}: {text}")
    return "; ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
