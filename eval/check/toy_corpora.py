"""Tiny corpora of tones and noise in the exact layouts that s3prl's SUPERB downstreams read.

Every builder writes below ``root`` and returns the ``-o`` overrides that point s3prl at it, with settings that let a
few training steps run on one core. The audio depends on its seed only. Scores on it mean nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from robustdistiller.common.audio import SAMPLE_RATE_HZ

EXPERT = "config.downstream_expert"
RNN_SMALL = {f"{EXPERT}.modelrc.project_dim": 16, f"{EXPERT}.modelrc.RNNs.dim": [8, 8]}


def voice(name: str, duration_s: float, sample_rate_hz: int = SAMPLE_RATE_HZ, pitch_hz: float = 0.0) -> np.ndarray:
    """A buzz with syllables: harmonics of a pitch, switched on and off four times a second, over a little noise."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    pitch_hz = pitch_hz or rng.uniform(100, 250)
    harmonics = sum(np.sin(2 * np.pi * pitch_hz * k * time_s + rng.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 4 * time_s + rng.uniform(0, 6)) + 0.5, 0, 1)
    return 0.2 * harmonics * syllables + 0.002 * rng.standard_normal(len(time_s))


def write(
    path: Path,
    duration_s: float = 0.5,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    name: str | None = None,
    pitch_hz: float = 0.0,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = voice(name or path.name, duration_s, sample_rate_hz, pitch_hz)
    soundfile.write(path, samples / max(1.0, np.abs(samples).max()), sample_rate_hz, subtype="PCM_16")


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _speech_commands_speakers(development: bool, count: int) -> list[str]:
    """Speaker hashes that Speech Commands' own rule puts into the development or the training set."""
    names = []
    for number in range(10_000):
        name = f"{number:08x}"
        share = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 2**27 * 100 / (2**27 - 1)
        if share < 10 if development else share >= 20:
            names.append(name)
        if len(names) == count:
            break
    return names


def speech_commands(root: Path) -> dict[str, Any]:
    for word, pitch_hz in (("yes", 100), ("no", 400), ("bird", 900)):
        for speaker in _speech_commands_speakers(True, 1) + _speech_commands_speakers(False, 2):
            write(root / "train" / word / f"{speaker}_nohash_0.wav", pitch_hz=pitch_hz)
    write(root / "train" / "_background_noise_" / "hum.wav", 1.2)
    for folder, pitch_hz in (("yes", 100), ("no", 400), ("_unknown_", 900), ("_silence_", 2000)):
        write(root / "test" / folder / "cafe_nohash_0.wav", name=folder, pitch_hz=pitch_hz)
    return {
        f"{EXPERT}.datarc.speech_commands_root": str(root / "train"),
        f"{EXPERT}.datarc.speech_commands_test_root": str(root / "test"),
        f"{EXPERT}.datarc.batch_size": 2,
    }


def fluent_commands(root: Path) -> dict[str, Any]:
    intents = [("activate", "lamp", "kitchen"), ("deactivate", "music", "none"), ("activate", "music", "bedroom")]
    for split, count in (("train", 6), ("valid", 3), ("test", 3)):
        rows = [",path,speakerId,transcription,action,object,location"]
        for index in range(count):
            path = f"wavs/speakers/spk{index % 2}/{split}{index}.wav"
            write(root / path, pitch_hz=(100, 400, 900)[index % 3])
            rows.append(f"{index},{path},spk{index % 2},words,{','.join(intents[index % 3])}")
        text(root / "data" / f"{split}_data.csv", *rows)
    return {
        f"{EXPERT}.datarc.file_path": str(root),
        f"{EXPERT}.datarc.train_batch_size": 2,
        f"{EXPERT}.datarc.eval_batch_size": 2,
    }


def voxceleb1(root: Path) -> dict[str, Any]:
    lines = []
    for speaker, pitch_hz in (("id10001", 100), ("id10002", 400)):
        for part in (1, 2, 3):
            for number in range(2):
                path = f"{speaker}/video{part}/{number:05d}.wav"
                write(root / "dev" / "wav" / path, name=path, pitch_hz=pitch_hz)
                lines.append(f"{part} {path}")
    return {
        f"{EXPERT}.datarc.file_path": str(root),
        f"{EXPERT}.datarc.meta_data": str(text(root / "split.txt", *lines)),
        f"{EXPERT}.datarc.train_batch_size": 2,
    }


def iemocap(root: Path) -> dict[str, Any]:
    """Five sessions; the metadata is written by s3prl's own preprocessing, as users do."""
    from s3prl.downstream.emotion.IEMOCAP_preprocess import main

    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for index, label in enumerate(("neu", "hap", "ang", "sad", "exc", "xxx")):
            name = f"{dialog}_F{index:03d}"
            write(root / f"Session{session}" / "sentences" / "wav" / dialog / f"{name}.wav")
            lines.append(f"[{index}.0 - {index}.5]\t{name}\t{label}\t[2.5, 2.5, 2.5]")
        text(root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialog}.txt", *lines)
    main(str(root))
    return {
        f"{EXPERT}.datarc.root": str(root),
        f"{EXPERT}.datarc.meta_data": str(root / "meta_data"),
        f"{EXPERT}.datarc.train_batch_size": 2,
    }


def librispeech(root: Path) -> Path:
    """Four splits of one speaker, one chapter, words of one letter lexicon."""
    sentences = ("THE CAT SAT", "A CAT", "IT'S THE MAT", "SAT A CAT")
    counts = {"train-clean-100": 4, "dev-clean": 2, "test-clean": 2, "test-other": 3}
    for speaker, (split, count) in enumerate(counts.items(), start=11):
        folder = root / split / str(speaker) / "7"
        for index in range(count):
            write(folder / f"{speaker}-7-{index:04d}.flac", 1.0 + 0.1 * index)
        text(
            folder / f"{speaker}-7.trans.txt",
            *(f"{speaker}-7-{index:04d} {sentences[index]}" for index in range(count)),
        )
    return root


def asr(root: Path) -> dict[str, Any]:
    librispeech(root / "LibriSpeech")
    for split in ("train-clean-100", "dev-clean", "test-clean", "test-other"):
        files = sorted((root / "LibriSpeech" / split).rglob("*.flac"), reverse=True)
        rows = [
            f"{index},{file.relative_to(root / 'LibriSpeech')},{soundfile.info(file).frames},"
            for index, file in enumerate(files)
        ]
        text(root / "buckets" / f"{split}.csv", ",file_path,length,label", *rows)
    return {
        f"{EXPERT}.datarc.libri_root": str(root / "LibriSpeech"),
        f"{EXPERT}.datarc.bucket_file": str(root / "buckets"),
        f"{EXPERT}.datarc.batch_size": 4,
        **RNN_SMALL,
    }


def libriphone(root: Path) -> dict[str, Any]:
    librispeech(root / "LibriSpeech")
    first = text(root / "lexicon-1.txt", "THE DH AH0", "CAT K AE1 T", "SAT S AE1 T", "THE DH IY1")
    second = text(root / "lexicon-2.txt", "A AH0", "IT'S IH1 T S", "MAT M AE1 T")
    return {
        f"{EXPERT}.corpus.path": str(root / "LibriSpeech"),
        f"{EXPERT}.corpus.lexicon": [str(first), str(second)],
        f"{EXPERT}.corpus.batch_size": 2,
        "config.runner.gradient_accumulate_steps": 1,
    }


def snips(root: Path) -> dict[str, Any]:
    labels = []
    for split, speakers in (("train", ("Ivy", "Joey")), ("valid", ("Amy",)), ("test", ("Brian", "Emma"))):
        for speaker in speakers:
            for index in range(2):
                name = f"{speaker}-snips-{split}-{index}"
                write(root / split / f"{name}.wav", 1.0)
                labels.append(f"{name} BOS PLAY SOME JAZZ EOS\tO O O genre AddToPlaylist")
    write(root / "train" / "Ivy-snips-train-unlabelled.wav")
    text(root / "all.iob.snips.txt", *labels)
    text(root / "slots.txt", "O", "genre", "artist")
    return {
        f"{EXPERT}.corpus.path": str(root),
        f"{EXPERT}.text.slots_file": str(root / "slots.txt"),
        f"{EXPERT}.corpus.batch_size": 2,
        f"{EXPERT}.model.project_dim": 16,
        f"{EXPERT}.model.RNNs.dim": [8, 8],
    }


def voxceleb1_trials(root: Path) -> dict[str, Any]:
    for split, speakers in (("dev", ("id10001", "id10002")), ("test", ("id10270", "id10271"))):
        for speaker in speakers:
            for number in range(2):
                path = f"{speaker}/video1/{number:05d}.wav"
                write(root / split / "wav" / path, 3.5, name=path)
        first, second = (f"{speaker}/video1/" for speaker in speakers)
        text(
            root / f"{split}_trials.txt",
            f"1 {first}00000.wav {first}00001.wav",
            f"0 {first}00000.wav {second}00000.wav",
            f"1 {second}00000.wav {second}00001.wav",
            f"0 {second}00001.wav {first}00001.wav",
        )
    return {
        f"{EXPERT}.datarc.file_path": str(root),
        f"{EXPERT}.datarc.dev_meta_data": str(root / "dev_trials.txt"),
        f"{EXPERT}.datarc.test_meta_data": str(root / "test_trials.txt"),
        f"{EXPERT}.datarc.train_batch_size": 2,
        f"{EXPERT}.modelrc.input_dim": 16,
        f"{EXPERT}.modelrc.module_config.XVector.agg_dim": 24,
        "config.runner.gradient_accumulate_steps": 1,
    }


def libri2mix_diarization(root: Path) -> dict[str, Any]:
    for split in ("train", "dev", "test"):
        folder = root / split
        scp, utt2spk, segments, durations, rttm = [], [], [], [], []
        for index in range(2):
            recording = f"{split}{index}"
            write(folder / "wav" / f"{recording}.wav", 2.0)
            scp.append(f"{recording} {folder / 'wav' / recording}.wav")
            durations.append(f"{recording} 2.0")
            for speaker, (start, end) in {"spkA": (0.0, 1.2), "spkB": (0.8, 2.0)}.items():
                utt2spk.append(f"{speaker}_{recording} {speaker}")
                segments.append(f"{speaker}_{recording} {recording} {start:.2f} {end:.2f}")
                rttm.append(f"SPEAKER {recording} 1 {start:.2f} {end - start:.2f} <NA> <NA> {speaker} <NA>")
        text(folder / "wav.scp", *scp)
        text(folder / "utt2spk", *utt2spk)
        text(folder / "segments", *segments)
        text(folder / "rttm", *rttm)
        text(folder / "reco2dur", *durations)
        text(
            folder / "spk2utt",
            *(
                " ".join([speaker, *(line.split()[0] for line in utt2spk if line.endswith(speaker))])
                for speaker in ("spkA", "spkB")
            ),
        )
    return {
        **{f"{EXPERT}.loaderrc.{split}_dir": str(root / split) for split in ("train", "dev", "test")},
        f"{EXPERT}.loaderrc.train_batchsize": 1,
        f"{EXPERT}.modelrc.hidden_size": 8,
        "config.runner.gradient_accumulate_steps": 1,
    }


def quesst14(root: Path) -> dict[str, Any]:
    lists: dict[str, list[str]] = {"utterances": [], "dev": [], "eval": []}
    folders = {"utterances": "Audio", "dev": "dev_queries", "eval": "eval_queries"}
    for kind, folder in folders.items():
        for index in range(2):
            name = f"quesst14_{kind}_{index}.wav"
            write(root / folder / name, 1.0 if kind == "utterances" else 0.4, 8000)
            lists[kind].append(f"quesst14Database/{folder}/{name} nnenglish")
        lists[kind].append(f"quesst14Database/{folder}/other.wav czech")
        text(root / "scoring" / f"language_key_{kind}.lst", *lists[kind])
    for part in ("dev", "eval"):
        _quesst14_ground_truth(root / "scoring" / f"groundtruth_quesst14_{part}", part)
    return {f"{EXPERT}.datarc.dataset_root": str(root), f"{EXPERT}.max_workers": 1}


def _quesst14_ground_truth(folder: Path, part: str) -> None:
    """Files of QUESST's scorer: of all languages; the second query is said in no recording."""
    queries = [f"quesst14_{part}_0", f"quesst14_{part}_1", "other"]
    recordings = ["quesst14_utterances_0", "quesst14_utterances_1", "other"]
    terms = [f'<term termid="{query}"><termtext>{query}</termtext></term>' for query in queries]
    text(folder / f"quesst14_{part}.tlist.xml", '<?xml version="1.0"?>', "<termlist>", *terms, "</termlist>")
    excerpts = [
        f'<excerpt audio_filename="Audio/{name}.wav" channel="1" tbeg="0.000" dur="1.000"/>' for name in recordings
    ]
    text(folder / "quesst14.ecf.xml", '<?xml version="1.0"?>', "<ecf>", *excerpts, "</ecf>")
    said = [("quesst14_utterances_1", queries[0]), ("other", "other"), ("quesst14_utterances_0", "NO_KEYWORD")]
    text(
        folder / f"quesst14_{part}.rttm",
        *(f"LEXEME {recording} 1 0.0 0.4 {query} lex <NA> <NA>" for recording, query in said),
    )


def mixtures(mixture: str, *parts: str) -> Callable[[Path], dict[str, Any]]:
    """Kaldi folders of a mixture and its parts, for SE (one part, noise added) and SS."""

    def build(root: Path) -> dict[str, Any]:
        for split in ("train", "dev", "test"):
            tables: dict[str, list[str]] = {name: [] for name in (mixture, *parts)}
            for index in range(2):
                utterance = f"{split}{index}"
                audio = {part: 0.5 * voice(f"{part}{utterance}", 1.2) for part in parts}
                noise = np.random.default_rng(index).standard_normal(round(1.2 * SAMPLE_RATE_HZ))
                audio[mixture] = sum(audio.values()) + (0.02 * noise if len(parts) == 1 else 0)
                for name, samples in audio.items():
                    path = root / split / name / f"{utterance}.wav"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(path, samples, SAMPLE_RATE_HZ)
                    tables[name].append(f"{utterance} {path}")
            for name, lines in tables.items():
                text(root / split / name / "wav.scp", *lines)
        return {
            **{f"{EXPERT}.loaderrc.{split}_dir": str(root / split) for split in ("train", "dev", "test")},
            f"{EXPERT}.loaderrc.train_batchsize": 2,
            f"{EXPERT}.modelrc.hidden_size": 8,
        }

    return build


BUILDERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "KS": speech_commands,
    "IC": fluent_commands,
    "SID": voxceleb1,
    "ER": iemocap,
    "ASR": asr,
    "PR": libriphone,
    "SF": snips,
    "ASV": voxceleb1_trials,
    "SD": libri2mix_diarization,
    "QbE": quesst14,
    "SE": mixtures("noisy", "clean"),
    "SE2": mixtures("noisy", "clean"),
    "SS": mixtures("mix_clean", "s1", "s2"),
    "SS2": mixtures("mix_clean", "s1", "s2"),
}


def build(code: str, root: Path) -> dict[str, Any]:
    """Build the toy corpus of a task code and return its overrides, workers switched off."""
    overrides = BUILDERS[code](root)
    in_corpus, in_loader = ("PR", "SF"), ("SD", "SE", "SE2", "SS", "SS2")
    section = "corpus" if code in in_corpus else "loaderrc" if code in in_loader else "datarc"
    return {**overrides, f"{EXPERT}.{section}.num_workers": 0}


def as_option(overrides: Mapping[str, Any]) -> str:
    """The overrides as s3prl's ``-o`` argument."""
    return ",,".join(f"{key}={value!r}" for key, value in overrides.items())
