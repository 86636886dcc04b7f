"""Draws the corruption of utterances, and carries it out."""

from typing import Any

import numpy as np
import torch

from robustdistiller.common.audio import SAMPLE_RATE_HZ

from .audio.sources import AudioSource
from .condition import SOURCES, Condition
from .corpora import SourceSpec
from .effects import EFFECTS, Recordings, Sound, joined
from .effects.base import Parameters
from .parameters import effects_of, private_generator
from .policy import CorruptionPolicy
from .rooms import RIRSource

_SAY = {
    "noise": ("noise files", "noise=PATH (or white, pink, brown)"),
    "rir": ("room impulse responses", "rir=PATH"),
    "speech": ("speech to mix babble from, or of other talkers", "speech=PATH"),
    "music": ("music", "music=PATH"),
}


class Corruptor:
    """Draws what happens to an utterance (``draw``) and lets it happen (``apply``).

    What an utterance gets depends only on ``(seed, epoch, utterance_id)``, the policy or condition, and the sources:
    not on batch size, order or workers. Each effect has a generator of its own, so that the same utterance meets the
    same noise at every SNR, with and without reverberation.

    Args:
        what: a ``CorruptionPolicy`` (training), a ``Condition`` or its one-line form (evaluation).
        noise: noise files; a path in the condition takes precedence, here and below. It is that of a `SourceSpec`: of a
            known corpus, what serves as noise, rooms, speech or music is taken.
        rir: impulse responses.
        speech: speech for babble and other talkers; keep it apart from the speech that is corrupted.
        music: recordings of music.
        seed: changes every draw.
        sample_rate_hz: rate of the waveforms.

    Raises:
        ValueError: recordings are needed and there is no source of them, or no room has the wanted reverberation time.

    >>> corruptor = Corruptor("noise:snr_db=10,noise=white", seed=1)
    >>> corruptor.draw("utt-1", num_samples=16000)
    {'operation': 'noise', 'snr_db': 10.0, 'noise': {'kind': 'white', 'seed': 113901935}}
    """

    def __init__(
        self,
        what: CorruptionPolicy | Condition | str,
        noise: AudioSource | None = None,
        rir: RIRSource | None = None,
        speech: AudioSource | None = None,
        music: AudioSource | None = None,
        seed: int = 0,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
    ):
        self.what = Condition.parse(what) if isinstance(what, str) else what
        self.seed = seed
        given: dict[str, Any] = {"noise": noise, "rir": rir, "speech": speech, "music": music}
        if isinstance(self.what, Condition):
            if "side" in self.what:
                raise ValueError(f"{self.what}: side belongs to trials of two recordings and means nothing here")
            for effect in self.what.effects.values():
                effect.check_sample_rate(sample_rate_hz)
            for kind in SOURCES:
                if path := self.what.source(kind):
                    source = AudioSource(SourceSpec.parse(path).pieces(kind), sample_rate_hz)
                    given[kind] = RIRSource(source) if kind == "rir" else source
        else:
            self.what.check_sample_rate(sample_rate_hz)
        for kind, source in given.items():
            if kind not in self.what.needs:
                given[kind] = None
            elif source is None:
                what_is_needed, option = _SAY[kind]
                raise ValueError(
                    f"the corruption needs {what_is_needed} and none were given; pass a source or write {option} in "
                    "the condition"
                )
            else:
                rate_hz = (source.source if kind == "rir" else source).sample_rate_hz
                if rate_hz != sample_rate_hz:
                    raise ValueError(f"a source at {rate_hz} Hz cannot be used at {sample_rate_hz} Hz")
        self.recordings = Recordings(**given, sample_rate_hz=sample_rate_hz)
        for condition in [self.what] if isinstance(self.what, Condition) else self.what.drawn:
            if rt60_s := condition.get("rt60_s"):
                self.recordings.rir.select(rt60_s.low, None if rt60_s.is_single else rt60_s.high)

    def source(self, kind: str) -> AudioSource | None:
        """The recordings of a kind, one of `SOURCES`; None where none are needed."""
        source = getattr(self.recordings, kind)
        return source.source if isinstance(source, RIRSource) else source

    def draw(
        self, utterance_id: str, num_samples: int, epoch: int = 0, step: int | None = None, view: int = 0
    ) -> dict[str, Any]:
        """Draws what happens to one utterance.

        Args:
            utterance_id: its name.
            num_samples: its length, at the working rate.
            epoch: a new epoch brings a new draw.
            step: training step, for the curriculum of a policy; None means that the curriculum is over.
            view: 0, 1, ...: each is an independent draw for the same utterance and epoch, for recipes in which the
                teacher hears a corruption of its own, or the student hears two of one utterance.

        Returns:
            ``operation``, the effects joined by ``+``, and what each of them drew, as JSON holds it.

        Raises:
            ValueError: no samples, a negative view, or a recording that was drawn and cannot be read.

        >>> corruptor = Corruptor(CorruptionPolicy([{"noise:snr_db=0..20,noise=white": 1}]))
        >>> [corruptor.draw("utt-1", 16000, view=view)["snr_db"] for view in (0, 1, 0)]
        [13.0, 15.0, 13.0]
        """
        if num_samples <= 0:
            raise ValueError(f"utterance {utterance_id!r} has no samples; remove it")
        if view < 0:
            raise ValueError(f"view must be 0, 1, ..., found {view!r}")

        def generator(purpose: str) -> np.random.Generator:
            return private_generator(self.seed, epoch, utterance_id, f"{purpose}/{view}" if view else purpose)

        rng = generator("operation")
        effects = self.what.choose(rng, step).effects
        drawn: dict[str, Any] = {"operation": joined(set(effects))}
        for name in drawn["operation"].split("+") if effects else ():
            settled = effects[name].settled(rng)
            drawn |= settled.draw(generator(settled.stream), num_samples, self.recordings)
        return drawn

    def apply(self, waveform: np.ndarray, parameters: Parameters) -> np.ndarray:
        """An utterance after everything that was drawn for it.

        Args:
            waveform: (samples,) float32, finite, at least one sample. It is not changed.
            parameters: from `draw`, or from a manifest (`check_parameters`).

        Returns:
            (samples,) float32. Nothing is renormalised: samples may leave -1..1.

        >>> Corruptor("clean").apply(np.ones(3, np.float32), {"operation": "clean"})
        array([1., 1., 1.], dtype=float32)
        """
        speech = None
        for effect in (EFFECTS[name] for name in effects_of(parameters)):
            if issubclass(effect, Sound):
                speech = waveform if speech is None else speech
                waveform = waveform + effect.sound(speech, parameters, self.recordings)
            else:
                waveform = effect.apply(waveform, parameters, self.recordings)
        return waveform

    def describe(self) -> dict:
        """What defines the corruption, for records: the condition or policy, the seed and a digest of each source."""
        sources = {kind: self.source(kind) for kind in SOURCES}
        return {
            "what": str(self.what) if isinstance(self.what, Condition) else self.what.to_dict(),
            "seed": self.seed,
            "sources": {kind: source.digest() for kind, source in sources.items() if source is not None},
        }


def corrupt_utterance(
    waveform: torch.Tensor | np.ndarray, corruptor: Corruptor, utterance_id: str, epoch: int = 0
) -> torch.Tensor | np.ndarray:
    """Draws and applies the corruption of one utterance, on the CPU.

    Args:
        waveform: (samples,) all of them valid. It is not changed.
        corruptor: what to do.
        utterance_id: decides the draw, together with the corruptor's seed and the epoch.
        epoch: see ``Corruptor.draw``.

    Returns:
        (samples,) corrupted; a float32 tensor for a tensor, a float32 array for an array.

    Raises:
        ValueError: not one-dimensional, no samples, or NaN or infinite samples; the utterance is named.

    >>> corrupt_utterance(torch.ones(8), Corruptor("clean"), "utt-1").tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    samples = checked(waveform, utterance_id)
    corrupted = corruptor.apply(samples, corruptor.draw(utterance_id, len(samples), epoch))
    corrupted = corrupted.copy() if corrupted is samples else corrupted
    return torch.from_numpy(corrupted) if isinstance(waveform, torch.Tensor) else corrupted


def checked(waveform: torch.Tensor | np.ndarray, utterance_id: str) -> np.ndarray:
    """An utterance as (samples,) float32; ValueError for what `corrupt_utterance` refuses.

    >>> checked(np.zeros(0), "utt-1")
    Traceback (most recent call last):
    ValueError: utterance 'utt-1' must be (samples,) with samples, found (0,)
    """
    if isinstance(waveform, torch.Tensor):
        waveform = waveform.detach().cpu().float().numpy()
    samples = np.asarray(waveform, np.float32)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"utterance {utterance_id!r} must be (samples,) with samples, found {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(f"utterance {utterance_id!r} has NaN or infinite samples; repair the audio or remove it")
    return samples
