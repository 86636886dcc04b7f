"""Draws the corruption of utterances and fetches the audio it needs."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from .apply import CorruptionBatch, corrupt
from .band import band_reject_filter
from .condition import Condition
from .parameters import CorruptionParameters, NoiseParameters, RIRParameters, private_generator
from .plan import COLORS
from .policy import CorruptionPolicy
from .rirs import RIRSource
from .sources import AudioSource
from .synthesis import TABLE_SAMPLES, colored_noise, mix_talkers, rms, stretches_of_white_noise

logger = logging.getLogger(__name__)

_SILENCE = 1e-5  # a third of one step of 16-bit audio


class Corruptor:
    """Draws corruption parameters (``draw``) and turns them into tensors (``prepare``) that ``corrupt`` applies.

    What an utterance gets depends only on ``(seed, epoch, utterance_id)``, the policy or condition, and the sources:
    not on batch size, order or workers. Noise, room and operation have generators of their own, so that the same
    utterance meets the same noise at every SNR, with and without reverberation.

    Args:
        what: a ``CorruptionPolicy`` (training), a ``Condition`` or its one-line form (evaluation).
        noise: noise files; a path in the condition takes precedence.
        rir: impulse responses; a path in the condition takes precedence.
        speech: speech that babble is mixed from; keep it apart from the speech that is corrupted.
        seed: changes every draw.
        sample_rate_hz: rate of the waveforms.

    Raises:
        ValueError: noise, rooms or speech are needed and there is no source of them, or no room has the wanted
            reverberation time.

    >>> corruptor = Corruptor("noise:snr_db=10,noise=white", seed=1)
    >>> corruptor.draw("utt-1", num_samples=16000).to_dict()
    {'operation': 'noise', 'snr_db': 10.0, 'noise': {'kind': 'white', 'seed': 113901935}}
    """

    def __init__(
        self,
        what: CorruptionPolicy | Condition | str,
        noise: AudioSource | None = None,
        rir: RIRSource | None = None,
        speech: AudioSource | None = None,
        seed: int = 0,
        sample_rate_hz: int = 16000,
    ):
        self.what = Condition.parse(what) if isinstance(what, str) else what
        self.seed = seed
        self.sample_rate_hz = sample_rate_hz
        if isinstance(self.what, Condition):
            if self.what.side is not None:
                raise ValueError(f"{self.what}: side belongs to trials of two recordings and means nothing here")
            options = {"sample_rate_hz": sample_rate_hz}
            if self.what.needs_noise_files and self.what.noise:
                noise = AudioSource.from_path(self.what.noise, **options)
            if self.what.speech:
                speech = AudioSource.from_path(self.what.speech, **options)
            if self.what.rir:
                rir = RIRSource.from_path(self.what.rir, **options)
        self.noise = _needed(noise, self.what.needs_noise_files, "noise files", f"noise=PATH (or {', '.join(COLORS)})")
        self.speech = _needed(speech, self.what.needs_speech, "speech to mix babble from", "speech=PATH")
        self.rir = _needed(rir, self.what.needs_rirs, "room impulse responses", "rir=PATH")
        for source in (self.noise, self.speech, self.rir and self.rir.source):
            if source is not None and source.sample_rate_hz != sample_rate_hz:
                raise ValueError(f"a source at {source.sample_rate_hz} Hz cannot be used at {sample_rate_hz} Hz")
        if isinstance(self.what, CorruptionPolicy):
            self.what.check_sample_rate(sample_rate_hz)
        self._rooms = None
        if isinstance(self.what, Condition) and self.what.rt60_s is not None:
            self._rooms = self.rir.select(self.what.rt60_s, self.what.rt60_max_s)
        self._reported: set[str] = set()

    def draw(
        self, utterance_id: str, num_samples: int, epoch: int = 0, step: int | None = None, view: int = 0
    ) -> CorruptionParameters:
        """Draws what happens to one utterance.

        Args:
            utterance_id: its name.
            num_samples: its length, at the working rate.
            epoch: a new epoch brings a new draw.
            step: training step, for the curriculum of a policy; None means that the curriculum is over.
            view: 0, 1, ...: each is an independent draw for the same utterance and epoch, for recipes in which the
                teacher hears a corruption of its own, or the student hears two of one utterance.

        Raises:
            ValueError: no samples, or a negative view.

        >>> corruptor = Corruptor(CorruptionPolicy(0, 1, 0, 0, white_noise_probability=1.0))
        >>> [corruptor.draw("utt-1", 16000, view=view).snr_db for view in (0, 1, 0)]
        [2.0, 19.0, 2.0]
        """
        if num_samples <= 0:
            raise ValueError(f"utterance {utterance_id!r} has no samples; remove it")
        if view < 0:
            raise ValueError(f"view must be 0, 1, ..., found {view!r}")

        def generator(purpose: str) -> np.random.Generator:
            return private_generator(self.seed, epoch, utterance_id, f"{purpose}/{view}" if view else purpose)

        plan = self.what.plan(generator("operation"), step)
        noise = rir = None
        if plan.has_noise:
            noise = self._draw_noise(generator("noise"), plan.noise_kind, plan.talkers, num_samples)
        if plan.has_reverb:
            rir = RIRParameters(*self._draw_room(generator("rir")), plan.reverb_level)
        return CorruptionParameters(plan.operation, plan.snr_db, noise, rir, plan.pitch_cents, plan.band_hz)

    def prepare(self, parameters: Sequence[CorruptionParameters], num_samples: Sequence[int]) -> CorruptionBatch:
        """Reads and synthesises what the utterances of a batch need; meant to run in a data loading worker.

        A part of a noise recording that is silent is replaced by the next part that is not. A recording that is silent
        throughout is refused under a condition; under a policy it is logged and the utterance stays without noise.

        Args:
            parameters: one for each row of the batch.
            num_samples: valid samples of each row.

        Raises:
            ValueError: lengths that do not match, a recording that cannot be read or is silent.
        """
        if len(parameters) != len(num_samples):
            raise ValueError(f"{len(parameters)} parameters were given for {len(num_samples)} utterances")
        rows = list(zip(parameters, map(int, num_samples)))
        return CorruptionBatch.from_rows(
            parameters=parameters,
            num_samples=num_samples,
            noises=[self._noise_signal(one.noise, length) if one.noise else None for one, length in rows],
            responses=[self._response(one, length) for one, length in rows],
        )

    def describe(self) -> dict:
        """What defines the corruption, for records: the condition or policy, the seed and a digest of each source."""
        what = str(self.what) if isinstance(self.what, Condition) else self.what.to_dict()
        sources = {"noise": self.noise, "speech": self.speech, "rir": self.rir and self.rir.source}
        return {
            "what": what,
            "seed": self.seed,
            "sources": {name: source.digest() for name, source in sources.items() if source is not None},
        }

    def _draw_noise(self, generator: np.random.Generator, kind: str, talkers: int, num_samples: int) -> NoiseParameters:
        if kind == "white" and isinstance(self.what, CorruptionPolicy):
            starts = generator.integers(TABLE_SAMPLES, size=2)
            return NoiseParameters(kind, seed=self.seed % 2**32, starts=tuple(int(start) for start in starts))
        if kind in COLORS:
            return NoiseParameters(kind, seed=int(generator.integers(2**32)))
        source = self.speech if kind == "babble" else self.noise
        count = talkers if kind == "babble" else 1
        chosen = generator.choice(len(source), size=count, replace=count > len(source))
        names = tuple(source.names[index] for index in chosen)
        starts = []
        for name in names:
            total = source.num_samples(name)
            # A recording that is long enough is cropped; a shorter one is repeated, from anywhere in it.
            starts.append(int(generator.integers(total - num_samples + 1 if total >= num_samples else total)))
        return NoiseParameters(kind, names=names, starts=tuple(starts))

    def _draw_room(self, generator: np.random.Generator) -> tuple[str, int]:
        if self._rooms is not None:
            return self._rooms[generator.integers(len(self._rooms))]
        name = self.rir.source.names[generator.integers(len(self.rir))]
        return name, int(generator.integers(self.rir.source.info(name).num_channels))

    def _noise_signal(self, noise: NoiseParameters, num_samples: int) -> tuple[np.ndarray, float]:
        """The noise and its root mean square."""
        if noise.starts and not noise.names:
            signal = stretches_of_white_noise(num_samples, noise.seed, noise.starts)
        elif noise.kind in COLORS:
            signal = colored_noise(noise.kind, num_samples, noise.seed, self.sample_rate_hz)
        else:
            source = self.speech if noise.kind == "babble" else self.noise
            if source is None:
                raise ValueError(
                    f"parameters name {noise.kind} recordings ({noise.names[0]}, ...), no source was given"
                )
            parts = [self._sounding_part(source, *part, num_samples) for part in zip(noise.names, noise.starts)]
            signal = mix_talkers(parts) if noise.kind == "babble" else parts[0]
        return signal, rms(signal)

    def _sounding_part(self, source: AudioSource, name: str, start: int, num_samples: int) -> np.ndarray:
        part = source.read(name, start, num_samples)
        if np.abs(part[:1000]).max() > _SILENCE or np.abs(part).max() > _SILENCE:
            return part
        sounding = np.flatnonzero(np.abs(source.read(name, start)) > _SILENCE)
        if len(sounding):
            return source.read(name, (start + int(sounding[0])) % source.num_samples(name), num_samples)
        message = f"noise recording {name!r} ({source.piece(name).path}) is silent; remove it"
        if isinstance(self.what, Condition):
            raise ValueError(message)
        if name not in self._reported:
            self._reported.add(name)
            logger.warning("%s (its utterances stay without noise)", message)
        return np.zeros(num_samples, np.float32)

    def _response(self, parameters: CorruptionParameters, num_samples: int) -> tuple[np.ndarray, int] | None:
        """What the utterance is convolved with, and how many of its samples come before time zero."""
        if parameters.band_hz is not None:
            response = band_reject_filter(*parameters.band_hz, self.sample_rate_hz)
            lead = len(response) // 2
            return response[: num_samples + lead], lead
        rir = parameters.rir
        if rir is None:
            return None
        if self.rir is None:
            raise ValueError(f"parameters name the impulse response {rir.name!r}, no rir source was given")
        response = self.rir.read(rir.name, rir.channel)
        if rir.level != "file":
            response = response / self.rir.direct_gain(rir.name, response)
        return response[: num_samples + self.rir.lead], self.rir.lead


def corrupt_utterance(
    waveform: torch.Tensor | np.ndarray, corruptor: Corruptor, utterance_id: str, epoch: int = 0
) -> torch.Tensor | np.ndarray:
    """Draws, prepares and applies the corruption of one utterance, on the CPU.

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
    samples = torch.as_tensor(waveform, dtype=torch.float32).cpu()
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"utterance {utterance_id!r} must be (samples,) with samples, found {tuple(samples.shape)}")
    if not torch.isfinite(samples).all():
        raise ValueError(f"utterance {utterance_id!r} has NaN or infinite samples; repair the audio or remove it")
    parameters = corruptor.draw(utterance_id, len(samples), epoch)
    batch = corruptor.prepare([parameters], [len(samples)])
    corrupted = corrupt(samples[None], torch.tensor([len(samples)]), batch)[0]
    return corrupted if isinstance(waveform, torch.Tensor) else corrupted.numpy()


def _needed(source, needed: bool, what: str, option: str):
    """The source when it is needed, None when not."""
    if needed and source is None:
        raise ValueError(
            f"the corruption needs {what} and none were given; pass a source or write {option} in the condition"
        )
    return source if needed else None
