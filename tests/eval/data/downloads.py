"""Tiny corpora as they come out of their downloads, before anything is prepared for s3prl."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

MIXTURES = {
    "train-100": ("103-1240-0000_1034-121119-0001", "103-1240-0002_1040-133433-0003"),
    "dev": ("84-121123-0000_174-50561-0001", "84-121123-0002_174-50561-0003"),
    "test": ("61-70968-0000_121-121726-0001", "61-70968-0002_121-121726-0003"),
}
RTTM = {"train-100": "train_clean_100", "dev": "dev_clean", "test": "test_clean"}


def audio(path: Path, duration_s: float = 0.5, sample_rate_hz: int = 16000, **options) -> Path:
    """Noise that depends on the file's name only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(duration_s * sample_rate_hz))
    soundfile.write(path, samples, sample_rate_hz, **options)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def libri2mix(root: Path) -> Path:
    """Both modes, and the times of speech as in LibriMix's repository beside it."""
    for split, mixtures in MIXTURES.items():
        lines = []
        for number, name in enumerate(mixtures):
            for kind in ("mix_clean", "s1", "s2"):
                audio(root / "Libri2Mix" / "wav16k" / "min" / split / kind / f"{name}.wav", 1.0)
            audio(root / "Libri2Mix" / "wav16k" / "max" / split / "mix_both" / f"{name}.wav", 2.0)
            for voice, utterance in enumerate(name.split("_")):
                speaker, _, rest = utterance.partition("-")
                begin = 0.25 + 0.5 * voice
                lines.append(f"SPEAKER {rest} 1 {begin} 0.5 <NA> <NA> {speaker} <NA> <NA>")
                if number == 0:  # it pauses
                    lines.append(f"SPEAKER {rest} 1 {begin + 0.75} 0.25 <NA> <NA> {speaker} <NA> <NA>")
        text(root / "metadata" / "LibriSpeech" / f"{RTTM[split]}.rttm", *lines)
    return root / "Libri2Mix"


def voicebank(root: Path, sample_rate_hz: int) -> Path:
    suffix = "_16k" if sample_rate_hz == 16000 else ""
    for kind in ("noisy", "clean"):
        for part, names in {
            "trainset_28spk_wav": ("p226_001", "p287_002", "p227_001", "p228_004"),
            "testset_wav": ("p232_001", "p257_003"),
        }.items():
            for name in names:
                audio(root / f"{kind}_{part}{suffix}" / f"{name}.wav", 0.5, sample_rate_hz, subtype="PCM_16")
    return root


def snips_mp3(root: Path, sentences: int = 2) -> Path:
    """The first release: a folder for each voice; and the two text files of the preprocessed one beside it."""
    labels = []
    for split, voices in {"train": ("Ivy", "Joey"), "valid": ("Amy",), "test": ("Brian",)}.items():
        for voice in ("Aditi", *voices):  # Aditi belongs to valid only: s3prl leaves the others out
            for number in range(sentences):
                name = f"snips-{split}-{number}"
                audio(root / "audio_slu" / f"audio_{voice}" / "snips" / f"{name}.mp3", 0.6, 22050)
                labels.append(f"{voice}-{name} BOS PLAY SOME JAZZ EOS\tO O O genre AddToPlaylist")
    text(root / "SNIPS" / "all.iob.snips.txt", *labels)
    (root / "SNIPS" / "slots.txt").write_text("O\ngenre\nartist", encoding="utf-8")
    return root / "audio_slu"


def voxceleb1(root: Path, layout: str) -> Path:
    """``plain`` as s3prl wants it, ``unpacked`` as the archives are named, or ``mixed`` in one folder."""
    places = {
        "plain": ("dev/wav", "test/wav"),
        "unpacked": ("vox1_dev_wav/wav", "vox1_test_wav/wav"),
        "mixed": ("wav", "wav"),
    }[layout]
    split, trials = [], []
    for place, speakers in zip(places, (("id10001", "id10002"), ("id10270", "id10271"))):
        for speaker in speakers:
            for part in (1, 2, 3):
                name = f"{speaker}/video{part}/00001.wav"
                audio(root / place / name, 0.1)
                split.append(f"{part} {name}")
    for first, second in (("id10270", "id10270"), ("id10270", "id10271"), ("id10271", "id10271")):
        trials.append(f"{int(first == second)} {first}/video1/00001.wav {second}/video2/00001.wav")
    text(root / "iden_split.txt", *split)
    text(root / "voxceleb1_test_v2.txt", *trials)
    return root
