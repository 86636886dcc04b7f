"""Make the model that keywords.py and the page run, from what is in this repository: python examples/edge/make_model.py

A two-layer student is distilled from the embedded teacher in noise and rooms, and fine-tuned to tell ten words apart
from other speech and from silence. One voice said each of them once or twice for training, and once for the test, as
the embedded corpus is divided. So this shows how things fit together, on real recordings; it does not show how well
words of other voices are found.

Written into --out: keywords.onnx and keywords-int8.onnx, each a step of streams with the head in it; keywords.json,
their notes for the page; test.wav and test.tsv.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly

from robustdistiller import mini
from robustdistiller.mini.pack import is_speech, read_audio, read_pack
from robustdistiller.pretrain import distill, load_config
from robustdistiller.pretrain.multitask.heads import TaskHeads, load_heads
from robustdistiller.upstream import ChunkOptions, SpeechEncoder, load_encoder
from robustdistiller.upstream.export.onnx_file import save_model
from robustdistiller.upstream.export.quantize import quantize
from robustdistiller.upstream.export.stream import StreamGraph, StreamStep, trace_stream
from robustdistiller.upstream.model.streaming import forget

RATE_HZ = 16_000
VOICE = "en_US_f_Allison"
WORDS = ("bravo", "india", "kilo", "minutes", "oscar", "please try again", "press", "second", "star", "thank you")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
WINDOW_FRAMES = 50  # the second that a decision is made from


class Spotter(StreamStep):
    """A step of a student and of its keyword head, which sees the mean of the last second's frames."""

    names = ("probabilities",)

    def __init__(self, student: StreamGraph, classify: torch.nn.Linear):
        super().__init__()
        self.student, self.classify, self.notes = student, classify, student.notes

    def initial_state(self, streams: int) -> dict[str, torch.Tensor]:
        """That of the student, and the last second's frames with which of them are there: zeros."""
        recent = torch.zeros(streams, WINDOW_FRAMES, self.classify.in_features)
        return {**self.student.initial_state(streams), "recent": recent, "heard": recent[..., 0].clone()}

    def forward(self, samples, num_samples, begins, state):
        """Probabilities ``(streams, classes)``, valid frames, and the next state."""
        state = forget(state, begins)
        recent, heard = state.pop("recent"), state.pop("heard")
        (features,), frames, new = self.student(samples, num_samples, begins, state)
        valid = (torch.arange(features.shape[1]) < frames.unsqueeze(1)).float()
        new["recent"] = torch.cat([recent, features], dim=1)[:, -WINDOW_FRAMES:]
        new["heard"] = torch.cat([heard, valid], dim=1)[:, -WINDOW_FRAMES:]
        mean = (new["recent"] * new["heard"].unsqueeze(-1)).sum(1) / new["heard"].sum(1, keepdim=True).clamp(min=1)
        return [self.classify(mean).softmax(-1)], frames, new


Recordings = dict[str, list[np.ndarray]]


def read_words() -> tuple[Recordings, Recordings, list[np.ndarray]]:
    """Recordings of the words to train on, those to test on, and other speech of the voice."""
    training, testing, others = defaultdict(list), defaultdict(list), []
    for utterance, samples in read_audio(one for one in read_pack(mini.data_dir()) if one.voice == VOICE):
        if not is_speech(utterance, samples):
            continue
        audible = np.flatnonzero(np.abs(samples.astype(int)) > 500)
        samples = samples[audible[0] : audible[-1] + 1].astype(np.float32) / 32768
        word = utterance.text.lower().strip(" .!")
        if word in WORDS:
            (training if utterance.split == "train" else testing)[word].append(samples)
        elif utterance.split == "train":
            others.append(samples)
    return training, testing, others


def write_seconds(folder: Path, training: Recordings, others: list[np.ndarray], each: int, seed: int) -> None:
    """Seconds of speech as FOLDER/SPLIT/LABEL/NUMBER.wav: words between other speech, other speech, and silence."""
    generator = np.random.default_rng(seed)

    def other() -> np.ndarray:
        return others[generator.integers(len(others))]

    def gap() -> np.ndarray:
        return np.zeros(generator.integers(1000, 8000), np.float32)

    def paced(samples: np.ndarray) -> np.ndarray:
        """Said faster or slower, higher or lower, louder or quieter."""
        rate = int(generator.choice([17, 18, 19, 20, 21, 22, 23]))
        return resample_poly(samples, rate, 20).astype(np.float32) * float(generator.uniform(0.4, 1.2))

    def second(parts: list[np.ndarray], middle: int) -> np.ndarray:
        line = np.pad(np.concatenate(parts), RATE_HZ)
        return line[middle + RATE_HZ // 2 :][:RATE_HZ]

    for split, count in (("train", each), ("dev", max(each // 10, 2)), ("test", max(each // 10, 2))):
        for word, recordings in training.items():
            for number in range(count):
                before = [paced(other())[-RATE_HZ:], gap()]
                said = paced(recordings[number % len(recordings)])
                start, late = sum(map(len, before)), int(generator.integers(-1600, 4800))
                part = second([*before, said, gap(), paced(other())], start + len(said) // 2 + late)
                _write(folder / split / word / f"{number}.wav", part, generator)
                # Half of a word is none: the second ends within its first half, but for a quarter at most.
                end = start + len(said) // 2 - int(generator.integers(0, len(said) // 4))
                part = second([*before, said, gap(), paced(other())], end - RATE_HZ // 2)
                _write(folder / split / UNKNOWN / f"{word} {number}.wav", part, generator)
        for number in range(4 * count):
            parts = [paced(other()), gap(), paced(other())]
            middle = int(generator.integers(sum(map(len, parts))))
            _write(folder / split / UNKNOWN / f"{number}.wav", second(parts, middle), generator)
            _write(folder / split / SILENCE / f"{number}.wav", np.zeros(RATE_HZ, np.float32), generator)


def _write(path: Path, samples: np.ndarray, generator: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    floor = generator.normal(0, 10 ** generator.uniform(-4.5, -3), len(samples))
    soundfile.write(path, samples + floor, RATE_HZ)


def write_test(out: Path, testing: Recordings, others: list[np.ndarray], seed: int) -> None:
    """test.wav, the words to test on between other speech, and test.tsv, where they are."""
    generator = np.random.default_rng(seed)
    parts, rows, place = [], [], 0
    for word in generator.permutation(sorted(testing)):
        other = others[generator.integers(len(others))][: 3 * RATE_HZ]
        for samples, label in ((other, ""), (testing[word][0], str(word))):
            silence = np.zeros(int(generator.uniform(0.4, 0.9) * RATE_HZ), np.float32)
            place += len(silence)
            if label:
                rows.append((f"{place / RATE_HZ:.2f}", f"{(place + len(samples)) / RATE_HZ:.2f}", label))
            place += len(samples)
            parts += [silence, samples]
    soundfile.write(out / "test.wav", np.concatenate([*parts, np.zeros(RATE_HZ, np.float32)]), RATE_HZ)
    with (out / "test.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("start_s", "end_s", "word"), *rows])


def make_student(work: Path, corpus: mini.MiniCorpus, steps: int, seed: int) -> Path:
    """Distil the embedded teacher into two layers, in noise and rooms."""
    settings = {
        "teacher.checkpoint": mini.teacher_checkpoint(),
        **{"data.speech": corpus.pool, "data.noise": corpus.noise_train, "data.rir": corpus.rir_train},
        **{"data.max_samples": 48000, "data.num_workers": 0, "targets.layers": "[2,3,5]", "student.num_layers": 2},
        **{"objectives.enhancement.hidden_size": 64, "objectives.enhancement.num_layers": 1, "trainer.batch_size": 6},
        **{"trainer.accelerator": "cpu", "trainer.max_steps": steps, "optim.lr": 1e-3, "seed": seed},
        "out_dir": work / "student",
    }
    return distill(load_config("robustdistiller", [f"{key}={value}" for key, value in settings.items()]))


def make_head(work: Path, corpus: mini.MiniCorpus, student: Path, seconds: Path, steps: int, seed: int) -> Path:
    """Fine-tune the student for the words, in noise and rooms."""
    settings = {
        **{"student.checkpoint": student, "multitask.keywords.data": seconds},
        **{"multitask.keywords.words": "[]", "multitask.features": "last_hidden", "multitask.export": "last"},
        **{"multitask.dev_every_steps": steps, "data.noise": corpus.noise_train, "data.rir": corpus.rir_train},
        "corruption.tables": "[{clean: 0.2, 'noise:snr_db=-5..20': 0.5, 'noise+reverb:snr_db=0..20': 0.3}]",
        **{"data.num_workers": 0, "trainer.accelerator": "cpu", "trainer.max_steps": steps, "optim.lr": 1e-3},
        **{"seed": seed, "out_dir": work / "words"},
    }
    return distill(load_config("multitask_keywords", [f"{key}={value}" for key, value in settings.items()]))


def export(encoder: SpeechEncoder, heads: TaskHeads, out: Path, chunks: ChunkOptions) -> None:
    """Write a step of student and head, in float32 and with linear maps in int8."""
    spotter = Spotter(StreamGraph(encoder, [encoder.config.num_layers], chunks), heads["keywords"].classify).eval()
    notes = {
        "labels": heads.config.labels["keywords"],
        "stream": spotter.notes,
        "parameters": sum(weight.numel() for weight in spotter.parameters()),
        "sample_rate_hz": RATE_HZ,
    }
    save_model(trace_stream(spotter, opset=20), out / "keywords.onnx", notes)
    # onnxruntime-web does not show a file's notes.
    state = {
        f"state.{name}": [{torch.float32: "float32", torch.int64: "int64"}[value.dtype], *value.shape[1:]]
        for name, value in spotter.initial_state(1).items()
    }
    (out / "keywords.json").write_text(json.dumps({**notes, "state": state}), encoding="utf-8")
    quantize(out / "keywords.onnx", out / "keywords-int8.onnx")


def main(arguments: list[str] | None = None) -> None:
    """Make everything that is not there yet."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=here / "model", help="folder for the model and the test")
    parser.add_argument("--work", type=Path, default=here / "work", help="folder for what is needed to make them")
    parser.add_argument("--corpus", type=Path, help="folder of the embedded corpus, built where it is not there")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of the distillation")
    parser.add_argument("--word-steps", type=int, default=600, help="optimizer steps for the words")
    parser.add_argument("--each", type=int, default=60, help="seconds of speech made from each word")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    training, testing, others = read_words()
    write_test(given.out, testing, others[::2], given.seed)
    seconds = given.work / f"seconds-{given.each}-{given.seed}"
    if not seconds.is_dir():
        partial = seconds.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        write_seconds(partial, training, others[1::2], given.each, given.seed)
        partial.rename(seconds)
    corpus = mini.build(given.corpus or given.work / "corpus", progress=False)
    student = make_student(given.work, corpus, given.steps, given.seed)
    head = make_head(given.work, corpus, student, seconds, given.word_steps, given.seed)
    encoder, heads = load_encoder(head.parent / "student.ckpt").eval(), load_heads(head.parent / "heads.ckpt").eval()
    export(encoder, heads, given.out, ChunkOptions(chunk_frames=8, left_frames=100))
    print(f"{given.out}: keywords.onnx, keywords-int8.onnx, test.wav, test.tsv")


if __name__ == "__main__":
    main()
