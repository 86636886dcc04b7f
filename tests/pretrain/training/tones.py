"""A task for probes: tones of three frequencies, and tables of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.acoustics import Corruptor
from robustdistiller.pretrain.training.probe import Probe, ProbeConfig

FREQUENCIES_HZ = {"low": 150, "middle, so to say": 700, 'a "high" one': 2000}
MAX_SAMPLES = 8000
NOISY = "noise:snr_db=-10,noise=white"


def write_table(path: Path, lines: list[tuple[str, ...]], header: tuple[str, ...] = ("path", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def write_tones(folder: Path) -> list[tuple[str, str]]:
    """45 tones in a little noise, of three frequencies, in many lengths, three of them at another rate in stereo.

    Returns:
        Path relative to the folder, and label.
    """
    (folder / "audio").mkdir()
    generator = np.random.default_rng(1)
    lines = []
    for index in range(45):
        label = list(FREQUENCIES_HZ)[index % 3]
        rate_hz, channels = (44_100, 2) if index < 3 else (16_000, 1)
        time_s = np.arange(int(rate_hz * generator.uniform(0.2, 0.6))) / rate_hz
        hz, phase = FREQUENCIES_HZ[label] * generator.uniform(0.98, 1.02), generator.uniform(0, 6)
        samples = 0.2 * np.sin(2 * np.pi * hz * time_s + phase) + generator.normal(0, 0.005, len(time_s))
        name = f"audio/{index}, a tone.wav"
        soundfile.write(folder / name, np.tile(samples[:, None], channels), rate_hz)
        lines.append((name, label))
    return lines


def make_probe(table: Path, *conditions: str, **settings) -> Probe:
    corruptors = {condition: Corruptor(condition, seed=4) for condition in conditions}
    return Probe(ProbeConfig(every_steps=1, data=str(table), **settings), corruptors, MAX_SAMPLES)
