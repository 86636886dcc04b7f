"""Corrupting speech: ours against the released RobustDistiller's way on a CPU, its share of a step, and start-up."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from research.bench import corruption_audio as audio
from research.bench.corruption_step import split_of_a_step
from research.bench.measure import Comparison, Series, alternate, work_clock
from research.bench.released_corruption import ReleasedCorruption
from research.bench.settings import Findings, Settings
from robustdistiller.acoustics import CorruptionPolicy, Corruptor
from robustdistiller.mini.corpus import MiniCorpus
from robustdistiller.pretrain import load_config
from robustdistiller.pretrain.data.roots import open_sources

MIXES = {
    "the recipe's mix": CorruptionPolicy(),
    "noise files": CorruptionPolicy([{"noise:snr_db=0..20": 1}]),
    "white noise": CorruptionPolicy([{"noise:snr_db=0..20,noise=white": 1}]),
    "reverb": CorruptionPolicy([{"reverb": 1}]),
    "noise files and reverb": CorruptionPolicy([{"noise+reverb:snr_db=0..20": 1}]),
}


@dataclass(frozen=True)
class Speech:
    """Utterances, and how often they are corrupted in one measurement."""

    utterances: list[np.ndarray]
    passes: int

    @property
    def hours(self) -> float:
        """Audio corrupted in one measurement."""
        return self.passes * sum(map(len, self.utterances)) / audio.RATE_HZ / 3600

    def ours(self, corruptor: Corruptor) -> Callable[[], None]:
        """Every pass is another epoch: draw and apply."""

        def way() -> None:
            for epoch in range(self.passes):
                for index, one in enumerate(self.utterances):
                    corruptor.apply(one, corruptor.draw(f"utt-{index}", len(one), epoch))

        return way

    def released(self, released: ReleasedCorruption, like: Corruptor) -> Callable[[], None]:
        """The same operations and ratios in the same places, with the released way's own choice of files."""
        plan = [
            (torch.from_numpy(one), like.draw(f"utt-{index}", len(one), epoch))
            for epoch in range(self.passes)
            for index, one in enumerate(self.utterances)
        ]

        def way() -> None:
            for waveform, drawn in plan:
                white = drawn.get("noise", {}).get("kind") == "white"
                released.corrupt(waveform, drawn["operation"], drawn.get("snr_db"), white)

        return way


def run(settings: Settings) -> Findings:
    """Measures mixes on two kinds of sources, then what a training step and its start take."""
    corpus = audio.mini_corpus(settings.work)
    utterances = audio.utterances(corpus, 4 if settings.quick else 24, settings.seed)
    speech = Speech(utterances, 1 if settings.quick else 4)
    folder = settings.work / "corruption"
    libraries = {
        "16 kHz WAV": audio.plain_library(corpus, folder / "plain"),
        "44.1 and 48 kHz WAV": audio.released_library(corpus, folder / "released"),
    }
    comparisons = []
    for kind, library in libraries.items():
        equal = agreement(speech, library)
        comparisons += [_compare(mix, kind, speech, library, settings, equal) for mix in MIXES]
    s_per_audio_s = float(np.median(comparisons[0].ours_s)) / speech.hours / 3600
    text = (_HOW, split_of_a_step(corpus, settings, s_per_audio_s))
    return Findings(tuple(comparisons), (_start_up(corpus, libraries["16 kHz WAV"], settings),), text)


_HOW = (
    "The released way (see `released_corruption.py`) chooses from a list made once, reads whole files, resamples "
    "them each time, convolves over the full length, and does all of it in the training process. Ours runs in loader "
    "processes and reads what it needs. Both get the same operations and ratios for the same utterances, one by one. "
    "Seconds are of CPU time on one thread."
)


def _compare(mix: str, kind: str, speech: Speech, library: audio.Library, settings: Settings, equal: str) -> Comparison:
    sources = {"noise": library.noise, "rir": library.rir}
    corruptor = Corruptor(MIXES[mix], **sources, seed=settings.seed)
    released = ReleasedCorruption(library.noise_files, library.rir_files, settings.seed)
    ways = {"ours": speech.ours(corruptor), "peer": speech.released(released, corruptor)}
    times = alternate(ways, 1 if settings.quick else settings.rounds, device="cpu", clock=work_clock("cpu"))
    hours_per_s = {name: speech.hours / float(np.median(seconds)) for name, seconds in times.items()}
    return Comparison(
        part=f"{mix}, {kind}",
        ours="parts of files, block convolution",
        peer="released RobustDistiller",
        ours_s=times["ours"],
        peer_s=times["peer"],
        equal=equal,
        notes={"ours_hours_per_s": hours_per_s["ours"], "released_hours_per_s": hours_per_s["peer"]},
    )


def agreement(speech: Speech, library: audio.Library) -> str:
    """How far ratios are from those asked for, and samples from the released formulas on the same recordings."""
    corruptor = Corruptor(CorruptionPolicy(), library.noise, library.rir)
    names, rirs = ((4 * list(source.names))[:4] for source in (library.noise, library.rir.source))
    snr_db, lead = 7.0, library.rir.lead
    noise_off = reverb_off = ratio_off_db = 0.0
    for clean, name, rir in zip(speech.utterances, names, rirs):
        noise = {"kind": "file", "names": [name], "starts": [0]}
        found = corruptor.apply(clean, {"operation": "noise", "snr_db": snr_db, "noise": noise})
        recording, speech_ = torch.from_numpy(library.noise.read(name)), torch.from_numpy(clean)
        noise_off = max(
            noise_off, _distance(found, ReleasedCorruption.add_noise(speech_, recording, 0, snr_db).numpy())
        )
        powers = [np.square(part, dtype=np.float64).sum() for part in (clean, found - clean)]
        ratio_off_db = max(ratio_off_db, abs(10 * math.log10(powers[0] / powers[1]) - snr_db))
        found = corruptor.apply(clean, {"operation": "reverb", "rir": {"name": rir, "channel": 0, "level": "file"}})
        # Ours is what the released one gives from the direct path on.
        full, response = torch.nn.functional.pad(speech_, (0, lead)), torch.from_numpy(library.rir.read(rir, 0))
        expected = ReleasedCorruption.reverberate(full, response)[lead:]
        reverb_off = max(reverb_off, _distance(found, expected.numpy()))
    return f"noise {noise_off:.0e}, reverb {reverb_off:.0e} of the peak; SNR within {ratio_off_db:.0e} dB"


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _start_up(corpus: MiniCorpus, library: audio.Library, settings: Settings) -> Series:
    """Opening folders of more and more noise files as a training run does, the second time and later."""
    folder, counts = settings.work / "corruption" / "many", (100, 1000) if settings.quick else (3000, 30_000, 300_000)
    seconds = []
    for count in counts:
        audio.linked_noises(library.noise_files, folder / str(count), count)
        given = [f"data.noise=[{folder / str(count)}]", f"data.manifest_dir={folder / 'lists'}"]
        config, times = load_config("robustdistiller", given), []
        for _ in range(1 + (1 if settings.quick else settings.rounds)):
            started = time.perf_counter()
            open_sources(config, ["noise"])
            times.append(time.perf_counter() - started)
        seconds.append(tuple(times[1:]))
    shutil.rmtree(folder)
    return Series(
        "start-up, second time and later", "noise files", "s", counts, tuple(seconds), "0 is flat, 1 proportional."
    )
