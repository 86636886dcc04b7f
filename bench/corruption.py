"""Corrupting speech: ours against the released RobustDistiller's way, on one CPU thread or one GPU."""

from __future__ import annotations

import cProfile
import ctypes
import math
import pstats
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustdistiller.acoustics import (
    AudioInfo,
    AudioSource,
    CorruptionParameters,
    CorruptionPolicy,
    Corruptor,
    NoiseParameters,
    Piece,
    RIRParameters,
    RIRSource,
    corrupt,
)
from robustdistiller.acoustics.decoded import decode
from robustdistiller.mini.corpus import MiniCorpus

from . import corruption_audio as audio
from .corruption_step import split_of_a_step
from .measure import Comparison, Series, alternate, work_clock
from .released_corruption import ReleasedCorruption
from .settings import Findings, Settings

TARGET = 20.0

#: What is measured: name, probabilities of clean, noise, reverb, noise+reverb, share of white noise.
_RECIPE = "the recipe's mix"
MIXES = {
    _RECIPE: (0.25, 0.25, 0.25, 0.25, 0.3),
    "noise files": (0.0, 1.0, 0.0, 0.0, 0.0),
    "white noise": (0.0, 1.0, 0.0, 0.0, 1.0),
    "reverb": (0.0, 0.0, 1.0, 0.0, 0.3),
    "noise files and reverb": (0.0, 0.0, 0.0, 1.0, 0.0),
}


@dataclass(frozen=True)
class Speech:
    """A batch of utterances, zero past their ends, and how often it is corrupted in one measurement."""

    waveforms: Tensor
    lengths: list[int]
    passes: int

    @property
    def hours(self) -> float:
        """Audio corrupted in one measurement."""
        return self.passes * sum(self.lengths) / audio.RATE_HZ / 3600

    def ours(self, corruptor: Corruptor) -> Callable[[], None]:
        """Every pass is another epoch: draw, prepare, apply."""
        device, lengths = self.waveforms.device, torch.tensor(self.lengths)

        def way() -> None:
            for epoch in range(self.passes):
                drawn = [corruptor.draw(f"utt-{i}", n, epoch) for i, n in enumerate(self.lengths)]
                corrupt(self.waveforms, lengths, corruptor.prepare(drawn, self.lengths).to(device))

        return way

    def released(self, released: ReleasedCorruption, like: Corruptor) -> Callable[[], None]:
        """The same operations and ratios in the same places, with the released way's own choice of files."""
        plan = [[like.draw(f"utt-{i}", n, epoch) for i, n in enumerate(self.lengths)] for epoch in range(self.passes)]

        def way() -> None:
            for drawn in plan:
                rows = []
                for row, length, one in zip(self.waveforms, self.lengths, drawn):
                    white = one.noise is not None and one.noise.kind == "white"
                    rows.append(released.corrupt(row[:length], one.operation, one.snr_db, white))
                torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

        return way


def run(settings: Settings) -> Findings:
    """Measures mixes on two kinds of sources, then cost against files and response lengths, then a training step."""
    corpus = audio.mini_corpus(settings.work)
    speech = _speech(audio.utterances(corpus, 4 if settings.quick else 24, settings.seed), settings)
    libraries = {
        "16 kHz WAV": audio.plain_library(corpus, settings.work / "corruption" / "plain"),
        "44.1 and 48 kHz WAV": audio.released_library(corpus, settings.work / "corruption" / "released"),
    }
    comparisons, text = [], [_HOW, *([_KEPT] if keep_freed_memory() else [])]
    for kind, library in libraries.items():
        place = settings.work / "corruption" / kind.replace(" ", "-")
        shutil.rmtree(place, ignore_errors=True)
        started = time.process_time()
        library.decode(place)
        decode_s = time.process_time() - started
        equal = _agreement(speech, library)
        comparisons += [_compare(mix, kind, speech, library, settings, equal, decode_s) for mix in MIXES]
    series = [
        _cost_by_files(speech, libraries["16 kHz WAV"], settings),
        *_cost_by_response(speech, corpus, settings),
    ]
    if settings.device == "cpu":
        text.append(_share_of_fft(speech, libraries["16 kHz WAV"], settings))
    text.append(split_of_a_step(corpus, settings))
    return Findings(tuple(comparisons), tuple(series), tuple(text))


_HOW = (
    "The released way (see `bench/released_corruption.py`) chooses from a list made once, reads whole files, resamples "
    "them each time, convolves over the full length, and does all of it in the training process, utterance by "
    "utterance. Ours reads from recordings that were decoded once (`decode_s`, CPU seconds, is what that took) and are "
    "shared by all loader processes. Both get the same operations and ratios for the same utterances, without padding. "
    "On the CPU, seconds are of CPU time on one thread."
)
_KEPT = (
    "In both ways the process keeps the memory that it frees. As glibc is set by default, it often gives it back and "
    "gets it again, and the clearing of fresh pages may take longer than corrupting with noise."
)


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, blocks of up to 32 MiB; whether there is a glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_threshold, 2**25))


def _speech(utterances: list[np.ndarray], settings: Settings) -> Speech:
    waveforms = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in utterances], batch_first=True)
    return Speech(waveforms.to(settings.device), [len(one) for one in utterances], 1 if settings.quick else 4)


def _policy(mix: str) -> CorruptionPolicy:
    *probabilities, white = MIXES[mix]
    return CorruptionPolicy(*probabilities, white_noise_probability=white)


def _times(ways: dict, settings: Settings) -> dict[str, tuple[float, ...]]:
    rounds = 1 if settings.quick else settings.rounds
    return alternate(ways, rounds, device=settings.device, clock=work_clock(settings.device))


def _compare(
    mix: str, kind: str, speech: Speech, library: audio.Library, settings: Settings, equal: str, decode_s: float
) -> Comparison:
    corruptor = Corruptor(_policy(mix), library.noise, library.rir, seed=settings.seed)
    released = ReleasedCorruption(library.noise_files, library.rir_files, settings.seed)
    times = _times({"ours": speech.ours(corruptor), "peer": speech.released(released, corruptor)}, settings)
    hours_per_s = {name: speech.hours / float(np.median(seconds)) for name, seconds in times.items()}
    return Comparison(
        part=f"{mix}, {kind}",
        ours="decoded sources, block convolution",
        peer="released RobustDistiller",
        ours_s=times["ours"],
        peer_s=times["peer"],
        equal=equal,
        target=TARGET if mix == _RECIPE else None,
        notes={
            "ours_hours_per_s": hours_per_s["ours"],
            "released_hours_per_s": hours_per_s["peer"],
            "decode_s": decode_s,
        },
    )


def _agreement(speech: Speech, library: audio.Library) -> str:
    """How far ratios are from those asked for, and samples from the released formulas on the same recordings."""
    waveforms, lengths = speech.waveforms.cpu()[:4], speech.lengths[:4]
    names, rirs = ((4 * list(source.names))[: len(lengths)] for source in (library.noise, library.rir.source))
    snr_db = 7.0
    noises = [NoiseParameters("file", names=(name,), starts=(0,)) for name in names]
    noisy = [CorruptionParameters("noise", snr_db, noise) for noise in noises]
    wet = [CorruptionParameters("reverb", rir=RIRParameters(name, 0, "file")) for name in rirs]
    corruptor = Corruptor(CorruptionPolicy(), library.noise, library.rir)
    found_noisy, found_wet = (
        corrupt(waveforms, torch.tensor(lengths), corruptor.prepare(drawn, lengths)) for drawn in (noisy, wet)
    )
    noise_off = reverb_off = ratio_off_db = 0.0
    for row, (length, clean) in enumerate(zip(lengths, waveforms)):
        clean = clean[:length]
        recording = torch.from_numpy(library.noise.read(names[row]))
        expected = ReleasedCorruption.add_noise(clean, recording, 0, snr_db)
        noise_off = max(noise_off, _distance(found_noisy[row, :length], expected))
        added = (found_noisy[row, :length] - clean).double()
        ratio_db = 10 * math.log10(float(clean.double().square().sum() / added.square().sum()))
        ratio_off_db = max(ratio_off_db, abs(ratio_db - snr_db))
        lead = library.rir.lead
        # Ours is what the released one gives from the direct path on.
        full = torch.nn.functional.pad(clean, (0, lead))
        expected = ReleasedCorruption.reverberate(full, torch.from_numpy(library.rir.read(rirs[row], 0)))[lead:]
        reverb_off = max(reverb_off, _distance(found_wet[row, :length], expected))
    return f"noise {noise_off:.0e}, reverb {reverb_off:.0e} of the peak; SNR within {ratio_off_db:.0e} dB"


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _cost_by_files(speech: Speech, library: audio.Library, settings: Settings) -> Series:
    """Noise from folders of more and more files, not decoded, their headers known as in a training run."""
    folder = settings.work / "corruption" / "many"
    header = AudioInfo(audio.RATE_HZ, round(audio.MUSAN_S * audio.RATE_HZ), 1, exact_seek=True)
    ways = {}
    for count in (10, 100, 1000) if settings.quick else (10, 1000, 100_000):
        files = audio.linked_noises(library.noise_files, folder / str(count), count)
        pieces = [Piece(path.name, str(path)) for path in files]
        source = AudioSource(pieces, infos={piece.file: header for piece in pieces})
        ways[count] = speech.ours(Corruptor(_policy("noise files"), source, seed=settings.seed))
    found = _series("noise by number of files, not decoded, ours", "files", ways, speech, settings)
    shutil.rmtree(folder)
    return found


def _cost_by_response(speech: Speech, corpus: MiniCorpus, settings: Settings) -> list[Series]:
    """Responses of more and more taps: ours decoded, as in a training run, and the released way."""
    folder, policy, found = settings.work / "corruption" / "lengths", _policy("reverb"), []
    for rate_hz in (16_000, 48_000):
        ours, peers = {}, {}
        for duration_s in (0.25, 1.0) if settings.quick else (0.25, 0.5, 1.0, 2.0, 4.0):
            place = folder / f"{duration_s:g}s-{rate_hz}"
            files = audio.rooms_of_length(corpus, place, duration_s, rate_hz)
            source = AudioSource.from_path(place)
            source.decoded = decode(source, folder / f"{place.name}.decoded", of_channels=True, progress=False)
            corruptor = Corruptor(policy, rir=RIRSource(source), seed=settings.seed)
            ours[duration_s] = speech.ours(corruptor)
            peers[duration_s] = speech.released(ReleasedCorruption([], files, settings.seed), corruptor)
        for name, ways in (("ours", ours), ("the released way", peers)):
            part = f"reverb by length of the response, {rate_hz // 1000} kHz files, {name}"
            found.append(_series(part, "response_s", ways, speech, settings))
    return found


def _series(part: str, x_name: str, ways: dict, speech: Speech, settings: Settings) -> Series:
    times = _times({str(size): way for size, way in ways.items()}, settings)
    per_hour = tuple(tuple(seconds / speech.hours for seconds in times[str(size)]) for size in ways)
    return Series(part, x_name, "s_per_hour_of_audio", tuple(ways), per_hour, "0 is flat, 1 proportional.")


def _share_of_fft(speech: Speech, library: audio.Library, settings: Settings) -> str:
    """What of our reverberation on the CPU is the FFT itself, which bounds what can be gained on SciPy's."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(speech.ours(Corruptor(_policy("reverb"), rir=library.rir, seed=settings.seed)))
    rows = pstats.Stats(profile).stats
    total_s = max(row[3] for row in rows.values())
    fft_s = sum(row[2] for place, row in rows.items() if "c2r" in place[2] or "r2c" in place[2])
    return (
        f"Of our reverberation on the CPU, {fft_s / total_s:.0%} is the FFT itself. The released way spends about half "
        "of its time in the same FFT, of full length: on one CPU thread this bounds what reverberation can gain."
    )
