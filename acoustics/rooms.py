"""Room impulse responses from files: aligned to their direct path, chosen by their reverberation time."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustdistiller.common.files import write_text

from .audio.sources import AudioSource
from .responses import LEAD_S, direct_path_index, measure_rt60_s

logger = logging.getLogger(__name__)

RT60_TOLERANCE = 0.15
_ATTEMPTS = 100


class RIRSource:
    """Room impulse responses from files; every channel of a file is a response of its own.

    Args:
        source: the files. Use :meth:`from_path` or :meth:`from_manifest`.
        cache_dir: where measured reverberation times are remembered (by path, size and modification time); default
            ``$XDG_CACHE_HOME/robustdistiller/rt60`` or ``~/.cache/robustdistiller/rt60``.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/room.wav", [0.0, 0.0, -0.5, 0.1], 16000, subtype="FLOAT")
    ...     rirs = RIRSource.from_path(folder)
    ...     rirs.read("room.wav", channel=0)[rirs.lead :].tolist()
    [-0.5, 0.10000000149011612]
    """

    def __init__(self, source: AudioSource, cache_dir: str | Path | None = None):
        self.source = source
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustdistiller" / "rt60"
        self.cache_dir = Path(cache_dir) if cache_dir else default
        self._rt60s: dict[tuple[str, int], float | None] | None = None
        self._direct: dict[tuple[str, int], int] = {}
        self._silent: set[tuple[str, int]] = set()
        self._selected: dict[tuple[float, float | None], tuple[tuple[str, int], ...]] = {}

    @classmethod
    def from_path(cls, path: str | Path | Sequence[str | Path], cache_dir=None, **options) -> "RIRSource":
        """Lists response files as :meth:`AudioSource.from_path` does."""
        return cls(AudioSource.from_path(path, **options), cache_dir)

    @classmethod
    def from_manifest(cls, manifest: str | Path, options: dict | None = None, cache_dir=None, **where) -> "RIRSource":
        """Lists responses in long files as :meth:`AudioSource.from_manifest` does."""
        return cls(AudioSource.from_manifest(manifest, options, **where), cache_dir)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def lead(self) -> int:
        """Samples before the direct path in what :meth:`read` returns."""
        return round(LEAD_S * self.source.sample_rate_hz)

    def read(self, name: str, channel: int = 0) -> np.ndarray:
        """Reads a response, cut so that its direct path is at index ``lead``.

        Returns:
            (lead + taps,) float32, gain and polarity of the file, whatever its rate.

        Raises:
            ValueError: the response is silent (the file is named), or there is no such channel.
        """
        response = self.source.read(name, channel=channel)
        file_hz = self.source.info(name).sample_rate_hz
        if file_hz != self.source.sample_rate_hz:
            # Samples of a response are a density over time: with twice as many each counts half.
            response = response * np.float32(file_hz / self.source.sample_rate_hz)
        direct = self._direct.get((name, channel))
        if direct is None:
            try:
                direct = direct_path_index(response, self.source.sample_rate_hz)
            except ValueError as error:
                path = self.source.piece(name).path
                error = ValueError(f"{path} ({name}, channel {channel}): {error}; remove it")
                error.file = str(path)
                raise error from None
            self._direct[name, channel] = direct
        before = response[max(direct - self.lead, 0) : direct]
        return np.concatenate([np.zeros(self.lead - len(before), np.float32), before, response[direct:]])

    def direct_gain(self, name: str, response: np.ndarray) -> np.float32:
        """Gain of the direct sound in a ``response`` that :meth:`read` gave, with its sign.

        It is the sample at time zero; in a file at a lower rate an impulse is as much wider as it is lower.
        """
        file_hz = self.source.info(name).sample_rate_hz
        return response[self.lead] * np.float32(max(1.0, self.source.sample_rate_hz / file_hz))

    def rt60s(self) -> dict[tuple[str, int], float | None]:
        """Measured reverberation time in seconds of each (name, channel); None where it cannot be told."""
        if self._rt60s is None:
            self._rt60s = self._measure_all()
        return self._rt60s

    def select(self, rt60_s: float, rt60_max_s: float | None = None) -> tuple[tuple[str, int], ...]:
        """The responses, as (name, channel), whose measured reverberation time is within 15 % of ``rt60_s``.

        With ``rt60_max_s``, those whose reverberation time lies from ``rt60_s`` to ``rt60_max_s``, both included.

        Raises:
            ValueError: there is none; the message lists the reverberation times there are.
        """
        if (rt60_s, rt60_max_s) in self._selected:
            return self._selected[rt60_s, rt60_max_s]
        rt60s = self.rt60s()
        if rt60_max_s is None:
            wanted = f"within {RT60_TOLERANCE:.0%} of rt60_s={rt60_s:g}"
            chosen = tuple(key for key, value in rt60s.items() if value and abs(value / rt60_s - 1) <= RT60_TOLERANCE)
        else:
            wanted = f"with rt60_s={rt60_s:g}..{rt60_max_s:g}"
            chosen = tuple(key for key, value in rt60s.items() if value and rt60_s <= value <= rt60_max_s)
        if not chosen:
            known = sorted({round(value, 2) for value in rt60s.values() if value})
            listed = ", ".join(f"{value:g}" for value in known[:: max(len(known) // 20, 1)]) or "none could be measured"
            raise ValueError(
                f"no impulse response {wanted} among {len(rt60s)}; measured reverberation times (s): {listed}"
            )
        self._selected[rt60_s, rt60_max_s] = chosen
        return chosen

    def pick(self, rng: np.random.Generator, rt60_s: float | None = None, rt60_max_s: float | None = None):
        """Draws a response, as (name, channel), of all or of those that :meth:`select` gives.

        Silent ones, such as a dead microphone of an array, are passed over and logged.

        Raises:
            ValueError: a response cannot be read, or none that is tried can be used.
        """
        for _ in range(_ATTEMPTS):
            drawn = self._draw(rng, rt60_s, rt60_max_s)
            if not self._is_silent(*drawn):
                return drawn
        name, channel = drawn
        path = self.source.piece(name).path
        raise ValueError(f"of {_ATTEMPTS} impulse responses drawn all are silent, e.g. channel {channel} of {path}")

    def _draw(self, rng: np.random.Generator, rt60_s: float | None, rt60_max_s: float | None) -> tuple[str, int]:
        source = self.source
        if rt60_s is None:
            name = source.pick(rng)
            return name, int(rng.integers(source.info(name).num_channels))
        rooms = self.select(rt60_s, rt60_max_s)
        if source.shares is None:
            return rooms[rng.integers(len(rooms))]
        name = source.pick(rng, list(dict.fromkeys(name for name, _ in rooms)))
        channels = [channel for other, channel in rooms if other == name]
        return name, channels[rng.integers(len(channels))]

    def _is_silent(self, name: str, channel: int) -> bool:
        key = name, channel
        if key in self._direct or key in self._silent:
            return key in self._silent
        if self.source.read(name, channel=channel).any():
            return False
        self._silent.add(key)
        logger.warning(
            "channel %d of response %r (%s) is silent: passed over", channel, name, self.source.piece(name).path
        )
        return True

    def _measure_all(self) -> dict[tuple[str, int], float | None]:
        pieces = self.source.pieces
        listing = repr([(str(piece.path.resolve()), piece.frame_offset) for piece in pieces])
        cache_file = self.cache_dir / f"{hashlib.sha256(listing.encode()).hexdigest()[:16]}.json"
        remembered = _read_json(cache_file)
        if not remembered:
            logger.info("measuring the reverberation time of %d responses, once", len(pieces))
        stats = {path: path.stat() for path in {piece.path for piece in pieces}}
        facts, measured = {}, {}
        for piece in pieces:
            stat = stats[piece.path]
            position = f"{piece.path.resolve()}|{piece.frame_offset}|{piece.num_frames}"
            for channel in range(self.source.info(piece.name).num_channels):
                key = f"{position}|{channel}|{stat.st_size}|{stat.st_mtime_ns}|{self.source.sample_rate_hz}"
                if key in remembered:
                    facts[key] = remembered[key]
                elif self._is_silent(piece.name, channel):
                    facts[key] = None
                else:
                    facts[key] = measure_rt60_s(self.read(piece.name, channel), self.source.sample_rate_hz)
                measured[piece.name, channel] = facts[key]
        if facts != remembered:
            _write_json(cache_file, facts)
        return measured


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("ignoring the unreadable cache %s (%s)", path, error)
        return {}


def _write_json(path: Path, values: dict) -> None:
    try:
        write_text(path, json.dumps(values))
    except OSError as error:
        logger.warning("reverberation times are measured again next time: cannot write %s (%s)", path, error)
