"""Words as they are said, from a WAV file heard like a microphone, with onnxruntime, numpy and soundfile alone.

    python examples/edge/make_model.py                       # once: the model and a test, about ten minutes
    python examples/edge/keywords.py examples/edge/model/keywords.onnx examples/edge/model/test.wav --snr-db 10

The first lines say how large and how fast the model is. Copy this file into your own program.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
REST_S = 0.8  # for which a word that was found is not found again


class Spotter:
    """A stream: samples in, in pieces of any length, and the probabilities of the words out.

    Args:
        path: of the model.
        threads: of the CPU.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        notes = self.session.get_modelmeta().custom_metadata_map
        self.notes = {name: json.loads(notes[name]) for name in ("labels", "stream", "parameters", "sample_rate_hz")}
        self.labels, self.rate_hz = self.notes["labels"], self.notes["sample_rate_hz"]
        self.hop, self.size = (self.notes["stream"][name] for name in ("hop_samples", "block_samples"))
        self.names = [output.name for output in self.session.get_outputs()]
        self.restart()

    def restart(self) -> None:
        """Forget what was heard."""
        # From the first sample of the next block on.
        self.samples = np.zeros(self.notes["stream"]["padding_samples"], np.float32)
        self.begins, self.steps = True, 0
        self.state = {
            put.name: np.zeros((1, *put.shape[1:]), TYPES[put.type])
            for put in self.session.get_inputs()
            if put.name.startswith("state.")
        }

    def push(self, samples: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        """Time in seconds of the end of a step, and its probabilities ``(classes,)``, every ``hop`` samples."""
        self.samples = np.concatenate([self.samples, samples.astype(np.float32)])
        while len(self.samples) >= self.size:
            given = {
                "samples": self.samples[None, : self.size],
                "num_samples": np.array([self.size], np.int64),
                "begins": np.array([self.begins]),
                **self.state,
            }
            found = dict(zip(self.names, self.session.run(None, given)))
            self.state = {name: found[name.replace("state.", "next.", 1)] for name in self.state}
            self.samples, self.begins, self.steps = self.samples[self.hop :], False, self.steps + 1
            yield self.steps * self.hop / self.rate_hz, found["probabilities"][0]


def words(spotter: Spotter, pieces: Iterator[np.ndarray], threshold: float) -> Iterator[tuple[float, str, float]]:
    """Time, word and confidence of every word: the mean of two steps' probabilities is above the threshold."""
    before, last = np.zeros(len(spotter.labels)), {}
    for piece in pieces:
        for time_s, probabilities in spotter.push(piece):
            mean, before = (before + probabilities) / 2, probabilities
            best = int(mean.argmax())
            word = spotter.labels[best]
            if mean[best] < threshold or word.startswith("_"):
                continue
            if time_s - last.get(word, -REST_S) >= REST_S:
                yield time_s, word, float(mean[best])
            last[word] = time_s


def add_noise(speech: np.ndarray, snr_db: float, noise: np.ndarray) -> np.ndarray:
    """Speech with noise, which is repeated, at a ratio of the mean powers."""
    noise = np.resize(noise, len(speech)).astype(np.float32)
    power = np.mean(speech**2) / 10 ** (snr_db / 10)
    return speech + noise * np.sqrt(power / np.mean(noise**2))


def read(path: str, rate_hz: int) -> np.ndarray:
    """A mono WAV file of the model's rate."""
    samples, found_hz = soundfile.read(path, dtype="float32")
    if found_hz != rate_hz or samples.ndim != 1:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        raise SystemExit(
            f"{path} has {channels} channels at {found_hz} Hz; expected 1 at {rate_hz} Hz: convert it first"
        )
    return samples


def microphone(samples: np.ndarray, rate_hz: int, paced: bool) -> Iterator[np.ndarray]:
    """Pieces of 20 ms; paced, they come when they would be heard."""
    started_s = time.monotonic()
    for start in range(0, len(samples), rate_hz // 50):
        if paced:
            time.sleep(max(0.0, started_s + start / rate_hz - time.monotonic()))
        yield samples[start : start + rate_hz // 50]


def real_time_factor(spotter: Spotter, seconds: int = 10) -> float:
    """Seconds of work per second of audio."""
    noise = np.random.default_rng(0).normal(0, 0.01, seconds * spotter.rate_hz)
    for _ in spotter.push(noise[: spotter.rate_hz]):  # the first runs are slower
        pass
    started_s = time.perf_counter()
    for _ in spotter.push(noise):
        pass
    took_s = time.perf_counter() - started_s
    spotter.restart()
    return took_s / seconds


def main(arguments: list[str] | None = None) -> None:
    """Print the words of a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="keywords.onnx or keywords-int8.onnx")
    parser.add_argument("wav", help="mono, 16 kHz")
    parser.add_argument("--snr-db", type=float, help="add noise at so many dB below the speech")
    parser.add_argument("--noise", help="a WAV file of noise; left out: white noise")
    parser.add_argument("--threshold", type=float, default=0.6, help="least confidence of a word, 0 to 1")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--paced", action="store_true", help="hear the file as fast as it was said")
    given = parser.parse_args(arguments)
    spotter = Spotter(given.model, given.threads)
    size_mb, factor = Path(given.model).stat().st_size / 1e6, real_time_factor(spotter)
    latency_ms, hop_ms = spotter.notes["stream"]["latency_ms"], 1000 * spotter.hop / spotter.rate_hz
    print(
        f"model   {spotter.notes['parameters'] / 1e6:.2f} M parameters, {size_mb:.1f} MB, {len(spotter.labels)} classes"
    )
    print(
        f"speed   real-time factor {factor:.3f} on {given.threads} thread(s): {1 / factor:.0f} times as fast as speech"
    )
    print(f"stream  a step each {hop_ms:.0f} ms, the first after {latency_ms:.0f} ms")
    samples = read(given.wav, spotter.rate_hz)
    if given.snr_db is not None:
        noise = (
            read(given.noise, spotter.rate_hz) if given.noise else np.random.default_rng(0).normal(size=len(samples))
        )
        samples = add_noise(samples, given.snr_db, noise)
        print(f"noise   {given.noise or 'white'}, {given.snr_db:g} dB below the speech")
    samples = np.concatenate([samples, np.zeros(spotter.size, np.float32)])
    for time_s, word, confidence in words(spotter, microphone(samples, spotter.rate_hz, given.paced), given.threshold):
        print(f"{time_s:7.2f} s  {word:<12} {confidence:.2f}", flush=True)


if __name__ == "__main__":
    main()
