"""The training data: FLAC through the loader, memory over a long run, and start-up on very many files.

The other ways are a plain loop over `soundfile.read`, which neither checks, crops, shuffles nor pads, and a manifest of
lhotse, which is what the files' headers would otherwise be kept in.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import shutil
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet
from torch.utils.data import DataLoader

from research.bench.corruption_audio import RATE_HZ, mini_corpus, utterances
from research.bench.measure import Comparison, Series, alternate, work_clock
from research.bench.settings import Findings, Settings
from robustdistiller.pretrain.data.cuts import FileCut, as_cut, id_digest
from robustdistiller.pretrain.data.dataset import BatchStream, SpeechBatches, make_loader
from robustdistiller.pretrain.data.speech import speech_cuts

START_UP_TARGET_S = 10.0
_MAX_SAMPLES = 250_000
_EPOCHS = 3
_PER_FOLDER = 100


def run(settings: Settings) -> Findings:
    """Speed, then memory and start-up on a tree of hard links to a few short files."""
    folder = settings.work / "data"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        speed = _speed(settings, folder)
        counts = (100, 1000) if settings.quick else (3000, 30_000, 300_000)
        trees = [_Tree(folder / f"tree-{count}", count, settings.seed) for count in counts]
        start_up, text = _start_up(trees, settings)
        listed = _against_lhotse(trees[-1], settings)
        memory = _memory(trees[-1], settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Findings((*speed, listed), (start_up, *memory), (text, _MEMORY if memory else _NO_MEMORY))


_MEMORY = (
    "Memory is that of the training process and its loader processes (proportional set size), while batches of 24 are "
    "taken from the largest of these trees; the first figure is after lhotse's sampler has filled its buffer."
)
_NO_MEMORY = "Memory was not measured: this system has no /proc/PID/smaps_rollup."


def _loader(cuts: Sequence[FileCut], seed: int, workers: int) -> DataLoader:
    return make_loader(BatchStream(cuts, _MAX_SAMPLES, batch_size=24, seed=seed), SpeechBatches(), workers)


def _speed(settings: Settings, folder: Path) -> list[Comparison]:
    """Epochs of utterances of 4 to 15.6 s in FLAC, in this process by its work, and in processes by the wall."""
    speech = folder / "speech"
    speech.mkdir(parents=True)
    corpus = mini_corpus(settings.work)
    for index, samples in enumerate(utterances(corpus, 30 if settings.quick else 400, settings.seed)):
        soundfile.write(speech / f"{index:04d}.flac", samples, RATE_HZ)
    cuts, (report,) = speech_cuts([str(speech)], folder / "lists")

    def ours(workers: int, epochs: int = _EPOCHS) -> Iterator[tuple[str, np.ndarray]]:
        batches = iter(_loader(cuts, settings.seed, workers))
        left = epochs * len(cuts)
        while left:
            batch = next(batches)
            left -= len(batch.ids)
            for name, row, length in zip(batch.ids, batch.waveforms.numpy(), batch.lengths.tolist()):
                yield name, row[:length]

    def plain(epochs: int = _EPOCHS) -> Iterator[tuple[str, np.ndarray]]:
        for cut in epochs * list(cuts):
            yield cut.id, soundfile.read(cut.file, dtype="float32")[0]

    theirs = dict(plain(1))
    same = sum(np.array_equal(samples, theirs.pop(name)) for name, samples in ours(0, 1))
    equal = f"{same} of {len(cuts)} utterances bit for bit"
    rounds, workers = 1 if settings.quick else settings.rounds, min(os.cpu_count() or 1, 8)
    cases = [
        ("work of one process", 0, work_clock("cpu")),
        (f"on the wall, {workers} loader processes and their start", workers, time.perf_counter),
    ]
    found, hours = [], _EPOCHS * report.hours
    for part, workers, clock in cases:
        ways = {"ours": lambda workers=workers: _drain(ours(workers)), "peer": lambda: _drain(plain())}
        times = alternate(ways, rounds, clock=clock)
        hours_per_s = {name: hours / float(np.median(seconds)) for name, seconds in times.items()}
        notes = {"ours_hours_per_s": hours_per_s["ours"], "plain_hours_per_s": hours_per_s["peer"]}
        found.append(
            Comparison(
                f"{hours:.2f} h of FLAC, {part}", "loader: shuffled, bucketed, padded", "loop over soundfile",
                times["ours"], times["peer"], equal, notes=notes,
            )
        )  # fmt: skip
    return found


def _drain(samples: Iterator) -> None:
    deque(samples, maxlen=0)


class _Tree:
    """A folder of very many short FLAC files: hard links to a few, a hundred to a subfolder."""

    def __init__(self, root: Path, count: int, seed: int):
        self.root, self.count, self.lists = root, count, root.with_name(f"{root.name}-lists")
        rng = np.random.default_rng(seed)
        originals = root.with_name(f"{root.name}-originals")
        originals.mkdir(parents=True)
        for index in range(50):
            path = originals / f"{index}.flac"
            soundfile.write(path, 0.1 * rng.standard_normal(1600 + 10 * index), RATE_HZ)
        for index in range(count):
            place = root / f"{index // _PER_FOLDER:04d}"
            if index % _PER_FOLDER == 0:
                place.mkdir(parents=True)
            os.link(f"{originals}/{index % 50}.flac", f"{place}/{index % _PER_FOLDER:02d}.flac")

    def cuts(self) -> list[FileCut]:
        return speech_cuts([str(self.root)], self.lists)[0]

    def start(self) -> tuple[float, float]:
        """Seconds on the wall, and of work, until the first batch is there: list, headers, digest, buckets, buffer."""
        started = time.perf_counter(), time.process_time()
        cuts = self.cuts()
        id_digest(cuts)
        next(iter(_loader(cuts, 0, 0)))
        return time.perf_counter() - started[0], time.process_time() - started[1]


def _start_up(trees: Sequence[_Tree], settings: Settings) -> tuple[Series, str]:
    first = [tree.start() for tree in trees]
    later = [[tree.start() for _ in range(1 if settings.quick else settings.rounds)] for tree in trees]
    sizes, work_s = tuple(tree.count for tree in trees), tuple(tuple(work for _, work in times) for times in later)
    series = Series("start-up after the first time", "files", "work_s", sizes, work_s, "1 is proportional.")
    wall_s = statistics.median(wall for wall, _ in later[-1])
    met = "met" if wall_s < START_UP_TARGET_S else "not met"
    return series, (
        f"Start-up, until the first batch is there, on {sizes[-1]:,} files: {first[-1][0]:.1f} s on the wall "
        f"({first[-1][1]:.1f} s of work) the first time, when the headers are read, {wall_s:.1f} s "
        f"({series.medians[-1]:.1f} s of work) later (target {START_UP_TARGET_S:g} s on the wall: {met}). Files were "
        "in the system's cache both times, imports are not counted; every start looks up size and time of each file."
    )


def _against_lhotse(tree: _Tree, settings: Settings) -> Comparison:
    """The same list from lhotse's own manifest; neither folder nor files are looked at."""
    cuts = tree.cuts()
    manifest = tree.lists / "lhotse.jsonl.gz"
    with gzip.open(manifest, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(as_cut(cut).to_dict()) + "\n" for cut in cuts)
    read: dict[str, Sequence] = {}
    ways = {
        "ours": lambda: read.update(ours=tree.cuts()),
        "peer": lambda: read.update(peer=list(CutSet.from_file(manifest))),
    }
    times = alternate(ways, 1 if settings.quick else min(settings.rounds, 3), warm_up=0, clock=work_clock("cpu"))
    same = id_digest(read["ours"]) == id_digest(read["peer"])
    return Comparison(
        f"list of {tree.count:,} recordings, known before", "folder listed, files looked up, headers from our cache",
        "lhotse's manifest", times["ours"], times["peer"], f"ids and lengths {'the same' if same else 'DIFFER'}",
    )  # fmt: skip


def _memory(tree: _Tree, settings: Settings) -> tuple[Series, ...]:
    if not Path("/proc/self/smaps_rollup").exists():
        return ()
    every, points = (2, 3) if settings.quick else (1000, 10)
    batches = iter(_loader(tree.cuts(), settings.seed, 2))
    taken, memory_mb = [], []
    for point in range(1, points + 1):
        for _ in islice(batches, every):
            pass
        taken.append(point * every)
        memory_mb.append((_memory_mb(),))
    return (Series("memory over a long run", "batches", "memory_MB", tuple(taken), tuple(memory_mb), "0 is flat."),)


def _memory_mb() -> float:
    """Of this process and its children."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
